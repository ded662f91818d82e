package models

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Route carries messages from where they are published to where they are
// wanted: up, down, across, and to programs.
type Route struct {
	TypeMeta
	Metadata ObjectMeta   `json:"metadata"`
	Spec     RouteSpec    `json:"spec"`
	Status   *RouteStatus `json:"status,omitempty"`
}

// RouteSpec is what a user says of a route. From and To each have exactly one
// kind.
type RouteSpec struct {
	Description string      `json:"description,omitempty"`
	From        RouteSource `json:"from"`
	// When is an expression over the message that must be true, "" for always.
	// It sees payload (nil when the payload is not JSON), topic, node, and for a
	// twin device, property, value, quality.
	When string `json:"when,omitempty"`
	// Transform is an expression whose value is sent, as JSON, in place of the
	// payload; "" leaves the payload's bytes as they are.
	Transform string        `json:"transform,omitempty"`
	To        RouteTarget   `json:"to"`
	Delivery  RouteDelivery `json:"delivery,omitzero"`
}

// RouteSource is where a route's messages come from.
type RouteSource struct {
	MQTT   string       `json:"mqtt,omitempty"` // a topic filter on the brokers of nodes
	REST   bool         `json:"rest,omitempty"` // POST …/routes/NAME/publish at the hub, /v1/routes/NAME at an edge
	Twin   *RouteTwin   `json:"twin,omitempty"` // reported values of devices
	Broker *RouteBroker `json:"broker,omitempty"`
	// NodeSelector chooses the nodes where messages are taken; empty: all.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
}

// RouteTwin chooses reported values.
type RouteTwin struct {
	LabelSelector SelectorText `json:"labelSelector,omitempty"` // of devices of the route's namespace; "" for all
	Properties    []string     `json:"properties,omitempty"`    // names; empty for all
}

// RouteTarget is where a route's messages go.
type RouteTarget struct {
	HTTP    *RouteHTTP    `json:"http,omitempty"`
	MQTT    *RouteMQTT    `json:"mqtt,omitempty"`
	Service *RouteService `json:"service,omitempty"`
	Broker  *RouteBroker  `json:"broker,omitempty"`
}

// RouteHTTP is a request that the hub makes for each message.
type RouteHTTP struct {
	URL         string            `json:"url"`
	Method      string            `json:"method,omitempty"` // POST, PUT or PATCH; default POST
	Headers     map[string]string `json:"headers,omitempty"`
	HeadersFrom *SecretRef        `json:"headersFrom,omitempty"` // each key of the Secret is a header's name
	Timeout     *Duration         `json:"timeout,omitempty"`     // for the whole request; default 10s
}

// SecretRef names a Secret of the same namespace.
type SecretRef struct {
	Secret string `json:"secret"`
}

// SecretKeyRef names a key of a Secret of the same namespace.
type SecretKeyRef struct {
	Secret string `json:"secret"`
	Key    string `json:"key"`
}

// RouteMQTT publishes each message on the brokers of nodes.
type RouteMQTT struct {
	// Topic may hold {topic}, {node}, {device} and {property} of the message, and
	// {#}, the levels of its topic that the source's # stood for.
	Topic  string `json:"topic"`
	QoS    *int   `json:"qos,omitempty"` // 0, 1 or 2; default 1
	Retain bool   `json:"retain,omitempty"`
	// NodeSelector chooses the nodes. Without it a message stays on its node, and
	// one published at the hub goes to every node.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
}

// RouteService is a request to an app beside the devices.
type RouteService struct {
	Name    string    `json:"name"`           // a Service of the same namespace
	Path    string    `json:"path,omitempty"` // default /
	Method  string    `json:"method,omitempty"`
	Timeout *Duration `json:"timeout,omitempty"` // for the whole request; default 10s
}

// RouteBroker is another MQTT broker. The edge connects to it.
type RouteBroker struct {
	URL          string        `json:"url"`   // mqtt://host:1883 or mqtts://host:8883
	Topic        string        `json:"topic"` // of a source a filter; of a target as in RouteMQTT
	QoS          *int          `json:"qos,omitempty"`
	Retain       bool          `json:"retain,omitempty"` // of a target
	ClientID     string        `json:"clientID,omitempty"`
	Username     string        `json:"username,omitempty"`
	PasswordFrom *SecretKeyRef `json:"passwordFrom,omitempty"`
	CAFrom       *SecretKeyRef `json:"caFrom,omitempty"` // PEM of who signed the broker's certificate; default: the system's
	// CertificateFrom is PEM of the client's certificate and its private key, for
	// brokers that want one.
	CertificateFrom *SecretKeyRef `json:"certificateFrom,omitempty"`
}

