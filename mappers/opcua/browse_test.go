package opcua

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/server"
	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/internal/holdport"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
)

func TestBrowse(t *testing.T) {
	t.Parallel()
	cfg := opcuasim.Config{Name: "press", Nodes: []opcuasim.Node{{Name: "temperature", Type: "Double", Value: 1.5, Unit: "°C"}, {Name: "setpoint", Type: "Float", Writable: true, Value: 1},
		{Name: "running", Type: "Boolean", Writable: true}, {Name: "profile", Type: "Int16", Array: true, Value: []any{1, 2}}, {Name: "serial", Type: "String", Value: "a"}}}
	for i := range 300 { // more than a page, more than a request
		cfg.Nodes = append(cfg.Nodes, opcuasim.Node{Name: fmt.Sprintf("n%03d", i), Type: "UInt32", Value: i})
	}
	sim := opcuasim.Start(t, cfg)
	connection := json.RawMessage(fmt.Sprintf(`{"url": %q}`, sim.URL()))
	var all []models.Found
	if err := New().Browse(t.Context(), mappers.DeviceConfig{Connection: connection}, func(f models.Found) error { all = append(all, f); return nil }); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, f := range all {
		text := f.DataType + " " + f.Note
		if p := f.Property; p != nil {
			text = strings.TrimSpace(fmt.Sprintf("%s %s %s %s", f.DataType, p.Type, p.Access, p.Unit))
			if !strings.Contains(string(p.Address), `"nsu=`) {
				t.Errorf("%v has the address %s", f.Path, p.Address)
			}
		}
		found[strings.Join(f.Path, "/")] = text
	}
	for path, want := range map[string]string{"press/temperature": "Double float Read °C", "press/setpoint": "Float float ReadWrite", "press/running": "Boolean bool ReadWrite",
		"press/profile": "Int16[] array Read", "press/serial": "String string Read", "press/n299": "UInt32 int Read"} {
		if found[path] != want {
			t.Errorf("%s is %q, want %q", path, found[path], want)
		}
	}
	if len(all) != len(cfg.Nodes) {
		t.Errorf("found %d of %d", len(all), len(cfg.Nodes))
	}
	// The model that comes of it can be served.
	m, notes := models.ModelOf("press", Name, all)
	m.Default()
	props, err := models.Resolve(m, &models.Device{})
	if err != nil || len(notes) > 0 {
		t.Fatal(err, notes)
	}
	dev, err := New().Open(mappers.DeviceConfig{Connection: connection, Points: mappers.PointsOf(props)})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	out := make([]mappers.Result, 5)
	if err := dev.Read(t.Context(), []int{0, 1, 2, 3, 4}, out); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(out, func(r mappers.Result) bool { return r.Quality != models.Good }) {
		t.Errorf("read %+v", out)
	}
	stop := errors.New("enough")
	if err := New().Browse(t.Context(), mappers.DeviceConfig{Connection: connection}, func(models.Found) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	sim.Unplug()
	if err := New().Browse(t.Context(), mappers.DeviceConfig{Connection: connection}, nil); mappers.FailureOf(err).Reason != models.ReasonNotConnected {
		t.Error(err)
	}
}

// TestBrowseLimits walks an address space that goes round in circles, is deeper
// and has more than is walked, and holds what no property can.
func TestBrowseLimits(t *testing.T) {
	t.Parallel()
	port, err := holdport.Hold()
	if err != nil {
		t.Fatal(err)
	}
	_, number, _ := net.SplitHostPort(port.Addr())
	port.Close()
	var n int
	fmt.Sscan(number, &n)
	srv := server.New(server.EndPoint("127.0.0.1", n), server.EnableSecurity("None", ua.MessageSecurityModeNone), server.EnableAuthMode(ua.UserTokenTypeAnonymous))
	ns := server.NewNodeNameSpace(srv, "urn:test")
	add := func(under *server.Node, name string, class ua.NodeClass, more server.Attributes) *server.Node {
		attributes := server.Attributes{ua.AttributeIDNodeClass: server.DataValueFromValue(uint32(class)),
			ua.AttributeIDBrowseName:  server.DataValueFromValue(&ua.QualifiedName{NamespaceIndex: ns.ID(), Name: name}),
			ua.AttributeIDDisplayName: server.DataValueFromValue(ua.NewLocalizedText(name))}
		for a, v := range more {
			attributes[a] = v
		}
		node := server.NewNode(ua.NewStringNodeID(ns.ID(), name), attributes, nil, func() *ua.DataValue { return more[ua.AttributeIDValue] })
		ns.AddNode(node)
		under.AddRef(node, id.HasComponent, true)
		return node
	}
	root, _ := srv.Namespace(0)
	objects := root.Node(ua.NewNumericNodeID(0, id.ObjectsFolder))
	access := server.DataValueFromValue(byte(ua.AccessLevelTypeCurrentRead))
	first := add(objects, "first", ua.NodeClassObject, nil)
	second := add(first, "second", ua.NodeClassObject, nil)
	second.AddRef(first, id.Organizes, true)
	second.AddRef(second, id.Organizes, true)
	add(second, "matrix", ua.NodeClassVariable, server.Attributes{ua.AttributeIDAccessLevel: access, ua.AttributeIDValueRank: server.DataValueFromValue(int32(2)),
		ua.AttributeIDDataType: server.DataValueFromValue(ua.NewNumericNodeID(0, uint32(ua.TypeIDDouble)))})
	add(second, "secret", ua.NodeClassVariable, server.Attributes{ua.AttributeIDAccessLevel: server.DataValueFromValue(byte(0)),
		ua.AttributeIDDataType: server.DataValueFromValue(ua.NewNumericNodeID(0, uint32(ua.TypeIDDouble)))})
	add(second, "structure", ua.NodeClassVariable, server.Attributes{ua.AttributeIDAccessLevel: access, ua.AttributeIDDataType: server.DataValueFromValue(ua.NewNumericNodeID(ns.ID(), 7))})
	// Of a type of its own, or an abstract one, the value tells.
	add(second, "own", ua.NodeClassVariable, server.Attributes{ua.AttributeIDAccessLevel: access, ua.AttributeIDDataType: server.DataValueFromValue(ua.NewNumericNodeID(ns.ID(), 8)),
		ua.AttributeIDValue: server.DataValueFromValue(int32(3))})
	serial := add(second, "SerialNumber", ua.NodeClassVariable, server.Attributes{ua.AttributeIDAccessLevel: access, ua.AttributeIDDataType: server.DataValueFromValue(ua.NewNumericNodeID(0, uint32(ua.TypeIDString)))})
	add(second, "other", ua.NodeClassObject, nil).AddRef(serial, hasProperty, true) // a second way
	deep := second
	for i := range browseDepth + 5 {
		deep = add(deep, fmt.Sprintf("down%d", i), ua.NodeClassObject, nil)
	}
	for i := range 150 {
		add(first, fmt.Sprintf("n%d", i), ua.NodeClassObject, nil)
	}
	if err := srv.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	browse := func(most int) []string {
		var all []string
		cfg := mappers.DeviceConfig{Connection: json.RawMessage(fmt.Sprintf(`{"url": "opc.tcp://127.0.0.1:%d"}`, n))}
		err := New().browse(t.Context(), cfg, browsing{batch: 7, nodes: most, found: func(f models.Found) error {
			text := strings.TrimPrefix(strings.Join(f.Path, "/")+": "+f.DataType+" "+f.Note, ": ")
			if f.Property != nil {
				text += string(f.Property.Type)
			}
			all = append(all, text)
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	want := []string{"first/second/matrix: Double[] has 2 dimensions, which no property can hold", "first/second/secret: Double can neither be read nor written by this user",
		"first/second/structure: ns=1;i=7 is of type ns=1;i=7, which no property can hold", "first/second/own: Int32 int", "first/second/SerialNumber: String string",
		" the address space is deeper than 16 levels: what is below is left out"}
	if got := browse(browseNodes); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	want = []string{" the address space has more than 100 nodes: the rest is left out"}
	if got := browse(100); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
