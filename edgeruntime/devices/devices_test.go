package devices

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// in runs a test in a bubble where time passes only while everybody waits.
func in(t *testing.T, test func(t *testing.T, b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer func() { b.stop() }()
		test(t, b)
	})
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func samples(entries []outbox.Entry, property string) (out []string) {
	for _, e := range entries {
		for _, s := range e.Samples {
			if s.Property == property {
				out = append(out, fmt.Sprintf("%s %s", s.Value, s.Quality))
			}
		}
	}
	return out
}

func writeEvents(entries []outbox.Entry) (out []string) {
	for _, e := range entries {
		for _, w := range e.Writes {
			out = append(out, w.ID+" "+w.Property+" "+w.State)
		}
	}
	return out
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestReportsOnceTheOutboxHasIt(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.driver.device("a").value("temp", models.Float(21.5))
		b.outbox.set(true, nil)
		b.m.Apply(one())
		<-b.m.Ready()
		wait(1500 * time.Millisecond)
		if got := b.topic("devices/a/properties/temp"); got != "" {
			t.Errorf("announced before it was stored: %s", got)
		}
		b.outbox.set(false, nil)
		wait(0)
		got := b.topic("devices/a/properties/temp")
		if !strings.HasPrefix(got, `{"value":21.5,"quality":"good","time":"`) || !strings.Contains(got, `"unit":"°C"`) {
			t.Errorf("announced %s", got)
		}
		if got := b.topic("devices/a/state"); !strings.HasPrefix(got, `{"state":"online","time":"`) {
			t.Errorf("state %s", got)
		}
		entries := b.outbox.take()
		same(t, "temp", samples(entries, "temp"), []string{"21.5 good"})
		same(t, "noise, which has no history", samples(entries, "noise"), nil)
		same(t, "secret, which stays here", samples(entries, "secret"), nil)
		if got := b.topic("devices/a/properties/secret"); got == "" {
			t.Error("local apps do not see what stays at the edge")
		}
		if ref := entries[0].Device; ref.UID != "uid-a" || ref.Assignment != 1 {
			t.Errorf("of device %+v", ref)
		}
		d := b.doc("a")
		if d.State != models.StateOnline || d.LastSeen == nil || d.Properties["temp"].Reported.Value != models.Float(21.5) {
			t.Errorf("twin %+v", d)
		}
	})
}

func TestBadAndBack(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		dev.value("temp", models.Float(21.5))
		b.m.Apply(one())
		wait(2 * time.Second)
		dev.set(func(f *fakeDevice) { f.fail = mappers.Fail(models.ReasonTimeout, errors.New("silent")) })
		wait(5 * time.Second)
		got := b.topic("devices/a/properties/temp")
		if !strings.Contains(got, `"value":21.5,"quality":"bad","reason":"timeout"`) {
			t.Errorf("announced %s", got)
		}
		if got := b.topic("devices/a/state"); !strings.Contains(got, "offline") {
			t.Errorf("state %s", got)
		}
		dev.set(func(f *fakeDevice) { f.fail = nil })
		wait(time.Minute)
		if got := b.topic("devices/a/properties/temp"); !strings.Contains(got, `"quality":"good"`) {
			t.Errorf("announced %s", got)
		}
		same(t, "history", samples(b.outbox.take(), "temp")[:2], []string{"21.5 good", "null bad"})
	})
}

func TestStaleAndBack(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		dev.value("temp", models.Float(21.5))
		b.m.Apply(one())
		wait(2 * time.Second)
		dev.set(func(f *fakeDevice) { f.readTook = 10 * time.Second }) // slow, and never failing
		wait(8 * time.Second)
		if got := b.topic("devices/a/properties/temp"); !strings.Contains(got, `"value":21.5,"quality":"uncertain","reason":"stale"`) {
			t.Errorf("announced %s", got)
		}
		dev.set(func(f *fakeDevice) { f.readTook = 0 })
		wait(10 * time.Second)
		if got := b.topic("devices/a/properties/temp"); !strings.Contains(got, `"quality":"good"`) {
			t.Errorf("then announced %s", got)
		}
		same(t, "history", samples(b.outbox.take(), "temp"), []string{"21.5 good", "21.5 uncertain", "21.5 good"})
	})
}

func TestDesiredOfTheCloud(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		b.m.Apply(one())
		wait(2 * time.Second)
		b.outbox.take()
		// What a crash would find when the write reaches the device.
		var stored twin.Stored
		dev.set(func(f *fakeDevice) {
			f.onWrite = func(string) { stored, _ = b.store.Twin(context.Background(), "uid-a") }
		})
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "once", models.Int(40)))))
		wait(time.Second)
		same(t, "written", dev.written(), []string{"once=40"})
		again := twin.New(b.m.wanted["a"].defs, stored, time.Now())
		if i, _ := again.Index("once"); !again.Unsettled(i) {
			t.Error("when the write went out, nothing durable said so")
		}
		same(t, "told", writeEvents(b.outbox.take()), []string{"W1 once pending", "W1 once applied"})
		same(t, "announced", b.writes(), []string{"W1 once pending", "W1 once applied"})
		d := b.doc("a")
		if p := d.Properties["once"]; p.Write.State != twin.Applied || p.Desired.Value != models.Int(40) || p.Reported.Value != models.Float(40) || d.DesiredVersion != 1 {
			t.Errorf("twin %+v", p)
		}
		// The same again, and a restart, write nothing.
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "once", models.Int(40)))))
		wait(5 * time.Second)
		b.stop()
		b.start()
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "once", models.Int(40)))))
		wait(5 * time.Second)
		same(t, "written", dev.written(), []string{"once=40"})
	})
}

