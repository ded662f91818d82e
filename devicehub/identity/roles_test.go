package identity

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestAuthorize(t *testing.T) {
	in := func(ns string, roles ...Role) Identity {
		id := Identity{User: "anna"}
		for _, r := range roles {
			id.Bindings = append(id.Bindings, Binding{Role: r, Namespace: ns})
		}
		return id
	}
	mixed := Identity{User: "anna", Bindings: []Binding{{Operator, "plant"}, {Viewer, AllNamespaces}}}
	for _, c := range []struct {
		name  string
		id    Identity
		need  Role
		where string
		ok    bool
	}{
		{"viewer reads", in("plant", Viewer), Viewer, "plant", true},
		{"viewer writes", in("plant", Viewer), Operator, "plant", false},
		{"viewer administers", in("plant", Viewer), Admin, "plant", false},
		{"operator reads", in("plant", Operator), Viewer, "plant", true},
		{"operator writes", in("plant", Operator), Operator, "plant", true},
		{"operator administers", in("plant", Operator), Admin, "plant", false},
		{"admin does all", in("plant", Admin), Admin, "plant", true},
		{"admin elsewhere", in("plant", Admin), Viewer, "office", false},
		{"admin of all", in(AllNamespaces, Admin), Admin, "office", true},
		{"two bindings, the better counts", in("plant", Viewer, Admin), Admin, "plant", true},
		{"mixed reads anywhere", mixed, Viewer, "office", true},
		{"mixed writes at home", mixed, Operator, "plant", true},
		{"mixed writes elsewhere", mixed, Operator, "office", false},

		{"across namespaces, one", in("plant", Admin), Viewer, AllNamespaces, false},
		{"across namespaces, all", in(AllNamespaces, Viewer), Viewer, AllNamespaces, true},

		{"cluster: any viewer reads", in("plant", Viewer), Viewer, ClusterScope, true},
		{"cluster: operator of one", in("plant", Operator), Operator, ClusterScope, false},
		{"cluster: admin of one writes", in("plant", Admin), Admin, ClusterScope, false},
		{"cluster: operator of all writes", in(AllNamespaces, Operator), Admin, ClusterScope, false},
		{"cluster: admin of all writes", in(AllNamespaces, Admin), Admin, ClusterScope, true},

		{"nobody", Identity{}, Viewer, ClusterScope, false},
		{"binding without namespace", in("", Admin), Viewer, ClusterScope, false},
		{"binding without namespace, anywhere", in("", Admin), Viewer, "plant", false},
		{"unknown role held", in(AllNamespaces, "root"), Viewer, "plant", false},
		{"unknown role asked", in(AllNamespaces, Admin), "root", "plant", false},
		{"no role asked", in(AllNamespaces, Admin), "", "plant", false},
	} {
		err := Authorize(c.id, c.need, c.where)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && (!errors.Is(err, ErrForbidden) || c.where != "" && c.where != "*" && !strings.Contains(err.Error(), c.where)) {
			t.Errorf("%s: unhelpful error %v", c.name, err)
		}
	}
}

func TestNamespaces(t *testing.T) {
	id := Identity{Bindings: []Binding{{Operator, "plant"}, {Viewer, "office"}, {Admin, "plant"}, {Admin, ""}, {"root", "x"}}}
	if names, all := Namespaces(id, Viewer); all || !slices.Equal(names, []string{"office", "plant"}) {
		t.Errorf("viewer in %v, %v", names, all)
	}
	if names, all := Namespaces(id, Admin); all || !slices.Equal(names, []string{"plant"}) {
		t.Errorf("admin in %v, %v", names, all)
	}
	id.Bindings = append(id.Bindings, Binding{Operator, AllNamespaces})
	if names, all := Namespaces(id, Operator); !all || names != nil {
		t.Errorf("operator in %v, %v", names, all)
	}
}

func TestBindingValidate(t *testing.T) {
	for b, ok := range map[Binding]bool{
		{Viewer, "plant"}: true, {Admin, AllNamespaces}: true,
		{Viewer, ""}: false, {"Admin", "plant"}: false, {"", "plant"}: false,
	} {
		if err := b.Validate(); (err == nil) != ok {
			t.Errorf("%v: %v", b, err)
		}
	}
}
