package opcua

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/opcua"
)

// Bounds of a walk through an address space.
const (
	browseNodes = 10_000 // known; the walk ends there and says so
	browseDepth = 16     // below the Objects folder
	browseBatch = 50     // nodes in one request, unless the server takes fewer
	browsePage  = 100    // references of one node in one answer
	browseNotes = 100    // told of nodes that cannot be looked into
)

var _ mappers.Browser = (*Driver)(nil)

// Browse implements mappers.Browser: the variables below the Objects folder, but
// for the server's own. Where two ways lead to one, it is found on the shorter.
func (d *Driver) Browse(ctx context.Context, cfg mappers.DeviceConfig, found func(models.Found) error) error {
	return d.browse(ctx, cfg, browsing{found: found, batch: browseBatch, nodes: browseNodes})
}

func (d *Driver) browse(ctx context.Context, cfg mappers.DeviceConfig, b browsing) error {
	cfg.Points = nil
	opened, err := d.Open(cfg)
	if err != nil {
		return err
	}
	dev := opened.(*device)
	defer dev.Close()
	b.dev = dev
	if b.s, err = dev.link.session(ctx); err != nil {
		return err
	}
	if err := b.walk(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}

// browsing is one walk, with a session of its own.
type browsing struct {
	dev   *device
	s     *session
	found func(models.Found) error
	batch int // nodes in one request
	nodes int // at most

	closed int // nodes that cannot be looked into
}

// about are properties of objects that tell something about the node and are no
// values of the device. All properties of variables are such.
var about = []string{"NodeVersion", "DefaultInstanceBrowseName", "InputArguments", "OutputArguments", "DictionaryFragment", "DataTypeVersion", "Icon"}

// own are the nodes in the Objects folder that are the server's, not a device's:
// its diagnostics, its aliases and its list of places.
var own = []uint32{id.Server, aliases, locations}

// Numbers of the specification that gopcua has no names for.
const (
	hasProperty = 46
	aliases     = 23470
	locations   = 31915
)

// visit is a node on the way.
type visit struct {
	node     *ua.NodeID
	path     []string
	variable bool
	units    *ua.NodeID // a variable's engineering units, nil for none
}

// walk visits what is below the Objects folder, level by level, each node once
// however many ways lead to it.
func (b *browsing) walk(ctx context.Context) error {
	level := []visit{{node: ua.NewNumericNodeID(0, id.ObjectsFolder)}}
	seen := map[string]bool{level[0].node.String(): true}
	var many, deep bool
	for len(level) > 0 {
		var next []visit
		for len(level) > 0 {
			batch, refs, err := b.children(ctx, level)
			if err != nil {
				return err
			}
			level = level[len(batch):]
			for i := range batch {
				at := &batch[i]
				for _, ref := range refs[i] {
					if ref == nil || ref.NodeID == nil || ref.NodeID.NodeID == nil || ref.NodeID.ServerIndex != 0 || ref.BrowseName == nil {
						continue // on another server, or nowhere
					}
					node, name := ref.NodeID.NodeID, ref.BrowseName.Name
					switch described := isProperty(ref); {
					case described && at.variable:
						if name == "EngineeringUnits" {
							at.units = node
						}
						continue
					case described && slices.Contains(about, name),
						node.Namespace() == 0 && slices.Contains(own, node.IntID()),
						seen[node.String()]:
						continue
					case len(seen) >= b.nodes:
						many = true
						continue
					case len(at.path) >= browseDepth:
						deep = true
						continue
					}
					seen[node.String()] = true
					next = append(next, visit{node: node, path: append(slices.Clone(at.path), name), variable: ref.NodeClass == ua.NodeClassVariable})
				}
			}
			if err := b.tell(ctx, batch); err != nil { // now that their units are known
				return err
			}
		}
		level = next
	}
	var cut []string
	if many {
		cut = append(cut, fmt.Sprintf("the address space has more than %d nodes: the rest is left out", b.nodes))
	}
	if deep {
		cut = append(cut, fmt.Sprintf("the address space is deeper than %d levels: what is below is left out", browseDepth))
	}
	if more := b.closed - browseNotes; more > 0 {
		cut = append(cut, fmt.Sprintf("%d more nodes cannot be looked into", more))
	}
	for _, note := range cut {
		if err := b.found(models.Found{Note: note}); err != nil {
			return err
		}
	}
	return nil
}

func isProperty(ref *ua.ReferenceDescription) bool {
	return ref.ReferenceTypeID != nil && ref.ReferenceTypeID.Namespace() == 0 && ref.ReferenceTypeID.IntID() == hasProperty
}

// children returns the hierarchical references of as many of the nodes as fit
// one request, all pages of them.
func (b *browsing) children(ctx context.Context, of []visit) (batch []visit, refs [][]*ua.ReferenceDescription, err error) {
	var answer *ua.BrowseResponse
	for {
		batch = of[:min(b.batch, len(of))]
		req := &ua.BrowseRequest{View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)}, RequestedMaxReferencesPerNode: browsePage}
		for _, v := range batch {
			req.NodesToBrowse = append(req.NodesToBrowse, &ua.BrowseDescription{NodeID: v.node, BrowseDirection: ua.BrowseDirectionForward,
				ReferenceTypeID: ua.NewNumericNodeID(0, id.HierarchicalReferences), IncludeSubtypes: true,
				NodeClassMask: uint32(ua.NodeClassObject | ua.NodeClassVariable), ResultMask: uint32(ua.BrowseResultMaskAll)})
		}
		if answer, err = ask[*ua.BrowseResponse](ctx, b.dev.link, b.s, req); err == nil {
			break
		}
		if !tooMany(err) || len(batch) == 1 {
			return nil, nil, failure(err)
		}
		b.batch = (len(batch) + 1) / 2
	}
	if len(answer.Results) != len(batch) {
		return nil, nil, mappers.Fail(models.ReasonProtocolError, fmt.Errorf("%d answers to %d nodes", len(answer.Results), len(batch)))
	}
	refs = make([][]*ua.ReferenceDescription, len(batch))
	var again []int
	for i, r := range answer.Results {
		if r != nil && r.StatusCode == ua.StatusBadNoContinuationPoints && len(batch) > 1 {
			again = append(again, i)
			continue
		}
		if refs[i], err = b.pages(ctx, batch[i], r); err != nil {
			return nil, nil, err
		}
	}
	// A server keeps the places of only so many nodes; those of the others are used
	// up by now.
	for _, i := range again {
		_, alone, err := b.children(ctx, batch[i:i+1])
		if err != nil {
			return nil, nil, err
		}
		refs[i] = alone[0]
	}
	return batch, refs, nil
}

