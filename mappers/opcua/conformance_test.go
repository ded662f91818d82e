package opcua

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/drivertest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
)

// nodes is a server's with every type.
func nodes() []opcuasim.Node {
	return []opcuasim.Node{
		{Name: "temperature", Type: "Float", Value: 21.3},
		{Name: "setpoint", Type: "Float", Writable: true, Value: 45.5},
		{Name: "level", Type: "Double", Writable: true, Value: -2.5},
		{Name: "running", Type: "Boolean", Writable: true, Value: true},
		{Name: "sbyte", Type: "SByte", Writable: true, Value: int64(-128)},
		{Name: "byte", Type: "Byte", Writable: true, Value: int64(255)},
		{Name: "int16", Type: "Int16", Writable: true, Value: int64(-2)},
		{Name: "uint16", Type: "UInt16", Writable: true, Value: int64(65535)},
		{Name: "int32", Type: "Int32", Writable: true, Value: int64(-3)},
		{Name: "uint32", Type: "UInt32", Writable: true, Value: int64(4294967295)},
		{Name: "int64", Type: "Int64", Writable: true, Value: int64(math.MinInt64)},
		{Name: "uint64", Type: "UInt64", Writable: true, Value: uint64(math.MaxUint64)},
		{Name: "serial", Type: "String", Writable: true, Value: "WB-20"},
		{Name: "label", Type: "LocalizedText", Writable: true, Value: "Kessel"},
		{Name: "blob", Type: "ByteString", Writable: true, Value: "AQID"},
		{Name: "made", Type: "DateTime", Writable: true, Value: "2026-01-02T03:04:05.5Z"},
		{Name: "id", Type: "Guid", Writable: true, Value: "00112233-4455-6677-8899-AABBCCDDEEFF"},
		{Name: "profile", Type: "Int16", Array: true, Writable: true, Value: []any{1, -2, 3}},
		{Name: "bits", Type: "UInt64", Array: true, Writable: true, Value: []any{uint64(math.MaxUint64), 1}},
		{Name: "raw", Type: "Byte", Array: true, Writable: true, Value: []any{1, 2}},
	}
}

