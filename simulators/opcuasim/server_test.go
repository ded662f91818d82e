package opcuasim

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/protocols/opcua"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

func press() Config {
	low, high := 0.0, 95.0
	return Config{Name: "press", Tick: 10 * time.Millisecond,
		Signals: map[string]signal.Spec{"count": {Expr: "self + 1"}, "twice": {Expr: "setpoint * 2"}},
		Nodes: []Node{
			{Name: "count", Type: "UInt32"},
			{Name: "twice", Type: "Double"},
			{Name: "setpoint", Node: "ns=2;i=7", Type: "Float", Writable: true, Value: 45.5, Minimum: &low, Maximum: &high},
			{Name: "big", Type: "UInt64", Writable: true, Value: uint64(math.MaxUint64)},
			{Name: "small", Type: "Int64", Writable: true, Value: int64(math.MinInt64)},
			{Name: "running", Type: "Boolean", Writable: true},
			{Name: "serial", Type: "String", Value: "WB-20"},
			{Name: "blob", Type: "ByteString", Writable: true, Value: "AQID"},
			{Name: "made", Type: "DateTime", Writable: true, Value: "2026-01-02T03:04:05.5Z"},
			{Name: "profile", Type: "Int16", Array: true, Writable: true, Value: []any{1, -2, 3}},
		}}
}

func connect(t *testing.T, sim *Server, options ...gopcua.Option) (*gopcua.Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := gopcua.NewClient(sim.URL(), append([]gopcua.Option{gopcua.AutoReconnect(false), gopcua.RequestTimeout(30 * time.Second)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(ctx); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		c.Close(ctx)
	})
	return c, nil
}

func read(t *testing.T, c *gopcua.Client, node string, a ua.AttributeID) *ua.DataValue {
	t.Helper()
	res, err := c.Read(t.Context(), &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth,
		NodesToRead: []*ua.ReadValueID{{NodeID: ua.MustParseNodeID(node), AttributeID: a}}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Results[0]
}

func write(t *testing.T, c *gopcua.Client, node, indexRange string, v any) ua.StatusCode {
	t.Helper()
	res, err := c.Write(t.Context(), &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{NodeID: ua.MustParseNodeID(node),
		AttributeID: ua.AttributeIDValue, IndexRange: indexRange, Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(v)}}}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Results[0]
}

func TestTypesReadAndWrite(t *testing.T) {
	sim := Start(t, press())
	c, err := connect(t, sim)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		node  string
		shape opcua.Shape
		other any
	}{
		{"ns=2;i=7", opcua.Shape{Type: ua.TypeIDFloat}, float32(1.5)},
		{"ns=2;s=big", opcua.Shape{Type: ua.TypeIDUint64}, uint64(math.MaxUint64 - 1)},
		{"ns=2;s=small", opcua.Shape{Type: ua.TypeIDInt64}, int64(math.MinInt64 + 1)},
		{"ns=2;s=running", opcua.Shape{Type: ua.TypeIDBoolean}, true},
		{"ns=2;s=blob", opcua.Shape{Type: ua.TypeIDByteString}, []byte{9, 8}},
		{"ns=2;s=made", opcua.Shape{Type: ua.TypeIDDateTime}, time.Date(2026, 5, 6, 7, 8, 9, 100, time.UTC)},
		{"ns=2;s=profile", opcua.Shape{Type: ua.TypeIDInt16, Array: true}, []int16{7, 8}},
	} {
		before := read(t, c, tc.node, ua.AttributeIDValue)
		if got := opcua.ShapeOf(before.Value); got != tc.shape {
			t.Errorf("%s: shape %v, want %v", tc.node, got, tc.shape)
		}
		if before.SourceTimestamp.IsZero() {
			t.Errorf("%s: no source timestamp", tc.node)
		}
		if got := read(t, c, tc.node, ua.AttributeIDDataType).Value.NodeID(); got == nil || got.IntID() != uint32(tc.shape.Type) {
			t.Errorf("%s: data type %v", tc.node, got)
		}
		if s := write(t, c, tc.node, "", "no such type\x00"); s != ua.StatusBadTypeMismatch {
			t.Errorf("%s: a write of another type gets %v", tc.node, s)
		}
		if s := write(t, c, tc.node, "", tc.other); s != ua.StatusOK {
			t.Errorf("%s: write gets %v", tc.node, s)
		}
		after := read(t, c, tc.node, ua.AttributeIDValue)
		if want := ua.MustVariant(tc.other); after.Value.String() != want.String() || !after.SourceTimestamp.After(before.SourceTimestamp) {
			t.Errorf("%s: reads back %v at %v, want %v", tc.node, after.Value.Value(), after.SourceTimestamp, tc.other)
		}
	}
	if got := read(t, c, "ns=2;s=twice", ua.AttributeIDValue).Value.Value(); got != 3.0 {
		t.Errorf("a signal over an input is %v, want 3", got)
	}
	for _, tc := range []struct {
		node, indexRange string
		value            any
		want             ua.StatusCode
	}{
		{"ns=2;i=7", "", float32(96), ua.StatusBadOutOfRange},
		{"ns=2;s=serial", "", "x", ua.StatusBadNotWritable},
		{"ns=2;s=nothing", "", "x", ua.StatusBadNodeIDUnknown},
		{"ns=2;s=profile", "1", []int16{5}, ua.StatusOK},
		{"ns=2;s=profile", "2", []int16{5}, ua.StatusBadIndexRangeNoData},
		{"ns=2;s=profile", "x", []int16{5}, ua.StatusBadIndexRangeInvalid},
	} {
		if got := write(t, c, tc.node, tc.indexRange, tc.value); got != tc.want {
			t.Errorf("writing %v to %s[%s] gets %v, want %v", tc.value, tc.node, tc.indexRange, got, tc.want)
		}
	}
	if v, _ := sim.Get("profile"); v.([]int16)[1] != 5 {
		t.Errorf("profile is %v", v)
	}
	if w := sim.Writes(); len(w) != 8 || w[0].Node != "setpoint" || w[0].Value != 1.5 {
		t.Errorf("writes: %v", w)
	}
	sim.Reset()
	if v, _ := sim.Get("big"); v != uint64(math.MaxUint64) {
		t.Errorf("after Reset big is %v", v)
	}
}