func TestHoldIsReasserted(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "hold", models.Float(5)))))
		wait(3 * time.Second)
		dev.value("hold", models.Float(9)) // somebody at the panel
		wait(3 * time.Second)
		same(t, "written", dev.written(), []string{"hold=5", "hold=5"})
		if got := b.doc("a").Properties["hold"].Reported.Value; got != models.Float(5) {
			t.Errorf("reads %s", got)
		}
	})
}

func TestRefusedWriteIsNotRepeated(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		dev.set(func(f *fakeDevice) {
			f.refuse = &mappers.Failure{Reason: models.ReasonDeviceError, Refused: true, Err: errors.New("illegal value")}
		})
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "hold", models.Float(5)))))
		wait(time.Minute)
		same(t, "written", dev.written(), []string{"hold=5"})
		if w := b.doc("a").Properties["hold"].Write; w.State != twin.Failed || !strings.Contains(w.Error, "illegal value") {
			t.Errorf("write %+v", w)
		}
	})
}

func TestWriteWaitsForTheDevice(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		dev.set(func(f *fakeDevice) {
			f.fail = &mappers.Failure{Reason: models.ReasonNotConnected, Unsent: true, Err: errors.New("no route")}
		})
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "once", models.Float(5)))))
		wait(10 * time.Minute)
		if w := b.doc("a").Properties["once"].Write; w.State != twin.Pending {
			t.Errorf("write %+v", w)
		}
		dev.set(func(f *fakeDevice) { f.fail = nil })
		wait(2 * time.Minute)
		same(t, "written", dev.written(), []string{"once=5"})
	})
}

func TestLostAnswerOfAOnceWrite(t *testing.T) {
	for _, c := range []struct {
		name  string
		deaf  bool
		state twin.WriteState
	}{{"it arrived", false, twin.Applied}, {"it did not arrive", true, twin.Failed}} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T, b *bench) {
				dev := b.driver.device("a")
				b.m.Apply(one())
				wait(2 * time.Second)
				dev.set(func(f *fakeDevice) {
					f.lost, f.deaf = mappers.Fail(models.ReasonTimeout, errors.New("no answer")), c.deaf
				})
				b.m.Apply(one(desiredItem("a", wants(1, "W1", "once", models.Float(5)))))
				wait(time.Minute)
				same(t, "written", dev.written(), []string{"once=5"})
				if w := b.doc("a").Properties["once"].Write; w.State != c.state {
					t.Errorf("write %+v", w)
				}
			})
		})
	}
}

func TestLocked(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		locked := func(locked bool, d twin.Desired) []store.Item {
			return []store.Item{modelItem("plain", plainModel), deviceItem("a", fmt.Sprintf(`{"model":"plain","locked":%v}`, locked)), desiredItem("a", d)}
		}
		b.m.Apply(locked(true, wants(1, "W1", "hold", models.Float(5))))
		wait(time.Minute)
		same(t, "written while locked", dev.written(), nil)
		if _, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(`{"once":1}`)}); models.KindOf(err) != models.KindLocked {
			t.Errorf("local write: %v", err)
		}
		if got := b.topic("devices/a/properties/temp"); !strings.Contains(got, "good") {
			t.Errorf("a locked device is not read: %s", got)
		}
		b.m.Apply(locked(false, wants(1, "W1", "hold", models.Float(5))))
		wait(time.Second)
		same(t, "written after", dev.written(), []string{"hold=5"})
		if n := b.driver.times("a"); n != 1 {
			t.Errorf("opened %d times for a lock", n)
		}
	})
}

func TestFullDisk(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		b.m.Apply(one())
		wait(2 * time.Second)
		b.store.setFail(errors.New("disk is full"))
		b.outbox.set(false, outbox.ErrDiskFull)
		b.outbox.take()
		dev.value("temp", models.Float(99))
		d := wants(1, "W1", "once", models.Float(5))
		d.Properties["hold"] = twin.DesiredValue{Value: models.Float(6), ID: "W2", Version: 1}
		b.m.Apply(one(desiredItem("a", d)))
		wait(30 * time.Second)
		same(t, "written with a full disk: what may be repeated", dev.written(), []string{"hold=6"})
		if got := b.topic("devices/a/properties/temp"); !strings.Contains(got, `"value":99`) {
			t.Errorf("local apps see %s", got)
		}
		if _, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(`{"mode":1}`)}); models.KindOf(err) != models.KindUnavailable {
			t.Errorf("a local write that cannot be stored: %v", err)
		}
		if b.doc("a").Properties["mode"].Desired != nil {
			t.Error("half made")
		}
		b.store.setFail(nil)
		b.outbox.set(false, nil)
		wait(time.Minute)
		same(t, "written then", dev.written(), []string{"hold=6", "once=5"})
		// The last word on each write is told again.
		last := map[string]string{}
		for _, e := range writeEvents(b.outbox.take()) {
			f := strings.Fields(e)
			last[f[0]] = f[2]
		}
		if last["W1"] != "applied" || last["W2"] != "applied" {
			t.Errorf("the hub knows %v", last)
		}
	})
}