// Secrets are what of the broker is in Secrets.
func (b *RouteBroker) Secrets() (refs []SecretKeyRef) {
	for _, ref := range []*SecretKeyRef{b.PasswordFrom, b.CAFrom, b.CertificateFrom} {
		if ref != nil {
			refs = append(refs, *ref)
		}
	}
	return refs
}

// Patience is how long the request may take. It may be asked of what another
// release has written.
func (h *RouteHTTP) Patience() time.Duration { return patience(h.Timeout) }

// Patience is how long the request may take.
func (s *RouteService) Patience() time.Duration { return patience(s.Timeout) }

func patience(timeout *Duration) time.Duration {
	if timeout == nil {
		return DefaultRouteTimeout
	}
	return timeout.Std()
}

// RouteDelivery says how long to try.
type RouteDelivery struct {
	TTL     *Duration `json:"ttl,omitempty"`     // a message older than this is a dead letter; default 1h
	Retries *int      `json:"retries,omitempty"` // attempts after the first that a target refused; default 5
}

// Limits and defaults of routes.
const (
	DefaultRouteTTL     = time.Hour
	MaxRouteTTL         = 30 * 24 * time.Hour
	DefaultRouteRetries = 5
	MaxRouteRetries     = 100
	DefaultRouteTimeout = 10 * time.Second
	MaxRouteTimeout     = 5 * time.Minute
)

// RouteStatus counts what became of a route's messages since it was made.
type RouteStatus struct {
	Delivered     uint64      `json:"delivered"`
	Failed        uint64      `json:"failed"`      // became dead letters
	Dropped       uint64      `json:"dropped"`     // left out because a queue was full, or at the route's own when or transform failing
	Queued        uint64      `json:"queued"`      // waiting now, at the hub and at edges
	DeadLetters   uint64      `json:"deadLetters"` // kept now, to be replayed or dropped
	LastError     string      `json:"lastError"`
	LastErrorTime *time.Time  `json:"lastErrorTime,omitempty"`
	Conditions    []Condition `json:"conditions,omitempty"`
}

// Type implements Object.
func (r *Route) Type() *TypeMeta { return &r.TypeMeta }

// Meta implements Object.
func (r *Route) Meta() *ObjectMeta { return &r.Metadata }

// ClearStatus implements Object.
func (r *Route) ClearStatus() { r.Status = nil }

// Default implements Object.
func (r *Route) Default() {
	qos := func(q **int) {
		if *q == nil {
			one := 1
			*q = &one
		}
	}
	request := func(method *string, timeout **Duration) {
		if *method == "" {
			*method = "POST"
		}
		if *timeout == nil {
			*timeout = new(Duration(DefaultRouteTimeout))
		}
	}
	if b := r.Spec.From.Broker; b != nil {
		qos(&b.QoS)
	}
	switch to := &r.Spec.To; {
	case to.HTTP != nil:
		request(&to.HTTP.Method, &to.HTTP.Timeout)
	case to.MQTT != nil:
		qos(&to.MQTT.QoS)
	case to.Service != nil:
		request(&to.Service.Method, &to.Service.Timeout)
		if to.Service.Path == "" {
			to.Service.Path = "/"
		}
	case to.Broker != nil:
		qos(&to.Broker.QoS)
	}
	if r.Spec.Delivery.TTL == nil {
		r.Spec.Delivery.TTL = new(Duration(DefaultRouteTTL))
	}
	if r.Spec.Delivery.Retries == nil {
		retries := DefaultRouteRetries
		r.Spec.Delivery.Retries = &retries
	}
}

