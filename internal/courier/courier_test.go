package courier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// harness is a queue and a target in memory.
type harness struct {
	mu        sync.Mutex
	answer    func(m Message, attempt int) error
	tried     map[int64]int
	delivered []int64
	dead      map[int64]string
	at        map[int64]time.Time
	busy, max int
	stored    map[int64]Done
	storeErr  error
}

func (h *harness) deliver(ctx context.Context, m Message) error {
	h.mu.Lock()
	h.busy++
	h.max = max(h.max, h.busy)
	h.tried[m.ID]++
	n := h.tried[m.ID]
	h.mu.Unlock()
	err := h.answer(m, n)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy--
	if err == nil {
		h.delivered = append(h.delivered, m.ID)
		h.at[m.ID] = time.Now()
	}
	return err
}

func (h *harness) store(_ context.Context, done []Done) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.storeErr != nil {
		return h.storeErr
	}
	for _, d := range done {
		h.stored[d.ID] = d
		if d.Dead {
			h.dead[d.ID] = d.Error
		}
	}
	return nil
}

func newHarness(answer func(Message, int) error) *harness {
	return &harness{answer: answer, tried: map[int64]int{}, dead: map[int64]string{}, at: map[int64]time.Time{}, stored: map[int64]Done{}}
}

// inBubble runs a courier over messages for some (virtual) time.
func inBubble(t *testing.T, h *harness, cfg Config, life time.Duration, messages func(now time.Time) []Message) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Deliver, cfg.Store, cfg.Log = h.deliver, h.store, slog.New(slog.DiscardHandler)
		c := New(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() { _ = c.Run(ctx) })
		c.Add(messages(time.Now())...)
		time.Sleep(life)
		cancel()
		wait.Wait()
	})
}

func TestOrderAndRetries(t *testing.T) {
	refused := &Refused{Err: errors.New("status 500")}
	h := newHarness(func(m Message, attempt int) error {
		switch {
		case m.ID == 2:
			return refused // for ever
		case m.ID == 4 && attempt < 4:
			return errors.New("connection refused") // not counted as a refusal
		case m.ID == 6:
			return &Refused{Final: true, Err: errors.New("status 400")}
		}
		return nil
	})
	inBubble(t, h, Config{First: time.Second, Max: 4 * time.Second}, time.Minute, func(now time.Time) (ms []Message) {
		for id := int64(1); id <= 7; id++ {
			ms = append(ms, Message{ID: id, Group: "r", Lane: map[bool]string{true: "a", false: "b"}[id <= 5], Retries: 2, Deadline: now.Add(time.Hour)})
		}
		return ms
	})
	laneA := slices.DeleteFunc(slices.Clone(h.delivered), func(id int64) bool { return id > 5 })
	if !slices.Equal(laneA, []int64{1, 3, 4, 5}) {
		t.Errorf("lane a delivered %v", laneA)
	}
	if h.tried[2] != 3 || h.dead[2] != "status 500" {
		t.Errorf("message 2 tried %d times, dead %q", h.tried[2], h.dead[2])
	}
	if h.tried[6] != 1 || h.dead[6] != "status 400" || !slices.Contains(h.delivered, 7) {
		t.Errorf("message 6 tried %d times, dead %q; delivered %v", h.tried[6], h.dead[6], h.delivered)
	}
	// 2 takes 1+2 s, 4 is tried after 1, 2, 4 s more.
	if d := h.at[5].Sub(h.at[1]); d != 10*time.Second {
		t.Errorf("lane a took %v", d)
	}
	if h.stored[4].Error != "" || h.stored[4].Dead {
		t.Errorf("message 4 stored as %+v", h.stored[4])
	}
}

