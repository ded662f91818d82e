package edgelink

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// WriteTimeout is how long the network may take to accept one message.
const WriteTimeout = 60 * time.Second

// RefusedError is what a server that did not open the link answered.
type RefusedError struct {
	Status int    // of HTTP
	Detail string // from its problem document, or the start of the body
}

func (e *RefusedError) Error() string {
	text := fmt.Sprintf("the server refused the link: %d %s", e.Status, http.StatusText(e.Status))
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// Conn is one link. Send and Ping may be called at once from several goroutines,
// Recv from one.
type Conn struct {
	ws      *websocket.Conn
	sending chan struct{} // holds a token while a message is being written
}

func newConn(ws *websocket.Conn) *Conn {
	// The library's own limit is 32 KiB. It cuts the connection at the limit, so
	// one byte more lets DecodeFrame be the one who says no.
	ws.SetReadLimit(MaxMessage + 1)
	return &Conn{ws: ws, sending: make(chan struct{}, 1)}
}

// Dial opens the link to a hub. url is the hub's link URL, https://host:port. A
// server that answers with anything but the link is a *RefusedError.
func Dial(ctx context.Context, url string, tlsConfig *tls.Config) (*Conn, error) {
	ws, err := DialWebSocket(ctx, url, PathLink, Subprotocol, tlsConfig, nil, nil)
	if err != nil {
		return nil, err
	}
	return newConn(ws), nil
}

// DialWebSocket opens a WebSocket to a path of a hub's link server. A server that
// answers with anything else is a *RefusedError.
//
// What is written to it during a call of together's Do is sent at once; nil: nothing is
// to be.
func DialWebSocket(ctx context.Context, url, path, subprotocol string, tlsConfig *tls.Config, header http.Header, together *Together) (*websocket.Conn, error) {
	// HTTP/2 has no upgrade, and a link is never made twice over one connection.
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   30 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		DisableKeepAlives:     true,
	}
	defer transport.CloseIdleConnections()
	var tripper http.RoundTripper = transport
	if together != nil {
		tripper = together.roundTripper(transport)
	}
	ws, resp, err := websocket.Dial(ctx, strings.TrimSuffix(url, "/")+path, &websocket.DialOptions{
		HTTPClient:      &http.Client{Transport: tripper, CheckRedirect: noRedirect},
		HTTPHeader:      header,
		Subprotocols:    []string{subprotocol},
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, refused(resp)
		}
		return nil, fmt.Errorf("dial hub: %w", err)
	}
	if ws.Subprotocol() != subprotocol {
		ws.CloseNow()
		return nil, &RefusedError{Status: resp.StatusCode, Detail: "it does not speak " + subprotocol}
	}
	return ws, nil
}

// noRedirect keeps a client certificate from being shown to whoever a captive
// portal points at.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// refused makes the error of an answer; the WebSocket library keeps its first
// kilobyte.
func refused(resp *http.Response) *RefusedError {
	e := &RefusedError{Status: resp.StatusCode}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	var problem models.Problem
	if json.Unmarshal(body, &problem) == nil && problem.Detail != "" {
		e.Detail = problem.Detail
	} else {
		e.Detail = strings.TrimSpace(strings.ToValidUTF8(string(body), ""))
	}
	return e
}

// Accept takes over a request to PathLink. When it fails it has answered the
// request. The handler that calls it should start a goroutine for the Conn and
// return, which gives back the memory of the HTTP server's side.
func Accept(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	ws, err := AcceptWebSocket(w, r, Subprotocol)
	if err != nil {
		return nil, err
	}
	return newConn(ws), nil
}

// AcceptWebSocket takes over a request for a WebSocket. When it fails it has
// answered the request.
func AcceptWebSocket(w http.ResponseWriter, r *http.Request, subprotocol string) (*websocket.Conn, error) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:    []string{subprotocol},
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, fmt.Errorf("accept link: %w", err)
	}
	if ws.Subprotocol() != subprotocol {
		ws.Close(websocket.StatusPolicyViolation, "speak "+subprotocol)
		return nil, fmt.Errorf("accept link: the client does not speak %s", subprotocol)
	}
	return ws, nil
}

// Send sends one frame. ctx bounds only the wait for other Sends: a message
// that has begun gets WriteTimeout, after which the link is closed, for half a
// message cannot be taken back.
func (c *Conn) Send(ctx context.Context, f *pb.Frame) error {
	message := scratch.Get().(*[]byte)
	defer putScratch(message)
	packed, err := AppendFrame((*message)[:0], f)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	*message = packed

	select {
	case c.sending <- struct{}{}:
		defer func() { <-c.sending }()
	case <-ctx.Done():
		return fmt.Errorf("send: %w", context.Cause(ctx))
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("send: %w", context.Cause(ctx))
	}
	// Not under ctx: the library closes the connection when the context of a
	// write ends.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), WriteTimeout)
	defer cancel()
	if err := c.ws.Write(ctx, websocket.MessageBinary, packed); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Recv returns the next frame, the caller's to keep. When ctx ends while it
// waits, the link is closed. After an ErrMalformed the link is still open, and
// it is the caller's to say goodbye.
func (c *Conn) Recv(ctx context.Context) (*pb.Frame, error) {
	kind, r, err := c.ws.Reader(ctx)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	scratched := scratch.Get().(*[]byte)
	defer putScratch(scratched)
	message := bytes.NewBuffer((*scratched)[:0])
	_, err = message.ReadFrom(r)
	*scratched = message.Bytes()
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	if kind != websocket.MessageBinary {
		return nil, fmt.Errorf("receive: %w", malformed("text message"))
	}
	f, err := DecodeFrame(message.Bytes())
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return f, nil
}

// ClosedBy returns the reason that the other end gave to Close, when that is why
// Send or Recv failed.
func ClosedBy(err error) (reason string, ok bool) {
	var closed websocket.CloseError
	if errors.As(err, &closed) {
		return closed.Reason, true
	}
	return "", false
}

// Ping returns when the other end has answered; somebody must be in Recv.
func (c *Conn) Ping(ctx context.Context) error {
	if err := c.ws.Ping(ctx); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// Close tells the other end why, in at most 123 bytes, and waits up to 5 s for
// its consent. On failure paths use CloseNow.
func (c *Conn) Close(reason string) error {
	if len(reason) > 123 {
		reason = strings.ToValidUTF8(reason[:123], "")
	}
	return c.ws.Close(websocket.StatusNormalClosure, reason)
}

// CloseNow drops the connection.
func (c *Conn) CloseNow() error { return c.ws.CloseNow() }
