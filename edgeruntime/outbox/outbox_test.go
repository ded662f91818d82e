package outbox

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

func TestEntryGoesThrough(t *testing.T) {
	l := start(t, quick(temp(t)))
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	seq := l.put(Entry{
		Device:  device,
		Samples: []Sample{{"temperature", models.Sample{Value: models.Float(71.5), Time: noon}}, {"mode", models.Sample{Quality: models.Bad, Reason: models.ReasonTimeout, Time: noon}}},
		Writes:  []edgelink.WriteEvent{{Property: "setpoint", ID: "w1", State: "applied", Time: noon}},
		Locals:  []edgelink.LocalDesired{{Property: "setpoint", ID: "w2", Value: models.Int(4), Base: 3, Time: noon, By: "panel"}},
		States:  []edgelink.StateEvent{{State: models.StateOnline, Time: noon}},
		Gaps:    []edgelink.Gap{{Reason: edgelink.GapHubRestored, Epoch: "E", FirstSeq: 1, LastSeq: 2}},
	})
	if seq != 1 {
		t.Fatalf("the first record has seq %d", seq)
	}
	records := l.next(Cursor{}, 1<<20)
	if len(records) != 1 || records[0].Seq != 1 || records[0].Epoch != l.Epoch() || records[0].Samples != 2 {
		t.Fatalf("got %+v", records)
	}
	d := decoded(t, records[0])
	if len(d.Series) != 2 || d.Series[0].At(0).Value != models.Float(71.5) || d.Series[1].At(0).Reason != models.ReasonTimeout || d.Series[1].Device != device {
		t.Errorf("series: %+v", d.Series)
	}
	if len(d.Writes) != 1 || d.Writes[0].Device != device || len(d.Locals) != 1 || d.Locals[0].Device != device ||
		len(d.States) != 1 || d.States[0].Device != device || len(d.Gaps) != 1 {
		t.Errorf("events: %+v", d)
	}
}

func TestEntriesShareARecord(t *testing.T) {
	cfg := quick(temp(t))
	cfg.Linger = time.Hour
	l := start(t, cfg)
	seqs := make(chan uint64, 4)
	done := func(seq uint64, err error) {
		if err != nil {
			t.Error(err)
		}
		seqs <- seq
	}
	for i := range int64(3) {
		if err := l.Append(t.Context(), numbered(i), done); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-seqs:
		t.Fatal("stored before its time")
	case <-time.After(50 * time.Millisecond):
	}
	e := numbered(3)
	e.Urgent = true
	if err := l.Append(t.Context(), e, done); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if seq := <-seqs; seq != 1 {
			t.Errorf("seq %d, want 1", seq)
		}
	}
	records := l.next(Cursor{}, 1<<20)
	if got := numbers(t, records[0]); !slices.Equal(got, []int64{0, 1, 2, 3}) {
		t.Errorf("record holds %v", got)
	}
}

func TestNextWindows(t *testing.T) {
	l := start(t, quick(temp(t)))
	for i := range int64(10) {
		l.put(numbered(i))
	}
	first := l.next(Cursor{}, 1)
	if len(first) != 1 || first[0].Seq != 1 {
		t.Fatalf("maxBytes 1 gave %s", describe(first))
	}
	size := len(first[0].Data)
	rest := l.next(first[0].Cursor(), 4*size)
	if len(rest) != 4 || rest[0].Seq != 2 {
		t.Fatalf("four records' bytes after the first gave %s", describe(rest))
	}
	if again := l.next(Cursor{}, 1); again[0].Seq != 1 || !bytes.Equal(again[0].Data, first[0].Data) {
		t.Fatal("an unacknowledged record is not given again as it was")
	}
	if err := l.Ack(l.Epoch(), 4); err != nil {
		t.Fatal(err)
	}
	if after := l.next(Cursor{}, 1<<20); len(after) != 6 || after[0].Seq != 5 {
		t.Fatalf("after ack 4: %s", describe(after))
	}
	eventually(t, "acknowledged records leave the file", func() bool { return l.Stats().Records == 6 })
	for _, ack := range []struct {
		epoch string
		seq   uint64
		err   error
	}{{l.Epoch(), 2, nil}, {l.Epoch(), 11, ErrUnknownSeq}, {"01GONE", 99, nil}} {
		if err := l.Ack(ack.epoch, ack.seq); !errors.Is(err, ack.err) {
			t.Errorf("ack %v: %v", ack, err)
		}
	}
	if got := l.next(Cursor{}, 1<<20); len(got) != 6 {
		t.Errorf("late and mad acks left %s", describe(got))
	}
	if err := l.Ack(l.Epoch(), 10); err != nil {
		t.Fatal(err)
	}

	// Now Next blocks until something comes.
	woke := make(chan []Record)
	go func() {
		records, err := l.Next(t.Context(), Cursor{}, 1<<20)
		if err != nil {
			t.Error(err)
		}
		woke <- records
	}()
	l.put(numbered(10))
	if got := <-woke; len(got) != 1 || got[0].Seq != 11 {
		t.Errorf("woke with %s", describe(got))
	}
	stats := l.Stats()
	if stats.LastSeq != 11 || stats.AckedSeq != 10 || stats.Epoch != l.Epoch() || stats.Oldest.IsZero() {
		t.Errorf("stats %+v", stats)
	}
}

