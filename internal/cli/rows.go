package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/models"
)

// wideColumns are shown with -o wide only.
var wideColumns = []string{"CONNECTION", "LASTERROR", "CONDITIONS", "LABELS", "DESCRIPTION", "SYSTEM", "ADDRESS", "OUTBOX", "CERTIFICATE", "IP", "REV", "IMAGES", "SELECTOR"}

// The column IN is the namespace, shown with --all-namespaces only.
var objectTitles = map[string][]string{
	"DeviceModel":        {"IN", "NAME!", "PROTOCOL", "PROPERTIES", "AGE", "DESCRIPTION", "LABELS"},
	"Device":             {"IN", "NAME!", "MODEL", "NODE", "STATE", "AGE", "LASTSEEN", "CONNECTION", "CONDITIONS", "LABELS"},
	"Node":               {"IN", "NAME!", "STATUS", "VERSION", "AGE", "LASTSEEN", "SYSTEM", "ADDRESS", "OUTBOX", "CERTIFICATE", "LABELS"},
	"Mapper":             {"IN", "NAME!", "VERSION", "AGE", "DESCRIPTION", "LABELS"},
	"Deployment":         {"IN", "NAME!", "READY", "UP-TO-DATE", "STATUS", "AGE", "IMAGES", "LABELS"},
	"DaemonSet":          {"IN", "NAME!", "READY", "UP-TO-DATE", "AVAILABLE", "STATUS", "AGE", "NODE-SELECTOR", "IMAGES", "LABELS"},
	"StatefulSet":        {"IN", "NAME!", "READY", "UP-TO-DATE", "STATUS", "AGE", "IMAGES", "LABELS"},
	"Pod":                {"IN", "NAME!", "READY", "STATUS", "RESTARTS", "NODE", "AGE", "IP", "REV", "IMAGES", "LABELS"},
	"ControllerRevision": {"IN", "NAME!", "OWNER", "REVISION", "AGE", "IMAGES"},
	"Service":            {"IN", "NAME!", "PORTS", "AGE", "SELECTOR", "LABELS"},
	"ConfigMap":          {"IN", "NAME!", "DATA", "AGE", "LABELS"},
	"Route":              {"IN", "NAME!", "FROM", "TO", "DELIVERED", "FAILED", "DROPPED", "QUEUED", "AGE", "LASTERROR", "LABELS"},
	"Secret":             {"IN", "NAME!", "TYPE", "KEYS", "AGE", "LABELS"},
	"User":               {"IN", "NAME!", "ROLE", "NAMESPACE", "AGE", "LABELS"},
}

var tokenTitles = []string{"ID!", "KIND", "FOR!", "AGE", "EXPIRES"}

func objectTable(r ref) *table {
	titles := objectTitles[r.info.Kind]
	if r.tokens {
		titles = tokenTitles
	}
	return &table{titles: append([]string{}, titles...)}
}

// objectRow is an object's row under its kind's titles.
func objectRow(o models.Object, now time.Time) []string {
	meta := o.Meta()
	made := since(meta.CreationTimestamp, now)
	switch o := o.(type) {
	case *models.DeviceModel:
		return []string{meta.Namespace, meta.Name, o.Spec.Protocol, fmt.Sprint(len(o.Spec.Properties)), made, orNothing(o.Spec.Description), labels(meta.Labels)}
	case *models.Device:
		state, seen, conditions := string(models.StateUnknown), nothing, nothing
		if s := o.Status; s != nil {
			state, seen, conditions = string(s.State), since(s.LastSeen, now), conditionList(s.Conditions)
		}
		if o.Spec.Locked {
			state += ",locked"
		}
		return []string{meta.Namespace, meta.Name, o.Spec.Model, orNothing(o.Spec.Node), state, made, seen, deviceURL(o), conditions, labels(meta.Labels)}
	case *models.Node:
		s := models.NodeStatus{}
		if o.Status != nil {
			s = *o.Status
		}
		return []string{meta.Namespace, meta.Name, readiness(s.Conditions), orNothing(s.NodeInfo.Version), made, since(s.LastSeen, now), system(s.NodeInfo),
			orNothing(s.NodeInfo.Address), outbox(s.Outbox), until(s.CertificateExpires, now), labels(meta.Labels)}
	case *models.Mapper:
		return []string{meta.Namespace, meta.Name, o.Spec.Version, made, orNothing(o.Spec.Description), labels(meta.Labels)}
	case models.Workload:
		s := o.Standing()
		row := []string{meta.Namespace, meta.Name, fmt.Sprintf("%d/%d", s.Ready, s.Wanted), fmt.Sprint(s.Updated)}
		if d, is := o.(*models.DaemonSet); is {
			row = append(row, fmt.Sprint(s.Available), rollout(s), made, labels(d.Spec.Template.Spec.NodeSelector))
		} else {
			row = append(row, rollout(s), made)
		}
		return append(row, images(o.PodTemplate().Spec), labels(meta.Labels))
	case *models.Pod:
		s := podStatus(o)
		return []string{meta.Namespace, meta.Name, containersReady(o), podState(s), fmt.Sprint(s.RestartCount), orNothing(o.Spec.NodeName), made, orNothing(s.PodIP),
			revision(s.Revision), runs(o), labels(meta.Labels)}
	case *models.ControllerRevision:
		return []string{meta.Namespace, meta.Name, owner(o), fmt.Sprint(o.Revision), made, images(o.Data.Spec.Template.Spec)}
	case *models.Service:
		return []string{meta.Namespace, meta.Name, servicePorts(o), made, labels(o.Spec.Selector), labels(meta.Labels)}
	case *models.ConfigMap:
		return []string{meta.Namespace, meta.Name, fmt.Sprint(len(o.Data) + len(o.BinaryData)), made, labels(meta.Labels)}
	case *models.Route:
		s := models.RouteStatus{}
		if o.Status != nil {
			s = *o.Status
		}
		from, to := routeEnds(o)
		return []string{meta.Namespace, meta.Name, from, to, fmt.Sprint(s.Delivered), fmt.Sprint(s.Failed), fmt.Sprint(s.Dropped), fmt.Sprint(s.Queued), made,
			orNothing(s.LastError), labels(meta.Labels)}
	case *models.Secret:
		return []string{meta.Namespace, meta.Name, o.SecretType, strings.Join(secretKeys(o), ","), made, labels(meta.Labels)}
	case *models.User:
		return []string{meta.Namespace, meta.Name, string(o.Spec.Role), userNamespace(o), made, labels(meta.Labels)}
	}
	return nil
}

