package cloudapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/cloudapi/cloudapitest"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const boilerModel = `{"kind":"DeviceModel","apiVersion":"whimbrel/v1","metadata":{"name":"boiler"},"spec":{"protocol":"modbus","properties":[
 {"name":"temperature","type":"float","unit":"°C","minimum":-20,"maximum":150,"every":"1s","deadband":"1%","address":{"table":"input","register":0}},
 {"name":"setpoint","type":"float","access":"ReadWrite","write":"hold","minimum":0,"maximum":95},
 {"name":"mode","type":"int","access":"ReadWrite","enum":{"0":"off","1":"heat"}},
 {"name":"serial","type":"int","access":"ReadWrite"},
 {"name":"recipe","type":"object","access":"ReadWrite"}]}}`

func device(name string) string {
	return `{"kind":"Device","metadata":{"name":"` + name + `","labels":{"area":"hall-a"}},"spec":{"model":"boiler","node":"gw1","connection":{"url":"tcp://127.0.0.1:5020"}}}`
}

// plant is a served hub with one user per role.
type plant struct {
	t      testing.TB
	hub    *cloudapitest.Hub
	url    string
	spec   *spec
	client *http.Client
	tokens map[string]string
}

func newPlant(t testing.TB, edit ...func(*cloudapi.Config)) *plant {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newPlantOn(t, l, edit...)
}

func newPlantOn(t testing.TB, l net.Listener, edit ...func(*cloudapi.Config)) *plant {
	t.Helper()
	hub := cloudapitest.New()
	p := &plant{t: t, hub: hub, url: cloudapitest.ServeOn(t, l, hub, edit...), client: &http.Client{Transport: &http.Transport{}},
		tokens: map[string]string{"admin": cloudapitest.AdminToken, "": ""}}
	t.Cleanup(p.client.CloseIdleConnections)
	for _, u := range []struct {
		name      string
		role      models.Role
		namespace string
	}{
		{"viewer", models.Viewer, "*"}, {"operator", models.Operator, "*"},
		{"plant-viewer", models.Viewer, "plant"}, {"plant-operator", models.Operator, "plant"}, {"plant-admin", models.Admin, "plant"},
	} {
		token, err := hub.AddUser(u.name, u.role, u.namespace)
		if err != nil {
			t.Fatal(err)
		}
		p.tokens[u.name] = token
	}
	p.spec = loadSpec(t, p)
	return p
}

// boilers adds the model boiler and devices.
func (p *plant) boilers(names ...string) {
	p.t.Helper()
	p.want(201, "POST", "/api/v1/devicemodels", boilerModel)
	for _, n := range names {
		p.want(201, "POST", "/api/v1/devices", device(n))
	}
}

type reply struct {
	*http.Response
	text string
	json map[string]any
}

type headers map[string]string

// do sends a request as admin unless headers say otherwise ("as"), and checks
// the answer against the OpenAPI document.
func (p *plant) do(method, path, body string, h ...headers) reply {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	as := "admin"
	for _, hs := range h {
		for k, v := range hs {
			if k == "as" {
				as = v
				continue
			}
			req.Header.Set(k, v)
		}
	}
	if token := p.tokens[as]; token != "" && req.Header.Get("Authorization") == "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	r := reply{Response: resp, text: string(text)}
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		_ = d.Decode(&r.json) // an answer that is no object is checked by the spec
	}
	if p.spec != nil {
		p.spec.check(p.t, req, resp, text)
	}
	return r
}

func (p *plant) want(status int, method, path, body string, h ...headers) reply {
	p.t.Helper()
	r := p.do(method, path, body, h...)
	if r.StatusCode != status {
		p.t.Fatalf("%s %s %.200s: got %d %s, want %d", method, path, body, r.StatusCode, r.text, status)
	}
	if status >= 400 {
		if ct := r.Header.Get("Content-Type"); ct != "application/problem+json" {
			p.t.Errorf("%s %s: problem has Content-Type %q", method, path, ct)
		}
		if _, query, ok := strings.Cut(path, "?"); ok && (status == 400 || status == 422 && method == "GET") && !strings.HasPrefix(path, "/v2/") {
			namesParameter(p.t, path, query, r)
		}
		if n, ok := r.json["status"].(json.Number); !ok || n.String() != jsonInt(status) {
			p.t.Errorf("%s %s: problem says status %v, want %d", method, path, r.json["status"], status)
		}
	}
	return r
}

// namesParameter checks that a problem of a query names the parameter, which is one of
// its own.
func namesParameter(t testing.TB, path, query string, r reply) {
	t.Helper()
	values, err := url.ParseQuery(query)
	list, _ := r.json["errors"].([]any)
	if err != nil {
		return // which one it is cannot be said
	}
	if len(list) == 0 {
		t.Errorf("%s: no parameter is named: %s", path, r.text)
		return
	}
	e, _ := list[0].(map[string]any)
	name, _ := e["parameter"].(string)
	if name == "" && e["pointer"] != "" {
		return // the query is good, and the body is not
	}
	if !values.Has(name) || e["pointer"] != "" || e["detail"] != r.json["detail"] || !strings.Contains(r.text, name) {
		t.Errorf("%s: %s", path, r.text)
	}
}

// at walks into an answer: at("metadata", "name").
func (r reply) at(path ...string) any {
	var v any = map[string]any(r.json)
	for _, k := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

func (r reply) pointers() (out []string) {
	list, _ := r.json["errors"].([]any)
	for _, e := range list {
		m, _ := e.(map[string]any)
		s, _ := m["pointer"].(string)
		out = append(out, s)
	}
	return out
}

// spec is the OpenAPI document, ready to check answers.
type spec struct {
	doc      map[string]any
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema
}

func loadSpec(t testing.TB, p *plant) *spec {
	t.Helper()
	text := p.want(200, "GET", "/openapi.json", "").text
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	s := &spec{compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	s.compiler.DefaultDraft(jsonschema.Draft2020)
	if err := s.compiler.AddResource("http://test/openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	s.doc, _ = doc.(map[string]any)
	return s
}

func dig(v any, path ...string) any {
	for _, k := range path {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

// template finds the path of the document that a request's path is of.
func (s *spec) template(path string) string {
	paths, _ := s.doc["paths"].(map[string]any)
	best := ""
	for template := range paths {
		a, b := strings.Split(template, "/"), strings.Split(path, "/")
		if len(a) != len(b) {
			continue
		}
		match := true
		for i := range a {
			match = match && (a[i] == b[i] || strings.HasPrefix(a[i], "{") && b[i] != "")
		}
		if match && (best == "" || strings.Count(template, "{") < strings.Count(best, "{")) {
			best = template
		}
	}
	return best
}

func (s *spec) check(t testing.TB, req *http.Request, resp *http.Response, text []byte) {
	t.Helper()
	template := s.template(req.URL.Path)
	op := dig(s.doc, "paths", template, strings.ToLower(req.Method))
	if op == nil {
		return // unknown paths and methods are not described
	}
	status := jsonInt(resp.StatusCode)
	response, _ := dig(op, "responses", status).(map[string]any)
	if resp.Header.Get("X-Whimbrel-Answer") != "" && dig(op, "responses", "default") != nil {
		return // somebody else's: it may be anything
	}
	if response == nil {
		t.Errorf("%s %s answers %s, which its description does not have: %s", req.Method, template, status, text)
		return
	}
	contents, _ := response["content"].(map[string]any)
	mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if len(text) == 0 && contents == nil {
		return
	}
	if _, ok := contents[mediaType]; !ok {
		t.Errorf("%s %s answers %s %q, its description has %v", req.Method, template, status, mediaType, contents)
		return
	}
	if !strings.HasSuffix(mediaType, "json") || strings.HasSuffix(mediaType, "ndjson") || req.URL.Query().Has("watch") {
		return
	}
	esc := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D", "+", "%2B").Replace
	at := "http://test/openapi.json#/paths/" + esc(template) + "/" + strings.ToLower(req.Method) + "/responses/" + status + "/content/" + esc(mediaType) + "/schema"
	schema := s.schemas[at]
	if schema == nil {
		var err error
		if schema, err = s.compiler.Compile(at); err != nil {
			t.Fatalf("schema of %s %s %s: %v", req.Method, template, status, err)
		}
		s.schemas[at] = schema
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		t.Errorf("%s %s: the answer is not as described: %v\n%s", req.Method, req.URL.Path, err, text)
	}
}

func jsonInt(n int) string { b, _ := json.Marshal(n); return string(b) }
