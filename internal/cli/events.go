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

// isEvents reports whether a kind that a person typed is that of events.
func isEvents(kind string) bool {
	return strings.EqualFold(kind, "events") || strings.EqualFold(kind, "event") || strings.EqualFold(kind, "ev")
}

// eventFlags choose events.
type eventFlags struct {
	of       string
	severity string
	since    string
}

func (f *eventFlags) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.of, "for", "", "only what is about this object, such as device/boiler-1 (events, audit)")
	cmd.Flags().StringVar(&f.severity, "type", "", "only events of this type: Normal or Warning")
	cmd.Flags().StringVar(&f.since, "since", "", "only what happened since then: how long ago, such as 1h or 7d, or a time such as 2026-01-02T15:04:05Z (events, audit)")
}

func (f *eventFlags) given() bool { return f.of != "" || f.severity != "" || f.since != "" }

// about sets which object --for names, and nothing without it.
func (f *getFlags) about(kind, namespace, name *string) (err error) {
	if f.events.of == "" {
		return nil
	}
	var ok bool
	if *kind, *name, ok = strings.Cut(f.events.of, "/"); !ok || *kind == "" || *name == "" {
		return Usagef("--for needs KIND/NAME, such as device/boiler-1, got %q", f.events.of)
	}
	if info, known := models.KindByName(*kind); known {
		key, err := f.key(info, *name)
		if err != nil {
			return err
		}
		if key.Name != *name {
			*namespace = key.Namespace
		}
		*kind, *name = info.Kind, key.Name
	}
	return nil
}

// from is the time that --since says, zero for none.
func (f *eventFlags) from(now time.Time) (time.Time, error) {
	if f.since == "" {
		return time.Time{}, nil
	}
	return moment("--since", f.since, now)
}

func (f *getFlags) eventOptions(cmd *cobra.Command, now time.Time) (o client.EventOptions, err error) {
	if cmd.Flags().Changed("namespace") && !f.all {
		o.Namespace = f.namespace
	}
	if err := f.about(&o.Kind, &o.Namespace, &o.Name); err != nil {
		return o, err
	}
	switch {
	case f.events.severity == "":
	case strings.EqualFold(f.events.severity, string(models.SeverityNormal)):
		o.Type = models.SeverityNormal
	case strings.EqualFold(f.events.severity, string(models.SeverityWarning)):
		o.Type = models.SeverityWarning
	default:
		return o, Usagef("--type must be Normal or Warning, got %q", f.events.severity)
	}
	o.Since, err = f.events.from(now)
	return o, err
}

// showEvents is get for events: the latest is last, as in a log.
func (f *getFlags) showEvents(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) > 1:
		return Usagef("events have no names of interest: use --for, such as --for device/boiler-1")
	case f.selector != "":
		return Usagef("events have no labels: use --for")
	case f.format == "name":
		return Usagef("-o name is not for events")
	}
	o, err := f.eventOptions(cmd, time.Now())
	if err != nil {
		return err
	}
	return f.with(cmd, func(ctx context.Context, h hub) error {
		list, err := h.Events(ctx, o)
		if err != nil {
			return err
		}
		slices.Reverse(list.Items)
		w := cmd.OutOrStdout()
		if f.watch {
			return f.followEvents(ctx, w, h, o, list)
		}
		if f.document() {
			return f.print(w, logDocument("EventList", list.ResourceVersion, list.Items))
		}
		if len(list.Items) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "No events found.")
			return nil
		}
		eventTable(list.Items, f.format == "wide", time.Now()).write(w, terminalWidth(w), "")
		return nil
	})
}

