package bridge

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const docs = "../../docs"

// schema compiles the schema of a topic, as users read it.
func schema(t testing.TB, kind mqtt.MapperTopicKind) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(filepath.Join(docs, "mapper-protocol", string(kind)+".schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validates(t testing.TB, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

// decoders are what takes a mapper's messages.
var decoders = map[mqtt.MapperTopicKind]func([]byte) error{
	mqtt.MapperAnnounce:  func(b []byte) error { _, err := decodeAnnounce(b); return err },
	mqtt.MapperBatch:     func(b []byte) error { _, err := decodeBatch(b); return err },
	mqtt.MapperState:     func(b []byte) error { _, err := decodeState(b); return err },
	mqtt.MapperAnswer:    func(b []byte) error { _, err := decodeAnswer(b); return err },
	mqtt.MapperHeartbeat: decodeNothing,
	mqtt.MapperBye:       decodeNothing,
}

// messages are of testdata/messages: {kind}.good.jsonl and {kind}.bad.jsonl, a
// message a line. Bad ones have what the decoder says before a tab.
func messages(t testing.TB, kind mqtt.MapperTopicKind, sort string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "messages", string(kind)+"."+sort+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// TestSchemasAreTheDecoders checks that what the guide's schemas accept and
// refuse is what the code does.
func TestSchemasAreTheDecoders(t *testing.T) {
	for kind, decode := range decoders {
		s := schema(t, kind)
		for _, text := range messages(t, kind, "good") {
			if err := decode([]byte(text)); err != nil {
				t.Errorf("%s %s: %v", kind, text, err)
			}
			if err := validates(t, s, []byte(text)); err != nil {
				t.Errorf("%s %s: its schema: %v", kind, text, err)
			}
		}
		for _, line := range messages(t, kind, "bad") {
			want, text, ok := strings.Cut(line, "\t")
			if !ok {
				t.Fatalf("%s: no tab in %q", kind, line)
			}
			if err := decode([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: error %v, want %s", kind, text, err, want)
			}
			if validates(t, s, []byte(text)) == nil {
				t.Errorf("%s %s: its schema accepts it", kind, text)
			}
		}
	}
}

// TestTheGuidesMessages checks each example of the guide against its schema.
func TestTheGuidesMessages(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(docs, "mapper-protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```json file=([a-z]+)[-a-z]*\\.json\n(.*?)```").FindAllSubmatch(text, -1)
	if len(found) < 9 {
		t.Fatalf("%d examples", len(found))
	}
	for _, m := range found {
		kind := mqtt.MapperTopicKind(m[1])
		if err := validates(t, schema(t, kind), m[2]); err != nil {
			t.Errorf("%s: %v", m[2], err)
		}
		if decode := decoders[kind]; decode != nil {
			if err := decode(m[2]); err != nil {
				t.Errorf("%s: %v", m[2], err)
			}
		}
	}
}

// TestEverySchemaIsUsed finds schemas that no message has, and the other way round.
func TestEverySchemaIsUsed(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(docs, "mapper-protocol", "*"))
	if err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile(filepath.Join(docs, "mapper-protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 11 {
		t.Errorf("%d schemas", len(files))
	}
	for _, f := range files {
		if !strings.Contains(string(guide), "mapper-protocol/"+filepath.Base(f)) {
			t.Errorf("the guide does not link to %s", f)
		}
	}
}

func FuzzMessages(f *testing.F) {
	kinds := []mqtt.MapperTopicKind{mqtt.MapperAnnounce, mqtt.MapperBatch, mqtt.MapperState, mqtt.MapperAnswer, mqtt.MapperHeartbeat}
	for i, kind := range kinds {
		for _, text := range messages(f, kind, "good") {
			f.Add(uint8(i), []byte(text))
		}
		for _, line := range messages(f, kind, "bad") {
			_, text, _ := strings.Cut(line, "\t")
			f.Add(uint8(i), []byte(text))
		}
	}
	schemas := map[mqtt.MapperTopicKind]*jsonschema.Schema{}
	for _, kind := range kinds {
		schemas[kind] = schema(f, kind)
	}
	f.Fuzz(func(t *testing.T, n uint8, payload []byte) {
		kind := kinds[int(n)%len(kinds)]
		if decoders[kind](payload) != nil || len(bytes.TrimSpace(payload)) == 0 {
			return
		}
		if !json.Valid(payload) {
			t.Fatalf("%s: accepted, and is no JSON: %q", kind, payload)
		}
		// null is taken for what is left out, which a schema cannot say everywhere.
		if bytes.Contains(payload, []byte("null")) {
			return
		}
		if err := validates(t, schemas[kind], payload); err != nil {
			t.Fatalf("%s: the code accepts what the schema does not: %s: %v", kind, payload, err)
		}
	})
}