func TestEpochs(t *testing.T) {
	path := temp(t)
	l := start(t, quick(path))
	if got := l.Epochs(); len(got) != 1 || got[0].Parent != "" || got[0].First != 0 || got[0].Last != 0 {
		t.Fatalf("a new log says %v", got)
	}
	a := l.Epoch()
	l.put(numbered(1), numbered(2), numbered(3))
	l.stop()

	l = start(t, quick(path)) // a life in which nothing happens
	l.stop()

	l = start(t, quick(path))
	c := l.Epoch()
	l.put(numbered(4))
	epochs := l.Epochs()
	if len(epochs) != 2 || epochs[0].Id != a || epochs[0].First != 1 || epochs[0].Last != 3 || epochs[1].Id != c || epochs[1].First != 4 || epochs[1].Last != 4 || epochs[1].ParentLast != 3 {
		t.Fatalf("epochs %v", epochs)
	}
	records := l.all()
	if len(records) != 4 || records[2].Epoch != a || records[3].Epoch != c || records[3].Seq != 4 {
		t.Fatalf("records %s", describe(records))
	}
	// The hub may have more of a former epoch than this log remembers.
	if err := l.Ack(a, 7); err != nil {
		t.Fatal(err)
	}
	if got := l.all(); len(got) != 1 || got[0].Epoch != c {
		t.Fatalf("after the ack of the first epoch: %s", describe(got))
	}
	eventually(t, "the first epoch is forgotten", func() bool { e := l.Epochs(); return len(e) == 1 && e[0].Id == c })
	l.stop()
	l = start(t, quick(path))
	if e := l.Epochs(); len(e) != 2 || e[0].Id != c || e[0].First != 4 || e[1].Parent != c || e[1].ParentLast != 4 {
		t.Fatalf("after all: %v", e)
	}
	if seq := l.put(numbered(5)); seq != 5 {
		t.Errorf("seq %d after four", seq)
	}
}

func TestSeqsGoOnAfterAnEmptyLog(t *testing.T) {
	path := temp(t)
	l := start(t, quick(path))
	last := l.put(numbered(1), numbered(2))
	if err := l.Ack(l.Epoch(), last); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is empty", func() bool { return l.Stats().Records == 0 })
	l.stop()
	l = start(t, quick(path))
	if seq := l.put(numbered(3)); seq != 3 {
		t.Errorf("seq %d, want 3", seq)
	}
}

// TestRestoredCopy: two disks with one past never say different things under one number.
func TestRestoredCopy(t *testing.T) {
	path, other := temp(t), temp(t)
	l := start(t, quick(path))
	l.put(numbered(1), numbered(2))
	copyFiles(t, path, other)
	l.put(numbered(3), numbered(4))
	twin := start(t, quick(other))
	twin.put(numbered(30), numbered(40))

	said := map[string]string{}
	for _, r := range append(l.all(), twin.all()...) {
		key := describe([]Record{r})
		if was, ok := said[key]; ok && was != string(r.Data) {
			t.Errorf("%s was said twice, differently", key)
		}
		said[key] = string(r.Data)
	}
	if len(said) != 6 {
		t.Errorf("%d different records, want 6", len(said))
	}
	if e := twin.Epochs(); e[len(e)-1].Parent != l.Epoch() || e[len(e)-1].ParentLast != 2 {
		t.Errorf("the copy's lineage is %v", e)
	}
}

