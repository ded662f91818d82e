// Package bulk is the second connection between an edge and its hub: a
// WebSocket with many streams in it, for what is long or large and must not
// stand in the way of the link. The edge dials it when the hub asks for it, or
// when it wants something itself; it is closed when nobody has used it for a
// while. Either end opens streams. FORMAT.md in the folder above has the bytes.
//
// devicehub/sessions and edgeruntime/link are its two ends.
package bulk

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/hashicorp/yamux"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// Bounds of a connection; FORMAT.md says what happens beyond them.
const (
	MaxStreams  = 64        // open at a time, of each end
	MaxServices = 48        // of these of KindService: who looks after the node is not kept out by those who ask its apps
	Window      = 256 << 10 // bytes of a stream that may be on their way
	MaxHeader   = 64 << 10  // bytes of a stream's header, and of its answer
	// HeaderTimeout is how long whoever opens a stream may take for its header.
	HeaderTimeout = 30 * time.Second
	// StreamIdle ends a stream on which nothing has moved for so long.
	StreamIdle = 15 * time.Minute
	// IdleAfter is how long the hub keeps a connection that has no streams.
	IdleAfter = 2 * time.Minute

	// turn is how long a stream of KindService waits for another one to end, and
	// maxWaiting how many do so at a time; beyond, they are refused at once.
	turn       = 5 * time.Second
	maxWaiting = 4 * MaxServices

	// stuck is how long the network may take none of what is to be sent.
	stuck = time.Minute
)

// life is how an end finds out that the other one is no longer there.
type life struct {
	ask    time.Duration // after so long without a byte from it or to it, it is asked for a sign of life
	silent time.Duration // after so long without a byte from it, the connection is closed
}

// usual has a connection through which nothing comes any more end within 45 s. A slow
// one is none of those: who only takes says so as often as who is not told anything asks.
var usual = life{ask: 10 * time.Second, silent: 40 * time.Second}

// Kinds of streams.
const (
	KindService = "service" // hub to edge, edge to hub: what one connection to an app's port carries
	KindLogs    = "logs"    // hub to edge: what a container says
	KindExec    = "exec"    // hub to edge: a command in a container
	KindImage   = "image"   // edge to hub: HTTP requests for the parts of one image
)

// Header is the first thing on a stream.
type Header struct {
	Kind  string          `json:"kind"`
	Trace string          `json:"trace,omitempty"` // traceparent of whoever asks
	Body  json.RawMessage `json:"body,omitempty"`  // as the kind has it
}

// ServiceTarget is the body of a KindService.
type ServiceTarget struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Port      string `json:"port,omitempty"` // name or number of one of the Service's; "" for the first
	// Pod is the name of the one that is meant, "" for any. Edges without
	// edgelink.CapabilityServicePod do not know it.
	Pod string `json:"pod,omitempty"`
}

// ImageWanted is the body of a KindImage. FORMAT.md says what may be asked for.
type ImageWanted struct {
	Reference string `json:"reference"` // as a pod of the node has it
}

// NewHeader makes a header.
func NewHeader(kind, trace string, body any) (Header, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return Header{}, fmt.Errorf("header of a stream: %w", err)
	}
	return Header{Kind: kind, Trace: trace, Body: text}, nil
}

// answer is what a header is answered with.
type answer struct {
	Problem *models.Problem `json:"problem,omitempty"`
}

// ErrMalformed is wrapped by errors of headers and answers that are none.
var ErrMalformed = errors.New("malformed stream")