// pages follows a node's references to their end.
func (b *browsing) pages(ctx context.Context, of visit, r *ua.BrowseResult) (refs []*ua.ReferenceDescription, err error) {
	for r != nil {
		if q, reason := wire.Judge(r.StatusCode); q == models.Bad {
			return refs, b.cannot(of, fmt.Sprintf("cannot be looked into: %s", reason))
		}
		refs = append(refs, r.References...)
		if len(r.ContinuationPoint) == 0 {
			return refs, nil
		}
		// An empty page would never end; of more than are known at most no use is made.
		enough := len(r.References) == 0 || len(refs) > 2*b.nodes
		answer, err := ask[*ua.BrowseNextResponse](ctx, b.dev.link, b.s, &ua.BrowseNextRequest{ReleaseContinuationPoints: enough, ContinuationPoints: [][]byte{r.ContinuationPoint}})
		switch {
		case err != nil:
			return nil, failure(err)
		case enough:
			return refs, b.cannot(of, fmt.Sprintf("is not looked into further than its first %d references", len(refs)))
		case len(answer.Results) != 1:
			return nil, mappers.Fail(models.ReasonProtocolError, fmt.Errorf("%d answers to one node", len(answer.Results)))
		}
		r = answer.Results[0]
	}
	return nil, mappers.Fail(models.ReasonProtocolError, errors.New("an answer lacks its result"))
}

// cannot tells that what is in a node is missing.
func (b *browsing) cannot(of visit, why string) error {
	if b.closed++; b.closed > browseNotes {
		return nil
	}
	if len(of.path) == 0 {
		return b.found(models.Found{Note: "the Objects folder " + why})
	}
	return b.found(models.Found{Path: of.path, Note: why})
}

// The attributes that are read of each variable, and of its units the value.
var browsed = []ua.AttributeID{ua.AttributeIDDataType, ua.AttributeIDValueRank, ua.AttributeIDUserAccessLevel, ua.AttributeIDAccessLevel, ua.AttributeIDDescription}

