package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/simulators"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

// TestRecord records a device through hub, link and edge while something is
// wrong with it, plays the recording as a device of the same edge, and sees the
// same.
func TestRecord(t *testing.T) {
	sim := tanks(t, 1)
	h := newHub(t, "")
	e := newEdge(t, h, "gateway", h.link)
	h.apply(tankModel)
	h.apply(tank(sim, "tank-1", "gateway"))
	h.awaitTwin(t, 20*time.Second, hubAPI, "tank-1", "was polled", func(d twinDoc) bool { return d.quality("level") == "good" })
	dir := t.TempDir()
	file := filepath.Join(dir, "tank.jsonl")
	recorded := make(chan result, 1)
	go func() {
		recorded <- run(t, "", h.path, "--context", filepath.Join(h.data, "context.json"), "record", "tank-1", "--for", "3s", "-o", file)
	}()
	eventually(t, 10*time.Second, "the recording has begun", func() error {
		if info, err := os.Stat(file); err != nil || info.Size() == 0 {
			return fmt.Errorf("%v, %v", info, err)
		}
		return nil
	})
	h.want(t, 409, "GET", hubAPI+"/devices/tank-1/recording?for=1s", "")
	e.local().want(t, 404, "GET", edgeAPI+"/devices/nix/recording?for=1s", "")
	if err := sim.Inject("", modbussim.Fault{Kind: modbussim.Refuse, Exception: 4}); err != nil {
		t.Fatal(err)
	}
	h.awaitTwin(t, 10*time.Second, hubAPI, "tank-1", "is bad", func(d twinDoc) bool { return strings.HasPrefix(d.quality("level"), "bad") })
	r := <-recorded
	if r.code != 0 || !strings.Contains(r.stdout, "3s of tank-1") && !strings.Contains(r.stdout, "of tank-1, ") {
		t.Fatal(r)
	}

	played := simulators.StartRecording(t, file, simulators.Replay{})
	if played.Recording.Cut || played.Recording.Dropped > 0 || len(played.Recording.Properties) == 0 {
		t.Errorf("cut %v, dropped %d, %d properties", played.Recording.Cut, played.Recording.Dropped, len(played.Recording.Properties))
	}
	text, err := played.Manifest("gateway")
	if err != nil {
		t.Fatal(err)
	}
	played.Seek(0)
	h.apply(string(text))
	h.awaitTwin(t, 20*time.Second, hubAPI, "tank-1-replay", "reads well", func(d twinDoc) bool { return d.quality("level") == "good" })
	played.Seek(played.Recording.Length())
	h.awaitTwin(t, 20*time.Second, hubAPI, "tank-1-replay", "is bad, too", func(d twinDoc) bool { return strings.HasPrefix(d.quality("level"), "bad") })

	// What is to stay at the edge does not leave it this way.
	h.apply(strings.Replace(tankModel, "access: Read", "uplink: none, access: Read", 1))
	eventually(t, 10*time.Second, "the hub is refused", func() error {
		got, err := h.do("GET", hubAPI+"/devices/tank-1/recording?for=100ms", "")
		if err != nil || got.status != 502 || !strings.Contains(string(got.body), "stay at the edge") {
			return fmt.Errorf("%v, %v", got, err)
		}
		return nil
	})
	local := e.local().want(t, 200, "GET", edgeAPI+"/devices/tank-1/recording?for=300ms", "")
	if text := string(local.body); !strings.HasPrefix(text, `{"recording":1,`) || !strings.Contains(text, `"over":true`) {
		t.Errorf("recorded at the edge: %.300s", text)
	}

	// The commands about one device work with the edge's context, too; the others
	// say what they have come to.
	at := func(args ...string) result {
		return run(t, "", h.path, append(args, "--context", filepath.Join(e.data, "context.json"))...)
	}
	file = filepath.Join(dir, "at-the-edge.jsonl")
	for _, args := range [][]string{{"record", "tank-1", "--for", "500ms", "-o", file}, {"twin", "get", "tank-1"}} {
		if r := at(args...); r.code != 0 || !strings.Contains(r.stdout, "tank-1") {
			t.Errorf("%v: %v", args, r)
		}
	}
	if r := at("twin", "set", "tank-1", "level=1"); r.code != 1 || !strings.Contains(r.stderr, "level") || strings.Contains(r.stderr, "not found") {
		t.Errorf("writing what cannot be written: %v", r)
	}
	if r := at("record", "nix", "--for", "1s", "-o", file+"2"); r.code != 1 || !strings.Contains(r.stderr, "nix not found") {
		t.Errorf("a device that is not there: %v", r)
	}
	if r := at("get", "devices"); r.code != 1 || !strings.Contains(r.stderr, "this is the API of an edge") {
		t.Errorf("objects: %v", r)
	}
}