func TestLocalWrite(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		b.m.Apply(one(desiredItem("a", wants(3, "W1", "temp2", models.Float(5)))))
		wait(2 * time.Second)
		b.outbox.take()
		b.outbox.set(true, nil)
		type answer struct {
			text []byte
			err  error
		}
		answers := make(chan answer, 1)
		go func() {
			text, err := b.m.Desired(context.Background(), "a", "panel", false, []byte(`{"once":40,"mode":"heat","$id":"x1"}`))
			answers <- answer{text, err}
		}()
		wait(100 * time.Millisecond)
		select {
		case <-answers:
			t.Fatal("answered before the outbox had it")
		default:
		}
		stored, _ := b.store.Twin(t.Context(), "uid-a")
		if len(stored.Locals) != 2 {
			t.Errorf("stored %+v", stored.Locals)
		}
		b.outbox.set(false, nil)
		a := <-answers
		if a.err != nil || string(a.text) != `{"$id":"x1","desiredVersion":5}` {
			t.Fatalf("answer %s, %v", a.text, a.err)
		}
		wait(time.Second)
		written := dev.written()
		slices.Sort(written)
		same(t, "written", written, []string{"mode=1", "once=40"})
		var locals []string
		for _, e := range b.outbox.take() {
			for _, l := range e.Locals {
				locals = append(locals, fmt.Sprintf("%s=%s base %d after %q by %s", l.Property, l.Value, l.Base, l.After, l.By))
			}
		}
		same(t, "told the hub", locals, []string{`mode=1 base 3 after "" by panel`, `once=40 base 3 after "" by panel`})
		for _, m := range b.messages {
			if !strings.Contains(m, `"$id":"x1"`) {
				t.Errorf("without its $id: %s", m)
			}
		}
		// The next waits for the verdict on the first, and follows it then.
		if _, err := b.m.Desired(t.Context(), "a", "panel", false, []byte(`{"once":50}`)); err != nil {
			t.Fatal(err)
		}
		wait(time.Second)
		for _, e := range b.outbox.take() {
			if len(e.Locals) > 0 {
				t.Errorf("told too early: %+v", e.Locals)
			}
		}
		accepted, _ := wants(3, "W1", "temp2", models.Float(5)).Accept(twin.Local{Property: "once", ID: "L002", Value: models.Float(40), Base: 3})
		b.m.Apply(one(desiredItem("a", accepted)))
		wait(time.Second)
		entries := b.outbox.take()
		if i := slices.IndexFunc(entries, func(e outbox.Entry) bool { return len(e.Locals) > 0 }); i < 0 || entries[i].Locals[0].After != "L002" || entries[i].Locals[0].ID != "L003" {
			t.Errorf("then told %+v", entries)
		}
		// The cloud changes it meanwhile: its value stands.
		b.m.Apply(one(desiredItem("a", wants(9, "W9", "once", models.Float(60)))))
		wait(time.Second)
		if w := b.doc("a").Properties["once"]; w.Write.ID != "W9" || w.Write.State != twin.Applied || dev.values["once"] != models.Float(60) {
			t.Errorf("write %+v, the device has %s", w.Write, dev.values["once"])
		}
	})
}

func TestLocalWriteIsChecked(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.m.Apply(one(desiredItem("a", wants(3, "W1", "gone", models.Float(5)))))
		wait(2 * time.Second)
		for _, c := range []struct {
			patch string
			kind  models.ErrorKind
			say   []string
		}{
			{`{"once":96,"mode":1}`, models.KindInvalid, []string{"/once", "95"}},
			{`{"nope":1,"temp":2}`, models.KindInvalid, []string{"/nope", "/temp", "read-only"}},
			{`{"mode":"cool"}`, models.KindInvalid, []string{"/mode", "heat (1)"}},
			{`{"a/b":1}`, models.KindInvalid, []string{"/a~1b"}},
			{`{"once":1,"$if":3}`, models.KindInvalid, []string{"/$if"}},
			{`[1]`, models.KindMalformed, nil},
		} {
			_, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(c.patch)})
			if models.KindOf(err) != c.kind {
				t.Errorf("%s: %v", c.patch, err)
				continue
			}
			for _, say := range c.say {
				if !strings.Contains(err.Error(), say) {
					t.Errorf("%s: %v does not say %q", c.patch, err, say)
				}
			}
		}
		if d := b.doc("a"); d.Properties["mode"].Desired != nil {
			t.Error("a refused patch was half made")
		}
		if _, err := b.m.Patch(t.Context(), "none", Patch{Body: []byte(`{}`)}); models.KindOf(err) != models.KindNotFound {
			t.Errorf("of no device: %v", err)
		}
		if _, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(`{"gone":null,"former":null,"once":null}`)}); err != nil {
			t.Errorf("withdrawing what the model no longer has: %v", err)
		}
		if _, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(`{"once":1}`), IfMatch: `"2"`}); models.KindOf(err) != models.KindPrecondition {
			t.Errorf("If-Match of another version: %v", err)
		}
		if _, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(`{"once":1}`), IfMatch: `"3"`}); err != nil {
			t.Errorf("If-Match: %v", err)
		}
	})
}

