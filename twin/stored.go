package twin

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// StoredShadow is a Shadow as AppendJSON writes it.
type StoredShadow struct {
	Version    uint64                    `json:"version"`
	State      models.DeviceState        `json:"state,omitempty"`
	StateAt    Position                  `json:"stateAt,omitzero"`
	Message    string                    `json:"message,omitempty"`
	LastSeen   time.Time                 `json:"lastSeen,omitzero"`
	Problem    string                    `json:"problem,omitempty"`
	ReadPlan   *models.ReadPlan          `json:"readPlan,omitempty"`
	Properties map[string]storedProperty `json:"properties,omitempty"`
}

type storedProperty struct {
	Reported Reported `json:"reported,omitzero"`
	At       Position `json:"at,omitzero"`
	Write    *Write   `json:"write,omitempty"`
	Version  uint64   `json:"version"`
}

// AppendJSON appends the Shadow as it is stored. Properties are written by hand: a
// hub stores thousands a second, and by reflection that takes five times as long.
func (s *Shadow) AppendJSON(b []byte) ([]byte, error) {
	head, err := json.Marshal(StoredShadow{Version: s.Version, State: s.State, StateAt: s.StateAt, Message: s.Message, LastSeen: s.LastSeen, Problem: s.Problem, ReadPlan: s.ReadPlan})
	if err != nil || len(s.props) == 0 {
		return append(b, head...), err
	}
	b = slices.Grow(b, len(head)+160*len(s.props))
	b = append(append(b, head[:len(head)-1]...), `,"properties":{`...)
	for i := range s.props {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendText(b, s.names[i]); err != nil {
			return nil, err
		}
		if b, err = s.props[i].appendJSON(append(b, ':')); err != nil {
			return nil, err
		}
	}
	return append(b, '}', '}'), nil
}

func (p *ShadowProperty) appendJSON(b []byte) (_ []byte, err error) {
	b = append(b, '{')
	if p.Reported != (Reported{}) {
		if b, err = p.Reported.appendJSON(append(b, `"reported":`...)); err != nil {
			return nil, err
		}
		b = append(b, ',')
	}
	if p.At != (Position{}) {
		b = strconv.AppendUint(append(b, `"at":{"rank":`...), p.At.Rank, 10)
		b = append(strconv.AppendUint(append(b, `,"seq":`...), p.At.Seq, 10), '}', ',')
	}
	if p.write != nil {
		write, err := json.Marshal(p.write)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, `"write":`...), write...), ',')
	}
	return append(strconv.AppendUint(append(b, `"version":`...), p.Version, 10), '}'), nil
}

// appendJSON appends what json.Marshal would write.
func (r *Reported) appendJSON(b []byte) (_ []byte, err error) {
	b = r.Value.AppendJSON(append(b, `{"value":`...))
	if b, err = appendTime(append(b, `,"time":`...), r.Time); err != nil {
		return nil, err
	}
	b = append(append(append(b, `,"quality":"`...), r.Quality.String()...), '"')
	if r.Reason != "" {
		if b, err = appendText(append(b, `,"reason":`...), string(r.Reason)); err != nil {
			return nil, err
		}
	}
	if !r.Since.IsZero() {
		if b, err = appendTime(append(b, `,"since":`...), r.Since); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// appendTime appends a time; one that JSON cannot say is an error.
func appendTime(b []byte, t time.Time) ([]byte, error) {
	if y := t.Year(); t.Location() != time.UTC || y < 0 || y > 9999 {
		text, err := t.MarshalJSON()
		return append(b, text...), err
	}
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"'), nil
}

// appendText appends a text, which mostly needs no escapes.
func appendText(b []byte, text string) ([]byte, error) {
	for i := range len(text) {
		if c := text[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(text)
			return append(b, quoted...), err
		}
	}
	return append(append(append(b, '"'), text...), '"'), nil
}

// Shadow returns the Shadow that was stored.
func (from *StoredShadow) Shadow() Shadow {
	s := Shadow{Version: from.Version, State: from.State, StateAt: from.StateAt, Message: from.Message, LastSeen: from.LastSeen, Problem: from.Problem, ReadPlan: from.ReadPlan}
	s.Expect(len(from.Properties))
	s.names = slices.AppendSeq(s.names, maps.Keys(from.Properties))
	slices.Sort(s.names)
	for _, name := range s.names {
		p := from.Properties[name]
		s.props = append(s.props, ShadowProperty{Reported: p.Reported, At: p.At, Version: p.Version, write: p.Write})
	}
	return s
}
