package appproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// counting counts connections.
func counting(n *atomic.Int64, dial func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		n.Add(1)
		return dial(ctx)
	}
}

func TestPool(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, r.Method, " ", r.Host, " ", r.URL.Path, " ", string(body))
	}))
	t.Cleanup(server.Close)
	var own, kept atomic.Int64
	dial := dialTo(server.Listener.Addr().String())
	f := frontOf(t, counting(&own, dial), keeping(t, counting(&kept, dial)))
	for i := range 5 {
		if res, text := ask(t, "GET", fmt.Sprint(f.URL, "/p/plant.web/", i), ""); res.StatusCode != 200 || text != fmt.Sprint("GET web.plant /", i, " ") {
			t.Errorf("%d %s", res.StatusCode, text)
		}
	}
	if own.Load() != 0 || kept.Load() != 1 {
		t.Errorf("requests after each other took %d connections of their own and %d to be kept", own.Load(), kept.Load())
	}
	// What may not be sent twice, or of whose answer an app may be wrong, has its own.
	for _, c := range [][]string{{"POST", "body"}, {"POST", ""}, {"GET", "body"}, {"HEAD", ""}, {"DELETE", ""}, {"GET", "", "Connection", "Upgrade", "Upgrade", "x"}} {
		before := own.Load()
		if res, text := ask(t, c[0], f.URL+"/p/web/", c[1], c[2:]...); res.StatusCode != 200 || own.Load() != before+1 {
			t.Errorf("%s: %d %s, %d connections of its own", c, res.StatusCode, text, own.Load()-before)
		}
	}
	if kept.Load() != 1 {
		t.Errorf("%d connections were to be kept", kept.Load())
	}
	// Many at a time do not get each other's answers.
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for j := range 50 {
				path := fmt.Sprint("/", i, "-", j)
				res, err := http.Get(f.URL + "/p/web" + path)
				if err != nil {
					t.Error(err)
					return
				}
				if text, err := io.ReadAll(res.Body); err != nil || string(text) != "GET web "+path+" " {
					t.Errorf("%s: %q %v", path, text, err)
				}
				_ = res.Body.Close()
			}
		})
	}
	wait.Wait()
	http.DefaultClient.CloseIdleConnections()
}

// TestPoolForgets has a connection closed when nobody has used it for a while.
func TestPoolForgets(t *testing.T) {
	var open atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	dial := dialTo(server.Listener.Addr().String())
	f := frontOf(t, dial, keeping(t, dial))
	began := time.Now()
	ask(t, "GET", f.URL+"/p/web/", "")
	for open.Load() > 0 {
		if time.Since(began) > 10*Kept {
			t.Fatal("it is kept for ever")
		}
		time.Sleep(10 * time.Millisecond) //sleep: the pool's own time is short
	}
	if took := time.Since(began); took < Kept {
		t.Errorf("it was kept for %s only", took)
	}
}

// TestPoolAppHangsUp has an app that closes a connection when the second request
// comes on it: nobody knows whether it has been read, and it is sent anew.
func TestPoolAppHangsUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wait.Wait() })
	var conns atomic.Int64
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			wait.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				_, _ = r.Peek(1)
			})
		}
	})
	dial := dialTo(l.Addr().String())
	f := frontOf(t, dial, keeping(t, dial))
	for range 5 {
		if res, text := ask(t, "GET", f.URL+"/p/web/", ""); res.StatusCode != 200 || text != "ok" {
			t.Errorf("%d %s", res.StatusCode, text)
		}
	}
	if conns.Load() != 5 {
		t.Errorf("%d connections", conns.Load())
	}
}

// refusing is a connection that is none: that is known when it is read from.
type refusing struct {
	net.Conn
	err error
}

func (c refusing) Refusal() error { return c.err }

// TestPoolElsewhere has a place that is no longer there.
func TestPoolElsewhere(t *testing.T) {
	behind := app(t)
	dial := dialTo(behind.Listener.Addr().String())
	gone := models.Errorf(models.KindUnavailable, "the pod is not ready")
	refused := func(context.Context) (net.Conn, error) {
		a, b := net.Pipe()
		go func() { _, _ = b.Read(make([]byte, 1)); _ = b.Close() }() // ends with the request
		return refusing{a, gone}, nil
	}
	for _, c := range []struct {
		name   string
		place  func(context.Context) (net.Conn, error)
		dial   func(context.Context) (net.Conn, error)
		status int
		say    string
	}{
		{"not dialled", func(context.Context) (net.Conn, error) { return nil, gone }, dial, 418, ""},
		{"refused", refused, dial, 418, ""},
		{"late", func(context.Context) (net.Conn, error) { return nil, models.Errorf(models.KindTimeout, "in 5s") }, dial, 504, "in 5s"},
		{"nor elsewhere", refused, func(context.Context) (net.Conn, error) { return nil, models.Errorf(models.KindUnavailable, "nobody") }, 503, "nobody"},
		{"nor there", refused, func(context.Context) (net.Conn, error) {
			c, _ := refused(context.Background())
			return refusing{c, models.Errorf(models.KindUnavailable, "nobody either")}, nil
		}, 503, "nobody either"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := frontOf(t, c.dial, keeping(t, c.place))
			if res, text := ask(t, "GET", f.URL+"/p/web/status", ""); res.StatusCode != c.status || !strings.Contains(text, c.say) {
				t.Errorf("%d %s", res.StatusCode, text)
			}
		})
	}
}
