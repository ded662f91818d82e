package registry

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/models"
)

// wantedByRule says what a node is to hold of pods and what they use, by looking
// at every object.
func wantedByRule(r *Registry, node string) map[Ref]uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := map[Ref]uint64{}
	hold := func(key models.Key) {
		if e := r.objects[key]; e != nil {
			out[refOf(key)] = uint64(e.revision)
		}
	}
	for key, e := range r.objects {
		p, ok := e.object.(*models.Pod)
		if !ok || p.Spec.NodeName != node {
			continue
		}
		hold(key)
		configMaps, secrets := p.Spec.References()
		for name := range configMaps {
			hold(models.Key{Kind: "ConfigMap", Namespace: key.Namespace, Name: name})
		}
		for name := range secrets {
			hold(models.Key{Kind: "Secret", Namespace: key.Namespace, Name: name})
		}
		for service := range r.objects {
			if service.Kind == "Service" && service.Namespace == key.Namespace {
				hold(service)
			}
		}
	}
	return out
}

// TestNodesHoldWhatTheirPodsUse changes pods, ConfigMaps and Services at random. A
// node that asks for everything gets what the rule says; one that follows holds
// the same, having been told of no more than what changed.
func TestNodesHoldWhatTheirPodsUse(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 3))
		pick := func(list ...string) string { return list[rng.IntN(len(list))] }
		s := storetest.NewMemory()
		r, stop := startable(t, s)
		nodes := []string{"a", "b"}
		holds, followers := map[string]map[Ref]uint64{}, map[string]*Follower{}
		follow := func() {
			for _, n := range nodes {
				holds[n], followers[n] = map[Ref]uint64{}, r.Follow(n)
				for _, i := range r.Wanted(n) {
					holds[n][Ref{i.Kind, i.Namespace, i.Name}] = i.Revision
				}
			}
		}
		follow()
		for i := range 60 {
			ns := pick("x", "y")
			var put []models.Object
			var drop []models.Key
			switch rng.IntN(9) {
			case 8:
				put = append(put, object(t, fmt.Sprintf(`{kind: Secret, apiVersion: v1, metadata: {name: %s, namespace: %s}, stringData: {k: "%d"}}`, pick("c", "e"), ns, i)))
			case 0, 1, 2:
				put = append(put, object(t, fmt.Sprintf(`{kind: Pod, apiVersion: v1, metadata: {name: %s, namespace: %s}, spec: {nodeName: %q, containers: [{name: c, image: i%d,
					envFrom: [{configMapRef: {name: %s}}]}], volumes: [{name: v, configMap: {name: %s}}, {name: w, secret: {secretName: %s}}]}}`,
					pick("p", "q", "c"), ns, pick("a", "b", ""), rng.IntN(3), pick("c", "d"), pick("c", "d"), pick("c", "e"))))
				if rng.IntN(3) == 0 { // anew, with another uid
					drop = append(drop, models.KeyOf(put[0]))
				}
			case 3:
				put = append(put, object(t, fmt.Sprintf(`{kind: ConfigMap, apiVersion: v1, metadata: {name: %s, namespace: %s}, data: {k: "%d"}}`, pick("c", "d"), ns, i)))
			case 4:
				put = append(put, object(t, fmt.Sprintf(`{kind: Service, apiVersion: v1, metadata: {name: %s, namespace: %s}, spec: {selector: {a: b}, ports: [{port: %d}]}}`, pick("c", "s"), ns, 1+i)))
			case 5:
				put = append(put, object(t, fmt.Sprintf(`{kind: Node, apiVersion: v1, metadata: {name: %s}}`, pick("a", "c"))))
			default:
				drop = append(drop, models.Key{Kind: pick("Pod", "ConfigMap", "Service", "Secret"), Namespace: ns, Name: pick("p", "q", "c", "d", "s", "e")})
			}
			if err := r.Apply(context.Background(), put, drop); err != nil {
				t.Fatal(err)
			}
			if rng.IntN(15) == 0 { // the hub starts again
				stop()
				r, stop = startable(t, s)
				follow()
			}
			for _, n := range nodes {
				told := followers[n].Take()
				for _, ref := range told {
					if item, ok := r.Item(n, ref); ok {
						holds[n][ref] = item.Revision
						if len(item.JSON) == 0 || item.UID == "" {
							t.Fatalf("seed %d: %v has no body", seed, ref)
						}
					} else {
						delete(holds[n], ref)
					}
				}
				want := wantedByRule(r, n)
				if !maps.Equal(holds[n], want) {
					t.Fatalf("seed %d step %d: %s was told of %v and holds %v, and is to hold %v", seed, i, n, told, holds[n], want)
				}
				wanted := map[Ref]uint64{}
				for _, i := range r.Wanted(n) {
					ref := Ref{i.Kind, i.Namespace, i.Name}
					if wanted[ref] != 0 {
						t.Fatalf("seed %d: %v comes twice", seed, ref)
					}
					wanted[ref] = i.Revision
				}
				if !maps.Equal(wanted, want) {
					t.Fatalf("seed %d step %d: %s asks and gets %v, and is to hold %v", seed, i, n, wanted, want)
				}
			}
		}
		for _, key := range slices.Collect(maps.Keys(r.objects)) {
			if err := r.Apply(context.Background(), nil, []models.Key{key}); err != nil {
				t.Fatal(err)
			}
		}
		if len(r.pods)+len(r.users)+len(r.services) != 0 {
			t.Fatalf("seed %d: of nothing is left %v, %v, %v", seed, r.pods, r.users, r.services)
		}
		stop()
	}
}

func TestChanges(t *testing.T) {
	r := running(t, storetest.NewMemory())
	apply(t, r, `{kind: Node, apiVersion: v1, metadata: {name: a}}`)
	c, now := r.Changes("Node", "Pod")
	if len(now) != 1 || now[0].Meta().Name != "a" {
		t.Fatalf("%v", now)
	}
	apply(t, r, `{kind: ConfigMap, apiVersion: v1, metadata: {name: x}}`)
	select {
	case <-c.Changed():
		t.Fatalf("woken by %v", c.Take())
	default:
	}
	apply(t, r, `{kind: Node, apiVersion: v1, metadata: {name: b}}`)
	apply(t, r, `{kind: Node, apiVersion: v1, metadata: {name: b, labels: {x: y}}}`)
	<-c.Changed()
	if got := c.Take(); !slices.Equal(got, []models.Key{{Kind: "Node", Name: "b"}}) {
		t.Fatalf("%v", got)
	}
	c.Close()
	apply(t, r, `{kind: Node, apiVersion: v1, metadata: {name: c}}`)
	if got := c.Take(); len(got) != 0 {
		t.Fatalf("closed, and hears of %v", got)
	}
	if r.Object(models.Key{Kind: "Node", Name: "b"}) == nil || r.Object(models.Key{Kind: "Node", Name: "z"}) != nil {
		t.Fatal("Object")
	}
	// All of it or nothing.
	err := r.Apply(t.Context(), []models.Object{object(t, `{kind: Node, apiVersion: v1, metadata: {name: d}}`), object(t, modelText)}, []models.Key{{Kind: "Node", Name: "b"}})
	refused(t, err, models.KindInvalid, "no mapper")
	if r.Object(models.Key{Kind: "Node", Name: "b"}) == nil || r.Object(models.Key{Kind: "Node", Name: "d"}) != nil {
		t.Fatal("half of it is there")
	}
}
