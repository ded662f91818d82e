package attach

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/podstream"
)

// writes notes what it is given, and when.
type writes struct {
	all   [][]byte
	at    []time.Duration
	began time.Time
	hold  chan struct{} // nil, or each write waits for one
	err   error
}

func (w *writes) Write(p []byte) (int, error) {
	if w.hold != nil {
		<-w.hold
	}
	if w.err != nil {
		return 0, w.err
	}
	w.all, w.at = append(w.all, bytes.Clone(p)), append(w.at, time.Since(w.began))
	return len(p), nil
}

func TestGatherFirstAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &writes{began: time.Now()}
		g := gather(w)
		say := func(text string) {
			if _, err := io.WriteString(g, text); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		say("a")
		say("b")
		say("c")
		time.Sleep(time.Second) //sleep: a bubble's time
		say("d")
		say("e")
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		if got := string(bytes.Join(w.all, []byte("|"))); got != "a|bc|d|e" {
			t.Errorf("it writes %s", got)
		}
		if want := []time.Duration{0, gatherTime, time.Second, time.Second}; !slices.Equal(w.at, want) {
			t.Errorf("it writes at %v, want %v", w.at, want)
		}
	})
}

// TestGatherMuch: much goes without a pause, so gathering is no bound of the rate.
func TestGatherMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &writes{began: time.Now()}
		g := gather(w)
		for range 100 {
			if _, err := g.Write(make([]byte, podstream.MaxFrame)); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		if last := w.at[len(w.at)-1]; last != 0 {
			t.Errorf("the last is written after %v", last)
		}
	})
}

// TestGatherBound: who cannot write holds who reads the log back.
func TestGatherBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &writes{began: time.Now(), hold: make(chan struct{})}
		g := gather(w)
		taken := 0
		done := make(chan error)
		go func() {
			for {
				if _, err := g.Write(make([]byte, 1000)); err != nil {
					done <- err
					return
				}
				taken += 1000
			}
		}()
		synctest.Wait()
		if most := 2*maxText + 1000; taken > most {
			t.Errorf("%d bytes wait, more than %d", taken, most)
		}
		before := taken
		w.hold <- struct{}{}
		synctest.Wait()
		if taken == before {
			t.Error("nothing more is taken after a write")
		}
		w.err = errors.New("broken")
		w.hold <- struct{}{}
		if err := <-done; !errors.Is(err, w.err) {
			t.Errorf("a write after one that failed: %v", err)
		}
		if err := g.Close(); !errors.Is(err, w.err) {
			t.Errorf("the end after a write that failed: %v", err)
		}
	})
}

// TestGatherAll: nothing is lost, doubled or moved, whatever is written when.
func TestGatherAll(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			w := &writes{began: time.Now()}
			g := gather(w)
			var want []byte
			for range random.IntN(300) {
				p := make([]byte, 1+random.IntN(1+random.IntN(3000)))
				for i := range p {
					p[i] = byte(random.Uint32())
				}
				want = append(want, p...)
				if _, err := g.Write(p); err != nil {
					t.Fatal(err)
				}
				if random.IntN(20) == 0 {
					time.Sleep(time.Duration(random.IntN(int(2 * gatherTime)))) //sleep: a bubble's time
				}
			}
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(bytes.Join(w.all, nil), want) {
				t.Errorf("seed %d: other bytes come than went", seed)
			}
		})
	}
}
