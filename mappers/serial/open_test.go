package serial

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestOpenRefuses(t *testing.T) {
	const url = `"url": "serial:///dev/ttyS0"`
	const good = `{"read": "A?", "match": "A=(.*)"}`
	for _, c := range []struct {
		name       string
		connection string
		kind       models.Type
		access     models.Access
		address    string
		pointer    string
		detail     string
	}{
		{"no url", `{}`, "float", r, good, "/spec/connection/url", "is required"},
		{"another scheme", `{"url": "rtu:///dev/ttyS0"}`, "float", r, good, "/spec/connection/url", "serial://"},
		{"tcp", `{"url": "tcp://host:1"}`, "float", r, good, "/spec/connection/url", "must begin with"},
		{"baud", `{"url": "serial:///dev/ttyS0?baud=9601"}`, "float", r, good, "/spec/connection/url", "9601"},
		{"both ends", `{` + url + `, "terminator": "\n", "length": 4}`, "float", r, good, "/spec/connection/length", "one or the other"},
		{"no length", `{` + url + `, "length": 0}`, "float", r, good, "/spec/connection/length", "got 0"},
		{"too long", `{` + url + `, "length": 5000}`, "float", r, good, "/spec/connection/length", "5000"},
		{"only a checksum", `{` + url + `, "length": 2, "checksum": "crc16"}`, "float", r, good, "/spec/connection/length", "leaves nothing"},
		{"no terminator", `{` + url + `, "terminator": ""}`, "float", r, good, "/spec/connection/terminator", "empty"},
		{"checksum", `{` + url + `, "checksum": "md5"}`, "float", r, good, "/spec/connection/checksum", "md5"},
		{"timeout", `{` + url + `, "timeout": "0s"}`, "float", r, good, "/spec/connection/timeout", "1ms"},
		{"timeout text", `{` + url + `, "timeout": 3}`, "float", r, good, "/spec/connection/timeout", ""},
		{"pause", `{` + url + `, "pause": "2m"}`, "float", r, good, "/spec/connection/pause", "1m"},
		{"unknown field", `{` + url + `, "baud": 9600}`, "float", r, good, "/spec/connection/baud", "unknown"},

		{"nothing", `{` + url + `}`, "float", r, ``, "/spec/properties/p/address", "required"},
		{"no read", `{` + url + `}`, "float", r, `{"match": "(.)"}`, "/spec/properties/p/address/read", "listen: true"},
		{"bad match", `{` + url + `}`, "float", r, `{"read": "A?", "match": "A=("}`, "/spec/properties/p/address/match", "missing closing )"},
		{"no group", `{` + url + `}`, "float", r, `{"read": "A?", "match": "A=.*"}`, "/spec/properties/p/address/match", "no group"},
		{"only a group that is none", `{` + url + `}`, "float", r, `{"read": "A?", "match": "A=(?:.*)"}`, "/spec/properties/p/address/match", "no group"},
		{"terminator in read", `{` + url + `}`, "float", r, `{"read": "A?\r\n"}`, "/spec/properties/p/address/read", "terminator"},
		{"empty read", `{` + url + `}`, "float", r, `{"read": ""}`, "/spec/properties/p/address/read", "empty"},
		{"no value", `{` + url + `}`, "float", rw, `{"read": "A?", "write": "A 1"}`, "/spec/properties/p/address/write", "{value}"},
		{"no write", `{` + url + `}`, "float", rw, `{"read": "A?"}`, "/spec/properties/p/address/write", "required"},
		{"no write to expect", `{` + url + `}`, "float", models.Write, `{"expect": "OK"}`, "/spec/properties/p/address/write", "required"},
		{"bad expect", `{` + url + `}`, "float", models.Write, `{"write": "{value}", "expect": "*"}`, "/spec/properties/p/address/expect", "regular expression"},
		{"read of what is written", `{` + url + `}`, "float", models.Write, `{"write": "{value}", "read": "A?"}`, "/spec/properties/p/address/read", "access is Write"},
		{"write of what is read", `{` + url + `}`, "float", r, `{"write": "{value}", "read": "A?"}`, "/spec/properties/p/address/write", "access is Read"},
		{"object", `{` + url + `}`, "object", r, good, "/spec/properties/p/address", "object"},
		{"unknown field in address", `{` + url + `}`, "float", r, `{"ask": "A?"}`, "/spec/properties/p/address/ask", "unknown"},
		{"wide character", `{` + url + `, "length": 4}`, "float", r, `{"read": "€"}`, "/spec/properties/p/address/read", "U+00FF"},
		{"listen with read", `{` + url + `, "listen": true}`, "float", r, good, "/spec/properties/p/address/read", "talks unasked"},
		{"listen without match", `{` + url + `, "listen": true}`, "float", r, `{}`, "/spec/properties/p/address/match", "required"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(c.connection), Points: []mappers.Point{pt("p", c.kind, c.access, c.address)}})
			if err == nil {
				dev.Close()
				t.Fatal("accepted")
			}
			var e *models.Error
			if !errors.As(err, &e) || e.Kind != models.KindInvalid || len(e.Fields) != 1 {
				t.Fatalf("%v", err)
			}
			if f := e.Fields[0]; f.Pointer != c.pointer || !strings.Contains(f.Detail, c.detail) {
				t.Errorf("%s: %s", f.Pointer, f.Detail)
			}
		})
	}
}

