package placement

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
)

func nodes(names ...string) (out []Node) {
	for _, n := range names {
		out = append(out, Node{Name: n})
	}
	return out
}

func spec(change func(*models.PodSpec)) *models.PodSpec {
	s := &models.PodSpec{Containers: []models.Container{{Name: "c", Image: "i"}}}
	if change != nil {
		change(s)
	}
	s.Default()
	return s
}

func hostPort(port int32, ip string) func(*models.PodSpec) {
	return func(s *models.PodSpec) {
		s.Containers[0].Ports = []models.ContainerPort{{ContainerPort: 80, HostPort: port, HostIP: ip}}
	}
}

func TestChoose(t *testing.T) {
	offline := "is not connected"
	tests := map[string]struct {
		r    Request
		c    Cluster
		want []string // nodes, or "!" and what the message must be
	}{
		"spread": {Request{Spec: spec(nil), Slots: 5}, Cluster{Nodes: nodes("a", "b", "c")}, []string{"a", "b", "c", "a", "b"}},
		"least loaded first": {Request{Spec: spec(nil), Slots: 3}, Cluster{Nodes: nodes("a", "b", "c"), Load: map[string]int{"a": 9, "b": 1}},
			[]string{"c", "b", "a"}},
		"sticks": {Request{Spec: spec(nil), Slots: 3, Bound: map[int]string{0: "b", 1: "b", 2: "b"}}, Cluster{Nodes: nodes("a", "b")}, []string{"b", "b", "b"}},
		"new ones even out": {Request{Spec: spec(nil), Slots: 4, Bound: map[int]string{0: "b", 1: "b"}}, Cluster{Nodes: nodes("a", "b")},
			[]string{"b", "b", "a", "a"}},
		"offline keeps, and gets nothing new": {Request{Spec: spec(nil), Slots: 3, Bound: map[int]string{0: "a"}},
			Cluster{Nodes: []Node{{Name: "a", Trouble: offline}, {Name: "b"}}}, []string{"a", "b", "b"}},
		"node gone": {Request{Spec: spec(nil), Slots: 1, Bound: map[int]string{0: "gone"}}, Cluster{Nodes: nodes("a")}, []string{"a"}},
		"selector": {Request{Spec: spec(func(s *models.PodSpec) { s.NodeSelector = map[string]string{"site": "north"} }), Slots: 2},
			Cluster{Nodes: []Node{{Name: "a", Labels: map[string]string{"site": "south"}}, {Name: "b", Labels: map[string]string{"site": "north"}}}}, []string{"b", "b"}},
		"relabelled node is left": {Request{Spec: spec(func(s *models.PodSpec) { s.NodeSelector = map[string]string{"site": "north"} }), Slots: 1, Bound: map[int]string{0: "a"}},
			Cluster{Nodes: []Node{{Name: "a"}, {Name: "b", Labels: map[string]string{"site": "north"}}}}, []string{"b"}},
		"unschedulable says why of each": {Request{Spec: spec(func(s *models.PodSpec) { s.NodeSelector = map[string]string{"site": "north", "x": "y"} }), Slots: 1},
			Cluster{Nodes: []Node{{Name: "a"}, {Name: "b"}, {Name: "c", Labels: map[string]string{"site": "south"}}, {Name: "d", Trouble: offline, Labels: map[string]string{"site": "north", "x": "y"}}}},
			[]string{"!none of 4 nodes can take it: a, b has no label site=north; c has the label site=south, not north; d is not connected"}},
		"no node":    {Request{Spec: spec(nil), Slots: 1}, Cluster{}, []string{"!there is no node"}},
		"one node":   {Request{Spec: spec(nil), Slots: 1}, Cluster{Nodes: []Node{{Name: "a", Trouble: offline}}}, []string{"!node a is not connected"}},
		"named":      {Request{Spec: spec(func(s *models.PodSpec) { s.NodeName = "b" }), Slots: 2}, Cluster{Nodes: nodes("a", "b")}, []string{"b", "b"}},
		"named away": {Request{Spec: spec(func(s *models.PodSpec) { s.NodeName = "z" }), Slots: 1}, Cluster{Nodes: nodes("a", "b")}, []string{"!node z does not exist"}},
		"named waits for its node": {Request{Spec: spec(func(s *models.PodSpec) { s.NodeName = "b" }), Slots: 1},
			Cluster{Nodes: []Node{{Name: "a"}, {Name: "b", Trouble: offline}}}, []string{"b"}},
		"near": {Request{Spec: spec(func(s *models.PodSpec) { s.NearDevice = "boiler" }), Slots: 1, NearNode: "b"}, Cluster{Nodes: nodes("a", "b")}, []string{"b"}},
		"near moves": {Request{Spec: spec(func(s *models.PodSpec) { s.NearDevice = "boiler" }), Slots: 1, NearNode: "b", Bound: map[int]string{0: "a"}},
			Cluster{Nodes: nodes("a", "b")}, []string{"b"}},
		"near stays while the device is away": {Request{Spec: spec(func(s *models.PodSpec) { s.NearDevice = "boiler" }), Slots: 2, NearTrouble: "device boiler does not exist", Bound: map[int]string{0: "a"}},
			Cluster{Nodes: nodes("a", "b")}, []string{"a", "!device boiler does not exist"}},
		"host ports": {Request{Spec: spec(hostPort(8080, "")), Slots: 3}, Cluster{Nodes: nodes("a", "b")},
			[]string{"a", "b", "!none of 2 nodes can take it: a, b port 8080/TCP is taken by another pod of the app"}},
		"host port of another app": {Request{Spec: spec(hostPort(8080, "127.0.0.1")), Slots: 1},
			Cluster{Nodes: nodes("a"), Ports: map[string]map[HostPort]Owner{"a": {HostPort{"", 8080, "TCP"}: {"default/x", "default/x-0"}}}},
			[]string{"!node a port 8080/TCP is taken by pod default/x-0"}},
		"host port of its own": {Request{App: "default/x", Spec: spec(hostPort(8080, "")), Slots: 1, Bound: map[int]string{0: "a"}},
			Cluster{Nodes: nodes("a", "b"), Ports: map[string]map[HostPort]Owner{"a": {HostPort{"", 8080, "TCP"}: {"default/x", "default/x-0"}}}}, []string{"a"}},
		"host port on another address": {Request{Spec: spec(hostPort(8080, "127.0.0.1")), Slots: 1},
			Cluster{Nodes: nodes("a"), Ports: map[string]map[HostPort]Owner{"a": {HostPort{"10.0.0.1", 8080, "TCP"}: {"default/x", "default/x-0"}}}}, []string{"a"}},
		"host port kept apart from what is bound": {Request{Spec: spec(hostPort(80, "0.0.0.0")), Slots: 2, Bound: map[int]string{0: "a", 1: "a"}}, Cluster{Nodes: nodes("a", "b")}, []string{"a", "b"}},
		"not supported": {Request{Spec: spec(func(s *models.PodSpec) { s.NodeName = "b" }), Slots: 1}, Cluster{Nodes: []Node{{Name: "a"}, {Name: "b", CannotRun: "is too old"}}},
			[]string{"?none of 2 nodes can take it: a is not b, which spec.nodeName asks for; b is too old"}},
		"not supported, but others are only offline": {Request{Spec: spec(nil), Slots: 1}, Cluster{Nodes: []Node{{Name: "a", Trouble: offline}, {Name: "b", CannotRun: "is too old"}}},
			[]string{"!none of 2 nodes can take it: a is not connected; b is too old"}},
		"not supported is left": {Request{Spec: spec(nil), Slots: 1, Bound: map[int]string{0: "b"}}, Cluster{Nodes: []Node{{Name: "a"}, {Name: "b", CannotRun: "is too old"}}}, []string{"a"}},
		"none":                  {Request{Spec: spec(nil)}, Cluster{Nodes: nodes("a")}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range Choose(tt.r, tt.c) {
				switch {
				case p.Node != "":
					got = append(got, p.Node)
				case p.Reason == models.ReasonNotSupportedByNode:
					got = append(got, "?"+p.Message)
				default:
					got = append(got, "!"+p.Message)
				}
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestExplainIsBounded(t *testing.T) {
	var c Cluster
	for i := range 5000 {
		c.Nodes = append(c.Nodes, Node{Name: fmt.Sprintf("gateway-%04d", i), Trouble: "is not connected"})
	}
	got := Choose(Request{Spec: spec(nil), Slots: 1}, c)[0]
	if len(got.Message) > 500 || !strings.Contains(got.Message, "and 4990 more is not connected") {
		t.Errorf("%d bytes: %.600s", len(got.Message), got.Message)
	}
}

// TestChooseHolds checks on random clusters what must hold of every one.
func TestChooseHolds(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var c Cluster
		for i := range r.IntN(6) {
			n := Node{Name: fmt.Sprint("n", i), Labels: map[string]string{"site": fmt.Sprint(r.IntN(2))}}
			if r.IntN(4) == 0 {
				n.Trouble = "is not connected"
			}
			if r.IntN(6) == 0 {
				n.CannotRun = "is too old"
			}
			c.Nodes = append(c.Nodes, n)
		}
		c.Load = map[string]int{fmt.Sprint("n", r.IntN(6)): r.IntN(4)}
		req := Request{Slots: r.IntN(8), Bound: map[int]string{}, Spec: spec(func(s *models.PodSpec) {
			if r.IntN(2) == 0 {
				s.NodeSelector = map[string]string{"site": fmt.Sprint(r.IntN(2))}
			}
			if r.IntN(4) == 0 {
				hostPort(80, "")(s)
			}
		})}
		for i := range req.Slots {
			if r.IntN(2) == 0 {
				req.Bound[i] = fmt.Sprint("n", r.IntN(7))
			}
		}
		got := Choose(req, c)
		if len(got) != req.Slots {
			t.Fatalf("seed %d: %d places for %d pods", seed, len(got), req.Slots)
		}
		used := map[string]int{}
		for slot, p := range got {
			if (p.Node == "") == (p.Message == "") {
				t.Fatalf("seed %d: pod %d has place %+v", seed, slot, p)
			}
			if p.Node == "" {
				continue
			}
			used[p.Node]++
			n := c.Nodes[slices.IndexFunc(c.Nodes, func(n Node) bool { return n.Name == p.Node })]
			if n.CannotRun != "" || req.Spec.NodeSelector != nil && n.Labels["site"] != req.Spec.NodeSelector["site"] {
				t.Fatalf("seed %d: pod %d is on %+v, and asks for %v", seed, slot, n, req.Spec.NodeSelector)
			}
			if n.Trouble != "" && req.Bound[slot] != n.Name {
				t.Fatalf("seed %d: pod %d is new on %+v", seed, slot, n)
			}
			if len(HostPorts(req.Spec)) > 0 && used[p.Node] > 1 {
				t.Fatalf("seed %d: two pods share a port on %s", seed, p.Node)
			}
		}
		// What was chosen is left alone: nothing moves without a reason.
		bound := map[int]string{}
		for slot, p := range got {
			if p.Node != "" {
				bound[slot] = p.Node
			}
		}
		req.Bound = bound
		if again := Choose(req, c); !reflect.DeepEqual(got, again) {
			t.Fatalf("seed %d: first %v, then %v", seed, got, again)
		}
	}
}
