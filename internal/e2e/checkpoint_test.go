package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestKilledBeforeCheckpoint kills a hub that has acknowledged what its checkpoints of
// twins do not have, and its edge, which stays away: the twin shows what the ledger
// knows, and a version that nobody has seen.
func TestKilledBeforeCheckpoint(t *testing.T) {
	sim := tanks(t, 1)
	steps := t.TempDir()
	h := newHubWith(t, []string{"WHIMBREL_FAILPOINTS=" + steps}, "")
	h.apply(tankModel + "---\n" + tank(sim, "tank-1", "gateway") + "\n")
	e := newEdge(t, h, "gateway", h.link)
	h.awaitTwin(t, 20*time.Second, hubAPI, "tank-1", "is live", isGood("level", "valve", "dose"))
	h.want(t, 200, "PATCH", hubAPI+"/devices/tank-1/twin/desired?wait=10s", `{"valve": 1}`)

	// From now on nothing of a twin is stored.
	at := filepath.Join(steps, "twins.checkpoint")
	if err := os.WriteFile(at, []byte("pause"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "a checkpoint begins", func() error { _, err := os.Stat(at + ".reached"); return err })
	h.want(t, 200, "PATCH", hubAPI+"/devices/tank-1/twin/desired?wait=10s&expire=1m", `{"valve": 42}`)
	eventually(t, 10*time.Second, "the ledger knows", func() error {
		entries, err := h.ledger("tank-1")
		if err == nil && (len(entries) != 2 || entries[0].State != "applied") {
			err = fmt.Errorf("%+v", entries)
		}
		return err
	})
	e.kill()
	seen, err := h.twin(hubAPI, "tank-1")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time before there is any checkpoint of the life before
		h.kill()
		_ = os.Remove(at + ".reached")
		if err := os.WriteFile(at, []byte("pause"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.begin()
		h.awaitReady()
		now, err := h.twin(hubAPI, "tank-1")
		if err != nil {
			t.Fatal(err)
		}
		if now.value("valve") != "42" || now.write("valve") != "applied" {
			t.Errorf("the twin shows %s, write %s; the ledger says that 42 is applied", now.value("valve"), now.write("valve"))
		}
		if now.Version <= seen.Version {
			t.Errorf("the twin has version %d after %d", now.Version, seen.Version)
		}
		seen = now
	}
	_ = os.Remove(at + ".reached")
	_ = os.Remove(at)
	h.stop()
	h.begin()
	h.awaitReady()
	if now, err := h.twin(hubAPI, "tank-1"); err != nil || now.Version <= seen.Version || now.Version > seen.Version+100 {
		t.Errorf("version %d after a hub that stopped at %d, %v", now.Version, seen.Version, err)
	}
}
