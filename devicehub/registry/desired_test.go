package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func patch(r *Registry, device, text string, o models.DesiredOptions) (DeviceView, map[string]string, error) {
	p, _, err := models.DecodePatch([]byte(text))
	if err != nil {
		panic(err)
	}
	return r.PatchDesired(context.Background(), "default", device, p, o)
}

func mustPatch(t testing.TB, r *Registry, device, text string, o models.DesiredOptions) (DeviceView, map[string]string) {
	t.Helper()
	v, ids, err := patch(r, device, text, o)
	if err != nil {
		t.Fatal(err)
	}
	return v, ids
}

func TestPatchDesired(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s, "b1")
	v, ids := mustPatch(t, r, "b1", `{"setpoint": 45.5, "mode": "heat"}`, models.DesiredOptions{By: "ann", Reason: "cold", Trace: "00-x", Expire: time.Minute})
	d := v.Desired.Properties["setpoint"]
	if v.Desired.Version != 1 || d.ID != ids["setpoint"] || d.By != "ann" || d.Reason != "cold" || d.Trace != "00-x" || d.Expires == nil || ids["mode"] == ids["setpoint"] {
		t.Fatalf("%+v %v", v.Desired, ids)
	}
	if got := v.Desired.Properties["mode"].Value; got != models.Int(1) {
		t.Errorf("the enum's name became %s", got)
	}
	for _, c := range []struct {
		patch string
		o     models.DesiredOptions
		kind  models.ErrorKind
		words []string
	}{
		{`{"nope": 1}`, models.DesiredOptions{}, models.KindInvalid, []string{"/nope", "no property", "temperature, setpoint, mode"}},
		{`{"a/b": 1}`, models.DesiredOptions{}, models.KindInvalid, []string{"/a~1b"}},
		{`{"temperature": 1}`, models.DesiredOptions{}, models.KindInvalid, []string{"/temperature", "read-only"}},
		{`{"setpoint": 96}`, models.DesiredOptions{}, models.KindInvalid, []string{"/setpoint", "setpoint must be from 0 to 95, got 96"}},
		{`{"setpoint": "hot"}`, models.DesiredOptions{}, models.KindInvalid, []string{"/setpoint"}},
		{`{"mode": "cool"}`, models.DesiredOptions{}, models.KindInvalid, []string{"off (0), heat (1)", `"cool"`}},
		{`{"mode": 7}`, models.DesiredOptions{}, models.KindInvalid, []string{"off (0), heat (1)"}},
		{`{"setpoint": 1, "mode": 7}`, models.DesiredOptions{}, models.KindInvalid, []string{"/mode"}},
		{`{"setpoint": 1}`, models.DesiredOptions{IfMatch: `"7"`}, models.KindPrecondition, []string{`"1"`}},
	} {
		_, _, err := patch(r, "b1", c.patch, c.o)
		refused(t, err, c.kind, c.words...)
	}
	_, _, err := patch(r, "gone", `{}`, models.DesiredOptions{})
	refused(t, err, models.KindNotFound)

	if v, _ := mustPatch(t, r, "b1", `{"never-was": null}`, models.DesiredOptions{}); v.Desired.Version != 1 {
		t.Errorf("withdrawing what never was made version %d", v.Desired.Version)
	}
	v, none := mustPatch(t, r, "b1", `{}`, models.DesiredOptions{IfMatch: `"1"`})
	if v.Desired.Version != 1 || len(none) != 0 {
		t.Fatalf("an empty patch made version %d, %v", v.Desired.Version, none)
	}
	v, none = mustPatch(t, r, "b1", `{"mode": null}`, models.DesiredOptions{})
	if _, live := v.Desired.Live("mode"); live || v.Desired.Version != 2 || len(none) != 0 {
		t.Fatalf("%+v", v.Desired)
	}
	before := r.revision
	if v, _ = mustPatch(t, r, "b1", `{"mode": null}`, models.DesiredOptions{}); v.Desired.Version != 2 || r.revision != before {
		t.Fatal("withdrawing what is not there changed something")
	}
	// The same value again is a new write.
	v, again := mustPatch(t, r, "b1", `{"setpoint": 45.5}`, models.DesiredOptions{})
	if v.Desired.Version != 3 || again["setpoint"] == ids["setpoint"] {
		t.Fatalf("%+v", v.Desired)
	}

	// A property that the model no longer has can be withdrawn, more than once.
	apply(t, r, strings.Replace(modelText, "name: setpoint", "name: target", 1))
	for range 2 {
		v, _ = mustPatch(t, r, "b1", `{"setpoint": null}`, models.DesiredOptions{})
		if _, live := v.Desired.Live("setpoint"); live {
			t.Fatal("it is still wanted")
		}
	}
	_, _, err = patch(r, "b1", `{"setpoint": 5}`, models.DesiredOptions{})
	refused(t, err, models.KindInvalid, "/setpoint")

	apply(t, r, strings.Replace(deviceText("b1", "n1"), "spec: {", "spec: {locked: true, ", 1))
	_, _, err = patch(r, "b1", `{"target": 5}`, models.DesiredOptions{})
	refused(t, err, models.KindLocked, "b1")
	sameAsStored(t, r, s)
}

