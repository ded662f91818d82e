package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/models"
)

// ref is one thing that a command is about: a kind, or one object of it.
type ref struct {
	info   models.KindInfo
	tokens bool // info is empty: tokens are no objects
	name   string
	key    models.Key // of the object, where there is a name
}

func (r ref) plural() string {
	if r.tokens {
		return "tokens"
	}
	return r.info.Plural
}

// parseRefs understands "devices", "devices,models", "device boiler-1 pump-1"
// and "device/boiler-1".
func (c *connection) parseRefs(args []string) (refs []ref, err error) {
	parse := func(kind, name string) error {
		if strings.EqualFold(kind, "token") || strings.EqualFold(kind, "tokens") {
			refs = append(refs, ref{tokens: true, name: name})
			return nil
		}
		info, err := kindOf(kind)
		if err != nil {
			return err
		}
		r := ref{info: info, name: name}
		if name != "" {
			r.key, err = c.key(info, name)
		}
		refs = append(refs, r)
		return err
	}
	if strings.Contains(args[0], "/") {
		for _, a := range args {
			kind, name, ok := strings.Cut(a, "/")
			if !ok || name == "" {
				return nil, Usagef("expected KIND/NAME, got %q", a)
			}
			if err := parse(kind, name); err != nil {
				return nil, err
			}
		}
		return refs, nil
	}
	kinds := strings.Split(args[0], ",")
	if len(kinds) > 1 && len(args) > 1 {
		return nil, Usagef("names can be given for one kind only")
	}
	for _, k := range kinds {
		if len(args) == 1 {
			if err := parse(k, ""); err != nil {
				return nil, err
			}
		}
		for _, name := range args[1:] {
			if err := parse(k, name); err != nil {
				return nil, err
			}
		}
	}
	return refs, nil
}

// getFlags is the flags of get.
type getFlags struct {
	connection
	output
	selector string
	all      bool
	watch    bool
	events   eventFlags
	by       string
	action   string
}

func getCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:     "get KIND [NAME…]",
		GroupID: GroupObjects,
		Short:   "Show objects in a table, or whole",
		Long: `Shows objects in a table, or whole with -o yaml or -o json. A device of another namespace can be named NAMESPACE.NAME, as edges
and their topics say it, here and with every other command.

Kinds are devices, devicemodels, nodes, mappers, deployments, daemonsets, statefulsets, pods, services, configmaps, controllerrevisions, users,
tokens, events and audit, also in the singular or as dev, dm, no, deploy, ds, sts, po, svc, cm, ev. Events are those of all that you may see,
unless a namespace is given. The audit, who changed what, is for admins of all namespaces.`,
		Example: `  whimbrel get devices
  whimbrel get devices -l area=hall-a -o wide
  whimbrel get device boiler-1 -o yaml
  whimbrel get nodes -w
  whimbrel get events --for device/boiler-1 -w
  whimbrel get audit --by ann --since 24h`,
		Args:              arguments(1, -1, "a kind, such as devices"),
		ValidArgsFunction: f.completeObjects(true),
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.connection.addFlags(cmd)
	f.output.addFlag(cmd, "wide", "json", "yaml", "name")
	cmd.Flags().StringVarP(&f.selector, "selector", "l", "", "only objects whose labels match, such as area=hall-a,!spare")
	cmd.Flags().BoolVarP(&f.all, "all-namespaces", "A", false, "objects of every namespace")
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "go on and show what changes")
	f.events.addFlags(cmd)
	cmd.Flags().StringVar(&f.by, "by", "", "only what this user did (audit)")
	cmd.Flags().StringVar(&f.action, "action", "", "only what was "+strings.Join(models.AuditActions, ", ")+" (audit)")
	return cmd
}

