package sessions

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
)

// StreamHandler serves a stream that a node has opened: see bulk.Handler.
type StreamHandler func(ctx context.Context, node string, h bulk.Header, s *bulk.Stream) error

// secondTimeout bounds how long a node may take to open its second connection.
const secondTimeout = 15 * time.Second

// second is a session's second connection, which the node dials: for what is
// long or large. It ends with the session.
type second struct {
	mu      sync.Mutex
	conn    *bulk.Conn
	came    chan struct{} // closed when there is a conn
	asking  chan struct{} // holds a token while the node is being asked
	settled bool          // the session has ended: none is taken any more
}

func newSecond() *second {
	return &second{came: make(chan struct{}), asking: make(chan struct{}, 1)}
}

// get returns the connection that is open, or what is closed when one is.
func (b *second) get() (*bulk.Conn, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil && b.conn.Closed() {
		b.conn, b.came = nil, make(chan struct{})
	}
	return b.conn, b.came
}

// put makes a connection the session's. One before it ends: the node has dialled
// anew because it has lost that.
func (b *second) put(c *bulk.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.settled {
		return false
	}
	if b.conn != nil {
		_ = b.conn.Close()
	} else {
		close(b.came)
	}
	b.conn = c
	return true
}

func (b *second) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settled = true
	if b.conn != nil {
		_ = b.conn.Close()
	}
}

// Stream opens a stream to a node, which is asked for its second connection if
// there is none. How the node answers the header is known with the first Read.
// An offline node is KindUnavailable, at once.
func (m *Manager) Stream(ctx context.Context, node string, h bulk.Header) (*bulk.Stream, error) {
	m.mu.Lock()
	s := m.sessions[node]
	m.mu.Unlock()
	if s == nil {
		return nil, models.Errorf(models.KindUnavailable, "node %s is offline", node)
	}
	for range 2 { // one that is closed at this moment is opened again
		conn, err := m.second(ctx, s)
		if err != nil {
			return nil, err
		}
		var stream *bulk.Stream
		if h.Kind == bulk.KindService {
			stream, err = conn.OpenService(ctx, h)
		} else {
			stream, err = conn.Open(h)
		}
		if err == nil {
			return stream, nil
		}
		if models.KindOf(err) != models.KindInternal || ctx.Err() != nil {
			return nil, err
		}
		_ = conn.Close()
	}
	return nil, models.Errorf(models.KindUnavailable, "the second connection to node %s was lost", node)
}

func (m *Manager) second(ctx context.Context, s *session) (*bulk.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, secondTimeout)
	defer cancel()
	select {
	case s.second.asking <- struct{}{}:
		defer func() { <-s.second.asking }()
	case <-ctx.Done():
		return nil, m.notCome(ctx, s)
	case <-s.done:
		return nil, m.notCome(ctx, s)
	}
	conn, came := s.second.get()
	if conn != nil {
		return conn, nil
	}
	if err := m.Ask(ctx, s.id.Name, Question{Method: edgelink.MethodBulk, Body: struct{}{}}, func([]byte) error { return nil }); err != nil {
		return nil, err
	}
	select {
	case <-came:
	case <-s.done:
		return nil, m.notCome(ctx, s)
	case <-ctx.Done():
		return nil, m.notCome(ctx, s)
	}
	conn, _ = s.second.get()
	if conn == nil {
		return nil, m.notCome(ctx, s)
	}
	return conn, nil
}

func (m *Manager) notCome(ctx context.Context, s *session) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	return models.Errorf(models.KindUnavailable, "node %s has not opened its second connection", s.id.Name)
}

// bulk admits the second connection of a node that is linked. The epoch proves
// that it comes from the same process as the link.
func (m *Manager) bulk(w http.ResponseWriter, r *http.Request) {
	cert := peer(w, r)
	if cert == nil {
		return
	}
	id, err := m.Identity.Authenticate(r.Context(), cert)
	if err != nil {
		m.log.Warn("second connection refused", "subject", cert.Subject.CommonName, "remote", remoteIP(r), "error", err)
		problem(w, kinded(err))
		return
	}
	m.mu.Lock()
	s := m.sessions[id.Name]
	ok := s != nil && !m.closing && s.id.UID == id.UID && s.epoch == r.Header.Get(edgelink.HeaderEpoch)
	if ok {
		m.wait.Add(1)
	}
	m.mu.Unlock()
	if !ok {
		problem(w, models.Errorf(models.KindConflict, "there is no link that this connection would belong to"))
		return
	}
	conn, err := bulk.Accept(w, r)
	if err != nil {
		m.wait.Done()
		m.log.Warn("second connection refused", "node", id.Name, "error", err)
		return
	}
	go func() { // owned by the Manager: Close waits
		defer m.wait.Done()
		m.serveSecond(s, conn)
	}()
}

// serveSecond serves a second connection until the session ends, or nobody has
// used it for a while.
func (m *Manager) serveSecond(s *session, conn *bulk.Conn) {
	defer conn.Close()
	conn.Crowded = m.Crowded
	if !s.second.put(conn) {
		return
	}
	idle := cmp.Or(m.SecondIdle, bulk.IdleAfter)
	ctx, cancel := context.WithCancel(context.Background()) // ends with the connection
	defer cancel()
	var wait sync.WaitGroup
	defer wait.Wait()
	wait.Go(func() {
		tick := time.NewTicker(idle / 4)
		defer tick.Stop()
		for {
			select {
			case <-s.done:
				_ = conn.Close()
				return
			case <-conn.Done():
				return
			case <-tick.C:
				if conn.Idle() > idle {
					_ = conn.Close()
					return
				}
			}
		}
	})
	handlers := map[string]bulk.Handler{}
	for kind, handle := range m.Streams {
		handlers[kind] = func(ctx context.Context, h bulk.Header, stream *bulk.Stream) error {
			return handle(ctx, s.id.Name, h, stream)
		}
	}
	err := conn.Serve(ctx, handlers, m.log)
	m.log.Debug("second connection closed", "node", s.id.Name, "cause", err)
}