// big is an entry of about a kilobyte.
func big(n int64) Entry {
	e := numbered(n)
	e.Samples = append(e.Samples, Sample{"text", models.Sample{Value: models.String(strings.Repeat("x", 1000)), Time: e.Samples[0].Time}})
	return e
}

func TestFullLogDropsItsOldest(t *testing.T) {
	cfg := quick(temp(t))
	cfg.MaxBytes = MinMaxBytes
	l := start(t, cfg)
	const n = 300
	for i := range int64(n) {
		l.put(big(i))
		if got := l.Stats().Bytes; got > MinMaxBytes {
			t.Fatalf("%d bytes of %d", got, MinMaxBytes)
		}
	}
	stats := l.Stats()
	if stats.Dropped == 0 || stats.DroppedBy[edgelink.GapOutboxFull] != stats.Dropped {
		t.Fatalf("stats %+v", stats)
	}
	// Restarting changes nothing.
	l.stop()
	l = start(t, cfg)
	if again := l.Stats(); again.Dropped != stats.Dropped || again.Records != stats.Records || again.Bytes != stats.Bytes {
		t.Errorf("after a restart %+v, before %+v", again, stats)
	}
	var kept, gapped uint64
	l.next(Cursor{}, 1) // somebody reads: the gap becomes a record
	eventually(t, "a gap", func() bool { return len(gaps(t, l.all())) > 0 })
	records := l.all()
	for _, r := range records {
		kept += uint64(r.Samples)
	}
	for _, g := range gaps(t, records) {
		gapped += g.Samples
		if g.Reason != edgelink.GapOutboxFull || g.FirstSeq != 1 || g.LastSeq != records[0].Seq-1 || g.From.UnixMicro() != 1_700_000_000_000_000 {
			t.Errorf("gap %+v before record %d", g, records[0].Seq)
		}
	}
	if kept+gapped != 2*n || gapped != stats.Dropped {
		t.Errorf("%d samples kept and %d in gaps of %d", kept, gapped, 2*n)
	}
	if got := len(gaps(t, records)); got != 1 {
		t.Errorf("%d gaps where one would do", got)
	}
}

// TestGapOutlivesItsRecord: a record that tells of a gap is dropped too.
func TestGapOutlivesItsRecord(t *testing.T) {
	cfg := quick(temp(t))
	cfg.MaxBytes = MinMaxBytes
	l := start(t, cfg)
	const n = 400
	for i := range int64(n) {
		l.put(big(i))
		if i == 100 {
			l.next(Cursor{}, 1)
			eventually(t, "a gap", func() bool { return len(gaps(t, l.all())) > 0 })
		}
	}
	l.next(Cursor{}, 1)
	eventually(t, "a gap", func() bool { return len(gaps(t, l.all())) > 0 })
	var kept, gapped uint64
	records := l.all()
	for _, r := range records {
		kept += uint64(r.Samples)
	}
	for _, g := range gaps(t, records) {
		gapped += g.Samples
	}
	if kept+gapped != 2*n {
		t.Errorf("%d samples kept and %d in gaps of %d", kept, gapped, 2*n)
	}
}

func TestOldRecordsExpire(t *testing.T) {
	var ahead atomic.Int64
	begin := time.Now()
	cfg := quick(temp(t))
	cfg.MaxAge = time.Hour
	cfg.Now = func() time.Time { return begin.Add(time.Duration(ahead.Load())) }
	l := start(t, cfg)
	l.put(numbered(1), numbered(2))
	ahead.Store(int64(40 * time.Minute))
	l.put(numbered(3))
	l.stop()

	// Off for a year: that is not running time.
	ahead.Store(int64(365 * 24 * time.Hour))
	l = start(t, cfg)
	if got := l.all(); len(got) != 3 {
		t.Fatalf("after a year without power: %s", describe(got))
	}
	ahead.Add(int64(30 * time.Minute))
	eventually(t, "the first two go", func() bool { return l.Stats().DroppedBy[edgelink.GapOutboxAge] == 2 })
	records := l.all()
	eventually(t, "a gap", func() bool { records = l.all(); return len(gaps(t, records)) == 1 })
	if g := gaps(t, records)[0]; g.Reason != edgelink.GapOutboxAge || g.FirstSeq != 1 || g.LastSeq != 2 {
		t.Errorf("gap %+v", g)
	}
	if got := numbers(t, records[0]); !slices.Equal(got, []int64{3}) {
		t.Errorf("first is %v", got)
	}
}

