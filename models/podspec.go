package models

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
)

// PodSpec says what runs, where, and what it may touch. It is Kubernetes' own in
// a subset, with nearDevice, access and logs added.
type PodSpec struct {
	NodeName     string            `json:"nodeName,omitempty"`     // this node and no other
	NodeSelector map[string]string `json:"nodeSelector,omitempty"` // nodes that have these labels
	NearDevice   string            `json:"nearDevice,omitempty"`   // the node that serves this device
	Containers   []Container       `json:"containers"`
	Volumes      []Volume          `json:"volumes,omitempty"`
	// RestartPolicy is Always (default), OnFailure or Never.
	RestartPolicy                 string        `json:"restartPolicy,omitempty"`
	TerminationGracePeriodSeconds *int64        `json:"terminationGracePeriodSeconds,omitempty"` // default 30
	HostNetwork                   bool          `json:"hostNetwork,omitempty"`
	Access                        []AccessGrant `json:"access,omitempty"` // of the edge's MQTT and REST; nothing else is allowed
	Logs                          *LogLimits    `json:"logs,omitempty"`
}

// The restart policies.
const (
	RestartAlways    = "Always"
	RestartOnFailure = "OnFailure"
	RestartNever     = "Never"
)

// Container is one process with a file system of its own. The containers of a
// pod share the network.
type Container struct {
	Name            string               `json:"name"`
	Image           string               `json:"image"`
	Command         []string             `json:"command,omitempty"` // instead of the image's entrypoint
	Args            []string             `json:"args,omitempty"`    // instead of the image's command
	Env             []EnvVar             `json:"env,omitempty"`     // wins over envFrom
	EnvFrom         []EnvFrom            `json:"envFrom,omitempty"` // later ones win
	Ports           []ContainerPort      `json:"ports,omitempty"`
	Resources       ResourceRequirements `json:"resources,omitzero"`
	VolumeMounts    []VolumeMount        `json:"volumeMounts,omitempty"`
	LivenessProbe   *Probe               `json:"livenessProbe,omitempty"`  // failed: the container is started anew
	ReadinessProbe  *Probe               `json:"readinessProbe,omitempty"` // failed: the pod is not ready
	StartupProbe    *Probe               `json:"startupProbe,omitempty"`   // the others wait for it
	ImagePullPolicy string               `json:"imagePullPolicy,omitempty"`
}

// The image pull policies. The default is IfNotPresent for every tag: what runs
// must run again when nothing can be pulled.
const (
	PullAlways       = "Always"
	PullIfNotPresent = "IfNotPresent"
	PullNever        = "Never"
)

// EnvVar is an environment variable. Values are taken as they are: $(NAME) is not
// replaced.
type EnvVar struct {
	Name      string     `json:"name"`
	Value     string     `json:"value,omitempty"`
	ValueFrom *EnvSource `json:"valueFrom,omitempty"`
}

// EnvSource is one key of a ConfigMap or Secret of the pod's namespace.
type EnvSource struct {
	ConfigMapKeyRef *KeyRef `json:"configMapKeyRef,omitempty"`
	SecretKeyRef    *KeyRef `json:"secretKeyRef,omitempty"`
}

// KeyRef names a key. Where it is not optional and not there, the container waits.
type KeyRef struct {
	Name     string `json:"name"`
	Key      string `json:"key"`
	Optional bool   `json:"optional,omitempty"`
}

// EnvFrom makes every key of a ConfigMap or Secret a variable. Keys that are no
// names of variables are left out.
type EnvFrom struct {
	Prefix       string     `json:"prefix,omitempty"`
	ConfigMapRef *ObjectRef `json:"configMapRef,omitempty"`
	SecretRef    *ObjectRef `json:"secretRef,omitempty"`
}

// ObjectRef names an object of the same namespace.
type ObjectRef struct {
	Name     string `json:"name"`
	Optional bool   `json:"optional,omitempty"`
}

// ContainerPort is a port that a container listens on. Only with a hostPort can
// it be reached from outside the node.
type ContainerPort struct {
	Name          string `json:"name,omitempty"`
	ContainerPort int32  `json:"containerPort"`
	HostPort      int32  `json:"hostPort,omitempty"`
	HostIP        string `json:"hostIP,omitempty"`
	Protocol      string `json:"protocol,omitempty"` // TCP (default) or UDP
}

// ResourceRequirements bounds a container. Limits are kept by the engine;
// requests are its share where there is not enough for all.
type ResourceRequirements struct {
	Limits   Resources `json:"limits,omitzero"`
	Requests Resources `json:"requests,omitzero"`
}

// Resources are amounts: cpu in cores, memory in bytes.
type Resources struct {
	CPU    Quantity `json:"cpu,omitzero"`
	Memory Quantity `json:"memory,omitzero"`
}

// VolumeMount shows a volume in a container.
type VolumeMount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
	SubPath   string `json:"subPath,omitempty"` // this part of the volume
	ReadOnly  bool   `json:"readOnly,omitempty"`
}

