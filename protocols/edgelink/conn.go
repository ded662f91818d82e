package edgelink

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Limits of the link.
const (
	MaxMessage   = 8 << 20          // bytes of a message, both as sent and unpacked
	MaxRecord    = 4 << 20          // bytes of one record
	PackAbove    = 1 << 10          // messages longer than this are compressed
	WriteTimeout = 60 * time.Second // for one message to be taken by the network
)

// ErrMalformed is wrapped by every error about bytes that break FORMAT.md.
var ErrMalformed = errors.New("malformed")

// RefusedError is what a server that did not open the link answered.
type RefusedError struct {
	Status int    // of HTTP
	Detail string // from its problem document, or the start of the body
}

func (e *RefusedError) Error() string { return "" }

// Conn is one link. Send and Ping may be called at once from several goroutines,
// Recv from one.
type Conn struct{}

// Dial opens the link to a hub. url is the hub's link URL, https://host:port. A
// server that answers with anything but the link is a *RefusedError.
func Dial(ctx context.Context, url string, tlsConfig *tls.Config) (*Conn, error) { return nil, nil }

// Accept takes over a request to PathLink. When it fails it has answered the
// request. The handler that calls it should start a goroutine for the Conn and
// return, which gives back the memory of the HTTP server's side.
func Accept(w http.ResponseWriter, r *http.Request) (*Conn, error) { return nil, nil }

// Send sends one frame. ctx bounds only the wait for other Sends: a message
// that has begun gets WriteTimeout, after which the link is closed, for half a
// message cannot be taken back.
func (c *Conn) Send(ctx context.Context, f *pb.Frame) error { return nil }

// Recv returns the next frame, the caller's to keep. When ctx ends while it
// waits, the link is closed. After an ErrMalformed the link is still open, and
// it is the caller's to say goodbye.
func (c *Conn) Recv(ctx context.Context) (*pb.Frame, error) { return nil, nil }

// Ping returns when the other end has answered; somebody must be in Recv.
func (c *Conn) Ping(ctx context.Context) error { return nil }

// Close tells the other end why (at most 123 bytes) and waits up to 5 s for its
// consent. On failure paths use CloseNow.
func (c *Conn) Close(reason string) error { return nil }

// CloseNow drops the connection.
func (c *Conn) CloseNow() error { return nil }
