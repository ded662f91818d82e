package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Protocol is the version of the messages. Whatever changes what a field means,
// or adds a field that a mapper may send, takes a new number.
const Protocol = 1

// Bounds of what a mapper may send. docs/mapper-protocol.md states them.
const (
	MaxMessage   = 1 << 20   // bytes of a message, either way
	MaxSchema    = 256 << 10 // bytes of one schema
	MaxWaiting   = 1024      // messages taken and not stored yet, of one mapper; beyond, its connection is ended
	maxBytes     = 8 << 20   // of them
	maxSamples   = 10_000    // in a batch
	maxText      = 1024      // bytes of a message for people
	maxErrors    = 20        // that a refusal names
	minHeartbeat = 100 * time.Millisecond
	maxHeartbeat = time.Minute
	// defaultHeartbeat is for an announcement that names none.
	defaultHeartbeat = 10 * time.Second
)

// What a mapper sends. Decoding is strict: a misspelt field must not be taken
// for one that was left out.
type (
	// announce says who the mapper is.
	announce struct {
		Protocol    int              `json:"protocol"`
		Version     string           `json:"version"`
		Description string           `json:"description,omitempty"`
		Connection  json.RawMessage  `json:"connection"`
		Address     json.RawMessage  `json:"address"`
		Property    json.RawMessage  `json:"property,omitempty"`
		Heartbeat   *models.Duration `json:"heartbeat,omitempty"`
		// Secrets says that the mapper wants what devices' connections refer to.
		Secrets bool `json:"secrets,omitempty"`
	}
	// batch is what was read of one device.
	batch struct {
		Device     string    `json:"device"`
		Assignment string    `json:"assignment"`
		Time       time.Time `json:"time,omitzero"`
		Samples    []sample  `json:"samples"`
	}
	// sample is one observation of one property.
	sample struct {
		Property string `json:"property"`
		reading
	}
	// reading is a value, or why there is none.
	reading struct {
		Value   models.Value   `json:"value,omitzero"`
		Quality models.Quality `json:"quality,omitempty"`
		Reason  models.Reason  `json:"reason,omitempty"`
		Time    time.Time      `json:"time,omitzero"`
	}
	// state says what the mapper makes of a device.
	state struct {
		Device     string              `json:"device"`
		Assignment string              `json:"assignment"`
		State      deviceState         `json:"state"`
		Reason     models.Reason       `json:"reason,omitempty"`
		Message    string              `json:"message,omitempty"`
		Errors     []models.FieldError `json:"errors,omitempty"`
	}
	// answer answers read and write.
	answer struct {
		ID      string   `json:"id"`
		Error   *failure `json:"error,omitempty"`
		Results []result `json:"results,omitempty"`
	}
	// result is of one property that was read, or of one write.
	result struct {
		reading
		Error *failure `json:"error,omitempty"`
	}
	failure struct {
		Reason  models.Reason `json:"reason"`
		Message string        `json:"message,omitempty"`
		Refused bool          `json:"refused,omitempty"`
		Unsent  bool          `json:"unsent,omitempty"`
	}
	// nothing is what heartbeat and bye say.
	nothing struct{}
)

// deviceState is what a state message says.
type deviceState string

const (
	accepted deviceState = "accepted" // the mapper serves the device
	refused  deviceState = "refused"  // it cannot, as it is configured
	offline  deviceState = "offline"  // it does, and the device does not answer
)

