package workload

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// maxMessage bounds one message of a status: what an engine or a probe says may
// be long.
const maxMessage = 1024

// serving is the generation that a pod's status is of: the newest that has served,
// else the one that is wanted. Under the lock.
func (s *slot) serving() *generation {
	wanted := s.find(s.current)
	if wanted != nil && wanted.Served && wanted.GivenUp == "" {
		return wanted
	}
	for i := len(s.gens) - 1; i >= 0; i-- {
		if s.gens[i].Served {
			return s.gens[i]
		}
	}
	return wanted
}

// status says how the pod is doing. ok is false when nothing of it is left, or
// nothing is known yet.
func (s *slot) status() (status models.PodStatus, uid string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	g := s.serving()
	if g == nil && s.wanted == nil {
		if len(s.gens) == 0 {
			return status, s.uid, false
		}
		return models.PodStatus{Phase: models.PodPending, Reason: models.ReasonTerminating, Message: "its containers are being stopped"}, s.uid, true
	}
	status.Node = s.m.cfg.Node
	if g == nil { // never had an engine
		status.Phase, status.Revision = models.PodPending, s.wanted.Revision()
		status.Reason, status.Message = models.ReasonContainerCreating, ""
		for _, c := range s.wanted.Spec.Containers {
			status.ContainerStatuses = append(status.ContainerStatuses, models.ContainerStatus{Name: c.Name, Image: c.Image})
		}
	} else {
		s.describe(g, &status, now)
	}
	if down := s.m.engineProblem(); s.away || s.current == "" && s.wanted != nil {
		if down.message == "" {
			down = problem{models.ReasonContainerCreating, "the container engine is being asked"}
		}
		status.Ready = false
		status.Reason, status.Message = down.reason, down.message
		for i := range status.ContainerStatuses {
			c := &status.ContainerStatuses[i]
			c.Ready = false
			c.State = models.ContainerState{Waiting: &models.ContainerWaiting{Reason: down.reason}}
		}
		if status.Phase == models.PodRunning {
			status.Phase = models.PodPending
		}
	} else if wanted := s.find(s.current); wanted != nil && wanted != g {
		status.Update = s.update(wanted, g, now)
	}
	if status.Ready != s.wasReady || s.turned.IsZero() {
		s.wasReady, s.turned = status.Ready, now.UTC()
	}
	status.Conditions = []models.Condition{condition("Ready", status.Ready, status.Reason, status.Message)}
	status.Conditions[0].LastTransitionTime = s.turned
	return status, s.uid, true
}

func condition(what string, is bool, reason, message string) models.Condition {
	c := models.Condition{Type: what, Status: "False", Reason: reason, Message: message}
	if is {
		c.Status, c.Reason, c.Message = "True", "", ""
	}
	return c
}

// describe fills in what is of the serving generation. Under the lock.
func (s *slot) describe(g *generation, status *models.PodStatus, now time.Time) {
	status.Revision = g.Pod.Revision()
	status.Ready = !g.readySince.IsZero()
	if !g.Created.IsZero() {
		status.StartTime = new(g.Created.UTC())
	}
	if !g.spec().HostNetwork {
		status.PodIP = g.lives[g.spec().Containers[0].Name].seen.IP
	}
	status.ContainerStatuses = s.containers(g, now)
	never, ended, bad := false, true, false
	for _, c := range status.ContainerStatuses {
		status.RestartCount += c.RestartCount
		t := c.State.Terminated
		ended = ended && t != nil && !again(g.spec().RestartPolicy, int(t.ExitCode))
		bad = bad || t != nil && t.ExitCode != 0
		never = never || c.State.Running == nil && t == nil && c.LastState.Terminated == nil
	}
	switch {
	case ended && bad:
		status.Phase = models.PodFailed
	case ended:
		status.Phase = models.PodSucceeded
	case never:
		status.Phase = models.PodPending
	default:
		status.Phase = models.PodRunning
	}
	why := s.worst(g, status.ContainerStatuses)
	status.Reason, status.Message = why.reason, why.message
	if g.GivenUp != "" {
		status.Message = strings.TrimSuffix(g.GivenUp+"; "+status.Message, "; ")
	}
}

// worst is the reason of a pod: that of the container that is worst off.
func (s *slot) worst(g *generation, list []models.ContainerStatus) problem {
	if g.missing.message != "" {
		return problem{g.missing.reason, cut(g.missing.message)}
	}
	for _, c := range list {
		if w := c.State.Waiting; w != nil {
			return problem{w.Reason, w.Message}
		}
	}
	for _, c := range list {
		if t := c.State.Terminated; t != nil && t.Reason != models.ReasonCompleted {
			return problem{t.Reason, fmt.Sprintf("container %s ended with exit code %d", c.Name, t.ExitCode)}
		}
	}
	for _, c := range list {
		if h := g.lives[c.Name].health; c.State.Running != nil && !h.ready && h.problem != "" {
			return problem{models.ReasonUnhealthy, cut(h.problem)}
		}
	}
	for _, c := range list {
		if t := c.State.Terminated; t != nil {
			return problem{t.Reason, ""}
		}
	}
	return problem{}
}

