package cloudapitest

import (
	"context"
	"net"

	"github.com/whimbrel-edge/whimbrel/internal/appproxy"
	"github.com/whimbrel-edge/whimbrel/models"
)

// ServeService makes what listens at an address the app behind a Service.
func (h *Hub) ServeService(namespace, name, addr string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.services == nil {
		h.services = map[models.Key]string{}
	}
	h.services[models.Key{Kind: "Service", Namespace: namespace, Name: name}] = addr
}

// DialService implements cloudapi.Services. Every node has every Service.
func (h *Hub) DialService(ctx context.Context, node, namespace, name, _, _ string) (net.Conn, error) {
	h.mu.Lock()
	addr := h.services[models.Key{Kind: "Service", Namespace: namespace, Name: name}]
	known := node == "" || h.objects[models.Key{Kind: "Node", Name: node}] != nil
	h.mu.Unlock()
	if addr == "" {
		return nil, models.Errorf(models.KindNotFound, "there is no service %s in namespace %s", name, namespace)
	}
	if !known {
		return nil, models.Errorf(models.KindNotFound, "there is no node %s", node)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// ServicePlace implements cloudapi.Services: nothing is kept.
func (h *Hub) ServicePlace(_, _, _, _, _ string) (appproxy.Place, bool) {
	return appproxy.Place{}, false
}
