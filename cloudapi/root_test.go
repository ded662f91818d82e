package cloudapi_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestRoot(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "whimbrel_test_total", Help: "x"})
	reg.MustRegister(c)
	var sick error
	p := newPlant(t, func(cfg *cloudapi.Config) {
		cfg.Gatherer = reg
		cfg.Ready = map[string]func(context.Context) error{
			"store": func(context.Context) error { return sick },
			"link":  func(context.Context) error { return nil },
		}
	})
	anyone := headers{"as": ""}
	if r := p.want(200, "GET", "/healthz", "", anyone); r.json["status"] != "ok" {
		t.Errorf("healthz %s", r.text)
	}
	p.want(200, "HEAD", "/healthz", "", anyone)
	if r := p.want(200, "GET", "/readyz?verbose", "", anyone); r.at("checks", "store") != "ok" {
		t.Errorf("readyz %s", r.text)
	}
	sick = errors.New("password wrong for hunter2")
	if r := p.want(503, "GET", "/readyz", "", anyone); strings.Contains(r.text, "hunter2") || len(r.pointers()) != 1 || r.pointers()[0] != "/checks/store" {
		t.Errorf("readyz %s", r.text)
	}
	if r := p.want(200, "GET", "/metrics", ""); !strings.Contains(r.text, "whimbrel_test_total 0") {
		t.Errorf("metrics %s", r.text)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	p := newPlant(t)
	for _, path := range []string{"/", "/api", "/api/v1", "/api/v1/", "/api/v1/nix", "/api/v2/devices", "/docs", "/schemas/Device.json", "/openapi.yaml", "/api/v1/devices/a/twin/b"} {
		p.want(404, "GET", path, "")
		p.want(401, "GET", path, "", headers{"as": ""})
	}
	for _, c := range []struct{ method, path, allow string }{
		{"PUT", "/api/v1/devices", "GET"}, {"POST", "/api/v1/devices/a", "PATCH"}, {"DELETE", "/api/v1/devices/a/twin/desired", "PATCH"},
		{"POST", "/healthz", "GET"}, {"POST", "/api/v1/twins/stream", "GET"}, {"GET", "/api/v1/tokens/x", "DELETE"},
	} {
		r := p.want(405, c.method, c.path, "")
		if !strings.Contains(r.Header.Get("Allow"), c.allow) || strings.Contains(r.Header.Get("Allow"), c.method) {
			t.Errorf("%s %s: Allow %q", c.method, c.path, r.Header.Get("Allow"))
		}
	}
	if r := p.want(200, "HEAD", "/api/v1/devices", ""); r.text != "" {
		t.Errorf("HEAD has a body %q", r.text)
	}
}

func TestAuthentication(t *testing.T) {
	p := newPlant(t)
	good := p.tokens["viewer"]
	for _, c := range []struct {
		header    string
		status    int
		challenge string
	}{
		{"Bearer " + good, 200, ""}, {"bearer  " + good + " ", 200, ""},
		{"Bearer", 401, `error="invalid_token"`}, {"Bearer ", 401, `error="invalid_token"`}, {"Basic YTpi", 401, `error="invalid_token"`}, {good, 401, `error="invalid_token"`},
		{"Bearer " + good + "x", 401, `error="invalid_token"`}, {"Bearer whk_hunter2", 401, `error="invalid_token"`},
	} {
		// Nothing of a stranger's request is parsed.
		body, path := `{"broken`, "/api/v1/nodes"
		method := "POST"
		if c.status == 200 {
			method, body = "GET", ""
		}
		r := p.want(c.status, method, path, body, headers{"Authorization": c.header})
		if !strings.Contains(r.Header.Get("WWW-Authenticate"), c.challenge) || strings.Contains(r.text, "hunter2") {
			t.Errorf("%q: %q %s", c.header, r.Header.Get("WWW-Authenticate"), r.text)
		}
	}
}