func TestValuesThatStayAtTheEdge(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		b.m.Apply(one())
		wait(2 * time.Second)
		b.outbox.take()
		for i := range 5 {
			if _, err := b.m.Patch(t.Context(), "a", Patch{Body: fmt.Appendf(nil, `{"secret":%d}`, i+40)}); err != nil {
				t.Fatal(err)
			}
		}
		wait(2 * time.Second)
		if dev.values["secret"] != models.Float(44) {
			t.Errorf("the device has %s", dev.values["secret"])
		}
		for _, e := range b.outbox.take() {
			t.Errorf("went up: %+v", e)
		}
		for _, l := range b.m.Latest(LatestWanted{Full: true}) {
			if strings.Contains(l.String(), "secret") {
				t.Errorf("went up: %s", l)
			}
		}
		if stored, _ := b.store.Twin(t.Context(), "uid-a"); len(stored.Locals) != 1 {
			t.Errorf("kept %d local writes", len(stored.Locals))
		}
		// A desired value of the cloud: it hears what became of it.
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "secret", models.Float(7)))))
		wait(2 * time.Second)
		if got := writeEvents(b.outbox.take()); !slices.Contains(got, "W1 secret applied") {
			t.Errorf("told %v", got)
		}
	})
}

func TestAwaitWrites(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		b.m.Apply(one())
		wait(2 * time.Second)
		try := func(patch string, limit time.Duration) error {
			p, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(patch)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			return b.m.AwaitWrites(ctx, "a", p.Writes)
		}
		if err := try(`{"once":1,"mode":1}`, 5*time.Second); err != nil {
			t.Errorf("confirmed: %v", err)
		}
		dev.set(func(f *fakeDevice) {
			f.refuse = &mappers.Failure{Reason: "device-error", Refused: true, Err: errors.New("no")}
		})
		if err := try(`{"once":2}`, 5*time.Second); models.KindOf(err) != models.KindRefused {
			t.Errorf("refused: %v", err)
		}
		dev.set(func(f *fakeDevice) {
			f.fail = &mappers.Failure{Reason: models.ReasonNotConnected, Unsent: true, Err: errors.New("no route")}
		})
		start := time.Now()
		if err := try(`{"once":3}`, 5*time.Second); models.KindOf(err) != models.KindTimeout || time.Since(start) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// A property that does not fit its protocol is bad and says so; the rest of
// the device is read and written, and each value is the right property's.
func TestAMisfitHarmsNoOtherProperty(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.driver.device("a").value("temp", models.Float(21))
		b.m.Apply([]store.Item{modelItem("mixed", `{"protocol":"fake","defaults":{"every":"1s"},"properties":[
			{"name":"odd","type":"int","access":"ReadWrite","address":"misfit"},
			{"name":"temp","type":"float","access":"Read"},
			{"name":"mute","type":"int","access":"Write","address":"misfit"},
			{"name":"set","type":"float","access":"ReadWrite"}]}`), deviceItem("a", `{"model":"mixed"}`),
			desiredItem("a", twin.Desired{Version: 1, Properties: map[string]twin.DesiredValue{
				"odd": {Value: models.Int(3), Version: 1, ID: "w-odd"}, "mute": {Value: models.Int(4), Version: 1, ID: "w-mute"}, "set": {Value: models.Float(5), Version: 1, ID: "w-set"}}})})
		<-b.m.Ready()
		wait(3 * time.Second)
		doc := b.doc("a")
		if r := doc.Properties["odd"].Reported; r == nil || r.Quality != models.Bad || r.Reason != models.ReasonMisconfigured {
			t.Errorf("odd: %+v", r)
		}
		if r := doc.Properties["temp"].Reported; r == nil || r.Quality != models.Good || r.Value != models.Float(21) {
			t.Errorf("temp: %+v", r)
		}
		if r := doc.Properties["set"].Reported; r == nil || r.Value != models.Float(5) {
			t.Errorf("set: %+v", r)
		}
		if got := b.driver.device("a").written(); !slices.Equal(got, []string{"set=5"}) {
			t.Errorf("written: %v", got)
		}
		for name, want := range map[string]string{"odd": "failed", "mute": "failed", "set": "applied"} {
			w := doc.Properties[name].Write
			if w == nil || string(w.State) != want || want == "failed" && !strings.Contains(w.Error, "fits nothing") {
				t.Errorf("%s: write %+v, want %s", name, w, want)
			}
		}
		if state := b.topic("devices/a/state"); !strings.Contains(state, "degraded") || !strings.Contains(state, "odd does not fit: /address: fits nothing") {
			t.Errorf("state %s", state)
		}
		for _, l := range b.m.Latest(LatestWanted{Full: true}) {
			if l.Problem != "" || !strings.HasPrefix(l.StateReason, string(models.ReasonMisconfigured)) {
				t.Errorf("problem %q, reason %q", l.Problem, l.StateReason)
			}
		}
	})
}

