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

func isAudit(kind string) bool { return strings.EqualFold(kind, "audit") }

func (f *getFlags) auditOptions(cmd *cobra.Command, now time.Time) (o client.AuditOptions, err error) {
	if cmd.Flags().Changed("namespace") && !f.all {
		o.Namespace = f.namespace
	}
	if err := f.about(&o.Kind, &o.Namespace, &o.Name); err != nil {
		return o, err
	}
	if f.events.severity != "" {
		return o, Usagef("--type is for events")
	}
	if o.By, o.Action = f.by, f.action; o.Action != "" && !slices.Contains(models.AuditActions, o.Action) {
		return o, Usagef("--action must be one of %s, got %q", strings.Join(models.AuditActions, ", "), o.Action)
	}
	o.Since, err = f.events.from(now)
	return o, err
}

// showAudit is get for the audit: the latest is last, as in a log.
func (f *getFlags) showAudit(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) > 1:
		return Usagef("entries of the audit have no names of interest: use --for, such as --for device/boiler-1")
	case f.selector != "":
		return Usagef("entries of the audit have no labels: use --for")
	case f.format == "name":
		return Usagef("-o name is not for the audit")
	}
	o, err := f.auditOptions(cmd, time.Now())
	if err != nil {
		return err
	}
	return f.with(cmd, func(ctx context.Context, h hub) error {
		page, err := h.Audit(ctx, o)
		if err != nil {
			return err
		}
		slices.Reverse(page.Items)
		w := cmd.OutOrStdout()
		if f.watch {
			return f.followAudit(ctx, w, h, o, page)
		}
		if f.document() {
			return f.print(w, logDocument("AuditList", page.ResourceVersion, page.Items))
		}
		if len(page.Items) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "Nothing found in the audit.")
			return nil
		}
		if page.Continue != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "These are the latest %d; --since, --for, --by and --action choose others.\n", len(page.Items))
		}
		auditTable(page.Items, f.format == "wide", time.Now()).write(w, terminalWidth(w), "")
		return nil
	})
}

func (f *getFlags) followAudit(ctx context.Context, w io.Writer, h hub, o client.AuditOptions, page client.AuditPage) error {
	wide := f.format == "wide"
	return f.followLog(ctx, w, auditTable(page.Items, wide, time.Now()), asAny(page.Items), func(show func(any, []string) error) error {
		return h.WatchAudit(ctx, o, page.ResourceVersion, func(e models.AuditEntry) error {
			return show(e, auditRow(e, wide, time.Now()))
		})
	})
}

func auditTable(entries []models.AuditEntry, wide bool, now time.Time) *table {
	t := &table{titles: []string{"AGE", "BY!", "ACTION!", "OBJECT!", "FIELDS"}}
	if wide {
		t.titles = []string{"TIME!", "BY!", "ACTION!", "OBJECT!", "UID!", "FIELDS"}
	}
	for _, e := range entries {
		t.row(auditRow(e, wide, now)...)
	}
	return t
}

// shownFields is how many fields of a change a table shows.
const shownFields = 3

func auditRow(e models.AuditEntry, wide bool, now time.Time) []string {
	name := strings.ToLower(e.Kind) + "/" + e.Name
	if e.Namespace != "" && e.Namespace != models.DefaultNamespace {
		name = strings.ToLower(e.Kind) + "/" + e.Namespace + "/" + e.Name
	}
	by := e.By
	if by == "" {
		by = "(hub)"
	}
	fields := strings.Join(e.Fields, ", ")
	if more := len(e.Fields) - shownFields; more > 0 && !wide {
		fields = fmt.Sprintf("%s and %d more", strings.Join(e.Fields[:shownFields], ", "), more)
	}
	if e.Exec != nil {
		fields = strings.Join(e.Exec.Command, " ")
	}
	if wide {
		return []string{stamp(e.Time), by, e.Action, name, orNothing(e.UID), orNothing(fields)}
	}
	return []string{since(&e.Time, now), by, e.Action, name, orNothing(fields)}
}
