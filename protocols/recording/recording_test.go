package recording

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

var whole = []any{
	Header{Version: Version, Protocol: "modbus", Device: "boiler-1", Started: time.Date(2026, 1, 31, 12, 0, 0, 123, time.UTC),
		Connection: json.RawMessage(`{"url":"tcp://192.0.2.7:502"}`), Properties: []models.Property{{Name: "a", Type: models.TypeInt, Access: models.Read, Address: json.RawMessage(`{"register":1}`)}}},
	Event{At: Millis(1250 * time.Microsecond), Send: Hex{1, 0xfe}, Came: []Piece{{After: Millis(time.Millisecond), Bytes: Hex{3}}}, Took: Millis(2 * time.Millisecond)},
	Event{At: Millis(time.Second), Send: Hex{1}, End: Silence, Error: "no answer", Dropped: 2},
	Event{At: Millis(2 * time.Second), Values: []Value{{Node: "ns=2;s=a", Type: "Double", Value: models.Float(1.5), Source: new(Millis(-time.Second))}, {Node: "i=1", Status: 0x80000000}}},
	Event{At: Millis(3 * time.Second), Writes: []Write{{Value: Value{Node: "i=1", Type: "Int16", Array: true, Value: models.Int(3)}, Index: "1"}}},
	Event{At: Millis(4 * time.Second), Over: true},
}

func text(t testing.TB, lines ...any) []byte {
	var out []byte
	for _, l := range lines {
		b, err := Line(l)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	got, err := Read(bytes.NewReader(text(t, whole...)))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Header, whole[0]) || got.Cut || got.Dropped != 2 || got.Length() != 4*time.Second || len(got.Events) != len(whole)-1 {
		t.Errorf("%+v", got)
	}
	for i, e := range got.Events {
		if !reflect.DeepEqual(e, whole[i+1]) {
			t.Errorf("event %d: %+v, want %+v", i, e, whole[i+1])
		}
	}
	// An interrupted one is read as far as it goes.
	got, err = Read(bytes.NewReader(text(t, whole[:3]...)))
	if err != nil || !got.Cut || len(got.Events) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	head := string(text(t, whole[0]))
	for in, want := range map[string]string{
		"":                             "the file is empty",
		"kind: x\n":                    "line 1: is not the beginning of a recording",
		`{"recording": 0}`:             "line 1: is not the beginning",
		`{"recording": 1}`:             "line 1: protocol is missing",
		`{"recording": 7}`:             "version 7, and this program knows 1: use a newer one",
		head + `{"ms":1,"c":2}`:        `line 2: json: unknown field "c"`,
		head + `{"ms":-1}`:             "line 2: ms and took are not below 0",
		head + `{"ms":"1"}`:            "line 2: must be milliseconds",
		head + `{"ms":1e99}`:           "line 2: must be milliseconds",
		head + `{"ms":1,"send":"0g"}`:  "line 2: must be bytes in hexadecimal",
		head + `{"ms":1,"end":"gone"}`: "line 2: end is none of",
		head + `{"ms":1,"over":true}` + "\n" + `{"ms":2}`: "line 3: there is more after the end",
		head + strings.Repeat(" ", MaxLine+1):             "line 2: bufio.Scanner: token too long",
	} {
		if _, err := Read(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want …%s…", in, err, want)
		}
	}
	if !Sniff([]byte(head)) || Sniff([]byte("kind: x\n")) || Sniff(nil) || Sniff([]byte("{}\n")) {
		t.Error("recordings are not told by their beginning")
	}
}

func FuzzRead(f *testing.F) {
	f.Add(text(f, whole...))
	f.Add([]byte(`{"recording":1,"protocol":"x"}` + "\n" + `{"ms":0.0005}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		// What was read can be written and is the same.
		lines := []any{r.Header}
		for _, e := range r.Events {
			lines = append(lines, e)
		}
		var out []byte
		for _, l := range lines {
			b, err := Line(l)
			if err != nil {
				t.Skip(err) // longer than what was read, escapes grow
			}
			out = append(out, b...)
		}
		again, err := Read(bytes.NewReader(out))
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if len(again.Events) != len(r.Events) || again.Cut != r.Cut || again.Dropped != r.Dropped {
			t.Fatalf("%+v became %+v", r, again)
		}
	})
}
