package appproxy

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seen is what the app saw of a request.
type seen struct {
	Method, URI, Host string
	Header            http.Header
	Body              string
	Encoding          []string
}

// app answers what it sees, and more.
func app(t *testing.T) *httptest.Server {
	mux := http.NewServeMux()
	gone, over := make(chan bool, 1), make(chan bool)
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		for line := range 3 {
			fmt.Fprintln(w, line)
			w.(http.Flusher).Flush()
			if line < 2 {
				if _, err := r.Body.Read(make([]byte, 1)); err != nil {
					return
				}
			}
		}
	})
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		gone <- true
	})
	mux.HandleFunc("/gone", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			w.WriteHeader(500)
		}
	})
	mux.HandleFunc("/half", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half of it")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-App", "a")
		w.Header().Add("X-App", "b")
		w.Header().Set("Cache-Control", "max-age=5")
		w.WriteHeader(http.StatusTeapot)
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, _ := io.Copy(sum, r.Body)
		fmt.Fprint(w, n, hex.EncodeToString(sum.Sum(nil)))
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", fmt.Sprint(len(r.Trailer)))
	})
	mux.HandleFunc("/refuse", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "too large for me", http.StatusForbidden) })
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := range 2 {
			fmt.Fprintf(w, "data: %d\n\n", n)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		first := make([]byte, 1)
		_, _ = io.ReadFull(r.Body, first)
		fmt.Fprintln(w, "begun")
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.(http.Flusher).Flush()
		<-over // and reads no more, so it is not told either that the caller has gone
	})
	mux.HandleFunc("/over", func(http.ResponseWriter, *http.Request) { over <- true })
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		kind, text, err := c.Read(r.Context())
		if err == nil {
			_ = c.Write(r.Context(), kind, []byte(strings.ToUpper(string(text))))
			_, _, _ = c.Read(r.Context())
		}
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Host, r.Header, string(body), r.TransferEncoding})
	}))
	t.Cleanup(server.Close)
	return server
}

// front serves requests to an app at /p/SERVICE/PATH.
func front(t *testing.T, dial func(ctx context.Context) (net.Conn, error)) *httptest.Server {
	return frontOf(t, dial, nil)
}

// keeping is a place whose connections are kept until the test ends.
func keeping(t *testing.T, dial func(ctx context.Context) (net.Conn, error)) func() (Place, bool) {
	pool := NewPool()
	t.Cleanup(pool.Close)
	return func() (Place, bool) { return Place{Pool: pool, Key: "pod-1", Dial: dial}, true }
}

func frontOf(t *testing.T, dial func(ctx context.Context) (net.Conn, error), place func() (Place, bool)) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fail := func(w http.ResponseWriter, err error) {
			p := models.ProblemOf(err)
			w.WriteHeader(p.Status)
			_ = json.NewEncoder(w).Encode(p)
		}
		name, path, slash := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/p/"), "/")
		if slash {
			path = "/" + path
		}
		to, err := Parse(name, path)
		if err != nil {
			fail(w, err)
			return
		}
		Serve(w, r, Request{Idle: idleOf(r), Target: to, User: "olga", Prefix: "/p/" + name, Dial: dial, Place: place, Fail: fail, Log: slog.New(slog.DiscardHandler), Query: r.URL.RawQuery})
	}))
	t.Cleanup(server.Close)
	return server
}

// idleOf is what a request wants for Request.Idle.
func idleOf(r *http.Request) time.Duration {
	d, _ := time.ParseDuration(r.Header.Get("X-Idle"))
	return d
}

func dialTo(addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
}

func ask(t *testing.T, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		text = []byte("broke off: " + err.Error())
	}
	return res, string(text)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestServe(t *testing.T) {
	t.Run("own connections", func(t *testing.T) { testServe(t, false) })
	t.Run("kept connections", func(t *testing.T) { testServe(t, true) })
}

