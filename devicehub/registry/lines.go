package registry

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/whimbrel-edge/whimbrel/internal/schema"
	"github.com/whimbrel-edge/whimbrel/models"
)

// A serial line of a node has one set of settings, whoever is on it: the port is
// open once. A device that comes onto a line where others disagree is refused. A
// device that is on it may change its settings, or else nobody could change those of
// a line with several devices; until the others follow, all of them have a
// condition.

// lineOf returns the line that a device is on, by its mapper's schema. get finds
// objects.
func lineOf(d *models.Device, get func(models.Key) *entry) (schema.Line, bool) {
	if d.Spec.Node == "" {
		return schema.Line{}, false
	}
	model := get(modelKey(d))
	if model == nil {
		return schema.Line{}, false
	}
	mapper := get(models.Key{Kind: "Mapper", Name: model.object.(*models.DeviceModel).Spec.Protocol})
	if mapper == nil || mapper.schemas == nil || mapper.schemas.connection == nil {
		return schema.Line{}, false
	}
	return mapper.schemas.connection.LineOf(d.Spec.Connection)
}

// stranger is a device that uses a line otherwise.
type stranger struct {
	key         models.Key
	differences string
}

// strangers finds who of a node's devices uses a line otherwise, in the order of
// their names.
func strangers(d *models.Device, line schema.Line, others []*models.Device, get func(models.Key) *entry) (out []stranger) {
	me := models.KeyOf(d)
	for _, other := range others {
		key := models.KeyOf(other)
		if key == me {
			continue
		}
		if theirs, ok := lineOf(other, get); ok && theirs.Path == line.Path {
			if differences := line.Differences(theirs); differences != "" {
				out = append(out, stranger{key, differences})
			}
		}
	}
	slices.SortFunc(out, func(a, b stranger) int { return strings.Compare(a.key.String(), b.key.String()) })
	return out
}

// checkLine refuses a device that comes onto a line whose settings it does not
// share.
func (s *stage) checkLine(d *models.Device) error {
	line, ok := lineOf(d, s.get)
	if !ok {
		return nil
	}
	if before := s.get(models.KeyOf(d)); before != nil {
		was := before.object.(*models.Device)
		if old, ok := lineOf(was, s.get); ok && was.Spec.Node == d.Spec.Node && old.Path == line.Path {
			return nil
		}
	}
	var others []*models.Device
	for uid := range s.r.byNode[d.Spec.Node] {
		e := s.r.byUID[uid]
		if _, staged := s.objects[models.KeyOf(e.object)]; !staged {
			others = append(others, e.object.(*models.Device))
		}
	}
	for _, e := range s.objects {
		if e != nil {
			if other, is := e.object.(*models.Device); is && other.Spec.Node == d.Spec.Node {
				others = append(others, other)
			}
		}
	}
	if who := strangers(d, line, others, s.get); len(who) > 0 {
		return models.Invalid("/spec/connection", "%s of node %s is used otherwise by %s: %s; devices on one line have the same settings", line.Path, d.Spec.Node, who[0].key, who[0].differences)
	}
	return nil
}

// lineCondition says who uses a device's line otherwise; ok is false when nobody
// does.
func (r *Registry) lineCondition(d *models.Device) (c models.Condition, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	line, ok := lineOf(d, r.getLocked)
	if !ok {
		return c, false
	}
	who := strangers(d, line, r.devicesAtLocked(d.Spec.Node), r.getLocked)
	if len(who) == 0 {
		return c, false
	}
	c = models.Condition{Type: "LineAgreed", Status: "False", Reason: "LineSettingsDiffer", LastTransitionTime: *d.Metadata.CreationTimestamp,
		Message: fmt.Sprintf("%s uses %s otherwise: %s; devices on one line have the same settings", who[0].key, line.Path, who[0].differences)}
	if n := len(who) - 1; n > 0 {
		c.Message += fmt.Sprintf(" (and %d more)", n)
	}
	return c, true
}

func (r *Registry) getLocked(key models.Key) *entry { return r.objects[key] }

func (r *Registry) devicesAtLocked(node string) []*models.Device {
	out := make([]*models.Device, 0, len(r.byNode[node]))
	for uid := range r.byNode[node] {
		out = append(out, r.byUID[uid].object.(*models.Device))
	}
	return out
}

// lineChangedLocked tells of the devices whose condition a change of another one on
// their line decides.
func (r *Registry) lineChangedLocked(c change) {
	if c.before != nil && c.typ == models.Modified {
		was, is := c.before.object.(*models.Device)
		if now, ok := c.entry.object.(*models.Device); is && ok && was.Spec.Node == now.Spec.Node && bytes.Equal(was.Spec.Connection, now.Spec.Connection) {
			return
		}
	}
	mates := map[models.Key]bool{}
	for _, e := range []*entry{c.before, c.entry} {
		if e == nil {
			continue
		}
		d, is := e.object.(*models.Device)
		if !is {
			return
		}
		line, ok := lineOf(d, r.getLocked)
		if !ok {
			continue
		}
		for _, other := range r.devicesAtLocked(d.Spec.Node) {
			if theirs, ok := lineOf(other, r.getLocked); ok && theirs.Path == line.Path && models.KeyOf(other) != models.KeyOf(d) {
				mates[models.KeyOf(other)] = true
			}
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(mates), func(a, b models.Key) int { return strings.Compare(a.String(), b.String()) }) {
		r.statusChangedLocked(key, c.revision)
	}
}
