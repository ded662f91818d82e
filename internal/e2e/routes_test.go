package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// sink is an HTTP target that keeps what it gets.
type sink struct {
	*httptest.Server
	mu     sync.Mutex
	got    []delivered
	answer func(d delivered) (status int, body string)
}

type delivered struct {
	path, body, key, node, topic, contentType string
	header                                    http.Header
}

func newSink(t *testing.T) *sink {
	s := &sink{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the caller has gone
		}
		d := delivered{r.URL.Path, string(body), r.Header.Get("Idempotency-Key"), r.Header.Get("X-Whimbrel-Node"), r.Header.Get("X-Whimbrel-Topic"), r.Header.Get("Content-Type"), r.Header}
		s.mu.Lock()
		s.got = append(s.got, d)
		answer := s.answer
		s.mu.Unlock()
		if answer == nil {
			return
		}
		status, text := answer(d)
		w.Header().Set("Content-Type", "text/x-reply")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *sink) set(answer func(delivered) (int, string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// at is what came to a path.
func (s *sink) at(path string) (out []delivered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.got {
		if d.path == path {
			out = append(out, d)
		}
	}
	return out
}

func (s *sink) await(t *testing.T, path string, n int) []delivered {
	t.Helper()
	eventually(t, 15*time.Second, fmt.Sprintf("%d messages at %s", n, path), func() error {
		if got := s.at(path); len(got) < n {
			return fmt.Errorf("%d came", len(got))
		}
		return nil
	})
	return s.at(path)
}

type routeDoc struct {
	Status struct {
		Delivered, Failed, Dropped, Queued, DeadLetters int
		LastError                                       string
	}
}

func awaitRoute(t *testing.T, h *hub, name, what string, holds func(routeDoc) bool) routeDoc {
	t.Helper()
	var doc routeDoc
	eventually(t, 15*time.Second, "route "+name+" "+what, func() error {
		got, err := h.do("GET", hubAPI+"/routes/"+name, "")
		if err != nil {
			return err
		}
		doc = routeDoc{}
		if err := json.Unmarshal([]byte(got.body), &doc); err != nil {
			return err
		}
		if !holds(doc) {
			return fmt.Errorf("%+v", doc.Status)
		}
		return nil
	})
	return doc
}

// TestRoutes carries messages in every direction between real processes.
func TestRoutes(t *testing.T) {
	sim := tanks(t, 1)
	target := newSink(t)
	h := newHub(t, "")
	a := newEdge(t, h, "gateway-a", h.link, "--labels", "site=north")
	b := newEdge(t, h, "gateway-b", h.link, "--labels", "site=south")
	h.apply(tankModel)
	h.apply(tank(sim, "tank-1", "gateway-a"))
	route := func(name, spec string) {
		t.Helper()
		h.apply("apiVersion: whimbrel/v1\nkind: Route\nmetadata: {name: " + name + "}\nspec: {" + strings.ReplaceAll(spec, "SINK", target.URL) + "}\n")
	}
	route("alarms", `from: {mqtt: "alarms/#", nodeSelector: {site: north}}, when: 'payload.severity >= 3', transform: '{"id": payload.id, "node": node}', to: {http: {url: "SINK/alarms", headers: {X-Plant: one}}}`)
	route("raw", `from: {mqtt: "raw/+"}, to: {http: {url: "SINK/raw"}}`)
	route("levels", `from: {twin: {labelSelector: "area=yard", properties: [level]}}, to: {http: {url: "SINK/levels"}}`)
	route("local", `from: {mqtt: "in/#"}, to: {mqtt: {topic: "out/{#}"}}`)
	route("across", `from: {mqtt: "up/#", nodeSelector: {site: north}}, to: {mqtt: {topic: "from/{node}/{#}", nodeSelector: {site: south}}}`)
	route("down", `from: {rest: true}, to: {mqtt: {topic: recipes/new, nodeSelector: {site: north}}}`)
	route("ask", `from: {rest: true}, to: {http: {url: "SINK/ask"}}`)
	onA, onB := subscribe(t, a.mqtt, "#"), subscribe(t, b.mqtt, "#")
	eventually(t, 10*time.Second, "routes have come down", func() error {
		onA.publish(t, "in/probe", "x")
		if !slices.ContainsFunc(onA.all(), func(m message) bool { return m.topic == "out/probe" }) {
			return fmt.Errorf("nothing yet")
		}
		return nil
	})

	step(t, "edge to http", func(t *testing.T) {
		onA.publish(t, "alarms/hall/7", `{"id": 9007199254740993, "severity": 3}`)
		onA.publish(t, "alarms/hall/8", `{"id": 1, "severity": 2}`)
		onB.publish(t, "alarms/hall/9", `{"id": 2, "severity": 9}`) // not its site
		onA.publish(t, "alarms/text", `hot!`)
		got := target.await(t, "/alarms", 1)[0]
		if got.body != `{"id":9007199254740993,"node":"gateway-a"}` || got.contentType != "application/json" || got.key == "" || got.node != "gateway-a" ||
			got.topic != "alarms/hall/7" || got.header.Get("X-Plant") != "one" {
			t.Errorf("got %+v", got)
		}
		payload := string([]byte{0, 1, 255})
		onB.publish(t, "raw/x", payload)
		if got := target.await(t, "/raw", 1)[0]; got.body != payload {
			t.Errorf("raw bytes %q", got.body)
		}
		awaitRoute(t, h, "alarms", "counts", func(d routeDoc) bool {
			return d.Status.Delivered == 1 && d.Status.Dropped == 1 && strings.Contains(d.Status.LastError, "when")
		})
		if n := len(target.at("/alarms")); n != 1 {
			t.Errorf("%d alarms came", n)
		}
	})

	step(t, "twin to http", func(t *testing.T) {
		got := target.await(t, "/levels", 2)[0]
		var doc struct {
			Device, Property, Quality string
			Value                     float64
		}
		if err := json.Unmarshal([]byte(got.body), &doc); err != nil || doc.Device != "tank-1" || doc.Property != "level" || doc.Quality == "" {
			t.Errorf("got %s: %v", got.body, err)
		}
	})

	step(t, "across and down", func(t *testing.T) {
		onA.publish(t, "up/x/y", "over")
		onB.await(t, "from/gateway-a/x/y", "over")
		h.want(t, 202, "POST", hubAPI+"/routes/down/publish?wait=0s", `{"recipe":1}`)
		onA.await(t, "recipes/new", `{"recipe":1}`)
		h.want(t, 200, "POST", hubAPI+"/routes/down/publish?wait=5s", `{"recipe":2}`)
		for _, m := range onB.all() {
			if m.topic == "recipes/new" {
				t.Errorf("came to the wrong site: %v", m)
			}
		}
	})

	step(t, "answers", func(t *testing.T) {
		target.set(func(d delivered) (int, string) {
			if d.path == "/ask" {
				return 418, "short and stout: " + d.body
			}
			return 200, ""
		})
		got := h.want(t, 418, "POST", hubAPI+"/routes/ask/publish", "tea")
		if string(got.body) != "short and stout: tea" {
			t.Errorf("answer %s", got.body)
		}
		local := a.local()
		if got := local.want(t, 418, "POST", edgeAPI+"/routes/ask", "from the edge"); string(got.body) != "short and stout: from the edge" {
			t.Errorf("answer at the edge %s", got.body)
		}
		local.want(t, 404, "POST", edgeAPI+"/routes/nix", "")
		local.want(t, 404, "POST", edgeAPI+"/routes/local", "") // not a REST source
		h.want(t, 422, "POST", hubAPI+"/routes/local/publish", "")
		// Whoever is refused for good becomes a dead letter.
		awaitRoute(t, h, "ask", "keeps what was refused", func(d routeDoc) bool { return d.Status.Failed == 2 && d.Status.DeadLetters == 2 })
		var list struct {
			Items []struct {
				ID      int64
				Payload []byte
				Error   string
			}
		}
		h.want(t, 200, "GET", hubAPI+"/routes/ask/deadletters", "").into(t, &list)
		if len(list.Items) != 2 || !bytes.Equal(list.Items[0].Payload, []byte("tea")) || !strings.Contains(list.Items[0].Error, "418") {
			t.Errorf("dead letters %+v", list)
		}
		target.set(nil)
		h.want(t, 200, "POST", hubAPI+"/routes/ask/deadletters/replay", fmt.Sprintf(`{"ids":[%d]}`, list.Items[0].ID))
		if got := target.await(t, "/ask", 3)[2]; got.body != "tea" || got.key != target.at("/ask")[0].key {
			t.Errorf("replayed %+v", got)
		}
		h.want(t, 200, "DELETE", hubAPI+"/routes/ask/deadletters", "")
		awaitRoute(t, h, "ask", "has none left", func(d routeDoc) bool { return d.Status.DeadLetters == 0 && d.Status.Delivered == 1 })
	})

	step(t, "hub gone", func(t *testing.T) {
		before := len(target.at("/raw"))
		h.kill()
		onA.publish(t, "in/offline", "still here")
		onA.await(t, "out/offline", "still here")
		for i := range 20 {
			onA.publish(t, "raw/q", fmt.Sprint("m", i))
		}
		a.kill()
		a.again()
		h.begin()
		h.awaitReady()
		got := target.await(t, "/raw", before+20)[before:]
		keys := map[string]string{}
		next := 0
		for _, d := range got { // in order, but for what came again
			if keys[d.key] == "" {
				if d.body != fmt.Sprint("m", next) {
					t.Errorf("message %d is %s", next, d.body)
				}
				keys[d.key] = d.body
				next++
			}
		}
		if next != 20 {
			t.Errorf("%d different messages came", next)
		}
	})

	step(t, "forbidden", func(t *testing.T) {
		for spec, want := range map[string]string{
			`from: {rest: true}, to: {http: {url: "http://169.254.169.254/latest"}}`:     "/spec/to/http/url: 169.254.169.254 is a link-local address",
			`from: {rest: true}, to: {http: {url: "http://[::1]:9/"}}`:                   "/spec/to/http/url: ::1 is a loopback address",
			`from: {mqtt: "devices/#"}, to: {mqtt: {topic: x}}`:                          "/spec/from/mqtt",
			`from: {mqtt: "a/#/b"}, to: {mqtt: {topic: x}}`:                              "/spec/from/mqtt",
			`from: {rest: true}, to: {mqtt: {topic: devices/tank-1/desired}}`:            "/spec/to/mqtt/topic",
			`from: {rest: true}, when: "payload.", to: {mqtt: {topic: x}}`:               "/spec/when",
			`from: {rest: true}, transform: "let a = 1; a", to: {mqtt: {topic: x}}`:      "/spec/transform",
			`from: {mqtt: "$SYS/#"}, to: {mqtt: {topic: x}}`:                             "/spec/from/mqtt",
			`from: {mqtt: a}, to: {http: {url: "http://127.0.0.1/", method: DELETE}}`:    "/spec/to/http/method",
			`from: {mqtt: a, rest: true}, to: {http: {url: "http://127.0.0.1/"}}`:        "/spec/from",
			`from: {mqtt: a}, to: {http: {url: "http://u:p@127.0.0.1/"}}`:                "/spec/to/http/url",
			`from: {mqtt: a}, to: {http: {url: "http://x/", headers: {Host: "evil"}}}`:   "/spec/to/http/headers/Host",
			`from: {mqtt: a}, to: {http: {url: "http://x/", unknown: "evil"}}`:           "/spec/to/http/unknown",
			`from: {mqtt: a}, to: {service: {name: x, path: "//evil.example/x"}}`:        "/spec/to/service/path",
			`from: {mqtt: a}, to: {broker: {url: "mqtt://x", topic: "$share/g/x"}}`:      "/spec/to/broker/topic",
			`from: {mqtt: "$share/g/x"}, to: {mqtt: {topic: y}}`:                         "/spec/from/mqtt",
			`from: {mqtt: a, nodeSelector: {"bad key!": x}}, to: {mqtt: {topic: y}}`:     "/spec/from/nodeSelector",
			`from: {twin: {properties: ["no good"]}}, to: {mqtt: {topic: y}}`:            "/spec/from/twin/properties/0",
			`from: {mqtt: a}, to: {mqtt: {topic: y}}, delivery: {ttl: 1ns, retries: -1}`: "/spec/delivery/ttl",
		} {
			r := h.cli("apiVersion: whimbrel/v1\nkind: Route\nmetadata: {name: bad}\nspec: {"+spec+"}\n", "apply", "-f", "-")
			if r.code != 1 || !strings.Contains(r.stderr, want) {
				t.Errorf("%s: %v", spec, r)
			}
		}
	})
}