func testServe(t *testing.T, kept bool) {
	behind := app(t)
	dial := dialTo(behind.Listener.Addr().String())
	var place func() (Place, bool)
	if kept {
		place = keeping(t, dial)
	}
	f := frontOf(t, dial, place)
	t.Run("as it is", func(t *testing.T) {
		res, text := ask(t, "PUT", f.URL+"/p/plant.web:http/a%20b//c;x=1/%E2%82%AC?q=%2F&q=2&b;c", "body", "X-Own", "1", "Authorization", "Bearer hub", "Cookie", "c=1",
			"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Prefix", "/evil", "X-Whimbrel-User", "root", "X_Whimbrel_User", "root", "X-Real-Ip", "6.6.6.6", "Connection", "X-Own2", "X-Own2", "1", "Keep-Alive", "x", "Te", "gzip")
		var s seen
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatalf("%d %s", res.StatusCode, text)
		}
		if s.Method != "PUT" || s.URI != "/a%20b//c;x=1/%E2%82%AC?q=%2F&q=2&b;c" || s.Host != "web.plant" || s.Body != "body" {
			t.Errorf("%+v", s)
		}
		for name, want := range map[string]string{"X-Own": "1", "Cookie": "c=1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Prefix": "/p/plant.web:http", "X-Whimbrel-User": "olga", "X-Forwarded-Proto": "http",
			"Authorization": "", "X_Whimbrel_User": "", "X-Real-Ip": "", "X-Own2": "", "Keep-Alive": "", "Te": ""} {
			if got := strings.Join(s.Header[name], ","); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if res.Header.Get(HeaderAnswer) != "app" {
			t.Error("nothing says who answered")
		}
	})
	t.Run("an authorization of the app's", func(t *testing.T) {
		_, text := ask(t, "GET", f.URL+"/p/web/", "", "Authorization", "Bearer hub", HeaderAppAuthorization, "Basic eDp5")
		if !strings.Contains(text, "Basic eDp5") || strings.Contains(text, "Bearer hub") || strings.Contains(text, HeaderAppAuthorization) {
			t.Error(text)
		}
	})
	t.Run("status and headers", func(t *testing.T) {
		res, _ := ask(t, "GET", f.URL+"/p/web/status", "")
		if res.StatusCode != http.StatusTeapot || strings.Join(res.Header["X-App"], ",") != "a,b" || res.Header.Get("Cache-Control") != "max-age=5" {
			t.Errorf("%+v", res)
		}
	})
	t.Run("streams both ways", func(t *testing.T) {
		r, w := io.Pipe()
		req, _ := http.NewRequestWithContext(t.Context(), "POST", f.URL+"/p/web/stream", r)
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		lines := bufio.NewReader(res.Body)
		for want := range 3 { // each line comes before what the next one waits for
			if got, err := lines.ReadString('\n'); got != fmt.Sprintln(want) {
				t.Fatalf("%q %v", got, err)
			}
			if want < 2 {
				_, _ = w.Write([]byte("."))
			}
		}
		_ = w.Close()
	})
	t.Run("a long upload", func(t *testing.T) {
		body := strings.Repeat("0123456789abcdef", 1<<18)
		sum := sha256.Sum256([]byte(body))
		if _, text := ask(t, "POST", f.URL+"/p/web/upload", body); text != fmt.Sprint(len(body), hex.EncodeToString(sum[:])) {
			t.Error(text)
		}
	})
	t.Run("too long an upload", func(t *testing.T) {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", f.URL+"/p/web/upload", http.NoBody)
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader("x")), MaxBody+1
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err == nil {
			defer res.Body.Close()
			if res.StatusCode != 413 {
				t.Error(res.Status)
			}
		}
	})
	t.Run("a WebSocket", func(t *testing.T) {
		c, _, err := websocket.Dial(t.Context(), f.URL+"/p/web/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		_ = c.Write(t.Context(), websocket.MessageText, []byte("hello"))
		if _, text, err := c.Read(t.Context()); string(text) != "HELLO" {
			t.Errorf("%q %v", text, err)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		res, text := ask(t, "HEAD", f.URL+"/p/web/status", "")
		if res.StatusCode != http.StatusTeapot || res.Header.Get("X-App") != "a" || text != "" {
			t.Errorf("%+v %q", res, text)
		}
	})
	t.Run("trailers", func(t *testing.T) {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", f.URL+"/p/web/trailers", io.MultiReader(strings.NewReader("x")))
		req.Trailer = http.Header{"X-Whimbrel-User": {"root"}} // a header, by a back door
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if text, err := io.ReadAll(res.Body); string(text) != "body" || err != nil || res.Trailer.Get("X-Sum") != "0" {
			t.Errorf("%q %v, trailers %v", text, err, res.Trailer)
		}
	})
	t.Run("100-continue", func(t *testing.T) {
		for path, want := range map[string]string{"upload": "HTTP/1.1 100 Continue", "refuse": "HTTP/1.1 403 Forbidden"} {
			conn, err := net.Dial("tcp", f.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprintf(conn, "POST /p/web/%s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", path)
			lines := bufio.NewReader(conn)
			line, err := lines.ReadString('\n')
			if path == "refuse" && strings.HasPrefix(line, "HTTP/1.1 100") { // its body is wanted by who stands between, which sends it on at once
				_, _ = io.WriteString(conn, "abc")
				_, _ = lines.ReadString('\n')
				line, err = lines.ReadString('\n')
			}
			if !strings.HasPrefix(line, want) {
				t.Errorf("%s: %q %v", path, line, err)
			}
			_ = conn.Close()
		}
	})
	t.Run("server-sent events", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", f.URL+"/p/web/events", nil)
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got := make([]byte, len("data: 0\n\ndata: 1\n\n"))
		if _, err := io.ReadFull(res.Body, got); string(got) != "data: 0\n\ndata: 1\n\n" || err != nil || res.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("%q %v %v", got, err, res.Header)
		}
	})
	t.Run("an app that reads no more", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var sent atomic.Int64
		body := readerFunc(func(p []byte) (int, error) { sent.Add(int64(len(p))); return len(p), nil })
		req, _ := http.NewRequestWithContext(ctx, "POST", f.URL+"/p/web/slow", body)
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		defer ask(t, "GET", f.URL+"/p/web/over", "")
		// What is taken off the caller's hands is what buffers hold, and no more.
		last := int64(-1)
		for last != sent.Load() {
			last = sent.Load()
			select {
			case <-t.Context().Done():
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
		if last > 64<<20 {
			t.Errorf("%d bytes were taken that nobody reads", last)
		}
		t.Logf("%d KiB wait", last>>10)
	})
	t.Run("nothing moves", func(t *testing.T) {
		// It answers, reads no more and does not see that its caller goes.
		req, _ := http.NewRequestWithContext(t.Context(), "POST", f.URL+"/p/web/slow", readerFunc(func(p []byte) (int, error) { return len(p), nil }))
		req.Header.Set("X-Idle", "300ms")
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		defer ask(t, "GET", f.URL+"/p/web/over", "")
		if text, err := io.ReadAll(res.Body); string(text) != "begun\n" || err == nil {
			t.Errorf("%q %v", text, err)
		}
		// What moves in one direction is not idle in the other.
		r, w := io.Pipe()
		go func() { // ends with its writes
			for range 8 {
				time.Sleep(350 * time.Millisecond) //sleep: so slow is this caller
				_, _ = w.Write([]byte("x"))
			}
			_ = w.Close()
		}()
		req, _ = http.NewRequestWithContext(t.Context(), "POST", f.URL+"/p/web/upload", r)
		req.Header.Set("X-Idle", "2s")
		again, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Body.Close()
		if text, _ := io.ReadAll(again.Body); again.StatusCode != 200 || !strings.HasPrefix(string(text), "8") {
			t.Errorf("%d %s", again.StatusCode, text)
		}
	})
	t.Run("silent", func(t *testing.T) {
		res, text := ask(t, "GET", f.URL+"/p/web/silent", "", HeaderTimeoutWanted, "50ms")
		if res.StatusCode != 504 || !strings.Contains(text, "did not answer in 50ms") || res.Header.Get(HeaderAnswer) != "" {
			t.Errorf("%d %s", res.StatusCode, text)
		}
		if res, _ := ask(t, "GET", f.URL+"/p/web/gone", ""); res.StatusCode != 200 {
			t.Error("the app was not told")
		}
	})
	t.Run("a caller that goes", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", f.URL+"/p/web/silent", nil)
		time.AfterFunc(50*time.Millisecond, cancel)
		if res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req); err == nil {
			res.Body.Close()
			t.Error("an answer")
		}
		if res, _ := ask(t, "GET", f.URL+"/p/web/gone", ""); res.StatusCode != 200 {
			t.Error("the app was not told")
		}
	})
	t.Run("an app that breaks off", func(t *testing.T) {
		if _, text := ask(t, "GET", f.URL+"/p/web/half", ""); !strings.HasPrefix(text, "broke off") {
			t.Errorf("nobody was told: %s", text)
		}
	})
	t.Run("wrong", func(t *testing.T) {
		for _, c := range []struct {
			method, path string
			status       int
			say          string
			headers      []string
		}{
			{"TRACE", "web/", 400, "TRACE", nil},
			{"GET", "web/", 400, "must be a duration", []string{HeaderTimeoutWanted, "1h"}},
			{"GET", "web/", 400, "must be a duration", []string{HeaderTimeoutWanted, "soon"}},
			{"GET", "Web/", 400, "names no service", nil},
			{"GET", "a.b.c/", 400, "names no service", nil},
			{"GET", "web:/", 400, "names no port", nil},
			{"GET", "web:a%2fb/", 400, "names no port", nil},
			{"GET", "web%2fx/", 400, "names no service", nil},
			{"GET", "web/a/%2e%2e/b", 400, ". and ..", nil},
			{"GET", "web/%2E%2E", 400, ". and ..", nil},
			{"GET", "web/..;x/b", 400, ". and ..", nil},
			{"GET", "web/%2e/b", 400, ". and ..", nil},
			{"GET", "web/a%2fb", 400, "encoded slash", nil},
			{"GET", "web/a%5Cb", 400, "backslash", nil},
			{"GET", "web/a%0d%0aX-Evil:%201", 400, "control character", nil},
			{"GET", "web/a%00", 400, "control character", nil},
			{"GET", "web/a%7f", 400, "control character", nil},
		} {
			res, text := ask(t, c.method, f.URL+"/p/"+c.path, "", c.headers...)
			if res.StatusCode != c.status || !strings.Contains(text, c.say) {
				t.Errorf("%s %s: %d %s", c.method, c.path, res.StatusCode, text)
			}
		}
	})
}

