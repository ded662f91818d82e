package podstream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{"", "{Namespace: Pod: Container: Revision:0 Previous:false Follow:false Tail:<nil> SinceSeconds:0 Since:0001-01-01 00:00:00 +0000 UTC Timestamps:false Stream:}"},
		{"container=a&follow=true&timestamps=1&sinceSeconds=5&stream=Stderr&revision=3", "{Namespace: Pod: Container:a Revision:3 Previous:false Follow:true Tail:<nil> SinceSeconds:5 Since:0001-01-01 00:00:00 +0000 UTC Timestamps:true Stream:stderr}"},
		{"sinceTime=2026-01-02T03:04:05.5%2B01:00&previous=true&stream=All", "Since:2026-01-02 03:04:05.5 +0100"},
		{"tailLines=-1", "malformed: tailLines must be an int from 0"},
		{"tailLines=", "malformed: tailLines"},
		{"tailLines=99999999999", "malformed: tailLines"},
		{"follow=", "malformed: follow must be true or false"},
		{"sinceTime=now", "malformed: sinceTime must be a time"},
		{"sinceSeconds=0", "malformed: sinceSeconds must be an int from 1"},
		{"sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z", "malformed: sinceSeconds and sinceTime"},
		{"previous=true&follow=true", "malformed: previous"},
		{"stream=stdout", "malformed: stream must be All"},
		{"container=../x", "malformed: container"},
		{"revision=0", "malformed: revision"},
	} {
		q, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ParseLog(q)
		got := fmt.Sprintf("%+v", r)
		if err != nil {
			got = string(models.KindOf(err)) + ": " + err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", c.query, got, c.want)
		}
	}
	for _, c := range []struct{ query, want string }{
		{"command=a&command=b+c&stdin=true&tty=true", "{Namespace: Pod: Container: Command:[a b c] Stdin:true TTY:true} true true"},
		{"command=a&stdout=false", "false true"},
		{"", "command must say what to run"},
		{"command=", "command must say what to run"},
		{"command=a&stdout=false&stderr=false", "stdin must be true"},
		{"command=a%00b", "without zero bytes"},
		{"command=%ff", "must be UTF-8"},
		{"command=" + strings.Repeat("x", MaxCommand), "more than 16384"},
	} {
		q, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		r, out, errs, err := ParseExec(q)
		if got := fmt.Sprintf("%+v %v %v %v", r, out, errs, err); !strings.Contains(got, c.want) || err != nil && models.KindOf(err) != models.KindMalformed {
			t.Errorf("%.60s: %s, want %s", c.query, got, c.want)
		}
	}
}

// exchange serves a command to an asker over a pipe.
func exchange(t *testing.T, run func(ctx context.Context, in Input, stdout, stderr io.Writer) (int, error)) *Command {
	t.Helper()
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { // ends with the pipe
		served <- ServeCommand(context.WithoutCancel(t.Context()), far, run)
		_ = far.Close()
	}()
	t.Cleanup(func() {
		_ = near.Close()
		<-served
	})
	return NewCommand(near)
}

func TestCommand(t *testing.T) {
	c := exchange(t, func(_ context.Context, in Input, stdout, stderr io.Writer) (int, error) {
		s := <-in.Resize
		fmt.Fprintf(stderr, "%d by %d", s.Columns, s.Rows)
		n, err := io.Copy(stdout, in.Stdin)
		return int(n / 100_000), err
	})
	const size = 3 * StdinWindow
	sent := make(chan error, 1)
	go func() { // ends with what there is to say
		err := c.Resize(Size{80, 24})
		if err == nil {
			err = c.Stdin(t.Context(), bytes.Repeat([]byte("x"), size))
		}
		if err == nil {
			err = c.CloseStdin()
		}
		sent <- err
	}()
	got := map[byte]int{}
	text := ""
	code, err := c.Wait(func(channel byte, p []byte) error {
		if got[channel] += len(p); channel == ChannelStderr {
			text += string(p)
		}
		return nil
	})
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err != nil || code != size/100_000 || got[ChannelStdout] != size || text != "80 by 24" {
		t.Errorf("%v, %q, exit %d, %v", got, text, code, err)
	}
	if err := c.Stdin(t.Context(), []byte("late")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("input after the end: %v", err)
	}
}

func TestCommandFails(t *testing.T) {
	c := exchange(t, func(context.Context, Input, io.Writer, io.Writer) (int, error) {
		return 0, models.Errorf(models.KindConflict, "it does not run %s", strings.Repeat("\x01", 2*MaxFrame))
	})
	if _, err := c.Wait(nil); models.KindOf(err) != models.KindConflict || !strings.HasPrefix(err.Error(), "it does not run") {
		t.Errorf("%.100v", err)
	}
	near, far := net.Pipe()
	_ = far.Close()
	if _, err := NewCommand(near).Wait(nil); models.KindOf(err) != models.KindUnavailable || !strings.Contains(err.Error(), "was lost") {
		t.Errorf("a connection that is lost: %v", err)
	}
	_ = near.Close()
}

