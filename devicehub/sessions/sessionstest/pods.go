package sessionstest

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// PodEdge plays an edge that runs pods without an engine: a pod that it is sent
// is up at once, unless its image is said to be broken. As a real edge it keeps
// what runs while what is to take its place does not come up.
type PodEdge struct {
	edge *Edge
	t    testing.TB

	mu     sync.Mutex
	link   *Link
	items  map[string]*pb.Item // by kind and name: what it holds
	runs   map[string]*models.Pod
	broken map[string]bool // by image
	ends   []*pb.Item      // pods that it holds no longer and whose end it has not told
	slow   bool            // they take their time
	engine *pb.Engine
	ended  chan struct{} // of the link's loop
}

// RunPods connects an edge that runs pods. It lasts until the test ends.
func RunPods(t testing.TB, e *Edge) *PodEdge {
	t.Helper()
	p := &PodEdge{edge: e, t: t, items: map[string]*pb.Item{}, runs: map[string]*models.Pod{}, broken: map[string]bool{}, engine: &pb.Engine{Ready: true, Version: "test 1"}}
	p.Connect()
	t.Cleanup(p.Disconnect)
	return p
}

// Connect opens the link anew.
func (p *PodEdge) Connect() {
	p.t.Helper()
	hello := p.edge.Hello("E" + time.Now().Format("150405.000000000"))
	hello.Capabilities = append(edgelink.Capabilities(), edgelink.CapabilityWorkloads)
	link := p.edge.Connect(p.t, hello)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link, p.ended = link, make(chan struct{})
	go p.run(link, p.ended) // ends with the link
}

// Disconnect cuts the link. The pods go on.
func (p *PodEdge) Disconnect() {
	p.mu.Lock()
	link, ended := p.link, p.ended
	p.mu.Unlock()
	link.Drop()
	<-ended
}

func (p *PodEdge) run(link *Link, ended chan struct{}) {
	defer close(ended)
	p.tell(true)
	for {
		select {
		case f := <-link.frames:
			if s := f.GetSync(); s != nil {
				p.sync(s)
				p.tell(false)
			}
		case <-link.ended:
			return
		}
	}
}

func (p *PodEdge) sync(s *pb.Sync) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := func(kind, name string) string { return kind + "/" + name }
	drop := func(n string) {
		if i := p.items[n]; i != nil && i.Kind == "Pod" {
			p.ends = append(p.ends, i)
		}
		delete(p.items, n)
	}
	for _, r := range s.Removed {
		drop(name(r.Kind, r.Name))
	}
	for _, i := range s.Items {
		if was := p.items[name(i.Kind, i.Name)]; was != nil && was.Uid != i.Uid {
			drop(name(i.Kind, i.Name))
		}
		p.items[name(i.Kind, i.Name)] = i
	}
	if s.Full {
		keep := map[string]bool{}
		for _, k := range s.Keep {
			keep[name(k.Kind, k.Name)] = true
		}
		for n := range p.items {
			if !keep[n] {
				drop(n)
			}
		}
	}
}

// tell makes true what can be and says how it is.
func (p *PodEdge) tell(full bool) {
	p.mu.Lock()
	m := &pb.PodStatuses{Full: full, Engine: p.engine}
	for _, key := range slices.Sorted(maps.Keys(p.items)) {
		i := p.items[key]
		if i.Kind != "Pod" {
			continue
		}
		pod := new(models.Pod)
		if err := json.Unmarshal(i.Json, pod); err != nil {
			p.t.Errorf("pod %s: %v", i.Name, err)
			continue
		}
		status := p.make(i.Uid, pod)
		text, err := json.Marshal(status)
		if err != nil {
			p.t.Errorf("pod %s: %v", i.Name, err)
		}
		m.Pods = append(m.Pods, &pb.PodState{Namespace: i.Namespace, Name: i.Name, Uid: i.Uid, Json: text})
	}
	for _, i := range p.ends {
		m.Pods = append(m.Pods, &pb.PodState{Namespace: i.Namespace, Name: i.Name, Uid: i.Uid, Gone: !p.slow, Json: []byte(`{"phase":"Pending","reason":"Terminating"}`)})
	}
	if !p.slow {
		p.ends = nil
	}
	link := p.link
	p.mu.Unlock()
	// An error ends the link, which the loop sees.
	_ = link.Send(context.Background(), &pb.Frame{Body: &pb.Frame_PodStatuses{PodStatuses: m}})
}

func (p *PodEdge) make(uid string, pod *models.Pod) models.PodStatus {
	image := func(pod *models.Pod) string { return pod.Spec.Containers[0].Image }
	now := time.Now().UTC().Truncate(time.Second)
	runs := p.runs[uid]
	if runs == nil || !p.broken[image(pod)] {
		p.runs[uid], runs = pod, pod
	}
	s := models.PodStatus{Phase: models.PodRunning, Ready: !p.broken[image(runs)], Revision: runs.Revision(), StartTime: &now,
		ContainerStatuses: []models.ContainerStatus{{Name: runs.Spec.Containers[0].Name, Image: image(runs), ImageID: "sha256:" + image(runs), Started: true}}}
	c := &s.ContainerStatuses[0]
	c.Ready, c.State.Running = s.Ready, &models.ContainerRunning{StartedAt: now}
	const reason, message = models.ReasonCrashLoopBackOff, "back-off 10s: the container ended with exit code 1"
	if !s.Ready {
		s.Reason, s.Message, s.RestartCount, c.RestartCount = reason, message, 3, 3
		c.State = models.ContainerState{Waiting: &models.ContainerWaiting{Reason: reason, Message: message}}
		c.LastState = models.ContainerState{Terminated: &models.ContainerTerminated{ExitCode: 1, Reason: models.ReasonError, FinishedAt: &now}}
	}
	if runs.Revision() != pod.Revision() {
		s.Update = &models.PodUpdate{Revision: pod.Revision(), Failed: true, Reason: reason, Message: message, StartTime: &now}
	}
	return s
}

// Break says of an image that it does not come up, or does.
func (p *PodEdge) Break(image string, broken bool) {
	p.mu.Lock()
	p.broken[image] = broken
	p.mu.Unlock()
	p.tell(false)
}

// EndSlowly says that pods which go take their time from now on, or have had it.
func (p *PodEdge) EndSlowly(slow bool) {
	p.mu.Lock()
	p.slow = slow
	p.mu.Unlock()
	p.tell(false)
}

// SetEngine says how the edge's container engine is.
func (p *PodEdge) SetEngine(e *pb.Engine) {
	p.mu.Lock()
	p.engine = e
	p.mu.Unlock()
	p.tell(false)
}

// Holds returns what the edge holds: kinds and names.
func (p *PodEdge) Holds() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.items))
}

// Runs returns the images of what runs of the pods that the edge holds, by pod.
func (p *PodEdge) Runs() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]string{}
	for _, i := range p.items {
		if pod := p.runs[i.Uid]; i.Kind == "Pod" && pod != nil {
			out[i.Name] = pod.Spec.Containers[0].Image
		}
	}
	return out
}