// writePrefixed writes v as JSON after its length.
func writePrefixed(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if len(text) > MaxHeader {
		return models.Errorf(models.KindTooLarge, "what is asked of the node has %d bytes, at most %d are allowed", len(text), MaxHeader)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

// readPrefixed reads what writePrefixed wrote, and not a byte more.
func readPrefixed(r io.Reader, v any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > MaxHeader {
		return fmt.Errorf("%w: %d bytes, more than %d", ErrMalformed, n, MaxHeader)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// Handler serves a stream that the other end has opened. It calls Accept before
// it writes, or returns an error, with which the stream is refused; it must end
// soon after ctx does. The stream is closed when it returns.
type Handler func(ctx context.Context, h Header, s *Stream) error

// Conn is one connection. Its methods may be called from any goroutine, Serve once.
type Conn struct {
	// Crowded is called when a stream of KindService has to wait for another one to
	// end, so that those may be closed which nobody uses. It must not block. nil: it
	// is not.
	Crowded func()

	mux     *yamux.Session
	opens   atomic.Int32  // streams that this end has opened
	turns   chan struct{} // a token for each of KindService
	turn    time.Duration // how long one is waited for
	waiting atomic.Int32  // those who wait
	used    atomic.Int64  // when one was last opened or closed, since began
	began   time.Time
}

func config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.AcceptBacklog = MaxStreams
	c.EnableKeepAlive = false // it takes a slow answer for none; see Conn.watch
	c.ConnectionWriteTimeout = stuck
	c.StreamOpenTimeout = stuck
	c.StreamCloseTimeout = StreamIdle // when it is over, what the other end has not read is lost
	c.MaxStreamWindowSize = Window
	c.LogOutput = io.Discard // what it has to say comes as errors, too
	return c
}

func newConn(ws *websocket.Conn, together *edgelink.Together, l life, open func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error)) (*Conn, error) {
	conn := gather(websocket.NetConn(context.Background(), ws, websocket.MessageBinary), together)
	conn.cut = ws.CloseNow // Close would wait for the other end to agree
	mux, err := open(conn, config())
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("second connection: %w", err)
	}
	c := &Conn{mux: mux, turns: make(chan struct{}, MaxServices), turn: turn, began: time.Now()}
	go c.watch(conn, l) // ends with the connection
	return c, nil
}

// watch closes a connection on which nothing comes any more: packets may vanish
// without anybody saying so.
func (c *Conn) watch(conn *gathered, l life) {
	tick := time.NewTicker(l.ask / 2)
	defer tick.Stop()
	asked := make(chan struct{}, 64) // tokens while answers are waited for, a minute at most, as they may come behind much; beyond, it is not asked
	for {
		select {
		case <-c.Done():
			return
		case <-tick.C:
		}
		quiet := conn.quiet()
		if quiet >= l.silent {
			_ = c.Close()
			return
		}
		if quiet < l.ask && conn.mute() < l.ask {
			continue
		}
		select {
		case asked <- struct{}{}:
			go func() { // ends with the connection at the latest
				_, _ = c.mux.Ping() // whatever comes shows that the other end lives
				<-asked
			}()
		default:
		}
	}
}

// Dial opens the connection to a hub. epoch is that of the Hello with which this
// edge's link began.
func Dial(ctx context.Context, url string, tlsConfig *tls.Config, epoch string) (*Conn, error) {
	return dial(ctx, url, tlsConfig, epoch, usual)
}

func dial(ctx context.Context, url string, tlsConfig *tls.Config, epoch string, l life) (*Conn, error) {
	together := &edgelink.Together{}
	ws, err := edgelink.DialWebSocket(ctx, url, edgelink.PathBulk, edgelink.BulkSubprotocol, tlsConfig, http.Header{edgelink.HeaderEpoch: {epoch}}, together)
	if err != nil {
		return nil, err
	}
	return newConn(ws, together, l, yamux.Client)
}

// Accept takes over a request to PathBulk. When it fails it has answered the
// request.
func Accept(w http.ResponseWriter, r *http.Request) (*Conn, error) { return accept(w, r, usual) }

func accept(w http.ResponseWriter, r *http.Request, l life) (*Conn, error) {
	ws, err := edgelink.AcceptWebSocket(w, r, edgelink.BulkSubprotocol)
	if err != nil {
		return nil, err
	}
	return newConn(ws, nil, l, yamux.Server)
}

// Done is closed when the connection is.
func (c *Conn) Done() <-chan struct{} { return c.mux.CloseChan() }

// Closed reports whether it is.
func (c *Conn) Closed() bool { return c.mux.IsClosed() }

// Close ends the connection and all that is in it.
func (c *Conn) Close() error { return c.mux.Close() }

// Idle is for how long there has been no stream.
func (c *Conn) Idle() time.Duration {
	if c.mux.NumStreams() > 0 {
		return 0
	}
	return time.Since(c.began) - time.Duration(c.used.Load())
}

func (c *Conn) touch() { c.used.Store(int64(time.Since(c.began))) }

// Open opens a stream. It does not wait for the other end: how that answers the
// header is known with the first Read, of which a refusal is the error.
func (c *Conn) Open(h Header) (*Stream, error) { return c.open(h, func() {}) }

// OpenService is Open for a KindService. When as many as may be are open it waits
// a while for one of them to end. The error then is KindUnavailable, and has a
// method RetryAfter.
func (c *Conn) OpenService(ctx context.Context, h Header) (*Stream, error) {
	select {
	case c.turns <- struct{}{}:
	default:
		if c.Crowded != nil {
			c.Crowded()
		}
		if err := c.await(ctx); err != nil {
			return nil, err
		}
	}
	var once sync.Once
	leave := func() { once.Do(func() { <-c.turns }) }
	s, err := c.open(h, leave)
	if err != nil {
		leave()
	}
	return s, err
}

func (c *Conn) await(ctx context.Context) error {
	defer c.waiting.Add(-1)
	if c.waiting.Add(1) > maxWaiting {
		return busy{}
	}
	t := time.NewTimer(c.turn)
	defer t.Stop()
	select {
	case c.turns <- struct{}{}:
		return nil
	case <-c.Done():
		return models.Errorf(models.KindUnavailable, "the connection to the node was lost")
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return busy{}
	}
}

// busy says that there are too many streams already.
type busy struct{}

func (busy) Error() string { return busyError.Error() }

var busyError = models.Errorf(models.KindUnavailable, "as many as %d requests to apps of the node are under way already", MaxServices)

// Unwrap gives its kind.
func (busy) Unwrap() error { return busyError }

// RetryAfter is for the header of that name.
func (busy) RetryAfter() time.Duration { return time.Second }

func (c *Conn) open(h Header, closed func()) (*Stream, error) {
	if c.opens.Add(1) > MaxStreams {
		c.opens.Add(-1)
		return nil, models.Errorf(models.KindTooMany, "%d streams to or from the node are open already", MaxStreams)
	}
	c.touch()
	m, err := c.mux.OpenStream()
	if err != nil {
		c.opens.Add(-1)
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	s := newStream(m, func() { c.opens.Add(-1); c.touch(); closed() })
	if err := writePrefixed(s, h); err != nil {
		_ = s.Close()
		return nil, err
	}
	s.unanswered.Store(true)
	return s, nil
}

// Serve serves the streams that the other end opens, by the kind of their
// headers, until the connection ends or ctx does, which ends it. It returns when
// all handlers have.
func (c *Conn) Serve(ctx context.Context, handlers map[string]Handler, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.mux.Close() })
	defer stop()
	var running atomic.Int32
	for {
		m, err := c.mux.AcceptStream()
		if err != nil {
			_ = c.mux.Close()
			return err
		}
		c.touch()
		s := newStream(m, c.touch)
		full := running.Add(1) > MaxStreams
		wait.Go(func() {
			defer running.Add(-1)
			defer s.Close()
			if full { // the other end breaks the rules
				_ = s.refuse(models.Errorf(models.KindTooMany, "%d streams are served already", MaxStreams))
				return
			}
			serveStream(ctx, s, handlers, log)
		})
	}
}

func serveStream(ctx context.Context, s *Stream, handlers map[string]Handler, log *slog.Logger) {
	var h Header
	err := s.SetReadDeadline(time.Now().Add(HeaderTimeout))
	if err == nil {
		err = readPrefixed(s, &h)
	}
	if err == nil {
		err = s.SetReadDeadline(time.Time{})
	}
	if err != nil {
		log.Debug("a stream without a header", "error", err)
		return
	}
	handle := handlers[h.Kind]
	if handle == nil {
		_ = s.refuse(models.Errorf(models.KindRefused, "NotSupportedByNode: the other end knows no streams of the kind %.60q; it may be of an older release", h.Kind))
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, s.Abort)
	defer stop()
	defer func() { // what it was asked came from outside: one that panics harms nobody else
		if p := recover(); p != nil {
			log.Error("panic in a stream", "kind", h.Kind, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if err := handle(ctx, h, s); err != nil {
		if models.KindOf(err) == models.KindInternal && ctx.Err() == nil && !s.accepted {
			log.Error("a stream failed", "kind", h.Kind, "error", err, "traceparent", h.Trace)
		}
		if !s.accepted {
			_ = s.refuse(err)
		}
	}
}