// TestBehind: who waits behind a message that is tried again is told so at once, and
// once: also one that comes later. Order stays.
func TestBehind(t *testing.T) {
	away := errors.New("connection refused")
	h := newHarness(func(m Message, attempt int) error {
		switch {
		case m.ID == 1 && attempt <= 3:
			return away
		case m.ID == 5 && attempt == 1:
			return &Refused{Err: errors.New("status 500")}
		case m.ID == 7:
			return &Refused{Final: true, Err: errors.New("status 400")}
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var told []string
		c := New(Config{Deliver: h.deliver, Store: h.store, Log: slog.New(slog.DiscardHandler), First: time.Second, Behind: func(m Message, err error) {
			told = append(told, fmt.Sprintf("%s after %v: %v", m.Asker, time.Since(began), err))
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() { _ = c.Run(ctx) })
		message := func(id int64, lane, asker string) Message {
			return Message{ID: id, Group: "r", Lane: lane, Asker: asker, Retries: 5, Deadline: time.Now().Add(time.Hour)}
		}
		c.Add(message(1, "a", "A"), message(2, "a", "B"), message(3, "a", ""), message(10, "b", "elsewhere"))
		time.Sleep(500 * time.Millisecond) //sleep: a bubble's time
		c.Add(message(4, "a", "C"))
		time.Sleep(time.Minute) //sleep: a bubble's time
		c.Add(message(5, "a", "D"), message(6, "a", "E"))
		time.Sleep(time.Minute) //sleep: a bubble's time
		c.Add(message(7, "a", "F"), message(8, "a", "G"))
		time.Sleep(time.Minute) //sleep: a bubble's time
		cancel()
		wait.Wait()
		if want := []string{"B after 0s: connection refused", "C after 500ms: connection refused", "E after 1m0.5s: status 500"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
	if a := slices.DeleteFunc(slices.Clone(h.delivered), func(id int64) bool { return id == 10 }); !slices.Equal(a, []int64{1, 2, 3, 4, 5, 6, 8}) {
		t.Errorf("delivered %v", a)
	}
}

func TestDeadline(t *testing.T) {
	h := newHarness(func(Message, int) error { return errors.New("no route to host") })
	inBubble(t, h, Config{}, 2*time.Hour, func(now time.Time) []Message {
		return []Message{{ID: 1, Group: "r", Lane: "a", Retries: 1, Deadline: now.Add(90 * time.Second)}, {ID: 2, Group: "r", Lane: "a", Deadline: now.Add(-time.Second)}}
	})
	if h.dead[1] != "no route to host" || h.tried[1] < 5 {
		t.Errorf("tried %d times, dead %q", h.tried[1], h.dead[1])
	}
	// One whose time is up already is tried once.
	if h.dead[2] == "" || h.tried[2] != 1 {
		t.Errorf("late one tried %d times, dead %q", h.tried[2], h.dead[2])
	}
}

// A target that hangs holds up its own group only.
func TestGroups(t *testing.T) {
	h := newHarness(nil)
	h.answer = func(m Message, _ int) error {
		if m.Group == "slow" {
			time.Sleep(time.Hour)
		}
		return nil
	}
	inBubble(t, h, Config{PerGroup: 2, Total: 8}, 10*time.Second, func(now time.Time) (ms []Message) {
		for id := int64(1); id <= 100; id++ {
			group := "slow"
			if id > 50 {
				group = "quick"
			}
			ms = append(ms, Message{ID: id, Group: group, Lane: fmt.Sprint(id), Deadline: now.Add(time.Hour)})
		}
		return ms
	})
	quick := slices.DeleteFunc(slices.Clone(h.delivered), func(id int64) bool { return id <= 50 })
	if len(quick) != 50 {
		t.Errorf("%d of the quick group delivered", len(quick))
	}
	if h.max > 4 {
		t.Errorf("%d attempts at a time", h.max)
	}
}

func TestStoreFails(t *testing.T) {
	h := newHarness(func(Message, int) error { return nil })
	h.storeErr = errors.New("disk full")
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Deliver: h.deliver, Store: h.store, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() { _ = c.Run(ctx) })
		for id := range int64(3000) {
			c.Add(Message{ID: id, Group: "r", Lane: "a", Deadline: time.Now().Add(time.Hour)})
		}
		time.Sleep(10 * time.Second)
		h.mu.Lock()
		n := len(h.delivered)
		h.storeErr = nil
		h.mu.Unlock()
		if n != unstored {
			t.Errorf("%d delivered while nothing could be stored, want %d", n, unstored)
		}
		time.Sleep(10 * time.Second)
		cancel()
		wait.Wait()
		if len(h.stored) != 3000 {
			t.Errorf("%d stored", len(h.stored))
		}
	})
}

// Whatever targets do, each lane's first deliveries are in order and nothing is
// forgotten.
func TestRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	h := newHarness(func(m Message, _ int) error {
		mu.Lock()
		n := random.IntN(10)
		mu.Unlock()
		time.Sleep(time.Duration(n) * time.Millisecond)
		switch {
		case n < 6:
			return nil
		case n < 8:
			return &Refused{Err: errors.New("refused")}
		case n < 9:
			return errors.New("away")
		}
		return &Refused{Final: true, Err: errors.New("never")}
	})
	lane := func(id int64) int64 { return id % 7 }
	inBubble(t, h, Config{First: time.Millisecond, Max: 10 * time.Millisecond, PerGroup: 3}, time.Hour, func(now time.Time) (ms []Message) {
		for id := range int64(500) {
			ms = append(ms, Message{ID: id, Group: fmt.Sprint(lane(id) % 2), Lane: fmt.Sprint(lane(id)), Retries: 2, Deadline: now.Add(time.Hour)})
		}
		return ms
	})
	if len(h.delivered)+len(h.dead) != 500 {
		t.Errorf("%d delivered, %d dead of 500", len(h.delivered), len(h.dead))
	}
	last := map[int64]int64{}
	for _, id := range h.delivered {
		if before, ok := last[lane(id)]; ok && before > id {
			t.Errorf("%d after %d", id, before)
		}
		last[lane(id)] = id
	}
}
