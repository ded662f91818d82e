package models

import (
	"fmt"
	"strconv"
)

// APIVersionApps is the API version of apps, as in Kubernetes.
const APIVersionApps = "apps/v1"

// Bounds of one Deployment. Its pods and revisions each hold a copy of the
// template.
const (
	MaxReplicas      = 1000
	MaxTemplateBytes = 128 << 10
)

// Deployment is an app: so many alike instances, each a Pod with a number.
type Deployment struct {
	TypeMeta
	Metadata ObjectMeta        `json:"metadata"`
	Spec     DeploymentSpec    `json:"spec"`
	Status   *DeploymentStatus `json:"status,omitempty"`
}

// DeploymentSpec is what a user says of an app.
type DeploymentSpec struct {
	Replicas *int32       `json:"replicas,omitempty"` // default 1
	Selector *PodSelector `json:"selector,omitempty"` // default: the template's labels
	Template PodTemplate  `json:"template"`
}

// PodSelector chooses pods by their labels.
type PodSelector struct {
	MatchLabels map[string]string `json:"matchLabels,omitempty"`
}

// PodTemplate is what the pods of an app are made from.
type PodTemplate struct {
	Metadata TemplateMeta `json:"metadata,omitzero"`
	Spec     PodSpec      `json:"spec"`
}

// TemplateMeta is what pods get from their template.
type TemplateMeta struct {
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// DeploymentStatus is how far an app is what its spec says.
type DeploymentStatus struct {
	ObservedGeneration int64       `json:"observedGeneration"`
	Revision           int64       `json:"revision"` // of the template; counts its changes
	Replicas           int32       `json:"replicas"`
	UpdatedReplicas    int32       `json:"updatedReplicas"` // run the current template
	ReadyReplicas      int32       `json:"readyReplicas"`
	AvailableReplicas  int32       `json:"availableReplicas"`
	Conditions         []Condition `json:"conditions,omitempty"` // Available, Progressing
}

// Reasons of a Deployment's conditions Available and Progressing.
const (
	ReasonAllPodsReady     = "AllPodsReady"
	ReasonPodsNotReady     = "PodsNotReady"
	ReasonRolloutComplete  = "RolloutComplete"
	ReasonRollingOut       = "RollingOut"
	ReasonWaitingForNodes  = "WaitingForNodes"          // only pods of nodes that are not connected are left
	ReasonRolloutFailed    = "RolloutFailed"            // a pod does not come up; it goes on when it does
	ReasonDeadlineExceeded = "ProgressDeadlineExceeded" // as in Kubernetes
)

// Type implements Object.
func (d *Deployment) Type() *TypeMeta { return &d.TypeMeta }

// Meta implements Object.
func (d *Deployment) Meta() *ObjectMeta { return &d.Metadata }

// ClearStatus implements Object.
func (d *Deployment) ClearStatus() { d.Status = nil }

// Default implements Object.
func (d *Deployment) Default() {
	if d.Spec.Replicas == nil {
		d.Spec.Replicas = new(int32(1))
	}
	defaultSelector(&d.Spec.Selector, &d.Spec.Template)
	d.Spec.Template.Spec.Default()
}

// Validate implements Object.
func (d *Deployment) Validate() []FieldError {
	errs := validateApp(d, d.Spec.Selector, maxAppName)
	if n := *d.Spec.Replicas; n < 0 || n > MaxReplicas {
		errs = append(errs, FieldError{"/spec/replicas", fmt.Sprintf("must be 0 to %d, got %d", MaxReplicas, n)})
	}
	return errs
}

// maxAppName leaves room for a pod's number.
const maxAppName = 253 - len("-1000")

// PodName is the name of a Deployment's or StatefulSet's pod with a number.
func PodName(app string, slot int) string { return app + "-" + strconv.Itoa(slot) }

// ControllerRevision is one revision of an app's template. The hub keeps
// the last ones, so that they can be gone back to.
type ControllerRevision struct {
	TypeMeta
	Metadata ObjectMeta   `json:"metadata"`
	Revision int64        `json:"revision"`
	Data     RevisionData `json:"data"`
}

// RevisionData is what of an app a revision is of.
type RevisionData struct {
	Spec RevisionSpec `json:"spec"`
}

// RevisionSpec holds the template.
type RevisionSpec struct {
	Template PodTemplate `json:"template"`
}

// RevisionsKept is how many revisions before the current one are kept, where
// revisionHistoryLimit does not say otherwise.
const RevisionsKept = 10

// Type implements Object.
func (r *ControllerRevision) Type() *TypeMeta { return &r.TypeMeta }

// Meta implements Object.
func (r *ControllerRevision) Meta() *ObjectMeta { return &r.Metadata }

// ClearStatus implements Object.
func (r *ControllerRevision) ClearStatus() {}

// Default implements Object.
func (r *ControllerRevision) Default() { r.Data.Spec.Template.Spec.Default() }

// Validate implements Object.
func (r *ControllerRevision) Validate() []FieldError {
	return append(validateMeta(&r.Metadata, true, CheckSubdomain), r.Data.Spec.Template.Spec.validate("/data/spec/template/spec")...)
}

// OwnedBy reports whether an object was made for another one.
func OwnedBy(o, owner Object) bool {
	for _, ref := range o.Meta().OwnerReferences {
		if ref.UID == owner.Meta().UID {
			return true
		}
	}
	return false
}
