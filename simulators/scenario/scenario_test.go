package scenario

import (
	"strings"
	"testing"
)

type thing struct {
	Kind string `yaml:"kind"`
	Text string `yaml:"text"`
	Size int    `yaml:"size"`
}

func TestSplitAndDecode(t *testing.T) {
	docs, err := Split([]byte("# first\nkind: a\ntext: |\n  one\n  two\n\n---  \n# only words\n---\nkind: b\nsize: 3\n---\r\nkind: c\nsize: 4"))
	if err != nil || len(docs) != 3 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	want := []thing{{"a", "one\ntwo\n", 0}, {"b", "", 3}, {"c", "", 4}}
	for i, d := range docs {
		var got thing
		if err := d.Decode(&got); err != nil || got != want[i] || d.Kind != want[i].Kind {
			t.Errorf("document %d: %+v, %v", i, got, err)
		}
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	docs, err := Split([]byte("kind: a\n---\nkind: b\nsiez: 3\nsize: many\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = docs[1].Decode(&thing{})
	if err == nil || !strings.Contains(err.Error(), "line 4: unknown field siez") || !strings.Contains(err.Error(), "line 5: cannot unmarshal") {
		t.Errorf("%v", err)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte("kind: a\n---\nkind: b\nsize: 3\n"))
	f.Add([]byte("kind: [\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := Split(data)
		if err != nil {
			return
		}
		for _, d := range docs {
			if d.Kind == "" {
				t.Fatal("a document without a kind")
			}
			_ = d.Decode(&thing{})
		}
	})
}
