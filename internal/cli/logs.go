package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/internal/podstream"
	"github.com/whimbrel-edge/whimbrel/models"
)

func logsCommand() *cobra.Command {
	var conn connection
	o := client.LogOptions{Tail: -1}
	var since, stream string
	var all bool
	cmd := &cobra.Command{
		Use:     "logs APP",
		GroupID: GroupObjects,
		Short:   "Show what an app says",
		Long: `Shows what the container of an app says since it was started. APP names an app, of whose pods a ready one is chosen, or a pod;
deployment/NAME, ds/NAME, sts/NAME and pod/NAME say which.

With -f it goes on, until Ctrl-C or the pod's end: also when the container is started again, when the pod is brought to
a new revision, and when the connection to its node breaks. Nothing is shown twice then, nor left out that the node keeps.`,
		Example: `  whimbrel logs web
  whimbrel logs web -f --tail 20
  whimbrel logs pod/web-1 -c sidecar --since 5m --timestamps
  whimbrel logs web --all -f
  whimbrel logs web --previous
  whimbrel logs web --revision 3`,
		Args:              arguments(1, 1, "the name of an app"),
		ValidArgsFunction: conn.completeApp(),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Since, o.SinceTime, err = parseSince(since); err != nil {
				return err
			}
			switch stream {
			case "":
			case "stdout":
				o.Stream = "Stdout"
			case "stderr":
				o.Stream = "Stderr"
			default:
				return Usagef("--stream must be stdout or stderr, got %q", stream)
			}
			switch {
			case cmd.Flags().Changed("tail") && o.Tail < -1:
				return Usagef("--tail must be a number of lines, or -1 for all")
			case cmd.Flags().Changed("revision") && o.Revision < 1:
				return Usagef("--revision must be a revision's number, as rollout history shows them")
			case o.Previous && o.Follow:
				return Usagef("--previous cannot be followed: it has ended")
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				a, err := conn.findApp(ctx, h, args[0])
				if err != nil {
					return err
				}
				err = showLogs(ctx, cmd, h, a, o, all)
				if interrupted(ctx, err) && o.Follow {
					return nil
				}
				return err
			})
		},
	}
	conn.addFlags(cmd)
	f := cmd.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on with what it says from now on")
	f.IntVar(&o.Tail, "tail", -1, "only the last so many lines of what there is")
	f.StringVar(&since, "since", "", "only what it said since then: how long ago, such as 5m, or a time such as 2026-01-02T15:04:05Z")
	f.StringVarP(&o.Container, "container", "c", "", "container of the pod (default: the first)")
	f.BoolVarP(&o.Previous, "previous", "p", false, "what it said in its life before, which has ended")
	f.Int64Var(&o.Revision, "revision", 0, "of the pod's containers those of this revision (default: the one that serves)")
	f.BoolVar(&o.Timestamps, "timestamps", false, "begin lines with their time, by the node's clock")
	f.StringVar(&stream, "stream", "", "only stdout, or only stderr")
	f.BoolVar(&all, "all", false, "of all pods of the app; lines begin with the pod's name")
	return cmd
}

func parseSince(text string) (time.Duration, time.Time, error) {
	if text == "" {
		return 0, time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return 0, at, nil
	}
	d, err := models.ParseDuration(strings.TrimPrefix(text, "-"))
	if err != nil || d <= 0 {
		return 0, time.Time{}, Usagef("--since must be how long ago, such as 5m or 7d, or a time such as 2026-01-02T15:04:05Z, got %q", text)
	}
	return d, time.Time{}, nil
}