// routeEnds says where a route's messages come from and where they go.
func routeEnds(o *models.Route) (from, to string) {
	switch s := &o.Spec.From; {
	case s.MQTT != "":
		from = "mqtt " + s.MQTT
	case s.REST:
		from = "rest"
	case s.Broker != nil:
		from = s.Broker.URL + " " + s.Broker.Topic
	case s.Twin != nil:
		from = "twin"
		if s.Twin.LabelSelector != "" {
			from += " " + string(s.Twin.LabelSelector)
		}
		if len(s.Twin.Properties) > 0 {
			from += " [" + strings.Join(s.Twin.Properties, ",") + "]"
		}
	}
	switch t := &o.Spec.To; {
	case t.HTTP != nil:
		to = t.HTTP.URL
	case t.MQTT != nil:
		to = "mqtt " + t.MQTT.Topic
	case t.Service != nil:
		to = "service " + t.Service.Name + " " + t.Service.Path
	case t.Broker != nil:
		to = t.Broker.URL + " " + t.Broker.Topic
	}
	return from, to
}

// secretKeys are the names of a Secret's keys, whether or not its values are
// shown.
func secretKeys(s *models.Secret) []string {
	if len(s.Data) > 0 {
		return slices.Sorted(maps.Keys(s.Data))
	}
	if s.Status != nil {
		return s.Status.Keys
	}
	return nil
}

func tokenRow(t client.TokenInfo, now time.Time) []string {
	who := "node/" + t.Node
	if t.User != "" {
		who = "user/" + t.User
	}
	expires := "never"
	if t.Expires != nil {
		expires = until(t.Expires, now)
	}
	return []string{t.ID, t.Kind, who, since(&t.Created, now), expires}
}

func orNothing(s string) string {
	if s == "" {
		return nothing
	}
	return s
}

// until says when something ends.
func until(t *time.Time, now time.Time) string {
	switch {
	case t == nil || t.IsZero():
		return nothing
	case t.After(now):
		return "in " + age(t.Sub(now))
	}
	return age(now.Sub(*t)) + " ago"
}

// ago says when something was.
func ago(t *time.Time, now time.Time) string {
	if s := since(t, now); s == nothing || strings.HasPrefix(s, "in ") {
		return s
	}
	return since(t, now) + " ago"
}

// conditionList puts conditions into a cell: a type alone is True.
func conditionList(conditions []models.Condition) string {
	var parts []string
	for _, c := range conditions {
		text := c.Type
		if c.Status != "True" {
			text += "=" + c.Status
		}
		if c.Reason != "" && c.Reason != c.Type {
			text += " (" + c.Reason + ")"
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		return nothing
	}
	return strings.Join(parts, ", ")
}

// readiness is a node's condition Ready, in kubectl's words.
func readiness(conditions []models.Condition) string {
	for _, c := range conditions {
		if c.Type != "Ready" {
			continue
		}
		switch c.Status {
		case "True":
			return "Ready"
		case "False":
			return "NotReady"
		}
	}
	return "Unknown"
}

func system(i models.NodeInfo) string {
	if i.OS == "" {
		return nothing
	}
	return i.OS + "/" + i.Architecture
}

func outbox(o *models.OutboxState) string {
	if o == nil {
		return nothing
	}
	text := plural(int(o.Records), "record")
	if o.Dropped > 0 {
		text += fmt.Sprintf(", %d dropped", o.Dropped)
	}
	return text
}

func userNamespace(u *models.User) string {
	if u.Spec.Namespace == models.AllNamespaces {
		return "all"
	}
	return u.Spec.Namespace
}

// deviceURL is where a device is: every protocol's connection has a url.
func deviceURL(d *models.Device) string {
	var c struct {
		URL  string `json:"url"`
		Unit *int   `json:"unit"`
	}
	if json.Unmarshal(d.Spec.Connection, &c) != nil || c.URL == "" {
		return nothing
	}
	if c.Unit != nil {
		return fmt.Sprintf("%s unit %d", c.URL, *c.Unit)
	}
	return c.URL
}
