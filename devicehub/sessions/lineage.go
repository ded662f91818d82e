package sessions

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// The reasons of conditions that tell of a restored copy or a doubled identity.
const (
	logEpochChanged = "LogEpochChanged"
	hubRestored     = "HubRestored"

	duplicateIdentity = "DuplicateIdentity"
)

// lineageMemory is how long a node's condition tells of a log that did not
// continue.
const lineageMemory = 7 * 24 * time.Hour

// finding is something wrong with how a node's log continues.
type finding struct {
	reason  string // condition reason
	message string
	gap     store.Gap
}

// compareLogs says what is wrong between what the hub knows of a node's log, by
// rank, and what its hello says. It is a pure decision. FORMAT.md of edgelink
// has the rules of epochs; what is looked for is this:
//
//   - The edge was told that more is acknowledged than this database has, or
//     numbers are missing on both sides: the database is an older copy.
//   - A new epoch begins before the end of what the hub has: the edge's disk is
//     an older copy.
//   - A new epoch does not descend from the newest one that has records here:
//     another copy of the disk was in use, or the disk is a new one.
//
// An epoch that never had a record is in no hello but while it lasts, so that
// the parent of an epoch may be one that the hub has never met. Numbers then
// tell: they go on where they were.
func compareLogs(lineage string, known []store.Epoch, hello *pb.Hello) (out []finding) {
	if len(known) == 0 {
		return nil // the first contact of this node; what its disk was used for before is nobody's loss
	}
	met := map[string]store.Epoch{}
	var newest store.Epoch // that has records here
	for _, e := range known {
		met[e.ID] = e
		if e.Acked > 0 {
			newest = e
		}
	}
	inHello := map[string]bool{}
	for _, e := range hello.Epochs {
		inHello[e.Id] = true
	}
	restored := func(epoch string, from, to uint64) {
		out = append(out, finding{hubRestored, fmt.Sprintf("records %d to %d of the node's log are neither in this database nor at the edge any more: the database is an older copy, or the edge dropped them", from, to),
			store.Gap{Reason: edgelink.GapHubRestored, Epoch: epoch, FirstSeq: from, LastSeq: to}})
	}
	changed := func(epoch, format string, args ...any) {
		out = append(out, finding{logEpochChanged, fmt.Sprintf(format, args...), store.Gap{Reason: edgelink.GapLogEpochChanged, Epoch: epoch}})
	}
	covered := newest.Acked // the numbers up to here are in this database, or still at the edge
	for _, e := range hello.Epochs {
		here, isMet := met[e.Id]
		parent, parentMet := met[e.Parent]
		if parentMet && parent.Acked == 0 && newest.ID != "" && newest.Rank < parent.Rank {
			// It has no records here, and may never have had one: then it ended where the
			// one before it did.
			parent.ID, parent.Acked = newest.ID, newest.Acked
		}
		// Older records than those of an epoch that was delivered and dropped are no
		// longer waiting, unless in a copy.
		aside := parentMet && newest.Rank > parent.Rank && !inHello[newest.ID]
		switch {
		case isMet || inHello[e.Parent] && !aside:
		case e.Parent == "":
			if newest.ID != "" {
				changed(newest.ID, "the node's log begins anew: it has a new disk, or joined again elsewhere")
			}
		case parentMet && parent.Acked > e.ParentLast:
			changed(parent.ID, "the node's disk went back, to an older copy or by a loss of power: its log ended at %d, and this database has it up to %d", e.ParentLast, parent.Acked)
		case aside:
			changed(newest.ID, "the node's log does not continue the one that the hub knows: another copy of its disk has been in use")
		case parentMet && e.ParentLast > parent.Acked:
			restored(parent.ID, parent.Acked+1, e.ParentLast)
		case parentMet:
		case e.ParentLast < newest.Acked && e.ParentLast > 0:
			changed(newest.ID, "the node's disk went back, to an older copy or by a loss of power: its log ended at %d, and this database has it up to %d", e.ParentLast, newest.Acked)
		case e.ParentLast > covered:
			restored(e.Parent, covered+1, e.ParentLast)
		}
		if e.Acked > here.Acked {
			if from := max(here.Acked, e.ParentLast) + 1; from <= e.Acked {
				restored(e.Id, from, e.Acked)
			}
		}
		covered = max(covered, e.Last, e.ParentLast)
	}
	if len(out) == 0 && hello.Lineage != "" && hello.Lineage != lineage {
		out = append(out, finding{hubRestored, "the edge was linked to another database before",
			store.Gap{Reason: edgelink.GapHubRestored}})
	}
	return out
}

