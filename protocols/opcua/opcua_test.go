package opcua

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/models"
)

func TestParseNode(t *testing.T) {
	for text, want := range map[string]string{
		"i=2258":                 "i=2258",
		"ns=0;i=85":              "i=85",
		"ns=2;s=Boiler.Temp":     "ns=2;s=Boiler.Temp",
		"ns=3;s=a;b=c, d=e":      "ns=3;s=a;b=c, d=e",
		`ns=3;s="DB"."x"[1]`:     `ns=3;s="DB"."x"[1]`,
		"ns=65535;i=4294967295":  "ns=65535;i=4294967295",
		"ns=1;b=AQID":            "ns=1;b=AQID",
		"ns=1;s=" + "ä€" + " x ": "ns=1;s=ä€ x ",
		"ns=1;g=00112233-4455-6677-8899-aabbccddeeff": "ns=1;g=00112233-4455-6677-8899-AABBCCDDEEFF",
	} {
		id, err := ParseNode(text)
		if err != nil || id.String() != want {
			t.Errorf("%q is %v, %v", text, id, err)
		}
	}
	for _, text := range []string{"", "Boiler", "ns=2", "ns=2;", "ns=2;s=", "ns=2;x=1", "ns=65536;i=1", "i=4294967296", "i=-1", "i=x",
		"ns=1;g=0011", "ns=1;b=%%", "nsu=urn:x;s=a", "svr=1;i=2", "ns=-1;i=2"} {
		if id, err := ParseNode(text); err == nil {
			t.Errorf("%q is taken for %v", text, id)
		}
	}
}

func TestRefs(t *testing.T) {
	namespaces := []string{"http://opcfoundation.org/UA/", "urn:server", "http://example.com/UA/", "urn:a;b%c"}
	for text, want := range map[string]string{
		"i=2258":                                "i=2258",
		"ns=7;s=Boiler.Temp":                    "ns=7;s=Boiler.Temp",
		"nsu=http://example.com/UA/;i=6051":     "ns=2;i=6051",
		"nsu=http://example.com/UA/;i=70000":    "ns=2;i=70000",
		"nsu=http://example.com/UA/;s=a;ns=1;b": "ns=2;s=a;ns=1;b",
		"nsu=http://example.com/UA/;b=AQID":     "ns=2;b=AQID",
		"nsu=http://example.com/UA/;g=00112233-4455-6677-8899-aabbccddeeff": "ns=2;g=00112233-4455-6677-8899-AABBCCDDEEFF",
		"nsu=http://opcfoundation.org/UA/;i=85":                             "i=85",
		"nsu=urn:a%3Bb%25c;i=1":                                             "ns=3;i=1",
		"nsu=urn:gone;i=1":                                                  "ns=65535;i=1",
		"nsu=urn:gone;s=x":                                                  "ns=65535;s=x",
	} {
		ref, err := ParseRef(text)
		if err != nil || ref.In(namespaces).String() != want || (ref.Unknown(namespaces) != "") != strings.HasPrefix(text, "nsu=urn:gone") {
			t.Errorf("%q is %v, unknown %q, %v; want %s", text, ref, ref.Unknown(namespaces), err, want)
		}
	}
	for _, text := range []string{"", "nsu=", "nsu=urn:x", "nsu=;i=1", "nsu=urn:x;", "nsu=urn:x;ns=2;i=1", "nsu=urn:%zz;i=1", "nsu=urn:x;nsu=urn:x;i=1"} {
		if ref, err := ParseRef(text); err == nil {
			t.Errorf("%q is taken for %v", text, ref)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, text := range []string{"i=2258", "nsu=urn:a%3Bb;s=Boiler.Temp", "nsu=urn:x;b=AQID", "nsu=urn:x;g=00112233-4455-6677-8899-aabbccddeeff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := ParseRef(text)
		if err != nil {
			return
		}
		if id := ref.In([]string{"urn:x"}); id == nil {
			t.Errorf("%q is no node", text)
		} else if again, err := ParseNode(id.String()); err != nil || again.String() != id.String() {
			t.Errorf("%q is %q, which is %v, %v", text, id, again, err)
		}
	})
}

func FuzzParseNode(f *testing.F) {
	for _, text := range []string{"i=2258", "ns=2;s=Boiler.Temp", "ns=1;b=AQID", "ns=1;g=00112233-4455-6677-8899-aabbccddeeff", "ns=1;s=a=b;c"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseNode(text)
		if err != nil {
			return
		}
		again, err := ParseNode(id.String())
		if err != nil || again.String() != id.String() {
			t.Errorf("%q is %q, which is %v, %v", text, id, again, err)
		}
	})
}