func TestDesiredValuesAreBoundedTogether(t *testing.T) {
	r := plant(t, storetest.NewMemory())
	apply(t, r, `{kind: DeviceModel, apiVersion: whimbrel/v1, metadata: {name: boiler}, spec: {protocol: modbus, properties: [
		{name: a, type: string, access: Write, address: {register: 0}}, {name: b, type: string, access: Write, address: {register: 0}}]}}`)
	apply(t, r, deviceText("b1", "n1"))
	large := strings.Repeat("x", models.MaxDocumentBytes*2/3)
	mustPatch(t, r, "b1", `{"a": "`+large+`"}`, models.DesiredOptions{})
	_, _, err := patch(r, "b1", `{"b": "`+large+`"}`, models.DesiredOptions{})
	refused(t, err, models.KindInvalid, "bytes together")
	v, _ := r.Device("default", "b1")
	verdict, err := r.AcceptLocal(t.Context(), v.Device.Metadata.UID, twin.Local{Property: "b", Value: models.String(large), ID: "L1", Base: 1})
	if err != nil || verdict.Verdict != twin.Overridden {
		t.Fatal(verdict, err)
	}
	mustPatch(t, r, "b1", `{"b": "small"}`, models.DesiredOptions{})
}

func TestAcceptLocal(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s, "b1")
	mustPatch(t, r, "b1", `{"setpoint": 1}`, models.DesiredOptions{By: "ann"})
	v, _ := r.Device("default", "b1")
	uid := v.Device.Metadata.UID
	accept := func(l twin.Local) (twin.Verdict, twin.Desired) {
		t.Helper()
		verdict, err := r.AcceptLocal(t.Context(), uid, l)
		if err != nil {
			t.Fatal(err)
		}
		v, _ := r.Device("default", "b1")
		return verdict.Verdict, v.Desired
	}
	local := twin.Local{Property: "setpoint", Value: models.Int(20), ID: "L1", Base: 1, By: "panel", Time: time.UnixMicro(1 << 62)}
	for range 2 { // a resend is harmless
		verdict, d := accept(local)
		if verdict != twin.Accepted || d.Version != 2 || d.Properties["setpoint"].Value != models.Float(20) || d.Properties["setpoint"].By != "panel" {
			t.Fatalf("%v %+v", verdict, d)
		}
	}
	// The next one of the same edge, which had not heard of version 2 then.
	if verdict, d := accept(twin.Local{Property: "setpoint", Value: models.Int(21), ID: "L2", Base: 1, After: "L1"}); verdict != twin.Accepted || d.Version != 3 {
		t.Fatalf("%v %+v", verdict, d)
	}
	if verdict, d := accept(twin.Local{Property: "setpoint", Value: models.Int(22), ID: "L3", Base: 1}); verdict != twin.Overridden || d.Version != 3 {
		t.Fatalf("%v %+v", verdict, d)
	}
	// Another property has its own conflicts.
	if verdict, d := accept(twin.Local{Property: "mode", Value: models.Int(1), ID: "L4", Base: 1}); verdict != twin.Accepted || d.Version != 4 {
		t.Fatalf("%v %+v", verdict, d)
	}
	for _, l := range []twin.Local{
		{Property: "mode", Value: models.Int(9), ID: "L5", Base: 9}, // does not fit any more
		{Property: "nope", Value: models.Int(1), ID: "L6", Base: 9},
		{Property: "temperature", Value: models.Int(1), ID: "L7", Base: 9},
	} {
		if verdict, d := accept(l); verdict != twin.Overridden || d.Version != 4 {
			t.Fatalf("%+v: %v %+v", l, verdict, d)
		}
	}
	if verdict, d := accept(twin.Local{Property: "mode", ID: "L8", Base: 4}); verdict != twin.Accepted || !d.Properties["mode"].Value.IsNull() {
		t.Fatalf("%v %+v", verdict, d)
	}
	if verdict, err := r.AcceptLocal(t.Context(), "no-such-uid", local); err != nil || verdict.Verdict != twin.Overridden {
		t.Fatal(verdict, err)
	}
	sameAsStored(t, r, s)
}