func TestLimits(t *testing.T) {
	p := newPlant(t, func(c *cloudapi.Config) { c.Rate, c.Burst = 0.5, 20 })
	big := `{"metadata":{"name":"x","annotations":{"a":"` + strings.Repeat("x", models.MaxDocumentBytes+64<<10) + `"}}}`
	p.want(413, "POST", "/api/v1/nodes", big)
	p.want(413, "PATCH", desired, big)
	p.want(400, "POST", "/api/v1/nodes", "{}", headers{"Content-Encoding": "br"})
	var slow reply
	for i := 0; i < 30 && slow.Response == nil; i++ {
		if r := p.do("GET", "/api/v1/nodes", ""); r.StatusCode == 429 {
			slow = r
		}
	}
	if slow.Response == nil || slow.Header.Get("Retry-After") != "2" && slow.Header.Get("Retry-After") != "1" { // a slow machine has waited for a part of it
		t.Fatalf("never slowed down, or Retry-After is neither 2 nor 1: %+v", slow)
	}
	// One caller's haste is not another's, and health has no limit.
	p.want(200, "GET", "/api/v1/nodes", "", headers{"as": "viewer"})
	for range 50 {
		p.want(200, "GET", "/healthz", "", headers{"as": ""})
	}
}

// TestServerTimeouts checks that the server does not wait for ever for a request.
func TestServerTimeouts(t *testing.T) {
	s := cloudapi.Server(http.NotFoundHandler())
	if s.ReadHeaderTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 || s.ReadTimeout != 0 || s.WriteTimeout != 0 {
		t.Errorf("timeouts: %+v", s)
	}
}

// TestPlainHTTP speaks to the API without a client library.
func TestPlainHTTP(t *testing.T) {
	p := newPlant(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\n{\"setpoint\":", desired, p.tokens["admin"])
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, " 400 ") {
		t.Errorf("half a body: %q %v", line, err)
	}
}

// TestDocument checks that the OpenAPI document is complete and that every
// operation in it is there.
func TestDocument(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	doc := p.spec.doc
	if v := fmt.Sprint(doc["openapi"]); !strings.HasPrefix(v, "3.1") {
		t.Errorf("openapi %s", v)
	}
	paths, _ := doc["paths"].(map[string]any)
	for _, want := range []string{"/healthz", "/readyz", "/metrics", "/openapi.json", "/api/v1/devicemodels", "/api/v1/devices/{name}", "/api/v1/nodes/{name}",
		"/api/v1/mappers", "/api/v1/users", "/api/v1/devices/{name}/twin", "/api/v1/devices/{name}/twin/desired", "/api/v1/twins", "/api/v1/twins/stream", "/api/v1/tokens", "/api/v1/tokens/{id}"} {
		if paths[want] == nil {
			t.Errorf("no path %s", want)
		}
	}
	ids := map[string]bool{}
	for path, item := range paths {
		ops, _ := item.(map[string]any)
		for method, v := range ops {
			op, _ := v.(map[string]any)
			id := fmt.Sprint(op["operationId"])
			if ids[id] || op["summary"] == nil {
				t.Errorf("%s %s: operationId %s twice, or no summary", method, path, id)
			}
			ids[id] = true
			declared := map[string]bool{}
			params, _ := op["parameters"].([]any)
			for _, param := range params {
				m, _ := param.(map[string]any)
				declared[fmt.Sprint(m["in"], " ", m["name"])] = true
				if m["schema"] == nil || m["description"] == nil {
					t.Errorf("%s %s: parameter %v lacks schema or description", method, path, m["name"])
				}
			}
			for _, part := range strings.Split(path, "/") {
				if name, ok := strings.CutPrefix(part, "{"); ok && !declared["path "+strings.TrimSuffix(name, "}")] {
					t.Errorf("%s %s: path parameter %s is not declared", method, path, part)
				}
			}
			hasBody := method == "post" || method == "put" || method == "patch"
			if hasBody != (op["requestBody"] != nil) {
				t.Errorf("%s %s: body described: %v", method, path, op["requestBody"] != nil)
			}
			if strings.HasSuffix(path, "/stream") || strings.HasSuffix(path, "/recording") {
				continue // answers for ever, or for long
			}
			// An operation that is there answers something else than "no such thing
			// here"; of an object that is not there it says the object's name.
			at := strings.NewReplacer("{name}", "boiler-1", "{node}", "nix", "{id}", "nix").Replace(path)
			r := p.do(strings.ToUpper(method), at, "")
			if r.StatusCode == 405 || r.StatusCode == 404 && strings.Contains(r.text, "nothing at this path") {
				t.Errorf("%s %s answers %d %s", method, path, r.StatusCode, r.text)
			}
		}
	}
	schemas, _ := dig(doc, "components", "schemas").(map[string]any)
	for name := range schemas {
		if _, err := p.spec.compiler.Compile("http://test/openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
	for _, want := range []string{"Device", "DeviceModel", "Node", "Mapper", "User", "DeviceList", "Problem", "Document", "TwinEvent"} {
		if schemas[want] == nil {
			t.Errorf("no schema %s", want)
		}
	}
}
