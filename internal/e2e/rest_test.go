package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// api is a REST API as any HTTP client sees it. The tests decode its answers
// into types of their own, so that they hold the contract and not our structs.
type api struct {
	url, token string
	http       *http.Client
}

// apiOf reads the context.json in a directory.
func apiOf(dir string) (*api, error) {
	path := filepath.Join(dir, "context.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var c struct{ Server, Token, CA string }
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	a := &api{url: c.Server, token: c.Token, http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", c.CA)
		}
		a.http.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	}
	return a, nil
}

// as is the same API for another user.
func (a *api) as(token string) *api {
	return &api{url: a.url, token: token, http: a.http}
}

// answer is a response, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// problem is an RFC 9457 document.
type problem struct {
	Type, Title, Detail string
	Status              int
	Errors              []struct{ Pointer, Detail string }
}

func (a answer) problem(t testing.TB) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil || p.Status != a.status {
		t.Errorf("%v is not a problem document: %v", a, err)
	}
	if ct := a.header.Get("Content-Type"); !strings.HasPrefix(ct, "application/problem+json") {
		t.Errorf("%v has the content type %s", a, ct)
	}
	return p
}

// into decodes the body.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%v: %v", a, err)
	}
}

// do sends a request; headers are pairs.
func (a *api) do(method, path, body string, headers ...string) (answer, error) {
	req, err := http.NewRequest(method, a.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return answer{}, err
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, text}, err
}

// want sends a request that must be answered with a status.
func (a *api) want(t testing.TB, status int, method, path, body string, headers ...string) answer {
	t.Helper()
	got, err := a.do(method, path, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if got.status != status {
		t.Fatalf("%s %s: %v, want %d", method, path, got, status)
	}
	return got
}

// twinDoc is a twin as the contract shows it.
type twinDoc struct {
	Device         string
	Version        uint64
	State          string
	LastSeen       time.Time
	DesiredVersion int64
	Properties     map[string]propertyDoc
}

type propertyDoc struct {
	Unit    string
	Desired *struct {
		Value   json.RawMessage
		By      string
		Version int64
	}
	Reported *reportedDoc
	Write    *struct{ ID, State, Error string }
}

type reportedDoc struct {
	Value           json.RawMessage
	Quality, Reason string
	Time, Since     time.Time
}

// value is a property's reported value as JSON, "" when there is none.
func (d twinDoc) value(prop string) string {
	if r := d.Properties[prop].Reported; r != nil {
		return string(r.Value)
	}
	return ""
}

// quality is a property's quality with the reason, such as "bad/timeout".
func (d twinDoc) quality(prop string) string {
	r := d.Properties[prop].Reported
	switch {
	case r == nil:
		return ""
	case r.Reason == "":
		return r.Quality
	}
	return r.Quality + "/" + r.Reason
}

// write is the state of a property's write.
func (d twinDoc) write(prop string) string {
	if w := d.Properties[prop].Write; w != nil {
		return w.State
	}
	return ""
}

func (d twinDoc) number(prop string) (n float64, err error) {
	err = json.Unmarshal([]byte(d.value(prop)), &n)
	return n, err
}

// twin fetches a twin; path is where, such as /api/v1 for the hub.
func (a *api) twin(prefix, device string) (twinDoc, error) {
	got, err := a.do("GET", prefix+"/devices/"+device+"/twin", "")
	if err != nil {
		return twinDoc{}, err
	}
	if got.status != 200 {
		return twinDoc{}, fmt.Errorf("twin of %s: %v", device, got)
	}
	var d twinDoc
	if err := json.Unmarshal(got.body, &d); err != nil {
		return d, fmt.Errorf("twin of %s: %v: %w", device, got, err)
	}
	return d, nil
}

// Prefixes of the two APIs.
const (
	hubAPI  = "/api/v1"
	edgeAPI = "/v1"
)

// awaitTwin waits until a twin is as holds says.
func (a *api) awaitTwin(t testing.TB, limit time.Duration, prefix, device, what string, holds func(twinDoc) bool) twinDoc {
	t.Helper()
	var d twinDoc
	eventually(t, limit, device+": "+what, func() (err error) {
		if d, err = a.twin(prefix, device); err != nil {
			return err
		}
		if !holds(d) {
			text, _ := json.Marshal(d)
			return fmt.Errorf("it is %s", text)
		}
		return nil
	})
	return d
}

// object is any object's part that tests look at.
type object struct {
	Kind     string
	Metadata struct {
		Name, Namespace, UID, ResourceVersion string
		Generation                            int64
	}
	Status struct {
		State      string
		LastSeen   time.Time
		Conditions []condition
		Outbox     struct{ LastSeq, AckedSeq, Records, Dropped uint64 }
	}
}

type condition struct{ Type, Status, Reason, Message string }

func (o object) condition(kind string) condition {
	for _, c := range o.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return condition{}
}

func (a *api) object(path string) (object, error) {
	got, err := a.do("GET", path, "")
	if err != nil {
		return object{}, err
	}
	if got.status != 200 {
		return object{}, fmt.Errorf("GET %s: %v", path, got)
	}
	var o object
	err = json.Unmarshal(got.body, &o)
	return o, err
}

// awaitNode waits until the hub says that a node is ready, or is not.
func (a *api) awaitNode(t testing.TB, name string, ready bool) object {
	t.Helper()
	var o object
	eventually(t, 30*time.Second, fmt.Sprintf("node %s ready: %v", name, ready), func() (err error) {
		if o, err = a.object(hubAPI + "/nodes/" + name); err != nil {
			return err
		}
		if (o.condition("Ready").Status == "True") != ready {
			return fmt.Errorf("its conditions are %+v", o.Status.Conditions)
		}
		return nil
	})
	return o
}