// What the edge sends. Mappers ignore fields that they do not know.
type (
	welcome struct {
		Protocol   int             `json:"protocol"`
		Mapper     string          `json:"mapper"`
		Node       string          `json:"node,omitempty"`
		Client     string          `json:"client"`
		Heartbeat  models.Duration `json:"heartbeat"`
		MaxMessage int             `json:"maxMessage"`
		MaxWaiting int             `json:"maxWaiting"`
	}
	// assignment tells of a device that the mapper is to serve.
	assignment struct {
		Device     string          `json:"device"`
		Assignment string          `json:"assignment"`
		Removed    bool            `json:"removed,omitempty"`
		Connection json.RawMessage `json:"connection,omitempty"`
		// Secrets are in the clear, by field of the connection.
		Secrets    map[string]string `json:"secrets,omitempty"`
		Properties []property        `json:"properties,omitempty"`
	}
	property struct {
		Name    string           `json:"name"`
		Type    models.Type      `json:"type"`
		Access  models.Access    `json:"access"`
		Every   *models.Duration `json:"every,omitempty"`
		Address json.RawMessage  `json:"address,omitempty"`
	}
	readRequest struct {
		ID         string          `json:"id"`
		Device     string          `json:"device"`
		Assignment string          `json:"assignment"`
		Timeout    models.Duration `json:"timeout"`
		Properties []string        `json:"properties"`
	}
	writeRequest struct {
		ID         string          `json:"id"`
		Device     string          `json:"device"`
		Assignment string          `json:"assignment"`
		Timeout    models.Duration `json:"timeout"`
		Writes     []write         `json:"writes"`
	}
	write struct {
		Property string       `json:"property"`
		Value    models.Value `json:"value"`
	}
	// problem tells a mapper what is wrong with something that it sent.
	problem struct {
		Client string              `json:"client"`
		Topic  string              `json:"topic"`
		Detail string              `json:"detail"`
		Errors []models.FieldError `json:"errors,omitempty"`
	}
)

// decode reads a message strictly and checks what it says by itself.
func decode[T any](payload []byte, check func(*T) error) (T, error) {
	var m T
	text := bytes.TrimSpace(payload)
	switch {
	case len(text) > MaxMessage:
		return m, models.Errorf(models.KindTooLarge, "%d bytes, at most %d are allowed", len(text), MaxMessage)
	case len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}': // models would try YAML
		return m, models.Errorf(models.KindMalformed, "not a JSON object")
	}
	if err := models.DecodeInto(text, &m); err != nil {
		return m, err
	}
	return m, check(&m)
}

func decodeAnnounce(payload []byte) (announce, error) {
	return decode(payload, func(m *announce) error {
		if m.Protocol != Protocol {
			return models.Invalid("/protocol", "%d is not spoken here: this edge speaks %d", m.Protocol, Protocol)
		}
		if m.Version == "" || len(m.Version) > 64 {
			return models.Invalid("/version", "is required: the mapper's own, of at most 64 bytes")
		}
		if len(m.Description) > maxText {
			return models.Invalid("/description", "has %d bytes, at most %d are allowed", len(m.Description), maxText)
		}
		for _, s := range []struct {
			field    string
			schema   json.RawMessage
			optional bool
		}{{"/connection", m.Connection, false}, {"/address", m.Address, false}, {"/property", m.Property, true}} {
			switch text := string(s.schema); {
			case text == "" && s.optional:
			case text == "":
				return models.Invalid(s.field, "is required: a JSON Schema (2020-12)")
			case len(text) > MaxSchema:
				return models.Invalid(s.field, "has %d bytes, at most %d are allowed", len(text), MaxSchema)
			case text[0] != '{' && text != "true" && text != "false":
				return models.Invalid(s.field, "must be a JSON Schema (2020-12)")
			}
		}
		if h := m.heartbeat(); h < minHeartbeat || h > maxHeartbeat {
			return models.Invalid("/heartbeat", "must be %v to %v, got %v", minHeartbeat, maxHeartbeat, h)
		}
		return nil
	})
}

func (m *announce) heartbeat() time.Duration {
	if m.Heartbeat == nil {
		return defaultHeartbeat
	}
	return m.Heartbeat.Std()
}

func decodeBatch(payload []byte) (batch, error) {
	return decode(payload, func(m *batch) error {
		if err := addressed(m.Device, m.Assignment); err != nil {
			return err
		}
		if m.Samples == nil {
			return models.Invalid("/samples", "are required; there may be none")
		}
		if len(m.Samples) > maxSamples {
			return models.Invalid("/samples", "are %d, at most %d are allowed", len(m.Samples), maxSamples)
		}
		for i := range m.Samples {
			if m.Samples[i].Property == "" {
				return models.Invalid(fmt.Sprintf("/samples/%d/property", i), "is required")
			}
			if err := m.Samples[i].check(fmt.Sprintf("/samples/%d", i)); err != nil {
				return err
			}
		}
		return nil
	})
}

