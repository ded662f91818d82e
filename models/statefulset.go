package models

import "fmt"

// StatefulSet is an app whose pods have an order, and each a node of its own for as
// long as that exists: what it keeps there in a hostPath volume, it finds again.
type StatefulSet struct {
	TypeMeta
	Metadata ObjectMeta         `json:"metadata"`
	Spec     StatefulSetSpec    `json:"spec"`
	Status   *StatefulSetStatus `json:"status,omitempty"`
}

// StatefulSetSpec is what a user says of it.
type StatefulSetSpec struct {
	Replicas             *int32            `json:"replicas,omitempty"` // default 1
	Selector             *PodSelector      `json:"selector,omitempty"` // default: the template's labels
	ServiceName          string            `json:"serviceName,omitempty"`
	Template             PodTemplate       `json:"template"`
	PodManagementPolicy  string            `json:"podManagementPolicy,omitempty"` // OrderedReady (default) or Parallel
	UpdateStrategy       StatefulSetUpdate `json:"updateStrategy,omitzero"`
	MinReadySeconds      int32             `json:"minReadySeconds,omitempty"`      // a pod counts as available when it has been ready for so long
	RevisionHistoryLimit *int32            `json:"revisionHistoryLimit,omitempty"` // default 10
	// VolumeClaimTemplates are here to be refused with what to write instead.
	VolumeClaimTemplates []any `json:"volumeClaimTemplates,omitempty"`
}

// The policies by which pods of a StatefulSet are made.
const (
	OrderedReady = "OrderedReady" // each when those before it are available
	Parallel     = "Parallel"     // all at once
)

// StatefulSetUpdate is how its pods come to a new template.
type StatefulSetUpdate struct {
	Type          string              `json:"type,omitempty"` // RollingUpdate (default) or OnDelete
	RollingUpdate *StatefulSetRolling `json:"rollingUpdate,omitempty"`
}

// StatefulSetRolling is of RollingUpdate.
type StatefulSetRolling struct {
	Partition int32 `json:"partition,omitempty"` // pods with smaller numbers stay at their revision
}

// StatefulSetStatus is how far a StatefulSet is what its spec says, in Kubernetes'
// words.
type StatefulSetStatus struct {
	ObservedGeneration int64       `json:"observedGeneration"`
	Revision           int64       `json:"revision"` // of the template; counts its changes
	Replicas           int32       `json:"replicas"` // pods that there are
	ReadyReplicas      int32       `json:"readyReplicas"`
	AvailableReplicas  int32       `json:"availableReplicas"`
	CurrentReplicas    int32       `json:"currentReplicas"` // pods of currentRevision
	UpdatedReplicas    int32       `json:"updatedReplicas"` // run the current template
	CurrentRevision    string      `json:"currentRevision,omitempty"`
	UpdateRevision     string      `json:"updateRevision,omitempty"`
	Conditions         []Condition `json:"conditions,omitempty"` // Available, Progressing
}

// AnnotationCurrent is on the ControllerRevision that all pods of a StatefulSet were
// at last: a pod that stays behind (partition, OnDelete) is made anew of it.
const AnnotationCurrent = "whimbrel/current"

// AnnotationHomes is on the newest ControllerRevision of a StatefulSet: the node of
// each pod that there has been, as a JSON list by their numbers.
const AnnotationHomes = "whimbrel/homes"

// LabelPodName is on each pod of a StatefulSet, as in Kubernetes: its name, so that a
// Service can choose one.
const LabelPodName = "statefulset.kubernetes.io/pod-name"

// Type implements Object.
func (s *StatefulSet) Type() *TypeMeta { return &s.TypeMeta }

// Meta implements Object.
func (s *StatefulSet) Meta() *ObjectMeta { return &s.Metadata }

// ClearStatus implements Object.
func (s *StatefulSet) ClearStatus() { s.Status = nil }

// PodTemplate implements Workload.
func (s *StatefulSet) PodTemplate() *PodTemplate { return &s.Spec.Template }

// Default implements Object.
func (s *StatefulSet) Default() {
	if s.Spec.Replicas == nil {
		s.Spec.Replicas = new(int32(1))
	}
	defaultSelector(&s.Spec.Selector, &s.Spec.Template)
	s.Spec.Template.Spec.Default()
	setDefault(&s.Spec.PodManagementPolicy, OrderedReady)
	setDefault(&s.Spec.UpdateStrategy.Type, RollingUpdate)
	if s.Spec.RevisionHistoryLimit == nil {
		s.Spec.RevisionHistoryLimit = new(int32(RevisionsKept))
	}
}

// maxStatefulName leaves room for a pod's number in a label's value.
const maxStatefulName = 63 - len("-1000")

// Validate implements Object.
func (s *StatefulSet) Validate() []FieldError {
	errs := validateApp(s, s.Spec.Selector, maxStatefulName)
	if n := *s.Spec.Replicas; n < 0 || n > MaxReplicas {
		errs = append(errs, FieldError{"/spec/replicas", fmt.Sprintf("must be 0 to %d, got %d", MaxReplicas, n)})
	}
	errs = append(errs, validateTimes(s.Spec.MinReadySeconds, s.Spec.RevisionHistoryLimit)...)
	p := problems{"/spec", &errs}
	if s.Spec.ServiceName != "" {
		p.in("serviceName").check(CheckLabelName(s.Spec.ServiceName))
	}
	if len(s.Spec.VolumeClaimTemplates) > 0 {
		p.in("volumeClaimTemplates").say("is not supported: there are no volume claims; use a hostPath volume in the template: each pod stays on its node and finds its data again")
	}
	if s.Spec.Template.Spec.NearDevice != "" {
		p.in("template", "spec", "nearDevice").say("cannot be of a StatefulSet, whose pods stay where their data is; use nodeName, or a Deployment, which follows the device")
	}
	p.in("podManagementPolicy").oneOf(s.Spec.PodManagementPolicy, OrderedReady, Parallel)
	p = p.in("updateStrategy")
	p.in("type").oneOf(s.Spec.UpdateStrategy.Type, RollingUpdate, OnDelete)
	if r := s.Spec.UpdateStrategy.RollingUpdate; r != nil {
		if s.Spec.UpdateStrategy.Type != RollingUpdate {
			p.in("rollingUpdate").say("is of type %s only", RollingUpdate)
		}
		p.in("rollingUpdate", "partition").within(int64(r.Partition), 0, 1000000)
	}
	return errs
}

// Standing implements Workload.
func (s *StatefulSet) Standing() Standing {
	out := Standing{Wanted: replicas(s.Spec.Replicas)}
	if st := s.Status; st != nil {
		out.ObservedGeneration, out.Revision, out.Conditions = st.ObservedGeneration, st.Revision, st.Conditions
		out.Made, out.Updated, out.Ready, out.Available = st.Replicas, st.UpdatedReplicas, st.ReadyReplicas, st.AvailableReplicas
		out.Current, out.CurrentRevision, out.UpdateRevision = st.CurrentReplicas, st.CurrentRevision, st.UpdateRevision
	}
	return out
}

// SetStanding implements Workload.
func (s *StatefulSet) SetStanding(in Standing) {
	s.Status = &StatefulSetStatus{ObservedGeneration: in.ObservedGeneration, Revision: in.Revision, Replicas: in.Made, ReadyReplicas: in.Ready, AvailableReplicas: in.Available,
		CurrentReplicas: in.Current, UpdatedReplicas: in.Updated, CurrentRevision: in.CurrentRevision, UpdateRevision: in.UpdateRevision, Conditions: in.Conditions}
}