func array(t testing.TB, text string) models.Value {
	v, err := models.JSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func pt(name string, kind models.Type, access models.Access, format string, args ...any) mappers.Point {
	return mappers.Point{Property: name, Type: kind, Access: access, Address: json.RawMessage(fmt.Sprintf(format, args...))}
}

func points(t testing.TB) []drivertest.Point {
	const r, w = models.Read, models.ReadWrite
	of := func(name string, kind models.Type, access models.Access, value, other, beyond models.Value) drivertest.Point {
		return drivertest.Point{Point: pt(name, kind, access, `{"node": "ns=2;s=%s"}`, name), Value: value, Other: other, Beyond: beyond}
	}
	no := models.Null
	element := of("profile", models.TypeInt, w, models.Int(-2), models.Int(9), models.Int(40000))
	element.Point = pt("second", models.TypeInt, w, `{"node": "ns=2;s=profile", "index": 1}`)
	asInt := func(name string, value, other, beyond models.Value) drivertest.Point {
		return of(name, models.TypeInt, w, value, other, beyond)
	}
	return []drivertest.Point{
		of("temperature", models.TypeFloat, r, models.Float(21.3), no, no),
		of("setpoint", models.TypeFloat, w, models.Float(45.5), models.Float(-1.25), models.Float(1e300)),
		of("level", models.TypeFloat, w, models.Float(-2.5), models.Float(1e300), no),
		of("running", models.TypeBool, w, models.Bool(true), models.Bool(false), no),
		asInt("sbyte", models.Int(-128), models.Int(127), models.Int(128)),
		asInt("byte", models.Int(255), models.Int(0), models.Int(256)),
		asInt("int16", models.Int(-2), models.Int(32767), models.Int(32768)),
		asInt("uint16", models.Int(65535), models.Int(1), models.Int(-1)),
		asInt("int32", models.Int(-3), models.Int(1<<31-1), models.Int(1<<31)),
		asInt("uint32", models.Int(4294967295), models.Int(5), models.Int(1<<32)),
		asInt("int64", models.Int(math.MinInt64), models.Int(math.MaxInt64), models.Uint(1<<63)),
		asInt("uint64", models.Uint(math.MaxUint64), models.Uint(math.MaxUint64-1), models.Int(-1)),
		of("serial", models.TypeString, w, models.String("WB-20"), models.String("ä€"), no),
		of("label", models.TypeString, w, models.String("Kessel"), models.String(""), no),
		of("blob", models.TypeBytes, w, models.Bytes([]byte{1, 2, 3}), models.Bytes([]byte{0xff}), no),
		of("made", models.TypeString, w, models.String("2026-01-02T03:04:05.5Z"), models.String("2026-05-06T07:08:09.0000001Z"), models.String("soon")),
		of("id", models.TypeString, w, models.String("00112233-4455-6677-8899-AABBCCDDEEFF"), models.String("FFEEDDCC-4455-6677-8899-AABBCCDDEEFF"), models.String("x")),
		of("bits", models.TypeArray, w, array(t, "[18446744073709551615,1]"), array(t, "[2]"), array(t, "[-1]")),
		of("raw", models.TypeBytes, w, models.Bytes([]byte{1, 2}), models.Bytes([]byte{3}), no),
		element,
	}
}

// conforms runs the suite on one server, which is as new for each requirement.
func conforms(t *testing.T, cfg opcuasim.Config, connection string) {
	cfg.Nodes = nodes()
	sim := opcuasim.Start(t, cfg)
	drivertest.Run(t, drivertest.Harness{
		Driver:     New(),
		BadAddress: json.RawMessage(`{"node": "ns=2;x=1"}`),
		Ignore: []goleak.Option{
			goleak.IgnoreAnyFunction("github.com/whimbrel-edge/whimbrel/simulators/opcuasim.(*cable).accept"),
			goleak.IgnoreAnyFunction("github.com/whimbrel-edge/whimbrel/simulators/opcuasim.(*cable).carry"),
			goleak.IgnoreAnyFunction("github.com/whimbrel-edge/whimbrel/simulators/opcuasim.(*cable).copy"),
			goleak.IgnoreAnyFunction("github.com/gopcua/opcua/server.(*channelBroker).RegisterConn"),
			goleak.IgnoreAnyFunction("github.com/gopcua/opcua/server.(*Subscription).run"),
			goleak.IgnoreAnyFunction("github.com/gopcua/opcua/server.(*Server).acceptAndRegister"),
		},
		Start: func(t *testing.T) drivertest.Device {
			sim.Reset()
			return drivertest.Device{
				Connection: json.RawMessage(fmt.Sprintf(connection, sim.URL())),
				Points:     points(t),
				Refused:    pt("refused", models.TypeInt, models.Read, `{"node": "ns=2;s=nothing"}`),
				Unplug:     sim.Unplug,
				Plug: func() {
					if err := sim.Plug(); err != nil {
						t.Error(err)
					}
				},
				Silence: sim.Silence,
				Speak:   sim.Speak,
			}
		},
	})
}

func TestConformance(t *testing.T) {
	t.Run("subscribing", func(t *testing.T) {
		conforms(t, opcuasim.Config{Tick: 20 * time.Millisecond}, `{"url": %q, "timeout": "2s", "publishingInterval": "50ms"}`)
	})
	t.Run("a server that takes three nodes a request", func(t *testing.T) {
		conforms(t, opcuasim.Config{Tick: 20 * time.Millisecond, MaxOperations: 3}, `{"url": %q, "timeout": "700ms", "publishingInterval": "50ms"}`)
	})
	t.Run("a server that does not subscribe", func(t *testing.T) {
		conforms(t, opcuasim.Config{MaxMonitoredItems: -1}, `{"url": %q, "timeout": "2s"}`)
	})
}
