package twin

import (
	"cmp"
	"slices"
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
	Version  uint64
	State    models.DeviceState
	StateAt  Position
	Message  string // why State is not online
	LastSeen time.Time
	Problem  string // why the edge cannot serve the device as configured
	ReadPlan *models.ReadPlan

	// A hub may hold a million properties, so they lie one after the other, in the
	// order in which they came, and a record mostly names them in that order again.
	names []string
	props []ShadowProperty // by the place in names
	next  int              // after the one found last
	at    map[string]int   // places by name, made when it pays; else nil
}

// ShadowProperty is one property of a Shadow.
type ShadowProperty struct {
	Reported Reported
	At       Position // where Reported was said
	Version  uint64   // the Shadow's when this property last changed

	write *Write // nil: none, as of most
}

// Write is the last write to the property that is known of.
func (p *ShadowProperty) Write() Write {
	if p == nil || p.write == nil {
		return Write{}
	}
	return *p.write
}

// indexFrom is how many names it takes for a map to be quicker than to look
// through them.
const indexFrom = 128

// Property returns what is known of a property, nil when nothing is. It is good
// until the Shadow changes.
func (s *Shadow) Property(name string) *ShadowProperty {
	i := s.find(name)
	if i < 0 {
		return nil
	}
	return &s.props[i]
}

// find returns the place of a property, -1 when it has none.
func (s *Shadow) find(name string) int {
	if s.next > 0 && s.names[s.next-1] == name { // once more
		return s.next - 1
	}
	if s.next < len(s.names) && s.names[s.next] == name {
		s.next++
		return s.next - 1
	}
	i, known := -1, false
	if len(s.names) >= indexFrom {
		if s.at == nil {
			s.at = make(map[string]int, len(s.names))
			for i, name := range s.names {
				s.at[name] = i
			}
		}
		if i, known = s.at[name]; !known {
			return -1
		}
	} else if i = slices.Index(s.names[s.next:], name); i >= 0 {
		i += s.next
	} else if i = slices.Index(s.names[:s.next], name); i < 0 {
		return -1
	}
	s.next = i + 1
	return i
}

// Expect makes room for so many properties, when there are none yet.
func (s *Shadow) Expect(n int) {
	if len(s.names) == 0 && n > cap(s.names) {
		s.names, s.props = make([]string, 0, n), make([]ShadowProperty, 0, n)
	}
}

// Arrange puts the properties into an order, which records are expected to have, and
// those that are not in it first. Names are from then on those in order: a million
// twins share the strings of a few models.
func (s *Shadow) Arrange(order []string) {
	place := make(map[string]int, len(order))
	for i, name := range order {
		place[name] = i + 1
	}
	from := make([]int, len(s.names))
	for i := range from {
		from[i] = i
	}
	slices.SortStableFunc(from, func(a, b int) int { return cmp.Compare(place[s.names[a]], place[s.names[b]]) })
	names, props := make([]string, 0, len(from)), make([]ShadowProperty, 0, len(from))
	for _, i := range from {
		name := s.names[i]
		if at := place[name]; at > 0 {
			name = order[at-1]
		}
		names, props = append(names, name), append(props, s.props[i])
	}
	s.names, s.props, s.next, s.at = names, props, 0, nil
}

// Names returns the names of the properties that something is known of, in the
// order in which they came. It must not be changed.
func (s *Shadow) Names() []string { return s.names }

func (s *Shadow) property(name string) *ShadowProperty {
	i := s.find(name)
	if i < 0 {
		i = len(s.names)
		s.names, s.props = append(s.names, name), append(s.props, ShadowProperty{})
		if s.at != nil {
			s.at[name] = i
		}
		s.next = i + 1
	}
	return &s.props[i]
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
	before := p.Write()
	if before.ID == w.ID {
		// That it expired may be the hub's own word, which it gave while the edge was
		// away; the edge knows better. And a hold that drifted may be refused later.
		better := before.State == Expired && !before.Late && w.State.Final() ||
			before.State == Applied && w.State == Failed && w.Time.After(before.Time)
		if before == w || before.State.Final() && !w.Late && !better {
			return false
		}
	} else if before.ID == current && before.ID != "" && w.ID != current {
		return false
	}
	p.write = &w
	s.touch(p)
	return true
}

// Drop forgets every property that keep does not hold.
func (s *Shadow) Drop(keep func(name string) bool) {
	n := 0
	for i, name := range s.names {
		if keep(name) {
			s.names[n], s.props[n] = name, s.props[i]
			n++
		}
	}
	s.Version += uint64(len(s.names) - n)
	if n < len(s.names) {
		clear(s.names[n:])
		clear(s.props[n:])
		s.names, s.props, s.next, s.at = s.names[:n], s.props[:n], 0, nil
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
		p := s.Property(def.Name)
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
		out := PropertyDoc{Unit: def.Unit, Reported: reported.doc(def.Enum), Write: p.Write().doc()}
		if d, live := v.Desired.Live(def.Name); live {
			out.Desired = d.doc(def.Enum)
			if p.Write().ID != d.ID { // the edge has not said a word of it yet
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
