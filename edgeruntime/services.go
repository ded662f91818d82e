package edgeruntime

import (
	"context"
	"net"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/link"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/services"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
)

// reach finds apps: on this node, else through the hub on another one.
type reach struct {
	here *services.Services
	link func() *link.Link
}

// Dial implements localapi.Services.
func (r reach) Dial(ctx context.Context, namespace, name, port string) (net.Conn, error) {
	conn, err := r.here.Dial(ctx, namespace, name, port)
	if models.KindOf(err) != models.KindUnavailable {
		return conn, err
	}
	head, headErr := bulk.NewHeader(bulk.KindService, "", bulk.ServiceTarget{Namespace: namespace, Name: name, Port: port})
	if headErr != nil {
		return nil, headErr
	}
	stream, streamErr := r.link().Stream(ctx, head)
	if streamErr != nil {
		return nil, models.Errorf(models.KindUnavailable, "%v, and other nodes cannot be asked: %v", err, streamErr)
	}
	return stream, nil
}

// streams lists what the hub may open on the second connection.
func (e *Edge) streams() map[string]bulk.Handler {
	return map[string]bulk.Handler{
		bulk.KindService: e.services.Stream,
		bulk.KindLogs:    e.desk.StreamLogs,
		bulk.KindExec:    e.desk.StreamExec,
	}
}