// TestLeft: a command is ended when its asker goes, also while it takes no input and
// nobody takes its output.
func TestLeft(t *testing.T) {
	for what, run := range map[string]func(ctx context.Context, in Input, stdout io.Writer) error{
		"idle": func(ctx context.Context, _ Input, _ io.Writer) error { <-ctx.Done(); return ctx.Err() },
		"talking": func(_ context.Context, _ Input, stdout io.Writer) error {
			_, err := io.Copy(stdout, endless{})
			return err
		},
		"hearing": func(_ context.Context, in Input, _ io.Writer) error {
			_, err := io.Copy(io.Discard, in.Stdin)
			return err
		},
	} {
		began, ended := make(chan struct{}), make(chan error, 1)
		c := exchange(t, func(ctx context.Context, in Input, stdout, _ io.Writer) (int, error) {
			close(began)
			err := run(ctx, in, stdout)
			ended <- err
			return 0, err
		})
		<-began
		fed := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // ends with ctx, or the command
			defer close(fed)
			if what == "idle" { // fills the window
				_ = c.Stdin(ctx, make([]byte, 2*StdinWindow))
			}
		}()
		if what == "idle" {
			for !c.blocked() {
				time.Sleep(time.Millisecond) //sleep: nothing tells that the window is full
			}
		}
		_ = c.Close()
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("%s: it ended as if all were well", what)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it was not ended", what)
		}
		cancel()
		<-fed
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestRules: who sends more input than may be on its way, or what is no frame, loses
// the command.
func TestRules(t *testing.T) {
	frame := func(channel byte, n int) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{channel}, uint32(n)), make([]byte, n)...)
	}
	for what, text := range map[string][]byte{
		"too much input":   bytes.Repeat(frame(ChannelStdin, MaxFrame), StdinWindow/MaxFrame+1),
		"too long a frame": frame(ChannelStdin, MaxFrame+1),
		"what is no size":  frame(ChannelResize, 3),
		"no such channel":  frame(77, 0),
		"the node's own":   frame(ChannelStdout, 1),
	} {
		near, far := net.Pipe()
		served := make(chan error, 1)
		go func() { // ends with the pipe
			served <- ServeCommand(t.Context(), far, func(ctx context.Context, _ Input, _, _ io.Writer) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		}()
		go func() { // ends with the pipe
			_, _ = near.Write(text)
		}()
		if err := <-served; !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
		_, _ = near.Close(), far.Close()
	}
}

// TestSlowReader: what nobody takes is not gathered.
func TestSlowReader(t *testing.T) {
	near, far := net.Pipe()
	var said atomic.Int64
	served := make(chan error, 1)
	go func() { // ends with the pipe
		served <- ServeLog(t.Context(), far, func(_ context.Context, w io.Writer) error {
			block := make([]byte, 4<<10)
			for {
				if _, err := w.Write(block); err != nil {
					return err
				}
				said.Add(int64(len(block)))
			}
		})
	}()
	taken, enough := 0, errors.New("enough")
	if err := CopyLog(near, func(p []byte) error {
		if taken += len(p); said.Load()-int64(taken) > MaxFrame {
			t.Errorf("%d bytes were said and %d taken", said.Load(), taken)
		}
		if taken > 1<<20 {
			return enough
		}
		return nil
	}); !errors.Is(err, enough) {
		t.Error(err)
	}
	_ = near.Close()
	if err := <-served; err == nil {
		t.Error("it ended as if all had been taken")
	}
}

func TestLog(t *testing.T) {
	for what, end := range map[string]error{"well": nil, "badly": models.Errorf(models.KindUnavailable, "no engine")} {
		near, far := net.Pipe()
		go func() { // ends with the pipe
			_ = ServeLog(t.Context(), far, func(_ context.Context, w io.Writer) error {
				fmt.Fprint(w, "hello\n")
				return end
			})
			_ = far.Close()
		}()
		var got strings.Builder
		err := CopyLog(near, func(p []byte) error { got.Write(p); return nil })
		if got.String() != "hello\n" || models.KindOf(err) != models.KindOf(end) {
			t.Errorf("%s: %q, %v", what, got.String(), err)
		}
		_ = near.Close()
	}
}