// TestSmuggling sends what no proper client would, and sees that the app gets one
// request, or none.
func TestSmuggling(t *testing.T) {
	behind := app(t)
	f := front(t, dialTo(behind.Listener.Addr().String()))
	for _, c := range []struct {
		name, request string
		status        int
		body          string // that the app sees
	}{
		{"dots", "GET /p/web/../../x HTTP/1.1\r\nHost: h\r\n\r\n", 400, ""},
		{"a backslash", "GET /p/web/a\\..\\b HTTP/1.1\r\nHost: h\r\n\r\n", 400, ""},
		{"another host", "GET http://evil/p/web/x HTTP/1.1\r\nHost: evil\r\n\r\n", 200, ""},
		{"two hosts", "GET /p/web/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, ""},
		{"two lengths", "POST /p/web/x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400, ""},
		{"a length that is none", "POST /p/web/x HTTP/1.1\r\nHost: h\r\nContent-Length: +4\r\n\r\nabcd", 400, ""},
		{"length and chunks", "POST /p/web/x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, "abc"},
		{"upgrade to HTTP/2", "GET /p/web/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", 200, ""},
		{"upgrade to one of two", "GET /p/web/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket, H2C\r\n\r\n", 200, ""},
		{"an encoding of its own", "POST /p/web/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 501, ""},
		{"two encodings", "POST /p/web/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 501, ""},
		{"a space before the colon", "POST /p/web/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, ""},
		{"a folded line", "GET /p/web/x HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n\tTransfer-Encoding: chunked\r\n\r\n", 200, ""},
		{"a bare end of line in a value", "GET /p/web/x HTTP/1.1\r\nHost: h\r\nX-A: a\rX-Whimbrel-User: root\r\n\r\n", 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", f.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(conn, c.request)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			text, _ := io.ReadAll(res.Body)
			var s seen
			if res.StatusCode == 200 && json.Unmarshal(text, &s) != nil {
				t.Fatalf("%s", text)
			}
			if res.StatusCode != c.status || s.Body != c.body {
				t.Errorf("%d %s", res.StatusCode, text)
			}
			if res.StatusCode == 200 && (s.Host != "web" || s.Header.Get("X-Whimbrel-User") != "olga" || s.Header.Get("Upgrade")+s.Header.Get("Connection")+s.Header.Get("Http2-Settings") != "") {
				t.Errorf("%+v", s)
			}
			// What comes behind is nobody's request.
			if chunks := strings.Contains(c.request, "Transfer-Encoding: chunked\r\n\r\n3"); chunks && res.StatusCode == 200 && !res.Close {
				t.Error("the connection goes on")
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{models.Errorf(models.KindUnavailable, "no ready pod"), 503},
		{models.Errorf(models.KindTimeout, "late"), 504},
		{models.Errorf(models.KindRefused, "not listening"), 502},
	} {
		f := front(t, func(context.Context) (net.Conn, error) { return nil, c.err })
		if res, text := ask(t, "POST", f.URL+"/p/web/", "x"); res.StatusCode != c.status || !strings.Contains(text, c.err.Error()) {
			t.Errorf("%d %s", res.StatusCode, text)
		}
	}
	f := front(t, func(context.Context) (net.Conn, error) { // hangs up
		a, b := net.Pipe()
		go func() { _, _ = b.Read(make([]byte, 1)); _ = b.Close() }() // ends with the request
		return a, nil
	})
	if res, text := ask(t, "GET", f.URL+"/p/web/", ""); res.StatusCode != 502 || !strings.Contains(text, "broke off") {
		t.Errorf("%d %s", res.StatusCode, text)
	}
}

func TestSend(t *testing.T) {
	behind := app(t)
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "/x?a=1", strings.NewReader("hi"))
	res, err := Send(req, Target{Namespace: "plant", Name: "web"}, dialTo(behind.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	var s seen
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil || s.URI != "/x?a=1" || s.Body != "hi" || s.Host != "web.plant" {
		t.Errorf("%v %+v", err, s)
	}
	_ = res.Body.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	req, _ = http.NewRequestWithContext(ctx, "GET", "/silent", nil)
	if _, err := Send(req, Target{Name: "web"}, dialTo(behind.Listener.Addr().String())); models.KindOf(err) != models.KindTimeout {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("plant.web:http", "/a/b")
	f.Add("web", "/%2e%2e/x")
	f.Fuzz(func(t *testing.T, service, path string) {
		to, err := Parse(service, path)
		if err != nil {
			return
		}
		if models.CheckLabelName(to.Name) != "" || strings.Contains(strings.ToLower(path), "%2f") || strings.Contains(path, "/../") {
			t.Errorf("%q %q: %+v", service, path, to)
		}
	})
}
