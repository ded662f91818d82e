package models

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"
	"strings"
)

// Workload is a kind of app: an object whose pods the hub makes from a template. Its
// implementations differ in which pods there are to be and in which order they change.
type Workload interface {
	Object
	// PodTemplate returns the object's own template, to read or change.
	PodTemplate() *PodTemplate
	// Standing returns how far the app is, as its status says; without a status
	// only what its spec says.
	Standing() Standing
	// SetStanding makes the status, in the kind's own words.
	SetStanding(Standing)
}

// WorkloadKinds are the kinds of apps. A name of a namespace is of one app only:
// their pods and revisions are called after them.
var WorkloadKinds = []string{"Deployment", "DaemonSet", "StatefulSet"}

// Standing is how far an app is what its spec says.
type Standing struct {
	ObservedGeneration int64
	Revision           int64 // of the template; counts its changes
	Wanted             int32 // pods that there are to be
	Made               int32 // pods that there are of them
	Updated            int32 // run the current template
	Ready              int32
	Available          int32 // have been ready for minReadySeconds
	Misplaced          int32 // pods that there are not to be
	Conditions         []Condition

	CurrentRevision, UpdateRevision string // of a StatefulSet: names of ControllerRevisions
	Current                         int32  // of a StatefulSet: pods of CurrentRevision
}

// WithStanding returns a workload with a status, which shares the rest with the one
// given.
func WithStanding(o Workload, s Standing) Workload {
	switch o := o.(type) {
	case *Deployment:
		shown := *o
		shown.SetStanding(s)
		return &shown
	case *DaemonSet:
		shown := *o
		shown.SetStanding(s)
		return &shown
	case *StatefulSet:
		shown := *o
		shown.SetStanding(s)
		return &shown
	}
	return o
}

// PodTemplate implements Workload.
func (d *Deployment) PodTemplate() *PodTemplate { return &d.Spec.Template }

// Standing implements Workload.
func (d *Deployment) Standing() Standing {
	s := Standing{Wanted: replicas(d.Spec.Replicas)}
	if st := d.Status; st != nil {
		s.ObservedGeneration, s.Revision, s.Conditions = st.ObservedGeneration, st.Revision, st.Conditions
		s.Made, s.Updated, s.Ready, s.Available = st.Replicas, st.UpdatedReplicas, st.ReadyReplicas, st.AvailableReplicas
	}
	return s
}

// SetStanding implements Workload.
func (d *Deployment) SetStanding(s Standing) {
	d.Status = &DeploymentStatus{ObservedGeneration: s.ObservedGeneration, Revision: s.Revision, Replicas: s.Wanted, UpdatedReplicas: s.Updated,
		ReadyReplicas: s.Ready, AvailableReplicas: s.Available, Conditions: s.Conditions}
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// validateApp checks what all apps have. longest bounds the name.
func validateApp(o Workload, selector *PodSelector, longest int) []FieldError {
	errs := validateMeta(o.Meta(), true, CheckSubdomain)
	if len(o.Meta().Name) > longest {
		errs = append(errs, FieldError{"/metadata/name", fmt.Sprintf("must be at most %d characters: its pods' names are longer", longest)})
	}
	errs = append(errs, validateLabels("/spec/selector/matchLabels", selector.MatchLabels)...)
	template := o.PodTemplate().Metadata
	errs = append(errs, validateLabels("/spec/template/metadata/labels", template.Labels)...)
	errs = append(errs, validateAnnotations("/spec/template/metadata/annotations", template.Annotations)...)
	for _, k := range sortedKeys(selector.MatchLabels) {
		if v, has := template.Labels[k]; !has || v != selector.MatchLabels[k] {
			errs = append(errs, FieldError{"/spec/template/metadata/labels", fmt.Sprintf("must have %s=%s, as /spec/selector asks", k, selector.MatchLabels[k])})
		}
	}
	if text, err := json.Marshal(o.PodTemplate()); err != nil || len(text) > MaxTemplateBytes {
		errs = append(errs, FieldError{"/spec/template", fmt.Sprintf("has %d bytes, at most %d are allowed: each pod holds a copy; put files into a ConfigMap", len(text), MaxTemplateBytes)})
	}
	return append(errs, o.PodTemplate().Spec.validate("/spec/template/spec")...)
}

func defaultSelector(s **PodSelector, t *PodTemplate) {
	if *s == nil {
		*s = &PodSelector{MatchLabels: maps.Clone(t.Metadata.Labels)}
	}
}

// The types of an updateStrategy.
const (
	RollingUpdate = "RollingUpdate"
	OnDelete      = "OnDelete" // a pod gets the new template when a user deletes it
)

// Bounds of what DaemonSets and StatefulSets have and Deployments do not.
const (
	MaxMinReadySeconds      = 3600
	MaxRevisionHistoryLimit = 100
)

// validateTimes checks the two numbers that DaemonSets and StatefulSets share.
func validateTimes(minReadySeconds int32, limit *int32) (errs []FieldError) {
	problems{"/spec/minReadySeconds", &errs}.within(int64(minReadySeconds), 0, MaxMinReadySeconds)
	problems{"/spec/revisionHistoryLimit", &errs}.within(int64(*limit), 0, MaxRevisionHistoryLimit)
	return errs
}

// PodCount is a number of pods, or a part of all of them such as "25%".
type PodCount struct {
	Number  int32
	Percent bool
}

// Of returns the number of pods of a whole, a part rounded up.
func (c PodCount) Of(all int) int {
	if c.Percent {
		return (all*int(c.Number) + 99) / 100
	}
	return int(c.Number)
}

// MarshalJSON implements json.Marshaler.
func (c PodCount) MarshalJSON() ([]byte, error) {
	if c.Percent {
		return json.Marshal(strconv.Itoa(int(c.Number)) + "%")
	}
	return json.Marshal(c.Number)
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *PodCount) UnmarshalJSON(text []byte) error {
	*c = PodCount{}
	var part string
	if json.Unmarshal(text, &part) == nil {
		number, is := strings.CutSuffix(part, "%")
		n, err := strconv.ParseUint(number, 10, 31)
		if is && err == nil {
			*c = PodCount{int32(n), true}
			return nil
		}
	} else if json.Unmarshal(text, &c.Number) == nil {
		return nil
	}
	return errors.New(`must be a number of pods, or a part of them such as "25%"`)
}

// maxDaemonPodName bounds the name of a DaemonSet's pod, as a label's value is: so
// it fits wherever names go.
const maxDaemonPodName = 63

// DaemonPodName is the name of a DaemonSet's pod on a node: both names, where that is
// not too long, else as much of them as there is room for and a sum of the whole.
func DaemonPodName(set, node string) string {
	if name := set + "-" + node; len(name) <= maxDaemonPodName {
		return name
	}
	return DaemonPodNameApart(set, node)
}

// DaemonPodNameApart is the name for where DaemonPodName is another app's pod's: it
// ends with a sum of the two names.
func DaemonPodNameApart(set, node string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(set + "/" + node)) // it never fails
	sum := fmt.Sprintf("-x%016x", h.Sum64()) // no number, as a Deployment's pods end with
	name := set + "-" + node
	return strings.TrimRight(name[:min(len(name), maxDaemonPodName-len(sum))], "-.") + sum
}
