package docker

import (
	"reflect"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
)

func TestFollowPull(t *testing.T) {
	var last engine.Progress
	report := `{"status":"Pulling from x","id":"1"}
{"status":"Downloading","progressDetail":{"current":5,"total":10},"id":"a"}
{"status":"Already exists","progressDetail":{},"id":"c"}
{"status":"Downloading","progressDetail":{"current":3,"total":30},"id":"b"}
{"status":"Extracting","progressDetail":{"current":1,"total":10},"id":"a"}
{"status":"Downloading","progressDetail":{"current":10,"total":10},"id":"a"}
{"status":"Status: Downloaded newer image"}
`
	if err := followPull(strings.NewReader(report), func(p engine.Progress) { last = p }); err != nil || !reflect.DeepEqual(last, engine.Progress{Done: 13, Total: 40, Layers: 2, Here: []string{"c"}}) {
		t.Errorf("%+v, %v", last, err)
	}
	if err := followPull(strings.NewReader(`{"status":"x"}`+"\n"+`{"errorDetail":{"message":"m"},"error":"manifest unknown"}`), nil); err == nil || err.Error() != "manifest unknown" {
		t.Errorf("a pull that fails in the middle: %v", err)
	}
	if err := followPull(strings.NewReader(`{"status":`), nil); err == nil {
		t.Error("a report that breaks off is a success")
	}
}

func FuzzFollowPull(f *testing.F) {
	f.Add([]byte(`{"status":"Downloading","progressDetail":{"current":5,"total":10},"id":"a"}`))
	f.Fuzz(func(t *testing.T, report []byte) {
		_ = followPull(strings.NewReader(string(report)), func(p engine.Progress) {
			if p.Layers < 1 && len(p.Here) < 1 {
				t.Error("progress of no layer")
			}
		})
	})
}