// TestLineReader reads a log that breaks off at each of its bytes.
func TestLineReader(t *testing.T) {
	log := []string{"2026-01-01T00:00:01Z a", "2026-01-01T00:00:01Z b", "2026-01-01T00:00:01Z b", "2026-01-01T00:00:02.5Z c d", "2026-01-01T00:00:03Z ", "no time", "2026-01-01T00:00:04Z e"}
	want := "a|b|b|c d||no time|e|"
	whole := strings.Join(log, "\n") + "\n"
	for cut := range len(whole) {
		var l LineReader
		got := ""
		for i, part := range []string{whole[:cut], whole} {
			since := l.Since()
			l.Begin()
			for _, line := range strings.Split(part[:strings.LastIndexByte("\n"+part, '\n')], "\n") {
				if line == "" {
					continue
				}
				var at time.Time
				if text, _, ok := strings.Cut(line, " "); ok {
					at, _ = time.Parse(time.RFC3339Nano, text)
				}
				if at.IsZero() && i == 1 && strings.Contains(got, "no time") || !at.IsZero() && at.Before(since) {
					continue // as the node leaves it out
				}
				if _, rest, isNew := l.Line([]byte(line)); isNew {
					got += string(rest) + "|"
				}
			}
		}
		if got != want {
			t.Errorf("cut after %d: %s", cut, got)
		}
	}
}

// bridge serves a command over a WebSocket.
func bridge(t *testing.T, ended chan<- string, run func(ctx context.Context, in Input, stdout, stderr io.Writer) (int, error)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, stdout, stderr, err := ParseExec(r.URL.Query())
		if err == nil {
			err = CheckUpgrade(r)
		}
		if err != nil {
			http.Error(w, err.Error(), models.KindOf(err).Status())
			return
		}
		Bridge(r.Context(), w, r, q, stdout, stderr, exchange(t, run), func(code int, err error) { ended <- fmt.Sprint(code, " ", err) })
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestBridge(t *testing.T) {
	ended := make(chan string, 1)
	url := bridge(t, ended, func(ctx context.Context, in Input, stdout, stderr io.Writer) (int, error) {
		fmt.Fprint(stderr, "begun")
		text, err := io.ReadAll(in.Stdin)
		switch {
		case err != nil:
			return 0, err
		case string(text) == "fail":
			return 0, models.Errorf(models.KindUnavailable, "the engine is gone")
		case string(text) == "wait":
			<-ctx.Done()
			return 0, ctx.Err()
		}
		_, _ = stdout.Write(text)
		return len(text), nil
	})
	dial := func(protocols ...string) *websocket.Conn {
		t.Helper()
		ws, _, err := websocket.Dial(t.Context(), url+"?command=x&stdin=true", &websocket.DialOptions{Subprotocols: protocols})
		if err != nil {
			t.Fatal(err)
		}
		return ws
	}
	for _, c := range []struct {
		in, out string
		code    int
		err     string
	}{{"hello", "hello", 5, "<nil>"}, {"", "", 0, "<nil>"}, {"fail", "", 0, "the engine is gone"}} {
		var out, errs bytes.Buffer
		code, err := Call(t.Context(), dial(ProtocolV4, ProtocolV5), Terminal{Stdin: strings.NewReader(c.in), Stdout: &out, Stderr: &errs})
		if code != c.code || fmt.Sprint(err) != c.err || out.String() != c.out || errs.String() != "begun" {
			t.Errorf("%q: %q, %q, exit %d, %v", c.in, out.String(), errs.String(), code, err)
		}
		if got := <-ended; !strings.HasPrefix(got, fmt.Sprint(c.code)) {
			t.Errorf("%q ended with %s", c.in, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Call(ctx, dial(ProtocolV5), Terminal{Stdin: strings.NewReader("wait"), Stdout: io.Discard, Stderr: writer(cancel)}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who leaves: %v", err)
	}
	if got := <-ended; !strings.Contains(got, ErrCallerLeft.Error()) {
		t.Errorf("a caller who left: %s", got)
	}
	for what, message := range map[string][]byte{"a channel that is none": {9}, "what is no size": {4, 'x'}} {
		ws := dial(ProtocolV5)
		if err := ws.Write(t.Context(), websocket.MessageBinary, message); err != nil {
			t.Fatal(err)
		}
		for {
			if _, _, err := ws.Read(t.Context()); err != nil {
				if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
					t.Errorf("%s: %v", what, err)
				}
				break
			}
		}
		<-ended
		_ = ws.CloseNow()
	}
	for _, header := range []http.Header{{}, {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", url+"?command=x", nil)
		req.Header = header
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _ = res.Body.Close(); res.StatusCode != 400 {
			t.Errorf("%v: %s", header, res.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

type writer func()

func (w writer) Write(p []byte) (int, error) { w(); return len(p), nil }

func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x02hi\x03\x00\x00\x00\x02{}"))
	f.Add([]byte("\x03\x00\x00\x00\x1d{\"problem\":{\"status\":409}}    "))
	f.Add([]byte("\x06\x00\x00\x00\x04\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := 0
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() { // ends with the pipe
			defer close(done)
			_, _ = far.Write(text)
			_ = far.Close()
		}()
		c := NewCommand(near)
		_, _ = c.Wait(func(_ byte, p []byte) error {
			if n += len(p); n > len(text) {
				t.Errorf("%d bytes of %d", n, len(text))
			}
			return nil
		})
		_ = near.Close()
		<-done
		if c.credit < 0 || c.credit > StdinWindow {
			t.Errorf("credit %d", c.credit)
		}
	})
}