func parse(t *testing.T, text string) models.Value {
	t.Helper()
	var v models.Value
	if err := v.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestValues(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	for _, tc := range []struct {
		in   any
		want models.Type
		out  string // JSON; "" for an error
	}{
		{true, models.TypeBool, "true"},
		{int8(-128), models.TypeInt, "-128"},
		{uint8(255), models.TypeInt, "255"},
		{int64(math.MinInt64), models.TypeInt, "-9223372036854775808"},
		{uint64(math.MaxUint64), models.TypeInt, "18446744073709551615"},
		{uint16(7), models.TypeFloat, "7"},
		{float32(21.3), models.TypeFloat, "21.3"},
		{21.5, models.TypeFloat, "21.5"},
		{2.0, models.TypeInt, "2"},
		{2.5, models.TypeInt, ""},
		{math.NaN(), models.TypeFloat, "null"},
		{float32(math.Inf(1)), models.TypeFloat, "null"},
		{"ä", models.TypeString, `"ä"`},
		{"1", models.TypeInt, ""},
		{[]byte{1, 2}, models.TypeBytes, `"AQI="`},
		{ua.ByteArray{1, 2}, models.TypeBytes, `"AQI="`},
		{ua.ByteArray{1, 2}, models.TypeArray, `[1,2]`},
		{at, models.TypeString, `"2026-01-02T03:04:05.0000006Z"`},
		{time.Time{}, models.TypeString, "null"},
		{ua.NewGUID("00112233-4455-6677-8899-AABBCCDDEEFF"), models.TypeString, `"00112233-4455-6677-8899-AABBCCDDEEFF"`},
		{ua.NewLocalizedText("Kessel"), models.TypeString, `"Kessel"`},
		{&ua.QualifiedName{NamespaceIndex: 2, Name: "a"}, models.TypeString, `"2:a"`},
		{ua.XMLElement("<a/>"), models.TypeString, `"<a/>"`},
		{ua.NewStringNodeID(2, "x"), models.TypeString, `"ns=2;s=x"`},
		{ua.StatusBadTimeout, models.TypeInt, "2148139008"},
		{[]int16{1, -2}, models.TypeArray, "[1,-2]"},
		{[]int16{}, models.TypeArray, "[]"},
		{[]uint64{math.MaxUint64}, models.TypeArray, "[18446744073709551615]"},
		{[][]float64{{1, 2}, {3, math.NaN()}}, models.TypeArray, "[[1,2],[3,null]]"},
		{[]string{"a"}, models.TypeArray, `["a"]`},
		{[][]byte{{1}}, models.TypeArray, `["AQ=="]`},
		{[]*ua.Variant{ua.MustVariant(true), ua.MustVariant("x")}, models.TypeArray, `[true,"x"]`},
		{[]int16{1}, models.TypeInt, ""},
		{int16(1), models.TypeArray, ""},
		{ua.NewExtensionObject(nil), models.TypeString, ""},
	} {
		got, err := Value(ua.MustVariant(tc.in), tc.want)
		if tc.out == "" {
			if err == nil {
				t.Errorf("%T %v as %s is %v", tc.in, tc.in, tc.want, got)
			}
			continue
		}
		if text := string(got.AppendJSON(nil)); err != nil || text != tc.out {
			t.Errorf("%T %v as %s is %s, %v; want %s", tc.in, tc.in, tc.want, text, err, tc.out)
		}
	}
	if v, err := Value(nil, models.TypeInt); err != nil || !v.IsNull() {
		t.Errorf("nothing is %v, %v", v, err)
	}
}

func TestElements(t *testing.T) {
	list := ua.MustVariant([]float32{1.5, float32(math.NaN())})
	if v, err := Element(list, 0, models.TypeFloat); err != nil || v != models.Float(1.5) {
		t.Errorf("%v, %v", v, err)
	}
	if v, err := Element(list, 1, models.TypeFloat); err != nil || !v.IsNull() {
		t.Errorf("%v, %v", v, err)
	}
	for _, tc := range []struct {
		v     *ua.Variant
		index int
		want  models.Type
	}{{list, 2, models.TypeFloat}, {ua.MustVariant(1.5), 0, models.TypeFloat}, {ua.MustVariant([]byte{1}), 0, models.TypeInt}, {list, 0, models.TypeString}} {
		if v, err := Element(tc.v, tc.index, tc.want); err == nil {
			t.Errorf("element %d of %v is %v", tc.index, tc.v, v)
		}
	}
}

func TestVariants(t *testing.T) {
	for _, tc := range []struct {
		in    string // JSON
		shape Shape
		out   any // nil for an error
	}{
		{"true", Shape{Type: ua.TypeIDBoolean}, true},
		{"1", Shape{Type: ua.TypeIDBoolean}, nil},
		{"-128", Shape{Type: ua.TypeIDSByte}, int8(-128)},
		{"128", Shape{Type: ua.TypeIDSByte}, nil},
		{"2.0", Shape{Type: ua.TypeIDInt16}, int16(2)},
		{"2.5", Shape{Type: ua.TypeIDInt16}, nil},
		{"18446744073709551615", Shape{Type: ua.TypeIDUint64}, uint64(math.MaxUint64)},
		{"-1", Shape{Type: ua.TypeIDUint64}, nil},
		{"9223372036854775808", Shape{Type: ua.TypeIDInt64}, nil},
		{"21.3", Shape{Type: ua.TypeIDFloat}, float32(21.3)},
		{"1e300", Shape{Type: ua.TypeIDFloat}, nil},
		{"3", Shape{Type: ua.TypeIDDouble}, 3.0},
		{`"x"`, Shape{Type: ua.TypeIDDouble}, nil},
		{`"x"`, Shape{Type: ua.TypeIDString}, "x"},
		{"5", Shape{Type: ua.TypeIDString}, nil},
		{`"AQI="`, Shape{Type: ua.TypeIDByteString}, []byte{1, 2}},
		{`"%"`, Shape{Type: ua.TypeIDByteString}, nil},
		{`"2026-01-02T04:04:05.00000065+01:00"`, Shape{Type: ua.TypeIDDateTime}, time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)},
		{`"1500-01-01T00:00:00Z"`, Shape{Type: ua.TypeIDDateTime}, nil},
		{`"soon"`, Shape{Type: ua.TypeIDDateTime}, nil},
		{`"x"`, Shape{Type: ua.TypeIDGUID}, nil},
		{"[1,2]", Shape{Type: ua.TypeIDInt16, Array: true}, []int16{1, 2}},
		{"[[1,2],[3,4]]", Shape{Type: ua.TypeIDInt16, Array: true}, [][]int16{{1, 2}, {3, 4}}},
		{"[[1,2],[3]]", Shape{Type: ua.TypeIDInt16, Array: true}, nil},
		{"[[1,2],3]", Shape{Type: ua.TypeIDInt16, Array: true}, nil},
		{"[1,70000]", Shape{Type: ua.TypeIDInt16, Array: true}, nil},
		{"[1,2]", Shape{Type: ua.TypeIDByte, Array: true}, ua.ByteArray{1, 2}},
		{"[]", Shape{Type: ua.TypeIDString, Array: true}, []string{}},
		{"7", Shape{Type: ua.TypeIDInt16, Array: true}, nil},
		{"[7]", Shape{Type: ua.TypeIDInt16}, nil},
		{`"x"`, Shape{Type: ua.TypeIDExtensionObject}, nil},
		{`["x"]`, Shape{Type: ua.TypeIDExtensionObject, Array: true}, nil},
	} {
		got, err := Variant(parse(t, tc.in), tc.shape)
		if tc.out == nil {
			if err == nil {
				t.Errorf("%s as %s is %v", tc.in, tc.shape, got.Value())
			}
			continue
		}
		if want := ua.MustVariant(tc.out); err != nil || ShapeOf(got) != ShapeOf(want) || !reflect.DeepEqual(got.Value(), want.Value()) {
			t.Errorf("%s as %s is %#v, %v; want %#v", tc.in, tc.shape, got, err, tc.out)
		}
	}
}

