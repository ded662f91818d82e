package twin

import (
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Document is a twin as users see it.
type Document struct {
	Device         string                 `json:"device"`
	Namespace      string                 `json:"namespace,omitempty"` // left out for "default"
	Version        uint64                 `json:"version"`             // grows with every change of the twin
	State          models.DeviceState     `json:"state"`
	LastSeen       *time.Time             `json:"lastSeen,omitempty"`
	DesiredVersion int64                  `json:"desiredVersion"`
	At             *time.Time             `json:"at,omitempty"` // of a twin as it was then
	Properties     map[string]PropertyDoc `json:"properties"`
}

// PropertyDoc is one property of a Document.
type PropertyDoc struct {
	Desired  *DesiredDoc  `json:"desired,omitempty"`
	Reported *ReportedDoc `json:"reported,omitempty"`
	Write    *WriteDoc    `json:"write,omitempty"`
	Unit     string       `json:"unit,omitempty"`
	Note     string       `json:"note,omitempty"` // why something is missing
}

// DesiredDoc is a desired value of a Document.
type DesiredDoc struct {
	Value   models.Value `json:"value"`
	Name    string       `json:"name,omitempty"` // an enum value's
	Time    time.Time    `json:"time"`
	By      string       `json:"by,omitempty"`
	Reason  string       `json:"reason,omitempty"`
	Version int64        `json:"version"`
	Expires *time.Time   `json:"expires,omitempty"`
}

// ReportedDoc is a reported value of a Document.
type ReportedDoc struct {
	Value   models.Value   `json:"value"`
	Name    string         `json:"name,omitempty"` // an enum value's
	Quality models.Quality `json:"quality"`
	Reason  models.Reason  `json:"reason,omitempty"`
	Since   *time.Time     `json:"since,omitempty"`
	Time    *time.Time     `json:"time,omitempty"` // of the value, absent when there never was one
}

// WriteDoc is how the write of a desired value is doing.
type WriteDoc struct {
	ID    string     `json:"id"`
	State WriteState `json:"state"`
	Error string     `json:"error,omitempty"`
	Time  time.Time  `json:"time"`
	Late  bool       `json:"late,omitempty"` // confirmed, but after it had expired
}

// Doc shows r as documents do, nil when nothing is known.
func (r Reported) Doc() *ReportedDoc { return r.doc(nil) }

func (r Reported) doc(enum map[int64]string) *ReportedDoc {
	if !r.Known() {
		return nil
	}
	d := &ReportedDoc{Value: r.Value, Name: enumName(r.Value, enum), Quality: r.Quality, Reason: r.Reason}
	if !r.Time.IsZero() {
		d.Time = new(r.Time.UTC())
	}
	if !r.Since.IsZero() {
		d.Since = new(r.Since.UTC())
	}
	return d
}

func (v DesiredValue) doc(enum map[int64]string) *DesiredDoc {
	return &DesiredDoc{Value: v.Value, Name: enumName(v.Value, enum), Time: v.Time.UTC(), By: v.By, Reason: v.Reason,
		Version: v.Version, Expires: v.Expires}
}

func (w Write) doc() *WriteDoc {
	if w.ID == "" {
		return nil
	}
	return &WriteDoc{ID: w.ID, State: w.State, Error: w.Error, Time: w.Time.UTC(), Late: w.Late}
}

func enumName(v models.Value, enum map[int64]string) string {
	i, ok := v.AsInt()
	if !ok {
		return ""
	}
	return enum[i]
}

// Delta returns the desired values that the reported ones do not equal.
func (d Document) Delta() map[string]models.Value {
	out := map[string]models.Value{}
	for name, p := range d.Properties {
		if p.Desired == nil {
			continue
		}
		if p.Reported == nil || p.Reported.Quality == models.Bad || !Same(p.Reported.Value, p.Desired.Value) {
			out[name] = p.Desired.Value
		}
	}
	return out
}

// Same reports whether two values are equal, numbers by their size.
func Same(a, b models.Value) bool {
	if order, ok := a.Compare(b); ok {
		return order == 0
	}
	return a == b
}

// StreamChange is a change of a twin as a stream tells it: coalesced state, not
// every change on the way.
type StreamChange struct {
	Cursor   string   // resume after this one
	Document Document // Properties holds the changed ones only
	Deleted  bool     // the device is gone, or no longer one that the stream shows: only its name and namespace count
}