func TestProblemsHarmNoOther(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.driver.refuse["bad"] = models.Invalid("/spec/connection/url", "is nonsense")
		b.m.Apply([]store.Item{modelItem("plain", plainModel), modelItem("odd", `{"protocol":"bacnet","properties":[{"name":"p","type":"int","access":"ReadWrite"}]}`),
			deviceItem("a", `{"model":"plain"}`), deviceItem("bad", `{"model":"plain"}`), deviceItem("foreign", `{"model":"odd"}`), deviceItem("orphan", `{"model":"none"}`),
			{Kind: store.KindDevice, Namespace: "default", Name: "garbage", UID: "g", JSON: []byte(`{"spec":{"model":7}}`)},
			{Kind: "Comet", Namespace: "default", Name: "c", UID: "c", JSON: []byte(`{}`)}})
		<-b.m.Ready()
		wait(2 * time.Second)
		problems := map[string]string{}
		for _, l := range b.m.Latest(LatestWanted{Full: true}) {
			problems[l.Device.Uid] = l.Problem
			if l.Problem != "" && l.State != "offline" {
				t.Errorf("%s is %s", l.Device.Uid, l.State)
			}
		}
		for uid, want := range map[string]string{"uid-a": "", "uid-bad": "/spec/connection/url: is nonsense", "uid-foreign": "no driver for protocol bacnet in this edge", "uid-orphan": "there is no model none on this edge", "g": "cannot be read"} {
			if got, ok := problems[uid]; !ok || !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("%s: problem %q, want %q", uid, got, want)
			}
		}
		if got := b.topic("devices/a/state"); !strings.Contains(got, "online") {
			t.Errorf("the good one: %s", got)
		}
		if got := b.topic("devices/bad/state"); !strings.Contains(got, "offline") || !strings.Contains(got, "nonsense") {
			t.Errorf("the bad one: %s", got)
		}
		// It takes writes for the day when it can be served.
		p, err := b.m.Patch(t.Context(), "foreign", Patch{Body: []byte(`{"p":3}`)})
		if err != nil || p.Writes["p"] == "" {
			t.Errorf("write: %v", err)
		}
		// And is served as soon as it can be: the problem goes.
		delete(b.driver.refuse, "bad")
		b.m.Apply([]store.Item{modelItem("plain", plainModel), deviceItem("bad", `{"model":"plain","connection":{"url":"right"}}`)})
		wait(2 * time.Second)
		latest := b.m.Latest(LatestWanted{})
		if len(latest) != 1 || !latest[0].Full || latest[0].Problem != "" || latest[0].State != "online" {
			t.Errorf("then %v", latest)
		}
	})
}

func TestReopen(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		dev.set(func(f *fakeDevice) { f.closing = 3 * time.Second })
		b.m.Apply(one())
		wait(2 * time.Second)
		faster := strings.Replace(plainModel, `"every":"1s"`, `"every":"500ms"`, 1)
		faster = strings.Replace(faster, `{"name":"noise","type":"float","access":"Read","history":false},`, "", 1)
		b.m.Apply([]store.Item{modelItem("plain", faster), deviceItem("a", `{"model":"plain"}`)})
		wait(time.Second)
		if n := b.driver.times("a"); n != 1 {
			t.Errorf("opened %d times while the old connection closes", n)
		}
		wait(5 * time.Second)
		if n := b.driver.times("a"); n != 2 || b.driver.twice() {
			t.Errorf("opened %d times, doubled %v", n, b.driver.twice())
		}
		if b.topic("devices/a/properties/noise") != "" {
			t.Error("the topic of a property that is no more is still there")
		}
		// Removed and there again before the old connection has closed.
		b.m.Apply(nil)
		wait(100 * time.Millisecond)
		b.m.Apply(one())
		wait(10 * time.Second)
		if b.driver.twice() || b.driver.opens("a") != 1 {
			t.Errorf("open %d, doubled %v", b.driver.opens("a"), b.driver.twice())
		}
		if got := b.topic("devices/a/state"); !strings.Contains(got, "online") {
			t.Errorf("state %s", got)
		}
		// A label changes nothing here.
		items := one()
		items[1].JSON = []byte(`{"kind":"Device","metadata":{"name":"a","labels":{"x":"y"}},"spec":{"model":"plain","description":"new"}}`)
		before := b.driver.times("a")
		b.m.Apply(items)
		wait(5 * time.Second)
		if n := b.driver.times("a"); n != before {
			t.Error("opened anew for a label")
		}
	})
}

