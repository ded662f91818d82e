package identity

import (
	"errors"
	"fmt"
	"slices"
)

// A Role is a step on a ladder: each may do what the lower ones may.
type Role string

// The ladder.
const (
	Viewer   Role = "viewer"
	Operator Role = "operator"
	Admin    Role = "admin"
)

// rank orders the roles; an unknown role ranks nowhere.
func (r Role) rank() int {
	return slices.Index([]Role{Viewer, Operator, Admin}, r)
}

// Valid reports whether r is one of the three roles.
func (r Role) Valid() bool { return r.rank() >= 0 }

// Includes reports whether r may do what other may.
func (r Role) Includes(other Role) bool {
	return other.Valid() && r.rank() >= other.rank()
}

const (
	// AllNamespaces in a binding is every namespace and the objects in none.
	// In a question it is "in every one of them", as a list across
	// namespaces needs.
	AllNamespaces = "*"
	// ClusterScope in a question is the objects in no namespace: nodes,
	// mappers, users. In a binding it is nothing, and grants nothing.
	ClusterScope = ""
)

// A Binding gives a role in one namespace, or in AllNamespaces.
type Binding struct {
	Role      Role
	Namespace string
}

// An Identity is an authenticated user.
type Identity struct {
	User     string
	UserUID  string
	TokenID  string // which of the user's tokens it was
	Bindings []Binding
}

// ErrForbidden: the caller is known, and may not.
var ErrForbidden = errors.New("forbidden")

// Authorize says whether id holds the needed role in a namespace; the error wraps
// ErrForbidden and names what is missing.
//
// In a namespace, and in AllNamespaces, a binding for it or for AllNamespaces
// counts. In ClusterScope:
//
//   - Viewer is granted by any valid binding. Whoever sees a device in some
//     namespace must be able to see the node that it is on and the mapper that
//     speaks to it. Users are not for viewers: ask for Admin to read them too.
//   - more than Viewer needs the role in AllNamespaces, as what is changed there
//     changes for everyone. Writes to cluster-scoped objects ask for Admin.
func Authorize(id Identity, need Role, namespace string) error {
	for _, b := range id.Bindings {
		if !b.Role.Includes(need) || b.Namespace == ClusterScope {
			continue
		}
		switch {
		case b.Namespace == AllNamespaces,
			b.Namespace == namespace,
			namespace == ClusterScope && need == Viewer:
			return nil
		}
	}
	where := fmt.Sprintf("namespace %q", namespace)
	if namespace == AllNamespaces || namespace == ClusterScope {
		where = "all namespaces"
	}
	return fmt.Errorf("%w: user %q needs the role %s in %s", ErrForbidden, id.User, need, where)
}

// Namespaces lists where id holds the needed role, sorted; all means everywhere,
// and then the list is nil. It is for narrowing a list across namespaces.
func Namespaces(id Identity, need Role) (names []string, all bool) {
	for _, b := range id.Bindings {
		switch {
		case !b.Role.Includes(need) || b.Namespace == ClusterScope:
		case b.Namespace == AllNamespaces:
			return nil, true
		default:
			names = append(names, b.Namespace)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), false
}

// Validate refuses a binding that would grant nothing or is misspelt.
func (b Binding) Validate() error {
	if !b.Role.Valid() {
		return fmt.Errorf("role %q is none of %s, %s, %s", b.Role, Viewer, Operator, Admin)
	}
	if b.Namespace == ClusterScope {
		return errors.New("binding names neither a namespace nor all of them")
	}
	return nil
}
