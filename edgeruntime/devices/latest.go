package devices

import (
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// toldAll is what was announced of a device, and which part of it the latest
// lane has not told. It is under loop.mu.
type toldAll struct {
	values    []toldValue // by property
	writes    []toldWrite // by property
	state     stateTold
	stateDue  bool
	stateLost bool // no record holds it
	problem   string
	plan      []byte // JSON of the read plan
	planDue   bool
	full      bool   // the whole device is due
	seq       uint64 // newest record with something of the device
	open      bool   // there may be more of the device in that record, not taken yet
}

type toldValue struct {
	reported twin.Reported
	seq      uint64 // of the record that holds it, 0 for none
	due      bool
}

type toldWrite struct {
	write   twin.Write
	local   bool
	private bool
	due     bool
}

// newTold is what the former life of the device has announced.
func newTold(t *twin.Twin, state stateTold, problem string) toldAll {
	n := len(t.Properties())
	told := toldAll{values: make([]toldValue, n), writes: make([]toldWrite, n), state: state, problem: problem, full: true}
	for i := range n {
		told.values[i].reported = t.Reported(i)
		told.writes[i].write, _ = t.Write(i)
		told.writes[i].local = t.WriteIsLocal(i)
		told.writes[i].private = t.WriteIsPrivate(i)
	}
	return told
}

// take notes an announcement and reports whether the latest lane is to tell of it
// at once.
func (t *toldAll) take(l *loop, ann *announcement, c commit) (urgent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.seq = max(t.seq, c.seq)
	if c.err != nil {
		t.open = false // answers come in order: all of what was stored before has been taken
	} else if c.seq != 0 {
		t.open = len(l.waiting) > 0
	}
	for _, s := range ann.samples {
		v := &t.values[s.property]
		def := &l.d.defs[s.property]
		v.reported, v.seq = s.reported, c.seq
		v.due = def.Uplink != models.UplinkNone
		if !def.History || c.err != nil {
			v.seq = 0
			urgent = urgent || v.due
		}
	}
	for _, w := range ann.writes {
		if w.Property < 0 {
			continue
		}
		told := &t.writes[w.Property]
		// What is told late must not hide what was told since.
		if now, _ := l.twin.Write(w.Property); now.ID != "" && now.ID != w.Write.ID || told.write.ID == w.Write.ID && told.write.State.Final() && !w.Write.State.Final() {
			continue
		}
		*told = toldWrite{write: w.Write, local: w.Local, private: w.Private, due: true}
		urgent = true
	}
	if ann.state != nil {
		t.state, t.stateDue, t.stateLost = *ann.state, true, c.err != nil
		urgent = true
	}
	return urgent
}

// accepted tells once more of local writes that are the hub's desired values now,
// and reports whether there are any: what became of one before that the hub could
// not show.
func (t *toldAll) accepted(of *twin.Twin) (some bool) {
	for i := range t.writes {
		w := &t.writes[i]
		if now, _ := of.Write(i); w.local && now.ID == w.write.ID && !of.WriteIsLocal(i) {
			w.local, w.due, some = false, true, true
		}
	}
	return some
}

// LatestWanted says what Latest is to return.
type LatestWanted struct {
	Full bool // every device whole, at the start of a session
	// Values asks also for values that a record holds, where it is one after
	// Acked: the log lane is behind.
	Values bool
	Acked  uint64
}

// LatestWake wakes whoever tells the latest lane when there is something that does
// not wait: writes, states, problems, read plans, and values that no record holds.
func (m *Manager) LatestWake() <-chan struct{} { return m.latest }

// Latest returns what the latest lane has to tell; it counts as told then.
func (m *Manager) Latest(want LatestWanted) (out []*pb.LatestTwin) {
	for _, l := range m.loops() {
		if t := l.latest(want); t != nil {
			out = append(out, t)
		}
	}
	return out
}

func (l *loop) latest(want LatestWanted) *pb.LatestTwin {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.told
	full := want.Full || t.full
	// What is told counts as later than the record that it names. While more of that
	// record is to come, it must not: the hub would show the older value after the
	// newer one, or keep it.
	seq := t.seq
	if t.open {
		seq--
	}
	out := &pb.LatestTwin{Device: &pb.DeviceRef{Uid: l.d.uid, Assignment: l.d.assignment}, Seq: seq, Full: full, Problem: t.problem}
	some := full
	for i := range t.values {
		v := &t.values[i]
		def := &l.d.defs[i]
		if def.Uplink == models.UplinkNone || !v.reported.Known() {
			continue
		}
		// What is told of a write or the state overtakes the log lane, and takes along
		// what goes with it: nobody is to see a write confirmed beside the value from
		// before it.
		overtakes := t.stateDue || t.writes[i].due
		if full || v.due && (v.seq == 0 || overtakes || want.Values && v.seq > want.Acked) {
			out.Values = append(out.Values, latestValue(def.Name, v, min(v.seq, seq)))
			v.due, some = false, true
		}
	}
	for i := range t.writes {
		w := &t.writes[i]
		if w.write.ID == "" || !full && !w.due {
			continue
		}
		if e, ok := l.writeEvent(twin.WriteChange{Property: i, Name: l.d.defs[i].Name, Private: w.private, Write: w.write, Local: w.local}); ok {
			out.Writes = append(out.Writes, &pb.WriteEvent{Property: e.Property, Id: e.ID, State: e.State, Error: e.Error, TimeUs: micro(e.Time), Late: e.Late, Refused: e.Refused})
			some = true
		}
		w.due = false
	}
	if full || t.stateDue {
		out.State, out.StateReason = string(t.state.state), t.state.message
		if out.StateReason == "" {
			out.StateReason = string(t.state.reason)
		}
		t.stateDue, some = false, true
	}
	if (full || t.planDue) && len(t.plan) > 0 {
		out.ReadPlan = t.plan
		t.planDue, some = false, true
	}
	if !some {
		return nil
	}
	t.full = false
	if seen := l.twin.LastSeen; !seen.IsZero() {
		out.SeenUs, l.seenTold = micro(seen), seen
	}
	return out
}

func latestValue(property string, v *toldValue, seq uint64) *pb.LatestValue {
	kind, bits, text := v.reported.Value.Raw()
	return &pb.LatestValue{Property: property, Kind: uint32(kind), Bits: bits, Text: []byte(text), Quality: uint32(v.reported.Quality),
		Reason: string(v.reported.Reason), TimeUs: micro(v.reported.Time), SinceUs: micro(v.reported.Since), Seq: seq}
}

// Seen returns the devices that answered since the call before.
func (m *Manager) Seen() (out []*pb.Seen) {
	for _, l := range m.loops() {
		l.mu.Lock()
		if seen := l.twin.LastSeen; seen.After(l.seenTold) {
			l.seenTold = seen
			out = append(out, &pb.Seen{Uid: l.d.uid, SeenUs: micro(seen)})
		}
		l.mu.Unlock()
	}
	return out
}

// oldestWaiting is the seq of the oldest record that waits, or of the next one.
func oldestWaiting(epochs []*pb.Epoch) uint64 {
	next := uint64(1)
	for _, e := range epochs {
		if e.First != 0 {
			return e.First
		}
		next = max(next, e.Last+1, e.ParentLast+1)
	}
	return next
}

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
