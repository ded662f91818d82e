package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// A store's process, or its server, is killed at every step of what it does to history
// (see package failpoint). The process is the test binary itself, made anew with the
// build tag: a test of the store's package calls Worker, which works there and does
// nothing elsewhere.

// How a worker is told the number of its batch, at what time the test began, and
// where the database is.
const (
	workAt    = "STORETEST_WORK"
	workBegan = "STORETEST_BEGAN"
	workIn    = "STORETEST_DATABASE"
)

// worked is how long a worker has to come to its step.
const worked = 30 * time.Second

// Killing says how a store's process is killed.
type Killing struct {
	Database string // as Open and Worker's open are told
	Open     func(t *testing.T) store.Store
	Steps    []string
	// Crash kills the server and starts it again, while a worker stands at a step; nil
	// where there is none.
	Crash func(t *testing.T)
}

// Worker takes over one batch, makes small of history what can be made so and lets
// old samples go, until it is killed.
func Worker(t *testing.T, open func(t *testing.T, database string) store.Store) {
	round, err := strconv.Atoi(os.Getenv(workAt))
	if err != nil {
		t.Skip("works only where it is told to")
	}
	began, err := strconv.ParseInt(os.Getenv(workBegan), 10, 64)
	must(t, err)
	s := open(t, os.Getenv(workIn))
	// One that comes after a killed one may find its locks for a moment.
	work := killedWork{s, began}
	err = work.ingest(t.Context(), round)
	for end := time.Now().Add(worked); err == nil && time.Now().Before(end); {
		if err = work.compact(t.Context()); err == nil {
			err = s.Expire(t.Context(), []store.Retention{{DeviceUID: "old", BeforeUS: time.Now().UnixMicro()}}, time.Now())
		}
	}
	t.Fatalf("it lives: %v", err)
}

// killedWork is what workers do, and what the test does to compare.
type killedWork struct {
	store.Store
	began int64 // in microseconds
}

const killedProperties = 3

// ingest takes over the batch with a number. It is of the weeks before, of a device
// that stays and of one whose samples are too old.
func (w killedWork) ingest(ctx context.Context, round int) error {
	if _, err := w.StartEpoch(ctx, "n", "e", time.Now()); err != nil {
		return err
	}
	var keys []store.SeriesKey
	for p := range killedProperties {
		keys = append(keys, keyOf("d", 1, fmt.Sprint("p", p)))
	}
	ids, err := w.SeriesIDs(ctx, append(keys, keyOf("old", 1, "p")))
	if err != nil {
		return err
	}
	const hour, week = 3600 * 1_000_000, 7 * 24 * 3600 * 1_000_000
	b := store.Batch{NodeUID: "n", Epoch: "e", After: uint64(round), Acked: uint64(round) + 1, Received: time.Now(),
		Gaps: []store.Gap{{NodeUID: "n", Reason: "r", Recorded: time.Now()}}}
	random := rand.New(rand.NewPCG(7, uint64(round)))
	// Whole hours with many samples: else nothing is rolled up. Every batch comes late
	// for hours that are rolled up already.
	from := w.began/week*week - int64(1+round%3)*week
	for i := range 600 {
		for p := range killedProperties {
			at := from + int64(i)*(3*hour/600) + int64(p)
			Add(&b.Samples, ids[p], intSample(at, int64(random.IntN(50))))
		}
		Add(&b.Samples, ids[killedProperties], intSample(from-30*week+int64(i), int64(i)))
	}
	return w.Ingest(ctx, []store.Batch{b})
}

// compact does all there is to do in a month.
func (w killedWork) compact(ctx context.Context) error {
	for {
		more, err := w.Compact(ctx, time.Now().Add(30*24*time.Hour))
		if err != nil || !more {
			return err
		}
	}
}

