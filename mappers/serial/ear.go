package serial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/serial"
)

// ears is the ports of a driver's devices that talk unasked.
type ears struct {
	mu     sync.Mutex
	byPort map[wire.Config]*ear
}

// ear is one port that is listened to, and the devices that talk on it. Its
// loop runs from the first use of a device until the last one leaves.
type ear struct {
	table *ears
	cfg   wire.Config
	end   context.CancelFunc
	ctx   context.Context
	done  chan struct{} // closed when the loop has ended
	turn  chan struct{} // a one-slot lock of writing

	// Guarded by table.mu.
	listeners map[*listener]bool
	running   bool

	mu   sync.Mutex
	port *wire.Port // nil while there is none
	err  error      // why
}

// reopening is how long it takes until a port that is gone is looked for again.
const reopening = 500 * time.Millisecond

func (t *ears) join(cfg wire.Config, l *listener) *ear {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byPort[cfg]
	if e == nil {
		e = &ear{table: t, cfg: cfg, done: make(chan struct{}), turn: make(chan struct{}, 1), listeners: map[*listener]bool{}}
		e.ctx, e.end = context.WithCancel(context.Background())
		t.byPort[cfg] = e
	}
	e.listeners[l] = true
	return e
}

// leave takes a device away, and waits for the loop's end after the last.
func (e *ear) leave(l *listener) {
	e.table.mu.Lock()
	delete(e.listeners, l)
	last, running := len(e.listeners) == 0, e.running
	if last && e.table.byPort[e.cfg] == e {
		delete(e.table.byPort, e.cfg)
	}
	e.table.mu.Unlock()
	if last {
		e.end()
		if running {
			<-e.done
		}
	}
}

// start makes sure that the loop runs.
func (e *ear) start() {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	if !e.running {
		e.running = true
		go e.run(e.ctx) // ends with the last device's leave, which waits for it
	}
}

// tell does something for every device.
func (e *ear) tell(f func(*listener)) {
	e.table.mu.Lock()
	all := make([]*listener, 0, len(e.listeners))
	for l := range e.listeners {
		all = append(all, l)
	}
	e.table.mu.Unlock()
	for _, l := range all {
		f(l)
	}
}

func (e *ear) run(ctx context.Context) {
	defer close(e.done)
	for ctx.Err() == nil {
		err := e.listen(ctx)
		e.mu.Lock()
		e.port, e.err = nil, err
		e.mu.Unlock()
		e.tell(func(l *listener) { l.lost(err) })
		_ = sleepUntil(ctx, time.Now().Add(reopening)) // the loop looks at ctx
	}
}

// listen opens the port and hands on what comes until it is gone.
func (e *ear) listen(ctx context.Context) error {
	opening, cancel := context.WithTimeout(ctx, reopening)
	port, err := wire.Open(opening, e.cfg)
	cancel()
	if errors.Is(err, wire.ErrInUse) {
		return fmt.Errorf("%w: another device has it with other settings, or asks on it", err)
	}
	if err != nil {
		return err
	}
	defer port.Close()
	if err := port.Flush(); err != nil { // what was said before is old
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = port.SetDeadline(time.Now()) })
	defer stop()
	e.mu.Lock()
	e.port, e.err = port, nil
	e.mu.Unlock()
	e.tell((*listener).found)
	buf := make([]byte, 4096)
	for {
		n, err := port.Read(buf)
		if n > 0 {
			now := time.Now()
			e.tell(func(l *listener) { l.take(buf[:n], now) })
		}
		if err != nil {
			return err
		}
	}
}

// write sends a message when it is its turn. waiting is called when nothing is
// in the way any more, right before.
func (e *ear) write(ctx context.Context, message []byte, timeout time.Duration, waiting func()) *mappers.Failure {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return unsent(models.ReasonTimeout, fmt.Errorf("waiting for the line: %w", context.Cause(ctx)))
	}
	e.mu.Lock()
	port, err := e.port, e.err
	e.mu.Unlock()
	if port == nil {
		if err == nil {
			err = errors.New("the port is not open yet")
		}
		return unsent(models.ReasonNotConnected, err)
	}
	if err := port.SetWriteDeadline(time.Now().Add(timeout + e.cfg.CharTime(len(message)))); err != nil {
		return unsent(models.ReasonNotConnected, err)
	}
	waiting()
	switch n, err := port.Write(message); {
	case err == nil:
		return nil
	case n == 0 && errors.Is(err, wire.ErrGone): // the system took nothing, or the port had failed before
		return unsent(models.ReasonNotConnected, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return mappers.Fail(models.ReasonTimeout, fmt.Errorf("%s does not take what is sent: %w", e.cfg.Device, err))
	default:
		return mappers.Fail(models.ReasonNotConnected, err)
	}
}