// tell tells of the variables of a batch.
func (b *browsing) tell(ctx context.Context, batch []visit) error {
	var variables []*visit
	var nodes []*ua.ReadValueID
	of := func(node *ua.NodeID, a ua.AttributeID) *ua.ReadValueID {
		return &ua.ReadValueID{NodeID: node, AttributeID: a, DataEncoding: &ua.QualifiedName{}} // without one gopcua sends half a request
	}
	for i := range batch {
		v := &batch[i]
		if !v.variable {
			continue
		}
		variables = append(variables, v)
		for _, a := range browsed {
			nodes = append(nodes, of(v.node, a))
		}
		units := of(v.node, ua.AttributeIDNodeClass) // nothing to ask for
		if v.units != nil {
			units = of(v.units, ua.AttributeIDValue)
		}
		nodes = append(nodes, units)
	}
	read, err := b.dev.attributes(ctx, b.s, nodes)
	if err != nil {
		return failure(err)
	}
	// A type of the server's own, or an abstract one, shows in what the node holds.
	step := len(browsed) + 1
	var values []*ua.ReadValueID
	var at []int
	for i, v := range variables {
		if t, _ := held(read[i*step]).(*ua.NodeID); t != nil {
			if _, known := wire.TypeOf(t); known {
				continue
			}
		}
		values, at = append(values, of(v.node, ua.AttributeIDValue)), append(at, i)
	}
	shown, err := b.dev.attributes(ctx, b.s, values)
	if err != nil {
		return failure(err)
	}
	shapes := make([]wire.Shape, len(variables))
	for k, i := range at {
		if shown[k] != nil && shown[k].Status == ua.StatusOK {
			shapes[i] = wire.ShapeOf(shown[k].Value)
		}
	}
	for i, v := range variables {
		if err := b.found(b.describe(v, read[i*step:(i+1)*step], shapes[i])); err != nil {
			return err
		}
	}
	return nil
}

// held is the value of an attribute that was read, nil where there is none.
func held(dv *ua.DataValue) any {
	if dv == nil || dv.Status != ua.StatusOK || dv.Value == nil {
		return nil
	}
	return dv.Value.Value()
}

// describe makes of a variable what a model's property would be. shape is what it
// holds, where its data type does not tell.
func (b *browsing) describe(v *visit, read []*ua.DataValue, shape wire.Shape) models.Found {
	f := models.Found{Path: v.path, DataType: "?"}
	dataType, _ := held(read[0]).(*ua.NodeID)
	rank, ranked := held(read[1]).(int32)
	level, ok := held(read[2]).(uint8)
	if !ok {
		level, _ = held(read[3]).(uint8)
	}
	known := shape.Type != 0 && wire.Carries(shape.Type)
	if t, ok := wire.TypeOf(dataType); ok {
		shape, known = wire.Shape{Type: t, Array: ranked && rank >= 0}, true
	}
	switch {
	case known:
		f.DataType = shape.String()
	case dataType != nil:
		f.DataType = dataType.String()
	}
	p := models.Property{Access: models.Read, Type: typeOf(shape.Type)}
	readable, writable := level&uint8(ua.AccessLevelTypeCurrentRead) != 0, level&uint8(ua.AccessLevelTypeCurrentWrite) != 0
	switch {
	case readable && writable:
		p.Access = models.ReadWrite
	case writable:
		p.Access = models.Write
	case !readable:
		f.Note = "can neither be read nor written by this user"
		return f
	}
	switch {
	case ranked && rank > 1:
		f.Note = fmt.Sprintf("has %d dimensions, which no property can hold", rank)
		return f
	case !known:
		f.Note = "is of type " + f.DataType + ", which no property can hold"
		return f
	case shape.Array:
		p.Type = models.TypeArray
	}
	if text, _ := held(read[4]).(*ua.LocalizedText); text != nil && text.Text != v.path[len(v.path)-1] {
		p.Description = text.Text
	}
	if x, _ := held(read[5]).(*ua.ExtensionObject); x != nil && v.units != nil {
		if eu, _ := x.Value.(*ua.EUInformation); eu != nil && eu.DisplayName != nil {
			p.Unit = eu.DisplayName.Text
		}
	}
	var err error
	if p.Address, err = json.Marshal(address{Node: b.name(v.node)}); err != nil {
		f.Note = err.Error()
		return f
	}
	f.Property = &p
	return f
}

// typeOf is the type of a property that holds single values of a type.
func typeOf(t ua.TypeID) models.Type {
	switch t {
	case ua.TypeIDBoolean:
		return models.TypeBool
	case ua.TypeIDSByte, ua.TypeIDByte, ua.TypeIDInt16, ua.TypeIDUint16, ua.TypeIDInt32, ua.TypeIDUint32, ua.TypeIDInt64, ua.TypeIDUint64, ua.TypeIDStatusCode:
		return models.TypeInt
	case ua.TypeIDFloat, ua.TypeIDDouble:
		return models.TypeFloat
	case ua.TypeIDByteString:
		return models.TypeBytes
	}
	return models.TypeString
}

// name is a node's id with its namespace's URI, which is the same at every such
// server. Namespace 1 is one server's own.
func (b *browsing) name(node *ua.NodeID) string {
	text, at := node.String(), int(node.Namespace())
	if at < 2 || at >= len(b.s.namespaces) {
		return text
	}
	_, plain, _ := strings.Cut(text, ";")
	return "nsu=" + strings.NewReplacer("%", "%25", ";", "%3B").Replace(b.s.namespaces[at]) + ";" + plain
}