// Probe asks a container how it is: by exactly one of httpGet, tcpSocket and exec.
type Probe struct {
	HTTPGet             *HTTPGet   `json:"httpGet,omitempty"`
	TCPSocket           *TCPSocket `json:"tcpSocket,omitempty"`
	Exec                *Exec      `json:"exec,omitempty"`
	InitialDelaySeconds int32      `json:"initialDelaySeconds,omitempty"`
	TimeoutSeconds      int32      `json:"timeoutSeconds,omitempty"`   // default 1
	PeriodSeconds       int32      `json:"periodSeconds,omitempty"`    // default 10
	SuccessThreshold    int32      `json:"successThreshold,omitempty"` // default 1
	FailureThreshold    int32      `json:"failureThreshold,omitempty"` // default 3
}

// HTTPGet succeeds with a status from 200 to 399.
type HTTPGet struct {
	Path        string       `json:"path,omitempty"` // default "/"
	Port        PortRef      `json:"port"`
	Scheme      string       `json:"scheme,omitempty"` // HTTP (default) or HTTPS, whose certificate is not checked
	HTTPHeaders []HTTPHeader `json:"httpHeaders,omitempty"`
}

// HTTPHeader is a header of a probe's request.
type HTTPHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// TCPSocket succeeds when a connection can be made.
type TCPSocket struct {
	Port PortRef `json:"port"`
}

// Exec succeeds when the command ends with exit code 0.
type Exec struct {
	Command []string `json:"command"`
}

// PortRef is a port's number, or the name of one of the container's ports.
type PortRef struct {
	Number int32
	Name   string
}

// IsZero reports whether no port is given.
func (p PortRef) IsZero() bool { return p == PortRef{} }

func (p PortRef) String() string {
	if p.Name != "" {
		return p.Name
	}
	return strconv.Itoa(int(p.Number))
}

// MarshalJSON implements json.Marshaler.
func (p PortRef) MarshalJSON() ([]byte, error) {
	if p.Name != "" {
		return json.Marshal(p.Name)
	}
	return json.Marshal(p.Number)
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *PortRef) UnmarshalJSON(text []byte) error {
	*p = PortRef{}
	if len(text) > 0 && text[0] == '"' {
		return json.Unmarshal(text, &p.Name)
	}
	if json.Unmarshal(text, &p.Number) != nil {
		return errors.New("must be a port's number or name")
	}
	return nil
}

// Volume is a place for files: exactly one of hostPath, emptyDir, configMap and
// secret.
type Volume struct {
	Name      string        `json:"name"`
	HostPath  *HostPath     `json:"hostPath,omitempty"`
	EmptyDir  *EmptyDir     `json:"emptyDir,omitempty"`
	ConfigMap *ConfigVolume `json:"configMap,omitempty"`
	Secret    *SecretVolume `json:"secret,omitempty"`
}

// HostPath is a file, folder or device file of the node, such as /dev/ttyUSB0.
// A device file is given to the container as a device.
type HostPath struct {
	Path string `json:"path"`
	Type string `json:"type,omitempty"` // "", Directory, DirectoryOrCreate, File, FileOrCreate, Socket, CharDevice, BlockDevice
}

// EmptyDir begins empty with its pod and is gone with it. It outlives the
// containers.
type EmptyDir struct {
	Medium    string   `json:"medium,omitempty"`   // "" or Memory
	SizeLimit Quantity `json:"sizeLimit,omitzero"` // with Memory only
}

// ConfigVolume shows a ConfigMap's keys as files, updated when they change.
type ConfigVolume struct {
	Name string `json:"name"`
	Projection
}

// SecretVolume shows a Secret's keys as files, updated when they change.
type SecretVolume struct {
	SecretName string `json:"secretName"`
	Projection
}

// Projection says which keys become which files.
type Projection struct {
	Items       []KeyToPath `json:"items,omitempty"`       // default: every key as a file of its name
	DefaultMode *int32      `json:"defaultMode,omitempty"` // permissions, default 0644
	Optional    bool        `json:"optional,omitempty"`    // it need not be there
}

// KeyToPath is one file.
type KeyToPath struct {
	Key  string `json:"key"`
	Path string `json:"path"`
	Mode *int32 `json:"mode,omitempty"`
}

// LogLimits bounds what the node keeps of each container's output.
type LogLimits struct {
	MaxSize  Quantity `json:"maxSize,omitzero"`   // of a file, default 10Mi
	MaxFiles int32    `json:"maxFiles,omitempty"` // default 3
}

// AccessGrant allows one thing: verbs on properties of devices, on topics, or on
// routes.
type AccessGrant struct {
	Devices    DeviceChoice `json:"devices,omitzero"`
	Properties []string     `json:"properties,omitempty"` // default: all
	Topics     []string     `json:"topics,omitempty"`     // MQTT topic filters of the apps' own
	Routes     []string     `json:"routes,omitempty"`     // of the pod's namespace, whose source is REST
	Verbs      []string     `json:"verbs"`
}

