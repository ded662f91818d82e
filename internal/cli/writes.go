package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func twinWritesCommand() *cobra.Command {
	var conn connection
	var out output
	var q models.LedgerQuery
	var since string
	cmd := &cobra.Command{
		Use:   "writes DEVICE",
		Short: "Show who set what, and what became of it",
		Long: `Shows the desired writes of a device, the newest first: who asked, why and by which way, what was reported before, and
what became of it. Writes made at the edge are there, too.`,
		Example: `  whimbrel twin writes boiler-1
  whimbrel twin writes boiler-1 --property setpoint --since 24h -o wide`,
		Args:              arguments(1, 1, "the name of a device"),
		ValidArgsFunction: conn.completeDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if q.Limit < 0 {
				return Usagef("--limit must not be negative")
			}
			if since != "" {
				var err error
				if q.Since, err = moment("--since", since, time.Now()); err != nil {
					return err
				}
			}
			return conn.withDevice(cmd, args[0], func(ctx context.Context, h hub, device models.Key) error {
				entries, next, err := h.Writes(ctx, device.Namespace, device.Name, q)
				if err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				if out.document() {
					return out.print(w, listDocument{Kind: "WriteList", Metadata: listMetadata{Continue: next}, Items: entries})
				}
				if len(entries) == 0 {
					fmt.Fprintln(cmd.ErrOrStderr(), "No writes found.")
					return nil
				}
				writesTable(entries, out.format == "wide", time.Now()).write(w, terminalWidth(w), "")
				if next != "" {
					fmt.Fprintln(cmd.ErrOrStderr(), "There are more: --limit or --since choose others.")
				}
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	out.addFlag(cmd, "wide", "json", "yaml")
	cmd.Flags().StringVar(&q.Property, "property", "", "only writes of this property")
	cmd.Flags().StringVar(&q.State, "state", "", "only writes in this state, such as failed")
	cmd.Flags().StringVar(&q.UID, "uid", "", "of a device that was deleted")
	cmd.Flags().StringVar(&since, "since", "", "only writes that were asked for since then: how long ago, such as 24h or 7d, or a time such as 2026-01-02T15:04:05Z")
	cmd.Flags().IntVar(&q.Limit, "limit", 100, "at most this many")
	return cmd
}

func writesTable(entries []twin.LedgerEntry, wide bool, now time.Time) *table {
	t := &table{titles: []string{"ASKED", "PROPERTY!", "VALUE", "BEFORE", "STATE", "TOOK", "BY", "ORIGIN", "REASON"}}
	if wide {
		t.titles = append(t.titles, "ID", "SUPERSEDEDBY", "TRACEPARENT")
	}
	for _, e := range entries {
		shown, before, took := "(withdrawn)", nothing, nothing
		if !e.Value.IsNull() {
			shown = value(e.Value, "", "")
		}
		if e.Before != nil {
			before = value(e.Before.Value, e.Before.Name, "")
		}
		if e.Confirmed != nil {
			took = e.Confirmed.Sub(e.Asked).Round(time.Millisecond).String()
		}
		state := e.State
		if e.Late {
			state += ", late"
		}
		if e.Error != "" {
			state += ": " + e.Error
		}
		row := []string{ago(&e.Asked, now), e.Property, shown, before, state, took, orNothing(e.By), e.Origin, orNothing(e.Reason)}
		if wide {
			row = append(row, e.ID, orNothing(e.SupersededBy), orNothing(e.Traceparent))
		}
		t.row(row...)
	}
	return t
}
