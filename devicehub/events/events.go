// Package events records what happens to objects, for people: devices that go
// and come back, nodes that join, samples that were dropped, writes that
// conflict. Whoever sees something raises it at a Book; what an edge saw comes
// with its log and is stored with that (see Of).
//
// A thing that happens again and again is one event with a count: all that is
// alike within Window is one row, whose key says so. So nothing needs to be
// known of what was stored before, counting is exact also after a crash, and
// what flaps a thousand times an hour costs a few rows.
package events

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Window is the time within which things that are alike become one event. It is
// counted from 1970, by the time at which they happened.
const Window = 10 * time.Minute

// What is kept: events for Age since they last happened, of one object at most
// PerObject, and Total in all.
const (
	Age       = 30 * 24 * time.Hour
	PerObject = 1000
	Total     = 200_000
)

// maxMessage bounds a message, and maxWord anything else, in bytes.
const (
	maxMessage = 1024
	maxWord    = 253
)

// Of is an occurrence as it is stored. node is whose log told of it, "" for the
// hub itself.
func Of(o models.Occurrence, node string, now time.Time) store.Event {
	at := o.Time
	if at.IsZero() || at.Year() < 1 || at.Year() > 9999 { // an edge without a clock; JSON has no such years
		at = now
	}
	at = at.UTC().Truncate(time.Microsecond)
	e := store.Event{Kind: cut(o.Object.Kind, maxWord), Namespace: cut(o.Object.Namespace, maxWord), Name: cut(o.Object.Name, maxWord), UID: cut(o.Object.UID, maxWord),
		Field: cut(o.Object.FieldPath, maxWord), Warning: o.Severity == models.SeverityWarning, Reason: cut(o.Reason, maxWord), Message: cut(o.Message, maxMessage),
		Source: cut(o.Source, maxWord), Node: cut(node, maxWord), First: at, Last: at, Count: 1, Recorded: now.UTC().Truncate(time.Microsecond)}
	e.Key = key(e, at)
	return e
}

// key names what is alike.
func key(e store.Event, at time.Time) string {
	us := at.UnixMicro()
	window := us / Window.Microseconds()
	if us%Window.Microseconds() < 0 {
		window--
	}
	h := sha256.New()
	for _, part := range []string{e.Kind, e.Namespace, e.Name, e.UID, e.Field, e.Reason, e.Node, strconv.FormatInt(window, 10)} {
		fmt.Fprintf(h, "%d:%s", len(part), part) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

func cut(s string, most int) string {
	if len(s) > most {
		s = s[:most-3] + "…"
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\x00", "")
}

// document is an event as readers get it.
func document(e *store.Event) models.LoggedEvent {
	d := models.LoggedEvent{TypeMeta: models.TypeMeta{APIVersion: models.APIVersionCore, Kind: "Event"},
		Metadata:       models.ObjectMeta{Name: e.Name + "." + e.Key, Namespace: e.Namespace, UID: e.Key, ResourceVersion: strconv.FormatInt(e.Revision, 10), CreationTimestamp: new(e.First.UTC())},
		InvolvedObject: models.ObjectReference{Kind: e.Kind, Namespace: e.Namespace, Name: e.Name, UID: e.UID, FieldPath: e.Field},
		Type:           models.SeverityNormal, Reason: e.Reason, Message: e.Message, Source: models.EventSource{Component: e.Source, Host: e.Node},
		FirstTimestamp: e.First.UTC(), LastTimestamp: e.Last.UTC(), Count: e.Count}
	if e.Warning {
		d.Type = models.SeverityWarning
	}
	return d
}

// query is how the store is asked.
func query(o models.EventOptions) (store.EventQuery, error) {
	q := store.EventQuery{Namespaces: o.Namespaces, HideKinds: o.HideKinds, Kind: o.Kind, Name: o.Name, UID: o.UID, Reason: o.Reason, Since: o.Since, Limit: o.Limit}
	if o.Type != "" {
		q.Warning = new(o.Type == models.SeverityWarning)
	}
	if o.Continue != "" {
		us, key, ok := strings.Cut(o.Continue, ".")
		at, err := strconv.ParseInt(us, 10, 64)
		if !ok || err != nil || key == "" {
			return q, models.BadParameter(models.KindMalformed, "continue", "must be what the page before gave, got %.40q", o.Continue)
		}
		q.BeforeUS, q.BeforeKey = at, key
	}
	return q, nil
}

func place(e *store.Event) string { return strconv.FormatInt(e.Last.UnixMicro(), 10) + "." + e.Key }
