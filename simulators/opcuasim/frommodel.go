package opcuasim

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/opcua"
	"github.com/whimbrel-edge/whimbrel/simulators/lifelike"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// FromModel makes a configuration whose nodes are the model's: what is read
// moves, what is written is remembered. A node's type follows from its
// property's; arrays stay as they are until they are written. Notes say which
// properties are not simulated, or share a node.
func FromModel(m *models.DeviceModel) (cfg Config, notes []string, err error) {
	cfg = Config{Name: m.Metadata.Name, Signals: map[string]signal.Spec{}}
	places := map[string]int{} // in cfg.Nodes, by node id
	var errs []error
	addresses := make([]address, len(m.Spec.Properties))
	var order []int // those of an array's elements first: they know its type
	for _, elements := range []bool{true, false} {
		for n, p := range m.Spec.Properties {
			var err error
			if addresses[n], err = parseAddress(p); err != nil && elements {
				errs = append(errs, fmt.Errorf("property %s: %w", p.Name, err))
			} else if err == nil && (addresses[n].Index != nil) == elements {
				order = append(order, n)
			}
		}
	}
	cfg.Namespaces = tableOf(addresses)
	known := namespaces(cfg)
	for _, n := range order {
		p, a := m.Spec.Properties[n], addresses[n]
		id := a.ref.In(known)
		if id.Namespace() == 0 {
			notes = append(notes, fmt.Sprintf("%s is %s, the specification's own: it is there if every server has it", p.Name, a.Node))
			continue
		}
		node, spec, err := nodeOf(p, n, a.Index)
		if err != nil {
			errs = append(errs, fmt.Errorf("property %s: %w", p.Name, err))
			continue
		}
		node.Node = id.String()
		at, taken := places[id.String()]
		if !taken {
			places[id.String()] = len(cfg.Nodes)
			node.Signal = lifelike.Name(p.Name)
			switch {
			case node.Array:
				node.Signal = ""
			case !node.Writable:
				cfg.Signals[node.Signal] = spec
			}
			cfg.Nodes = append(cfg.Nodes, node)
			continue
		}
		if err := join(&cfg, at, node, a.Index); err != nil {
			errs = append(errs, fmt.Errorf("property %s: %w", p.Name, err))
		} else if a.Index == nil {
			notes = append(notes, fmt.Sprintf("%s is the node of %s, and shows the same", p.Name, cfg.Nodes[at].Name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, nil, fmt.Errorf("opcuasim: model %s: %w", m.Metadata.Name, err)
	}
	return cfg, notes, nil
}

// address is a property's address as the OPC UA driver takes it.
type address struct {
	Node  string `json:"node"`
	Index *int   `json:"index"`
	ref   opcua.Ref
}

func parseAddress(p models.Property) (a address, err error) {
	if len(p.Address) == 0 {
		return a, errors.New("it has no address")
	}
	if err := models.DecodeInto(p.Address, &a); err != nil {
		return address{}, fmt.Errorf("address: %w", err)
	}
	if a.ref, err = opcua.ParseRef(a.Node); err != nil {
		return address{}, err
	}
	return a, nil
}

// tableOf gives the namespaces that addresses name by URI indices that no address
// uses.
func tableOf(addresses []address) []string {
	used := map[int]bool{}
	var uris []string
	for _, a := range addresses {
		uri := a.ref.Unknown([]string{specification})
		switch {
		case a.Node == "":
		case uri != "" && !slices.Contains(uris, uri):
			uris = append(uris, uri)
		case uri == "":
			used[int(a.ref.In([]string{specification}).Namespace())] = true
		}
	}
	var table []string
	for len(uris) > 0 {
		if used[len(table)+Namespace] {
			table = append(table, "")
			continue
		}
		table, uris = append(table, uris[0]), uris[1:]
	}
	return table
}

// nodeOf is a node that holds a property, or one whose element it is.
func nodeOf(p models.Property, n int, index *int) (Node, signal.Spec, error) {
	node := Node{Name: p.Name, Writable: p.Access.Writable(), Unit: p.Unit}
	v := lifelike.For(p, lifelike.Any, n)
	element := v.Start
	switch p.Type {
	case models.TypeBool:
		node.Type = "Boolean"
	case models.TypeInt:
		node.Type = "Int64"
		if p.Maximum != nil {
			if _, fits := p.Maximum.AsInt(); !fits {
				node.Type = "UInt64"
			}
		}
		if f, ok := element.(float64); ok {
			element = int64(f)
		}
	case models.TypeFloat:
		node.Type = "Double"
	case models.TypeString:
		node.Type = "String"
	case models.TypeBytes:
		node.Type = "ByteString"
		element = base64.StdEncoding.EncodeToString([]byte(lifelike.Text(16, "")))
		v.Signal = signal.Spec{Constant: element}
	case models.TypeArray:
		node.Type, node.Array = "Double", true
		node.Value = []any{1.5, 2.5, 3.5}
		return node, v.Signal, nil
	default:
		return node, v.Signal, fmt.Errorf("nodes hold no values of type %s", p.Type)
	}
	if index != nil {
		if *index < 0 || *index > math.MaxInt16 {
			return node, v.Signal, fmt.Errorf("index %d is not within 0 to %d", *index, math.MaxInt16)
		}
		node.Array, node.Value = true, elements(nil, *index, element)
		return node, v.Signal, nil
	}
	if node.Writable {
		node.Value = element
		if p.Type == models.TypeInt || p.Type == models.TypeFloat {
			node.Minimum, node.Maximum = lifelike.Bounds(p)
		}
	}
	return node, v.Signal, nil
}

// elements is a list with an element at an index.
func elements(list []any, index int, element any) []any {
	for len(list) <= index {
		list = append(list, element)
	}
	list[index] = element
	return list
}

// join lets a property have a node that another has already.
func join(cfg *Config, at int, node Node, index *int) error {
	has := &cfg.Nodes[at]
	switch {
	case has.Array != node.Array:
		return fmt.Errorf("its node is one value, and the array of %s, too", has.Name)
	case has.Array && index == nil: // all of it, whatever it holds
	case has.Array && has.Type != node.Type:
		return fmt.Errorf("its node holds %s for it, and %s for %s", node.Type, has.Type, has.Name)
	case has.Array && index != nil:
		list, _ := has.Value.([]any)
		given, _ := node.Value.([]any)
		has.Value = elements(list, *index, given[*index])
	case has.Type != node.Type:
		return fmt.Errorf("its node holds %s for it, and %s for %s", node.Type, has.Type, has.Name)
	}
	if node.Writable && !has.Writable && !has.Array { // it cannot move any more
		delete(cfg.Signals, has.Signal)
		has.Value, has.Minimum, has.Maximum = node.Value, node.Minimum, node.Maximum
	}
	has.Writable = has.Writable || node.Writable
	return nil
}

// ModelConnection is what a device's connection says to reach the server.
func (s *Server) ModelConnection() json.RawMessage {
	text, _ := json.Marshal(map[string]any{"url": s.URL()}) // strings do not fail
	return text
}
