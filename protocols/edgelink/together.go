package edgelink

import (
	"io"
	"net/http"
	"sync"
)

// Together makes one write of those that are made during a call. A WebSocket's client
// masks what it sends, which the library does in pieces of 4 KiB: each would be a TLS
// record and a system call.
type Together struct {
	mu      sync.Mutex
	to      io.ReadWriteCloser
	holding bool
	held    []byte
}

// heldBytes is how much is held; more goes out at once.
const heldBytes = 128 << 10

// Do calls write, and then writes what that has written. It is called by one
// goroutine at a time; others may write meanwhile, and wait with the rest.
func (t *Together) Do(write func() error) error {
	t.mu.Lock()
	t.holding = true
	t.mu.Unlock()
	err := write()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holding = false
	if flushed := t.flushLocked(); err == nil {
		err = flushed
	}
	return err
}

func (t *Together) flushLocked() error {
	if len(t.held) == 0 {
		return nil
	}
	_, err := t.to.Write(t.held)
	t.held = t.held[:0]
	return err
}

// Read implements io.Reader.
func (t *Together) Read(p []byte) (int, error) { return t.to.Read(p) }

// Write implements io.Writer.
func (t *Together) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.holding {
		return t.to.Write(p)
	}
	t.held = append(t.held, p...)
	if len(t.held) < heldBytes {
		return len(p), nil
	}
	if err := t.flushLocked(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements io.Closer: it ends a Write that waits.
func (t *Together) Close() error { return t.to.Close() }

// roundTripper has what becomes of an HTTP connection written together.
func (t *Together) roundTripper(next http.RoundTripper) http.RoundTripper {
	return roundTripperFunc(func(r *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		if rwc, ok := res.Body.(io.ReadWriteCloser); ok {
			t.to, res.Body = rwc, t
		}
		return res, nil
	})
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
