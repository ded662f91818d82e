package opcuasim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/server"
	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/protocols/opcua"
)

// space is the nodes' namespace. gopcua's own takes what is written as it
// comes, without a lock, and tells of no types; this one does not.
type space struct {
	*server.NodeNameSpace
	sim *Server
}

// build hangs the nodes into a server that has not started.
func (s *Server) build(srv *server.Server) {
	last := uint16(len(s.namespaces) - 1)
	for _, n := range s.nodes {
		last = max(last, n.id.Namespace())
	}
	spaces := map[uint16]*space{}
	for ns := uint16(1); ns <= last; ns++ {
		name := fmt.Sprintf("urn:whimbrel:simulator:%s:nodes:%d", s.cfg.Name, ns)
		if int(ns) < len(s.namespaces) {
			name = s.namespaces[ns]
		}
		inner := server.NewNodeNameSpace(srv, name)
		// NewNodeNameSpace has entered itself; the wrapper takes its place.
		spaces[ns] = &space{NodeNameSpace: inner, sim: s}
		srv.Namespaces()[inner.ID()] = spaces[ns]
	}
	folder := browsable(ua.NewStringNodeID(Namespace, s.cfg.Name), s.cfg.Name, ua.NodeClassObject, id.FolderType)
	spaces[Namespace].AddNode(folder)
	root, _ := srv.Namespace(0)
	if of := root.Node(objects); of != nil {
		of.AddRef(folder, id.Organizes, true)
	}
	for _, n := range s.nodes {
		variable := browsable(n.id, n.name, ua.NodeClassVariable, id.BaseDataVariableType)
		spaces[n.id.Namespace()].AddNode(variable)
		folder.AddRef(variable, id.HasComponent, true)
		if n.cfg.Unit != "" {
			units := engineeringUnits(n)
			spaces[ownNamespace].AddNode(units)
			variable.AddRef(units, hasProperty, true)
		}
	}
}

const (
	hasProperty  = 46 // that is a node's
	propertyType = 68
	ownNamespace = 1 // the server's own, of what nobody configured
)

// engineeringUnits is the node that tells another's unit.
func engineeringUnits(n *node) *server.Node {
	value := ua.NewExtensionObject(&ua.EUInformation{NamespaceURI: "http://www.opcfoundation.org/UA/units/un/cefact", UnitID: -1,
		DisplayName: ua.NewLocalizedText(n.cfg.Unit), Description: ua.NewLocalizedText(n.cfg.Unit)})
	return server.NewNode(ua.NewStringNodeID(ownNamespace, n.id.String()+" EngineeringUnits"), server.Attributes{
		ua.AttributeIDNodeClass:   server.DataValueFromValue(uint32(ua.NodeClassVariable)),
		ua.AttributeIDBrowseName:  server.DataValueFromValue(&ua.QualifiedName{Name: "EngineeringUnits"}),
		ua.AttributeIDDisplayName: server.DataValueFromValue(ua.NewLocalizedText("EngineeringUnits")),
		ua.AttributeIDDataType:    server.DataValueFromValue(ua.NewNumericExpandedNodeID(0, propertyType)),
	}, nil, func() *ua.DataValue { return server.DataValueFromValue(value) })
}

// browsable is a node as browsing finds it; its value is the space's.
func browsable(nid *ua.NodeID, name string, class ua.NodeClass, typ uint32) *server.Node {
	return server.NewNode(nid, server.Attributes{
		ua.AttributeIDNodeClass:   server.DataValueFromValue(uint32(class)),
		ua.AttributeIDBrowseName:  server.DataValueFromValue(&ua.QualifiedName{NamespaceIndex: nid.Namespace(), Name: name}),
		ua.AttributeIDDisplayName: server.DataValueFromValue(ua.NewLocalizedText(name)),
		ua.AttributeIDDescription: server.DataValueFromValue(ua.NewLocalizedText(name)),
		// gopcua tells this as the type definition.
		ua.AttributeIDDataType: server.DataValueFromValue(ua.NewNumericExpandedNodeID(0, typ)),
	}, nil, nil)
}