func TestDelete(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "once", models.Float(5)))))
		wait(3 * time.Second)
		if !b.store.has("uid-a") {
			t.Fatal("nothing stored")
		}
		b.m.Apply(nil)
		wait(time.Second)
		if len(b.retained) != 0 {
			t.Errorf("left on the broker: %v", b.retained)
		}
		if b.store.has("uid-a") || b.driver.opens("a") != 0 {
			t.Error("the twin or the connection is left")
		}
		if _, err := b.m.Document("a"); models.KindOf(err) != models.KindNotFound {
			t.Errorf("document: %v", err)
		}
		// Made anew under its name it is another device, and its own history.
		again := one(desiredItem("a", wants(1, "W2", "once", models.Float(6))))
		again[1].UID, again[2].UID = "uid-2", "uid-2"
		b.m.Apply(again)
		wait(3 * time.Second)
		same(t, "written", b.driver.device("a").written(), []string{"once=5", "once=6"})
	})
}

func TestRestart(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		dev.value("temp", models.Float(21.5))
		b.m.Apply(one())
		wait(3 * time.Second)
		b.stop()
		dev.set(func(f *fakeDevice) {
			f.fail = mappers.Fail(models.ReasonTimeout, errors.New("silent"))
			f.readTook = time.Second
		})
		b.start()
		b.outbox.take()
		b.m.Apply(one())
		<-b.m.Ready()
		wait(0)
		got := b.topic("devices/a/properties/temp")
		if !strings.Contains(got, `"value":21.5,"quality":"uncertain","reason":"stale"`) {
			t.Errorf("before anything is read: %s", got)
		}
		same(t, "history", samples(b.outbox.take(), "temp"), nil)
	})
}

// TestLatestOfHalfARecord: while more of a record is to come, what is told of it
// gives way to the record.
func TestLatestOfHalfARecord(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		b.m.Apply(one())
		wait(5 * time.Second)
		b.m.Latest(LatestWanted{Full: true})
		b.outbox.set(true, nil)
		b.outbox.one = true
		record := b.outbox.seq + 1
		for _, v := range []float64{23, 24, 25} {
			dev.value("temp", models.Float(v))
			wait(2 * time.Second)
		}
		if len(b.outbox.dones) != 3 {
			t.Fatalf("%d entries", len(b.outbox.dones))
		}
		for i, want := range []uint64{record - 1, record - 1, record} {
			b.outbox.answer()
			wait(10 * time.Millisecond)
			got := b.m.Latest(LatestWanted{Values: true})
			if len(got) != 1 || len(got[0].Values) != 1 {
				t.Fatalf("entry %d: %v", i, got)
			}
			if v := got[0].Values[0]; v.Seq != want || got[0].Seq != want || math.Float64frombits(v.Bits) != float64(23+i) {
				t.Errorf("entry %d: %v of record %d, told as of %d", i, got, record, want)
			}
		}
		b.outbox.one = false
		b.outbox.set(false, nil)
	})
}

func TestLatestLane(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		dev := b.driver.device("a")
		dev.value("temp", models.Float(21.5))
		b.m.Apply(one())
		wait(5 * time.Second)
		full := b.m.Latest(LatestWanted{Full: true})
		if len(full) != 1 || !full[0].Full || full[0].State != "online" || full[0].SeenUs == 0 || len(full[0].ReadPlan) == 0 || full[0].Device.Uid != "uid-a" {
			t.Fatalf("full %v", full)
		}
		value := func(l []*pb.LatestTwin, name string) *pb.LatestValue {
			for _, l := range l {
				for _, v := range l.Values {
					if v.Property == name {
						return v
					}
				}
			}
			return nil
		}
		if v := value(full, "temp"); v == nil || v.Seq == 0 || v.TimeUs == 0 || v.Kind != uint32(models.KindFloat) {
			t.Errorf("temp %v", v)
		}
		if v := value(full, "noise"); v == nil || v.Seq != 0 {
			t.Errorf("noise %v", v)
		}
		if got := b.m.Latest(LatestWanted{}); len(got) != 0 {
			t.Errorf("told twice: %v", got)
		}
		for { // what woke us so far
			select {
			case <-b.m.LatestWake():
				continue
			default:
			}
			break
		}
		dev.value("temp", models.Float(22))
		wait(2 * time.Second)
		select {
		case <-b.m.LatestWake():
			t.Error("woken for a value that a record holds")
		default:
		}
		if got := b.m.Latest(LatestWanted{}); len(got) != 0 {
			t.Errorf("the log lane keeps up, and it is told: %v", got)
		}
		if got := b.m.Latest(LatestWanted{Values: true, Acked: b.outbox.seq}); len(got) != 0 {
			t.Errorf("acknowledged, and told: %v", got)
		}
		if v := value(b.m.Latest(LatestWanted{Values: true}), "temp"); v == nil || v.Seq != b.outbox.seq {
			t.Errorf("behind: %v", v)
		}
		dev.value("noise", models.Float(3))
		wait(2 * time.Second)
		<-b.m.LatestWake()
		if v := value(b.m.Latest(LatestWanted{}), "noise"); v == nil {
			t.Error("what no record holds is not told")
		}
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "once", models.Float(5)))))
		wait(2 * time.Second)
		<-b.m.LatestWake()
		got := b.m.Latest(LatestWanted{})
		if len(got) != 1 || len(got[0].Writes) != 1 || got[0].Writes[0].State != "applied" {
			t.Errorf("write %v", got)
		}
		if v := value(got, "once"); len(got[0].Values) != 1 || v == nil || math.Float64frombits(v.Bits) != 5 {
			t.Errorf("a write is confirmed without its value, or with others: %v", got)
		}
		seen := b.m.Seen()
		wait(2 * time.Second)
		if again := b.m.Seen(); len(again) != 1 || len(seen) == 1 && again[0].SeenUs <= seen[0].SeenUs {
			t.Errorf("seen %v, then %v", seen, again)
		}
		dev.set(func(f *fakeDevice) { f.fail = mappers.Fail(models.ReasonTimeout, errors.New("silent")) })
		wait(5 * time.Second)
		got = b.m.Latest(LatestWanted{})
		if v := value(got, "temp"); got[0].State != "offline" || v == nil || models.Quality(v.Quality) != models.Bad {
			t.Errorf("offline with good values: %v", got)
		}
	})
}

