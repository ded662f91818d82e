package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
)

// AnnouncedBy is the annotation of a Mapper object that a node's announcement
// made: its value is the node that changed it last. Announcements of newer
// versions go on to change it. Without it, the object is its user's or ships
// with the hub, and no announcement changes it.
const AnnouncedBy = "whimbrel/announced-by"

// Announce takes a mapper that a node has. A new one becomes an object; a newer
// version replaces what a node announced before, as long as the models and
// devices there are go on to fit. An older one changes nothing: nodes of several
// releases may have one mapper. An error says why the announcement was not
// taken, which is nothing that trying again would mend: another idea of the same
// version (KindConflict), or one that nothing fits.
func (r *Registry) Announce(ctx context.Context, node string, name string, spec models.MapperSpec) error {
	return r.change(ctx, func(s *stage) error {
		s.by = "node " + node
		m := &models.Mapper{TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "Mapper"}, Metadata: models.ObjectMeta{Name: name}, Spec: spec}
		m.Default()
		if errs := m.Validate(); len(errs) > 0 {
			return &models.Error{Kind: models.KindInvalid, Fields: errs}
		}
		before := s.get(models.KeyOf(m))
		if before != nil {
			old := before.object.(*models.Mapper)
			same := sameJSON(old.Spec.Connection, m.Spec.Connection) && sameJSON(old.Spec.Address, m.Spec.Address) && sameJSON(old.Spec.Property, m.Spec.Property)
			switch order := compareVersions(m.Spec.Version, old.Spec.Version); {
			case order == 0 && same:
				return nil
			case order == 0:
				return models.Errorf(models.KindConflict, "version %s of mapper %s has other schemas here than on node %s: what changes needs a version of its own", m.Spec.Version, name, node)
			case order < 0 || old.Metadata.Annotations[AnnouncedBy] == "":
				return nil
			}
			m.Metadata.Labels, m.Metadata.Annotations = old.Metadata.Labels, old.Metadata.Annotations
		}
		annotations := map[string]string{}
		for k, v := range m.Metadata.Annotations {
			annotations[k] = v
		}
		annotations[AnnouncedBy] = node
		m.Metadata.Annotations = annotations
		e, err := s.checkMapper(m)
		if err != nil {
			return err
		}
		return s.put(m, e)
	})
}

// sameJSON reports whether two documents say the same, however they are written.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	// Maps are written in the order of their keys.
	one, err1 := json.Marshal(x)
	two, err2 := json.Marshal(y)
	return err1 == nil && err2 == nil && bytes.Equal(one, two)
}

// compareVersions orders versions such as 1.10.0 and 1.9.2: numbers as numbers,
// anything else as text. What is longer is newer, except that 1.0.0-rc1 comes
// before 1.0.0.
func compareVersions(a, b string) int {
	a, aPre, aHas := strings.Cut(strings.TrimPrefix(a, "v"), "-")
	b, bPre, bHas := strings.Cut(strings.TrimPrefix(b, "v"), "-")
	order := slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), comparePart)
	if order != 0 || !aHas && !bHas {
		return order
	}
	if aHas != bHas {
		if aHas {
			return -1
		}
		return 1
	}
	return slices.CompareFunc(strings.Split(aPre, "."), strings.Split(bPre, "."), comparePart)
}

func comparePart(a, b string) int {
	x, err1 := strconv.ParseUint(a, 10, 64)
	y, err2 := strconv.ParseUint(b, 10, 64)
	if err1 == nil && err2 == nil {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(a, b)
}
