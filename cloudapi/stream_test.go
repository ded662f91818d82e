package cloudapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/cloudapi/cloudapitest"
	"github.com/whimbrel-edge/whimbrel/models"
)

// tail is an open stream.
type tail struct {
	t      *testing.T
	resp   *http.Response
	lines  chan string // closed at the stream's end; the reader ends with it
	cancel context.CancelFunc
}

func (p *plant) open(t *testing.T, path string, h ...headers) *tail {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", p.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.tokens["admin"])
	for _, hs := range h {
		for k, v := range hs {
			if k == "as" {
				k, v = "Authorization", "Bearer "+p.tokens[v]
			}
			req.Header.Set(k, v)
		}
	}
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	s := &tail{t: t, resp: resp, lines: make(chan string, 1000), cancel: cancel}
	if resp.StatusCode != 200 {
		t.Fatalf("GET %s: %s", path, resp.Status)
	}
	go func() { // ends when the test cancels or the server ends the stream
		defer close(s.lines)
		defer resp.Body.Close()
		scanner := bufio.NewScanner(resp.Body)
		for scanner.Scan() {
			s.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		for range s.lines {
		}
	})
	return s
}

// next returns the next line, "" and false at the end.
func (s *tail) next() (string, bool) {
	s.t.Helper()
	select {
	case line, ok := <-s.lines:
		return line, ok
	case <-time.After(10 * time.Second):
		s.t.Fatal("nothing came for 10 s")
		return "", false
	}
}

// events reads the next n events of a watch as "TYPE name" and returns the last
// resourceVersion.
func (s *tail) events(want ...string) (version string) {
	s.t.Helper()
	for _, w := range want {
		line, ok := s.next()
		var ev struct {
			Type   string
			Object struct {
				Kind     string
				Metadata models.ObjectMeta
				Status   any
			}
		}
		if err := json.Unmarshal([]byte(line), &ev); err != nil || !ok {
			s.t.Fatalf("line %q (%v) is no event: %v", line, ok, err)
		}
		if got := strings.TrimSpace(ev.Type + " " + ev.Object.Metadata.Name); got != w {
			s.t.Fatalf("event %q, want %q: %s", got, w, line)
		}
		version = ev.Object.Metadata.ResourceVersion
	}
	return version
}

func TestWatch(t *testing.T) {
	p := newPlant(t)
	p.boilers("b-1", "b-2")
	s := p.open(t, "/api/v1/devices?watch=true&labelSelector=area%3Dhall-a")
	if ct := s.resp.Header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %s", ct)
	}
	version := s.events("ADDED b-1", "ADDED b-2", "BOOKMARK")
	if now := p.want(200, "GET", "/api/v1/devices", "").at("metadata", "resourceVersion"); now != version {
		t.Errorf("the bookmark is %s, the list %v", version, now)
	}
	p.want(200, "PATCH", "/api/v1/devices/b-1", `{"spec":{"locked":true}}`)
	s.events("MODIFIED b-1")
	p.want(200, "PATCH", "/api/v1/devices/b-1", `{"metadata":{"labels":{"area":"hall-b"}}}`) // no longer chosen
	p.want(201, "POST", "/api/v1/devices", device("b-3"))
	p.want(200, "DELETE", "/api/v1/devices/b-2", "")
	s.events("DELETED b-1", "ADDED b-3", "DELETED b-2")

	// From a version on, by another watcher: the same, and a quiet one answers at
	// once that it is there.
	late := p.open(t, "/api/v1/devices?watch=1&resourceVersion="+version)
	late.events("MODIFIED b-1", "MODIFIED b-1", "ADDED b-3", "DELETED b-2")
	quiet := p.open(t, "/api/v1/nodes?watch=true&resourceVersion="+version)
	p.want(201, "POST", "/api/v1/nodes", `{"metadata":{"name":"gw1"},"spec":{}}`)
	quiet.events("ADDED gw1")
	p.open(t, "/api/v1/mappers?watch=true&resourceVersion=0").events("ADDED modbus", "BOOKMARK")

	// A caller with one namespace sees that one.
	plant := p.open(t, "/api/v1/devices?watch=true", headers{"as": "plant-viewer"})
	plant.events("BOOKMARK")
	p.want(201, "POST", "/api/v1/devices", device("b-4"))
	p.want(201, "POST", "/api/v1/devicemodels?namespace=plant", boilerModel)
	p.want(201, "POST", "/api/v1/devices?namespace=plant", device("p-1"))
	plant.events("ADDED p-1")

	p.hub.Forget()
	p.want(410, "GET", "/api/v1/devices?watch=true&resourceVersion="+version, "")
}

// slowGone refuses late, when the answer has begun.
type slowGone struct{ cloudapi.Objects }

