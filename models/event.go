package models

import "time"

// Severity is an event's type, in Kubernetes' words.
type Severity string

// The severities.
const (
	SeverityNormal  Severity = "Normal"
	SeverityWarning Severity = "Warning"
)

// ObjectReference names the object that an event is about, or a part of it.
type ObjectReference struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"` // "" for kinds that are in none
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
	FieldPath string `json:"fieldPath,omitempty"` // such as a device's property
}

// Occurrence is one thing that happened, as the part of Whimbrel tells it that
// saw it.
type Occurrence struct {
	Object   ObjectReference
	Severity Severity
	Reason   string    // one word in CamelCase; with Object it says what is alike
	Message  string    // a sentence for people
	Source   string    // which part says so, such as "sessions"
	Time     time.Time // zero: now
}

// EventSource says who saw an event.
type EventSource struct {
	Component string `json:"component,omitempty"`
	Host      string `json:"host,omitempty"` // the node whose log told of it
}

// LoggedEvent is what happened to an object: one document for all that is alike
// within a short time. It has the shape of Kubernetes' events.
type LoggedEvent struct {
	TypeMeta
	Metadata       ObjectMeta      `json:"metadata"` // resourceVersion grows with every change of any event
	InvolvedObject ObjectReference `json:"involvedObject"`
	Type           Severity        `json:"type"`
	Reason         string          `json:"reason"`
	Message        string          `json:"message"` // the latest one's
	Source         EventSource     `json:"source"`
	FirstTimestamp time.Time       `json:"firstTimestamp"`
	LastTimestamp  time.Time       `json:"lastTimestamp"`
	Count          int64           `json:"count"`
}

// EventOptions chooses events. The zero value is all.
type EventOptions struct {
	Namespaces []string // of the objects; "" is that of those in none. Empty: any
	HideKinds  []string // objects of these kinds are left out
	Kind       string
	Name       string
	UID        string
	Type       Severity
	Reason     string
	Since      time.Time // of the last time that it happened
	Limit      int
	Continue   string
}

// LoggedEvents is a page of events, the latest first.
type LoggedEvents struct {
	Items           []LoggedEvent
	ResourceVersion string // watch from here and nothing is missed
	Continue        string // "" on the last page
}

// EventChange is a line of a watch of events. Of a Bookmark only the version
// counts.
type EventChange struct {
	Type  EventType
	Event LoggedEvent
}
