package edgeruntime

import (
	"context"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/link"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// handlers lists what the hub may ask this edge.
func (e *Edge) handlers() map[string]link.Handler {
	return map[string]link.Handler{
		edgelink.MethodRead: link.Answer(func(ctx context.Context, q edgelink.ReadRequest) (edgelink.ReadResponse, error) {
			read, err := e.devices.ReadForHub(ctx, q.Device, q.Properties)
			return edgelink.ReadResponse{Properties: read}, err
		}),
	}
}
