package link

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

func item(name string, revision uint64) *pb.Item {
	return &pb.Item{Kind: "Device", Namespace: "default", Name: name, Uid: "uid-" + name, Revision: revision, Assignment: 1, Json: []byte(`{}`)}
}

func TestJoinAndWork(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.syncs = []*pb.Sync{{Id: 7, Full: true, Items: []*pb.Item{item("a", 3), item("b", 4)}}}
	e := newEdge(t, h)
	e.devices.twins = func(want devices.LatestWanted) []*pb.LatestTwin {
		if !want.Full {
			return nil
		}
		return []*pb.LatestTwin{{Device: &pb.DeviceRef{Uid: "uid-a"}, Full: true, State: "online"}}
	}
	e.start()
	e.linked()
	e.record()
	eventually(t, "the record is committed and forgotten", func() bool {
		return h.is(func() bool { return len(h.records) == 1 })() && e.outbox.Stats().Records == 0
	})
	eventually(t, "the wanted state is acknowledged", h.is(func() bool { return len(h.done) == 1 && h.done[0] == 7 }))
	eventually(t, "the latest lane and reports come", h.is(func() bool { return len(h.latest) > 0 && len(h.reports) > 1 }))
	h.set(func() {
		hello := h.hellos[0]
		if hello.Node != "gateway-1" || hello.Labels["site"] != "north" || len(hello.Epochs) == 0 || hello.Lineage != "" || hello.Capability != edgelink.Capability {
			t.Errorf("hello %v", hello)
		}
		if r := h.reports[0]; len(r.Seen) != 1 || r.ClockUs == 0 {
			t.Errorf("report %v", r)
		}
		if h.records[0].backfill {
			t.Error("what was made while the link was up counts as backfill")
		}
	})
	eventually(t, "the devices hear of it", func() bool {
		e.devices.mu.Lock()
		defer e.devices.mu.Unlock()
		return len(e.devices.applied) == 1 && len(e.devices.applied[0]) == 2
	})
	for _, name := range []string{identityFile, caFile} {
		if info, err := os.Stat(filepath.Join(e.cfg.Dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if joined, err := Joined(e.cfg.Dir); !joined || err != nil {
		t.Errorf("joined: %v, %v", joined, err)
	}
	if !e.link.Status().Connected {
		t.Error("not connected")
	}
	if err := e.stop(); err != nil {
		t.Errorf("run: %v", err)
	}
	eventually(t, "the edge says goodbye", h.is(func() bool { return len(h.byes) == 1 && h.byes[0] == edgelink.GoodbyeShutdown }))

	// It comes back with what it holds, by its identity: the token may still be on
	// its command line, or not.
	for _, token := range []string{h.token.Encode(), ""} {
		e.cfg.Token = token
		h.set(func() { h.hellos, h.syncs = nil, nil })
		e.start()
		eventually(t, "a hello", h.is(func() bool { return len(h.hellos) == 1 }))
		h.set(func() {
			if held := h.hellos[0].Held; len(held) != 2 || held[0].Revision != 3 || held[0].Uid != "uid-a" {
				t.Errorf("holds %v", held)
			}
			if len(h.joins) != 1 {
				t.Errorf("joined %d times", len(h.joins))
			}
		})
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestJoinThatLosesItsAnswer(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.loseJoin = 2
	e := newEdge(t, h).start()
	eventually(t, "a hello", h.is(func() bool { return len(h.hellos) > 0 }))
	h.set(func() {
		if len(h.joins) != 3 {
			t.Errorf("asked %d times", len(h.joins))
		}
	})
	if _, err := os.Stat(filepath.Join(e.cfg.Dir, joiningFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the joining key is left: %v", err)
	}
}

func TestJoinRefused(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	e.cfg.Token = pki.NewJoinToken(h.ca.Hash()).Encode()
	e.start()
	eventually(t, "the link ends", func() bool { return e.link.Status().Error != "" })
	if err := e.stop(); !errors.Is(err, ErrJoinRefused) || !strings.Contains(err.Error(), "the token is unknown") {
		t.Errorf("run: %v", err)
	}
	h.set(func() {
		if len(h.joins) != 0 || h.refusals != 1 {
			t.Errorf("joined %d times, refused %d times", len(h.joins), h.refusals)
		}
		if h.token, _ = pki.ParseJoinToken(e.cfg.Token); len(h.joins) != 0 {
			t.Error("it joined without a token that is good")
		}
	})
	e.start().linked() // now that the hub knows the token
}

func TestTokenOfAnotherHub(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	other, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e := newEdge(t, h)
	e.cfg.Token = pki.NewJoinToken(other.Hash()).Encode()
	e.start()
	eventually(t, "it says why", func() bool { return strings.Contains(e.link.Status().Error, "not the hub that made the join token") })
	if err := e.stop(); !errors.Is(err, ErrJoinRefused) {
		t.Errorf("run: %v", err)
	}
	h.set(func() {
		if len(h.joins) != 0 {
			t.Error("the token was shown to a stranger")
		}
	})
}

func TestWrongConfiguration(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"https":      func(c *Config) { c.URL = "http://hub:8443" },
		"DNS":        func(c *Config) { c.Node = "Gateway 1" },
		"join token": func(c *Config) { c.Token = "" },
		"wt1":        func(c *Config) { c.Token = "nonsense" },
	} {
		cfg := Config{URL: "https://hub:8443", Node: "n", Token: pki.NewJoinToken("sha256:" + strings.Repeat("00", 32)).Encode(), Dir: t.TempDir()}
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCutLink(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h).start()
	e.linked()
	for range 20 {
		e.record()
	}
	eventually(t, "the first records", h.is(func() bool { return len(h.records) == 20 }))
	e.proxy.Set(faultproxy.Cut)
	eventually(t, "the edge notices", func() bool { return !e.link.Status().Connected })
	for range 50 {
		e.record()
	}
	e.proxy.Set(faultproxy.Pass)
	eventually(t, "all records", h.is(func() bool { return len(h.records) == 70 }))
	for i := range 30 { // blips while records flow
		e.record()
		if i%7 == 0 {
			e.proxy.Reset()
		}
	}
	eventually(t, "all records", func() bool {
		return h.is(func() bool { return len(h.records) == 100 })() && e.outbox.Stats().Records == 0
	})
	h.set(func() {
		for i, r := range h.records {
			if fmt.Sprint(r.values) != fmt.Sprintf("[%d]", i) {
				t.Fatalf("record %d is %+v", i, r)
			}
			if want := i >= 20 && i < 70; i < 70 && r.backfill != want {
				t.Errorf("record %d: backfill %v", i, r.backfill)
			}
		}
	})
}

func TestHalfOpenLink(t *testing.T) {
	t.Parallel()
	for _, mode := range []faultproxy.Mode{faultproxy.Blackhole, faultproxy.DropDown, faultproxy.DropUp, faultproxy.Stall} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			e := newEdge(t, h).start()
			e.linked()
			e.proxy.Set(mode)
			for range 10 {
				e.record()
			}
			eventually(t, "the edge notices although nothing says so", func() bool { return !e.link.Status().Connected })
			e.proxy.Set(faultproxy.Pass)
			eventually(t, "all records", func() bool {
				return h.is(func() bool { return len(h.records) == 10 })() && e.outbox.Stats().Records == 0
			})
		})
	}
}

func TestRestartsOfTheEdge(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	h.mute = true
	for life := range 3 {
		e.start()
		e.cfg.Token = ""
		for range 5 {
			e.record()
		}
		if life == 1 {
			eventually(t, "some records", h.is(func() bool { return len(h.records) >= 7 }))
		} else if life == 0 {
			eventually(t, "joined", func() bool { return e.link.Status().Connected })
		}
		if life < 2 {
			if err := e.stop(); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.set(func() { h.mute = false })
	e.proxy.Reset() // what was sent and not acknowledged is asked for again
	eventually(t, "all records", func() bool {
		return h.is(func() bool { return len(h.records) == 15 })() && e.outbox.Stats().Records == 0
	})
	h.set(func() {
		for i, r := range h.records {
			if fmt.Sprint(r.values) != fmt.Sprintf("[%d]", i) || r.seq != uint64(i+1) {
				t.Fatalf("record %d is %+v", i, r)
			}
		}
		epochs := h.hellos[len(h.hellos)-1].Epochs
		if n := len(epochs); epochs[n-1].Id != e.outbox.Epoch() || epochs[n-1].ParentLast != 10 {
			t.Errorf("epochs %v", epochs)
		}
	})
}

func TestWindow(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.window, h.mute = 1000, true
	e := newEdge(t, h).start()
	for range 50 {
		e.recordValue(models.String(strings.Repeat("x", 200)))
	}
	big := models.String(strings.Repeat("y", 100_000)) // larger than the window: it has to go all the same
	e.recordValue(big)
	eventually(t, "the window is used", h.is(func() bool { return len(h.records) >= 3 }))
	h.set(func() {
		if n := len(h.records); n > 4 {
			t.Errorf("%d records are on their way in a window of 1000 bytes", n)
		}
		h.mute = false
		if err := h.ackLocked(t.Context()); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "all records", func() bool {
		return h.is(func() bool { return len(h.records) == 51 })() && e.outbox.Stats().Records == 0
	})
}

func TestLatestLaneIsNotHeldUp(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.mute, h.window = true, 500
	e := newEdge(t, h)
	e.devices.twins = func(want devices.LatestWanted) []*pb.LatestTwin {
		if !want.Values {
			return nil
		}
		return []*pb.LatestTwin{{Device: &pb.DeviceRef{Uid: "u"}, Values: []*pb.LatestValue{{Property: "p"}}}}
	}
	e.start()
	e.linked()
	h.set(func() {
		if len(h.latest) != 0 {
			t.Error("values on the latest lane although the log lane keeps up")
		}
	})
	for range 100 {
		e.recordValue(models.String(strings.Repeat("x", 1000)))
	}
	eventually(t, "values come although the log lane is stuck", h.is(func() bool { return len(h.latest) > 3 }))
	e.devices.mu.Lock()
	if first := e.devices.wanted[0]; !first.Full {
		t.Errorf("asked first for %+v", first)
	}
	e.devices.mu.Unlock()
}

// TestLatestLaneAfterAnOutage: with a log from before, values do not wait until
// it turns out that the log lane is behind.
func TestLatestLaneAfterAnOutage(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.mute, h.window = true, 500
	e := newEdge(t, h)
	e.times.behind = time.Hour
	e.devices.twins = func(want devices.LatestWanted) []*pb.LatestTwin {
		if !want.Values {
			return nil
		}
		return []*pb.LatestTwin{{Device: &pb.DeviceRef{Uid: "u"}, Values: []*pb.LatestValue{{Property: "p"}}}}
	}
	e.start()
	e.linked()
	e.proxy.Set(faultproxy.Cut)
	eventually(t, "the edge notices", func() bool { return !e.link.Status().Connected })
	for range 10 {
		e.recordValue(models.String(strings.Repeat("x", 1000)))
	}
	h.set(func() {
		if len(h.latest) > 0 {
			t.Error("values on the latest lane before there was a log")
		}
	})
	e.proxy.Set(faultproxy.Pass)
	eventually(t, "values come at once", h.is(func() bool { return len(h.latest) > 0 }))
}

func TestExpiredCertificate(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.lifetime = 2 * time.Hour
	e := newEdge(t, h).start()
	eventually(t, "linked", h.is(func() bool { return len(h.hellos) == 1 }))
	// A year later, by the hub's clock; the edge's own has stopped.
	h.set(func() { h.now = func() time.Time { return time.Now().Add(365 * 24 * time.Hour) } })
	e.proxy.Reset()
	eventually(t, "linked again", h.is(func() bool { return len(h.hellos) == 2 && h.renewals >= 1 }))
	leaf := e.link.identity.leaf()
	if !leaf.NotAfter.After(time.Now().Add(300 * 24 * time.Hour)) {
		t.Errorf("certificate until %v", leaf.NotAfter)
	}
	if on, err := pki.ReadIdentity(filepath.Join(e.cfg.Dir, identityFile)); err != nil || !on.Leaf.Equal(leaf) {
		t.Errorf("on the disk is another one: %v", err)
	}
}

func TestRenewalInTime(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h)
	e.start()
	eventually(t, "linked", h.is(func() bool { return len(h.hellos) == 1 }))
	_ = e.stop()
	e.cfg.Token = ""
	leaf := e.link.identity.leaf()
	for _, c := range []struct {
		at  time.Time
		due bool
	}{{leaf.NotBefore.Add(time.Minute), false}, {leaf.NotAfter.Add(-time.Minute), true}, {leaf.NotAfter.Add(time.Hour), true}} {
		h.set(func() { h.renewals = 0 })
		l, err := New(e.cfg)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := l.identity.certificate()
		if err != nil {
			t.Fatal(err)
		}
		old := *cert
		old.Leaf = leaf
		l.identity.set(&old, l.identity.authorities())
		l.now = func() time.Time { return c.at }
		for range 2 {
			l.renewIfDue(t.Context())
		}
		h.set(func() {
			if want := map[bool]int{false: 0, true: 1}[c.due]; h.renewals != want {
				t.Errorf("at %v: %d renewals, want %d", c.at, h.renewals, want)
			}
		})
	}
}

func TestAnotherDatabase(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.syncs = []*pb.Sync{{Id: 1, Full: true, Items: []*pb.Item{item("a", 3)}}}
	e := newEdge(t, h).start()
	eventually(t, "it holds a", h.is(func() bool { return len(h.done) == 1 }))
	h.set(func() { h.lineage, h.syncs, h.hellos = "two", nil, nil })
	e.proxy.Reset()
	eventually(t, "it asks anew", h.is(func() bool { return len(h.hellos) >= 2 }))
	h.set(func() {
		if first := h.hellos[0]; first.Lineage != "one" || first.Held[0].Revision != 3 {
			t.Errorf("first %v", first)
		}
		if second := h.hellos[1]; second.Lineage != "two" || len(second.Held) != 1 || second.Held[0].Revision != 0 {
			t.Errorf("second %v", second)
		}
	})
	eventually(t, "it stays", func() bool { return e.link.Status().Connected })
}

func TestRevoked(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(h *fakeHub){
		"goodbye": func(h *fakeHub) {
			h.bye = &pb.Goodbye{Reason: edgelink.GoodbyeRevoked, Message: "the node was deleted"}
		},
		"refused": func(h *fakeHub) { h.status = edgelink.RevokedStatus },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			e := newEdge(t, h).start()
			eventually(t, "linked", h.is(func() bool { return len(h.hellos) == 1 }))
			h.set(func() { change(h) })
			e.proxy.Reset()
			eventually(t, "it says so", func() bool { return strings.Contains(e.log.text(), "deleted") })
			eventually(t, "it stays away for long", e.staysAway)
			if s := e.link.Status(); s.Connected || !strings.Contains(s.Error, "deleted") {
				t.Errorf("status %+v", s)
			}
			if err := e.stop(); err != nil {
				t.Errorf("it ended: %v", err)
			}
		})
	}
}

func TestJoinAnew(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h).start()
	eventually(t, "linked", h.is(func() bool { return len(h.hellos) == 1 }))
	_ = e.stop()
	h.set(func() { h.token, h.joins = pki.NewJoinToken(h.ca.Hash()), nil })
	e.cfg.Token = h.token.Encode()
	e.start()
	eventually(t, "joined with the new token", h.is(func() bool { return len(h.joins) == 1 && len(h.hellos) == 2 }))
	_ = e.stop()
	// One that does not work is no reason to stay away.
	e.cfg.Token = pki.NewJoinToken(h.ca.Hash()).Encode()
	e.start()
	eventually(t, "linked by its identity", h.is(func() bool { return len(h.hellos) == 3 }))
}

func TestHubThatBreaksTheRules(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	e := newEdge(t, h).start()
	eventually(t, "linked", h.is(func() bool { return len(h.hellos) == 1 }))
	h.set(func() {
		_ = h.conn.Send(t.Context(), &pb.Frame{Body: &pb.Frame_Ack{Ack: &pb.Ack{Acks: []*pb.EpochAck{{Epoch: e.outbox.Epoch(), Seq: 99}}}}})
	})
	eventually(t, "the edge says why it leaves", h.is(func() bool { return len(h.byes) == 1 && h.byes[0] == edgelink.GoodbyeProtocolError }))
	eventually(t, "and comes back", h.is(func() bool { return len(h.hellos) == 2 }))
	// What it does not know it lets pass.
	h.set(func() {
		_ = h.conn.Send(t.Context(), &pb.Frame{Id: 5})
		_ = h.conn.Send(t.Context(), &pb.Frame{Body: &pb.Frame_Ack{Ack: &pb.Ack{Acks: []*pb.EpochAck{{Epoch: "of long ago", Seq: 99}}}}})
		_ = h.conn.Send(t.Context(), &pb.Frame{Id: 9, Body: &pb.Frame_Sync{Sync: &pb.Sync{Id: 9, Items: []*pb.Item{{Kind: "Comet", Namespace: "default", Name: "c", Uid: "c", Json: []byte("?")}}}}})
	})
	eventually(t, "it goes on", h.is(func() bool { return len(h.done) == 1 && h.done[0] == 9 }))
}

func TestSplit(t *testing.T) {
	text := []byte(strings.Repeat("x", 50_000))
	twin := &pb.LatestTwin{Device: &pb.DeviceRef{Uid: "u"}, Full: true, State: "online"}
	for i := range 10 {
		twin.Values = append(twin.Values, &pb.LatestValue{Property: fmt.Sprint(i), Text: text})
	}
	twin.Values = append(twin.Values, &pb.LatestValue{Property: "huge", Text: make([]byte, edgelink.MaxRecord)})
	parts := split(twin)
	var names []string
	for i, p := range parts {
		if p.SizeVT() > latestBytes || p.Full != (i == 0) || p.Device.Uid != "u" {
			t.Errorf("part %d: %d bytes, full %v", i, p.SizeVT(), p.Full)
		}
		for _, v := range p.Values {
			names = append(names, v.Property)
		}
	}
	if got := strings.Join(names, ""); got != "0123456789" {
		t.Errorf("values %s", got)
	}
}