// FuzzVariant checks that what a node can hold comes back the same, through
// the wire.
func FuzzVariant(f *testing.F) {
	f.Add("21.3", uint8(10), false)
	f.Add("[1,2]", uint8(4), true)
	f.Add("[[1],[2]]", uint8(11), true)
	f.Add(`"2026-01-02T03:04:05Z"`, uint8(13), false)
	f.Add(`"ns=2;s=x"`, uint8(17), false)
	f.Add(`"2:x"`, uint8(20), false)
	f.Fuzz(func(t *testing.T, text string, typ uint8, array bool) {
		var v models.Value
		if v.UnmarshalJSON([]byte(text)) != nil {
			return
		}
		shape := Shape{Type: ua.TypeID(typ % 30), Array: array}
		variant, err := Variant(v, shape)
		if err != nil {
			return
		}
		data, err := variant.Encode()
		if err != nil {
			t.Fatalf("%s as %s: %v", text, shape, err)
		}
		var back ua.Variant
		if _, err := back.Decode(data); err != nil {
			if array && strings.Contains(text, "[]") {
				return // gopcua takes no empty dimensions
			}
			t.Fatalf("%s as %s: %v", text, shape, err)
		}
		for _, want := range models.Types {
			one, err1 := Value(variant, want)
			two, err2 := Value(&back, want)
			if one != two || (err1 == nil) != (err2 == nil) {
				t.Errorf("%s as %s is %v (%v), and through the wire %v (%v)", text, shape, one, err1, two, err2)
			}
		}
	})
}