// showLogs shows the log of one pod, or of all.
func showLogs(ctx context.Context, cmd *cobra.Command, h hub, a app, o client.LogOptions, all bool) error {
	says := &teller{w: cmd.ErrOrStderr()}
	if !all {
		p := a.one(says)
		o.Container = container(says, p, o.Container)
		if u := podStatus(p).Update; u != nil && o.Revision == 0 {
			fmt.Fprintf(says, "Revision %d is being brought up in its place: see it with --revision %d.\n", u.Revision, u.Revision)
		}
		l := podLog{h: h, pod: p, o: o, out: cmd.OutOrStdout(), says: says}
		return l.show(ctx)
	}
	out := &teller{w: cmd.OutOrStdout()}
	errs := make([]error, len(a.pods))
	var wait sync.WaitGroup
	for i, p := range a.pods {
		o := o
		o.Container = container(says, p, o.Container)
		l := podLog{h: h, pod: p, o: o, out: out, says: says, prefix: p.Metadata.Name + "  "}
		wait.Go(func() {
			if errs[i] = l.show(ctx); errs[i] != nil && ctx.Err() == nil {
				fmt.Fprintf(says, "%s: %v\n", p.Metadata.Name, errs[i])
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
		return failed // each has said why
	}
	return ctx.Err()
}

// teller is a writer for several goroutines.
type teller struct {
	mu sync.Mutex
	w  io.Writer
}

func (t *teller) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.w.Write(p)
}

// podLog shows the log of one pod.
type podLog struct {
	h      hub
	pod    *models.Pod
	o      client.LogOptions
	out    io.Writer // each Write is of whole lines, where that can be
	says   io.Writer // what is not the log
	prefix string    // of each line
}

// goOn is how a log that broke off is taken up again.
var goOn = backoff.Policy{Min: 250 * time.Millisecond, Max: 15 * time.Second, Factor: 2, Jitter: 0.5}

func (l *podLog) show(ctx context.Context) error {
	meta := l.pod.Metadata
	if !l.o.Follow && l.prefix == "" {
		body, err := l.h.PodLog(ctx, meta.Namespace, meta.Name, l.o)
		if err != nil {
			return err
		}
		defer body.Close()
		if _, err := io.Copy(l.out, body); err != nil {
			return brokeOff(ctx, err)
		}
		return nil
	}
	pause, err := backoff.New(goOn, rand.Float64)
	if err != nil {
		return err
	}
	var lines podstream.LineReader
	o, began, told := l.o, false, false
	o.Timestamps = true // to know where to go on
	for {
		body, err := l.h.PodLog(ctx, meta.Namespace, meta.Name, o)
		if err == nil {
			if told {
				fmt.Fprintf(l.says, "The log of pod %s goes on.\n", meta.Name)
			}
			began, told = true, false
			opened := time.Now()
			lines.Begin()
			err = l.copy(body, &lines)
			_ = body.Close()
			if err == nil {
				return nil
			}
			if time.Since(opened) > goOn.Max {
				pause.Reset()
			}
			if lines.Since().IsZero() && o.Tail >= 0 { // nothing came: what there was before was not wanted
				o.Tail, o.Since, o.SinceTime = -1, 0, opened.Add(-time.Second)
			}
		}
		var own outError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &own):
			return own.error
		case !l.o.Follow && began:
			return brokeOff(ctx, err)
		case !began || !mayPass(err):
			return err
		}
		if !told {
			fmt.Fprintf(l.says, "The log of pod %s broke off; it goes on when its node can be reached. %s\n", meta.Name, reason(err))
			told = true
		}
		if at := lines.Since(); !at.IsZero() {
			o.Tail, o.Since, o.SinceTime = -1, 0, at
		}
		if err := pause.Wait(ctx); err != nil {
			return err
		}
	}
}

// brokeOff is the error of a log that did not come to its end.
func brokeOff(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return models.Errorf(models.KindUnavailable, "the log broke off before its end: the connection to the node was lost, or its engine failed")
	}
	return err
}

// mayPass reports whether what ended a log may pass by itself.
func mayPass(err error) bool {
	var e *models.Error
	if !errors.As(err, &e) {
		return true // the connection's
	}
	switch e.Kind {
	case models.KindUnavailable, models.KindTimeout, models.KindTooMany, models.KindInternal, models.KindRefused:
		return true
	}
	return false
}

func reason(err error) string {
	var e *models.Error
	if errors.As(err, &e) {
		return "(" + e.Detail + ")"
	}
	return "(the connection to the hub, or the hub's to the node, was lost)"
}

// outError is of where the log is shown, not of where it comes from.
type outError struct{ error }

// copy shows lines until the log ends, nil, or breaks off. Half a line at a break is
// not shown: it comes again.
func (l *podLog) copy(body io.Reader, lines *podstream.LineReader) error {
	in := bufio.NewReaderSize(body, 64<<10)
	var buf []byte
	inside := false // a line that is longer than the buffer, of which a part was shown
	drop := false   // and that is not to be
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF): // the last line may have no end
		case err != nil:
			if inside && !drop {
				buf = append(buf, '\n')
				lines.Undo() // it comes again, whole
			}
			if _, err := l.out.Write(buf); err != nil {
				return outError{err}
			}
			return err
		}
		whole := bytes.HasSuffix(line, []byte("\n"))
		if len(line) > 0 && !inside {
			at, rest, isNew := lines.Line(line)
			if drop = !isNew; isNew {
				buf = append(buf, l.prefix...)
				if l.o.Timestamps && at != nil {
					buf = append(append(buf, at...), ' ')
				}
				buf = append(buf, rest...)
			}
		} else if !drop {
			buf = append(buf, line...)
		}
		inside = len(line) > 0 && !whole
		ended := errors.Is(err, io.EOF)
		if ended && inside && !drop && l.prefix != "" {
			buf = append(buf, '\n')
		}
		if in.Buffered() == 0 || ended || len(buf) > 32<<10 {
			if _, err := l.out.Write(buf); err != nil {
				return outError{err}
			}
			buf = buf[:0]
		}
		if ended {
			return nil
		}
	}
}

// PodLog implements hub.
func (r remote) PodLog(ctx context.Context, namespace, name string, o client.LogOptions) (io.ReadCloser, error) {
	return r.c.PodLog(ctx, namespace, name, o)
}
