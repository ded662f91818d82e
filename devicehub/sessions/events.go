package sessions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// Events is told what happens to nodes.
type Events interface {
	// Raise takes note; it never blocks.
	Raise(o models.Occurrence)
	// Note returns when it is stored, if that is possible.
	Note(ctx context.Context, o models.Occurrence)
}

// Reasons of events that are not conditions' too.
const (
	NodeReady    = "NodeReady"
	NodeNotReady = "NodeNotReady"
	clockOffset  = "ClockOffset"
)

// diskReady is the node's condition that tells whether the edge can store. It is there
// once the edge could not. Its reasons are events', too.
const (
	diskReady   = "DiskReady"
	cannotStore = "CannotStore"
	storesAgain = "StoresAgain"
)

// maxClockOffset is how far an edge's clock may be off before people are told:
// its samples then have times that others do not understand.
const maxClockOffset = 10 * time.Second

func (m *Manager) raise(node, uid string, severity models.Severity, reason, format string, args ...any) {
	if m.Events == nil {
		return
	}
	m.Events.Raise(occurrence(node, uid, severity, reason, fmt.Sprintf(format, args...)))
}

func occurrence(node, uid string, severity models.Severity, reason, message string) models.Occurrence {
	return models.Occurrence{Object: models.ObjectReference{Kind: "Node", Name: node, UID: uid}, Severity: severity, Reason: reason, Message: message, Source: "link"}
}

// ended raises that a node's session is over, unless it is the hub that stops.
func (s *session) ended(err error) {
	s.mu.Lock()
	bye := s.bye
	s.mu.Unlock()
	switch {
	case bye != nil && bye.Reason == edgelink.GoodbyeShutdown:
	case bye != nil:
		s.m.raise(s.id.Name, s.id.UID, models.SeverityWarning, NodeNotReady, "disconnected: %s", bye.Message)
	case errors.Is(err, errReplaced): // it is there again already
	default:
		s.m.raise(s.id.Name, s.id.UID, models.SeverityWarning, NodeNotReady, "disconnected: %s", cut(err.Error()))
	}
}

// judgeClock raises, once a session, that the edge's clock is off.
func (s *session) judgeClock() {
	if off := s.behind.Abs(); off > maxClockOffset && !s.clockTold {
		s.clockTold = true
		way := "behind"
		if s.behind < 0 {
			way = "ahead of"
		}
		s.m.raise(s.id.Name, s.id.UID, models.SeverityWarning, clockOffset, "the node's clock is %s %s the hub's: the times of its samples are its own", off.Round(time.Second), way)
	} else if off < maxClockOffset/2 {
		s.clockTold = false
	}
}

// judgeDisk notes whether the edge can store, and raises when that changes.
func (s *session) judgeDisk(failing string) {
	s.m.mu.Lock()
	is, told := s.m.nodeLocked(s.id.Name).conditions[diskReady]
	s.m.mu.Unlock()
	failed := told && is.Status == "False"
	next := models.Condition{Type: diskReady, Status: "True", Reason: storesAgain, LastTransitionTime: s.m.now().UTC()}
	if failing != "" {
		next.Status, next.Reason = "False", cannotStore
		next.Message = "the edge cannot store: " + failing + ". Live values go on; what it sees now will be missing in history, and what is desired waits"
	}
	switch {
	case failing == "" && !failed, failing != "" && is.Message == next.Message:
		return
	case failing == "":
		s.m.raise(s.id.Name, s.id.UID, models.SeverityNormal, storesAgain, "the edge stores again what it sees and what is desired")
	case !failed:
		s.m.raise(s.id.Name, s.id.UID, models.SeverityWarning, cannotStore, "%s", next.Message)
	}
	s.m.setCondition(s.id.Name, next)
}