func TestLocalWriteThatGotLostIsToldAgain(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.m.Apply(one())
		wait(2 * time.Second)
		b.outbox.take()
		b.outbox.mu.Lock()
		b.outbox.oldest = 1
		b.outbox.mu.Unlock()
		if _, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(`{"once":1}`)}); err != nil {
			t.Fatal(err)
		}
		count := func() (n int) {
			for _, e := range b.outbox.take() {
				n += len(e.Locals)
			}
			return n
		}
		wait(time.Hour)
		if n := count(); n != 1 {
			t.Errorf("told %d times while it waits in the log", n)
		}
		b.outbox.mu.Lock()
		b.outbox.oldest = 0 // all gone, and no verdict
		b.outbox.mu.Unlock()
		wait(3 * time.Minute)
		if n := count(); n < 1 || n > 2 {
			t.Errorf("told again %d times", n)
		}
		// So it is after a restart, which cannot know.
		b.stop()
		b.outbox.take()
		b.start()
		b.m.Apply(one())
		wait(5 * time.Second)
		if n := count(); n != 1 {
			t.Errorf("after a restart told %d times", n)
		}
	})
}

func TestManyDevices(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		items := []store.Item{modelItem("plain", plainModel)}
		for i := range 200 {
			items = append(items, deviceItem(fmt.Sprintf("d%d", i), `{"model":"plain"}`))
		}
		b.m.Apply(items)
		wait(3 * time.Second)
		online := 0
		for _, s := range b.m.Devices() {
			if s.State == models.StateOnline && s.Model == "plain" && s.Namespace == "default" {
				online++
			}
		}
		if online != 200 {
			t.Errorf("%d of 200 are online", online)
		}
	})
}

// TestUntold: what became of a write is told by the next life when this one is killed
// before the outbox has it, also when another write has taken its place; and it is
// told no more when the outbox had it.
func TestUntold(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.m.Apply(one())
		wait(2 * time.Second)
		b.outbox.set(true, nil)
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "once", models.Float(5)))))
		wait(2 * time.Second)
		b.m.Apply(one(desiredItem("a", wants(2, "W2", "once", models.Float(6)))))
		wait(2 * time.Second)
		same(t, "written", b.driver.device("a").written(), []string{"once=5", "once=6"})
		killed := b.store.clone()
		b.stop()
		b.store, b.outbox = killed, &memOutbox{}
		b.start()
		now := one(desiredItem("a", wants(2, "W2", "once", models.Float(6))))
		b.m.Apply(now)
		wait(500 * time.Millisecond)
		same(t, "the next life tells", writeEvents(b.outbox.take()), []string{"W1 once pending", "W1 once applied", "W2 once pending", "W2 once applied"})

		killed = b.store.clone()
		wait(2 * time.Second)
		if stored, err := b.store.Twin(t.Context(), "uid-a"); err != nil || len(stored.Untold) > 0 {
			t.Errorf("kept %+v, %v", stored.Untold, err)
		}
		b.stop()
		b.outbox.take()
		b.start()
		b.m.Apply(now)
		wait(2 * time.Second)
		same(t, "the life after that tells", writeEvents(b.outbox.take()), nil)

		// A life that ends in order, at once after, leaves nothing to tell either.
		b.stop()
		b.store = killed
		b.start()
		b.m.Apply(now)
		wait(100 * time.Millisecond)
		b.stop()
		if stored, err := b.store.Twin(t.Context(), "uid-a"); err != nil || len(stored.Untold) > 0 {
			t.Errorf("kept by a life that ended in order %+v, %v", stored.Untold, err)
		}
		same(t, "written in all", b.driver.device("a").written(), []string{"once=5", "once=6"})
	})
}

