package models

import (
	"strconv"
	"strings"
	"time"
)

// Pod is one instance of an app on one node. Only the hub makes pods: of a Deployment
// or StatefulSet with the numbers 0, 1, 2 … at the end of their names, of a DaemonSet
// with the node's name.
type Pod struct {
	TypeMeta
	Metadata ObjectMeta `json:"metadata"`
	Spec     PodSpec    `json:"spec"`
	Status   *PodStatus `json:"status,omitempty"`
}

// AnnotationRevision is on every pod: the revision of the app's template
// that its spec is of.
const AnnotationRevision = "whimbrel/revision"

// AnnotationRestartedAt is on a template, and its pods, whose containers are to be
// made anew although nothing else has changed: another value is another revision.
const AnnotationRestartedAt = "whimbrel/restartedAt"

// Revision returns which revision of its app's template the pod's spec is
// of, 0 when it does not say.
func (p *Pod) Revision() int64 {
	n, _ := strconv.ParseInt(p.Metadata.Annotations[AnnotationRevision], 10, 64)
	return n
}

// PodPhase is Kubernetes' summary of a pod.
type PodPhase string

// The phases.
const (
	PodPending   PodPhase = "Pending"   // not placed, or its containers have never all run
	PodRunning   PodPhase = "Running"   // at least one container runs or is to be started again
	PodSucceeded PodPhase = "Succeeded" // all containers ended well and are not to be started again
	PodFailed    PodPhase = "Failed"    // all containers ended, one of them badly, and are not to be started again
	PodUnknown   PodPhase = "Unknown"   // its node is not connected and has told nothing of it
)

// Reasons of pods, of their containers and of their conditions.
const (
	ReasonUnschedulable        = "Unschedulable"        // no node fits; the message says why for each
	ReasonNotSupportedByNode   = "NotSupportedByNode"   // the node's edge is of a release that cannot run apps
	ReasonNodeLost             = "NodeLost"             // what is shown is the last that the node told
	ReasonTerminating          = "Terminating"          // it is being ended
	ReasonPodScheduled         = "Scheduled"            // the node has not told of it yet
	ReasonContainerCreating    = "ContainerCreating"    // on its way
	ReasonErrImagePull         = "ErrImagePull"         // the image is nowhere to be had
	ReasonImagePullBackOff     = "ImagePullBackOff"     // and will be tried again
	ReasonErrImageNeverPull    = "ErrImageNeverPull"    // it is not here, and must not be asked for
	ReasonCreateContainerError = "CreateContainerError" // the engine cannot make the container
	ReasonRunContainerError    = "RunContainerError"    // or cannot start it
	ReasonCrashLoopBackOff     = "CrashLoopBackOff"     // it ends again and again; the next start waits
	ReasonOOMKilled            = "OOMKilled"
	ReasonError                = "Error"                      // ended with an exit code that is not 0
	ReasonCompleted            = "Completed"                  // ended with exit code 0
	ReasonUnhealthy            = "Unhealthy"                  // a probe fails
	ReasonEngineUnavailable    = "EngineUnavailable"          // the node's container engine does not answer
	ReasonConfigNotFound       = "CreateContainerConfigError" // a ConfigMap or Secret, or a key of one, is not there
)

// PullingMessage begins the message of a pod, or of one of its containers, whose
// image is on its way: "pulling NAME", and then maybe ": 34 of 88 MB".
const PullingMessage = "pulling "

// PullingImage returns the image that a message says is on its way, and how far,
// "" for none.
func PullingImage(message string) (image, how string) {
	rest, ok := strings.CutPrefix(message, PullingMessage)
	if !ok {
		return "", ""
	}
	image, _, _ = strings.Cut(rest, " ")
	how = strings.TrimSpace(strings.TrimPrefix(rest, image))
	return strings.TrimSuffix(image, ":"), how
}

