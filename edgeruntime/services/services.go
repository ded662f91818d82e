// Package services reaches the apps of an edge by the Services that select them.
// A connection goes to one of the ready pods on this node: to the one that has the
// fewest, and among equals to each in turn.
//
// What comes to it: requests of the hub's users over the second connection, of
// who is beside the edge over the local REST, and of routes.
//
// Only edgeruntime imports it.
package services

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/workload"
	"github.com/whimbrel-edge/whimbrel/internal/appproxy"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
)

// KindService is the kind of the items that this package takes.
const KindService = "Service"

// dialTimeout bounds a connection to a pod, which is on this machine.
const dialTimeout = 5 * time.Second

// Pods finds pods. *workload.Manager does.
type Pods interface {
	Backends(namespace string, selector map[string]string) []workload.Backend
}

type key struct{ namespace, name string }

// Services is the table of Services. Its methods may be called from any goroutine.
type Services struct {
	pods Pods
	log  *slog.Logger

	mu    sync.Mutex
	table map[key]*models.ServiceSpec
	open  map[string]int // connections by pod's host and port
	turn  uint           // counts connections
}

// New returns a table without Services.
func New(pods Pods, log *slog.Logger) *Services {
	return &Services{pods: pods, log: log, table: map[key]*models.ServiceSpec{}, open: map[string]int{}}
}

// Apply says what the hub wants, all of it.
func (s *Services) Apply(items []store.Item) {
	table := map[key]*models.ServiceSpec{}
	for _, i := range items {
		if i.Kind != KindService {
			continue
		}
		var o models.Service
		if err := json.Unmarshal(i.JSON, &o); err != nil {
			s.log.Error("a Service cannot be read; it is left out", "namespace", i.Namespace, "name", i.Name, "error", err)
			continue
		}
		o.Default()
		table[key{i.Namespace, i.Name}] = &o.Spec
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table = table
}

// addresses returns where a Service's port is, the best first; of one pod only when
// it is named.
func (s *Services) addresses(namespace, name, port, pod string) ([]string, error) {
	s.mu.Lock()
	spec := s.table[key{namespace, name}]
	s.mu.Unlock()
	if spec == nil {
		return nil, models.Errorf(models.KindUnavailable, "this node has no pods of a service %s in namespace %s", name, namespace)
	}
	target, err := appproxy.ServicePort(spec, port)
	if err != nil {
		return nil, err
	}
	var out []string
	unnamed := ""
	for _, b := range s.pods.Backends(namespace, spec.Selector) {
		if pod != "" && pod != b.Pod {
			continue
		}
		number := target.Number
		if target.Name != "" {
			if number = b.Ports[target.Name]; number == 0 {
				unnamed = b.Pod
				continue
			}
		}
		out = append(out, net.JoinHostPort(b.Host, strconv.Itoa(int(number))))
	}
	if len(out) == 0 && unnamed != "" {
		return nil, models.Errorf(models.KindUnavailable, "no container of pod %s names a port %q, which is the targetPort of service %s", unnamed, target.Name, name)
	}
	if len(out) == 0 && pod != "" {
		return nil, models.Errorf(models.KindUnavailable, "pod %s of service %s is not ready on this node", pod, name)
	}
	if len(out) == 0 {
		return nil, models.Errorf(models.KindUnavailable, "service %s has no ready pod on this node", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn++
	first := int(s.turn % uint(len(out)))
	out = append(out[first:], out[:first]...)
	slices.SortStableFunc(out, func(a, b string) int { return cmp.Compare(s.open[a], s.open[b]) })
	return out, nil
}

// Dial connects to a port of a Service: its name or number, "" for the first.
// KindUnavailable: there is no ready pod here. KindRefused: there is, and its port
// takes no connections. KindTimeout: nor does it say so.
func (s *Services) Dial(ctx context.Context, namespace, name, port string) (net.Conn, error) {
	return s.dial(ctx, bulk.ServiceTarget{Namespace: namespace, Name: name, Port: port})
}

func (s *Services) dial(ctx context.Context, to bulk.ServiceTarget) (net.Conn, error) {
	name := to.Name
	addresses, err := s.addresses(to.Namespace, name, to.Port, to.Pod)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	for _, addr := range addresses {
		var conn net.Conn
		if conn, err = dialer.DialContext(ctx, "tcp", addr); err == nil {
			return s.count(conn, addr), nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, context.Cause(ctx)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, models.Errorf(models.KindRefused, "no pod of service %s takes connections on its port: is that what the app listens on?", name)
	case ctx.Err() != nil:
		return nil, models.Errorf(models.KindTimeout, "the pods of service %s did not take a connection in %s", name, dialTimeout)
	}
	return nil, models.Errorf(models.KindRefused, "the pods of service %s cannot be connected to: %v", name, err)
}

// counted is a connection that counts as open.
type counted struct {
	net.Conn
	once sync.Once
	done func()
}

func (c *counted) Close() error {
	c.once.Do(c.done)
	return c.Conn.Close()
}

func (s *Services) count(conn net.Conn, addr string) net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[addr]++
	return &counted{Conn: conn, done: func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[addr]--; s.open[addr] <= 0 {
			delete(s.open, addr)
		}
	}}
}

// Do implements routes.Services: it sends a request to a ready pod of a Service on
// this node and returns its answer. The request's URL has a path and a query only.
func (s *Services) Do(ctx context.Context, namespace, name string, r *http.Request) (*http.Response, error) {
	return appproxy.Send(r.WithContext(ctx), appproxy.Target{Namespace: namespace, Name: name}, func(ctx context.Context) (net.Conn, error) {
		return s.Dial(ctx, namespace, name, "")
	})
}

// Stream is a bulk.Handler: it connects a stream of the hub's with a pod.
func (s *Services) Stream(ctx context.Context, h bulk.Header, stream *bulk.Stream) error {
	var to bulk.ServiceTarget
	if err := json.Unmarshal(h.Body, &to); err != nil {
		return models.Errorf(models.KindMalformed, "the hub's request cannot be read: %v", err)
	}
	conn, err := s.dial(ctx, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := stream.Accept(); err != nil {
		return fmt.Errorf("answer the hub: %w", err)
	}
	bulk.Splice(stream, conn)
	return nil
}