func TestOpenTakes(t *testing.T) {
	for _, c := range []string{
		`{"url": "serial:///dev/ttyUSB0?baud=115200&parity=even&dataBits=7&stopBits=2", "timeout": "300ms", "terminator": "\r", "checksum": "xor", "pause": "20ms"}`,
		`{"url": "serial:///dev/ttyUSB0", "length": 9, "checksum": "crc16"}`,
	} {
		dev, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(c), Points: []mappers.Point{
			pt("a", "bytes", rw, `{"read": "\u0002A\u00fe", "write": "W{value}{value}"}`), pt("b", "int", models.Write, `{"write": "{value}", "expect": "OK|DONE"}`)}})
		if err != nil {
			t.Errorf("%s: %v", c, err)
			continue
		}
		if got := dev.(mappers.LineSharer).Line(); got != "serial:///dev/ttyUSB0" {
			t.Error(got)
		}
		dev.Close()
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct {
		kind models.Type
		text string
		want models.Value // Null: bad
	}{
		{"float", " +0012.50 ", models.Float(12.5)}, {"float", "-   3.25", models.Float(-3.25)}, {"float", "1.5E+02", models.Float(150)}, {"float", ".5", models.Float(0.5)}, {"float", "7", models.Float(7)},
		{"float", "NaN", models.Null}, {"float", "inf", models.Null}, {"float", "1e999", models.Null}, {"float", "", models.Null}, {"float", "12,5", models.Null},
		{"float", "0x1p4", models.Null}, {"float", "1_000", models.Null}, {"float", "--1", models.Null}, {"float", "OL", models.Null},
		{"int", "0042", models.Int(42)}, {"int", "+7", models.Int(7)}, {"int", "12.0", models.Int(12)}, {"int", "12.5", models.Null}, {"int", "18446744073709551615", models.Uint(1<<64 - 1)},
		{"int", "-9223372036854775808", models.Int(-1 << 63)}, {"int", "ff", models.Null},
		{"bool", "ON", models.Bool(true)}, {"bool", " 0", models.Bool(false)}, {"bool", "no", models.Bool(false)}, {"bool", "2", models.Null},
		{"string", " a b ", models.String(" a b ")}, {"bytes", "Aþ", models.Bytes([]byte{'A', 0xFE})},
	} {
		p := point{kind: c.kind}
		got := p.decode(c.text, true)
		if c.want.IsNull() != (got.Quality == models.Bad) || got.Value != c.want {
			t.Errorf("%s of %q: %v %v %v, want %v", c.kind, c.text, got.Value, got.Quality, got.Reason, c.want)
		}
		if got.Quality == models.Bad && got.Reason == models.ReasonNone {
			t.Errorf("%s of %q is bad without a reason", c.kind, c.text)
		}
	}
}

func TestRequests(t *testing.T) {
	dev, err := New().Open(mappers.DeviceConfig{Connection: json.RawMessage(`{"url": "serial:///dev/ttyS0"}`), Points: []mappers.Point{
		pt("f", "float", models.Write, `{"write": "SP {value}"}`), pt("b", "bool", models.Write, `{"write": "{value}"}`),
		pt("i", "int", models.Write, `{"write": "<{value}|{value}>"}`), pt("s", "string", models.Write, `{"write": "N {value}"}`), pt("y", "bytes", models.Write, `{"write": "{value}"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	for _, c := range []struct {
		point int
		value models.Value
		want  string // "" is refused
	}{
		{0, models.Float(45.5), "SP 45.5"}, {0, models.Int(45), "SP 45"}, {0, models.Float(1e21), "SP 1000000000000000000000"}, {0, models.Float(-0.000001), "SP -0.000001"}, {0, models.String("1"), ""},
		{1, models.Bool(true), "1"}, {1, models.Bool(false), "0"}, {2, models.Int(7), "<7|7>"}, {2, models.Uint(1<<64 - 1), "<18446744073709551615|18446744073709551615>"}, {2, models.Float(0.5), ""},
		{3, models.String("Süd {value}"), "N Süd {value}"}, {3, models.String("a\nb"), ""}, {3, models.String("a\x00"), ""}, {3, models.String(strings.Repeat("x", 4096)), ""},
		{4, models.Bytes([]byte{0xFE, 'a'}), "\xfea"}, {4, models.Bytes([]byte("a\r\nb")), ""},
	} {
		d := dev.(*device)
		got, err := d.points[c.point].request(c.value)
		if string(got) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%v: %q, %v, want %q", c.value, got, err, c.want)
		}
		if _, cerr := d.Canonical(c.point, c.value); (cerr == nil) != (err == nil) {
			t.Errorf("%v: Canonical says %v, the request %v", c.value, cerr, err)
		}
	}
}

// FuzzAnswer: whatever a device says, every point gets a value that fits it or
// a reason.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"TEMP=21.5", "TEMP=", "", "\xff\xfe", "TEMP=1e999", "TEMP=NaN", "TEMP=0x1"} {
		f.Add([]byte(s), `TEMP=(.*)`)
	}
	f.Fuzz(func(t *testing.T, message []byte, match string) {
		for _, kind := range []models.Type{models.TypeBool, models.TypeInt, models.TypeFloat, models.TypeString, models.TypeBytes} {
			c := checker{}
			p := c.compile(pt("p", kind, r, `{"read": "A", "match": `+string(models.String(match).AppendJSON(nil))+`}`), target{})
			if len(c.Found()) > 0 {
				return
			}
			said, bytewise := text(message, p.framing)
			value, ok := p.fits(said)
			if !ok {
				continue
			}
			got := p.decode(value, bytewise)
			if got.Quality == models.Bad {
				if got.Reason == models.ReasonNone || !got.Value.IsNull() {
					t.Errorf("%q as %s: %v %v", message, kind, got.Value, got.Reason)
				}
			} else if fitted, err := got.Value.Fit(kind); err != nil || fitted != got.Value {
				t.Errorf("%q as %s: %v", message, kind, got.Value)
			}
		}
	})
}