// containers describes a generation's containers. Under the lock.
func (s *slot) containers(g *generation, now time.Time) (out []models.ContainerStatus) {
	for _, c := range g.spec().Containers {
		l := g.lives[c.Name]
		st := models.ContainerStatus{Name: c.Name, Image: c.Image, ContainerID: l.seen.ID, RestartCount: g.Restarts[c.Name],
			ImageID: cmp.Or(l.imageID, s.m.digest(l.seen.ImageID), l.seen.ImageID)}
		last, hasLast := g.Last[c.Name]
		if hasLast {
			st.LastState.Terminated = &last
		}
		waiting := func(p problem) {
			st.State.Waiting = &models.ContainerWaiting{Reason: p.reason, Message: cut(p.message)}
		}
		switch seen := l.seen; {
		case seen.State == engine.Running:
			st.State.Running = &models.ContainerRunning{StartedAt: seen.StartedAt.UTC()}
			st.Ready, st.Started = l.health.ready, l.health.started
		case g.done(c.Name):
			st.State.Terminated, st.LastState = &last, models.ContainerState{}
		case seen.State == engine.Paused:
			waiting(problem{"Paused", "it was paused by somebody else"})
		case g.missing.message != "":
			waiting(g.missing)
		case l.problem.message != "":
			waiting(l.problem)
		case seen.ID == "" && l.imageNote.message != "":
			waiting(l.imageNote)
		case g.Suspended:
			waiting(problem{"Suspended", "it makes room for another revision"})
		case (seen.State == engine.Exited || seen.State == engine.Dead) && !again(g.spec().RestartPolicy, seen.ExitCode):
			ended := terminated(seen, problem{})
			st.State.Terminated = &ended
			st.LastState = models.ContainerState{}
		case now.Before(l.retryAt):
			message := "it ended"
			if hasLast {
				message = fmt.Sprintf("it ended with exit code %d", last.ExitCode)
				if last.Message != "" {
					message += ": " + last.Message
				}
			}
			waiting(problem{models.ReasonCrashLoopBackOff, fmt.Sprintf("%s; it is started again %s later", message, l.delay)})
		default:
			waiting(problem{models.ReasonContainerCreating, ""})
		}
		out = append(out, st)
	}
	return out
}

// update says how far the wanted generation is while another one serves. Under the lock.
func (s *slot) update(wanted, serving *generation, now time.Time) *models.PodUpdate {
	u := &models.PodUpdate{Revision: wanted.Pod.Revision(), ContainerStatuses: s.containers(wanted, now)}
	if !wanted.Created.IsZero() {
		u.StartTime = new(wanted.Created.UTC())
	}
	why := s.worst(wanted, u.ContainerStatuses)
	u.Reason, u.Message = why.reason, why.message
	kept := fmt.Sprintf("revision %d runs on", serving.Pod.Revision())
	for name, l := range wanted.lives {
		if l.failed > 0 || l.image == ImageFailed {
			u.Failed = true
		}
		if t, ok := wanted.Last[name]; ok && (u.Reason == "" || u.Reason == models.ReasonContainerCreating) && l.failed > 0 {
			u.Reason, u.Message = t.Reason, fmt.Sprintf("container %s ended with exit code %d", name, t.ExitCode)
		}
	}
	switch {
	case wanted.GivenUp != "":
		u.Failed = true
		if u.Reason == "" || u.Reason == models.ReasonContainerCreating {
			u.Reason = models.ReasonUnhealthy
			for _, t := range wanted.Last {
				u.Reason = t.Reason
			}
		}
		u.Message = cut(wanted.GivenUp)
		kept = fmt.Sprintf("revision %d was brought back", serving.Pod.Revision())
	case wanted.missing.message != "":
		u.Failed = true
	case !wanted.Created.IsZero() && now.Sub(wanted.Created) > s.m.times.deadline && wanted.readySince.IsZero():
		u.Failed = true
		if u.Message == "" {
			u.Reason, u.Message = models.ReasonUnhealthy, "it is not ready after "+s.m.times.deadline.String()
		}
	}
	if u.Failed {
		u.Message = strings.TrimPrefix(u.Message+"; "+kept, "; ")
	}
	return u
}

func cut(s string) string {
	if len(s) > maxMessage {
		return strings.ToValidUTF8(s[:maxMessage], "") + " …"
	}
	return s
}

// tell makes what the slot has to tell known to the link, if that has changed.
func (m *Manager) tell(s *slot) {
	status, uid, ok := s.status()
	state := &pb.PodState{Namespace: s.key.namespace, Name: s.key.name, Uid: uid, Gone: !ok}
	if ok {
		text, err := json.Marshal(status)
		if err == nil && len(text) > edgelink.MaxPodStatus { // of very many containers
			status.ContainerStatuses, status.Update = nil, nil
			text, err = json.Marshal(status)
		}
		if err != nil {
			m.cfg.Log.Error("a pod's status cannot be encoded", "pod", s.key, "error", err)
			return
		}
		state.Json = text
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.told[s.key]
	if before == nil && !ok || before != nil && before.Gone == state.Gone && before.Uid == state.Uid && string(before.Json) == string(state.Json) {
		return
	}
	m.told[s.key], m.news[s.key] = state, true
	notify(m.telling)
}

// Statuses returns what there is to tell the hub: everything, or what has changed
// since the call before. Nil when that is nothing.
func (m *Manager) Statuses(full bool) *pb.PodStatuses {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := &pb.PodStatuses{Full: full}
	for k, state := range m.told {
		if full && !state.Gone || m.news[k] {
			out.Pods = append(out.Pods, state)
		}
		if state.Gone {
			delete(m.told, k)
		}
	}
	clear(m.news)
	if full || m.engineNews {
		m.engineNews = false
		out.Engine = &pb.Engine{Ready: m.engineState.reason == "" && m.engineKnown, Version: m.engineVersion, Reason: m.engineState.reason, Message: m.engineState.message}
	}
	if !full && len(out.Pods) == 0 && out.Engine == nil {
		return nil
	}
	return out
}

// StatusesWake has something to read when Statuses has something to tell.
func (m *Manager) StatusesWake() <-chan struct{} { return m.telling }
