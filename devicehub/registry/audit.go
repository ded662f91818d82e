package registry

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// auditActions are the audit's words for changes of objects.
var auditActions = map[models.EventType]string{models.Added: store.AuditCreated, models.Modified: store.AuditChanged, models.Deleted: store.AuditDeleted}

// audited is what the audit keeps of the staged changes: those of objects. Desired
// values are no objects.
func (s *stage) audited() (out []store.AuditEntry) {
	now := s.r.now().UTC()
	for _, ch := range s.changes {
		if ch.entry == nil || ch.desired != nil || ch.quiet {
			continue
		}
		key := models.KeyOf(ch.entry.object)
		e := store.AuditEntry{Time: now, By: ch.by, Action: auditActions[ch.typ], Kind: key.Kind, Namespace: key.Namespace, Name: key.Name,
			UID: ch.entry.object.Meta().UID, Revision: ch.revision}
		if ch.typ == models.Modified {
			e.Fields = strings.Join(changedFields(ch.before.json, ch.entry.json), "\n")
		}
		out = append(out, e)
	}
	return out
}

// maxAuditFields bounds the fields that the audit names of one change.
const maxAuditFields = 50

// changedFields returns JSON Pointers to what differs between two documents. It
// tells where and not what: values may be private. A list is one field.
func changedFields(before, after []byte) []string {
	var out []string
	compareFields("", before, after, &out)
	slices.Sort(out)
	return out[:min(len(out), maxAuditFields)]
}

func compareFields(at string, before, after []byte, out *[]string) {
	if bytes.Equal(before, after) {
		return
	}
	var b, a map[string]json.RawMessage
	if json.Unmarshal(before, &b) != nil || json.Unmarshal(after, &a) != nil || b == nil || a == nil {
		*out = append(*out, at)
		return
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	for name := range b {
		if a[name] == nil {
			*out = append(*out, at+"/"+escape.Replace(name))
		} else {
			compareFields(at+"/"+escape.Replace(name), b[name], a[name], out)
		}
	}
	for name := range a {
		if b[name] == nil {
			*out = append(*out, at+"/"+escape.Replace(name))
		}
	}
}
