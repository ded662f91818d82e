// Package sessionstest has a small edge that speaks the link, for tests of the
// hub. It does what it is told and nothing by itself.
package sessionstest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Edge is a node's identity and where its hub is.
type Edge struct {
	URL  string // of the hub's link; may be changed
	Node string
	Key  crypto.Signer
	Cert *tls.Certificate // nil before it joined
	CAs  []*x509.Certificate
	UID  string
}

// New returns an edge that has not joined.
func New(t testing.TB, url, node string) *Edge {
	t.Helper()
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &Edge{URL: url, Node: node, Key: key}
}

// Clone returns the same edge as a copy of its disk is.
func (e *Edge) Clone() *Edge {
	c := *e
	return &c
}

// Joined returns an edge that has joined.
func Joined(t testing.TB, url, node, token string) *Edge {
	t.Helper()
	e := New(t, url, node)
	if err := e.Join(token, nil); err != nil {
		t.Fatal(err)
	}
	return e
}

// Join redeems a token.
func (e *Edge) Join(token string, labels map[string]string) error {
	parsed, err := pki.ParseJoinToken(token)
	if err != nil {
		return err
	}
	csr, err := pki.NewCSR(e.Key, e.Node)
	if err != nil {
		return err
	}
	return e.JoinWith(pki.JoinTLS(parsed.CAHash), edgelink.JoinRequest{Token: token, Node: e.Node, CSR: string(csr), Labels: labels})
}

// JoinWith sends a join request as it is.
func (e *Edge) JoinWith(config *tls.Config, req edgelink.JoinRequest) error {
	var resp edgelink.JoinResponse
	if err := e.post(config, edgelink.PathJoin, req, &resp); err != nil {
		return err
	}
	e.UID = resp.NodeUID
	return e.take(resp.Certificate, resp.CA)
}

// Renew asks for a new certificate for a key, its own when nil.
func (e *Edge) Renew(key crypto.Signer) error {
	if key == nil {
		key = e.Key
	}
	csr, err := pki.NewCSR(key, e.Node)
	if err != nil {
		return err
	}
	var resp edgelink.RenewResponse
	if err := e.post(e.TLS(), edgelink.PathRenew, edgelink.RenewRequest{CSR: string(csr)}, &resp); err != nil {
		return err
	}
	e.Key = key
	return e.take(resp.Certificate, resp.CA)
}

func (e *Edge) take(certificate, ca string) error {
	certs, err := pki.DecodeCerts([]byte(certificate))
	if err != nil {
		return err
	}
	if e.CAs, err = pki.DecodeCerts([]byte(ca)); err != nil {
		return err
	}
	e.Cert = &tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: e.Key, Leaf: certs[0]}
	return nil
}

// TLS returns what the edge connects with.
func (e *Edge) TLS() *tls.Config {
	return pki.EdgeTLS(func() (*tls.Certificate, error) { return e.Cert, nil }, func() []*x509.Certificate { return e.CAs })
}

// post sends a request; an answer that is no success is the error it was.
func (e *Edge) post(config *tls.Config, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Post(e.URL+path, "application/json", bytes.NewReader(text))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var p models.Problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			return fmt.Errorf("status %d without a problem: %w", resp.StatusCode, err)
		}
		return p.Err()
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// Hello returns a hello of one epoch that has no parent and no records.
func (e *Edge) Hello(epoch string) *pb.Hello {
	return &pb.Hello{Capability: edgelink.Capability, Node: e.Node, Version: "test", Os: "linux", Arch: "riscv64", Epochs: []*pb.Epoch{{Id: epoch}}}
}

// Link is an open link.
type Link struct {
	*edgelink.Conn
	Welcome *pb.Welcome

	t      testing.TB
	kept   []*pb.Frame // passed over by Acked
	frames chan *pb.Frame
	ended  chan struct{} // closed when nothing comes any more
	err    error         // why, after ended
}

// Dial opens the link without a hello.
func (e *Edge) Dial(t testing.TB) (*Link, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := edgelink.Dial(ctx, e.URL, e.TLS())
	if err != nil {
		return nil, err
	}
	l := &Link{Conn: conn, t: t, frames: make(chan *pb.Frame, 10_000), ended: make(chan struct{})}
	go func() { // ends with the link
		defer close(l.ended)
		for {
			f, err := conn.Recv(context.Background())
			if err != nil {
				l.err = err
				return
			}
			l.frames <- f
		}
	}()
	t.Cleanup(l.Drop)
	return l, nil
}

