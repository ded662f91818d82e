package workloads

import (
	"cmp"
	"fmt"

	"github.com/whimbrel-edge/whimbrel/devicehub/placement"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Events takes note of what happened. Raise must not block.
type Events interface {
	Raise(o models.Occurrence)
}

func occurrence(o models.Object, severity models.Severity, reason, message string) models.Occurrence {
	key := models.KeyOf(o)
	return models.Occurrence{Object: models.ObjectReference{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name, UID: o.Meta().UID},
		Severity: severity, Reason: reason, Message: message, Source: "workloads"}
}

// quiet are the reasons of pods that are on their way, as all are for a while.
var quiet = map[string]bool{"": true, models.ReasonContainerCreating: true, models.ReasonPodScheduled: true, models.ReasonCompleted: true}

// podHappened tells what has happened between two reports of a pod. Of one whose
// report before is not known, since the hub has started, only what is wrong is
// told.
func podHappened(p *models.Pod, before *models.PodStatus, after models.PodStatus) (out []models.Occurrence) {
	say := func(severity models.Severity, reason, message string) {
		out = append(out, occurrence(p, severity, reason, message))
	}
	known := before != nil
	if !known {
		before = &models.PodStatus{}
	}
	for _, c := range after.ContainerStatuses {
		if t := c.LastState.Terminated; t != nil && known && c.RestartCount > restarts(before, c.Name) {
			times, why := "once", ""
			if t.Message != "" {
				why = ": " + t.Message
			}
			if c.RestartCount > 1 {
				times = fmt.Sprintf("%d times", c.RestartCount)
			}
			say(models.SeverityWarning, cmp.Or(t.Reason, models.ReasonError),
				fmt.Sprintf("container %s ended with code %d on node %s%s; it has been started again %s", c.Name, t.ExitCode, p.Spec.NodeName, why, times))
		}
	}
	if was, is := pulling(before), pulling(&after); is != was {
		if was != "" && known && (quiet[after.Reason] || after.Ready) {
			say(models.SeverityNormal, "Pulled", fmt.Sprintf("image %s is on node %s", was, p.Spec.NodeName))
		}
		if is != "" {
			say(models.SeverityNormal, "Pulling", fmt.Sprintf("image %s is being fetched to node %s", is, p.Spec.NodeName))
		}
	}
	if !after.Ready && !quiet[after.Reason] && (before.Reason != after.Reason || before.Ready) {
		say(models.SeverityWarning, after.Reason, because("", after.Message))
	}
	if u := after.Update; u != nil && !quiet[u.Reason] && (before.Update == nil || before.Update.Reason != u.Reason || before.Update.Revision != u.Revision) {
		say(models.SeverityWarning, u.Reason, fmt.Sprintf("revision %d: %s", u.Revision, because("", u.Message)))
	}
	if after.Ready && known && (!before.Ready || before.Revision != after.Revision) {
		say(models.SeverityNormal, "Ready", fmt.Sprintf("revision %d is ready on node %s", after.Revision, p.Spec.NodeName))
	}
	return out
}

// pulling is the image that is on its way to a pod, or to its next revision.
func pulling(s *models.PodStatus) string {
	image, _ := models.PullingImage(s.Message)
	if image == "" && s.Update != nil {
		image, _ = models.PullingImage(s.Update.Message)
	}
	return image
}

func restarts(s *models.PodStatus, container string) int32 {
	for _, c := range s.ContainerStatuses {
		if c.Name == container {
			return c.RestartCount
		}
	}
	return 0
}

// placeHappened tells that a pod finds no place, for a reason that is new.
func placeHappened(p *models.Pod, before, after placement.Place) (out []models.Occurrence) {
	if after.Message != "" && before != after {
		out = append(out, occurrence(p, models.SeverityWarning, after.Reason, after.Message))
	}
	return out
}

// rolloutHappened tells what has become of an app's rollout. What was the
// case when the hub started is no news.
func rolloutHappened(d models.Workload, before, after models.Standing) (out []models.Occurrence) {
	was, is := conditionOf(before.Conditions, "Progressing"), conditionOf(after.Conditions, "Progressing")
	if is != nil && (was == nil || was.Reason != is.Reason || before.Revision != after.Revision) {
		severity := models.SeverityNormal
		if is.Status == "False" {
			severity = models.SeverityWarning
		}
		if was != nil || is.Reason != models.ReasonRolloutComplete {
			out = append(out, occurrence(d, severity, is.Reason, is.Message))
		}
	}
	was, is = conditionOf(before.Conditions, "Available"), conditionOf(after.Conditions, "Available")
	if was != nil && was.Status == "True" && is != nil && is.Status == "False" {
		out = append(out, occurrence(d, models.SeverityWarning, is.Reason, is.Message))
	}
	return out
}

// engineHappened tells that a node's container engine has gone or is back.
func engineHappened(node, uid string, before, after *pb.Engine) (out []models.Occurrence) {
	o := models.Occurrence{Object: models.ObjectReference{Kind: "Node", Name: node, UID: uid}, Source: "workloads"}
	switch {
	case !after.Ready && (before == nil || before.Ready):
		o.Severity, o.Reason, o.Message = models.SeverityWarning, cmp.Or(after.Reason, models.ReasonEngineUnavailable), cmp.Or(after.Message, "the container engine does not answer")
	case after.Ready && before != nil && !before.Ready:
		o.Severity, o.Reason, o.Message = models.SeverityNormal, "EngineReady", "the container engine answers again"
	default:
		return nil
	}
	return []models.Occurrence{o}
}
