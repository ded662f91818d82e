package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

func podStatus(p *models.Pod) models.PodStatus {
	if p.Status == nil {
		return models.PodStatus{Phase: models.PodUnknown}
	}
	return *p.Status
}

func conditionOf(conditions []models.Condition, typ string) models.Condition {
	i := slices.IndexFunc(conditions, func(c models.Condition) bool { return c.Type == typ })
	if i < 0 {
		return models.Condition{Type: typ, Status: "Unknown"}
	}
	return conditions[i]
}

// rollout is how an app is doing, in a word: what its rollout does while there is
// one, then whether it is available.
func rollout(s models.Standing) string {
	progressing := conditionOf(s.Conditions, "Progressing")
	if len(s.Conditions) == 0 {
		return "New"
	}
	if progressing.Reason != models.ReasonRolloutComplete {
		return progressing.Reason
	}
	if conditionOf(s.Conditions, "Available").Status == "True" {
		return "Available"
	}
	return "NotReady"
}

// podState is a pod's state in a word, as kubectl shows it: why it does not run,
// or its phase.
func podState(s models.PodStatus) string {
	if s.Ready || s.Reason == "" {
		return string(s.Phase)
	}
	return s.Reason
}

func containersReady(p *models.Pod) string {
	s := podStatus(p)
	ready := 0
	for _, c := range s.ContainerStatuses {
		if c.Ready && s.Phase != models.PodUnknown {
			ready++
		}
	}
	return fmt.Sprintf("%d/%d", ready, len(p.Spec.Containers))
}

func revision(n int64) string {
	if n == 0 {
		return nothing
	}
	return fmt.Sprint(n)
}

func images(s models.PodSpec) string {
	var out []string
	for _, c := range s.Containers {
		out = append(out, c.Image)
	}
	return strings.Join(out, ",")
}

// runs is the images that a pod runs, or is to run while nothing is told of it.
func runs(p *models.Pod) string {
	var out []string
	for _, c := range podStatus(p).ContainerStatuses {
		out = append(out, c.Image)
	}
	if len(out) == 0 {
		return images(p.Spec)
	}
	return strings.Join(out, ",")
}

func owner(o models.Object) string {
	if refs := o.Meta().OwnerReferences; len(refs) > 0 {
		return strings.ToLower(refs[0].Kind) + "/" + refs[0].Name
	}
	return nothing
}

func servicePorts(s *models.Service) string {
	var out []string
	for _, p := range s.Spec.Ports {
		text := fmt.Sprint(p.Port)
		if p.Name != "" {
			text = p.Name + ":" + text
		}
		if target := p.TargetPort.String(); target != fmt.Sprint(p.Port) {
			text += "→" + target
		}
		out = append(out, text)
	}
	return strings.Join(out, ",")
}

// encoded writes a value as YAML under a title.
func (d *description) encoded(title string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.ToLower(title), err)
	}
	return d.yaml(title, text)
}

func (d *description) app(ctx context.Context, h hub, o models.Workload) error {
	s := o.Standing()
	switch o := o.(type) {
	case *models.DaemonSet:
		d.field("Nodes", "%d wanted, %d have a pod, %d ready, %d available, %d up to date", s.Wanted, s.Made, s.Ready, s.Available, s.Updated)
		if s.Misplaced > 0 {
			d.field("Misscheduled", "%d", s.Misplaced)
		}
		d.field("Nodes with", "%s", labels(o.Spec.Template.Spec.NodeSelector))
		strategy := o.Spec.UpdateStrategy.Type
		if r := o.Spec.UpdateStrategy.RollingUpdate; r != nil {
			text, err := json.Marshal(r.MaxUnavailable)
			if err != nil {
				return fmt.Errorf("updateStrategy: %w", err)
			}
			strategy += fmt.Sprintf(", %s at a time", strings.Trim(string(text), `"`))
		}
		d.field("Update", "%s", strategy)
	case *models.StatefulSet:
		d.field("Replicas", "%d wanted, %d there, %d ready, %d available, %d up to date", s.Wanted, s.Made, s.Ready, s.Available, s.Updated)
		d.optional("Service", o.Spec.ServiceName)
		d.field("Made", "%s", o.Spec.PodManagementPolicy)
		strategy := o.Spec.UpdateStrategy.Type
		if r := o.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition > 0 {
			strategy += fmt.Sprintf(", from pod %d on", r.Partition)
		}
		d.field("Update", "%s", strategy)
		if s.CurrentRevision != s.UpdateRevision {
			d.field("Revisions", "from %s (%d pods) to %s", s.CurrentRevision, s.Current, s.UpdateRevision)
		}
	default:
		d.field("Replicas", "%d wanted, %d ready, %d up to date", s.Wanted, s.Ready, s.Updated)
	}
	d.field("Revision", "%s", revision(s.Revision))
	if err := d.encoded("Template", o.PodTemplate()); err != nil {
		return err
	}
	d.conditions(s.Conditions)
	return d.pods(ctx, h, selection{kind: "Pod", namespace: o.Meta().Namespace}, func(p *models.Pod) bool { return models.OwnedBy(p, o) })
}