func (slowGone) Watch(ctx context.Context, _ models.ListOptions, _ string, send func(models.Event) error) error {
	if err := send(models.Event{Type: models.Bookmark, Object: &models.Node{TypeMeta: models.TypeMeta{Kind: "Node"}}}); err != nil {
		return err
	}
	return models.Errorf(models.KindGone, "the watcher is too slow")
}

func TestWatchError(t *testing.T) {
	p := newPlant(t, func(c *cloudapi.Config) { c.Objects = slowGone{c.Objects} })
	s := p.open(t, "/api/v1/nodes?watch=true")
	s.events("BOOKMARK")
	line, _ := s.next()
	var ev struct {
		Type   string
		Object models.Problem
	}
	if err := json.Unmarshal([]byte(line), &ev); err != nil || ev.Type != "ERROR" || ev.Object.Status != 410 {
		t.Errorf("last line %q", line)
	}
	if line, ok := s.next(); ok {
		t.Errorf("after the error: %q", line)
	}
}

func TestStreamsEnd(t *testing.T) {
	t.Run("with the token", func(t *testing.T) {
		p := newPlant(t, func(c *cloudapi.Config) { c.Heartbeat = 20 * time.Millisecond })
		p.boilers("b-1")
		watch := p.open(t, "/api/v1/devices?watch=true", headers{"as": "viewer"})
		watch.events("ADDED b-1", "BOOKMARK")
		sse := p.open(t, "/api/v1/twins/stream", headers{"as": "viewer"})
		sse.next()
		p.want(200, "DELETE", "/api/v1/users/viewer", "")
		if line, _ := watch.next(); !strings.Contains(line, `"type":"ERROR"`) || !strings.Contains(line, "401") {
			t.Errorf("last line %q", line)
		}
		for _, s := range []*tail{watch, sse} {
			for ok := true; ok; {
				_, ok = s.next()
			}
		}
	})
	t.Run("with the role", func(t *testing.T) {
		p := newPlant(t, func(c *cloudapi.Config) { c.Heartbeat = 20 * time.Millisecond })
		s := p.open(t, "/api/v1/twins/stream?namespace=plant", headers{"as": "plant-viewer"})
		p.want(200, "PATCH", "/api/v1/users/plant-viewer", `{"spec":{"namespace":"default"}}`)
		for ok := true; ok; {
			_, ok = s.next()
		}
	})
	t.Run("with the server", func(t *testing.T) {
		p := &plant{t: t, hub: cloudapitest.New(), client: &http.Client{Transport: &http.Transport{}}, tokens: map[string]string{"admin": cloudapitest.AdminToken}}
		defer p.client.CloseIdleConnections()
		waited, watched := make(chan reply, 1), make(chan reply, 1)
		t.Run("until it shuts down", func(t *testing.T) { // which is this subtest's cleanup
			p.url = cloudapitest.Serve(t, p.hub)
			p.boilers("boiler-1")
			p.hub.Behave("default", "boiler-1", cloudapitest.Silent)
			go func() { waited <- p.do("PATCH", desired+"?wait=5m", `{"setpoint":1}`) }()
			go func() { watched <- p.do("GET", "/api/v1/devices?watch=true", "") }()
			eventually(t, "both are there", func() bool {
				return p.hub.Watchers() == 1 && strings.Contains(p.want(200, "GET", desired, "").text, `"setpoint":1`)
			})
		})
		if r := <-waited; r.StatusCode != 503 || r.at("twin", "device") != "boiler-1" {
			t.Errorf("the wait ended with %d %s", r.StatusCode, r.text)
		}
		if r := <-watched; !strings.Contains(r.text, `"type":"ERROR"`) || !strings.Contains(r.text, "shutting down") {
			t.Errorf("the watch ended with %s", r.text)
		}
	})
}

// narrow is a listener whose connections keep little of what is written to them: the
// sooner writes to a peer wait that does not read.
type narrow struct{ net.Listener }

func (l narrow) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
	}
	return c, err
}

// TestSlowPeer checks that who does not read loses the stream, and that who is
// merely told nothing does not: over HTTP/2 as well, whose deadlines act alone.
func TestSlowPeer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := newPlantOn(t, narrow{l}, func(c *cloudapi.Config) { c.WriteTimeout = 500 * time.Millisecond; c.Rate = -1 })
	p.boilers("b-1")
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET /api/v1/devices?watch=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + p.tokens["admin"] + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the watch is there", func() bool { return p.hub.Watchers() == 1 })
	n := 0
	eventually(t, "the watch of who does not read has ended", func() bool {
		n++
		p.want(200, "PATCH", "/api/v1/devices/b-1", `{"metadata":{"annotations":{"a":"`+strings.Repeat("x", 60<<10+n)+`"}}}`)
		return p.hub.Watchers() == 0
	})
}