func TestBrowse(t *testing.T) {
	sim := Start(t, press())
	c, err := connect(t, sim)
	if err != nil {
		t.Fatal(err)
	}
	names := func(node string) map[string]*ua.ReferenceDescription {
		refs, err := c.Node(ua.MustParseNodeID(node)).References(t.Context(), id.HierarchicalReferences, ua.BrowseDirectionForward, ua.NodeClassAll, true)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]*ua.ReferenceDescription{}
		for _, r := range refs {
			out[r.BrowseName.Name] = r
		}
		return out
	}
	folder := names("i=85")["press"]
	if folder == nil || folder.NodeClass != ua.NodeClassObject || folder.NodeID.NodeID.String() != "ns=2;s=press" {
		t.Fatalf("the folder is %+v", folder)
	}
	found := names("ns=2;s=press")
	if r := found["setpoint"]; len(found) != len(press().Nodes) || r == nil || r.NodeID.NodeID.String() != "ns=2;i=7" || r.NodeClass != ua.NodeClassVariable {
		t.Errorf("found %v", found)
	}
}

func TestUsers(t *testing.T) {
	cfg := press()
	cfg.Users = map[string]string{"operator": "secret"}
	sim := Start(t, cfg)
	as := func(user, password string) error {
		t.Helper()
		eps, err := gopcua.GetEndpoints(t.Context(), sim.URL())
		if err != nil || len(eps) != 1 || eps[0].EndpointURL != sim.URL() {
			t.Fatalf("endpoints %v, %v", eps, err)
		}
		_, err = connect(t, sim, gopcua.AuthUsername(user, password), gopcua.SecurityFromEndpoint(eps[0], ua.UserTokenTypeUserName))
		return err
	}
	if err := as("operator", "secret"); err != nil {
		t.Error(err)
	}
	if err := as("operator", "wrong"); !errors.Is(err, ua.StatusBadUserAccessDenied) {
		t.Errorf("a wrong password: %v", err)
	}
	if _, err := connect(t, sim); !errors.Is(err, ua.StatusBadIdentityTokenRejected) {
		t.Errorf("anonymous: %v", err)
	}
}

func TestSubscribesAndRestarts(t *testing.T) {
	sim := Start(t, press())
	subscribe := func() (*gopcua.Client, chan *gopcua.PublishNotificationData) {
		c, err := connect(t, sim)
		if err != nil {
			t.Fatal(err)
		}
		ch := make(chan *gopcua.PublishNotificationData, 1000)
		sub, err := c.Subscribe(t.Context(), &gopcua.SubscriptionParameters{Interval: 20 * time.Millisecond}, ch)
		if err != nil {
			t.Fatal(err)
		}
		res, err := sub.Monitor(t.Context(), ua.TimestampsToReturnBoth,
			gopcua.NewMonitoredItemCreateRequestWithDefaults(ua.MustParseNodeID("ns=2;s=count"), ua.AttributeIDValue, 1),
			gopcua.NewMonitoredItemCreateRequestWithDefaults(ua.MustParseNodeID("ns=2;s=none"), ua.AttributeIDValue, 2))
		if err != nil || res.Results[0].StatusCode != ua.StatusOK || res.Results[1].StatusCode != ua.StatusBadNodeIDUnknown {
			t.Fatalf("%v, %v", res, err)
		}
		return c, ch
	}
	get := func(ch chan *gopcua.PublishNotificationData) {
		t.Helper()
		select {
		case n := <-ch:
			if n.Error != nil {
				t.Fatal(n.Error)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no notification")
		}
	}
	for range 5 {
		_, ch := subscribe()
		get(ch)
		get(ch)
		sim.HangUp()
	}
	_, ch := subscribe()
	get(ch)
	sim.Unplug()
	if _, err := connect(t, sim); err == nil {
		t.Error("an unplugged server is connected to")
	}
	if err := sim.Plug(); err != nil {
		t.Fatal(err)
	}
	_, ch = subscribe()
	get(ch)
	get(ch)
}
