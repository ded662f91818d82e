package courier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// MaxReply is how much of a target's answer is handed on.
const MaxReply = 1 << 20

// NewRequest makes the request that brings a message to a target.
func NewRequest(ctx context.Context, method, url string, m *pb.RouteMessage, accepted time.Time) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(m.Payload))
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "whimbrel")
	for _, h := range [][2]string{{"Content-Type", m.ContentType}, {"X-Whimbrel-Node", m.Node}, {"X-Whimbrel-Topic", m.Topic}} {
		if h[1] != "" && models.CheckHeader(h[0], h[1]) == "" { // a topic may have what a header cannot
			r.Header.Set(h[0], h[1])
		}
	}
	r.Header.Set("X-Whimbrel-Route", m.Namespace+"/"+m.Name)
	r.Header.Set("X-Whimbrel-Time", accepted.UTC().Format(time.RFC3339Nano))
	r.Header.Set("Idempotency-Key", m.Key)
	return r, nil
}

// Answer reads what a target answered, for who waits for it. Its body is left
// open.
func Answer(res *http.Response) (*pb.RouteReply, error) {
	body, err := io.ReadAll(io.LimitReader(res.Body, MaxReply+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(body) > MaxReply {
		return &pb.RouteReply{Status: uint32(res.StatusCode), Error: fmt.Sprintf("the target answered %d with more than %d bytes, which are not handed on", res.StatusCode, MaxReply)}, nil
	}
	return &pb.RouteReply{Status: uint32(res.StatusCode), ContentType: res.Header.Get("Content-Type"), Body: body}, nil
}

// NoAnswer is what who waits is told of an attempt that ended with err and without
// an answer of the target's. He is told at once: when there will be one is not known.
func NoAnswer(err error) *pb.RouteReply {
	a := &pb.RouteReply{Error: err.Error() + "; the message stays queued"}
	var refused *Refused
	var timeout net.Error
	switch {
	case errors.As(err, &refused) && refused.Final:
		a.Error, a.Status = err.Error(), http.StatusBadGateway
	case models.KindOf(err) == models.KindTimeout, errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		a.Status = http.StatusGatewayTimeout
	}
	return a
}

// StandsBehind is what who waits for a message is told when one before it was tried
// with err and is tried again. That the target has refused the other says nothing of
// this one, but that it does not answer is as true of both.
func StandsBehind(err error) *pb.RouteReply {
	a := NoAnswer(fmt.Errorf("an earlier message of the route waits for its target: %w", err))
	if a.Status != http.StatusGatewayTimeout {
		a.Status = 0
	}
	return a
}

// ReadReply is a reply as who waits is given it. With an Error, Status tells of
// which kind it is.
func ReadReply(a *pb.RouteReply) models.RouteReply {
	r := models.RouteReply{Matched: true, Error: a.Error}
	switch {
	case a.Error == "":
		r.Answered, r.Status, r.ContentType, r.Body = a.Status != 0, int(a.Status), a.ContentType, a.Body
	case a.Status == 0:
		r.Kind = models.KindUnavailable
	case a.Status == http.StatusGatewayTimeout:
		r.Kind = models.KindTimeout
	default:
		r.Kind = models.KindRefused
	}
	return r
}
