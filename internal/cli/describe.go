package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func describeCommand() *cobra.Command {
	var conn connection
	cmd := &cobra.Command{
		Use:     "describe KIND NAME…",
		GroupID: GroupObjects,
		Short:   "Show all there is to know about an object",
		Long: `Shows all there is to know about an object, for a person to read.

For a device: its conditions, its properties with their desired and reported values, the requests by which it is read, and what happened to it lately.`,
		Example: `  whimbrel describe device boiler-1
  whimbrel describe node local`,
		Args:              arguments(2, -1, "a kind and a name, such as device boiler-1"),
		ValidArgsFunction: conn.completeObjects(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := kindOf(args[0])
			if err != nil {
				return err
			}
			var keys []models.Key
			for _, name := range args[1:] {
				key, err := conn.key(info, name)
				if err != nil {
					return err
				}
				keys = append(keys, key)
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				for i, key := range keys {
					o, err := h.Get(ctx, key)
					if models.KindOf(err) == models.KindNotFound {
						return notFound(key)
					}
					if err != nil {
						return err
					}
					if i > 0 {
						fmt.Fprintln(cmd.OutOrStdout())
					}
					d := description{w: cmd.OutOrStdout(), width: terminalWidth(cmd.OutOrStdout()), now: time.Now()}
					if err := d.object(ctx, h, o); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	return cmd
}

// description writes about one object.
type description struct {
	w     io.Writer
	width int
	now   time.Time
}

// field writes a name and what it is.
func (d *description) field(name, format string, args ...any) {
	text := plain(fmt.Sprintf(format, args...))
	fmt.Fprintln(d.w, strings.TrimRight(fmt.Sprintf("%-14s%s", name+":", text), " "))
}

func (d *description) optional(name, text string) {
	if text != "" && text != nothing {
		d.field(name, "%s", text)
	}
}

func (d *description) table(title string, t *table) {
	fmt.Fprintf(d.w, "%s:\n", title)
	t.write(d.w, d.width, "  ")
}

func (d *description) object(ctx context.Context, h hub, o models.Object) error {
	meta := o.Meta()
	d.field("Name", "%s", meta.Name)
	d.optional("Namespace", meta.Namespace)
	d.field("Labels", "%s", labels(meta.Labels))
	for i, k := range slices.Sorted(maps.Keys(meta.Annotations)) {
		name := "Annotations"
		if i > 0 {
			name = ""
		}
		fmt.Fprintf(d.w, "%-14s%s\n", strings.TrimPrefix(name+":", ":"), plain(k+"="+meta.Annotations[k]))
	}
	if t := meta.CreationTimestamp; t != nil {
		d.field("Created", "%s (%s)", t.UTC().Format(time.RFC3339), ago(t, d.now))
	}
	switch o := o.(type) {
	case *models.Device:
		if err := d.device(ctx, h, o); err != nil {
			return err
		}
		return d.events(ctx, h, o)
	case *models.DeviceModel:
		return d.model(ctx, h, o)
	case *models.Node:
		if err := d.node(ctx, h, o); err != nil {
			return err
		}
		return d.events(ctx, h, o)
	case *models.Mapper:
		return d.mapper(o)
	case *models.Secret:
		d.field("Type", "%s", o.SecretType)
		t := &table{titles: []string{"KEY!", "BYTES"}}
		for _, k := range secretKeys(o) {
			t.row(k, strconv.Itoa(len(o.Data[k])))
		}
		d.table("Data (get secret "+o.Metadata.Name+" -o yaml shows the values)", t)
		return nil
	case *models.User:
		return d.user(ctx, h, o)
	case models.Workload:
		if err := d.app(ctx, h, o); err != nil {
			return err
		}
		return d.events(ctx, h, o)
	case *models.Pod:
		if err := d.pod(o); err != nil {
			return err
		}
		return d.events(ctx, h, o)
	case *models.ControllerRevision:
		d.field("Of", "%s", owner(o))
		d.field("Revision", "%d", o.Revision)
		return d.encoded("Template", o.Data.Spec.Template)
	case *models.Service:
		return d.service(ctx, h, o)
	case *models.ConfigMap:
		return d.configMap(o)
	case *models.Route:
		if err := d.route(o); err != nil {
			return err
		}
		return d.events(ctx, h, o)
	}
	return nil
}

func (d *description) device(ctx context.Context, h hub, o *models.Device) error {
	d.optional("Description", o.Spec.Description)
	d.field("Model", "%s", o.Spec.Model)
	d.field("Node", "%s", orNothing(o.Spec.Node))
	if o.Spec.Locked {
		d.field("Locked", "yes: no write reaches the device")
	}
	if err := d.yaml("Connection", o.Spec.Connection); err != nil {
		return err
	}
	status := models.DeviceStatus{State: models.StateUnknown}
	if o.Status != nil {
		status = *o.Status
	}
	d.field("State", "%s", status.State)
	d.field("Last seen", "%s", ago(status.LastSeen, d.now))
	d.conditions(status.Conditions)

	doc, err := h.Twin(ctx, o.Metadata.Namespace, o.Metadata.Name)
	if err != nil {
		return err
	}
	// The model gives the order; a device whose model is gone has its twin still.
	order := slices.Sorted(maps.Keys(doc.Properties))
	m, err := h.Get(ctx, models.Key{Kind: "DeviceModel", Namespace: o.Metadata.Namespace, Name: o.Spec.Model})
	if model, ok := m.(*models.DeviceModel); ok && err == nil {
		order = modelOrder(model, doc)
	}
	t := twinTable(doc, order, d.now)
	d.table("Properties", t)
	d.plan(status.ReadPlan)
	return nil
}

// modelOrder lists the properties as the model does, then what else the twin
// has.
func modelOrder(m *models.DeviceModel, doc twin.Document) []string {
	var order []string
	for _, p := range m.Spec.Properties {
		order = append(order, p.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Properties)) {
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	return order
}

// plan writes by which requests a device is read.
func (d *description) plan(p *models.ReadPlan) {
	if p == nil {
		d.field("Reads", "%s", "not known yet: the node has not said")
		return
	}
	d.field("Reads", "%s per cycle", plural(p.RequestsPerCycle, "request"))
	t := &table{titles: []string{"EVERY!", "REQUEST!", "PROPERTIES", "UNUSED"}}
	for _, g := range p.Groups {
		for i, r := range g.Requests {
			every := g.Every.Std().String()
			if i > 0 {
				every = ""
			}
			unused := nothing
			if r.Unused > 0 {
				unused = strconv.Itoa(r.Unused)
			}
			t.row(every, r.Text, strconv.Itoa(r.Points), unused)
		}
	}
	if len(t.rows) > 0 {
		t.write(d.w, d.width, "  ")
	}
}

func (d *description) conditions(conditions []models.Condition) {
	if len(conditions) == 0 {
		return
	}
	t := &table{titles: []string{"TYPE!", "STATUS", "SINCE", "REASON", "MESSAGE"}}
	for _, c := range conditions {
		t.row(c.Type, c.Status, since(&c.LastTransitionTime, d.now), orNothing(c.Reason), orNothing(c.Message))
	}
	d.table("Conditions", t)
}

func (d *description) model(ctx context.Context, h hub, o *models.DeviceModel) error {
	d.optional("Description", o.Spec.Description)
	d.field("Protocol", "%s", o.Spec.Protocol)
	resolved, err := models.Resolve(o, &models.Device{})
	if err != nil {
		return err
	}
	t := &table{titles: []string{"NAME!", "TYPE", "ACCESS", "EVERY", "DEADBAND", "RANGE", "UNIT", "WRITE", "ADDRESS"}}
	for _, p := range resolved {
		deadband, bounds, write := nothing, nothing, nothing
		if p.Deadband > 0 {
			deadband = float(p.Deadband)
		}
		if !p.Minimum.IsNull() || !p.Maximum.IsNull() {
			bounds = p.Bounds()
		}
		if len(p.Enum) > 0 {
			var names []string
			for _, k := range slices.Sorted(maps.Keys(p.Enum)) {
				names = append(names, fmt.Sprintf("%d=%s", k, p.Enum[k]))
			}
			bounds = strings.Join(names, ",")
		}
		if p.Access.Writable() {
			write = string(p.Write)
		}
		t.row(p.Name, string(p.Type), string(p.Access), p.Every.String(), deadband, bounds, orNothing(p.Unit), write, orNothing(string(p.Address)))
	}
	d.table("Properties", t)
	return d.devices(ctx, h, selection{kind: "Device", namespace: o.Metadata.Namespace},
		func(device *models.Device) bool { return device.Spec.Model == o.Metadata.Name })
}

// devices writes the devices among those that o chooses that belong.
func (d *description) devices(ctx context.Context, h hub, o selection, belongs func(*models.Device) bool) error {
	l, err := h.List(ctx, o)
	if models.KindOf(err) == models.KindForbidden {
		return nil // objects without a namespace may be seen by who may not see these
	}
	if err != nil {
		return err
	}
	t := &table{titles: []string{"NAME!", "MODEL", "NODE", "STATE", "LASTSEEN"}}
	for _, object := range l.Items {
		device, ok := object.(*models.Device)
		if !ok || !belongs(device) {
			continue
		}
		state, seen := string(models.StateUnknown), nothing
		if s := device.Status; s != nil {
			state, seen = string(s.State), since(s.LastSeen, d.now)
		}
		name := device.Metadata.Name
		if o.namespace == "" {
			name = device.Metadata.Namespace + "/" + name
		}
		t.row(name, device.Spec.Model, orNothing(device.Spec.Node), state, seen)
	}
	if len(t.rows) == 0 {
		d.field("Devices", "none")
		return nil
	}
	d.table("Devices", t)
	return nil
}

func (d *description) node(ctx context.Context, h hub, o *models.Node) error {
	d.optional("Description", o.Spec.Description)
	s := models.NodeStatus{}
	if o.Status != nil {
		s = *o.Status
	}
	d.field("Status", "%s", readiness(s.Conditions))
	d.field("Last seen", "%s", ago(s.LastSeen, d.now))
	d.optional("Version", s.NodeInfo.Version)
	d.optional("System", system(s.NodeInfo))
	d.optional("Address", s.NodeInfo.Address)
	d.optional("Engine", s.NodeInfo.ContainerRuntimeVersion)
	d.optional("Certificate", until(s.CertificateExpires, d.now))
	if b := s.Outbox; b != nil {
		d.field("Outbox", "%s, %d bytes, acknowledged up to %d of %d, %d dropped", plural(int(b.Records), "record"), b.Bytes, b.AckedSeq, b.LastSeq, b.Dropped)
	}
	d.conditions(s.Conditions)
	if err := d.devices(ctx, h, selection{kind: "Device"}, func(device *models.Device) bool { return device.Spec.Node == o.Metadata.Name }); err != nil {
		return err
	}
	return d.pods(ctx, h, selection{kind: "Pod"}, func(p *models.Pod) bool { return p.Spec.NodeName == o.Metadata.Name })
}

func (d *description) mapper(o *models.Mapper) error {
	d.optional("Description", o.Spec.Description)
	d.field("Version", "%s", o.Spec.Version)
	if s := o.Status; s != nil {
		for _, n := range s.Nodes {
			d.field("Node", "%s has %s", n.Name, n.Version)
		}
		d.conditions(s.Conditions)
	}
	if err := d.yaml("Connection", o.Spec.Connection); err != nil {
		return err
	}
	if err := d.yaml("Address", o.Spec.Address); err != nil || len(o.Spec.Property) == 0 {
		return err
	}
	return d.yaml("Property", o.Spec.Property)
}

func (d *description) user(ctx context.Context, h hub, o *models.User) error {
	d.field("Role", "%s", o.Spec.Role)
	d.field("Holds in", "%s", userNamespace(o))
	tokens, err := h.Tokens(ctx)
	if models.KindOf(err) == models.KindForbidden {
		return nil
	}
	if err != nil {
		return err
	}
	t := &table{titles: slices.Clone(tokenTitles)}
	for _, k := range tokens {
		if k.User == o.Metadata.Name {
			t.row(tokenRow(k, d.now)...)
		}
	}
	if len(t.rows) == 0 {
		d.field("Tokens", "none")
		return nil
	}
	t.without("KIND", "FOR")
	d.table("Tokens", t)
	return nil
}

// yaml writes a JSON document as YAML under a title.
func (d *description) yaml(title string, text []byte) error {
	out, err := toYAML(text)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.ToLower(title), err)
	}
	out = bytes.TrimSpace(out)
	if !bytes.ContainsAny(out, "\n:") {
		d.field(title, "%s", out)
		return nil
	}
	fmt.Fprintf(d.w, "%s:\n", title)
	for l := range strings.Lines(string(out)) {
		fmt.Fprintf(d.w, "  %s\n", plain(strings.TrimRight(l, "\n")))
	}
	return nil
}
