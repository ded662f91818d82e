package modbus

import (
	"context"
	"sync"
)

// gate is a mutex with two queues: whoever is urgent goes before all who are
// not, and within a queue the first come first. Waiting ends with the context.
//
// The queues are as long as there are callers waiting, each a goroutine of its
// own, so they are bounded by who calls.
type gate struct {
	mu     sync.Mutex
	held   bool
	queues [2][]chan struct{} // urgent, others; closing a channel hands the gate over
	run    int                // urgent ones let through in a row while others wait
}

// maxUrgentRun lets one read through after that many writes in a row, so that
// an app that writes without pause does not blind the line.
const maxUrgentRun = 16

func (g *gate) lock(ctx context.Context, urgent bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q := 1
	if urgent {
		q = 0
	}
	g.mu.Lock()
	if !g.held {
		g.held = true
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	g.queues[q] = append(g.queues[q], turn)
	g.mu.Unlock()

	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	for i, w := range g.queues[q] {
		if w == turn {
			g.queues[q] = append(g.queues[q][:i], g.queues[q][i+1:]...)
			g.mu.Unlock()
			return ctx.Err()
		}
	}
	g.mu.Unlock()
	// The turn came together with the end of the context: pass it on.
	g.unlock()
	return ctx.Err()
}

func (g *gate) unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	q := 0
	if len(g.queues[0]) == 0 || g.run >= maxUrgentRun && len(g.queues[1]) > 0 {
		q = 1
	}
	if len(g.queues[q]) == 0 {
		g.held = false
		g.run = 0
		return
	}
	g.run++
	if q == 1 {
		g.run = 0
	}
	turn := g.queues[q][0]
	g.queues[q] = g.queues[q][1:]
	close(turn)
}
