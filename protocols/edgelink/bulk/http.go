package bulk

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// ServeHTTP serves HTTP on one connection, such as a Stream, until its peer closes
// it or ctx ends.
func ServeHTTP(ctx context.Context, conn net.Conn, handler http.Handler) {
	l := &oneConn{conn: conn, done: make(chan struct{})}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: StreamIdle, MaxHeaderBytes: 16 << 10, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed || s == http.StateHijacked {
			l.once.Do(func() { close(l.done) })
		}
	}}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	_ = srv.Serve(l) // ends with the connection
	_ = srv.Close()
}

// oneConn is a listener to which one connection comes, and which ends with it.
type oneConn struct {
	conn net.Conn
	done chan struct{}
	once sync.Once
}

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.done
	return nil, errors.New("the connection is closed")
}

// Close implements net.Listener.
func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "bulk", Net: "unix"} }