// Killed kills workers at each step, and wants afterwards to read each sample once,
// and to have them add up, whatever was done of them.
func Killed(t *testing.T, k Killing) {
	binary := filepath.Join(t.TempDir(), "worker")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "failpoint", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	steps := t.TempDir()
	began := time.Now().UnixMicro()
	want := killedWork{NewMemory(), began}
	rounds := 0
	check := func(when string) {
		t.Helper()
		s := killedWork{k.Open(t), began}
		defer func() {
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}()
		epochs, err := s.Epochs(t.Context(), "n")
		must(t, err)
		for ; len(epochs) > 0 && rounds < int(epochs[0].Acked); rounds++ {
			must(t, want.ingest(t.Context(), rounds))
		}
		compareHistory(t, when, s.Store, want.Store)
	}
	for _, step := range k.Steps {
		at := filepath.Join(steps, step)
		run := func(todo string, struck func(ended <-chan error) error) {
			t.Helper()
			must(t, os.WriteFile(at, []byte(todo), 0o600))
			worker := exec.CommandContext(t.Context(), binary, "-test.run", "^TestWorker$", "-test.v")
			worker.Env = append(os.Environ(), "WHIMBREL_FAILPOINTS="+steps, workAt+"="+strconv.Itoa(rounds), workBegan+"="+strconv.FormatInt(began, 10), workIn+"="+k.Database)
			log, err := os.Create(filepath.Join(t.TempDir(), "log"))
			must(t, err)
			defer log.Close()
			worker.Stdout, worker.Stderr = log, log
			must(t, worker.Start())
			ended := make(chan error, 1)
			go func() { ended <- worker.Wait() }() // it is killed below
			err = struck(ended)
			_ = worker.Process.Kill()
			if err != nil {
				text, _ := os.ReadFile(log.Name())
				t.Fatalf("%s: %v\n%s", step, err, text)
			}
			_ = os.Remove(at)
			_ = os.Remove(at + ".reached")
		}
		run("kill", func(ended <-chan error) error {
			err := <-ended
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
				return nil
			}
			return fmt.Errorf("the worker did not come there: %w", err)
		})
		check("killed at " + step)
		if k.Crash == nil {
			continue
		}
		run("pause", func(ended <-chan error) error {
			for {
				if _, err := os.Stat(at + ".reached"); !errors.Is(err, fs.ErrNotExist) {
					break
				}
				select {
				case err := <-ended:
					return fmt.Errorf("the worker did not come there: %w", err)
				case <-time.After(5 * time.Millisecond):
				}
			}
			k.Crash(t)
			return nil
		})
		check("with its server killed at " + step)
	}
	s := killedWork{k.Open(t), began}
	must(t, s.compact(t.Context()))
	must(t, s.Close())
	check("at the end")
	if rounds < len(k.Steps)/2 {
		t.Errorf("only %d batches were taken over", rounds)
	}
}

// compareHistory compares samples, and what they come to by the minute and the hour.
func compareHistory(t *testing.T, when string, have, want store.Store) {
	t.Helper()
	rolled := func(s store.Store, property string, step int64) string {
		t.Helper()
		r := store.Rolling{Step: step}
		must(t, s.Rollups(t.Context(), "d", property, math.MinInt64, everything, step, r.Add, r.Merge))
		var out []any
		for i := range r.Entries {
			e := &r.Entries[i].Rollup
			out = append(out, e.Count, e.Numbers, e.First.TimeUS, e.Last.TimeUS, e.Min.Int, e.Max.Int, e.Sum.Mean(max(e.Numbers, 1)))
		}
		text, err := json.Marshal(out)
		must(t, err)
		return string(text)
	}
	for p := range killedProperties {
		property := fmt.Sprint("p", p)
		wantSame(t, when+": samples of "+property, readSamples(t, have, "d", property, math.MinInt64, everything), readSamples(t, want, "d", property, math.MinInt64, everything))
		for _, step := range []int64{store.Minute, store.Hour} {
			if h, w := rolled(have, property, step), rolled(want, property, step); h != w {
				t.Fatalf("%s: %s by %d s comes to\n%s, want\n%s", when, property, step/1_000_000, h, w)
			}
		}
	}
}
