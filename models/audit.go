package models

import (
	"slices"
	"strings"
	"time"
)

// AuditEntry says who changed an object or token, or ran a command in a pod.
type AuditEntry struct {
	ID              string    `json:"id"`
	Time            time.Time `json:"time"`
	By              string    `json:"by,omitempty"` // user; left out for the hub itself
	Action          string    `json:"action"`       // one of AuditActions
	Kind            string    `json:"kind"`         // of an object, or Token or Image
	Namespace       string    `json:"namespace,omitempty"`
	Name            string    `json:"name"`          // of a token: its user or node
	UID             string    `json:"uid,omitempty"` // of a token: its id
	ResourceVersion string    `json:"resourceVersion,omitempty"`
	Fields          []string  `json:"fields,omitempty"` // JSON Pointers to what changed
	// Exec is of the actions exec, before a command starts in a pod, and exec-ended.
	Exec *ExecRecord `json:"exec,omitempty"`
}

// AuditActions are the actions that entries can be of: joined and renewed are of
// nodes, exec and exec-ended of pods.
var AuditActions = []string{"created", "changed", "deleted", "joined", "renewed", "exec", "exec-ended"}

// AuditOptions chooses entries of the audit. The zero value is all.
type AuditOptions struct {
	By, Action, Kind, Namespace, Name, UID string
	Since                                  time.Time
}

// AuditKind is the kind of entries that a person means: an object's in any of its
// forms, or one that only the audit has. KindInvalid: there are none of such a kind.
func AuditKind(text string) (string, error) {
	var more []string
	for kind, forms := range map[string][]string{"Token": {"token", "tokens"}, "Image": {"image", "images"}} {
		if more = append(more, kind); slices.Contains(forms, strings.ToLower(text)) {
			return kind, nil
		}
	}
	return kindAmong(text, more...)
}

// EventKind is the kind of objects of which a person wants to see the events.
// KindInvalid: there is none such.
func EventKind(text string) (string, error) { return kindAmong(text) }

func kindAmong(text string, all ...string) (string, error) {
	if info, ok := KindByName(text); ok {
		return info.Kind, nil
	}
	for _, k := range Kinds {
		all = append(all, k.Kind)
	}
	slices.Sort(all)
	return "", BadParameter(KindInvalid, "kind", "must be one of %s, got %.40q", strings.Join(all, ", "), text)
}
