package cloudapi

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/whimbrel-edge/whimbrel/models"
)

// beginAfter is how long a stream waits for its first line before it says 200
// all the same. A source that refuses, because the cursor is too old, does so
// within it and gets its own status.
const beginAfter = 50 * time.Millisecond

// stream is an answer that goes on until the caller leaves, the source fails,
// the server shuts down or the caller's token stops being good.
type stream struct {
	c           *call
	contentType string
	first       []byte        // written when the stream begins
	beat        []byte        // written every Heartbeat
	patience    time.Duration // how long the caller may take for one write; 0: WriteTimeout
	compress    bool          // what is said at once is much: it may be compressed
	patient     bool          // begin with the first line or beat, not after beginAfter: the source may find out late that it refuses

	mu    sync.Mutex
	begun bool
	ended bool         // the compressed text is: there is nothing to write any more
	zip   *gzip.Writer // nil: the text goes as it is
	err   error        // of the first write that failed; all further ones fail with it
}

// run calls feed, which writes with s.write, and returns its error: as an answer
// while nothing was written, else for the last line.
func (s *stream) run(feed func(context.Context) error) error {
	ctx, cancel := s.c.long()
	var tender sync.WaitGroup
	tender.Go(func() { s.tend(ctx, cancel) })
	defer tender.Wait()
	defer cancel(nil)
	err := feed(ctx)
	if err == nil {
		err = s.write(nil)
	}
	if end := s.unzip(err == nil); err == nil {
		err = end
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// tend begins the stream when the source is quiet, beats, and looks whether the
// caller is still who it was.
func (s *stream) tend(ctx context.Context, cancel context.CancelCauseFunc) {
	quiet := time.NewTimer(beginAfter)
	defer quiet.Stop()
	if s.patient {
		quiet.Stop()
	}
	tick := time.NewTicker(s.c.api.Heartbeat)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-quiet.C:
			err = s.write(nil)
		case <-tick.C:
			// The call's own caller is left alone: its handler reads it.
			now := *s.c
			if err = now.authenticate(); err == nil && now.caller != s.c.caller {
				err = errChanged
			}
			if err == nil {
				err = s.write(s.beat)
			}
		}
		if err != nil {
			cancel(err)
			return
		}
	}
}

var errChanged = models.Errorf(models.KindUnauthorized, "the caller's role has changed")

// write sends and flushes. A peer that does not take it within WriteTimeout
// loses the stream, so nothing is queued here.
func (s *stream) write(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.ended {
		return s.err
	}
	control := http.NewResponseController(s.c.w)
	if !s.begun {
		s.begun = true
		s.c.w.Header().Set("Content-Type", s.contentType)
		s.c.w.Header().Set("X-Accel-Buffering", "no") // proxies would hold lines back
		if s.compress {
			s.zip = s.c.zips(p)
		}
		s.c.begin(http.StatusOK)
		if s.patience > 0 {
			_ = control.SetWriteDeadline(time.Now().Add(s.patience))
		}
		p = append(append([]byte{}, s.first...), p...)
	} else {
		patience := s.patience
		if patience == 0 {
			patience = s.c.api.WriteTimeout
		}
		_ = control.SetWriteDeadline(time.Now().Add(patience))
	}
	switch {
	case len(p) == 0:
	case s.zip == nil:
		_, s.err = s.c.w.Write(p)
	default:
		if _, s.err = s.zip.Write(p); s.err == nil {
			s.err = s.zip.Flush() // what is read is on its way, and memory holds one page
		}
	}
	if s.err == nil {
		s.err = control.Flush()
	}
	// On HTTP/2 a deadline that passes ends the stream although nothing is being
	// written.
	_ = control.SetWriteDeadline(time.Time{})
	return s.err
}

// unzip ends the compressed text where all of it has been said. One that breaks off has
// no end, which the caller finds.
func (s *stream) unzip(whole bool) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.zip == nil {
		return nil
	}
	if whole && s.err == nil {
		control := http.NewResponseController(s.c.w)
		_ = control.SetWriteDeadline(time.Now().Add(s.c.api.WriteTimeout))
		err = s.zip.Close()
		_ = control.SetWriteDeadline(time.Time{})
	}
	rest(s.zip)
	s.zip, s.ended = nil, true
	return err
}

// started reports whether the answer has begun, so that an error can no longer
// be one.
func (s *stream) started() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}
