package cloudapi

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// History is what the history endpoint needs.
type History interface {
	// History returns one page of a property's history. KindNotFound: there is no
	// such device, or it neither has the property nor has ever had it.
	History(ctx context.Context, namespace, device, property string, q models.HistoryQuery) (models.History, error)
}

// The bounds of a history query.
const (
	defaultHistory = time.Hour
	defaultPoints  = 10_000
	maxPoints      = 100_000
	minStep        = time.Millisecond
	maxStep        = 366 * 24 * time.Hour
)

// The media types of an export besides JSON's pages.
const (
	typeCSV   = "text/csv"
	typeLines = "application/x-ndjson"
)

func (a *api) historyRoutes() []route {
	return []route{{a.schemas.historyOp(), models.Viewer, a.getHistory}}
}

func (a *api) getHistory(c *call) (answer, error) {
	namespace, name, err := c.device(models.Viewer)
	if err != nil {
		return answer{}, err
	}
	q, err := c.historyQuery(time.Now())
	if err != nil {
		return answer{}, err
	}
	format := exportType(c.Header.Values("Accept"))
	if format != "" {
		return a.exportHistory(c, namespace, name, q, format)
	}
	if q.Limit == 0 {
		q.Limit = defaultPoints
	}
	page, err := a.History.History(c.Context(), namespace, name, c.param("property"), q)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: &page}, nil
}

func (c *call) historyQuery(now time.Time) (q models.HistoryQuery, err error) {
	if q.To, err = c.moment("to", now, now); err != nil {
		return q, err
	}
	if q.From, err = c.moment("from", q.To.Add(-defaultHistory), now); err != nil {
		return q, err
	}
	if q.From.After(q.To) {
		return q, models.BadParameter(models.KindInvalid, "from", "(%s) must not be after to (%s)", q.From.Format(time.RFC3339Nano), q.To.Format(time.RFC3339Nano))
	}
	if text := c.query.Get("step"); text != "" {
		if q.Step, err = models.ParseDuration(text); err != nil {
			return q, models.BadParameter(models.KindMalformed, "step", "%v, got %.40q", err, text)
		}
		if q.Step < minStep || q.Step > maxStep || q.Step%time.Microsecond != 0 {
			return q, models.BadParameter(models.KindInvalid, "step", "must be from %s to %s, in whole microseconds, got %.40q; without it there are the samples themselves", minStep, maxStep, text)
		}
	}
	switch text := c.query.Get("agg"); {
	case q.Step == 0 && text != "":
		return q, models.BadParameter(models.KindInvalid, "agg", "needs a step, such as step=1m")
	case text != "":
		if q.Agg, err = models.ParseAggs(text); err != nil {
			return q, err
		}
	case q.Step > 0:
		q.Agg = models.DefaultAggs
	}
	if text := c.query.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil && !errors.Is(err, strconv.ErrRange) {
			return q, models.BadParameter(models.KindMalformed, "limit", "must be an int, got %.40q", text)
		}
		if q.Limit < 0 || q.Limit > maxPoints {
			return q, models.BadParameter(models.KindInvalid, "limit", "must be from 0 to %d, got %.40s; continue gives the rest", maxPoints, text)
		}
	}
	q.Continue, q.UID = c.query.Get("continue"), c.query.Get("uid")
	if _, err := time.Parse(time.RFC3339Nano, c.query.Get("from")); q.Continue != "" && err != nil {
		q.From = time.Time{} // what is so long ago has moved since the page before, and continue has not
	}
	return q, nil
}

// exportType is the type in which an Accept header asks for an export, "" when it
// asks for a page: the one with the greatest q, of several the first, and one that
// is named before one that * means.
func exportType(accept []string) string {
	best, least := "", 0.0
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		export := ""
		switch {
		case kind == typeCSV:
			export = typeCSV
		case kind == typeLines || kind == "application/jsonl":
			export = typeLines
		case kind == "*/*" || kind == "application/*":
			q *= 0.9999
		case kind != "application/json" && !slices.Contains(yamlTypes, kind):
			continue
		}
		if q > least {
			best, least = export, q
		}
	}
	return best
}

