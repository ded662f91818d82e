package models

// DaemonSet is an app with a pod on every node that its template's nodeSelector
// chooses.
type DaemonSet struct {
	TypeMeta
	Metadata ObjectMeta       `json:"metadata"`
	Spec     DaemonSetSpec    `json:"spec"`
	Status   *DaemonSetStatus `json:"status,omitempty"`
}

// DaemonSetSpec is what a user says of it.
type DaemonSetSpec struct {
	Selector             *PodSelector    `json:"selector,omitempty"` // default: the template's labels
	Template             PodTemplate     `json:"template"`
	UpdateStrategy       DaemonSetUpdate `json:"updateStrategy,omitzero"`
	MinReadySeconds      int32           `json:"minReadySeconds,omitempty"`      // a pod counts as available when it has been ready for so long
	RevisionHistoryLimit *int32          `json:"revisionHistoryLimit,omitempty"` // default 10
}

// DaemonSetUpdate is how its pods come to a new template.
type DaemonSetUpdate struct {
	Type          string            `json:"type,omitempty"` // RollingUpdate (default) or OnDelete
	RollingUpdate *DaemonSetRolling `json:"rollingUpdate,omitempty"`
}

// DaemonSetRolling is of RollingUpdate.
type DaemonSetRolling struct {
	MaxUnavailable *PodCount `json:"maxUnavailable,omitempty"` // so many at a time; default 1
}

// DaemonSetStatus is how far a DaemonSet is what its spec says, in Kubernetes' words.
type DaemonSetStatus struct {
	ObservedGeneration     int64       `json:"observedGeneration"`
	Revision               int64       `json:"revision"`               // of the template; counts its changes
	DesiredNumberScheduled int32       `json:"desiredNumberScheduled"` // nodes that are to have a pod
	CurrentNumberScheduled int32       `json:"currentNumberScheduled"` // and have one
	UpdatedNumberScheduled int32       `json:"updatedNumberScheduled"` // that runs the current template
	NumberReady            int32       `json:"numberReady"`
	NumberAvailable        int32       `json:"numberAvailable"`
	NumberUnavailable      int32       `json:"numberUnavailable"`
	NumberMisscheduled     int32       `json:"numberMisscheduled"`   // pods on nodes that are to have none
	Conditions             []Condition `json:"conditions,omitempty"` // Available, Progressing
}

// Type implements Object.
func (d *DaemonSet) Type() *TypeMeta { return &d.TypeMeta }

// Meta implements Object.
func (d *DaemonSet) Meta() *ObjectMeta { return &d.Metadata }

// ClearStatus implements Object.
func (d *DaemonSet) ClearStatus() { d.Status = nil }

// PodTemplate implements Workload.
func (d *DaemonSet) PodTemplate() *PodTemplate { return &d.Spec.Template }

// Default implements Object.
func (d *DaemonSet) Default() {
	defaultSelector(&d.Spec.Selector, &d.Spec.Template)
	d.Spec.Template.Spec.Default()
	if d.Spec.RevisionHistoryLimit == nil {
		d.Spec.RevisionHistoryLimit = new(int32(RevisionsKept))
	}
	u := &d.Spec.UpdateStrategy
	setDefault(&u.Type, RollingUpdate)
	if u.Type != RollingUpdate {
		return
	}
	if u.RollingUpdate == nil {
		u.RollingUpdate = &DaemonSetRolling{}
	}
	if u.RollingUpdate.MaxUnavailable == nil {
		u.RollingUpdate.MaxUnavailable = &PodCount{Number: 1}
	}
}

// Validate implements Object.
func (d *DaemonSet) Validate() []FieldError {
	errs := validateApp(d, d.Spec.Selector, maxAppName)
	errs = append(errs, validateTimes(d.Spec.MinReadySeconds, d.Spec.RevisionHistoryLimit)...)
	p := problems{"/spec", &errs}
	if d.Spec.Template.Spec.NodeName != "" {
		p.in("template", "spec", "nodeName").say("cannot be of a DaemonSet, which has a pod on every node; choose nodes by nodeSelector, or use a Deployment")
	}
	if d.Spec.Template.Spec.NearDevice != "" {
		p.in("template", "spec", "nearDevice").say("cannot be of a DaemonSet, which has a pod on every node; use a Deployment")
	}
	u := &d.Spec.UpdateStrategy
	p = p.in("updateStrategy")
	p.in("type").oneOf(u.Type, RollingUpdate, OnDelete)
	switch r := u.RollingUpdate; {
	case r == nil:
	case u.Type != RollingUpdate:
		p.in("rollingUpdate").say("is of type %s only", RollingUpdate)
	case r.MaxUnavailable.Percent:
		if n := r.MaxUnavailable.Number; n < 1 || n > 100 {
			p.in("rollingUpdate", "maxUnavailable").say("must be 1%% to 100%%, got %d%%", n)
		}
	default:
		if n := r.MaxUnavailable.Number; n < 1 || n > 1000000 {
			p.in("rollingUpdate", "maxUnavailable").say("must be 1 to 1000000, or 1%% to 100%%, got %d", n)
		}
	}
	return errs
}

// Standing implements Workload.
func (d *DaemonSet) Standing() (s Standing) {
	if st := d.Status; st != nil {
		s = Standing{ObservedGeneration: st.ObservedGeneration, Revision: st.Revision, Wanted: st.DesiredNumberScheduled, Made: st.CurrentNumberScheduled,
			Updated: st.UpdatedNumberScheduled, Ready: st.NumberReady, Available: st.NumberAvailable, Misplaced: st.NumberMisscheduled, Conditions: st.Conditions}
	}
	return s
}

// SetStanding implements Workload.
func (d *DaemonSet) SetStanding(s Standing) {
	d.Status = &DaemonSetStatus{ObservedGeneration: s.ObservedGeneration, Revision: s.Revision, DesiredNumberScheduled: s.Wanted, CurrentNumberScheduled: s.Made,
		UpdatedNumberScheduled: s.Updated, NumberReady: s.Ready, NumberAvailable: s.Available, NumberUnavailable: s.Wanted - s.Available, NumberMisscheduled: s.Misplaced, Conditions: s.Conditions}
}
