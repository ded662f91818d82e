package models

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
)

// APIVersionApps is the API version of Deployments, as in Kubernetes.
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
	if d.Spec.Selector == nil {
		d.Spec.Selector = &PodSelector{MatchLabels: maps.Clone(d.Spec.Template.Metadata.Labels)}
	}
	d.Spec.Template.Spec.Default()
}

// Validate implements Object.
func (d *Deployment) Validate() []FieldError {
	errs := validateMeta(&d.Metadata, true, CheckSubdomain)
	if len(d.Metadata.Name) > maxAppName {
		errs = append(errs, FieldError{"/metadata/name", fmt.Sprintf("must be at most %d characters: its pods' names are longer", maxAppName)})
	}
	if n := *d.Spec.Replicas; n < 0 || n > MaxReplicas {
		errs = append(errs, FieldError{"/spec/replicas", fmt.Sprintf("must be 0 to %d, got %d", MaxReplicas, n)})
	}
	errs = append(errs, validateLabels("/spec/selector/matchLabels", d.Spec.Selector.MatchLabels)...)
	template := d.Spec.Template.Metadata
	errs = append(errs, validateLabels("/spec/template/metadata/labels", template.Labels)...)
	errs = append(errs, validateAnnotations("/spec/template/metadata/annotations", template.Annotations)...)
	for _, k := range sortedKeys(d.Spec.Selector.MatchLabels) {
		if v, has := template.Labels[k]; !has || v != d.Spec.Selector.MatchLabels[k] {
			errs = append(errs, FieldError{"/spec/template/metadata/labels", fmt.Sprintf("must have %s=%s, as /spec/selector asks", k, d.Spec.Selector.MatchLabels[k])})
		}
	}
	if text, err := json.Marshal(d.Spec.Template); err != nil || len(text) > MaxTemplateBytes {
		errs = append(errs, FieldError{"/spec/template", fmt.Sprintf("has %d bytes, at most %d are allowed: each pod holds a copy; put files into a ConfigMap", len(text), MaxTemplateBytes)})
	}
	return append(errs, d.Spec.Template.Spec.validate("/spec/template/spec")...)
}

// maxAppName leaves room for a pod's number.
const maxAppName = 253 - len("-1000")

// PodName is the name of a Deployment's pod with a number.
func PodName(deployment string, slot int) string { return deployment + "-" + strconv.Itoa(slot) }

// ControllerRevision is one revision of a Deployment's template. The hub keeps
// the last ones, so that they can be gone back to.
type ControllerRevision struct {
	TypeMeta
	Metadata ObjectMeta   `json:"metadata"`
	Revision int64        `json:"revision"`
	Data     RevisionData `json:"data"`
}

// RevisionData is what of a Deployment a revision is of.
type RevisionData struct {
	Spec RevisionSpec `json:"spec"`
}

// RevisionSpec holds the template.
type RevisionSpec struct {
	Template PodTemplate `json:"template"`
}

// RevisionsKept is how many revisions before the current one are kept.
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
