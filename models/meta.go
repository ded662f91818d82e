package models

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// The API versions of objects.
const (
	APIVersion     = "whimbrel/v1" // Whimbrel's own kinds
	APIVersionCore = "v1"          // kinds that Kubernetes has too
)

// DefaultNamespace is the namespace of an object that names none.
const DefaultNamespace = "default"

// TypeMeta says what an object is.
type TypeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// ObjectMeta is what every object has. The hub owns UID, Generation,
// ResourceVersion, CreationTimestamp, DeletionTimestamp and OwnerReferences; what a user sends there is ignored.
type ObjectMeta struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace,omitempty"` // "" for cluster-scoped kinds
	Labels            map[string]string `json:"labels,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
	UID               string            `json:"uid,omitempty"`
	Generation        int64             `json:"generation,omitempty"`      // counts changes of spec
	ResourceVersion   string            `json:"resourceVersion,omitempty"` // the revision of the last change
	CreationTimestamp *time.Time        `json:"creationTimestamp,omitempty"`
	DeletionTimestamp *time.Time        `json:"deletionTimestamp,omitempty"` // of a Pod that its node is to end, and that goes when it has
	OwnerReferences   []OwnerReference  `json:"ownerReferences,omitempty"`   // of what the hub made for another object
}

// OwnerReference names the object that another one was made for, and is deleted
// with.
type OwnerReference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

// Object is a document with a kind and metadata. Its implementations are
// pointers to the kinds of this package.
type Object interface {
	// Type returns the object's own TypeMeta, to read or change.
	Type() *TypeMeta
	// Meta returns the object's own metadata, to read or change.
	Meta() *ObjectMeta
	// Default fills in what the user left out.
	Default()
	// Validate checks what can be checked without other objects. Pointers in
	// the returned errors are from the root of the document.
	Validate() []FieldError
	// ClearStatus drops what only the hub may say.
	ClearStatus()
}

// KindInfo describes a kind of object.
type KindInfo struct {
	Kind       string
	APIVersion string
	Plural     string   // in REST paths
	Short      []string // further names the CLI takes
	Namespaced bool
	New        func() Object // an empty object of the kind
}

// Kinds lists the kinds there are.
var Kinds = []KindInfo{
	{Kind: "DeviceModel", APIVersion: APIVersion, Plural: "devicemodels", Short: []string{"devicemodel", "model", "models", "dm"}, Namespaced: true, New: func() Object { return &DeviceModel{} }},
	{Kind: "Device", APIVersion: APIVersion, Plural: "devices", Short: []string{"device", "dev"}, Namespaced: true, New: func() Object { return &Device{} }},
	{Kind: "Route", APIVersion: APIVersion, Plural: "routes", Short: []string{"route"}, Namespaced: true, New: func() Object { return &Route{} }},
	{Kind: "Node", APIVersion: APIVersionCore, Plural: "nodes", Short: []string{"node", "no"}, New: func() Object { return &Node{} }},
	{Kind: "Mapper", APIVersion: APIVersion, Plural: "mappers", Short: []string{"mapper"}, New: func() Object { return &Mapper{} }},
	{Kind: "Deployment", APIVersion: APIVersionApps, Plural: "deployments", Short: []string{"deployment", "deploy", "app", "apps"}, Namespaced: true, New: func() Object { return &Deployment{} }},
	{Kind: "DaemonSet", APIVersion: APIVersionApps, Plural: "daemonsets", Short: []string{"daemonset", "ds"}, Namespaced: true, New: func() Object { return &DaemonSet{} }},
	{Kind: "StatefulSet", APIVersion: APIVersionApps, Plural: "statefulsets", Short: []string{"statefulset", "sts"}, Namespaced: true, New: func() Object { return &StatefulSet{} }},
	{Kind: "Pod", APIVersion: APIVersionCore, Plural: "pods", Short: []string{"pod", "po"}, Namespaced: true, New: func() Object { return &Pod{} }},
	{Kind: "ControllerRevision", APIVersion: APIVersionApps, Plural: "controllerrevisions", Short: []string{"controllerrevision"}, Namespaced: true, New: func() Object { return &ControllerRevision{} }},
	{Kind: "Service", APIVersion: APIVersionCore, Plural: "services", Short: []string{"service", "svc"}, Namespaced: true, New: func() Object { return &Service{} }},
	{Kind: "ConfigMap", APIVersion: APIVersionCore, Plural: "configmaps", Short: []string{"configmap", "cm"}, Namespaced: true, New: func() Object { return &ConfigMap{} }},
	{Kind: "Secret", APIVersion: APIVersionCore, Plural: "secrets", Short: []string{"secret"}, Namespaced: true, New: func() Object { return &Secret{} }},
	{Kind: "User", APIVersion: APIVersion, Plural: "users", Short: []string{"user"}, New: func() Object { return &User{} }},
}

// KindByName returns the kind that name means: its Kind, plural or short form,
// in any case.
func KindByName(name string) (KindInfo, bool) {
	for _, k := range Kinds {
		if strings.EqualFold(name, k.Kind) || strings.EqualFold(name, k.Plural) {
			return k, true
		}
		for _, s := range k.Short {
			if strings.EqualFold(name, s) {
				return k, true
			}
		}
	}
	return KindInfo{}, false
}

// elsewhere are kinds of Kubernetes that are not here, and what to write
// instead.
var elsewhere = []struct{ kind, plural, instead string }{
	{"ReplicaSet", "replicasets", "a Deployment"},
	{"Job", "jobs", "a Deployment with restartPolicy OnFailure"},
	{"CronJob", "cronjobs", "a Deployment whose container waits for its time"},
	{"Ingress", "ingresses", "a Service: it is at /api/v1/services/NAME/proxy/ of the hub"},
}

// Instead says what to use in place of a kind, or a plural, of Kubernetes that is
// not here; "" when nothing comes to mind.
func Instead(name string) string {
	for _, k := range elsewhere {
		if strings.EqualFold(name, k.kind) || strings.EqualFold(name, k.plural) {
			return k.instead
		}
	}
	return ""
}

// Key names one object.
type Key struct {
	Kind      string
	Namespace string // "" for cluster-scoped kinds
	Name      string
}

func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// KeyOf returns the key of an object.
func KeyOf(o Object) Key {
	return Key{Kind: o.Type().Kind, Namespace: o.Meta().Namespace, Name: o.Meta().Name}
}

var (
	labelName    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)                              // RFC 1123 label
	subdomain    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`) // RFC 1123 subdomain
	propertyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	labelValue   = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`)
)

// CheckLabelName says what is wrong with s as an RFC 1123 label, "" when nothing is.
func CheckLabelName(s string) string {
	if !labelName.MatchString(s) {
		return fmt.Sprintf("must be at most 63 of a-z, 0-9 and '-', starting and ending with a letter or digit, got %s", quoteShort(s))
	}
	return ""
}

// CheckSubdomain says what is wrong with s as an RFC 1123 subdomain, "" when nothing is.
func CheckSubdomain(s string) string {
	if len(s) > 253 || !subdomain.MatchString(s) {
		return fmt.Sprintf("must be at most 253 of a-z, 0-9, '-' and '.', each part starting and ending with a letter or digit, got %s", quoteShort(s))
	}
	return ""
}

func quoteShort(s string) string {
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:77], "") + "..."
	}
	return fmt.Sprintf("%q", s)
}

// Limits of metadata, Kubernetes' own.
const (
	maxLabels          = 64
	maxAnnotationBytes = 256 << 10
)

// validateMeta checks metadata. names is the rule for the object's name.
func validateMeta(m *ObjectMeta, namespaced bool, names func(string) string) (errs []FieldError) {
	if m.Name == "" {
		errs = append(errs, FieldError{"/metadata/name", "is required"})
	} else if msg := names(m.Name); msg != "" {
		errs = append(errs, FieldError{"/metadata/name", msg})
	}
	if namespaced {
		if msg := CheckLabelName(m.Namespace); msg != "" {
			errs = append(errs, FieldError{"/metadata/namespace", msg})
		}
	} else if m.Namespace != "" {
		errs = append(errs, FieldError{"/metadata/namespace", "must be left out: the kind is not namespaced"})
	}
	errs = append(errs, validateLabels("/metadata/labels", m.Labels)...)
	return append(errs, validateAnnotations("/metadata/annotations", m.Annotations)...)
}

func validateLabels(at string, labels map[string]string) (errs []FieldError) {
	if len(labels) > maxLabels {
		errs = append(errs, FieldError{at, fmt.Sprintf("has %d labels, at most %d are allowed", len(labels), maxLabels)})
	}
	for _, k := range sortedKeys(labels) {
		if msg := checkLabelKey(k); msg != "" {
			errs = append(errs, FieldError{at + "/" + escapePointer(k), msg})
		}
		if !labelValue.MatchString(labels[k]) {
			errs = append(errs, FieldError{at + "/" + escapePointer(k), fmt.Sprintf("value must be at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit, got %s", quoteShort(labels[k]))})
		}
	}
	return errs
}

func validateAnnotations(at string, annotations map[string]string) (errs []FieldError) {
	total := 0
	for _, k := range sortedKeys(annotations) {
		total += len(k) + len(annotations[k])
		if msg := checkLabelKey(k); msg != "" {
			errs = append(errs, FieldError{at + "/" + escapePointer(k), msg})
		}
	}
	if total > maxAnnotationBytes {
		errs = append(errs, FieldError{at, fmt.Sprintf("has %d bytes, at most %d are allowed", total, maxAnnotationBytes)})
	}
	return errs
}

// checkLabelKey checks a label's or annotation's key: an optional DNS prefix
// and a name.
func checkLabelKey(k string) string {
	prefix, name, has := strings.Cut(k, "/")
	if !has {
		prefix, name = "", k
	} else if msg := CheckSubdomain(prefix); msg != "" {
		return "key's prefix " + msg
	}
	if name == "" || !labelValue.MatchString(name) {
		return "key must be at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit, with an optional DNS prefix and '/'"
	}
	return ""
}
