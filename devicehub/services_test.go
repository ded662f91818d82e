package devicehub_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/sessions/sessionstest"
	"github.com/whimbrel-edge/whimbrel/internal/appproxy"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// serving is an edge that opens its second connection when it is asked to, and
// serves streams to apps.
type serving struct {
	*sessionstest.Edge
	t     testing.TB
	serve bulk.Handler
	asked atomic.Int64 // streams
	more  []string     // capabilities

	link *sessionstest.Link
	stop func() // ends the second connection, and waits
}

// serveApps joins a node. The handler may be nil: it then says the node's name to
// whoever asks.
func (h *hub) serveApps(node string, serve bulk.Handler) *serving {
	h.t.Helper()
	s := &serving{Edge: h.join(node), t: h.t, serve: serve}
	if s.serve == nil {
		s.serve = func(_ context.Context, _ bulk.Header, stream *bulk.Stream) error {
			if err := stream.Accept(); err != nil {
				return err
			}
			_, err := io.WriteString(stream, node)
			return err
		}
	}
	s.connect("E1")
	h.t.Cleanup(func() { s.stop() })
	return s
}

func (s *serving) connect(epoch string) {
	s.t.Helper()
	hello := s.Hello(epoch)
	hello.Capabilities = append(edgelink.Capabilities(), append([]string{edgelink.CapabilityWorkloads, edgelink.MethodBulk}, s.more...)...)
	link := s.Connect(s.t, hello)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for f := link.Await(ctx); f != nil; f = link.Await(ctx) {
			if f.GetRequest().GetMethod() != edgelink.MethodBulk {
				continue
			}
			conn, err := bulk.Dial(ctx, s.URL, s.TLS(), epoch)
			if err != nil {
				s.t.Errorf("second connection of %s: %v", s.Node, err)
				return
			}
			wait.Go(func() {
				_ = conn.Serve(ctx, map[string]bulk.Handler{bulk.KindService: func(ctx context.Context, head bulk.Header, stream *bulk.Stream) error {
					s.asked.Add(1)
					return s.serve(ctx, head, stream)
				}}, slog.New(slog.DiscardHandler))
			})
			link.Say(&pb.Frame{Re: f.Id, Body: &pb.Frame_Response{Response: &pb.Response{Final: true}}})
		}
	})
	s.link, s.stop = link, sync.OnceFunc(func() { cancel(); link.Drop(); wait.Wait() })
}

// app makes a Deployment with a pod on each of two nodes, and its Service.
func (h *hub) app() {
	h.t.Helper()
	h.apply(`{kind: Deployment, apiVersion: apps/v1, metadata: {name: web}, spec: {replicas: 2, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: v1}]}}}}`)
	h.apply(`{kind: Service, apiVersion: v1, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}`)
	h.until("a pod on each node", func() bool {
		l, err := h.List(context.Background(), models.ListOptions{Kind: "Pod"})
		return err == nil && len(l.Items) == 2 && l.Items[0].(*models.Pod).Spec.NodeName != "" && l.Items[1].(*models.Pod).Spec.NodeName != ""
	})
}

func (h *hub) ask(ctx context.Context) (string, error) {
	conn, err := h.DialService(ctx, "", "default", "web", "", "")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	return string(text), err
}

// TestServiceOnAnotherNode asks a Service one of whose nodes cannot connect its pod.
func TestServiceOnAnotherNode(t *testing.T) {
	for _, c := range []struct {
		name  string
		serve bulk.Handler
	}{
		{"no pod is ready", func(context.Context, bulk.Header, *bulk.Stream) error {
			return models.Errorf(models.KindUnavailable, "no ready pod")
		}},
		{"it takes no connections", func(context.Context, bulk.Header, *bulk.Stream) error {
			return models.Errorf(models.KindRefused, "not listening")
		}},
		{"it is lost on the way", func(_ context.Context, _ bulk.Header, s *bulk.Stream) error { return s.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := start(t)
			bad, good := h.serveApps("bad", c.serve), h.serveApps("good", nil)
			h.app()
			for range 30 { // which one is asked first is chance
				if got, err := h.ask(t.Context()); got != "good" || err != nil {
					t.Fatalf("%q %v", got, err)
				}
			}
			if bad.asked.Load() == 0 || good.asked.Load() != 30 {
				t.Errorf("asked were %d and %d", bad.asked.Load(), good.asked.Load())
			}
		})
	}
}

// say tells how the pods of the node are.
func (s *serving) say(h *hub, ready bool) {
	s.t.Helper()
	l, err := h.List(s.t.Context(), models.ListOptions{Kind: "Pod"})
	if err != nil {
		s.t.Fatal(err)
	}
	m := &pb.PodStatuses{Full: true, Engine: &pb.Engine{Ready: true}}
	for _, o := range l.Items {
		if p, ok := o.(*models.Pod); ok && p.Spec.NodeName == s.Node {
			text, err := json.Marshal(models.PodStatus{Phase: models.PodRunning, Ready: ready})
			if err != nil {
				s.t.Fatal(err)
			}
			m.Pods = append(m.Pods, &pb.PodState{Namespace: "default", Name: p.Metadata.Name, Uid: p.Metadata.UID, Json: text})
		}
	}
	s.link.Say(&pb.Frame{Body: &pb.Frame_PodStatuses{PodStatuses: m}})
}

