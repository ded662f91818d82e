package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

// TestReadOnDemand reads devices that answer, refuse, are silent and whose edge
// is away, through real processes.
func TestReadOnDemand(t *testing.T) {
	sim := tanks(t, 2)
	h := newHub(t, "")
	e := newEdge(t, h, "gateway", h.link)
	// Polled once an hour: what is fresh has been asked for.
	h.apply(strings.Replace(strings.Replace(tankModel, "every: 200ms", "every: 1h", 1), "{name: dose, type: int, access: ReadWrite",
		"{name: dose, type: int, access: Write", 1) + `
  - {name: hidden, type: int, access: Read, uplink: none, address: {table: holding, register: 0, encoding: uint16}}
  - {name: gone, type: int, access: Read, address: {table: input, register: 4711, encoding: uint16}}
`)
	h.apply(tank(sim, "tank-1", "gateway"))
	h.apply(tank(sim, "tank-2", "gateway"))
	h.awaitTwin(t, 20*time.Second, hubAPI, "tank-1", "was polled", func(d twinDoc) bool { return d.quality("level") == "good" })
	const path = hubAPI + "/devices/tank-1/read"
	type reading struct {
		Device     string
		Properties map[string]reportedDoc
	}

	step(t, "fresh", func(t *testing.T) {
		before, err := h.twin(hubAPI, "tank-1")
		if err != nil {
			t.Fatal(err)
		}
		old, err := before.number("level")
		if err != nil {
			t.Fatal(err)
		}
		var got reading
		eventually(t, 5*time.Second, "the level has risen", func() error {
			h.want(t, 200, "POST", path, `{"properties":["level"]}`).into(t, &got)
			var now float64
			if err := json.Unmarshal(got.Properties["level"].Value, &now); err != nil || now <= old {
				return fmt.Errorf("%v, and was %v", got, old)
			}
			return nil
		})
		if r := got.Properties["level"]; got.Device != "tank-1" || len(got.Properties) != 1 || r.Quality != "good" || time.Since(r.Time) > time.Minute {
			t.Errorf("read %+v", got)
		}
		h.awaitTwin(t, 10*time.Second, hubAPI, "tank-1", "has what was read", func(d twinDoc) bool { return d.value("level") == string(got.Properties["level"].Value) })
		// All that can be read and may leave the edge; one that the device refuses says so.
		h.want(t, 200, "POST", path, "").into(t, &got)
		if len(got.Properties) != 3 || got.Properties["gone"].Quality != "bad" || got.Properties["valve"].Quality != "good" {
			t.Errorf("read %+v", got)
		}
		local := e.local()
		local.want(t, 200, "POST", edgeAPI+"/devices/tank-1/read", `{"properties":["hidden"]}`).into(t, &got)
		if got.Properties["hidden"].Quality != "good" {
			t.Errorf("read at the edge %+v", got)
		}
		local.want(t, 404, "POST", edgeAPI+"/devices/nix/read", "")
		local.want(t, 400, "POST", edgeAPI+"/devices/tank-1/read?wait=1h", "")
	})

	step(t, "commands", func(t *testing.T) {
		if out := h.must("", "twin", "read", "tank-1", "level", "valve"); !strings.Contains(out, "PROPERTY") || !strings.Contains(out, " l ") || !strings.Contains(out, "good") {
			t.Errorf("printed %s", out)
		}
		if r := h.cli("", "twin", "read", "tank-1", "nix"); r.code != 1 || !strings.Contains(r.stderr, "no property") {
			t.Errorf("%v", r)
		}
	})

	step(t, "wrong", func(t *testing.T) {
		for _, c := range []struct{ body, pointer, detail string }{
			{`{"properties":["level","nix"]}`, "/properties/1", "no property"},
			{`{"properties":["dose"]}`, "/properties/0", "only be written"},
			{`{"properties":["hidden"]}`, "/properties/0", "stays at the edge"},
			{`{"properties":[]}`, "/properties", "at least one"},
			{`{"property":["level"]}`, "/property", "unknown"},
		} {
			p := h.want(t, 422, "POST", path, c.body).problem(t)
			if len(p.Errors) != 1 || p.Errors[0].Pointer != c.pointer || !strings.Contains(p.Errors[0].Detail, c.detail) {
				t.Errorf("%s: %+v", c.body, p)
			}
		}
		h.want(t, 404, "POST", hubAPI+"/devices/nix/read", "")
		h.want(t, 400, "POST", path+"?wait=1h", "")
		viewer := h.must("", "user", "create", "vera", "--role", "viewer")
		h.as(strings.TrimSpace(viewer)).want(t, 403, "POST", path, `{"properties":["level"]}`)
		operator := h.must("", "user", "create", "otto", "--role", "operator")
		h.as(strings.TrimSpace(operator)).want(t, 200, "POST", path, `{"properties":["level"]}`)
	})

	step(t, "refused", func(t *testing.T) {
		p := h.want(t, 502, "POST", path, `{"properties":["gone"]}`).problem(t)
		if !strings.Contains(p.Detail, "device-error") {
			t.Errorf("%+v", p)
		}
	})

	step(t, "silent", func(t *testing.T) {
		if err := sim.Inject("tank-1", modbussim.Fault{Kind: modbussim.Silent}); err != nil {
			t.Fatal(err)
		}
		p := h.want(t, 504, "POST", path, `{"properties":["level"]}`).problem(t)
		if !strings.Contains(p.Detail, "timeout") {
			t.Errorf("%+v", p)
		}
		began := time.Now()
		h.want(t, 504, "POST", path+"?wait=100ms", `{"properties":["level"]}`)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("answered after %v instead of 100 ms", took)
		}
		// The others do not wait for it.
		h.want(t, 200, "POST", hubAPI+"/devices/tank-2/read", `{"properties":["level"]}`)
		sim.Clear("tank-1")
		h.want(t, 200, "POST", path, `{"properties":["level"]}`)
	})

	step(t, "link lost while it is asked", func(t *testing.T) {
		if err := e.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		done := make(chan answer, 1)
		go func() { // ends with the answer
			got, err := h.do("POST", path+"?wait=30s", `{"properties":["level"]}`)
			if err != nil {
				t.Error(err)
			}
			done <- got
		}()
		h.want(t, 504, "POST", path+"?wait=300ms", `{"properties":["level"]}`) // long enough for the other to wait, too
		select {
		case got := <-done:
			t.Fatalf("answered by an edge that is stopped: %v", got)
		default:
		}
		e.kill()
		if got := <-done; got.status != 503 || !strings.Contains(got.problem(t).Detail, "lost") {
			t.Errorf("%v", got)
		}
	})

	step(t, "offline", func(t *testing.T) {
		h.awaitNode(t, "gateway", false)
		began := time.Now()
		p := h.want(t, 503, "POST", path, `{"properties":["level"]}`).problem(t)
		if took := time.Since(began); took > time.Second || !strings.Contains(p.Detail, "gateway is offline") {
			t.Errorf("after %v: %+v", took, p)
		}
		// What is wrong is wrong whether or not anybody is there.
		h.want(t, 422, "POST", path, `{"properties":["nix"]}`)
		h.apply(strings.Replace(tank(sim, "tank-1", ""), `"tank-1"`, `"tank-3"`, 1))
		if p := h.want(t, 503, "POST", hubAPI+"/devices/tank-3/read", "").problem(t); !strings.Contains(p.Detail, "no node serves") {
			t.Errorf("%+v", p)
		}
	})
	if log, err := os.ReadFile(h.file("stderr")); err != nil || strings.Contains(string(log), "panic") {
		t.Errorf("%v\n%s", err, log)
	}
}
