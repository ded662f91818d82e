package opcua

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/gopcua/opcua/ua"
)

// le lays out numbers and bytes as OPC UA has them.
func le(parts ...any) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b.WriteString(p)
		case []byte:
			b.Write(p)
		default:
			_ = binary.Write(&b, binary.LittleEndian, p) // a buffer takes all
		}
	}
	return b.Bytes()
}

const (
	isArray    = 0x80
	isMatrix   = 0xC0
	typInt32   = 6
	typByte    = 3
	typVariant = 24
	typData    = 23
	typDiag    = 25
	typObject  = 22
)

// hostile are variants that made the decoder panic, recurse until the stack
// ended, or ask for more memory than there is. Each is small.
func hostile() map[string][]byte {
	nest := func(one []byte, last []byte, n int) []byte { return append(bytes.Repeat(one, n), last...) }
	return map[string][]byte{
		"array length below -1":                            le(uint8(isArray|typInt32), int32(-2)),
		"least array length":                               le(uint8(isArray|typByte), int32(-1<<31)),
		"array longer than its message":                    le(uint8(isArray|typVariant), int32(0xFFFF)),
		"dimensions beyond all":                            le(uint8(isMatrix|typInt32), int32(1), int32(7), int32(0x7FFFFFFF)),
		"dimensions whose product overflows to none":       le(uint8(isMatrix|typByte), int32(0), int32(2), int32(1<<16), int32(1<<16)),
		"dimensions whose product overflows to a null":     le(uint8(isMatrix|typByte), int32(-1), int32(5), int32(3), int32(5), int32(17), int32(257), int32(65537)),
		"no elements in many dimensions":                   le(uint8(isMatrix|typByte), int32(0), int32(2), int32(1<<20), int32(1<<12)),
		"one element in many dimensions":                   le(uint8(isMatrix|typByte), int32(1), int32(5000), nest(le(int32(1)), nil, 5000), uint8(1)),
		"variants in variants":                             nest(le(uint8(typVariant)), le(uint8(1), uint8(1)), 1_900_000),
		"variants in arrays of variants":                   nest(le(uint8(isArray|typVariant), int32(1)), le(uint8(1), uint8(1)), 300_000),
		"wide arrays of variants within each other":        nest(le(uint8(isArray|typVariant), int32(0xFFFF)), nil, 2000),
		"variants in data values":                          nest(le(uint8(typData), uint8(1)), le(uint8(1), uint8(1)), 900_000),
		"diagnostics in diagnostics":                       append([]byte{typDiag}, nest(le(uint8(0x40)), le(uint8(0)), 1_900_000)...),
		"an object that says it is longer than it is":      le(uint8(typObject), uint8(1), uint8(0), uint16(0x0328), uint8(1), uint32(0xFFFFFFFE)),
		"a string that says it is longer than its message": le(uint8(12), uint32(0xFFFFFFF0)),
		"a byte string of 2 GiB":                           le(uint8(15), uint32(0x7FFFFFFF)),
	}
}

// memory is how much f allocates.
func memory(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestHostileVariantsAreRefused(t *testing.T) {
	for name, text := range hostile() {
		t.Run(name, func(t *testing.T) {
			var err error
			used := memory(func() {
				_, err = new(ua.Variant).Decode(text)
			})
			if err == nil {
				t.Error("it is taken")
			}
			if used > 32<<20 {
				t.Errorf("%d bytes were allocated for %d, %v", used, len(text), err)
			}
		})
	}
}

// What nests within reason is decoded.
func TestNestingWithinBounds(t *testing.T) {
	text := append(bytes.Repeat([]byte{typVariant}, 50), le(uint8(typInt32), int32(7))...)
	var v ua.Variant
	if n, err := v.Decode(text); err != nil || n != len(text) {
		t.Fatal(n, err)
	}
	inner := &v
	for {
		next, ok := inner.Value().(*ua.Variant)
		if !ok {
			break
		}
		inner = next
	}
	if inner.Value() != int32(7) {
		t.Errorf("got %v", inner.Value())
	}
	matrix := le(uint8(isMatrix|typInt32), int32(4), int32(1), int32(2), int32(3), int32(4), int32(2), int32(2), int32(2))
	var m ua.Variant
	if _, err := m.Decode(matrix); err != nil || len(m.Value().([][]int32)) != 2 {
		t.Errorf("%v, %v", m.Value(), err)
	}
	if _, err := new(ua.Variant).Decode(append(bytes.Repeat([]byte{typVariant}, 150), le(uint8(typInt32), int32(7))...)); !errors.Is(err, ua.StatusBadEncodingLimitsExceeded) {
		t.Error(err)
	}
}

// FuzzDecode feeds whatever comes to the decoder of answers. It must neither
// panic nor allocate out of proportion.
func FuzzDecode(f *testing.F) {
	for name, text := range hostile() {
		if len(text) < 1000 {
			f.Add(text)
		} else if !strings.Contains(name, "wide") {
			f.Add(text[len(text)-900:])
		}
	}
	for _, answer := range []any{
		&ua.ReadResponse{ResponseHeader: &ua.ResponseHeader{ServiceDiagnostics: &ua.DiagnosticInfo{}, AdditionalHeader: ua.NewExtensionObject(nil)},
			Results: []*ua.DataValue{{EncodingMask: ua.DataValueValue, Value: ua.MustVariant([]float64{1, 2})}}},
		&ua.PublishResponse{ResponseHeader: &ua.ResponseHeader{ServiceDiagnostics: &ua.DiagnosticInfo{}, AdditionalHeader: ua.NewExtensionObject(nil)},
			NotificationMessage: &ua.NotificationMessage{NotificationData: []*ua.ExtensionObject{ua.NewExtensionObject(&ua.DataChangeNotification{
				MonitoredItems: []*ua.MonitoredItemNotification{{Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant("x")}}}})}}},
	} {
		body, err := ua.Encode(answer)
		if err != nil {
			f.Fatal(err)
		}
		id, err := ua.NewFourByteExpandedNodeID(0, ua.ServiceTypeID(answer)).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(id, body...))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		used := memory(func() {
			_, _, _ = ua.DecodeService(text)
			var v ua.Variant
			if _, err := v.Decode(text); err == nil {
				_, _ = Value(&v, "")
			}
			_, _ = new(ua.ExtensionObject).Decode(text)
		})
		if limit := uint64(1<<20 + 2000*len(text)); used > limit {
			t.Errorf("%d bytes of input took %d bytes of memory", len(text), used)
		}
	})
}
