package twin

import (
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Position is a place in what an edge has sent: the order in which the hub
// first met the log's epoch, and the record's seq in it. Later is greater.
type Position struct {
	Rank uint64 `json:"rank"`
	Seq  uint64 `json:"seq"`
}

// Before reports whether p comes before q.
func (p Position) Before(q Position) bool {
	return p.Rank < q.Rank || p.Rank == q.Rank && p.Seq < q.Seq
}

// Shadow is the hub's side of a twin: what edges reported of a device. It has
// one owner and no lock. The zero Shadow is a device never heard of.
type Shadow struct {
	Version    uint64                     `json:"version"`
	State      models.DeviceState         `json:"state,omitempty"`
	StateAt    Position                   `json:"stateAt,omitzero"`
	Message    string                     `json:"message,omitempty"` // why State is not online
	LastSeen   time.Time                  `json:"lastSeen,omitzero"`
	Problem    string                     `json:"problem,omitempty"` // why the edge cannot serve the device as configured
	ReadPlan   *models.ReadPlan           `json:"readPlan,omitempty"`
	Properties map[string]*ShadowProperty `json:"properties,omitempty"`
}

// ShadowProperty is one property of a Shadow.
type ShadowProperty struct {
	Reported Reported `json:"reported,omitzero"`
	At       Position `json:"at,omitzero"` // where Reported was said
	Write    Write    `json:"write,omitzero"`
	Version  uint64   `json:"version"` // the Shadow's when this property last changed
}

func (s *Shadow) property(name string) *ShadowProperty {
	p := s.Properties[name]
	if p == nil {
		if s.Properties == nil {
			s.Properties = map[string]*ShadowProperty{}
		}
		p = &ShadowProperty{}
		s.Properties[name] = p
	}
	return p
}

// Report takes a sample said at a position and reports whether the twin
// changed. What comes from before the property's position is history, not news.
func (s *Shadow) Report(name string, sample models.Sample, at Position) bool {
	p := s.property(name)
	if at.Before(p.At) {
		return false
	}
	next, changed := p.Reported.Observe(sample)
	return s.take(p, next, at, changed)
}

// Set takes a property's whole reported state said at a position.
func (s *Shadow) Set(name string, r Reported, at Position) bool {
	p := s.property(name)
	if at.Before(p.At) {
		return false
	}
	changed := r.Value != p.Reported.Value || r.Quality != p.Reported.Quality || r.Reason != p.Reported.Reason
	return s.take(p, r, at, changed)
}

func (s *Shadow) take(p *ShadowProperty, next Reported, at Position, changed bool) bool {
	changed = changed || !next.Time.Equal(p.Reported.Time)
	p.Reported, p.At = next, at
	if changed {
		s.touch(p)
	}
	return changed
}

func (s *Shadow) touch(p *ShadowProperty) {
	s.Version++
	p.Version = s.Version
}

// SetState takes the device's state said at a position.
func (s *Shadow) SetState(state models.DeviceState, message string, at Position) bool {
	if at.Before(s.StateAt) {
		return false
	}
	changed := state != s.State || message != s.Message
	s.State, s.Message, s.StateAt = state, message, at
	if changed {
		s.Version++
	}
	return changed
}

// SetWrite takes the state of a write. Of the states of one write a final one
// stands, and an older write's state never replaces a newer one's: ids are
// ULIDs, but made on two machines, so current says which one is desired now.
func (s *Shadow) SetWrite(name string, w Write, current string) bool {
	p := s.property(name)
	if p.Write.ID == w.ID {
		if p.Write == w || p.Write.State.Final() && !w.Late {
			return false
		}
	} else if p.Write.ID == current && p.Write.ID != "" && w.ID != current {
		return false
	}
	p.Write = w
	s.touch(p)
	return true
}

// Drop forgets every property that keep does not hold.
func (s *Shadow) Drop(keep func(name string) bool) {
	for name := range s.Properties {
		if !keep(name) {
			delete(s.Properties, name)
			s.Version++
		}
	}
}

// View is what a Document needs beside the Shadow.
type View struct {
	Device, Namespace string
	Properties        []models.ResolvedProperty
	Desired           Desired
	// Away is when the node was last heard, zero while its session is live: then
	// nothing is shown better than uncertain/stale, and the state is unknown.
	Away time.Time
	// Since leaves out properties that have not changed after this version; 0
	// shows all.
	Since uint64
}

// Document shows the twin.
func (s *Shadow) Document(v View) Document {
	doc := Document{Device: v.Device, Version: s.Version, State: s.State, DesiredVersion: v.Desired.Version,
		Properties: make(map[string]PropertyDoc, len(v.Properties))}
	if v.Namespace != models.DefaultNamespace {
		doc.Namespace = v.Namespace
	}
	if doc.State == "" || !v.Away.IsZero() {
		doc.State = models.StateUnknown
	}
	if !s.LastSeen.IsZero() {
		doc.LastSeen = new(s.LastSeen.UTC())
	}
	for i := range v.Properties {
		def := &v.Properties[i]
		p := s.Properties[def.Name]
		if p == nil {
			p = &ShadowProperty{}
		}
		if v.Since != 0 && p.Version <= v.Since {
			continue
		}
		reported := p.Reported
		if !v.Away.IsZero() {
			reported = reported.Degrade(v.Away)
		}
		out := PropertyDoc{Unit: def.Unit, Reported: reported.doc(def.Enum), Write: p.Write.doc()}
		if d, live := v.Desired.Live(def.Name); live {
			out.Desired = d.doc(def.Enum)
			if p.Write.ID != d.ID { // the edge has not said a word of it yet
				out.Write = &WriteDoc{ID: d.ID, State: Pending, Time: d.Time.UTC()}
			}
		}
		doc.Properties[def.Name] = out
	}
	for name, d := range v.Desired.Properties { // of a property the model no longer has
		if _, shown := doc.Properties[name]; !shown && !d.Value.IsNull() && v.Since == 0 {
			doc.Properties[name] = PropertyDoc{Desired: d.doc(nil)}
		}
	}
	return doc
}

// Touch marks a property as changed, because its desired value did.
func (s *Shadow) Touch(name string) { s.touch(s.property(name)) }