// The verbs of access: of devices, of topics, and of routes the third.
const (
	VerbRead      = "read"
	VerbWrite     = "write"
	VerbPublish   = "publish"
	VerbSubscribe = "subscribe"
)

// DeviceChoice is devices of the pod's namespace: a list of names, or a label
// selector in one string.
type DeviceChoice struct {
	Names    []string
	Selector string
	compiled Selector
}

// IsZero reports whether nothing is given.
func (c DeviceChoice) IsZero() bool { return len(c.Names) == 0 && c.Selector == "" }

// Matches reports whether a device is chosen.
func (c DeviceChoice) Matches(name string, labels map[string]string) bool {
	if slices.Contains(c.Names, name) {
		return true
	}
	if c.Selector == "" {
		return false
	}
	s := c.compiled
	if s.Empty() { // not made by UnmarshalJSON
		var err error
		if s, err = ParseSelector(c.Selector); err != nil {
			return false
		}
	}
	return s.Matches(labels)
}

// MarshalJSON implements json.Marshaler.
func (c DeviceChoice) MarshalJSON() ([]byte, error) {
	if c.Selector != "" {
		return json.Marshal(c.Selector)
	}
	return json.Marshal(c.Names)
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *DeviceChoice) UnmarshalJSON(text []byte) (err error) {
	*c = DeviceChoice{}
	if len(text) > 0 && text[0] == '[' {
		if json.Unmarshal(text, &c.Names) == nil {
			return nil
		}
	} else if json.Unmarshal(text, &c.Selector) == nil {
		if c.compiled, err = ParseSelector(c.Selector); err == nil && c.Selector != "" && c.compiled.Empty() {
			err = errors.New("must not be blank")
		}
		return err
	}
	return errors.New("must be a label selector, or a list of devices' names")
}

// Default fills in what a user may leave out.
func (s *PodSpec) Default() {
	setDefault(&s.RestartPolicy, RestartAlways)
	if s.TerminationGracePeriodSeconds == nil {
		s.TerminationGracePeriodSeconds = new(int64(30))
	}
	for i := range s.Containers {
		c := &s.Containers[i]
		setDefault(&c.ImagePullPolicy, PullIfNotPresent)
		for j := range c.Ports {
			setDefault(&c.Ports[j].Protocol, "TCP")
		}
		for _, p := range []*Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if p == nil {
				continue
			}
			setDefault(&p.TimeoutSeconds, 1)
			setDefault(&p.PeriodSeconds, 10)
			setDefault(&p.SuccessThreshold, 1)
			setDefault(&p.FailureThreshold, 3)
			if p.HTTPGet != nil {
				setDefault(&p.HTTPGet.Path, "/")
				setDefault(&p.HTTPGet.Scheme, "HTTP")
			}
		}
	}
	if s.Logs == nil {
		s.Logs = &LogLimits{}
	}
	setDefault(&s.Logs.MaxFiles, 3)
	if s.Logs.MaxSize.IsZero() {
		s.Logs.MaxSize = Quantity{"10Mi", 10 << 20 * 1000}
	}
	for i := range s.Volumes {
		for _, p := range s.Volumes[i].projections() {
			if p.DefaultMode == nil {
				p.DefaultMode = new(int32(0o644))
			}
		}
	}
}

func setDefault[T comparable](field *T, v T) {
	var zero T
	if *field == zero {
		*field = v
	}
}

func (v *Volume) projections() (out []*Projection) {
	if v.ConfigMap != nil {
		out = append(out, &v.ConfigMap.Projection)
	}
	if v.Secret != nil {
		out = append(out, &v.Secret.Projection)
	}
	return out
}

// NeedsHost lists the fields that reach out of the container into the node: its
// files, devices and network. They are for those who administer the nodes.
func (s *PodSpec) NeedsHost() (pointers []string) {
	if s.HostNetwork {
		pointers = append(pointers, "/hostNetwork")
	}
	for i, v := range s.Volumes {
		if v.HostPath != nil {
			pointers = append(pointers, "/volumes/"+strconv.Itoa(i)+"/hostPath")
		}
	}
	return pointers
}

// References returns the names of the ConfigMaps and Secrets that the pod uses.
func (s *PodSpec) References() (configMaps, secrets map[string]bool) {
	configMaps, secrets = map[string]bool{}, map[string]bool{}
	for _, v := range s.Volumes {
		if v.ConfigMap != nil {
			configMaps[v.ConfigMap.Name] = true
		}
		if v.Secret != nil {
			secrets[v.Secret.SecretName] = true
		}
	}
	for _, c := range s.Containers {
		for _, e := range c.EnvFrom {
			if e.ConfigMapRef != nil {
				configMaps[e.ConfigMapRef.Name] = true
			}
			if e.SecretRef != nil {
				secrets[e.SecretRef.Name] = true
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				configMaps[e.ValueFrom.ConfigMapKeyRef.Name] = true
			}
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				secrets[e.ValueFrom.SecretKeyRef.Name] = true
			}
		}
	}
	return configMaps, secrets
}