// Validate implements Object. Topics and expressions are the registry's to check.
func (r *Route) Validate() []FieldError {
	v := routeChecks{errs: validateMeta(&r.Metadata, true, CheckSubdomain)}
	v.from(&r.Spec.From)
	v.to(&r.Spec.To)
	from, to := &r.Spec.From, &r.Spec.To
	if from.Broker != nil && to.Broker != nil {
		v.fail("/spec/to/broker", "cannot be the target of a route whose source is a broker: messages between two outer brokers are theirs to bridge")
	}
	if from.REST && to.Broker != nil && len(from.NodeSelector) == 0 {
		v.fail("/spec/to/broker", "needs /spec/from/nodeSelector with from.rest: it is an edge that connects to the broker, and the selector chooses which")
	}
	if d := r.Spec.Delivery.TTL.Std(); d < time.Second || d > MaxRouteTTL {
		v.fail("/spec/delivery/ttl", "must be between 1s and %v, got %v", MaxRouteTTL, d)
	}
	if n := *r.Spec.Delivery.Retries; n < 0 || n > MaxRouteRetries {
		v.fail("/spec/delivery/retries", "must be between 0 and %d, got %d", MaxRouteRetries, n)
	}
	return v.errs
}

// routeChecks collects what is wrong with a route.
type routeChecks struct{ errs []FieldError }

func (v *routeChecks) fail(at, format string, args ...any) {
	v.errs = append(v.errs, FieldError{at, fmt.Sprintf(format, args...)})
}

func (v *routeChecks) one(at string, kinds []string, set []bool) {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	if n != 1 {
		v.fail(at, "must have exactly one of %s, has %d", strings.Join(kinds, ", "), n)
	}
}

func (v *routeChecks) from(s *RouteSource) {
	v.one("/spec/from", []string{"mqtt", "rest", "twin", "broker"}, []bool{s.MQTT != "", s.REST, s.Twin != nil, s.Broker != nil})
	v.labels("/spec/from/nodeSelector", s.NodeSelector)
	if s.Twin != nil {
		if _, err := ParseSelector(string(s.Twin.LabelSelector)); err != nil {
			v.fail("/spec/from/twin/labelSelector", "%v", err)
		}
		for i, p := range s.Twin.Properties {
			if !propertyName.MatchString(p) {
				v.fail(fmt.Sprintf("/spec/from/twin/properties/%d", i), "must be the name of a property, got %s", quoteShort(p))
			}
		}
	}
	if s.Broker != nil {
		v.broker("/spec/from/broker", s.Broker)
		if s.Broker.Retain {
			v.fail("/spec/from/broker/retain", "is for a target")
		}
	}
}

func (v *routeChecks) to(t *RouteTarget) {
	v.one("/spec/to", []string{"http", "mqtt", "service", "broker"}, []bool{t.HTTP != nil, t.MQTT != nil, t.Service != nil, t.Broker != nil})
	if h := t.HTTP; h != nil {
		u, err := url.Parse(h.URL)
		switch {
		case h.URL == "":
			v.fail("/spec/to/http/url", "is required")
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
			v.fail("/spec/to/http/url", "must be http://HOST… or https://HOST…, got %s", quoteShort(h.URL))
		case u.User != nil:
			v.fail("/spec/to/http/url", "must not hold a name and password: put an Authorization header in a Secret and name it in headersFrom")
		case u.Fragment != "":
			v.fail("/spec/to/http/url", "must not have a fragment")
		default:
			v.host("/spec/to/http/url", u)
		}
		v.request("/spec/to/http", h.Method, *h.Timeout)
		for _, name := range sortedKeys(h.Headers) {
			v.header("/spec/to/http/headers/"+escapePointer(name), name, h.Headers[name])
		}
		if h.HeadersFrom != nil {
			v.secret("/spec/to/http/headersFrom/secret", h.HeadersFrom.Secret)
		}
	}
	if m := t.MQTT; m != nil {
		v.topic("/spec/to/mqtt", m.Topic, m.QoS)
		v.labels("/spec/to/mqtt/nodeSelector", m.NodeSelector)
	}
	if s := t.Service; s != nil {
		if s.Name == "" {
			v.fail("/spec/to/service/name", "is required: the name of a Service")
		} else if msg := CheckLabelName(s.Name); msg != "" {
			v.fail("/spec/to/service/name", "%s: the name of a Service of the route's own namespace", msg)
		}
		if u, err := url.ParseRequestURI(s.Path); err != nil || !strings.HasPrefix(s.Path, "/") || strings.HasPrefix(s.Path, "//") || u.Host != "" {
			v.fail("/spec/to/service/path", "must be a path that starts with '/', got %s", quoteShort(s.Path))
		}
		v.request("/spec/to/service", s.Method, *s.Timeout)
	}
	if t.Broker != nil {
		v.broker("/spec/to/broker", t.Broker)
	}
}