// welcome compares logs, notes what is wrong, and answers the hello.
func (m *Manager) welcome(ctx context.Context, s *session, hello *pb.Hello) (*pb.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, welcomeTimeout)
	defer cancel()
	known, err := m.Log.Epochs(ctx, s.id.UID)
	if err != nil {
		return nil, fmt.Errorf("read epochs: %w", err)
	}
	findings := compareLogs(m.Lineage, known, hello)
	// Before an epoch becomes known, or a crash between the two would hide the finding.
	if err := m.noteLineage(ctx, s, findings); err != nil {
		return nil, err
	}
	for _, f := range findings {
		// What the edge holds may have revisions that mean something else here.
		s.forget = s.forget || f.reason == hubRestored
	}
	// Before its epoch becomes known, too, for the same reason. A node without a
	// lineage that was here before has lost what it knew, and perhaps not its log.
	if len(findings) > 0 || hello.Lineage == "" && len(known) > 0 {
		if err := m.Registry.Forgot(ctx, s.id.Name, s.forget); err != nil {
			return nil, fmt.Errorf("note what the node has forgotten: %w", err)
		}
	}
	w := &pb.Welcome{Capability: edgelink.Meet(edgelink.Capability, hello.Capability), Lineage: m.Lineage, NodeUid: s.id.UID,
		WindowBytes: m.Window, ClockUs: m.now().UnixMicro()}
	for _, c := range slices.Concat(edgelink.Capabilities(), edgelink.Methods()) {
		if slices.Contains(hello.Capabilities, c) {
			w.Capabilities = append(w.Capabilities, c)
		}
	}
	for _, e := range hello.Epochs {
		i := slices.IndexFunc(known, func(k store.Epoch) bool { return k.ID == e.Id })
		if i < 0 {
			started, err := m.Log.StartEpoch(ctx, s.id.UID, e.Id, m.now())
			if err != nil {
				return nil, fmt.Errorf("start epoch: %w", err)
			}
			i, known = len(known), append(known, started)
		}
		s.ranks[e.Id] = known[i].Rank
		w.Acks = append(w.Acks, &pb.EpochAck{Epoch: e.Id, Seq: known[i].Acked})
	}
	return w, nil
}

// noteLineage stores what was found, once, and sets the node's LogContinuous
// condition from that or from what was noted before.
func (m *Manager) noteLineage(ctx context.Context, s *session, findings []finding) error {
	now := m.now()
	c := models.Condition{Type: "LogContinuous", Status: "True", Reason: "Continuous", LastTransitionTime: now.UTC()}
	type identity struct {
		reason, epoch string
		first, last   uint64
	}
	of := func(g store.Gap) identity { return identity{g.Reason, g.Epoch, g.FirstSeq, g.LastSeq} }
	noted := map[identity]bool{}
	err := m.Log.Gaps(ctx, s.id.UID, func(g store.Gap) error {
		reason := map[string]string{edgelink.GapHubRestored: hubRestored, edgelink.GapLogEpochChanged: logEpochChanged}[g.Reason]
		if reason == "" {
			return nil
		}
		noted[of(g)] = true
		if now.Sub(g.Recorded) < lineageMemory {
			c.Status, c.Reason, c.LastTransitionTime = "False", reason, g.Recorded.UTC()
			c.Message = fmt.Sprintf("noted %s; samples may be missing around then", g.Recorded.UTC().Format(time.RFC3339))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read gaps: %w", err)
	}
	var gaps []store.Gap
	for _, f := range findings {
		m.log.Error("a node's log does not continue", "node", s.id.Name, "reason", f.reason, "message", f.message)
		if g := f.gap; !noted[of(g)] {
			if m.Events != nil { // before the gap, which keeps it from being found again
				m.Events.Note(ctx, occurrence(s.id.Name, s.id.UID, models.SeverityWarning, f.reason, f.message))
			}
			g.NodeUID, g.Recorded = s.id.UID, now
			gaps = append(gaps, g)
		}
	}
	if len(gaps) > 0 {
		if err := m.Log.AddGaps(ctx, gaps); err != nil {
			return fmt.Errorf("note gaps: %w", err)
		}
	}
	if len(findings) > 0 {
		c.Status, c.Reason, c.Message, c.LastTransitionTime = "False", findings[0].reason, findings[0].message, now.UTC()
	}
	m.setCondition(s.id.Name, c)
	return nil
}
