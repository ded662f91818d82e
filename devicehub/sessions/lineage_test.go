package sessions

import (
	"fmt"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// log is a node's log as its file is, for telling what its hello would say.
type log struct {
	epochs []*pb.Epoch // all there ever were
	last   uint64
	acked  uint64 // told by the hub
}

// start begins an epoch, as a start of the process does.
func (l *log) start(id string) {
	e := &pb.Epoch{Id: id, ParentLast: l.last}
	if n := len(l.epochs); n > 0 {
		e.Parent = l.epochs[n-1].Id
	}
	l.epochs = append(l.epochs, e)
}

func (l *log) write(n uint64) { l.last += n; l.epochs[len(l.epochs)-1].Last = l.last }

func (l *log) copy() *log {
	c := &log{last: l.last, acked: l.acked}
	for _, e := range l.epochs {
		c.epochs = append(c.epochs, &pb.Epoch{Id: e.Id, Parent: e.Parent, ParentLast: e.ParentLast, Last: e.Last})
	}
	return c
}

// drop forgets records, as a full outbox does.
func (l *log) drop() { l.acked = l.last }

// hello says what outbox.Epochs would: the epochs that hold unacknowledged
// records, and the current one.
func (l *log) hello() *pb.Hello {
	h := &pb.Hello{Lineage: "L"}
	for i, e := range l.epochs {
		out := &pb.Epoch{Id: e.Id, Parent: e.Parent, ParentLast: e.ParentLast, Last: e.Last}
		if e.Last > 0 && l.acked > e.ParentLast {
			out.Acked = min(l.acked, e.Last)
		}
		if e.Last > max(l.acked, e.ParentLast) {
			out.First = max(l.acked, e.ParentLast) + 1
		}
		if out.First != 0 || i == len(l.epochs)-1 {
			h.Epochs = append(h.Epochs, out)
		}
	}
	return h
}

// hubLog is what a hub knows of it.
type hubLog struct{ known []store.Epoch }

func (h *hubLog) copy() *hubLog { return &hubLog{append([]store.Epoch(nil), h.known...)} }

// meet connects the two, and returns what the hub finds.
func (h *hubLog) meet(l *log) string {
	hello := l.hello()
	findings := compareLogs("L", h.known, hello)
	for _, e := range hello.Epochs {
		if h.find(e.Id) == nil {
			h.known = append(h.known, store.Epoch{ID: e.Id, Rank: uint64(len(h.known) + 1)})
		}
	}
	return told(findings)
}

func told(findings []finding) string {
	var out []string
	for _, f := range findings {
		out = append(out, fmt.Sprintf("%s %s %d-%d", f.reason, f.gap.Epoch, f.gap.FirstSeq, f.gap.LastSeq))
	}
	return strings.Join(out, ", ")
}

func (h *hubLog) find(id string) *store.Epoch {
	for i := range h.known {
		if h.known[i].ID == id {
			return &h.known[i]
		}
	}
	return nil
}

// take commits all that the log holds up to seq.
func (h *hubLog) take(l *log, seq uint64) {
	for _, e := range l.hello().Epochs {
		if up := min(e.Last, seq); up > e.ParentLast && e.Last > 0 {
			k := h.find(e.Id)
			k.Acked = max(k.Acked, up)
		}
	}
	l.acked = max(l.acked, seq)
}

func TestCompareLogs(t *testing.T) {
	// usual is a log with 57 records that the hub has all of.
	usual := func() (*hubLog, *log) {
		h, l := &hubLog{}, &log{}
		l.start("A")
		if got := h.meet(l); got != "" {
			t.Fatalf("first contact: %s", got)
		}
		l.write(57)
		h.take(l, 57)
		return h, l
	}
	cases := map[string]struct {
		then func(h *hubLog, l *log) string
		want string
	}{
		"connected again":                {func(h *hubLog, l *log) string { return h.meet(l) }, ""},
		"a restart":                      {func(h *hubLog, l *log) string { l.start("B"); return h.meet(l) }, ""},
		"a restart with records waiting": {func(h *hubLog, l *log) string { l.write(3); l.start("B"); l.write(2); return h.meet(l) }, ""},
		"several restarts, offline, of which some had no records": {func(h *hubLog, l *log) string {
			for _, id := range []string{"B", "C", "D", "E", "F"} {
				l.start(id)
			}
			return h.meet(l)
		}, ""},
		"the same with records here and there": {func(h *hubLog, l *log) string {
			l.start("B")
			l.start("C")
			l.write(10)
			l.start("D")
			l.start("E")
			first := h.meet(l)
			h.take(l, l.last)
			l.start("F")
			l.start("G")
			return first + h.meet(l)
		}, ""},
		"epochs that the hub met and that had no records": {func(h *hubLog, l *log) string {
			l.start("B")
			first := h.meet(l)
			l.start("C")
			l.start("D")
			return first + h.meet(l)
		}, ""},
		"one after the other, each met, without records": {func(h *hubLog, l *log) string {
			out := ""
			for _, id := range []string{"B", "C", "D"} {
				l.start(id)
				out += h.meet(l)
			}
			l.write(4)
			h.take(l, l.last)
			for _, id := range []string{"E", "F", "G"} {
				l.start(id)
				out += h.meet(l)
			}
			l.write(3)
			l.start("H")
			return out + h.meet(l)
		}, ""},
		"the hub restored after an epoch without records": {func(h *hubLog, l *log) string {
			old := h.copy()
			l.write(10)
			h.take(l, 67)
			l.start("B")
			first := old.meet(l) // the older copy hears of it here
			l.start("C")
			return first + "; " + old.meet(l)
		}, "HubRestored A 58-67; HubRestored A 58-67"},
		"restarts of a node that never had anything to say": {func(*hubLog, *log) string {
			h, l := &hubLog{}, &log{}
			l.start("A")
			out := h.meet(l)
			for _, id := range []string{"B", "C", "D"} {
				l.start(id)
				l.start(id + "2")
				out += h.meet(l)
			}
			return out
		}, ""},
		"an answer that was lost": {func(h *hubLog, l *log) string {
			l.write(5)
			c := l.copy()
			h.take(c, 62) // l has not heard of it
			l.start("B")
			l.start("C")
			return h.meet(l)
		}, ""},
		"a copy with records waiting, which its original has delivered": {func(h *hubLog, l *log) string {
			l.write(3)
			c := l.copy()
			l.start("B")
			first := h.meet(l)
			l.write(4)
			h.take(l, 64)
			c.start("C")
			return first + h.meet(c) + h.meet(c)
		}, "LogEpochChanged B 0-0"},
		"a disk that was used with another node before": {func(_ *hubLog, l *log) string {
			l.start("B")
			l.start("C")
			return (&hubLog{}).meet(l)
		}, ""},
		"hub restored": {func(h *hubLog, l *log) string {
			old := h.copy()
			l.write(43)
			h.take(l, 100)
			return old.meet(l)
		}, "HubRestored A 58-100"},
		"hub restored to before the epoch": {func(h *hubLog, l *log) string {
			old := h.copy()
			l.start("B")
			h.meet(l)
			l.write(43)
			h.take(l, 100)
			return old.meet(l)
		}, "HubRestored B 58-100"},
		"hub restored, and the edge restarted": {func(h *hubLog, l *log) string {
			old := h.copy()
			l.write(43)
			h.take(l, 100)
			l.start("B")
			return old.meet(l)
		}, "HubRestored A 58-100"},
		"hub restored, and the edge restarted often": {func(h *hubLog, l *log) string {
			old := h.copy()
			l.write(43)
			h.take(l, 100)
			l.start("B")
			l.start("C")
			l.start("D")
			l.write(5)
			return old.meet(l)
		}, "HubRestored C 58-100"},
		"edge restored": {func(h *hubLog, l *log) string {
			old := l.copy()
			l.write(43)
			h.take(l, 100)
			old.start("B")
			return h.meet(old)
		}, "LogEpochChanged A 0-0"},
		"edge restored, and restarted often": {func(h *hubLog, l *log) string {
			old := l.copy()
			l.write(43)
			h.take(l, 100)
			old.start("B")
			old.start("C")
			old.start("D")
			return h.meet(old)
		}, "LogEpochChanged A 0-0"},
		"edge restored, of several epochs": {func(h *hubLog, l *log) string {
			old := l.copy()
			l.start("B")
			h.meet(l)
			l.write(43)
			h.take(l, 100)
			old.start("D")
			return h.meet(old)
		}, "LogEpochChanged B 0-0"},
		"a disk copied while it was off": {func(h *hubLog, l *log) string {
			clone := l.copy()
			clone.start("X")
			clone.write(4)
			first := h.meet(clone)
			h.take(clone, clone.last)
			l.start("B")
			return first + h.meet(l)
		}, "LogEpochChanged X 0-0"},
		"a new disk": {func(h *hubLog, _ *log) string {
			fresh := &log{}
			fresh.start("N")
			out := h.meet(fresh)
			fresh.start("O")
			fresh.start("P")
			return out + h.meet(fresh) // told once
		}, "LogEpochChanged A 0-0"},
		"a new disk, with records": {func(h *hubLog, _ *log) string {
			fresh := &log{}
			fresh.start("N")
			fresh.write(3)
			out := h.meet(fresh)
			h.take(fresh, 3)
			fresh.start("O")
			fresh.start("P")
			return out + h.meet(fresh)
		}, "LogEpochChanged A 0-0"},
		"records that a full outbox dropped": {func(h *hubLog, l *log) string {
			l.start("B")
			l.write(10)
			l.drop()
			l.start("C")
			hello := l.hello()
			hello.Epochs[0].Acked = 0 // it does not count as acknowledged
			return told(compareLogs("L", h.known, hello))
		}, "HubRestored B 58-67"}, // they are gone, whoever lost them
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := c.then(usual()); got != c.want {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
	h, l := usual()
	hello := l.hello()
	hello.Lineage = "another"
	if got := told(compareLogs("L", h.known, hello)); got != "HubRestored  0-0" {
		t.Errorf("another database: %q", got)
	}
	if got := told(compareLogs("L", nil, hello)); got != "" {
		t.Errorf("first contact with this database: %q", got)
	}
}
