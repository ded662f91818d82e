package edgeruntime

import (
	"context"
	"encoding/json"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/link"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// handlers lists what the hub may ask this edge.
func (e *Edge) handlers() map[string]link.Handler {
	return map[string]link.Handler{
		edgelink.MethodBrowse: e.browse,
		edgelink.MethodRead: link.Answer(func(ctx context.Context, q edgelink.ReadRequest) (edgelink.ReadResponse, error) {
			read, err := e.devices.ReadForHub(ctx, q.Device, q.Properties)
			return edgelink.ReadResponse{Properties: read}, err
		}),
		edgelink.MethodRecord: func(ctx context.Context, r link.Request, part func([]byte) error) ([]byte, error) {
			var q edgelink.RecordRequest
			if err := json.Unmarshal(r.Body, &q); err != nil {
				return nil, models.Errorf(models.KindMalformed, "the hub's request cannot be read: %v", err)
			}
			return nil, e.devices.RecordForHub(ctx, q.Device, q.For.Std(), part)
		},
	}
}

// browse answers with what a device offers, gathered into parts.
func (e *Edge) browse(ctx context.Context, r link.Request, part func([]byte) error) ([]byte, error) {
	var q edgelink.BrowseRequest
	if err := json.Unmarshal(r.Body, &q); err != nil {
		return nil, models.Errorf(models.KindMalformed, "the hub's request cannot be read: %v", err)
	}
	var gathered edgelink.BrowseResponse
	size := 0
	flush := func() error {
		text, err := json.Marshal(gathered)
		if err != nil {
			return err
		}
		gathered.Found, size = nil, 0
		return part(text)
	}
	err := e.devices.BrowseForHub(ctx, q.Device, func(f models.Found) error {
		text, err := json.Marshal(f)
		if err != nil {
			return err
		}
		if size > 0 && size+len(text) > edgelink.PartBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		gathered.Found = append(gathered.Found, f)
		size += len(text)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(gathered)
}
