package broker

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// desired hands a patch over and publishes the answer. Called in the publisher's
// goroutine before its PUBACK, so who publishes faster than patches become
// durable waits.
func (b *Broker) desired(c *conn, pk packets.Packet, device string) {
	by := c.who()
	result, err := b.applyDesired(device, by, pk.Payload)
	contentType := "application/json"
	if err != nil {
		contentType = "application/problem+json"
		problem := models.ProblemOf(err)
		problem.ID = patchID(pk.Payload)
		if models.KindOf(err) == models.KindInternal {
			b.log.Error("mqtt: desired", "device", device, "by", by.Name, "error", err)
		}
		if result, err = json.Marshal(problem); err != nil {
			b.log.Error("mqtt: desired: encode the problem", "device", device, "error", err)
			return
		}
	}
	topic := mqtt.ResultTopic(device)
	if to := pk.Properties.ResponseTopic; to != "" && to != topic {
		// The answer comes from the edge, which may publish anywhere; who asks
		// must not reach further with it than by itself.
		if mqtt.ValidateTopic(to) == nil && !tooDeep(to) && !reserved(to) && by.mayRead(to) {
			topic = to
		} else {
			b.log.Warn("mqtt: desired: response topic not allowed", "device", device, "identity", by.Name, "topic", to)
		}
	}
	if err := b.publish(topic, result, 1, false, packets.Properties{
		CorrelationData: pk.Properties.CorrelationData,
		ContentType:     contentType,
	}); err != nil {
		b.log.Error("mqtt: desired: publish the answer", "device", device, "error", err)
	}
}

func (b *Broker) applyDesired(device string, by Identity, patch []byte) ([]byte, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(patch, &object); err != nil {
		return nil, models.Errorf(models.KindMalformed, "not a JSON object: %v", err)
	}
	if object == nil { // null
		return nil, models.Errorf(models.KindMalformed, "not a JSON object: null")
	}
	var denied []models.FieldError
	for _, property := range slices.Sorted(maps.Keys(object)) {
		if !strings.HasPrefix(property, "$") && !by.mayWrite(device, property) {
			denied = append(denied, models.FieldError{Pointer: "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(property), Detail: "is not among what this app may write: see access in its pod's spec"})
		}
	}
	if len(denied) > 0 {
		return nil, &models.Error{Kind: models.KindForbidden, Detail: "not allowed", Fields: denied}
	}
	return b.cfg.Devices.Desired(b.ctx, device, by.Name, by.Access != nil, patch)
}

// patchID is the "$id" of a patch, as far as it can be read.
func patchID(patch []byte) models.Value {
	var p struct {
		ID models.Value `json:"$id"`
	}
	if json.Unmarshal(patch, &p) != nil {
		return models.Null
	}
	return p.ID
}
