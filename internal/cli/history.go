package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/internal/durationflag"
	"github.com/whimbrel-edge/whimbrel/models"
)

func historyCommand() *cobra.Command {
	var conn connection
	var out output
	var since, step time.Duration
	var from, to, agg, uid string
	var limit int
	cmd := &cobra.Command{
		Use:     "history DEVICE PROPERTY",
		GroupID: GroupObjects,
		Short:   "Show what a property was: its samples, or buckets of them",
		Example: `  whimbrel history boiler-1 temperature --since 10m
  whimbrel history boiler-1 temperature --since 24h --step 1h
  whimbrel history boiler-1 temperature --from 2w --to 1w --step 1d
  whimbrel history boiler-1 temperature --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z -o csv > january.csv
  whimbrel history boiler-1 temperature --uid 01K8ZQ0C4M7T2X9V5B3N6R1D8E`,
		Args:              arguments(2, 2, "the name of a device and of one of its properties"),
		ValidArgsFunction: conn.completeDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("step") && step <= 0 {
				return Usagef("--step must be more than 0s, got %v; leave it out for the samples themselves", step)
			}
			if err := out.check(); err != nil {
				return err
			}
			q, err := historyQuery(time.Now(), since, step, from, to, agg)
			if err != nil {
				return err
			}
			if limit < 0 {
				return Usagef("--limit must not be negative")
			}
			q.Limit, q.UID = limit, uid
			return conn.withDevice(cmd, args[0], func(ctx context.Context, h hub, device models.Key) error {
				err := history(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), h, device, args[1], q, out)
				if models.KindOf(err) == models.KindNotFound && (q.UID != "" || strings.Contains(err.Error(), "property")) {
					return err
				}
				return deviceError(err, device)
			})
		},
	}
	conn.addFlags(cmd)
	out.addFlag(cmd, "table", "csv", "json")
	f := cmd.Flags()
	durationflag.Var(f, &since, "since", time.Hour, "how far back, such as 10m, 24h or 7d")
	f.StringVar(&from, "from", "", "the first time, such as 2026-01-02T15:04:05Z, or how long ago, such as 7d, instead of --since")
	f.StringVar(&to, "to", "", "the end, such as 2026-01-02T15:04:05Z, or how long ago, such as 1d (default now)")
	durationflag.Var(f, &step, "step", 0, "buckets of this width instead of the samples, such as 1m or 1d")
	f.StringVar(&agg, "agg", "", "what buckets tell: some of avg, min, max, count, first, last, joined by commas (default avg,min,max,count)")
	f.StringVar(&uid, "uid", "", "of a device that was deleted")
	f.IntVar(&limit, "limit", 0, "at most this many lines (default all)")
	return cmd
}

// historyQuery is the query that flags ask for.
func historyQuery(now time.Time, since, step time.Duration, from, to, agg string) (q models.HistoryQuery, err error) {
	if since <= 0 || step < 0 {
		return q, Usagef("--since must be more than 0s, and --step must not be negative")
	}
	q.Step = step
	if q.To, err = moment("--to", to, now); err != nil {
		return q, err
	}
	q.From = q.To.Add(-since)
	if from != "" {
		if q.From, err = moment("--from", from, now); err != nil {
			return q, err
		}
	}
	if agg != "" {
		if step == 0 {
			return q, Usagef("--agg needs a --step")
		}
		if q.Agg, err = models.ParseAggs(agg); err != nil {
			return q, usageError{err}
		}
	} else if step > 0 {
		q.Agg = models.DefaultAggs
	}
	return q, nil
}

