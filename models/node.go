package models

import (
	"encoding/json"
	"strings"
	"time"
)

// Node is a place where an edge runtime runs. It is registered by its join, or
// ahead of it by a user.
type Node struct {
	TypeMeta
	Metadata ObjectMeta  `json:"metadata"`
	Spec     NodeSpec    `json:"spec"`
	Status   *NodeStatus `json:"status,omitempty"`
}

// NodeSpec is what a user says of a node.
type NodeSpec struct {
	Description string `json:"description,omitempty"`
}

// NodeStatus is what the hub knows of a node.
type NodeStatus struct {
	Conditions []Condition  `json:"conditions,omitempty"` // Ready is True while the node is connected
	NodeInfo   NodeInfo     `json:"nodeInfo,omitzero"`
	LastSeen   *time.Time   `json:"lastSeen,omitempty"`
	Outbox     *OutboxState `json:"outbox,omitempty"`
	// CertificateExpires is when the node's client certificate ends.
	CertificateExpires *time.Time `json:"certificateExpires,omitempty"`
}

// NodeInfo is what an edge says of itself.
type NodeInfo struct {
	Version      string   `json:"version,omitempty"`
	OS           string   `json:"os,omitempty"`
	Architecture string   `json:"architecture,omitempty"`
	Capability   int      `json:"capability,omitempty"` // of the link
	Capabilities []string `json:"capabilities,omitempty"`
	Address      string   `json:"address,omitempty"` // the remote address the hub sees
	// ContainerRuntimeVersion is of the engine that runs the node's pods.
	ContainerRuntimeVersion string `json:"containerRuntimeVersion,omitempty"`
}

// OutboxState is how an edge's outbox is doing.
type OutboxState struct {
	Epoch    string `json:"epoch"`
	LastSeq  uint64 `json:"lastSeq"`
	AckedSeq uint64 `json:"ackedSeq"`
	Records  uint64 `json:"records"`
	Bytes    uint64 `json:"bytes"`
	Dropped  uint64 `json:"dropped"`
}

// Type implements Object.
func (n *Node) Type() *TypeMeta { return &n.TypeMeta }

// Meta implements Object.
func (n *Node) Meta() *ObjectMeta { return &n.Metadata }

// ClearStatus implements Object.
func (n *Node) ClearStatus() { n.Status = nil }

// Default implements Object.
func (n *Node) Default() {}

// Validate implements Object.
func (n *Node) Validate() []FieldError { return validateMeta(&n.Metadata, false, CheckSubdomain) }

// Mapper is a protocol mapper: its name is what DeviceModel.spec.protocol says.
type Mapper struct {
	TypeMeta
	Metadata ObjectMeta    `json:"metadata"`
	Spec     MapperSpec    `json:"spec"`
	Status   *MapperStatus `json:"status,omitempty"`
}

// MapperSpec says what a mapper accepts.
type MapperSpec struct {
	Description string          `json:"description,omitempty"`
	Version     string          `json:"version"`
	Connection  json.RawMessage `json:"connection"` // JSON Schema (2020-12) of Device.spec.connection
	Address     json.RawMessage `json:"address"`    // JSON Schema (2020-12) of a property's address
	// Property, where given, is a JSON Schema (2020-12) of {name, type, access,
	// unit, minimum, maximum, enum, write, address}: a property as it holds, all
	// of it that is no matter of polling. It says how an address must fit the
	// rest. Where it does not hold, the description nearest to what failed is what
	// the user reads. More fields may come.
	Property json.RawMessage `json:"property,omitempty"`
}

// MapperStatus is which nodes have a mapper, as they announced it since the hub
// started.
type MapperStatus struct {
	Nodes      []MapperNode `json:"nodes,omitempty"`
	Conditions []Condition  `json:"conditions,omitempty"` // Agreed is False while a node has another idea of the mapper
}

// MapperNode is a node that has a mapper.
type MapperNode struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Problem string `json:"problem,omitempty"` // why what it announced was not taken
}

// Type implements Object.
func (m *Mapper) Type() *TypeMeta { return &m.TypeMeta }

// Meta implements Object.
func (m *Mapper) Meta() *ObjectMeta { return &m.Metadata }

// ClearStatus implements Object.
func (m *Mapper) ClearStatus() { m.Status = nil }

// Default implements Object.
func (m *Mapper) Default() {
	for _, schema := range []*json.RawMessage{&m.Spec.Connection, &m.Spec.Address} {
		if len(*schema) == 0 {
			*schema = json.RawMessage("true")
		}
	}
}

// Validate implements Object. That the schemas compile is the registry's to check.
func (m *Mapper) Validate() []FieldError {
	errs := validateMeta(&m.Metadata, false, CheckSubdomain)
	if m.Spec.Version == "" {
		errs = append(errs, FieldError{"/spec/version", "is required"})
	}
	for field, schema := range map[string]json.RawMessage{"connection": m.Spec.Connection, "address": m.Spec.Address, "property": m.Spec.Property} {
		if s := string(schema); (s != "" || field != "property") && !strings.HasPrefix(s, "{") && s != "true" && s != "false" {
			errs = append(errs, FieldError{"/spec/" + field, "must be a JSON Schema"})
		}
	}
	return errs
}

// Role is what a user may do.
type Role string

// The roles, each including the ones before.
const (
	Viewer   Role = "viewer"   // read objects, twins, history
	Operator Role = "operator" // + desired writes, reads on demand
	Admin    Role = "admin"    // + objects, tokens, users, secrets
)

// AllNamespaces is a user's namespace when the role holds in every one.
const AllNamespaces = "*"

// User is someone with API tokens.
type User struct {
	TypeMeta
	Metadata ObjectMeta      `json:"metadata"`
	Spec     UserSpec        `json:"spec"`
	Status   json.RawMessage `json:"status,omitempty"`
}

// UserSpec is a user's role and where it holds.
type UserSpec struct {
	Role      Role   `json:"role"`
	Namespace string `json:"namespace,omitempty"` // default "default"; "*" is every namespace
}

// Type implements Object.
func (u *User) Type() *TypeMeta { return &u.TypeMeta }

// Meta implements Object.
func (u *User) Meta() *ObjectMeta { return &u.Metadata }

// ClearStatus implements Object.
func (u *User) ClearStatus() { u.Status = nil }

// Default implements Object.
func (u *User) Default() {
	if u.Spec.Namespace == "" {
		u.Spec.Namespace = DefaultNamespace
	}
}

// Validate implements Object.
func (u *User) Validate() []FieldError {
	errs := validateMeta(&u.Metadata, false, CheckSubdomain)
	switch u.Spec.Role {
	case Viewer, Operator, Admin:
	default:
		errs = append(errs, FieldError{"/spec/role", "must be viewer, operator or admin, got " + quoteShort(string(u.Spec.Role))})
	}
	if u.Spec.Namespace != AllNamespaces {
		if msg := CheckLabelName(u.Spec.Namespace); msg != "" {
			errs = append(errs, FieldError{"/spec/namespace", msg + `, or "*" for all`})
		}
	}
	return errs
}
