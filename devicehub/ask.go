package devicehub

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/sessions"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// ReadDevice reads properties from a device, now, through its node.
func (h *Hub) ReadDevice(ctx context.Context, namespace, name string, properties []string, trace string) (map[string]models.Reading, error) {
	view, err := h.served(namespace, name)
	if err != nil {
		return nil, err
	}
	// The edge says the same; but the caller hears of it also while the node is away.
	if _, err := models.Readable(view.Properties, properties, true); err != nil {
		return nil, err
	}
	var answer edgelink.ReadResponse
	err = h.sessions.AskOne(ctx, view.Device.Spec.Node, sessions.Question{Method: edgelink.MethodRead, Trace: trace,
		Body: edgelink.ReadRequest{Device: view.Device.Metadata.UID, Properties: properties}}, &answer)
	if err != nil {
		return nil, err
	}
	for name, r := range answer.Properties { // the names of values are the hub's model's
		if i := slices.IndexFunc(view.Properties, func(p models.ResolvedProperty) bool { return p.Name == name }); i >= 0 {
			answer.Properties[name] = models.ReadingOf(&view.Properties[i], models.Sample{Value: r.Value, Quality: r.Quality, Reason: r.Reason, Time: r.Time})
		}
	}
	return answer.Properties, nil
}

// RecordDevice hands what a device's mapper sees on the wire to lines, as it
// comes, for as long as length says.
func (h *Hub) RecordDevice(ctx context.Context, namespace, name string, length time.Duration, trace string, lines func([]byte) error) error {
	view, err := h.served(namespace, name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, length+recordGrace)
	defer cancel()
	return h.sessions.Ask(ctx, view.Device.Spec.Node, sessions.Question{Method: edgelink.MethodRecord, Trace: trace,
		Body: edgelink.RecordRequest{Device: view.Device.Metadata.UID, For: models.Duration(length)}}, lines)
}

// recordGrace is for the way of a recording's end.
const recordGrace = 30 * time.Second

// BrowseDevice looks around in a device through its node, and calls found with
// what it offers.
func (h *Hub) BrowseDevice(ctx context.Context, namespace, name, trace string, found func(models.Found) error) error {
	view, err := h.served(namespace, name)
	if err != nil {
		return err
	}
	node := view.Device.Spec.Node
	return h.sessions.Ask(ctx, node, sessions.Question{Method: edgelink.MethodBrowse, Trace: trace, Body: edgelink.BrowseRequest{Device: view.Device.Metadata.UID}}, func(body []byte) error {
		var part edgelink.BrowseResponse
		if err := json.Unmarshal(body, &part); err != nil {
			return fmt.Errorf("the answer of node %s: %w", node, err)
		}
		for _, f := range part.Found {
			if err := found(f); err != nil {
				return err
			}
		}
		return nil
	})
}

// served returns a device that a node is to serve.
func (h *Hub) served(namespace, name string) (registry.DeviceView, error) {
	view, err := h.Registry.Device(namespace, name)
	if err == nil && view.Device.Spec.Node == "" {
		err = models.Errorf(models.KindUnavailable, "no node serves device %s: its spec.node is empty", name)
	}
	return view, err
}