// exportHistory streams all of a query, page by page: memory holds one. What goes
// wrong after the beginning ends the answer before its end.
func (a *api) exportHistory(c *call, namespace, name string, q models.HistoryQuery, format string) (answer, error) {
	left := q.Limit // 0: all
	s := &stream{c: c, contentType: format, compress: true}
	if format == typeCSV {
		s.first = csvTitle(q)
	}
	err := s.run(func(ctx context.Context) error {
		for {
			q.Limit = defaultPoints
			if left > 0 {
				q.Limit = min(q.Limit, left)
			}
			page, err := a.History.History(ctx, namespace, name, c.param("property"), q)
			if err != nil {
				return err
			}
			text, err := exported(page, q, format)
			if err != nil {
				return err
			}
			if err := s.write(text); err != nil {
				return err
			}
			if left > 0 {
				if left -= len(page.Points) + len(page.Buckets); left == 0 {
					return nil
				}
			}
			if q.Continue = page.Continue; q.Continue == "" {
				return nil
			}
		}
	})
	if err != nil && !s.started() {
		return answer{}, err
	}
	if err != nil && c.Context().Err() == nil {
		c.api.Log.WarnContext(c.Context(), "an export is cut off", "path", c.URL.Path, "error", err, "traceparent", c.trace)
		breakOff()
	}
	return answer{sent: true}, nil
}

// exported is a page as lines.
func exported(page models.History, q models.HistoryQuery, format string) ([]byte, error) {
	var b bytes.Buffer
	if format == typeCSV {
		w := csv.NewWriter(&b)
		for _, p := range page.Points {
			_ = w.Write([]string{p.Time.Format(time.RFC3339Nano), csvValue(&p.Value), p.Quality.String(), string(p.Reason), strconv.FormatBool(p.Backfill)})
		}
		for i := range page.Buckets {
			_ = w.Write(csvBucket(&page.Buckets[i], q.Agg))
		}
		w.Flush()
		return b.Bytes(), w.Error()
	}
	var out []byte
	line := func(v appender) { out = append(v.AppendJSON(out), '\n') }
	for i := range page.Gaps {
		out = append(page.Gaps[i].AppendJSON(append(out, `{"gap":`...)), "}\n"...)
	}
	for i := range page.Points {
		line(&page.Points[i])
	}
	for i := range page.Buckets {
		line(&page.Buckets[i])
	}
	return out, nil
}

func csvTitle(q models.HistoryQuery) []byte {
	titles := []string{"time", "value", "quality", "reason", "backfill"}
	if q.Step > 0 {
		titles = []string{"time"}
		for _, a := range q.Agg {
			titles = append(titles, string(a))
		}
	}
	return []byte(strings.Join(titles, ",") + "\n")
}

func csvBucket(b *models.HistoryBucket, aggs []models.Agg) []string {
	cells := []string{b.Time.Format(time.RFC3339Nano)}
	for _, a := range aggs {
		cell := ""
		switch a {
		case models.AggAvg:
			if b.Avg != nil {
				cell = strconv.FormatFloat(*b.Avg, 'g', -1, 64)
			}
		case models.AggCount:
			cell = strconv.FormatInt(*b.Count, 10)
		case models.AggMin:
			cell = csvValue(b.Min)
		case models.AggMax:
			cell = csvValue(b.Max)
		case models.AggFirst:
			cell = csvValue(b.First)
		case models.AggLast:
			cell = csvValue(b.Last)
		}
		cells = append(cells, cell)
	}
	return cells
}

// csvValue writes strings as they are, null as nothing, the rest as JSON.
func csvValue(v *models.Value) string {
	if v == nil || v.IsNull() {
		return ""
	}
	if text, ok := v.AsString(); ok {
		return text
	}
	if _, ok := v.AsBytes(); ok {
		return strings.Trim(v.String(), `"`)
	}
	return string(v.AppendJSON(nil))
}
