package cloudapi

import (
	"bytes"
	"context"
	"net/http"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// twinEvent is the data of an event of /twins/stream.
type twinEvent struct {
	Device     string                      `json:"device"`
	Namespace  string                      `json:"namespace,omitempty"` // left out for "default"
	Version    uint64                      `json:"version"`
	State      models.DeviceState          `json:"state"`
	Properties map[string]twin.PropertyDoc `json:"properties"` // those that changed
}

// streamTwins is Server-Sent Events (https://html.spec.whatwg.org, section 9.2).
func (a *api) streamTwins(c *call) (answer, error) {
	if c.Method != http.MethodGet {
		return answer{}, models.Errorf(models.KindMalformed, "a stream needs the method GET")
	}
	opts, err := c.listOptions("Device", models.Viewer, true)
	if err != nil {
		return answer{}, err
	}
	cursor := c.Header.Get("Last-Event-ID")
	s := &stream{c: c, contentType: "text/event-stream", first: []byte(": twins\n\n"), beat: []byte(": beat\n\n")}
	err = s.run(func(ctx context.Context) error {
		err := a.Twins.StreamTwins(ctx, opts, cursor, s.twin)
		if cursor != "" && models.KindOf(err) == models.KindGone {
			// State is coalesced: all of it again tells as much as what was missed, but
			// for what was deleted; and an EventSource that is refused never comes back.
			if err = s.write([]byte("event: reset\ndata: {}\n\n")); err == nil {
				err = a.Twins.StreamTwins(ctx, opts, "", s.twin)
			}
		}
		return err
	})
	if !s.started() {
		return answer{}, models.InParameter("Last-Event-ID", err)
	}
	return answer{sent: true}, nil
}

func (s *stream) twin(change TwinChange) error {
	doc := change.Document
	if change.Deleted {
		return s.sent("deleted", change.Cursor, deletedEvent{doc.Device, doc.Namespace})
	}
	event := twinEvent{Device: doc.Device, Namespace: doc.Namespace, Version: doc.Version, State: doc.State, Properties: doc.Properties}
	if event.Properties == nil {
		event.Properties = map[string]twin.PropertyDoc{}
	}
	return s.sent("twin", change.Cursor, event)
}

// deletedEvent is the data of an event that tells of a device that is gone, or is
// no longer one that was asked for.
type deletedEvent struct {
	Device    string `json:"device"`
	Namespace string `json:"namespace,omitempty"` // left out for "default"
}

// sent writes one event.
func (s *stream) sent(name, cursor string, event any) error {
	data, err := encode(event)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString("event: " + name + "\n")
	if cursor != "" {
		b.WriteString("id: " + strings.NewReplacer("\n", "", "\r", "", "\x00", "").Replace(cursor) + "\n")
	}
	b.WriteString("data: ")
	b.Write(data) // one line: JSON escapes line ends
	b.WriteString("\n")
	return s.write(b.Bytes())
}