func (v *routeChecks) broker(at string, b *RouteBroker) {
	u, err := url.Parse(b.URL)
	switch {
	case b.URL == "":
		v.fail(at+"/url", "is required")
	case err != nil || !slices.Contains([]string{"mqtt", "tcp", "mqtts", "ssl"}, u.Scheme) || u.Hostname() == "" || u.Path != "":
		v.fail(at+"/url", "must be mqtt://HOST[:PORT] or mqtts://HOST[:PORT], got %s", quoteShort(b.URL))
	case u.User != nil:
		v.fail(at+"/url", "must not hold a name and password: use username and passwordFrom")
	case b.CAFrom != nil && (u.Scheme == "mqtt" || u.Scheme == "tcp"):
		v.fail(at+"/caFrom", "is for mqtts://")
	case b.CertificateFrom != nil && (u.Scheme == "mqtt" || u.Scheme == "tcp"):
		v.fail(at+"/certificateFrom", "is for mqtts://")
	default:
		v.host(at+"/url", u)
	}
	v.topic(at, b.Topic, b.QoS)
	if b.PasswordFrom != nil {
		if b.Username == "" {
			v.fail(at+"/passwordFrom", "needs username")
		}
		v.secretKey(at+"/passwordFrom", *b.PasswordFrom)
	}
	if b.CAFrom != nil {
		v.secretKey(at+"/caFrom", *b.CAFrom)
	}
	if b.CertificateFrom != nil {
		v.secretKey(at+"/certificateFrom", *b.CertificateFrom)
	}
	if len(b.ClientID) > 128 {
		v.fail(at+"/clientID", "must be at most 128 bytes, got %d", len(b.ClientID))
	}
}

// numeric is the last level of what some take for an address.
var numeric = regexp.MustCompile(`^(?i:[0-9]*|0x[0-9a-f]*)$`)

// host refuses what one resolver takes for an address and another for a name:
// 2130706433, 0x7f.1 and 127.1 are all 127.0.0.1 to some, and so are digits of other
// scripts.
func (v *routeChecks) host(at string, u *url.URL) {
	host := u.Hostname()
	if strings.ContainsFunc(host, func(r rune) bool { return r > '~' }) {
		v.fail(at, "must have an ASCII host: names in other scripts are written as xn--…, got %s", quoteShort(host))
		return
	}
	if _, err := netip.ParseAddr(host); err != nil {
		labels := strings.Split(strings.TrimSuffix(host, "."), ".")
		if numeric.MatchString(labels[len(labels)-1]) {
			v.fail(at, "must have a name or an address such as 192.0.2.1 as its host, got %s", quoteShort(host))
			return
		}
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			v.fail(at, "must have a port from 1 to 65535, got %s", quoteShort(port))
		}
	}
}

func (v *routeChecks) topic(at, topic string, qos *int) {
	if topic == "" {
		v.fail(at+"/topic", "is required")
	}
	if qos != nil && (*qos < 0 || *qos > 2) {
		v.fail(at+"/qos", "must be 0, 1 or 2, got %d", *qos)
	}
}

func (v *routeChecks) request(at, method string, timeout Duration) {
	if !slices.Contains([]string{"POST", "PUT", "PATCH"}, method) {
		v.fail(at+"/method", "must be POST, PUT or PATCH, got %s", quoteShort(method))
	}
	if d := timeout.Std(); d < 10*time.Millisecond || d > MaxRouteTimeout {
		v.fail(at+"/timeout", "must be between 10ms and %v, got %v", MaxRouteTimeout, d)
	}
}

// routeHeader is a token of RFC 9110 section 5.6.2.
var routeHeader = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]{1,128}$")

// ownHeaders are those that whoever makes the request sets, in lower case.
var ownHeaders = []string{"host", "content-length", "transfer-encoding", "connection", "upgrade", "trailer", "te", "expect", "idempotency-key"}

