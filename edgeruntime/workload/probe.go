package workload

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/models"
)

// health is what probes have found out of one life of a container. The zero one
// is of a container that nobody has looked at.
type health struct {
	started   bool   // its startup probe has succeeded
	ready     bool   // its readiness probe has
	unhealthy bool   // its startup or liveness probe has failed too often
	problem   string // what the last failure was, while one of the probes fails
}

// prober asks one life of one container how it is.
type prober struct {
	container *models.Container
	id        string // the engine's
	host      string // where its ports are
	exec      func(ctx context.Context, id string, command []string) (code int, err error)
	// found is told each change. It is called from run's goroutines, one at a time.
	found func(health)

	mu  sync.Mutex
	now health
}

// run probes until ctx ends, or the container is to be started anew.
func (p *prober) run(ctx context.Context) {
	c := p.container
	if c.StartupProbe != nil && !p.rounds(ctx, "startup", c.StartupProbe, func(ok bool, problem string) bool {
		p.set(func(h *health) { h.started, h.unhealthy, h.problem = ok, !ok, problem })
		return true
	}) {
		return
	}
	p.set(func(h *health) { h.started, h.ready = true, c.ReadinessProbe == nil })
	var wait sync.WaitGroup
	if c.ReadinessProbe != nil {
		wait.Go(func() {
			p.rounds(ctx, "readiness", c.ReadinessProbe, func(ok bool, problem string) bool {
				p.set(func(h *health) { h.ready, h.problem = ok, problem })
				return false
			})
		})
	}
	if c.LivenessProbe != nil {
		wait.Go(func() {
			p.rounds(ctx, "liveness", c.LivenessProbe, func(ok bool, problem string) bool {
				if !ok {
					p.set(func(h *health) { h.unhealthy, h.problem = true, problem })
				}
				return !ok
			})
		})
	}
	wait.Wait()
}

func (p *prober) set(change func(*health)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.now
	if p.now.unhealthy {
		return // its end is decided
	}
	if change(&p.now); p.now != before {
		p.found(p.now)
	}
}

// rounds probes again and again. verdict is told when enough results in a row
// say the same, and ends the rounds by returning true. It returns false when ctx
// has ended, or the verdict was a failure.
func (p *prober) rounds(ctx context.Context, what string, probe *models.Probe, verdict func(ok bool, problem string) bool) bool {
	wait := time.Duration(probe.InitialDelaySeconds) * time.Second
	good, bad := int32(0), int32(0)
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
		wait = time.Duration(probe.PeriodSeconds) * time.Second
		err := p.once(ctx, probe)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			good, bad = good+1, 0
			if good >= probe.SuccessThreshold && verdict(true, "") {
				return true
			}
			continue
		}
		good, bad = 0, bad+1
		if bad >= probe.FailureThreshold && verdict(false, what+" probe: "+err.Error()) {
			return false
		}
	}
}

// once probes once.
func (p *prober) once(ctx context.Context, probe *models.Probe) error {
	limit := time.Duration(probe.TimeoutSeconds) * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var err error
	switch {
	case probe.HTTPGet != nil:
		err = p.http(ctx, probe.HTTPGet)
	case probe.TCPSocket != nil:
		var conn net.Conn
		if conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", p.addr(probe.TCPSocket.Port)); err == nil {
			err = conn.Close()
		}
	case probe.Exec != nil:
		var code int
		if code, err = p.exec(ctx, p.id, probe.Exec.Command); err == nil && code != 0 {
			err = fmt.Errorf("%s: exit code %d", probe.Exec.Command[0], code)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer in %v", limit)
	}
	return err
}

// addr is where a port of the container is.
func (p *prober) addr(ref models.PortRef) string {
	number := ref.Number
	for _, port := range p.container.Ports {
		if ref.Name != "" && port.Name == ref.Name {
			number = port.ContainerPort
		}
	}
	return net.JoinHostPort(p.host, strconv.Itoa(int(number)))
}

func (p *prober) http(ctx context.Context, g *models.HTTPGet) error {
	// A client each time: a kept connection says little about whether new ones are taken.
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.ToLower(g.Scheme)+"://"+p.addr(g.Port)+g.Path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "whimbrel-probe")
	for _, h := range g.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
		}
		req.Header.Add(h.Name, h.Value)
	}
	// Redirects are not followed: 3xx is a success, and where it leads is not asked.
	answer, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 10<<10))
	_ = answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode >= 400 {
		return fmt.Errorf("GET %s: %s", g.Path, answer.Status)
	}
	return nil
}

// execIn runs a command in a container. What it says is nobody's to read but who
// may see the container's secrets, so it does not get into status, events and logs.
func execIn(e engine.Streams) func(context.Context, string, []string) (int, error) {
	return func(ctx context.Context, id string, command []string) (int, error) {
		return e.Exec(ctx, id, engine.ExecSpec{Command: command, Stdout: io.Discard, Stderr: io.Discard})
	}
}