func TestConcurrentPatchesAllCount(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s, "b1")
	var wait sync.WaitGroup
	var mu sync.Mutex
	versions := map[int64]bool{}
	for i := range 20 {
		wait.Go(func() {
			for range 10 {
				v, _ := mustPatch(t, r, "b1", fmt.Sprintf(`{"setpoint": %d}`, i), models.DesiredOptions{})
				mu.Lock()
				if versions[v.Desired.Version] {
					t.Errorf("version %d twice", v.Desired.Version)
				}
				versions[v.Desired.Version] = true
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if v, _ := r.Device("default", "b1"); v.Desired.Version != 200 {
		t.Fatal(v.Desired.Version)
	}
	// Of writers who all saw the same version one wins.
	won := 0
	for range 10 {
		wait.Go(func() {
			_, _, err := patch(r, "b1", `{"setpoint": 7}`, models.DesiredOptions{IfMatch: `"200"`})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if models.KindOf(err) != models.KindPrecondition {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if won != 1 {
		t.Fatalf("%d of ten won", won)
	}
	sameAsStored(t, r, s)
}

func TestExpiring(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s, "b1", "b2")
	now := time.Now()
	_, ids := mustPatch(t, r, "b1", `{"setpoint": 1, "mode": 1}`, models.DesiredOptions{Expire: time.Minute})
	mustPatch(t, r, "b2", `{"setpoint": 1}`, models.DesiredOptions{})
	due := func(r *Registry, at time.Time) string {
		var out []string
		for _, e := range r.Expiring(at) {
			out = append(out, e.Property)
		}
		return strings.Join(out, " ")
	}
	later := now.Add(2 * time.Minute)
	if got := due(r, now.Add(30*time.Second)); got != "" {
		t.Fatal(got)
	}
	if got := due(r, later); len(got) != len("mode setpoint") {
		t.Fatal(got)
	}
	v, _ := r.Device("default", "b1")
	uid := v.Device.Metadata.UID
	r.Confirmed(Expiring{DeviceUID: uid, Property: "mode", ID: ids["mode"]})
	r.Confirmed(Expiring{DeviceUID: uid, Property: "setpoint", ID: "another"})
	if got := due(r, later); got != "setpoint" {
		t.Fatal(got)
	}
	// A patch of another property does not bring a confirmed one back.
	mustPatch(t, r, "b1", `{"setpoint": 2}`, models.DesiredOptions{Expire: time.Minute})
	if got := due(r, later); got != "setpoint" {
		t.Fatal(got)
	}
	if err := r.Withdraw(t.Context(), uid, "setpoint", ids["setpoint"]); err != nil { // that one was superseded
		t.Fatal(err)
	}
	v, _ = r.Device("default", "b1")
	second := v.Desired.Properties["setpoint"]
	if second.Value.IsNull() {
		t.Fatal("a newer write was withdrawn")
	}
	again := running(t, s)
	if got := due(again, later); len(got) != len("mode setpoint") {
		t.Fatalf("after a restart %q", got)
	}
	if err := r.Withdraw(t.Context(), uid, "setpoint", second.ID); err != nil {
		t.Fatal(err)
	}
	if got := due(r, later); got != "" {
		t.Fatal(got)
	}
	mustPatch(t, r, "b1", `{"setpoint": 2}`, models.DesiredOptions{Expire: time.Minute})
	if _, err := r.Delete(t.Context(), deviceKey("b1"), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := due(r, later); got != "" || len(r.desired) != 1 {
		t.Fatal(got, len(r.desired))
	}
}

// refs shows what a follower was told.
func refs(f *Follower) string {
	var out []string
	for _, ref := range f.Take() {
		out = append(out, ref.Kind+" "+ref.Name)
	}
	return strings.Join(out, ", ")
}

func TestFollowers(t *testing.T) {
	r := plant(t, storetest.NewMemory())
	one, two := r.Follow("n1"), r.Follow("n2")
	defer one.Close()
	defer two.Close()
	apply(t, r, deviceText("b1", "n1"))
	<-one.Changed()
	if got := refs(one); got != "DeviceModel boiler, Device b1, Desired b1" {
		t.Fatal(got)
	}
	item, ok := r.Item("n1", Ref{"Device", "default", "b1"})
	if !ok || item.Assignment != 1 || !json.Valid(item.JSON) {
		t.Fatalf("%+v %v", item, ok)
	}
	if _, ok := r.Item("n1", Ref{"Desired", "default", "b1"}); ok {
		t.Fatal("there are no desired values")
	}
	mustPatch(t, r, "b1", `{"setpoint": 3}`, models.DesiredOptions{Expire: time.Minute})
	if got := refs(one); got != "Desired b1" {
		t.Fatal(got)
	}
	item, _ = r.Item("n1", Ref{"Desired", "default", "b1"})
	var d twin.Desired
	if err := json.Unmarshal(item.JSON, &d); err != nil {
		t.Fatal(err)
	}
	if v := d.Properties["setpoint"]; v.Expires != nil || v.ExpiresInMS < 50_000 || v.ExpiresInMS > 60_000 {
		t.Fatalf("%+v", v)
	}

	// A change of the model tells the nodes that use it, and shows in the device.
	apply(t, r, strings.Replace(modelText, "maximum: 95", "maximum: 50", 1))
	if got := refs(one); got != "DeviceModel boiler" {
		t.Fatal(got)
	}
	_, _, err := patch(r, "b1", `{"setpoint": 60}`, models.DesiredOptions{})
	refused(t, err, models.KindInvalid, "from 0 to 50")

	// A move takes the items from one node to the other.
	apply(t, r, deviceText("b1", "n2"))
	if a, b := refs(one), refs(two); a != "DeviceModel boiler, Device b1, Desired b1" || a != b {
		t.Fatalf("%s\n%s", a, b)
	}
	for _, kind := range []string{"DeviceModel", "Device", "Desired"} {
		name := "b1"
		if kind == "DeviceModel" {
			name = "boiler"
		}
		if _, ok := r.Item("n1", Ref{kind, "default", name}); ok {
			t.Errorf("n1 still holds the %s", kind)
		}
		if i, ok := r.Item("n2", Ref{kind, "default", name}); !ok || kind == "Device" && i.Assignment != 2 {
			t.Errorf("%s %+v %v", kind, i, ok)
		}
	}
	if n := len(r.Wanted("n1")); n != 0 {
		t.Errorf("n1 is to hold %d items", n)
	}
	var wanted []string
	for _, w := range r.Wanted("n2") {
		wanted = append(wanted, w.Kind)
	}
	if got := strings.Join(wanted, " "); got != "DeviceModel Device Desired" {
		t.Error(got)
	}
	assignment, node, ok := r.Current(item.UID)
	if assignment != 2 || node != "n2" || !ok {
		t.Error(assignment, node, ok)
	}
	if _, err := r.Delete(t.Context(), deviceKey("b1"), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := refs(two); got != "DeviceModel boiler, Device b1, Desired b1" || refs(one) != "" {
		t.Fatal(got)
	}
	// Made again under its name it is another device.
	apply(t, r, deviceText("b1", "n2"))
	if i, _ := r.Item("n2", Ref{"Device", "default", "b1"}); i.UID == item.UID || i.Assignment != 1 {
		t.Fatalf("%+v", i)
	}
}

func TestSettledWritesAreTold(t *testing.T) {
	r := plant(t, storetest.NewMemory(), "b1")
	_, ids := mustPatch(t, r, "b1", `{"setpoint": 3, "mode": 1}`, models.DesiredOptions{})
	r.SetStatuses(&fakeStatuses{writes: map[string]twin.WriteState{ids["setpoint"]: twin.Applied, ids["mode"]: twin.Pending}})
	item, ok := r.Item("n1", Ref{"Desired", "default", "b1"})
	var d twin.Desired
	if err := json.Unmarshal(item.JSON, &d); err != nil || !ok {
		t.Fatal(err, ok)
	}
	if d.Properties["setpoint"].Settled != twin.Applied || d.Properties["mode"].Settled != "" {
		t.Fatalf("%s", item.JSON)
	}
	if v, _ := r.Device("default", "b1"); v.Desired.Properties["setpoint"].Settled != "" {
		t.Fatal("what an edge is told changed what is stored")
	}
}

func nodeText(name string) string {
	return fmt.Sprintf("{kind: Node, apiVersion: v1, metadata: {name: %s}}", name)
}

// TestOnceIsHandedOnce follows a once write through the hands of edges.
func TestOnceIsHandedOnce(t *testing.T) {
	ref := Ref{"Desired", "default", "b1"}
	for name, c := range map[string]struct {
		first func(r *Registry) error // what becomes of n1 before it gets the write
		then  func(r *Registry) error // and after it
		node  string                  // who is to have it then
		want  string                  // hidden of: mode, setpoint
	}{
		"nothing": {node: "n1"},
		"a new disk": {node: "n1", want: "mode",
			then: func(r *Registry) error { return r.Forgot(t.Context(), "n1", false) }},
		"a new disk before it had it": {node: "n1",
			first: func(r *Registry) error { return r.Forgot(t.Context(), "n1", false) }},
		"an older database, which may know nothing of it": {node: "n1", want: "mode",
			first: func(r *Registry) error { return r.Forgot(t.Context(), "n1", true) }},
		"another node": {node: "n2", want: "mode",
			then: func(r *Registry) error { apply(t, r, deviceText("b1", "n2")); return nil }},
		"another node before it had it": {node: "n2",
			first: func(r *Registry) error { apply(t, r, deviceText("b1", "n2")); return nil }},
		"another node and back": {node: "n1", want: "mode",
			then: func(r *Registry) error {
				apply(t, r, deviceText("b1", "n2"))
				apply(t, r, deviceText("b1", "n1"))
				return nil
			}},
		"the node made again": {node: "n1", want: "mode",
			then: func(r *Registry) error {
				if _, err := r.Delete(t.Context(), models.Key{Kind: "Node", Name: "n1"}, models.WriteOptions{}); err != nil {
					return err
				}
				apply(t, r, nodeText("n1"))
				return nil
			}},
	} {
		t.Run(name, func(t *testing.T) {
			s := storetest.NewMemory()
			r := plant(t, s, "b1")
			apply(t, r, strings.Replace(modelText, "maximum: 95,", "maximum: 95, write: hold,", 1))
			apply(t, r, nodeText("n1"))
			apply(t, r, nodeText("n2"))
			mustPatch(t, r, "b1", `{"setpoint": 3, "mode": 1}`, models.DesiredOptions{})
			if c.first != nil {
				if err := c.first(r); err != nil {
					t.Fatal(err)
				}
			}
			node := "n1"
			if v, _ := r.Device("default", "b1"); v.Device.Spec.Node == c.node {
				node = c.node
			}
			before, _ := r.Item(node, ref)
			if err := r.Hand(t.Context(), node, []Ref{ref}); err != nil {
				t.Fatal(err)
			}
			if after, _ := r.Item(node, ref); after.Revision != before.Revision || string(after.JSON) != string(before.JSON) {
				t.Errorf("noting that it is handed over changed %d %s to %d %s", before.Revision, before.JSON, after.Revision, after.JSON)
			}
			if c.then != nil {
				if err := c.then(r); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				item, ok := r.Item(c.node, ref)
				var d twin.Desired
				if err := json.Unmarshal(item.JSON, &d); err != nil || !ok {
					t.Fatal(err, ok)
				}
				hidden := ""
				for _, p := range []string{"mode", "setpoint"} {
					if d.Properties[p].Hidden {
						hidden += p
					}
					if d.Properties[p].Given != "" {
						t.Errorf("the edge is told who has %s: %s", p, item.JSON)
					}
				}
				if hidden != c.want {
					t.Errorf("hidden: %q, want %q: %s", hidden, c.want, item.JSON)
				}
				r = running(t, s) // it is stored
			}
		})
	}
}

func revisionOf(t *testing.T, s store.Objects) int64 {
	t.Helper()
	revision, err := s.Load(t.Context(), func(store.Object) error { return nil }, func(store.Desired) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// TestOnceIsNotedWithThePatch: to a node that is there it is handed at once.
func TestOnceIsNotedWithThePatch(t *testing.T) {
	s := storetest.NewMemory()
	r := plant(t, s, "b1")
	apply(t, r, nodeText("n1"))
	f := r.Follow("n1")
	defer f.Close()
	mustPatch(t, r, "b1", `{"mode": 1}`, models.DesiredOptions{})
	if v, _ := r.Device("default", "b1"); v.Desired.Properties["mode"].Given == "" {
		t.Error("nobody has it")
	}
	before := revisionOf(t, s)
	if err := r.Hand(t.Context(), "n1", f.Take()); err != nil {
		t.Fatal(err)
	}
	if after := revisionOf(t, s); after != before {
		t.Errorf("noting it again changed the revision from %d to %d", before, after)
	}
}

func TestLoadToleratesWhatIsBroken(t *testing.T) {
	s := storetest.NewMemory()
	plant(t, s, "b1")
	put := func(kind, ns, name, uid, text string) store.Object {
		return store.Object{Kind: kind, Namespace: ns, Name: name, UID: uid, Revision: 50, Generation: 1, Assignment: 1, Created: time.Now(), JSON: []byte(text)}
	}
	err := s.Commit(t.Context(), store.Commit{Revision: 50, Put: []store.Object{
		put("Mapper", "", "broken", "u1", `{"kind":"Mapper","apiVersion":"whimbrel/v1","metadata":{"name":"broken"},"spec":{"version":"1","connection":{"type":7},"address":true}}`),
		put("DeviceModel", "default", "m2", "u2", `{"kind":"DeviceModel","apiVersion":"whimbrel/v1","metadata":{"name":"m2","namespace":"default"},"spec":{"protocol":"broken","properties":[{"name":"a","type":"int","newerField":1}]}}`),
		put("Device", "default", "misfit", "u3", `{"kind":"Device","apiVersion":"whimbrel/v1","metadata":{"name":"misfit","namespace":"default"},"spec":{"model":"boiler","node":"n1","properties":[{"name":"gone"}]}}`),
		put("Device", "default", "orphan", "u4", `{"kind":"Device","apiVersion":"whimbrel/v1","metadata":{"name":"orphan","namespace":"default"},"spec":{"model":"none","node":"n1"}}`),
	}, PutDesired: []store.Desired{{DeviceUID: "nobody", Revision: 50, JSON: []byte(`{"version":1}`)}}})
	if err != nil {
		t.Fatal(err)
	}
	r := running(t, s)
	for _, name := range []string{"misfit", "orphan", "b1"} {
		v, err := r.Device("default", name)
		if err != nil || (len(v.Properties) > 0) != (name == "b1") {
			t.Errorf("%s: %d properties, %v", name, len(v.Properties), err)
		}
	}
	if len(r.desired) != 0 {
		t.Error("desired values of nobody are kept")
	}
	// They can be mended.
	apply(t, r, deviceText("misfit", "n1"))
	if v, _ := r.Device("default", "misfit"); len(v.Properties) != 3 || v.Device.Metadata.UID != "u3" {
		t.Errorf("%+v", v)
	}
	_, err = r.Delete(t.Context(), deviceKey("orphan"), models.WriteOptions{})
	if err != nil {
		t.Error(err)
	}
	// What cannot be read at all is not passed over in silence.
	if err := s.Commit(t.Context(), store.Commit{Revision: 100, Put: []store.Object{put("Gadget", "", "x", "u9", `{}`)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Store: s, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "Gadget") {
		t.Fatal(err)
	}
}