func failed(status ua.StatusCode) *ua.DataValue {
	return &ua.DataValue{EncodingMask: ua.DataValueServerTimestamp | ua.DataValueStatusCode, ServerTimestamp: time.Now(), Status: status}
}

// Attribute implements server.NameSpace.
func (sp *space) Attribute(nid *ua.NodeID, a ua.AttributeID) *ua.DataValue {
	n := sp.sim.byID[nid.String()]
	if n == nil {
		return sp.NodeNameSpace.Attribute(nid, a)
	}
	now := time.Now()
	if a == ua.AttributeIDValue {
		sp.sim.mu.Lock()
		defer sp.sim.mu.Unlock()
		return n.value(now)
	}
	if v := n.attribute(a); v != nil {
		return &ua.DataValue{EncodingMask: ua.DataValueValue | ua.DataValueServerTimestamp, Value: v, ServerTimestamp: now}
	}
	return sp.NodeNameSpace.Attribute(nid, a)
}

// SetAttribute implements server.NameSpace.
func (sp *space) SetAttribute(nid *ua.NodeID, a ua.AttributeID, v *ua.DataValue) ua.StatusCode {
	return sp.sim.write(nid, a, "", v)
}

// write carries out one write of a client.
func (s *Server) write(nid *ua.NodeID, a ua.AttributeID, indexRange string, v *ua.DataValue) ua.StatusCode {
	n := s.byID[nid.String()]
	switch {
	case n == nil:
		return ua.StatusBadNodeIDUnknown
	case a != ua.AttributeIDValue, !n.cfg.Writable:
		return ua.StatusBadNotWritable
	case v == nil || v.Value == nil:
		return ua.StatusBadTypeMismatch
	}
	s.mu.Lock()
	status := s.writeLocked(n, indexRange, v.Value)
	changed := s.changedLocked()
	s.mu.Unlock()
	s.notify(changed)
	return status
}

func (s *Server) writeLocked(n *node, indexRange string, v *ua.Variant) ua.StatusCode {
	now := time.Now()
	if n.replayed {
		return s.writeReplayedLocked(n, v, now)
	}
	if n.shape.Array {
		if indexRange != "" {
			merged, status := n.replace(indexRange, v)
			if status != ua.StatusOK {
				return status
			}
			v = merged
		}
		if opcua.ShapeOf(v) != n.shape {
			return ua.StatusBadTypeMismatch
		}
		n.variant, n.at = v, now
		s.dirty = append(s.dirty, n)
		s.log(Write{Time: now, Node: n.name, Value: v.Value()})
		return ua.StatusOK
	}
	if indexRange != "" {
		return ua.StatusBadIndexRangeNoData
	}
	if opcua.ShapeOf(v) != n.shape {
		return ua.StatusBadTypeMismatch
	}
	value, err := n.asSignal(v)
	if err != nil {
		return ua.StatusBadTypeMismatch
	}
	if !n.within(value) {
		return ua.StatusBadOutOfRange
	}
	if err := s.set.Put(n.signal, value); err != nil {
		return ua.StatusBadTypeMismatch
	}
	s.log(Write{Time: now, Node: n.name, Value: value})
	s.stepLocked(now)
	return ua.StatusOK
}

// replace puts elements into an array, at "3" or "3:5".
func (n *node) replace(indexRange string, v *ua.Variant) (*ua.Variant, ua.StatusCode) {
	first, _, _ := strings.Cut(indexRange, ":")
	at, err := strconv.Atoi(first)
	if err != nil || at < 0 {
		return nil, ua.StatusBadIndexRangeInvalid
	}
	if v.Type() != n.shape.Type || !v.Has(ua.VariantArrayValues) {
		return nil, ua.StatusBadTypeMismatch
	}
	out, ok := splice(n.variant.Value(), v.Value(), at)
	if !ok {
		return nil, ua.StatusBadIndexRangeNoData
	}
	merged, err := ua.NewVariant(out)
	if err != nil {
		return nil, ua.StatusBadTypeMismatch
	}
	return merged, ua.StatusOK
}