func (f *getFlags) followEvents(ctx context.Context, w io.Writer, h hub, o client.EventOptions, list models.LoggedEvents) error {
	wide := f.format == "wide"
	var first []any
	for _, e := range list.Items {
		first = append(first, eventChange{models.Added, e})
	}
	return f.followLog(ctx, w, eventTable(list.Items, wide, time.Now()), first, func(show func(any, []string) error) error {
		return h.WatchEvents(ctx, o, list.ResourceVersion, func(c models.EventChange) error {
			if c.Type == models.Bookmark {
				return nil
			}
			return show(eventChange{c.Type, c.Event}, eventRow(c.Event, wide, time.Now()))
		})
	})
}

// followLog shows what there is, as documents or a table, and then what watch brings,
// each as a document and as a row, until ctx ends.
func (f *getFlags) followLog(ctx context.Context, w io.Writer, t *table, documents []any, watch func(show func(document any, row []string) error) error) error {
	var rows *stream
	show := func(document any, row []string) error {
		switch f.format {
		case "json":
			return line(w, document)
		case "yaml":
			fmt.Fprintln(w, "---")
			return f.output.print(w, document)
		}
		rows.row(row...)
		return nil
	}
	if !f.document() {
		rows, documents = startStream(w, t), nil
	}
	for _, d := range documents {
		if err := show(d, nil); err != nil {
			return err
		}
	}
	if err := watch(show); !interrupted(ctx, err) {
		return err
	}
	return nil
}

func asAny[T any](items []T) (out []any) {
	for _, i := range items {
		out = append(out, i)
	}
	return out
}

type eventChange struct {
	Type   models.EventType   `json:"type"`
	Object models.LoggedEvent `json:"object"`
}

func eventTable(events []models.LoggedEvent, wide bool, now time.Time) *table {
	t := &table{titles: []string{"LASTSEEN", "TYPE", "REASON!", "OBJECT!", "MESSAGE"}}
	if wide {
		t.titles = []string{"LASTSEEN", "TYPE", "REASON!", "OBJECT!", "SOURCE", "MESSAGE", "FIRSTSEEN", "COUNT"}
	}
	for _, e := range events {
		t.row(eventRow(e, wide, now)...)
	}
	return t
}

func eventRow(e models.LoggedEvent, wide bool, now time.Time) []string {
	of := e.InvolvedObject
	name := strings.ToLower(of.Kind) + "/" + of.Name
	if of.Namespace != "" && of.Namespace != models.DefaultNamespace {
		name = strings.ToLower(of.Kind) + "/" + of.Namespace + "/" + of.Name
	}
	if of.FieldPath != "" {
		name += " " + of.FieldPath
	}
	last, first := since(&e.LastTimestamp, now), since(&e.FirstTimestamp, now)
	if wide {
		source := e.Source.Component
		if e.Source.Host != "" {
			source += ", " + e.Source.Host
		}
		return []string{last, string(e.Type), e.Reason, name, orNothing(source), orNothing(e.Message), first, fmt.Sprint(e.Count)}
	}
	if e.Count > 1 {
		last += fmt.Sprintf(" (x%d over %s)", e.Count, first)
	}
	return []string{last, string(e.Type), e.Reason, name, orNothing(e.Message)}
}

// describedEvents is how many events describe shows.
const describedEvents = 20

// events writes what happened to an object lately, the latest last.
func (d *description) events(ctx context.Context, h hub, o models.Object) error {
	key := models.KeyOf(o)
	list, err := h.Events(ctx, client.EventOptions{Namespace: key.Namespace, Kind: key.Kind, Name: key.Name, Limit: describedEvents})
	if err != nil {
		return err
	}
	t := &table{titles: []string{"TYPE", "REASON!", "AGE", "MESSAGE"}}
	for _, e := range slices.Backward(list.Items) {
		row := eventRow(e, false, d.now)
		message := row[4]
		if of := e.InvolvedObject.FieldPath; of != "" {
			message = of + ": " + message
		}
		t.row(row[1], row[2], row[0], message)
	}
	if len(t.rows) == 0 {
		d.field("Events", "none")
		return nil
	}
	d.table("Events", t)
	return nil
}