// TestLostOutcomes: the outbox refuses, and later hears what became of each write, but
// for the oldest of very many.
func TestLostOutcomes(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.m.Apply(one())
		wait(2 * time.Second)
		b.outbox.set(false, outbox.ErrDiskFull)
		for n := range maxLost { // each leaves what became of the one before, and that it is there
			b.m.Apply(one(desiredItem("a", wants(int64(n+1), fmt.Sprintf("W%03d", n), "hold", models.Float(float64(n))))))
			wait(100 * time.Millisecond)
		}
		b.outbox.set(false, nil)
		b.outbox.take()
		wait(30 * time.Second)
		got := writeEvents(b.outbox.take())
		last := fmt.Sprintf("W%03d hold applied", maxLost-1)
		if len(got) > maxLost || len(got) < maxLost-2 || got[len(got)-1] != last || !slices.Contains(got, fmt.Sprintf("W%03d hold applied", maxLost-2)) {
			t.Errorf("%d told, the last %q", len(got), got[max(0, len(got)-3):])
		}
	})
}

// TestAcceptedWriteIsToldAgain: what became of a local write is told when the hub
// has made it its own: before, it could not be shown.
func TestAcceptedWriteIsToldAgain(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.m.Apply(one())
		wait(2 * time.Second)
		if _, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(`{"once":40}`)}); err != nil {
			t.Fatal(err)
		}
		wait(2 * time.Second)
		if got := b.m.Latest(LatestWanted{Full: true}); len(got) != 1 || len(got[0].Writes) != 1 || got[0].Writes[0].State != "applied" {
			t.Fatalf("%v", got)
		}
		for len(b.m.LatestWake()) > 0 {
			<-b.m.LatestWake()
		}
		w := b.doc("a").Properties["once"].Write
		b.m.Apply(one(desiredItem("a", wants(1, w.ID, "once", models.Float(40)))))
		wait(time.Second)
		if len(b.m.LatestWake()) == 0 {
			t.Error("nobody is woken")
		}
		if got := b.m.Latest(LatestWanted{}); len(got) != 1 || len(got[0].Writes) != 1 || got[0].Writes[0].Id != w.ID || got[0].Writes[0].State != "applied" {
			t.Errorf("told %v", got)
		}
		b.m.Apply(one(desiredItem("a", wants(1, w.ID, "once", models.Float(40)))))
		wait(time.Second)
		if got := b.m.Latest(LatestWanted{}); len(got) != 0 {
			t.Errorf("told twice: %v", got)
		}
	})
}

// TestVersionNeverGoesBack: not with a kill, nor when the device is opened anew.
func TestVersionNeverGoesBack(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		shown := uint64(0)
		look := func(when string) {
			t.Helper()
			v := b.doc("a").Version
			if v <= shown {
				t.Errorf("%s version %d, after %d", when, v, shown)
			}
			shown = v
		}
		b.m.Apply(one())
		wait(5 * time.Second)
		look("the first life shows")
		if shown >= twin.EraSize {
			t.Errorf("the first life begins at %d", shown)
		}
		killed := b.store.clone()
		for n := range 50 {
			b.driver.device("a").value("temp", models.Float(float64(n)))
			wait(time.Second)
		}
		look("later it shows")
		b.stop()
		b.store = killed
		b.start()
		b.m.Apply(one())
		wait(2 * time.Second)
		look("after a kill")
		b.store.setFail(errors.New("disk is full"))
		b.driver.device("a").value("temp", models.Float(77))
		wait(2 * time.Second)
		look("with a full disk")
		b.m.Apply([]store.Item{modelItem("plain", plainModel), deviceItem("a", `{"model":"plain","connection":{"other":1}}`)})
		wait(2 * time.Second)
		look("opened anew")
	})
}

// TestTooMuchForOneRecord: what does not fit into one is told by several, in its order.
func TestTooMuchForOneRecord(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.outbox.most = 2
		b.m.Apply(one())
		wait(2 * time.Second)
		if got := samples(b.outbox.take(), "temp"); len(got) == 0 {
			t.Error("no samples")
		}
		if _, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(`{"once":1,"mode":"heat","hold":2}`)}); err != nil {
			t.Fatal(err)
		}
		wait(2 * time.Second)
		var locals []string
		entries := b.outbox.take()
		for _, e := range entries {
			for _, l := range e.Locals {
				locals = append(locals, l.Property)
			}
		}
		same(t, "local writes", locals, []string{"hold", "mode", "once"})
		last := map[string]string{}
		for _, e := range writeEvents(entries) {
			f := strings.Fields(e)
			last[f[1]] = f[2]
		}
		for _, p := range locals {
			if last[p] != "applied" {
				t.Errorf("%s: the hub hears %q", p, last[p])
			}
		}
		b.outbox.set(false, outbox.ErrDiskFull)
		var want []string
		for n := range 9 {
			id := fmt.Sprintf("W%d", n)
			b.m.Apply(one(desiredItem("a", wants(int64(n+1), id, "hold", models.Float(float64(10+n))))))
			wait(200 * time.Millisecond)
			want = append(want, id+" hold applied")
		}
		b.outbox.set(false, nil)
		wait(30 * time.Second)
		got := slices.DeleteFunc(writeEvents(b.outbox.take()), func(e string) bool { return !strings.HasSuffix(e, "hold applied") || e[0] != 'W' })
		same(t, "told when the disk is back", got, want)
	})
}