// pods writes the pods among those that o chooses that belong, and why those that
// are not well are not.
func (d *description) pods(ctx context.Context, h hub, o selection, belongs func(*models.Pod) bool) error {
	l, err := h.List(ctx, o)
	if models.KindOf(err) == models.KindForbidden {
		return nil // objects without a namespace may be seen by who may not see these
	}
	if err != nil {
		return err
	}
	t := &table{titles: []string{"NAME!", "READY", "STATUS", "RESTARTS", "NODE", "REV", "MESSAGE"}}
	for _, object := range l.Items {
		p, ok := object.(*models.Pod)
		if !ok || !belongs(p) {
			continue
		}
		name := p.Metadata.Name
		if o.namespace == "" {
			name = p.Metadata.Namespace + "/" + name
		}
		s := podStatus(p)
		message := s.Message
		if u := s.Update; u != nil {
			message = fmt.Sprintf("revision %d: %s", u.Revision, because(u.Reason, u.Message))
		}
		t.row(name, containersReady(p), podState(s), fmt.Sprint(s.RestartCount), orNothing(p.Spec.NodeName), revision(s.Revision), orNothing(message))
	}
	if len(t.rows) == 0 {
		d.field("Pods", "none")
		return nil
	}
	d.table("Pods", t)
	return nil
}

func because(reason, message string) string {
	if reason == "" || message == "" {
		return reason + message
	}
	return reason + ": " + message
}

func (d *description) pod(o *models.Pod) error {
	s := podStatus(o)
	d.field("Of", "%s, revision %d", owner(o), o.Revision())
	d.field("Node", "%s", orNothing(o.Spec.NodeName))
	d.field("Status", "%s", s.Phase)
	d.optional("Reason", s.Reason)
	d.optional("Message", s.Message)
	if s.Revision != 0 && s.Revision != o.Revision() {
		d.field("Runs", "revision %d", s.Revision)
	}
	d.optional("IP", s.PodIP)
	d.optional("Started", ago(s.StartTime, d.now))
	d.optional("Told", ago(s.ReportedAt, d.now))
	d.containers("Containers", s.ContainerStatuses)
	if u := s.Update; u != nil {
		d.field("Update", "to revision %d: %s", u.Revision, cmp.Or(because(u.Reason, u.Message), "under way"))
		d.containers("Its containers", u.ContainerStatuses)
	}
	d.conditions(s.Conditions)
	return d.encoded("Spec", o.Spec)
}

func (d *description) containers(title string, statuses []models.ContainerStatus) {
	if len(statuses) == 0 {
		return
	}
	t := &table{titles: []string{"NAME!", "READY", "STATE", "RESTARTS", "BEFORE", "IMAGE!", "DIGEST"}}
	for _, c := range statuses {
		ready := "no"
		if c.Ready {
			ready = "yes"
		}
		t.row(c.Name, ready, containerState(c.State, d.now), fmt.Sprint(c.RestartCount), containerState(c.LastState, d.now), c.Image, orNothing(c.ImageID))
	}
	d.table(title, t)
}

func containerState(s models.ContainerState, now time.Time) string {
	switch {
	case s.Running != nil:
		return "running for " + since(&s.Running.StartedAt, now)
	case s.Waiting != nil:
		return "waiting: " + cmp.Or(because(s.Waiting.Reason, s.Waiting.Message), "for nothing that it says")
	case s.Terminated != nil:
		e := s.Terminated
		text := fmt.Sprintf("ended with code %d", e.ExitCode)
		if e.Signal != 0 {
			text = fmt.Sprintf("ended by signal %d", e.Signal)
		}
		if why := because(e.Reason, e.Message); why != "" {
			text += " (" + why + ")"
		}
		if e.FinishedAt != nil {
			text += " " + ago(e.FinishedAt, now)
		}
		return text
	}
	return nothing
}

func (d *description) service(ctx context.Context, h hub, o *models.Service) error {
	d.field("Selector", "%s", labels(o.Spec.Selector))
	d.field("Ports", "%s", servicePorts(o))
	return d.pods(ctx, h, selection{kind: "Pod", namespace: o.Metadata.Namespace}, func(p *models.Pod) bool {
		for k, v := range o.Spec.Selector {
			if p.Metadata.Labels[k] != v {
				return false
			}
		}
		return true
	})
}

func (d *description) configMap(o *models.ConfigMap) error {
	for _, k := range slices.Sorted(maps.Keys(o.BinaryData)) {
		d.field(k, "%d bytes", len(o.BinaryData[k]))
	}
	if len(o.Data) == 0 {
		return nil
	}
	return d.encoded("Data", o.Data)
}