// TestServicePlace chooses pods whose connections may be kept.
func TestServicePlace(t *testing.T) {
	h := start(t)
	wanted := make(chan bulk.ServiceTarget, 8)
	tell := func(_ context.Context, head bulk.Header, s *bulk.Stream) error {
		var to bulk.ServiceTarget
		if err := json.Unmarshal(head.Body, &to); err != nil {
			return err
		}
		wanted <- to
		return s.Accept()
	}
	n1, n2 := h.serveApps("n1", tell), h.serveApps("n2", tell)
	h.app()
	n1.say(h, true)
	n2.say(h, true)
	h.until("ready pods", func() bool {
		l, err := h.List(t.Context(), models.ListOptions{Kind: "Pod"})
		return err == nil && len(l.Items) == 2 && l.Items[0].(*models.Pod).Status.Ready && l.Items[1].(*models.Pod).Status.Ready
	})
	if p, ok := h.ServicePlace("", "default", "web", "", ""); ok {
		t.Errorf("a pod may not be named to edges of before, but %q is a place", p.Key)
	}
	n1.stop()
	n1.more = []string{edgelink.CapabilityServicePod}
	n1.connect("E2")
	n1.say(h, true)
	var key string
	h.until("a place", func() bool {
		p, ok := h.ServicePlace("", "default", "web", "", "")
		key = p.Key
		return ok
	})
	for range 20 {
		p, ok := h.ServicePlace("", "default", "web", "", "")
		if !ok || p.Key != key || p.Pool == nil {
			t.Fatalf("another place: %v %q", ok, p.Key)
		}
	}
	p, _ := h.ServicePlace("n1", "default", "web", "80", "")
	conn, err := p.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if to := <-wanted; to.Name != "web" || to.Port != "80" || !strings.HasPrefix(to.Pod, "web-") {
		t.Errorf("%+v", to)
	}
	if p.Key == key {
		t.Error("another port is the same place")
	}
	for name, f := range map[string]func() (appproxy.Place, bool){
		"another node":      func() (appproxy.Place, bool) { return h.ServicePlace("n2", "default", "web", "", "") },
		"no such service":   func() (appproxy.Place, bool) { return h.ServicePlace("", "default", "nix", "", "") },
		"no such port":      func() (appproxy.Place, bool) { return h.ServicePlace("", "default", "web", "81", "") },
		"another namespace": func() (appproxy.Place, bool) { return h.ServicePlace("", "other", "web", "", "") },
	} {
		if p, ok := f(); ok {
			t.Errorf("%s: %q", name, p.Key)
		}
	}
	// A Service that is changed is another one; a pod that is not ready is none.
	h.apply(`{kind: Service, apiVersion: v1, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}`)
	if p, ok := h.ServicePlace("", "default", "web", "", ""); !ok || p.Key == key {
		t.Errorf("after a change: %v %q", ok, p.Key)
	}
	h.apply(`{kind: Service, apiVersion: v1, metadata: {name: web}, spec: {selector: {app: none}, ports: [{port: 80}]}}`)
	if p, ok := h.ServicePlace("", "default", "web", "", ""); ok {
		t.Errorf("with another selector: %q", p.Key)
	}
	h.apply(`{kind: Service, apiVersion: v1, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}`)
	n1.say(h, false)
	h.until("no place", func() bool { _, ok := h.ServicePlace("", "default", "web", "", ""); return !ok })
}

// TestServiceWhileItsSessionEnds has sessions end while a stream goes through them.
func TestServiceWhileItsSessionEnds(t *testing.T) {
	h := start(t)
	hold := func(ctx context.Context, _ bulk.Header, s *bulk.Stream) error {
		if err := s.Accept(); err != nil {
			return err
		}
		_, _ = io.WriteString(s, "begun\n")
		<-ctx.Done()
		return ctx.Err()
	}
	n := h.serveApps("n1", hold)
	h.apply(`{kind: Deployment, apiVersion: apps/v1, metadata: {name: web}, spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: v1}]}}}}`)
	h.apply(`{kind: Service, apiVersion: v1, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}`)
	begin := func() (net.Conn, *bufio.Reader) {
		t.Helper()
		var conn net.Conn
		h.until("a stream", func() (ok bool) {
			var err error
			conn, err = h.DialService(t.Context(), "n1", "default", "web", "", "")
			return err == nil
		})
		r := bufio.NewReader(conn)
		if line, err := r.ReadString('\n'); line != "begun\n" {
			t.Fatalf("%q %v", line, err)
		}
		return conn, r
	}
	conn, r := begin()
	defer conn.Close()

	// A machine with the same certificate that does not know the session's epoch.
	_, err := bulk.Dial(t.Context(), n.URL, n.TLS(), "another")
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(http.StatusConflict)) {
		t.Errorf("with another epoch: %v", err)
	}
	// The first stream goes on.
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := r.ReadByte(); err == nil || !isTimeout(err) {
		t.Errorf("it has ended: %v", err)
	}
	_ = conn.SetReadDeadline(time.Time{})

	// Its session ends, though the second connection does not: who reads is told, and
	// the next session's streams are others.
	n.link.Drop()
	if _, err := r.ReadByte(); err == nil || isTimeout(err) {
		t.Errorf("it goes on in nobody's session: %v", err)
	}
	n.stop()
	n.connect("E2")
	again, r := begin()
	defer again.Close()
	n.stop()
	if _, err := r.ReadByte(); err == nil {
		t.Error("it goes on without a session")
	}
	h.until("offline", func() bool {
		_, err := h.ask(t.Context())
		return models.KindOf(err) == models.KindUnavailable
	})
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error) //nolint:errorlint // as net/http looks at it
	return ok && timeout.Timeout()
}