func TestQuietHTTP2(t *testing.T) {
	hub := cloudapitest.New()
	api, err := cloudapi.New(cloudapi.Config{Objects: hub, Twins: hub, Devices: hub, Routes: hub, History: hub, Audit: hub, Events: hub, Access: hub, Idempotency: hub, Log: slog.New(slog.DiscardHandler), WriteTimeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(nil)
	s.Config, s.EnableHTTP2 = cloudapi.Server(api), true
	s.StartTLS()
	defer s.Close()
	p := &plant{t: t, hub: hub, url: s.URL, client: s.Client(), tokens: map[string]string{"admin": cloudapitest.AdminToken}}
	w := p.open(t, "/api/v1/nodes?watch=true")
	if w.resp.ProtoMajor != 2 {
		t.Fatalf("speaks %s", w.resp.Proto)
	}
	w.events("BOOKMARK")
	<-time.After(time.Second) // three times what a write may take, with nothing to write
	p.want(201, "POST", "/api/v1/nodes", `{"metadata":{"name":"gw1"},"spec":{}}`)
	w.events("ADDED gw1")
	w.cancel()
}

// twins reads an event of /twins/stream: its id and data. Comments are skipped.
func (s *tail) twins() (id string, data map[string]any) {
	s.t.Helper()
	var event string
	for {
		line, ok := s.next()
		if !ok {
			s.t.Fatal("the stream has ended")
		}
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "id":
			id = value
		case "event":
			event = value
		case "data":
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				s.t.Fatal(err)
			}
		}
		if line == "" && data != nil {
			if event != "twin" {
				s.t.Fatalf("event %q", event)
			}
			return id, data
		}
	}
}

func TestTwinStream(t *testing.T) {
	p := newPlant(t, func(c *cloudapi.Config) { c.Heartbeat = 30 * time.Millisecond })
	p.boilers("boiler-1", "boiler-2")
	report := func(device, prop string, v float64) {
		p.hub.Report("default", device, prop, models.Sample{Value: models.Float(v), Time: time.Now()})
	}
	report("boiler-1", "temperature", 20)
	s := p.open(t, "/api/v1/twins/stream")
	if ct := s.resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("Content-Type %s", ct)
	}
	_, one := s.twins()
	id, two := s.twins()
	if one["device"] != "boiler-1" || two["device"] != "boiler-2" || len(one["properties"].(map[string]any)) != 5 || one["state"] != "online" || one["namespace"] != nil {
		t.Errorf("first %v, %v", one, two)
	}
	report("boiler-1", "temperature", 21)
	id2, change := s.twins()
	props, _ := change["properties"].(map[string]any)
	if len(props) != 1 || dig(props["temperature"], "reported", "value") != 21.0 || change["version"] == nil || id2 == id {
		t.Errorf("change %s %v", id2, change)
	}
	s.cancel()

	// What is missed meanwhile comes with the event's id, coalesced.
	report("boiler-1", "temperature", 22)
	report("boiler-1", "temperature", 23)
	p.want(202, "PATCH", "/api/v1/devices/boiler-2/twin/desired", `{"setpoint":5}`)
	again := p.open(t, "/api/v1/twins/stream", headers{"Last-Event-ID": id2})
	_, a := again.twins()
	_, b := again.twins()
	if dig(a, "properties", "temperature", "reported", "value") != 23.0 || dig(b, "properties", "setpoint", "write", "state") != "applied" ||
		len(b["properties"].(map[string]any)) != 1 {
		t.Errorf("resumed with %v and %v", a, b)
	}
	// Heartbeats are comments.
	for {
		if line, _ := again.next(); strings.HasPrefix(line, ":") {
			break
		}
	}
	// Where the cursor is too old, everything comes.
	p.hub.Forget()
	late := p.open(t, "/api/v1/twins/stream", headers{"Last-Event-ID": id2})
	for _, want := range []string{": twins", "", "event: reset", "data: {}", ""} {
		if line, _ := late.next(); line != want {
			t.Errorf("line %q, want %q", line, want)
		}
	}
	_, all := late.twins()
	if len(all["properties"].(map[string]any)) != 5 {
		t.Errorf("with a cursor that is too old: %v", all)
	}
	// Other namespaces say which they are.
	p.want(201, "POST", "/api/v1/devicemodels?namespace=plant", boilerModel)
	p.want(201, "POST", "/api/v1/devices?namespace=plant", device("p-1"))
	_, own := p.open(t, "/api/v1/twins/stream", headers{"as": "plant-viewer"}).twins()
	if own["device"] != "p-1" || own["namespace"] != "plant" {
		t.Errorf("plant: %v", own)
	}
	p.want(400, "GET", "/api/v1/twins/stream?labelSelector=(", "")
	if r := p.do("HEAD", "/api/v1/twins/stream", ""); r.StatusCode != 400 {
		t.Errorf("HEAD of a stream: %d", r.StatusCode)
	}
}
