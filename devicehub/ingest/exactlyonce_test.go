package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/sqlite"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// weather is a store that fails at random, before and after the fact, and that
// dies with its hub: what a dead hub had sent may still be committed later.
type weather struct {
	Store
	rng  func(n int) int
	mu   *sync.Mutex // for rng
	calm *bool
	dead chan struct{}
	late *sync.WaitGroup
}

var errWeather = errors.New("injected")

func (w *weather) strikes(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !*w.calm && w.rng(n) == 0
}

func (w *weather) alive() error {
	select {
	case <-w.dead:
		return errWeather
	default:
		return nil
	}
}

func (w *weather) Epochs(ctx context.Context, node string) ([]store.Epoch, error) {
	if w.alive() != nil || w.strikes(10) {
		return nil, errWeather
	}
	return w.Store.Epochs(ctx, node)
}

func (w *weather) SeriesIDs(ctx context.Context, keys []store.SeriesKey) ([]int64, error) {
	if w.alive() != nil || w.strikes(10) {
		return nil, errWeather
	}
	return w.Store.SeriesIDs(ctx, keys)
}

func (w *weather) Ingest(ctx context.Context, batches []store.Batch) error {
	if w.alive() != nil {
		return errWeather
	}
	switch {
	case w.strikes(6):
		return errWeather
	case w.strikes(6): // committed, and nobody hears of it
		if err := w.Store.Ingest(ctx, batches); err != nil {
			return err
		}
		return errWeather
	case w.strikes(8): // committed later, when another attempt or another hub may have been quicker
		w.late.Go(func() {
			time.Sleep(time.Duration(1+len(batches)%5) * time.Millisecond)
			_ = w.Store.Ingest(context.WithoutCancel(ctx), batches)
		})
		return errWeather
	}
	return w.Store.Ingest(ctx, batches)
}

// TestExactlyOnce has edges send their logs through hubs that die and stores
// that fail, resending as edges do, and wants every sample once and in order.
func TestExactlyOnce(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("memory ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { exactlyOnce(t, storetest.NewMemory(), seed) })
		})
	}
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("sqlite ", seed), func(t *testing.T) {
			s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), slog.New(slog.DiscardHandler))
			must(t, err)
			defer s.Close()
			exactlyOnce(t, s, seed)
		})
	}
}

func exactlyOnce(t *testing.T, db store.Store, seed uint64) {
	const nodes, records = 4, 150
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 1))
	calm := false
	var late sync.WaitGroup
	random := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}

	// A hub that may be replaced by another one at any time.
	type hub struct {
		*Ingester
		sink *sink
		dead chan struct{}
	}
	var hubMu sync.Mutex
	var current *hub
	var hubs []*hub
	var wait sync.WaitGroup
	fleet := &fleet{}
	boot := func() {
		h := &hub{sink: &sink{}, dead: make(chan struct{})}
		h.Ingester = New(Config{
			Store:   &weather{Store: db, rng: rng.IntN, mu: &mu, calm: &calm, dead: h.dead, late: &late},
			Devices: fleet, Sink: h.sink, Log: slog.New(slog.DiscardHandler), Retry: quick(), StopWait: 20 * time.Millisecond, GroupWait: time.Millisecond, GroupSamples: 50, QueueBytes: 20_000,
		})
		ctx, cancel := context.WithCancel(t.Context())
		wait.Go(func() {
			<-h.dead
			cancel()
		})
		wait.Go(func() { _ = h.Run(ctx) })
		hubMu.Lock()
		current = h
		hubs = append(hubs, h)
		hubMu.Unlock()
	}
	boot()

	// An edge: sends what is not acknowledged, in a session after the other.
	edge := func(n int) {
		from := Origin{Node: fmt.Sprint("n", n), NodeUID: fmt.Sprint("uid-n", n)}
		for {
			hubMu.Lock()
			h := current
			hubMu.Unlock()
			e, err := db.StartEpoch(t.Context(), from.NodeUID, "e", time.Now())
			if err != nil {
				t.Error(err)
				return
			}
			if e.Acked == records {
				return
			}
			from.Rank = e.Rank
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() { // the link dies with the hub
				select {
				case <-h.dead:
					cancel(errWeather)
				case <-ctx.Done():
				}
			}()
			all := make(chan struct{}, 1)
			done := func(acked uint64, err error) {
				if err != nil {
					cancel(err)
				} else if acked == records {
					select {
					case all <- struct{}{}:
					default:
					}
				}
			}
			for next := e.Acked + 1; next <= records; {
				var batch []*pb.Numbered
				for range 1 + random(8) {
					if next <= records {
						batch = append(batch, numbered(n, next, 1+int(next)%3))
						next++
					}
				}
				if err := h.Submit(ctx, from, &pb.Batch{Epoch: "e", Records: batch}, done); err != nil {
					cancel(err)
					break
				}
				if random(10) == 0 && next > 5 && next <= records { // a resend that nobody asked for
					next -= uint64(random(5))
				}
				if random(40) == 0 { // the link breaks
					cancel(errWeather)
					break
				}
			}
			select {
			case <-all:
			case <-ctx.Done():
			case <-time.After(time.Second): // a resend's answer came last
			}
			cancel(nil)
		}
	}
	var edges sync.WaitGroup
	for n := range nodes {
		edges.Go(func() { edge(n) })
	}
	finished := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for kills := 0; ; kills++ {
			select {
			case <-finished:
				return
			case <-time.After(time.Duration(1+random(40)) * time.Millisecond):
			}
			mu.Lock()
			calm = kills > 10 // so that it ends
			mu.Unlock()
			if kills < 10 {
				hubMu.Lock()
				old := current
				hubMu.Unlock()
				boot()
				close(old.dead)
			}
		}
	})
	edges.Wait()
	close(finished)
	killer.Wait()
	close(current.dead)
	wait.Wait()
	late.Wait()

	for n := range nodes {
		var want []int64
		for seq := range int64(records) {
			for i := range 1 + (seq+1)%3 {
				want = append(want, (seq+1)*10+i)
			}
		}
		check(t, fmt.Sprint("samples of node ", n), values(t, db, fmt.Sprint("d", n), "p"), want)
		for i, h := range hubs {
			told := h.sink.of(fmt.Sprint("n", n))
			for k := 1; k < len(told); k++ {
				if told[k] <= told[k-1] {
					t.Errorf("hub %d, node %d: told of %d after %d", i, n, told[k], told[k-1])
				}
			}
		}
	}
}
