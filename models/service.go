package models

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
)

// Service names a port of the pods that its selector chooses, so that it can be
// reached through the hub and through the edge.
type Service struct {
	TypeMeta
	Metadata ObjectMeta      `json:"metadata"`
	Spec     ServiceSpec     `json:"spec"`
	Status   json.RawMessage `json:"status,omitempty"`
}

// ServiceSpec is Kubernetes' own in a subset.
type ServiceSpec struct {
	Type     string            `json:"type,omitempty"` // ClusterIP, the only one there is
	Selector map[string]string `json:"selector"`
	Ports    []ServicePort     `json:"ports"`
}

// ServicePort is one port. What is asked of Port goes to TargetPort of a pod.
type ServicePort struct {
	Name       string  `json:"name,omitempty"` // required where there are several
	Port       int32   `json:"port"`
	TargetPort PortRef `json:"targetPort,omitzero"` // default: the same as port
	Protocol   string  `json:"protocol,omitempty"`  // TCP, the only one there is
}

// Type implements Object.
func (s *Service) Type() *TypeMeta { return &s.TypeMeta }

// Meta implements Object.
func (s *Service) Meta() *ObjectMeta { return &s.Metadata }

// ClearStatus implements Object.
func (s *Service) ClearStatus() { s.Status = nil }

// Default implements Object.
func (s *Service) Default() {
	setDefault(&s.Spec.Type, "ClusterIP")
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		setDefault(&p.Protocol, "TCP")
		setDefault(&p.TargetPort, PortRef{Number: p.Port})
	}
}

// Validate implements Object.
func (s *Service) Validate() (errs []FieldError) {
	errs = validateMeta(&s.Metadata, true, CheckLabelName)
	p := problems{"/spec", &errs}
	p.in("type").oneOf(s.Spec.Type, "ClusterIP")
	if len(s.Spec.Selector) == 0 {
		p.in("selector").say("is required: labels of the pods")
	}
	errs = append(errs, validateLabels("/spec/selector", s.Spec.Selector)...)
	if n := len(s.Spec.Ports); n == 0 || n > maxPodList {
		p.in("ports").say("must be 1 to %d, are %d", maxPodList, n)
	}
	names, numbers := map[string]bool{}, map[string]bool{}
	for i, port := range s.Spec.Ports {
		p := p.in("ports", i)
		if port.Name != "" || len(s.Spec.Ports) > 1 {
			p.in("name").name(port.Name, checkPortName, names)
		}
		p.in("port").within(int64(port.Port), 1, 65535)
		if port.Port != 0 {
			p.in("port").name(fmt.Sprint(port.Port), func(string) string { return "" }, numbers)
		}
		if port.TargetPort.Name != "" {
			p.in("targetPort").check(checkPortName(port.TargetPort.Name))
		} else if !port.TargetPort.IsZero() {
			p.in("targetPort").within(int64(port.TargetPort.Number), 1, 65535)
		}
		p.in("protocol").oneOf(port.Protocol, "TCP")
	}
	return errs
}

func checkIP(s string) string {
	if _, err := netip.ParseAddr(s); err != nil {
		return "must be an IP address, got " + quoteShort(s)
	}
	return ""
}

// ConfigMap is configuration that apps get as files or variables.
type ConfigMap struct {
	TypeMeta
	Metadata   ObjectMeta        `json:"metadata"`
	Data       map[string]string `json:"data,omitempty"`
	BinaryData map[string][]byte `json:"binaryData,omitempty"` // base64
}

// Type implements Object.
func (c *ConfigMap) Type() *TypeMeta { return &c.TypeMeta }

// Meta implements Object.
func (c *ConfigMap) Meta() *ObjectMeta { return &c.Metadata }

// ClearStatus implements Object.
func (c *ConfigMap) ClearStatus() {}

// Default implements Object.
func (c *ConfigMap) Default() {}

// Validate implements Object.
func (c *ConfigMap) Validate() (errs []FieldError) {
	errs = validateMeta(&c.Metadata, true, CheckSubdomain)
	p := problems{"", &errs}
	for _, k := range sortedKeys(c.Data) {
		p.in("data", k).check(checkConfigKey(k))
	}
	for _, k := range sortedKeys(c.BinaryData) {
		p.in("binaryData", k).check(checkConfigKey(k))
		if _, twice := c.Data[k]; twice {
			p.in("binaryData", k).say("is in data too")
		}
	}
	return errs
}

var configKey = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)

// checkConfigKey checks a key that becomes a file's name.
func checkConfigKey(k string) string {
	if !configKey.MatchString(k) || k == "." || k == ".." {
		return "key must be at most 253 letters, digits, '-', '_' and '.', and not '.' or '..', got " + quoteShort(k)
	}
	return ""
}
