package outbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

const pageSize = 4096

// spoil overwrites pages of a log that is not open for writing, or whose -wal file
// is empty.
func spoil(t testing.TB, path string, pages ...int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, n := range pages {
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, pageSize), int64(n)*pageSize); err != nil {
			t.Fatal(err)
		}
	}
}

// scratch overwrites some bytes here and there in pages of such a log: numbers of records,
// among others, which SQLite does not notice.
func scratch(t testing.TB, path string, rng *rand.Rand, pages ...int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, n := range pages {
		text := make([]byte, 1+rng.IntN(300))
		for i := range text {
			text[i] = byte(rng.Uint32())
		}
		if _, err := f.WriteAt(text, int64(n)*pageSize+int64(8+rng.IntN(pageSize-8-len(text)))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedPages damages pages of logs, open or closed, and wants every record
// back that is not on them, in order and under its epoch, and a gap for every other.
func TestDamagedPages(t *testing.T) {
	const records = 400
	whole := 0
	for seed := range uint64(14) {
		rng := rand.New(rand.NewPCG(seed, 0))
		path := temp(t)
		l := start(t, quick(path))
		epochs := map[string]bool{}
		at := map[int64]uint64{} // number to seq
		last := uint64(0)
		for i := range int64(records) {
			if i == records/2 { // two epochs
				epochs[l.Epoch()] = true
				l.stop()
				l = start(t, quick(path))
			}
			e := numbered(i)
			if rng.IntN(8) == 0 { // with overflow pages
				e.Samples = append(e.Samples, Sample{Property: "text", Sample: models.Sample{Value: models.String(string(bytes.Repeat([]byte{'x'}, rng.IntN(20_000)))), Time: time.UnixMicro(1)}})
			}
			last = l.put(e)
			at[i] = last
		}
		epochs[l.Epoch()] = true
		const acked = 50
		if err := l.Ack(l.Epochs()[0].Id, acked); err != nil {
			t.Fatal(err)
		}
		eventually(t, "what is acknowledged is gone", func() bool { return l.Stats().Records == records-acked })
		damage(t, path, `PRAGMA wal_checkpoint(TRUNCATE)`)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		var pages []int
		for range 1 + rng.IntN(3) {
			pages = append(pages, 1+rng.IntN(int(info.Size()/pageSize)-1))
		}
		harm := func() { spoil(t, path, pages...) }
		if seed%4 >= 2 {
			harm = func() { scratch(t, path, rng, pages...) }
		}
		running := seed%2 == 0
		if running {
			harm()
		} else {
			l.stop()
			harm()
			l = start(t, quick(path))
		}

		var got []Record
		marker := l.put(numbered(1_000_000))
		if marker <= last {
			t.Fatalf("seed %d: seq %d after %d", seed, marker, last)
		}
		there, lost := map[int64]uint64{}, []edgelink.Gap(nil)
		eventually(t, "all is there or told of", func() bool {
			got, there = l.readable(), map[int64]uint64{}
			lost = gaps(t, got)
			for i, r := range got {
				if i > 0 && r.Seq <= got[i-1].Seq {
					t.Fatalf("seed %d: seq %d after %d", seed, r.Seq, got[i-1].Seq)
				}
				for _, n := range numbersOf(t, r) {
					there[n] = r.Seq
				}
			}
			for n, seq := range at {
				if seq > acked && there[n] == 0 && !covered(lost, seq) {
					return false
				}
			}
			return there[1_000_000] != 0 || covered(lost, marker)
		})
		found := 0
		for n, seq := range there {
			if want, ok := at[n]; ok && seq != want {
				t.Errorf("seed %d: number %d is in record %d, was in %d", seed, n, seq, want)
			}
			found++
		}
		if found == 1 {
			whole++
		} else if found < records/4 {
			t.Logf("seed %d: pages %v of %d: %d of %d records left", seed, pages, info.Size()/pageSize, found, records-acked)
		}
		for _, r := range got {
			if r.Seq <= last && !epochs[r.Epoch] {
				t.Errorf("seed %d: record %d is of epoch %s", seed, r.Seq, r.Epoch)
			}
		}
		// It drains and can be opened again. Removing records may find damage, too,
		// that nobody has met before.
		eventually(t, "it drains", func() bool {
			for _, e := range l.Epochs() {
				if err := l.Ack(e.Id, e.Last); err != nil {
					t.Fatal(err)
				}
			}
			return l.Stats().Records == 0
		})
		l.stop()
		l = start(t, quick(path))
		if seq := l.put(numbered(1)); seq <= marker {
			t.Errorf("seed %d: seq %d after %d", seed, seq, marker)
		}
		l.stop()
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.salvage*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	// A page that leads to all others is rarely among them.
	if whole > 4 {
		t.Errorf("%d of 14 logs were lost as a whole", whole)
	}
}

// renumber gives a record of a log that is closed another number of two bytes.
func renumber(t testing.TB, path string, from, to uint64) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	varint := func(at int) (v uint64, next int) {
		for {
			v = v<<7 | uint64(text[at]&0x7f)
			if at++; text[at-1] < 0x80 {
				return v, at
			}
		}
	}
	for page := pageSize; page < len(text); page += pageSize {
		if text[page] != 0x0d { // a leaf of a table
			continue
		}
		for cell := range int(binary.BigEndian.Uint16(text[page+3:])) {
			size, at := varint(page + int(binary.BigEndian.Uint16(text[page+8+2*cell:])))
			if seq, _ := varint(at); seq == from && size > 40 { // else it is another table's
				text[at], text[at+1] = byte(to>>7)|0x80, byte(to&0x7f)
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
	}
	t.Fatalf("record %d is not found", from)
}

// TestDamagedNumber: a record that says another number than it has hides what comes
// after it from a search. All of that is found all the same, and the record is told of.
func TestDamagedNumber(t *testing.T) {
	const records = 400
	for _, c := range []struct{ from, to uint64 }{{300, 16383}, {300, 350}, {300, 200}, {129, 16383}} {
		path := temp(t)
		l := start(t, quick(path))
		for i := range int64(records) {
			l.put(numbered(i))
		}
		if err := l.Ack(l.Epoch(), 128); err != nil { // 129 is the first one then
			t.Fatal(err)
		}
		eventually(t, "what is acknowledged is gone", func() bool { return l.Stats().Records == records-128 })
		damage(t, path, `PRAGMA wal_checkpoint(TRUNCATE)`)
		l.stop()
		renumber(t, path, c.from, c.to)
		l = start(t, quick(path))
		l.put(numbered(1_000_000))
		eventually(t, "all is there or told of", func() bool {
			got := l.readable()
			lost, there := gaps(t, got), map[uint64]bool{}
			for _, r := range got {
				there[r.Seq] = true
			}
			for seq := uint64(129); seq <= records; seq++ {
				if !there[seq] && !covered(lost, seq) {
					return false
				}
			}
			return len(there) > records/2 && !there[c.from]
		})
		l.stop()
	}
}

// readable returns every record that is waiting, as far as they can be read now.
func (l *life) readable() (all []Record) {
	ctx, cancel := context.WithCancel(l.t.Context())
	cancel()
	for at := (Cursor{}); ; at = all[len(all)-1].Cursor() {
		records, err := l.Next(ctx, at, 1<<20)
		if err != nil {
			return all
		}
		all = append(all, records...)
	}
}

func numbersOf(t testing.TB, r Record) (all []int64) {
	d := decoded(t, r)
	for _, s := range d.Series {
		if s.Property == "n" {
			all = append(all, d.Columns.Ints[s.Lo:s.Hi]...)
		}
	}
	return all
}

func covered(gaps []edgelink.Gap, seq uint64) bool {
	for _, g := range gaps {
		if g.Reason == edgelink.GapUnreadable && (g.LastSeq == 0 || g.FirstSeq <= seq && seq <= g.LastSeq) {
			return true
		}
	}
	return false
}

// TestSalvageThatIsCutShort: what a former life did not come to the end of is done
// by the next.
func TestSalvageThatIsCutShort(t *testing.T) {
	path := temp(t)
	l := start(t, quick(path))
	for i := range int64(10) {
		l.put(numbered(i))
	}
	l.stop()
	if err := setAsideFile(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".salvage", []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	l = start(t, quick(path))
	if got := l.all(); len(got) < 10 || numbers(t, got[9])[0] != 9 {
		t.Errorf("got %s", describe(got))
	}
}