func history(ctx context.Context, w, notes io.Writer, h hub, device models.Key, property string, q models.HistoryQuery, out output) error {
	switch out.format {
	case "csv":
		return h.ExportHistory(ctx, device.Namespace, device.Name, property, q, client.CSV, w)
	case "json":
		return historyDocument(ctx, w, h, device, property, q, out)
	}
	titles := []string{"TIME!", "VALUE", "QUALITY"}
	if q.Step > 0 {
		titles = []string{"TIME!"}
		for _, a := range q.Agg {
			titles = append(titles, strings.ToUpper(string(a)))
		}
	}
	var lines *stream
	var note string
	left, empty := q.Limit, true
	err := h.History(ctx, device.Namespace, device.Name, property, q, func(page models.History) error {
		note, empty = page.Note, empty && len(page.Points)+len(page.Buckets)+len(page.Gaps) == 0
		if lines == nil {
			t := &table{titles: titles}
			addHistory(t.row, page, q.Agg)
			lines = startStream(w, t)
		} else {
			addHistory(lines.row, page, q.Agg)
		}
		if left > 0 {
			if left -= len(page.Points) + len(page.Buckets); left <= 0 {
				return errEnough
			}
		}
		return nil
	})
	if err == errEnough {
		err = nil
	}
	switch {
	case err != nil:
	case note != "":
		fmt.Fprintf(notes, "%s: %s\n", property, note)
	case empty:
		fmt.Fprintf(notes, "No samples found from %s to %s.\n", stamp(q.From), stamp(q.To))
	}
	return err
}

// errEnough ends the reading of pages.
var errEnough = errors.New("enough")

// historyDocument prints all pages as one.
func historyDocument(ctx context.Context, w io.Writer, h hub, device models.Key, property string, q models.HistoryQuery, out output) error {
	var all *models.History
	err := h.History(ctx, device.Namespace, device.Name, property, q, func(page models.History) error {
		if all == nil {
			all = &page
		} else {
			all.Points, all.Buckets = append(all.Points, page.Points...), append(all.Buckets, page.Buckets...)
			all.Gaps, all.Continue = append(all.Gaps, page.Gaps...), page.Continue
		}
		if q.Limit > 0 && len(all.Points)+len(all.Buckets) >= q.Limit {
			return errEnough
		}
		return nil
	})
	if err != nil && err != errEnough {
		return err
	}
	return out.print(w, all)
}

// addHistory adds a page's rows: gaps stand between the others, by time.
func addHistory(row func(...string), page models.History, aggs []models.Agg) {
	gaps := page.Gaps
	before := func(t time.Time) {
		for len(gaps) > 0 && !gaps[0].From.After(t) {
			cells := []string{stamp(gaps[0].From), "gap until " + stamp(gaps[0].To), gaps[0].Reason}
			if len(aggs) > 0 {
				cells = []string{stamp(gaps[0].From), "gap until " + stamp(gaps[0].To) + ": " + gaps[0].Reason}
				for len(cells) < 1+len(aggs) {
					cells = append(cells, "")
				}
			}
			row(cells...)
			gaps = gaps[1:]
		}
	}
	for _, p := range page.Points {
		before(p.Time)
		quality := p.Quality.String()
		if p.Reason != "" {
			quality += " (" + string(p.Reason) + ")"
		}
		if p.Backfill {
			quality += ", backfill"
		}
		row(stamp(p.Time), value(p.Value, "", page.Unit), quality)
	}
	for i := range page.Buckets {
		b := &page.Buckets[i]
		before(b.Time)
		cells := []string{stamp(b.Time)}
		for _, a := range aggs {
			cells = append(cells, bucketCell(b, a, page.Unit))
		}
		row(cells...)
	}
	before(time.Unix(1<<40, 0)) // all that are left
}

// stamp is a time to the millisecond, as wide as any other.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func bucketCell(b *models.HistoryBucket, a models.Agg, unit string) string {
	var v *models.Value
	switch a {
	case models.AggAvg:
		if b.Avg == nil {
			return nothing
		}
		return value(models.Float(*b.Avg), "", unit)
	case models.AggCount:
		if b.Count == nil {
			return nothing
		}
		return strconv.FormatInt(*b.Count, 10)
	case models.AggMin:
		v = b.Min
	case models.AggMax:
		v = b.Max
	case models.AggFirst:
		v = b.First
	case models.AggLast:
		v = b.Last
	}
	if v == nil {
		return nothing
	}
	return value(*v, "", unit)
}
