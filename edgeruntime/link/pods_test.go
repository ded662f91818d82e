package link

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// fakePods has one pod, whose status is a number.
type fakePods struct {
	wake chan struct{}

	mu   sync.Mutex
	news bool
	n    int
}

func (p *fakePods) Statuses(full bool) *pb.PodStatuses {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !full && !p.news {
		return nil
	}
	p.news = false
	return &pb.PodStatuses{Full: full, Pods: []*pb.PodState{{Namespace: "default", Name: "web-0", Uid: "u", Json: []byte(fmt.Sprintf(`{"restartCount":%d}`, p.n))}}}
}

func (p *fakePods) StatusesWake() <-chan struct{} { return p.wake }

func (p *fakePods) change() {
	p.mu.Lock()
	p.n, p.news = p.n+1, true
	p.mu.Unlock()
	notify(p.wake)
}

func TestPodStatuses(t *testing.T) {
	h := newHub(t)
	e := newEdge(t, h)
	p := &fakePods{wake: make(chan struct{}, 1)}
	e.cfg.Pods = p
	e.start()
	e.linked()
	told := func(full bool, n int) func() bool {
		return h.is(func() bool {
			for _, s := range h.pods {
				if s.Full == full && string(s.Pods[0].Json) == fmt.Sprintf(`{"restartCount":%d}`, n) {
					return true
				}
			}
			return false
		})
	}
	eventually(t, "all of it, at first", told(true, 0))
	p.change()
	eventually(t, "the change", told(false, 1))
	if !h.is(func() bool { return strings.Contains(strings.Join(h.hellos[0].Capabilities, " "), "workloads") })() {
		t.Error("the hello does not say that it runs pods")
	}
	e.proxy.Reset()
	p.change()
	eventually(t, "all of it, with the next session", told(true, 2))
}

func TestSplitPods(t *testing.T) {
	all := &pb.PodStatuses{Full: true, Engine: &pb.Engine{Ready: true}}
	big := []byte(`{"message":"` + strings.Repeat("x", 60<<10) + `"}`)
	for i := range 100 {
		all.Pods = append(all.Pods, &pb.PodState{Namespace: "default", Name: fmt.Sprint("web-", i), Uid: "u", Json: big})
	}
	parts := splitPods(all)
	if len(parts) < 3 || !parts[0].Full || len(parts[0].Pods) != 100 {
		t.Fatalf("%d parts, the first is full: %v", len(parts), parts[0].Full)
	}
	n, engines := 0, 0
	for i, part := range parts {
		if part.SizeVT() > podsBytes+1024 || i > 0 && part.Full {
			t.Errorf("part %d: %d bytes, full: %v", i, part.SizeVT(), part.Full)
		}
		if i > 0 {
			n += len(part.Pods)
		}
		if part.Engine != nil {
			engines++
		}
	}
	if n != 100 || engines != 1 {
		t.Errorf("%d pods, %d times the engine", n, engines)
	}
	all.Pods = all.Pods[:2]
	if parts := splitPods(all); len(parts) != 1 {
		t.Errorf("little in %d parts", len(parts))
	}
}
