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

// finding is something wrong with how a node's log continues.
type finding struct {
	reason  string // condition reason
	message string
	gap     store.Gap
}

// compareLogs says what is wrong between what the hub knows of a node's log and
// what its hello says. It is a pure decision.
//
//   - The edge knows more to be acknowledged than the hub does: the hub was
//     restored from an older copy, and what lies between is lost.
//   - A new epoch's parent is known to the hub to have gone further than the
//     edge remembers: the edge was restored from an older copy.
//   - A new epoch has no parent, or one the hub never met, although the hub has
//     known others: the edge has a new disk, or is another copy.
func compareLogs(lineage string, known []store.Epoch, hello *pb.Hello) (out []finding) {
	acked := map[string]uint64{}
	newest := ""
	for _, e := range known {
		acked[e.ID] = e.Acked
		newest = e.ID
	}
	inHello := map[string]bool{}
	for _, e := range hello.Epochs {
		inHello[e.Id] = true
	}
	for _, e := range hello.Epochs {
		hubAcked, met := acked[e.Id]
		switch {
		case e.Acked > hubAcked:
			out = append(out, finding{hubRestored, fmt.Sprintf("the edge had records up to %d acknowledged, this database has them up to %d", e.Acked, hubAcked),
				store.Gap{Reason: edgelink.GapHubRestored, Epoch: e.Id, FirstSeq: hubAcked + 1, LastSeq: e.Acked}})
		case met:
		case e.Parent == "" && newest != "":
			out = append(out, finding{logEpochChanged, "the node's log begins anew: a new disk, or the node joined again elsewhere",
				store.Gap{Reason: edgelink.GapLogEpochChanged, Epoch: newest}})
		case e.Parent != "":
			if parentAcked, parentMet := acked[e.Parent]; parentMet && parentAcked > e.ParentLast {
				out = append(out, finding{logEpochChanged, fmt.Sprintf("the node was restored from an older copy: its log ended at %d, and the hub has it up to %d", e.ParentLast, parentAcked),
					store.Gap{Reason: edgelink.GapLogEpochChanged, Epoch: e.Parent, FirstSeq: e.ParentLast + 1, LastSeq: parentAcked}})
			} else if newest != "" && newest != e.Parent && !inHello[e.Parent] && !inHello[newest] {
				out = append(out, finding{logEpochChanged, "the node's log does not continue the one that the hub knows: another copy of its disk has been in use",
					store.Gap{Reason: edgelink.GapLogEpochChanged, Epoch: newest}})
			}
		}
	}
	if len(out) == 0 && hello.Lineage != "" && hello.Lineage != lineage {
		out = append(out, finding{hubRestored, "the edge was linked to another database before",
			store.Gap{Reason: edgelink.GapHubRestored}})
	}
	return out
}

// welcome compares logs, notes what is wrong, and answers the hello.
func (m *Manager) welcome(ctx context.Context, s *session, hello *pb.Hello) (*pb.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	known, err := m.Log.Epochs(ctx, s.id.UID)
	if err != nil {
		return nil, fmt.Errorf("read epochs: %w", err)
	}
	findings := compareLogs(m.Lineage, known, hello)
	w := &pb.Welcome{Capability: edgelink.Meet(edgelink.Capability, hello.Capability), Lineage: m.Lineage, NodeUid: s.id.UID,
		WindowBytes: m.Window, ClockUs: m.now().UnixMicro()}
	for _, c := range edgelink.Capabilities() {
		if slices.Contains(hello.Capabilities, c) {
			w.Capabilities = append(w.Capabilities, c)
		}
	}
	for _, e := range hello.Epochs {
		started, err := m.Log.StartEpoch(ctx, s.id.UID, e.Id, m.now())
		if err != nil {
			return nil, fmt.Errorf("start epoch: %w", err)
		}
		s.ranks[e.Id] = started.Rank
		w.Acks = append(w.Acks, &pb.EpochAck{Epoch: e.Id, Seq: started.Acked})
	}
	if len(findings) > 0 {
		gaps := make([]store.Gap, len(findings))
		for i, f := range findings {
			gaps[i] = f.gap
			gaps[i].NodeUID, gaps[i].Recorded = s.id.UID, m.now()
			m.log.Error("a node's log does not continue", "node", s.id.Name, "reason", f.reason, "message", f.message)
		}
		if err := m.Log.AddGaps(ctx, gaps); err != nil {
			return nil, fmt.Errorf("note gaps: %w", err)
		}
	}
	return w, m.noteLineage(ctx, s, findings)
}

// noteLineage sets the node's LogContinuous condition from what was found now
// or, after a restart of the hub, noted before.
func (m *Manager) noteLineage(ctx context.Context, s *session, findings []finding) error {
	c := models.Condition{Type: "LogContinuous", Status: "True", Reason: "Continuous", LastTransitionTime: m.now().UTC()}
	if len(findings) > 0 {
		f := findings[0]
		c.Status, c.Reason, c.Message = "False", f.reason, f.message
	} else {
		err := m.Log.Gaps(ctx, s.id.UID, func(g store.Gap) error {
			switch g.Reason {
			case edgelink.GapHubRestored:
				c.Status, c.Reason = "False", hubRestored
			case edgelink.GapLogEpochChanged:
				c.Status, c.Reason = "False", logEpochChanged
			default:
				return nil
			}
			c.Message, c.LastTransitionTime = fmt.Sprintf("noted %s; samples may be missing around then", g.Recorded.UTC().Format(time.RFC3339)), g.Recorded.UTC()
			return nil
		})
		if err != nil {
			return fmt.Errorf("read gaps: %w", err)
		}
	}
	m.setCondition(s.id.Name, c)
	return nil
}