// CheckHeader says what is wrong with a header that is to be sent, "" when
// nothing is.
func CheckHeader(name, value string) string {
	switch {
	case !routeHeader.MatchString(name):
		return "is no name of a header: " + quoteShort(name)
	case slices.Contains(ownHeaders, strings.ToLower(name)):
		return name + " is set by Whimbrel itself"
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return name + " has a value with control characters"
	}
	return ""
}

func (v *routeChecks) header(at, name, value string) {
	if msg := CheckHeader(name, value); msg != "" {
		v.fail(at, "%s", msg)
	}
}

func (v *routeChecks) secret(at, name string) {
	if msg := CheckSubdomain(name); msg != "" {
		v.fail(at, "%s", msg)
	}
}

func (v *routeChecks) secretKey(at string, ref SecretKeyRef) {
	v.secret(at+"/secret", ref.Secret)
	if ref.Key == "" {
		v.fail(at+"/key", "is required")
	}
}

func (v *routeChecks) labels(at string, labels map[string]string) {
	for _, k := range sortedKeys(labels) {
		if msg := checkLabelKey(k); msg != "" {
			v.fail(at+"/"+escapePointer(k), "%s", msg)
		} else if !labelValue.MatchString(labels[k]) {
			v.fail(at+"/"+escapePointer(k), "is no value of a label: %s", quoteShort(labels[k]))
		}
	}
}

// MatchLabels reports whether labels has every label that selector asks for. An
// empty selector matches everything.
func MatchLabels(selector, labels map[string]string) bool {
	for k, want := range selector {
		if got, ok := labels[k]; !ok || got != want {
			return false
		}
	}
	return true
}

// SelectorText is a label selector (ParseSelector). Documents may also write it
// as labels, {a: b}, and in the shape of Kubernetes' objects,
// {matchLabels: {a: b}}.
type SelectorText string

// UnmarshalJSON implements json.Unmarshaler.
func (s *SelectorText) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*s = SelectorText(text)
		return nil
	}
	var labels map[string]json.RawMessage
	if json.Unmarshal(data, &labels) != nil {
		return errors.New(`must be a label selector such as "area=hall-a", or labels`)
	}
	if inner, ok := labels["matchLabels"]; ok {
		if len(labels) > 1 {
			return errors.New(`has more than matchLabels: write it as a text, such as "a=b,c in (d,e)"`)
		}
		labels = nil
		if json.Unmarshal(inner, &labels) != nil {
			return errors.New("matchLabels must be labels")
		}
	}
	var terms []string
	for _, k := range sortedKeys(labels) {
		var value string
		if json.Unmarshal(labels[k], &value) != nil {
			return fmt.Errorf("label %s must have a text as its value", quoteShort(k))
		}
		terms = append(terms, k+"="+value)
	}
	*s = SelectorText(strings.Join(terms, ","))
	return nil
}

// NodeRoute is a Route as the hub sends it to a node that takes its messages.
type NodeRoute struct {
	Route  Route `json:"route"`
	Here   bool  `json:"here,omitempty"`   // the target is this node: it works with the hub gone
	Beyond bool  `json:"beyond,omitempty"` // the target is the hub, or other nodes too
}

// RouteReply is what became of a message that was posted to a route.
type RouteReply struct {
	Key         string // of the message; "" when it was not taken
	Matched     bool   // when was true, so it was taken
	Published   bool   // on the brokers of all nodes that it is for, which give no answer
	Answered    bool   // the target has answered: Status, ContentType and Body are its
	Status      int    // HTTP
	ContentType string
	Body        []byte
	Error       string    // why there is no answer
	Kind        ErrorKind // of Error: KindTimeout, KindUnavailable or KindRefused
}

// DeadLetter is a message of a route that could not be delivered.
type DeadLetter struct {
	ID          int64     `json:"id"`
	Key         string    `json:"key"` // the Idempotency-Key that it was sent with
	Node        string    `json:"node,omitempty"`
	Topic       string    `json:"topic,omitempty"`
	Device      string    `json:"device,omitempty"`
	Property    string    `json:"property,omitempty"`
	ContentType string    `json:"contentType,omitempty"`
	Payload     []byte    `json:"payload"` // base64 in JSON
	Target      string    `json:"target"`  // what was to deliver it: hub, or node:NAME
	Accepted    time.Time `json:"accepted"`
	Died        time.Time `json:"died"`
	Attempts    int       `json:"attempts"`
	Error       string    `json:"error"`
}
