// Package attach lets people look into the pods of an edge: it reads what their
// containers say and runs commands in them, for the hub's users over the second
// connection, and for who is beside the edge over the local REST.
//
// Only edgeruntime imports it.
package attach

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"sync"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/internal/podstream"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
)

// How many of each may go on at a time on a node. More are refused with
// KindTooMany, so that those who read logs leave streams to those who ask apps.
const (
	MaxLogs     = 32
	MaxCommands = 16
)

// Pods are what is looked into. *workload.Manager is them.
type Pods interface {
	// OpenLog refuses, or returns what calls emit with what a container says.
	OpenLog(r podstream.LogRequest) (read func(ctx context.Context, emit func(engine.LogEntry) error) error, err error)
	// OpenExec refuses, or returns what runs the command of r.
	OpenExec(r podstream.ExecRequest) (run func(context.Context, engine.ExecSpec) (exitCode int, err error), err error)
}

// Desk serves who looks into pods. Its methods may be called from any goroutine.
type Desk struct {
	pods     Pods
	log      *slog.Logger
	logs     chan struct{} // holds a token for each that is read
	commands chan struct{} // and for each that runs
}

// New returns a Desk for pods.
func New(pods Pods, log *slog.Logger) *Desk {
	return &Desk{pods: pods, log: log, logs: make(chan struct{}, MaxLogs), commands: make(chan struct{}, MaxCommands)}
}

// take takes a token of those that there are.
func take(tokens chan struct{}, what string) (release func(), err error) {
	select {
	case tokens <- struct{}{}:
		return func() { <-tokens }, nil
	default:
		return nil, models.Errorf(models.KindTooMany, "%d %s at this node already", cap(tokens), what)
	}
}

// StreamLogs is a bulk.Handler: it serves a log to a user of the hub.
func (d *Desk) StreamLogs(ctx context.Context, h bulk.Header, s *bulk.Stream) error {
	var r podstream.LogRequest
	if err := json.Unmarshal(h.Body, &r); err != nil {
		return models.Errorf(models.KindMalformed, "the hub's request cannot be read: %v", err)
	}
	return d.ServeLog(ctx, r, func() (net.Conn, error) { return s, s.Accept() })
}

// StreamExec is a bulk.Handler: it runs a command for a user of the hub.
func (d *Desk) StreamExec(ctx context.Context, h bulk.Header, s *bulk.Stream) error {
	var r podstream.ExecRequest
	if err := json.Unmarshal(h.Body, &r); err != nil {
		return models.Errorf(models.KindMalformed, "the hub's request cannot be read: %v", err)
	}
	if len(r.Command) == 0 {
		return models.Errorf(models.KindMalformed, "the hub's request names no command")
	}
	d.log.Info("a command is run in a pod", "namespace", r.Namespace, "pod", r.Pod, "container", r.Container, "program", r.Command[0], "traceparent", h.Trace)
	return d.ServeExec(ctx, r, func() (net.Conn, error) { return s, s.Accept() })
}

// ServeLog reads a log into the connection that begin returns, as podstream.ServeLog
// has it. It returns an error without having called begin when it refuses.
func (d *Desk) ServeLog(ctx context.Context, r podstream.LogRequest, begin func() (net.Conn, error)) error {
	release, err := take(d.logs, "logs are being read")
	if err != nil {
		return err
	}
	defer release()
	read, err := d.pods.OpenLog(r)
	if err != nil {
		return err
	}
	conn, err := begin()
	if err != nil {
		return err
	}
	return podstream.ServeLog(ctx, conn, func(ctx context.Context, w io.Writer) error {
		g := gather(w)
		t := text{to: g, timestamps: r.Timestamps}
		err := read(ctx, t.entry)
		if closed := g.Close(); err == nil {
			err = closed
		}
		return err
	})
}

// ServeExec runs a command over the connection that begin returns, as
// podstream.ServeCommand has it. It returns an error without having called begin
// when it refuses.
func (d *Desk) ServeExec(ctx context.Context, r podstream.ExecRequest, begin func() (net.Conn, error)) error {
	release, err := take(d.commands, "commands are running")
	if err != nil {
		return err
	}
	defer release()
	run, err := d.pods.OpenExec(r)
	if err != nil {
		return err
	}
	conn, err := begin()
	if err != nil {
		return err
	}
	return podstream.ServeCommand(ctx, conn, func(ctx context.Context, in podstream.Input, stdout, stderr io.Writer) (int, error) {
		spec := engine.ExecSpec{Command: r.Command, TTY: r.TTY, Stdout: stdout, Stderr: stderr}
		if r.Stdin {
			spec.Stdin = in.Stdin
		}
		var wait sync.WaitGroup
		defer wait.Wait()
		done := make(chan struct{})
		defer close(done)
		if r.TTY {
			sizes := make(chan engine.Size)
			spec.Resize = sizes
			wait.Go(func() {
				for {
					select {
					case s := <-in.Resize:
						select {
						case sizes <- engine.Size{Columns: s.Columns, Rows: s.Rows}:
						case <-done:
							return
						}
					case <-done:
						return
					}
				}
			})
		}
		return run(ctx, spec)
	})
}

// text writes a log's entries as lines. A line that the engine has cut, and into
// which the other stream breaks, is two: so each line begins with its time, where
// times are wanted. Belongs to one goroutine.
type text struct {
	to         io.Writer
	timestamps bool
	buf        []byte        // of one entry
	open       engine.Stream // the stream of the line that has not ended yet
}

func (t *text) entry(e engine.LogEntry) error {
	t.buf = t.buf[:0]
	if t.open != 0 && t.open != e.Stream {
		t.buf = append(t.buf, '\n')
		t.open = 0
	}
	if t.open == 0 && t.timestamps {
		t.buf = append(e.Time.AppendFormat(t.buf, timeFormat), ' ')
	}
	t.buf = append(t.buf, e.Data...)
	t.open = e.Stream
	if n := len(e.Data); n > 0 && e.Data[n-1] == '\n' {
		t.open = 0
	}
	_, err := t.to.Write(t.buf)
	return err
}

// timeFormat has always nine digits, so that lines are aligned.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"