// PodStatus is what a pod's node tells of it. Ready, Revision, RestartCount and
// ContainerStatuses are of what serves now; while a new revision is brought up
// beside it, or in its place, Update tells of that.
type PodStatus struct {
	Phase             PodPhase          `json:"phase"`
	Reason            string            `json:"reason,omitempty"`
	Message           string            `json:"message,omitempty"`
	Ready             bool              `json:"ready"`
	Revision          int64             `json:"revision,omitempty"` // of the template, see Pod.Revision
	Node              string            `json:"node,omitempty"`
	PodIP             string            `json:"podIP,omitempty"`
	StartTime         *time.Time        `json:"startTime,omitempty"`
	RestartCount      int32             `json:"restartCount"` // of all containers
	ContainerStatuses []ContainerStatus `json:"containerStatuses,omitempty"`
	Conditions        []Condition       `json:"conditions,omitempty"` // PodScheduled, Ready
	Update            *PodUpdate        `json:"update,omitempty"`
	ReportedAt        *time.Time        `json:"reportedAt,omitempty"` // by the hub's clock
}

// PodUpdate is how far a newer revision is that is to take a pod's place.
type PodUpdate struct {
	Revision          int64             `json:"revision"`
	Failed            bool              `json:"failed,omitempty"` // it does not come up; what served before it still does, where it could be kept
	Reason            string            `json:"reason,omitempty"`
	Message           string            `json:"message,omitempty"`
	StartTime         *time.Time        `json:"startTime,omitempty"`
	ContainerStatuses []ContainerStatus `json:"containerStatuses,omitempty"`
}

// ContainerStatus is how one container of a pod is doing.
type ContainerStatus struct {
	Name         string         `json:"name"`
	Image        string         `json:"image"`
	ImageID      string         `json:"imageID,omitempty"`     // NAME@DIGEST, as registries call the image; the engine's id for one that none has
	ContainerID  string         `json:"containerID,omitempty"` // the engine's
	Ready        bool           `json:"ready"`
	Started      bool           `json:"started"` // its startup probe has succeeded, or it has none and runs
	RestartCount int32          `json:"restartCount"`
	State        ContainerState `json:"state,omitzero"`
	LastState    ContainerState `json:"lastState,omitzero"` // how its life before this one ended
}

// ContainerState is one of its fields.
type ContainerState struct {
	Waiting    *ContainerWaiting    `json:"waiting,omitempty"`
	Running    *ContainerRunning    `json:"running,omitempty"`
	Terminated *ContainerTerminated `json:"terminated,omitempty"`
}

// ContainerWaiting says what a container waits for.
type ContainerWaiting struct {
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// ContainerRunning says since when a container runs.
type ContainerRunning struct {
	StartedAt time.Time `json:"startedAt"`
}

// ContainerTerminated says how a container ended.
type ContainerTerminated struct {
	ExitCode   int32      `json:"exitCode"`
	Signal     int32      `json:"signal,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	Message    string     `json:"message,omitempty"`
	StartedAt  *time.Time `json:"startedAt,omitempty"`
	FinishedAt *time.Time `json:"finishedAt,omitempty"`
}

// ExecRecord is what the audit tells of a command in a pod. There are two: before
// it starts, and after its end. Only the later one says how it ended.
type ExecRecord struct {
	ID        string   `json:"id"` // the same in both
	Node      string   `json:"node"`
	Container string   `json:"container,omitempty"` // left out for the only one
	Command   []string `json:"command,omitempty"`
	Stdin     bool     `json:"stdin,omitempty"`
	TTY       bool     `json:"tty,omitempty"`
	ExitCode  *int     `json:"exitCode,omitempty"`
	Error     string   `json:"error,omitempty"` // why there is no exit code
}

// Type implements Object.
func (p *Pod) Type() *TypeMeta { return &p.TypeMeta }

// Meta implements Object.
func (p *Pod) Meta() *ObjectMeta { return &p.Metadata }

// ClearStatus implements Object.
func (p *Pod) ClearStatus() { p.Status = nil }

// Default implements Object.
func (p *Pod) Default() { p.Spec.Default() }

// Validate implements Object.
func (p *Pod) Validate() []FieldError {
	return append(validateMeta(&p.Metadata, true, CheckSubdomain), p.Spec.validate("/spec")...)
}
