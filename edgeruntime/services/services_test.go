package services

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/workload"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pods are ready pods by the value of their label app.
type pods map[string][]workload.Backend

func (p pods) Backends(_ string, selector map[string]string) []workload.Backend {
	return p[selector["app"]]
}

func backend(t *testing.T, name, addr string) workload.Backend {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	return workload.Backend{Pod: name, Host: host, Ports: map[string]int32{"http": int32(n)}}
}

func item(t *testing.T, name, app, target string) store.Item {
	t.Helper()
	text, err := json.Marshal(map[string]any{"spec": map[string]any{"selector": map[string]string{"app": app},
		"ports": []map[string]any{{"name": "http", "port": 80, "targetPort": target}}}})
	if err != nil {
		t.Fatal(err)
	}
	return store.Item{Kind: KindService, Namespace: "default", Name: name, JSON: text}
}

func TestDial(t *testing.T) {
	a, b := httptest.NewServer(http.NotFoundHandler()), httptest.NewServer(http.NotFoundHandler())
	defer a.Close()
	defer b.Close()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := nobody.Addr().String()
	_ = nobody.Close()
	s := New(pods{
		"two": {backend(t, "a", a.Listener.Addr().String()), backend(t, "b", b.Listener.Addr().String())},
		"one": {backend(t, "a", a.Listener.Addr().String()), backend(t, "dead", dead)},
		"bad": {backend(t, "dead", dead)},
	}, slog.New(slog.DiscardHandler))
	s.Apply([]store.Item{item(t, "two", "two", "http"), item(t, "one", "one", "http"), item(t, "bad", "bad", "http"), item(t, "none", "none", "http"),
		item(t, "unnamed", "two", "metrics"), {Kind: KindService, Namespace: "default", Name: "broken", JSON: []byte("{")}, {Kind: "Pod", Namespace: "default", Name: "two"}})
	dial := func(name, port string) net.Conn {
		t.Helper()
		conn, err := s.Dial(t.Context(), "default", name, port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	t.Run("the least busy", func(t *testing.T) {
		open := map[string][]net.Conn{}
		for range 6 {
			c := dial("two", "")
			open[c.RemoteAddr().String()] = append(open[c.RemoteAddr().String()], c)
		}
		free := a.Listener.Addr().String()
		if len(open[free]) != 3 || len(open) != 2 {
			t.Fatalf("%d of 6 went to one of two", len(open[free]))
		}
		for _, c := range open[free] {
			_ = c.Close()
			_ = c.Close() // counts once
		}
		for range 3 {
			if c := dial("two", "80"); c.RemoteAddr().String() != free {
				t.Error("the busier one was asked")
			}
		}
	})
	t.Run("one that takes none", func(t *testing.T) {
		for range 4 {
			_ = dial("one", "http").Close()
		}
	})
	t.Run("the one that is named", func(t *testing.T) {
		for range 3 {
			c, err := s.dial(t.Context(), bulk.ServiceTarget{Namespace: "default", Name: "two", Pod: "b"})
			if err != nil || c.RemoteAddr().String() != b.Listener.Addr().String() {
				t.Fatalf("%v %v", c, err)
			}
			defer c.Close()
		}
		if _, err := s.dial(t.Context(), bulk.ServiceTarget{Namespace: "default", Name: "two", Pod: "c"}); models.KindOf(err) != models.KindUnavailable || !strings.Contains(err.Error(), "pod c") {
			t.Errorf("one that is not there: %v", err)
		}
	})
	for _, c := range []struct {
		name, port string
		kind       models.ErrorKind
		say        string
	}{
		{"bad", "", models.KindRefused, "what the app listens on"}, {"none", "", models.KindUnavailable, "no ready pod"},
		{"nix", "", models.KindUnavailable, "no pods of a service"}, {"broken", "", models.KindUnavailable, "no pods"},
		{"two", "ftp", models.KindNotFound, "it has: 80, http"}, {"unnamed", "", models.KindUnavailable, `names a port "metrics"`},
	} {
		if _, err := s.Dial(t.Context(), "default", c.name, c.port); models.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s:%s: %v", c.name, c.port, err)
		}
	}
	s.Apply(nil)
	if _, err := s.Dial(t.Context(), "default", "two", ""); models.KindOf(err) != models.KindUnavailable {
		t.Errorf("a Service that is gone: %v", err)
	}
}

func TestDo(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host+r.RequestURI) }))
	defer app.Close()
	s := New(pods{"web": {backend(t, "a", app.Listener.Addr().String())}}, slog.New(slog.DiscardHandler))
	s.Apply([]store.Item{item(t, "web", "web", "http")})
	req, err := http.NewRequest("GET", "/x?y=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Do(context.Background(), "default", "web", req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); string(text) != "web.default/x?y=1" {
		t.Errorf("%s", text)
	}
	if _, err := s.Do(context.Background(), "default", "nix", req); models.KindOf(err) != models.KindUnavailable {
		t.Errorf("%v", err)
	}
}
