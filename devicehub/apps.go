package devicehub

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/appproxy"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
)

// DialService connects to a ready pod of a Service, on one node when that is not
// "". Of the nodes with ready pods one is chosen by chance, and the node chooses
// among its pods. How the node answers is known with the first Read.
func (h *Hub) DialService(ctx context.Context, node, namespace, name, port, trace string) (net.Conn, error) {
	if node != "" {
		if _, err := h.Registry.Get(ctx, models.Key{Kind: "Node", Name: node}); err != nil {
			return nil, err
		}
	}
	return h.dialService(ctx, bulk.ServiceTarget{Namespace: namespace, Name: name, Port: port}, trace, func(n string) bool { return node == "" || n == node })
}

func (h *Hub) dialService(ctx context.Context, to bulk.ServiceTarget, trace string, on func(node string) bool) (net.Conn, error) {
	if _, err := h.service(ctx, to); err != nil {
		return nil, err
	}
	var ready, live, away []string
	for _, p := range h.Registry.ServicePods(to.Namespace, to.Name) {
		switch node := p.Spec.NodeName; {
		case !on(node):
		case !h.sessions.Live(node):
			away = append(away, node)
		default:
			live = append(live, node)
			if is, _ := h.workloads.PodServes(p); is {
				ready = append(ready, node)
			}
		}
	}
	if len(ready) == 0 {
		ready = live // the node knows it better
	}
	if len(ready) == 0 {
		if len(away) > 0 {
			slices.Sort(away)
			return nil, models.Errorf(models.KindUnavailable, "service %s has no ready pod: offline are its nodes %s", to.Name, strings.Join(slices.Compact(away), ", "))
		}
		return nil, models.Errorf(models.KindUnavailable, "service %s has no pod here: is there one with the labels of its selector?", to.Name)
	}
	head, err := bulk.NewHeader(bulk.KindService, trace, to)
	if err != nil {
		return nil, err
	}
	rand.Shuffle(len(ready), func(i, j int) { ready[i], ready[j] = ready[j], ready[i] })
	return h.firstOf(ctx, unique(ready), head)
}

// service returns a Service that has the port.
func (h *Hub) service(ctx context.Context, to bulk.ServiceTarget) (*models.Service, error) {
	o, err := h.Registry.Get(ctx, models.Key{Kind: "Service", Namespace: to.Namespace, Name: to.Name})
	if err != nil {
		return nil, err
	}
	service, ok := o.(*models.Service)
	if !ok {
		return nil, fmt.Errorf("service %s is a %T", to.Name, o)
	}
	_, err = appproxy.ServicePort(&service.Spec, to.Port)
	return service, err
}

// ServicePlace chooses a pod by chance among those that are ready, for a request that
// may go over a connection that another one has left behind. false: there is none
// whose node lets pods be named.
func (h *Hub) ServicePlace(node, namespace, name, port, trace string) (appproxy.Place, bool) {
	to := bulk.ServiceTarget{Namespace: namespace, Name: name, Port: port}
	service, err := h.service(context.Background(), to)
	if err != nil {
		return appproxy.Place{}, false
	}
	pods := slices.Clone(h.Registry.ServicePods(namespace, name))
	rand.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
	for _, p := range pods {
		if node != "" && node != p.Spec.NodeName {
			continue
		}
		if ready, named := h.workloads.PodServes(p); !ready || !named {
			continue
		}
		to.Pod = p.Metadata.Name
		// What another generation of pod or Service answers is asked anew.
		key := strings.Join([]string{p.Metadata.UID, p.Metadata.ResourceVersion, service.Metadata.UID, service.Metadata.ResourceVersion, port}, "-")
		return appproxy.Place{Pool: h.kept, Key: strings.ToLower(key), Dial: func(ctx context.Context) (net.Conn, error) {
			head, err := bulk.NewHeader(bulk.KindService, trace, to)
			if err != nil {
				return nil, err
			}
			return h.sessions.Stream(ctx, p.Spec.NodeName, head)
		}}, true
	}
	return appproxy.Place{}, false
}

// unique returns each name once, where it comes first.
func unique(names []string) (out []string) {
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// otherNode is how long a node may take to say that it has connected a pod, where
// there is another one to ask.
const otherNode = 10 * time.Second

// firstOf opens a stream to the first of the nodes that connects a pod. As nothing
// of a request has been sent by then, each may be asked; the last one's answer is
// not waited for.
func (h *Hub) firstOf(ctx context.Context, nodes []string, head bulk.Header) (net.Conn, error) {
	for i, node := range nodes {
		last := i == len(nodes)-1
		stream, err := h.sessions.Stream(ctx, node, head)
		if err == nil {
			if last || answered(ctx, stream) == nil {
				return stream, nil
			}
			_ = stream.Close()
			continue
		}
		if last || ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, context.Cause(ctx) // unreachable: there is a last one
}

// answered waits for the other end to take a stream.
func answered(ctx context.Context, s *bulk.Stream) error {
	ctx, cancel := context.WithTimeout(ctx, otherNode)
	defer cancel()
	defer context.AfterFunc(ctx, s.Abort)()
	return s.Answered()
}

// streamService serves a node whose app asks a Service that has no pod there. A
// node may ask only for namespaces of which it runs pods.
func (h *Hub) streamService(ctx context.Context, node string, head bulk.Header, stream *bulk.Stream) error {
	var to bulk.ServiceTarget
	if err := json.Unmarshal(head.Body, &to); err != nil {
		return models.Errorf(models.KindMalformed, "the request cannot be read: %v", err)
	}
	if !h.Registry.RunsPodsOf(node, to.Namespace) {
		return models.Errorf(models.KindForbidden, "node %s runs nothing of namespace %s", node, to.Namespace)
	}
	conn, err := h.dialService(ctx, to, head.Trace, func(n string) bool { return n != node })
	if err != nil {
		return err
	}
	defer conn.Close()
	if s, ok := conn.(*bulk.Stream); ok {
		free := context.AfterFunc(ctx, s.Abort)
		defer free()
		if err := s.Answered(); err != nil {
			return err
		}
	}
	if err := stream.Accept(); err != nil {
		return fmt.Errorf("answer the node: %w", err)
	}
	bulk.Splice(stream, conn)
	return nil
}
