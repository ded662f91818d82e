package cloudapitest

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/podstream"
	"github.com/whimbrel-edge/whimbrel/models"
)

// playedPod is a pod as its node has it.
type playedPod struct {
	lines   []string // without their ends
	changed chan struct{}
	cut     chan struct{} // closed when the connections to it break
	away    bool
}

func (h *Hub) podLocked(namespace, name string) *playedPod {
	key := models.Key{Kind: "Pod", Namespace: namespace, Name: name}
	if h.pods == nil {
		h.pods = map[models.Key]*playedPod{}
	}
	if h.pods[key] == nil {
		h.pods[key] = &playedPod{changed: make(chan struct{}), cut: make(chan struct{})}
	}
	return h.pods[key]
}

// Say makes a pod say a line, the n-th of it at n seconds after 2026 began.
func (h *Hub) Say(namespace, name, line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.podLocked(namespace, name)
	p.lines = append(p.lines, line)
	close(p.changed)
	p.changed = make(chan struct{})
}

// CutPod breaks the connections to a pod, and with away has its node offline.
func (h *Hub) CutPod(namespace, name string, away bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.podLocked(namespace, name)
	p.away = away
	close(p.cut)
	p.cut = make(chan struct{})
}

// lookInto finds a pod and connects to it. serve learns how many lines the pod
// had said by then.
func (h *Hub) lookInto(ctx context.Context, namespace, name, container string, serve func(ctx context.Context, conn net.Conn, p *playedPod, said int)) (net.Conn, error) {
	o, err := h.Get(ctx, models.Key{Kind: "Pod", Namespace: namespace, Name: name})
	if err != nil {
		return nil, err
	}
	if _, err := podstream.Container(name, &o.(*models.Pod).Spec, container); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.podLocked(namespace, name)
	if p.away {
		return nil, models.Errorf(models.KindUnavailable, "node gw1 is offline")
	}
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cut, said := p.cut, len(p.lines)
	go func() { // ends with the connection
		defer cancel()
		serve(ctx, far, p, said)
		_ = far.Close()
	}()
	go func() { // ends with the other
		select {
		case <-cut:
			_ = far.Close()
		case <-ctx.Done():
		}
	}()
	return near, nil
}

// OpenLog implements cloudapi.Pods. What a pod says is on stdout.
func (h *Hub) OpenLog(ctx context.Context, r podstream.LogRequest, _ string) (net.Conn, error) {
	if r.Previous {
		return nil, models.Errorf(models.KindNotFound, "no earlier life of container %s of pod %s is known", r.Container, r.Pod)
	}
	return h.lookInto(ctx, r.Namespace, r.Pod, r.Container, func(ctx context.Context, conn net.Conn, p *playedPod, said int) {
		_ = podstream.ServeLog(ctx, conn, func(ctx context.Context, w io.Writer) error {
			at := 0
			if r.Tail != nil {
				at = max(0, said-*r.Tail)
			}
			for {
				h.mu.Lock()
				lines, changed := slices.Clone(p.lines), p.changed
				h.mu.Unlock()
				for ; at < len(lines); at++ {
					t := time.Date(2026, 1, 1, 0, 0, at+1, 0, time.UTC)
					if t.Before(r.Since) {
						continue
					}
					line := lines[at] + "\n"
					if r.Timestamps {
						line = t.Format(time.RFC3339Nano) + " " + line
					}
					if _, err := io.WriteString(w, line); err != nil {
						return err
					}
				}
				if !r.Follow || len(lines) > 0 && lines[len(lines)-1] == "goodbye" {
					return nil
				}
				select {
				case <-changed:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	})
}

// OpenExec implements cloudapi.Pods. A pod knows the commands cat, exit CODE, sleep,
// size and fail. What ended how is what Commands returns.
func (h *Hub) OpenExec(ctx context.Context, r podstream.ExecRequest, by, _ string) (net.Conn, func(int, error), error) {
	conn, err := h.lookInto(ctx, r.Namespace, r.Pod, r.Container, func(ctx context.Context, conn net.Conn, _ *playedPod, _ int) {
		_ = podstream.ServeCommand(ctx, conn, func(ctx context.Context, in podstream.Input, stdout, stderr io.Writer) (int, error) {
			switch r.Command[0] {
			case "cat":
				_, _ = io.Copy(stdout, in.Stdin)
			case "exit":
				fmt.Fprintln(stderr, "it exits")
				return strconv.Atoi(r.Command[1])
			case "sleep":
				fmt.Fprintln(stdout, "it sleeps")
				<-ctx.Done()
			case "size":
				s := <-in.Resize
				fmt.Fprintf(stdout, "%d by %d\r\n", s.Columns, s.Rows)
			case "fail":
				return 0, models.Errorf(models.KindRefused, "the container engine: no such thing")
			default:
				fmt.Fprintln(stdout, strings.Join(r.Command, " "))
			}
			return 0, nil
		})
	})
	if err != nil {
		return nil, nil, err
	}
	return conn, func(code int, err error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.commands = append(h.commands, fmt.Sprintf("%s: %s: %d %v", by, strings.Join(r.Command, " "), code, err))
		close(h.changed)
		h.changed = make(chan struct{})
	}, nil
}

// Commands are those that have ended, and how.
func (h *Hub) Commands() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.commands)
}