// Connect opens the link and greets; the answer must be a welcome.
func (e *Edge) Connect(t testing.TB, hello *pb.Hello) *Link {
	t.Helper()
	l, f := e.Greet(t, hello)
	if l.Welcome = f.GetWelcome(); l.Welcome == nil {
		t.Fatalf("no welcome but %v", f)
	}
	return l
}

// Greet opens the link and greets, and returns the answer, nil when there was
// none.
func (e *Edge) Greet(t testing.TB, hello *pb.Hello) (*Link, *pb.Frame) {
	t.Helper()
	l, err := e.Dial(t)
	if err != nil {
		t.Fatal(err)
	}
	l.Say(&pb.Frame{Id: 1, Body: &pb.Frame_Hello{Hello: hello}})
	return l, l.Next()
}

// Say sends a frame.
func (l *Link) Say(f *pb.Frame) {
	l.t.Helper()
	if err := l.Send(context.Background(), f); err != nil {
		l.t.Fatal(err)
	}
}

// Next returns the next frame, nil when the link has ended.
func (l *Link) Next() *pb.Frame {
	l.t.Helper()
	if len(l.kept) > 0 {
		f := l.kept[0]
		l.kept = l.kept[1:]
		return f
	}
	return l.receive()
}

func (l *Link) receive() *pb.Frame {
	l.t.Helper()
	select {
	case f := <-l.frames:
		return f
	default:
	}
	select {
	case f := <-l.frames:
		return f
	case <-l.ended:
		select {
		case f := <-l.frames:
			return f
		default:
			return nil
		}
	case <-time.After(30 * time.Second):
		l.t.Fatal("nothing comes")
	}
	return nil
}

// Await returns the next frame however long it takes, nil when the link or ctx
// has ended.
func (l *Link) Await(ctx context.Context) *pb.Frame {
	select {
	case f := <-l.frames:
		return f
	case <-l.ended:
	case <-ctx.Done():
	}
	return nil
}

// Quiet checks that nothing comes for a while.
func (l *Link) Quiet(d time.Duration) {
	l.t.Helper()
	select {
	case f := <-l.frames:
		l.t.Fatalf("unexpected %v", f)
	case <-l.ended:
		l.t.Fatalf("the link has ended: %v", l.err)
	case <-time.After(d):
	}
}

// Sync returns the next Sync; other frames are passed over.
func (l *Link) Sync() *pb.Sync {
	l.t.Helper()
	for {
		f := l.Next()
		if f == nil {
			l.t.Fatalf("the link has ended: %v", l.err)
		}
		if s := f.GetSync(); s != nil {
			return s
		}
	}
}

// FullSync gathers the items until the full Sync, and returns them with it.
func (l *Link) FullSync() (items []*pb.Item, full *pb.Sync) {
	l.t.Helper()
	for {
		s := l.Sync()
		items = append(items, s.Items...)
		if s.Full {
			return items, s
		}
	}
}

// Acked waits until an epoch is acknowledged up to seq. Other frames are kept
// for Next.
func (l *Link) Acked(epoch string, seq uint64) {
	l.t.Helper()
	for {
		f := l.receive()
		if f == nil {
			l.t.Fatalf("the link has ended: %v", l.err)
		}
		if f.GetAck() == nil {
			l.kept = append(l.kept, f)
		}
		for _, a := range f.GetAck().GetAcks() {
			if a.Epoch == epoch && a.Seq >= seq {
				return
			}
		}
	}
}

// Ended waits for the end of the link and returns the reason of the goodbye
// before it, "" when there was none.
func (l *Link) Ended() (goodbye string) {
	l.t.Helper()
	for {
		f := l.Next()
		if f == nil {
			return goodbye
		}
		if g := f.GetGoodbye(); g != nil {
			goodbye = g.Reason
			_ = l.CloseNow() // as an edge does
		}
	}
}

// Drop cuts the link and waits for its end.
func (l *Link) Drop() {
	_ = l.CloseNow()
	<-l.ended
}