func (f *getFlags) run(cmd *cobra.Command, args []string) error {
	if err := f.output.check(); err != nil {
		return err
	}
	if isAudit(args[0]) {
		return f.showAudit(cmd, args)
	}
	if f.by != "" || f.action != "" {
		return Usagef("--by and --action are for the audit")
	}
	if isEvents(args[0]) {
		return f.showEvents(cmd, args)
	}
	if f.events.given() {
		return Usagef("--for, --type and --since are for events, and but for --type for the audit")
	}
	refs, err := f.parseRefs(args)
	if err != nil {
		return err
	}
	if _, err := models.ParseSelector(f.selector); err != nil {
		return Usagef("--selector: %w", err)
	}
	named := refs[0].name != ""
	switch {
	case named && f.selector != "":
		return Usagef("a name and --selector cannot be given together")
	case named && f.all:
		return Usagef("a name and --all-namespaces cannot be given together: use --namespace")
	case f.watch && (len(refs) > 1 || refs[0].tokens):
		return Usagef("--watch shows one kind, or one object of it, and no tokens")
	}
	return f.with(cmd, func(ctx context.Context, h hub) error {
		if f.watch {
			return f.follow(ctx, cmd, h, refs[0])
		}
		return f.show(ctx, cmd, h, refs)
	})
}

// found is objects of one kind, to be printed together.
type found struct {
	ref     ref
	objects []models.Object
	tokens  []client.TokenInfo
	version string
}

func (f *found) items() int { return len(f.objects) + len(f.tokens) }

func (f *getFlags) show(ctx context.Context, cmd *cobra.Command, h hub, refs []ref) error {
	var all []found
	wrong := false
	for _, r := range refs {
		one, err := f.fetch(ctx, h, r)
		if models.KindOf(err) == models.KindNotFound {
			printError(cmd.ErrOrStderr(), err)
			wrong = true
			continue
		}
		if err != nil {
			return err
		}
		if last := len(all) - 1; last >= 0 && r.name != "" && all[last].ref.plural() == r.plural() {
			all[last].objects = append(all[last].objects, one.objects...)
			all[last].tokens = append(all[last].tokens, one.tokens...)
		} else {
			all = append(all, one)
		}
	}
	if err := f.printFound(cmd, all, len(refs) == 1 && refs[0].name != ""); err != nil {
		return err
	}
	if wrong {
		return failed
	}
	return nil
}

func (f *getFlags) fetch(ctx context.Context, h hub, r ref) (found, error) {
	out := found{ref: r}
	var err error
	switch {
	case r.tokens:
		tokens, err := h.Tokens(ctx)
		if err != nil {
			return out, err
		}
		for _, t := range tokens {
			if r.name == "" || t.ID == r.name {
				out.tokens = append(out.tokens, t)
			}
		}
		if r.name != "" && len(out.tokens) == 0 {
			return out, models.Errorf(models.KindNotFound, "token/%s not found", r.name)
		}
	case r.name != "":
		o, err := h.Get(ctx, r.key)
		if models.KindOf(err) == models.KindNotFound {
			return out, notFound(r.key)
		}
		if err != nil {
			return out, err
		}
		out.objects = []models.Object{o}
	default:
		var l models.List
		if l, err = h.List(ctx, f.selection(r)); err != nil {
			return out, err
		}
		out.objects, out.version = l.Items, l.ResourceVersion
	}
	return out, nil
}

func (f *getFlags) selection(r ref) selection {
	o := selection{kind: r.info.Kind, selector: f.selector, namespace: r.key.Namespace}
	if r.name == "" && r.info.Namespaced && !f.all {
		o.namespace = f.namespace
	}
	return o
}

func (f *getFlags) printFound(cmd *cobra.Command, all []found, single bool) error {
	w := cmd.OutOrStdout()
	if f.document() {
		return f.printDocuments(w, all, single)
	}
	shown := 0
	for _, one := range all {
		if f.format == "name" {
			for _, o := range one.objects {
				fmt.Fprintln(w, short(models.KeyOf(o)))
			}
			for _, t := range one.tokens {
				fmt.Fprintln(w, "token/"+t.ID)
			}
		}
		if one.items() == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), f.none(one.ref))
		}
		if f.format == "name" || one.items() == 0 {
			continue
		}
		if shown++; shown > 1 {
			fmt.Fprintln(w)
		}
		now := time.Now()
		t := objectTable(one.ref)
		for _, o := range one.objects {
			t.row(objectRow(o, now)...)
		}
		for _, k := range one.tokens {
			t.row(tokenRow(k, now)...)
		}
		f.trim(t, one.ref)
		t.write(w, terminalWidth(w), "")
	}
	return nil
}

// none says that there is nothing, and where.
func (f *getFlags) none(r ref) string {
	if r.tokens || !r.info.Namespaced || f.all {
		return fmt.Sprintf("No %s found.", r.plural())
	}
	return fmt.Sprintf("No %s found in %s namespace.", r.plural(), f.namespace)
}

