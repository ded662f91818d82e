package attach

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/internal/podstream"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestText(t *testing.T) {
	at := func(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 5, time.UTC) }
	entries := []engine.LogEntry{
		{Time: at(1), Stream: engine.Stdout, Data: []byte("one\n")},
		{Time: at(2), Stream: engine.Stdout, Data: []byte("a long ")},
		{Time: at(2), Stream: engine.Stdout, Data: []byte("line, ")},
		{Time: at(3), Stream: engine.Stderr, Data: []byte("broken\n")},
		{Time: at(2), Stream: engine.Stdout, Data: []byte("into\n")},
		{Time: at(4), Stream: engine.Stdout, Data: []byte("the end")},
	}
	for timestamps, want := range map[bool]string{
		false: "one\na long line, \nbroken\ninto\nthe end",
		true: "2026-01-01T00:00:01.000000005Z one\n2026-01-01T00:00:02.000000005Z a long line, \n2026-01-01T00:00:03.000000005Z broken\n" +
			"2026-01-01T00:00:02.000000005Z into\n2026-01-01T00:00:04.000000005Z the end",
	} {
		var out strings.Builder
		text := text{to: &out, timestamps: timestamps}
		for _, e := range entries {
			if err := text.entry(e); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
}

// pods are some that say and do one thing.
type pods struct {
	read func(context.Context, func(engine.LogEntry) error) error
	run  func(context.Context, engine.ExecSpec) (int, error)
	err  error
}

func (p pods) OpenLog(podstream.LogRequest) (func(context.Context, func(engine.LogEntry) error) error, error) {
	return p.read, p.err
}

func (p pods) OpenExec(podstream.ExecRequest) (func(context.Context, engine.ExecSpec) (int, error), error) {
	return p.run, p.err
}

func TestRefused(t *testing.T) {
	d := New(pods{err: models.Errorf(models.KindConflict, "it does not run")}, slog.New(slog.DiscardHandler))
	begin := func() (net.Conn, error) { t.Error("it begins"); return nil, errors.New("no") }
	if err := d.ServeLog(t.Context(), podstream.LogRequest{}, begin); models.KindOf(err) != models.KindConflict {
		t.Error(err)
	}
	if err := d.ServeExec(t.Context(), podstream.ExecRequest{}, begin); models.KindOf(err) != models.KindConflict {
		t.Error(err)
	}
}

// TestBounds: there are so many at a time, and no more.
func TestBounds(t *testing.T) {
	wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	d := New(pods{read: func(ctx context.Context, _ func(engine.LogEntry) error) error { return wait(ctx) },
		run: func(ctx context.Context, _ engine.ExecSpec) (int, error) { return 0, wait(ctx) }}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, MaxLogs+MaxCommands)
	began := make(chan struct{}, MaxLogs+MaxCommands)
	begin := func() (net.Conn, error) {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = near.Close() })
		began <- struct{}{}
		return far, nil
	}
	for range MaxLogs {
		go func() { ended <- d.ServeLog(ctx, podstream.LogRequest{}, begin) }() // ends with ctx
	}
	for range MaxCommands {
		go func() { ended <- d.ServeExec(ctx, podstream.ExecRequest{TTY: true}, begin) }() // ends with ctx
	}
	for range MaxLogs + MaxCommands {
		<-began
	}
	if err := d.ServeLog(ctx, podstream.LogRequest{}, begin); models.KindOf(err) != models.KindTooMany {
		t.Errorf("one more log: %v", err)
	}
	if err := d.ServeExec(ctx, podstream.ExecRequest{}, begin); models.KindOf(err) != models.KindTooMany {
		t.Errorf("one more command: %v", err)
	}
	cancel()
	for range MaxLogs + MaxCommands {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}
}

func TestExec(t *testing.T) {
	d := New(pods{run: func(_ context.Context, e engine.ExecSpec) (int, error) {
		s := <-e.Resize
		text, err := io.ReadAll(e.Stdin)
		_, _ = e.Stdout.Write(text)
		return int(s.Rows), err
	}}, slog.New(slog.DiscardHandler))
	near, far := net.Pipe()
	defer near.Close()
	ended := make(chan error, 1)
	go func() { // ends with the pipe
		ended <- d.ServeExec(t.Context(), podstream.ExecRequest{Command: []string{"x"}, TTY: true, Stdin: true}, func() (net.Conn, error) { return far, nil })
	}()
	c := podstream.NewCommand(near)
	go func() { // ends with the pipe
		_ = c.Resize(podstream.Size{Columns: 8, Rows: 7})
		_ = c.Stdin(t.Context(), []byte("hello"))
		_ = c.CloseStdin()
	}()
	out := ""
	if code, err := c.Wait(func(_ byte, p []byte) error { out += string(p); return nil }); code != 7 || err != nil || out != "hello" {
		t.Errorf("%q, exit %d, %v", out, code, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
