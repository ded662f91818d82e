package outbox

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// said is one record as it was announced.
type said struct {
	epoch  string
	seq    uint64
	number int64
}

// TestNothingIsLostRepeatedOrReordered does random appends, reads,
// acknowledgements, stops and kills, and compares with a list after each. A kill
// is what the files look like at that moment, opened elsewhere.
func TestNothingIsLostRepeatedOrReordered(t *testing.T) {
	seeds := uint64(30)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			dir := t.TempDir()
			path := filepath.Join(dir, "0.db")
			l := start(t, quick(path))
			var waiting []said
			acked := map[string]uint64{} // what the hub has, as it would say in its welcome
			number := int64(0)
			lastSeq := uint64(0)
			welcome := func() {
				for _, e := range l.Epochs() {
					if seq := acked[e.Id]; seq > 0 {
						if err := l.Ack(e.Id, seq); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			for step := range 60 {
				op := r.IntN(10)
				switch {
				case op < 4:
					for range 1 + r.IntN(5) {
						number++
						seq := l.put(numbered(number))
						if seq <= lastSeq {
							t.Fatalf("step %d: seq %d after %d", step, seq, lastSeq)
						}
						lastSeq = seq
						waiting = append(waiting, said{l.Epoch(), seq, number})
					}
				case op < 6 && len(waiting) > 0:
					last := waiting[r.IntN(len(waiting))]
					if err := l.Ack(last.epoch, last.seq); err != nil {
						t.Fatal(err)
					}
					acked[last.epoch] = max(acked[last.epoch], last.seq)
					kept := waiting[:0:0]
					for _, w := range waiting {
						if w.epoch != last.epoch || w.seq > last.seq {
							kept = append(kept, w)
						}
					}
					waiting = kept
				case op == 6: // a late ack
					for epoch, seq := range acked {
						if err := l.Ack(epoch, seq/2); err != nil {
							t.Fatal(err)
						}
					}
				case op == 7:
					l.stop()
					l = start(t, quick(path))
				case op == 8:
					next := filepath.Join(dir, fmt.Sprint(step+1, ".db"))
					copyFiles(t, path, next)
					l.stop()
					path = next
					l = start(t, quick(path))
					welcome()
				}

				at := 0
				for cursor := (Cursor{}); ; {
					records := l.next(cursor, 1+r.IntN(500))
					if len(records) == 0 {
						break
					}
					for _, rec := range records {
						if at == len(waiting) {
							t.Fatalf("step %d: %s/%d is one too many", step, rec.Epoch, rec.Seq)
						}
						got := said{rec.Epoch, rec.Seq, numbers(t, rec)[0]}
						if got != waiting[at] {
							t.Fatalf("step %d: got %+v, want %+v", step, got, waiting[at])
						}
						at++
						cursor = rec.Cursor()
					}
				}
				if at != len(waiting) {
					t.Fatalf("step %d: %d records of %d", step, at, len(waiting))
				}
				checkEpochs(t, l.Epochs(), waiting)
			}
		})
	}
}

// checkEpochs compares a hello's epochs with what is waiting.
func checkEpochs(t *testing.T, epochs []*pb.Epoch, waiting []said) {
	t.Helper()
	first, last := map[string]uint64{}, map[string]uint64{}
	for _, w := range waiting {
		if first[w.epoch] == 0 {
			first[w.epoch] = w.seq
		}
		last[w.epoch] = w.seq
	}
	for i, e := range epochs {
		if e.First != first[e.Id] || e.First != 0 && e.Last != last[e.Id] {
			t.Fatalf("epoch %v where the records are %d to %d", e, first[e.Id], last[e.Id])
		}
		if e.First == 0 && i != len(epochs)-1 {
			t.Fatalf("a former epoch without records is named: %v", e)
		}
		delete(first, e.Id)
	}
	if len(first) > 0 {
		t.Fatalf("epochs with records are not named: %v", first)
	}
}