func (f *getFlags) printDocuments(w io.Writer, all []found, single bool) error {
	if single && len(all) == 1 && len(all[0].objects) == 1 {
		return f.print(w, all[0].objects[0])
	}
	if single && len(all) == 1 && len(all[0].tokens) == 1 {
		return f.print(w, all[0].tokens[0])
	}
	doc := listDocument{Kind: "List"}
	items := []any{}
	for _, one := range all {
		for _, o := range one.objects {
			items = append(items, o)
		}
		for _, t := range one.tokens {
			items = append(items, t)
		}
	}
	if len(all) == 1 {
		doc.Kind, doc.Metadata.ResourceVersion = all[0].ref.info.Kind+"List", all[0].version
		if all[0].ref.tokens {
			doc.Kind = "TokenList"
		}
	}
	doc.Items = items
	return f.print(w, doc)
}

// trim leaves the columns out that nobody asked for.
func (f *getFlags) trim(t *table, r ref) {
	if f.all && r.info.Namespaced {
		t.titles[0] = "NAMESPACE!"
	} else {
		t.without("IN")
	}
	if f.format != "wide" {
		t.without(wideColumns...)
	}
}

// follow shows what there is and then what changes, until it is interrupted.
func (f *getFlags) follow(ctx context.Context, cmd *cobra.Command, h hub, r ref) error {
	w := cmd.OutOrStdout()
	o := f.selection(r)
	l, err := h.List(ctx, o)
	if err != nil {
		return err
	}
	p := changePrinter{f: f, w: w, ref: r}
	if r.name != "" && !contains(l.Items, r.key) {
		return notFound(r.key)
	}
	for _, object := range l.Items {
		p.add(models.Event{Type: models.Added, Object: object})
	}
	if err := p.begin(); err != nil {
		return err
	}
	from := l.ResourceVersion
	for {
		err := h.Watch(ctx, o, from, func(ev models.Event) error {
			if ev.Type == models.Bookmark {
				return nil
			}
			return p.print(ev)
		})
		switch {
		case interrupted(ctx, err):
			return nil
		case models.KindOf(err) != models.KindGone || from == "":
			return err
		}
		from = "" // all of it again
	}
}

func contains(objects []models.Object, key models.Key) bool {
	for _, o := range objects {
		if models.KeyOf(o) == key {
			return true
		}
	}
	return false
}

// changePrinter prints events in the format that get was asked for.
type changePrinter struct {
	f     *getFlags
	w     io.Writer
	ref   ref
	first []models.Event
	rows  *stream
}

func (p *changePrinter) add(ev models.Event) {
	if p.wanted(ev) {
		p.first = append(p.first, ev)
	}
}

func (p *changePrinter) wanted(ev models.Event) bool {
	return p.ref.name == "" || models.KeyOf(ev.Object) == p.ref.key
}

// begin prints what there is already.
func (p *changePrinter) begin() error {
	if p.f.format == "" || p.f.format == "wide" {
		p.rows = startStream(p.w, p.table(p.first...))
		return nil
	}
	for _, ev := range p.first {
		if err := p.print(ev); err != nil {
			return err
		}
	}
	return nil
}

func (p *changePrinter) print(ev models.Event) error {
	if !p.wanted(ev) {
		return nil
	}
	switch p.f.format {
	case "json":
		return line(p.w, watchEvent{ev.Type, ev.Object})
	case "yaml":
		fmt.Fprintln(p.w, "---")
		return p.f.output.print(p.w, watchEvent{ev.Type, ev.Object})
	case "name":
		_, err := fmt.Fprintln(p.w, short(models.KeyOf(ev.Object)))
		return err
	}
	p.rows.row(p.table(ev).rows[0]...)
	return nil
}

type watchEvent struct {
	Type   models.EventType `json:"type"`
	Object models.Object    `json:"object"`
}

func (p *changePrinter) table(events ...models.Event) *table {
	now := time.Now()
	t := objectTable(p.ref)
	for _, ev := range events {
		t.row(objectRow(ev.Object, now)...)
	}
	p.f.trim(t, p.ref)
	t.titles = slices.Insert(t.titles, 0, "EVENT!")
	for i, ev := range events {
		t.rows[i] = slices.Insert(t.rows[i], 0, fmt.Sprintf("%-8s", ev.Type))
	}
	return t
}