func TestSpaceIsGivenBack(t *testing.T) {
	path := temp(t)
	l := start(t, quick(path))
	e := numbered(0)
	e.Samples[0].Value = models.String(strings.Repeat("x", 1<<20))
	for range 24 {
		l.put(e)
	}
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	if err := l.Ack(l.Epoch(), l.Stats().LastSeq); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file shrinks", func() bool {
		l.put(numbered(1)) // life goes on
		return size() < 12<<20
	})
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() > 3*walLimit {
		t.Errorf("-wal: %v, %v", info.Size(), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

// damage changes the file behind the outbox's back.
func damage(t *testing.T, path, sqlText string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+strings.ReplaceAll(path, "?", "%3f")+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(sqlText); err != nil {
		t.Fatal(err)
	}
}

func TestUnreadableRecordIsLeftOut(t *testing.T) {
	path := temp(t)
	l := start(t, quick(path))
	for i := range int64(6) {
		l.put(numbered(i))
	}
	damage(t, path, `UPDATE record SET body = zeroblob(length(body)) WHERE seq IN (3, 4)`)
	l.all()
	var records []Record
	eventually(t, "a gap", func() bool { records = l.all(); return len(gaps(t, records)) > 0 })
	var got []int64
	for _, r := range records {
		got = append(got, numbers(t, r)...)
	}
	if !slices.Equal(got, []int64{0, 1, 4, 5}) {
		t.Errorf("got %v", got)
	}
	total := uint64(0)
	for _, g := range gaps(t, records) {
		total += g.Samples
		if g.Reason != edgelink.GapUnreadable || g.Epoch != l.Epoch() || g.FirstSeq < 3 || g.LastSeq > 4 {
			t.Errorf("gap %+v", g)
		}
	}
	if s := l.Stats(); total != 2 || s.Dropped != 2 || s.DroppedBy[edgelink.GapUnreadable] != 2 {
		t.Errorf("%d samples in gaps, stats %+v", total, s)
	}
	last := records[len(records)-1]
	if err := l.Ack(last.Epoch, last.Seq); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it drains", func() bool { return l.Stats().Records == 0 })
}

func TestNoDatabase(t *testing.T) {
	path := temp(t)
	if err := os.WriteFile(path, bytes.Repeat([]byte("not a database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	l := start(t, quick(path))
	if seq := l.put(numbered(1)); seq != 1 {
		t.Errorf("seq %d", seq)
	}
	l.all()
	eventually(t, "a gap", func() bool { g := gaps(t, l.all()); return len(g) == 1 && g[0].Reason == edgelink.GapUnreadable })
	if _, err := os.Stat(path + ".corrupt"); err != nil {
		t.Error(err)
	}
}

// TestDamageWhileRunning overwrites pages of the open file.
func TestDamageWhileRunning(t *testing.T) {
	path := temp(t)
	l := start(t, quick(path))
	for i := range int64(200) {
		l.put(big(i))
	}
	before := l.Epoch()
	last := l.Stats().LastSeq
	if err := l.Ack(before, 50); err != nil {
		t.Fatal(err)
	}
	damage(t, path, `PRAGMA wal_checkpoint(TRUNCATE)`)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for at := 4096; at < len(data); at += 4096 {
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 4096), int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	// Caches may hide the damage for a while, to readers or to the writer.
	eventually(t, "a new epoch", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, _ = l.Next(ctx, Cursor{}, 1<<20)
		_ = l.Append(t.Context(), big(1000), nil)
		return l.Epoch() != before
	})
	if seq := l.put(numbered(2000)); seq <= last {
		t.Errorf("seq %d after %d", seq, last)
	}
	var told []edgelink.Gap
	eventually(t, "a gap", func() bool { told = gaps(t, l.all()); return len(told) > 0 })
	if g := told[0]; g.Reason != edgelink.GapUnreadable || g.Epoch != before || g.FirstSeq < 51 || g.FirstSeq > last || g.LastSeq < last {
		t.Errorf("gap %+v, the log went to %d", g, last)
	}
	if e := l.Epochs(); e[len(e)-1].Parent != before {
		t.Errorf("lineage %v", e)
	}
}

func TestAppendBlocksWhenFull(t *testing.T) {
	o, err := Open(t.Context(), quick(temp(t))) // nobody runs it
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	accepted, refused := 0, 0
	for i := int64(0); ; i++ {
		if err := o.Append(ctx, big(i), func(_ uint64, err error) {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("done with %v", err)
			}
			refused++
		}); err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
		if accepted++; accepted > 10_000 {
			t.Fatal("it takes everything")
		}
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if refused != accepted || accepted < 10 {
		t.Errorf("%d of %d accepted entries heard that they were not stored", refused, accepted)
	}
	if err := o.Append(t.Context(), numbered(1), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if _, err := o.Next(t.Context(), Cursor{}, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("next after close: %v", err)
	}
}

func TestImpossibleEntries(t *testing.T) {
	l := start(t, quick(temp(t)))
	huge := numbered(1)
	huge.Samples[0].Value = models.String(strings.Repeat("x", maxEntry))
	if err := l.Append(t.Context(), huge, nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("huge: %v", err)
	}
	asked := edgelink.LocalDesired{Property: "p", ID: "w", Value: models.String(strings.Repeat("x", maxEntry))}
	for what, e := range map[string]Entry{
		"a local write":                 {Device: device, Locals: []edgelink.LocalDesired{asked}},
		"what became of a local write":  {Device: device, Writes: []edgelink.WriteEvent{{Property: "p", ID: "w", State: "applied", Asked: &asked}}},
		"what there was before a write": {Device: device, Locals: []edgelink.LocalDesired{{Property: "p", ID: "w", Before: &models.Sample{Value: asked.Value}}}},
	} {
		if err := l.Append(t.Context(), e, nil); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s that is huge: %v", what, err)
		}
	}
	if err := l.Append(t.Context(), Entry{Device: device, Samples: []Sample{{}}}, nil); err == nil {
		t.Error("a sample without a property was taken")
	}
	if err := l.Append(t.Context(), Entry{States: []edgelink.StateEvent{{}}}, nil); err == nil {
		t.Error("a state without a device was taken")
	}
	if _, err := Open(t.Context(), Config{}); err == nil {
		t.Error("opened without a path")
	}
	l.put(numbered(0)) // so it runs
	if err := l.Run(t.Context()); err == nil {
		t.Error("ran twice")
	}
	// The largest that is taken.
	huge.Samples[0].Value = models.String(strings.Repeat("x", maxEntry-1000))
	l.put(huge)
	if got := l.next(Cursor{Seq: 1}, 1); len(got) != 1 || len(got[0].Data) > edgelink.MaxRecord {
		t.Errorf("got %s", describe(got))
	}
}

// TestLoadStarvesNothing: while entries come faster than they can be stored,
// acknowledged records are forgotten, and Run ends when it is told to.
func TestLoadStarvesNothing(t *testing.T) {
	l := start(t, quick(temp(t)))
	flood := make(chan struct{})
	go func() {
		defer close(flood)
		for n := int64(0); l.Append(t.Context(), big(n), nil) == nil; n++ {
		}
	}()
	eventually(t, "acknowledged records are forgotten", func() bool {
		seq := l.Stats().LastSeq
		if err := l.Ack(l.Epoch(), seq); err != nil {
			t.Fatal(err)
		}
		return seq > 100 && l.Stats().Records < seq/2
	})
	begun := time.Now()
	l.stop()
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("stopping took %s", took)
	}
	<-flood
}

// TestStopStoresWhatWasAccepted: an entry that lingers is not lost by a stop.
func TestStopStoresWhatWasAccepted(t *testing.T) {
	cfg := quick(temp(t))
	cfg.Linger = time.Hour
	l := start(t, cfg)
	heard := make(chan error, 1)
	if err := l.Append(t.Context(), numbered(7), func(_ uint64, err error) { heard <- err }); err != nil {
		t.Fatal(err)
	}
	l.stop()
	if err := <-heard; err != nil {
		t.Fatal(err)
	}
	l = start(t, cfg)
	if got := l.all(); len(got) != 1 || numbers(t, got[0])[0] != 7 {
		t.Errorf("got %s", describe(got))
	}
}
