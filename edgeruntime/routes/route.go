package routes

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/expression"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// message is one that was taken from its source.
type message struct {
	key         string // "": it is to get one
	topic       string // "" when it came by REST
	device      string // local id, of a twin's message
	property    string
	contentType string
	payload     []byte
	private     bool // of a property that does not leave the edge
}

// route is a wanted route, compiled. It is never changed.
type route struct {
	uid        string
	namespace  string
	name       string
	generation int64
	spec       models.RouteSpec
	when       *expression.Program // nil: always
	transform  *expression.Program // nil: as it is
	devices    models.Selector     // of a twin source
	here       bool                // the target is this node
	beyond     bool                // the target is the hub, or other nodes too
	problem    string              // why it takes nothing
}

// device is what routes need to know of a device.
type device struct {
	namespace string
	labels    map[string]string
	private   map[string]bool // properties that do not leave the edge
}

// table is everything that routes are decided by. It is never changed.
type table struct {
	routes  []*route          // by namespace and name
	devices map[string]device // by local id
	secrets map[string]secret // by namespace/name
}

// secret is a Secret's document, as far as it is needed.
type secret struct {
	revision uint64
	Data     map[string][]byte `json:"data"`
}

func (t *table) secret(namespace string, ref models.SecretKeyRef) ([]byte, error) {
	s, ok := t.secrets[namespace+"/"+ref.Secret]
	if !ok {
		return nil, fmt.Errorf("there is no secret %s on this node", ref.Secret)
	}
	v, ok := s.Data[ref.Key]
	if !ok {
		return nil, fmt.Errorf("secret %s has no key %s", ref.Secret, ref.Key)
	}
	return v, nil
}

// secretsOf changes when a secret that a broker needs does.
func (t *table) secretsOf(namespace string, b *models.RouteBroker) (revisions string) {
	for _, ref := range b.Secrets() {
		revisions += fmt.Sprint(t.secrets[namespace+"/"+ref.Secret].revision, " ")
	}
	return revisions
}

// compile turns what the hub wants into a table. Decoding is tolerant, as the hub may
// be newer.
func compile(items []store.Item, log *slog.Logger) *table {
	t := &table{devices: map[string]device{}, secrets: map[string]secret{}}
	modelsBy := map[string]*models.DeviceModel{}
	for _, i := range items {
		if i.Kind == store.KindDeviceModel {
			m := &models.DeviceModel{}
			if json.Unmarshal(i.JSON, m) == nil {
				m.Default()
				modelsBy[i.Namespace+"/"+i.Name] = m
			}
		}
	}
	for _, i := range items {
		switch i.Kind {
		case store.KindDevice:
			var d models.Device
			if json.Unmarshal(i.JSON, &d) != nil {
				continue // devices tells of it
			}
			d.Default()
			out := device{namespace: i.Namespace, labels: d.Metadata.Labels, private: map[string]bool{}}
			if m := modelsBy[i.Namespace+"/"+d.Spec.Model]; m != nil {
				defs, err := models.Resolve(m, &d)
				for _, def := range defs {
					out.private[def.Name] = def.Uplink == models.UplinkNone || err != nil
				}
			}
			t.devices[mqtt.LocalID(i.Namespace, i.Name)] = out
		case "Secret":
			s := secret{revision: i.Revision}
			if json.Unmarshal(i.JSON, &s) == nil {
				t.secrets[i.Namespace+"/"+i.Name] = s
			}
		case store.KindRoute:
			var w models.NodeRoute
			if err := json.Unmarshal(i.JSON, &w); err != nil {
				log.Error("the hub sent a route that cannot be read", "namespace", i.Namespace, "name", i.Name, "error", err)
				continue
			}
			t.routes = append(t.routes, compileRoute(i, &w, log))
		}
	}
	return t
}

func compileRoute(i store.Item, w *models.NodeRoute, log *slog.Logger) *route {
	w.Route.Default()
	r := &route{uid: i.UID, namespace: i.Namespace, name: i.Name, generation: w.Route.Metadata.Generation, spec: w.Route.Spec, here: w.Here, beyond: w.Beyond}
	var err error
	fail := func(what string) {
		if err != nil && r.problem == "" {
			r.problem = fmt.Sprintf("%s: %v", what, err)
			log.Error("a route takes nothing", "namespace", i.Namespace, "route", i.Name, "problem", r.problem)
		}
	}
	if r.spec.When != "" {
		r.when, err = expression.Condition(r.spec.When)
		fail("when")
	}
	if r.spec.Transform != "" {
		r.transform, err = expression.Transform(r.spec.Transform)
		fail("transform")
	}
	if r.spec.From.Twin != nil {
		r.devices, err = models.ParseSelector(string(r.spec.From.Twin.LabelSelector))
		fail("labelSelector")
	}
	return r
}

// takesTopic reports whether a message that an app published is the route's.
func (r *route) takesTopic(topic string) bool {
	return r.spec.From.MQTT != "" && mqtt.Match(r.spec.From.MQTT, topic)
}

// takesTwin reports whether a device's reported value is the route's.
func (r *route) takesTwin(d device, property string) bool {
	t := r.spec.From.Twin
	return t != nil && d.namespace == r.namespace && (len(t.Properties) == 0 || slices.Contains(t.Properties, property)) && r.devices.Matches(d.labels)
}

// pass applies when and transform. ok is false when the route does not want the
// message.
func (r *route) pass(m *message, node string) (payload []byte, ok bool, err error) {
	if r.problem != "" {
		return nil, false, fmt.Errorf("%s", r.problem)
	}
	in := expression.Message{Payload: m.payload, Topic: m.topic, Node: node, Device: m.device, Property: m.property}
	if r.when != nil {
		if ok, err := r.when.True(in); err != nil || !ok {
			if err != nil {
				err = fmt.Errorf("when: %w", err)
			}
			return nil, false, err
		}
	}
	if r.transform == nil {
		return m.payload, true, nil
	}
	payload, err = r.transform.Value(in)
	if err != nil {
		return nil, false, fmt.Errorf("transform: %w", err)
	}
	return payload, true, nil
}

// filter is the topic filter that the route's messages were taken by.
func (r *route) filter() string {
	if b := r.spec.From.Broker; b != nil {
		return b.Topic
	}
	return r.spec.From.MQTT
}

// topicOf is where a message is to be published, by the target's pattern.
func topicOf(pattern string, m *pb.RouteMessage) (string, error) {
	topic, err := mqtt.Pattern{Topic: pattern, Filter: m.Filter}.Fill(mqtt.Origin{Topic: m.Topic, Node: m.Node, Device: m.Device, Property: m.Property})
	if err != nil {
		return "", fmt.Errorf("target: %w", err)
	}
	return topic, nil
}

// laneOf is the order that a message is delivered in: after those of the same
// route and topic, or device and property.
func laneOf(m *pb.RouteMessage) string {
	if m.Device != "" {
		return m.Device + "/" + m.Property
	}
	return m.Topic
}

// clone returns a copy that has fields of its own and shares the bytes.
func clone(m *pb.RouteMessage) *pb.RouteMessage {
	return &pb.RouteMessage{Key: m.Key, Route: m.Route, Generation: m.Generation, Topic: m.Topic, Node: m.Node, Device: m.Device, Property: m.Property,
		ContentType: m.ContentType, Payload: m.Payload, AgeMs: m.AgeMs, Wait: m.Wait, Dead: m.Dead, Target: m.Target, TtlMs: m.TtlMs, Retries: m.Retries,
		Namespace: m.Namespace, Name: m.Name, Filter: m.Filter, Attempts: m.Attempts}
}