func addressed(device, assignment string) error {
	if device == "" {
		return models.Invalid("/device", "is required")
	}
	if assignment == "" {
		return models.Invalid("/assignment", "is required: what the devices message says")
	}
	return nil
}

// check completes a reading.
func (r *reading) check(at string) error {
	if r.Quality == models.Good && r.Reason != models.ReasonNone {
		return models.Invalid(at+"/reason", "is for a quality that is not good")
	}
	if r.Quality != models.Bad && r.Value.IsNull() {
		return models.Invalid(at+"/value", "is required unless the quality is bad")
	}
	if r.Quality != models.Good && r.Reason == models.ReasonNone {
		r.Reason = models.ReasonDeviceError
	}
	return checkReason(at+"/reason", r.Reason)
}

// checkReason checks that a reason is short and machine-readable.
func checkReason(at string, r models.Reason) error {
	for i, c := range []byte(r) {
		if i >= 63 || (c < 'a' || c > 'z') && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return models.Invalid(at, "must be of a-z, 0-9 and -, begin with a letter, and have at most 63 characters")
		}
	}
	return nil
}

func decodeState(payload []byte) (state, error) {
	return decode(payload, func(m *state) error {
		if err := addressed(m.Device, m.Assignment); err != nil {
			return err
		}
		switch m.State {
		case accepted:
			if m.Reason != "" || len(m.Errors) > 0 {
				return models.Invalid("/state", "accepted has neither reason nor errors")
			}
		case refused:
			if m.Reason != "" {
				return models.Invalid("/reason", "is for offline; a refusal has errors")
			}
		case offline:
			if m.Reason == "" {
				m.Reason = models.ReasonNotConnected
			}
			if len(m.Errors) > 0 {
				return models.Invalid("/errors", "are for refused")
			}
		default:
			return models.Invalid("/state", "must be accepted, refused or offline")
		}
		m.Message = cut(m.Message)
		m.Errors = m.Errors[:min(len(m.Errors), maxErrors)]
		for i := range m.Errors {
			m.Errors[i].Detail = cut(m.Errors[i].Detail)
		}
		return checkReason("/reason", m.Reason)
	})
}

// refusal is what a refused state says, as an error of the configuration.
func (m *state) refusal() error {
	e := &models.Error{Kind: models.KindInvalid, Detail: m.Message, Fields: m.Errors}
	if m.Message == "" && len(m.Errors) == 0 {
		e.Detail = "the mapper refuses the device and does not say why"
	}
	return e
}

func decodeAnswer(payload []byte) (answer, error) {
	return decode(payload, func(m *answer) error {
		if m.ID == "" {
			return models.Invalid("/id", "is required: the request's")
		}
		if m.Error == nil && m.Results == nil {
			return models.Invalid("", "either error or results is required")
		}
		if m.Error != nil {
			if m.Results != nil {
				return models.Invalid("/results", "and error exclude each other")
			}
			return m.Error.check("/error")
		}
		for i := range m.Results {
			if r := &m.Results[i]; r.Error != nil {
				if err := r.Error.check(fmt.Sprintf("/results/%d/error", i)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (f *failure) check(at string) error {
	f.Message = cut(f.Message)
	if f.Reason == "" {
		return models.Invalid(at+"/reason", "is required, such as timeout, not-connected or device-error")
	}
	return checkReason(at+"/reason", f.Reason)
}

// decodeNothing accepts an empty payload and an empty object.
func decodeNothing(payload []byte) error {
	if len(bytes.TrimSpace(payload)) == 0 {
		return nil
	}
	_, err := decode(payload, func(*nothing) error { return nil })
	return err
}

// cut bounds a text that a mapper says.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n] + "…"
}

// said is what the mapper says of a failure for people; nil when it says nothing.
func (f *failure) said() error {
	if f.Message == "" {
		return nil
	}
	return errors.New(f.Message)
}
