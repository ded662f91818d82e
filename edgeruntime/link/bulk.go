package link

import (
	"context"
	"sync"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
)

// second is a session's second connection, for what is long or large: there is
// none before somebody wants one, and it ends with the session.
type second struct {
	ctx     context.Context
	stop    context.CancelFunc
	wait    sync.WaitGroup
	dialing chan struct{} // holds a token while somebody looks for it or dials

	conn *bulk.Conn // under dialing
}

func newSecond() *second {
	ctx, stop := context.WithCancel(context.Background())
	return &second{ctx: ctx, stop: stop, dialing: make(chan struct{}, 1)}
}

// end ends the connection and waits for all that is in it.
func (b *second) end() {
	b.stop()
	b.dialing <- struct{}{} // for good: nobody dials any more
	b.wait.Wait()
}

// open returns the connection, dialled if need be.
func (s *session) openSecond(ctx context.Context) (*bulk.Conn, error) {
	b := s.second
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	select {
	case b.dialing <- struct{}{}:
		defer func() { <-b.dialing }()
	case <-ctx.Done():
		return nil, models.Errorf(models.KindUnavailable, "the second connection to the hub is not open: %v", ctx.Err())
	}
	if b.conn != nil && !b.conn.Closed() {
		return b.conn, nil
	}
	conn, err := bulk.Dial(ctx, s.l.cfg.URL, s.l.identity.tls(), s.epoch)
	if err != nil {
		return nil, models.Errorf(models.KindUnavailable, "the second connection to the hub cannot be opened: %v", err)
	}
	if b.ctx.Err() != nil {
		_ = conn.Close()
		return nil, models.Errorf(models.KindUnavailable, "the link to the hub was lost")
	}
	b.conn = conn
	s.l.log.Debug("second connection opened")
	b.wait.Go(func() {
		err := conn.Serve(b.ctx, s.l.cfg.Streams, s.l.log)
		s.l.log.Debug("second connection closed", "cause", err)
	})
	return conn, nil
}

// answerBulk answers a hub that wants the second connection.
func (s *session) answerBulk(ctx context.Context, _ Request, _ func([]byte) error) ([]byte, error) {
	_, err := s.openSecond(ctx)
	return nil, err
}

// Stream opens a stream to the hub. Without a link it is KindUnavailable.
func (l *Link) Stream(ctx context.Context, h bulk.Header) (*bulk.Stream, error) {
	s := l.live.Load()
	if s == nil {
		return nil, models.Errorf(models.KindUnavailable, "there is no link to the hub")
	}
	conn, err := s.openSecond(ctx)
	if err != nil {
		return nil, err
	}
	if h.Kind == bulk.KindService {
		return conn.OpenService(ctx, h)
	}
	return conn.Open(h)
}