// FuzzValue decodes what a server may send.
func FuzzValue(f *testing.F) {
	for _, x := range []any{int8(1), []string{"a"}, [][]int32{{1}, {2}}, time.Now(), ua.NewGUID("00112233-4455-6677-8899-AABBCCDDEEFF"),
		[]*ua.Variant{ua.MustVariant(1.5)}, &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(true)}} {
		data, err := ua.MustVariant(x).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(base64.StdEncoding.EncodeToString(data))
	}
	f.Fuzz(func(t *testing.T, text string) {
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(data) > 4096 {
			return
		}
		var v ua.Variant
		if !decodes(&v, data) {
			return
		}
		for _, want := range models.Types {
			out, err := Value(&v, want)
			if err == nil && !out.IsNull() {
				if fitted, err := out.Fit(want); err != nil || fitted != out {
					t.Errorf("%s is no %s", out, want)
				}
			}
			_, _ = Element(&v, 1, want)
		}
	})
}

// decodes decodes with gopcua, whose own mistakes are not to be found here.
func decodes(v *ua.Variant, data []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	if len(data) >= 5 && data[0]&ua.VariantArrayValues != 0 && int(int32(binary.LittleEndian.Uint32(data[1:]))) > len(data) {
		return false // it would make room for as many as are announced
	}
	_, err := v.Decode(data)
	return err == nil
}

func TestJudge(t *testing.T) {
	for code, want := range map[ua.StatusCode]struct {
		quality models.Quality
		reason  models.Reason
	}{
		ua.StatusOK:                      {models.Good, ""},
		ua.StatusGoodClamped:             {models.Good, ""},
		ua.StatusCode(0x00000480):        {models.Good, ""}, // overflow of a queue
		ua.StatusUncertainInitialValue:   {models.Uncertain, "initial-value"},
		ua.StatusBadSensorFailure:        {models.Bad, "sensor-failure"},
		ua.StatusBadSensorFailure | 0x02: {models.Bad, "sensor-failure"},
		ua.StatusBadNodeIDUnknown:        {models.Bad, "node-id-unknown"},
		ua.StatusBadNotConnected:         {models.Bad, models.ReasonNotConnected},
		ua.StatusBadOutOfRange:           {models.Bad, models.ReasonOutOfRange},
		ua.StatusBad:                     {models.Bad, models.ReasonDeviceError},
		ua.StatusCode(0x8FFF0000):        {models.Bad, models.ReasonDeviceError},
		ua.StatusCode(0xC0000000):        {models.Bad, models.ReasonDeviceError},
	} {
		if q, r := Judge(code); q != want.quality || r != want.reason {
			t.Errorf("%v is %v %q, want %v %q", code, q, r, want.quality, want.reason)
		}
	}
	for code := range ua.StatusCodes {
		if q, r := Judge(code); q != models.Good && (r == "" || strings.ToLower(string(r)) != string(r) || strings.ContainsAny(string(r), " _")) {
			t.Errorf("%v has the reason %q", code, r)
		}
	}
}

func TestTypeOf(t *testing.T) {
	for node, want := range map[string]ua.TypeID{"i=1": ua.TypeIDBoolean, "i=11": ua.TypeIDDouble, "i=290": ua.TypeIDDouble, "i=294": ua.TypeIDDateTime,
		"i=29": ua.TypeIDInt32, "i=24": 0, "i=26": 0, "i=22": 0, "ns=2;i=1": 0, "i=257": 0} {
		if got, ok := TypeOf(ua.MustParseNodeID(node)); got != want || ok != (want != 0) {
			t.Errorf("%s travels as %v", node, got)
		}
	}
	for t1 := range names {
		if t2, err := ParseType(TypeName(t1)); err != nil || t1 != t2 {
			t.Errorf("%d is %s is %d", t1, TypeName(t1), t2)
		}
	}
	if _, err := ParseType("Float64"); err == nil {
		t.Error("Float64 is a type")
	}
}
