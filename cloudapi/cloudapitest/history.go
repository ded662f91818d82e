package cloudapitest

import (
	"context"
	"slices"
	"strconv"

	"github.com/whimbrel-edge/whimbrel/models"
)

// History implements cloudapi.History with what Report was told.
func (h *Hub) History(ctx context.Context, namespace, name, property string, q models.HistoryQuery) (models.History, error) {
	out := models.History{Device: name, Property: property, Gaps: []models.HistoryGap{}}
	doc, err := h.Twin(ctx, namespace, name)
	if err != nil {
		return out, err
	}
	p, known := doc.Properties[property]
	if !known {
		return out, models.Errorf(models.KindNotFound, "device %s has no property %.40q", name, property)
	}
	out.Unit = p.Unit
	h.mu.Lock()
	points := slices.Clone(h.devices[deviceKey(namespace, name)].history[property])
	h.mu.Unlock()
	points = slices.DeleteFunc(points, func(p models.HistoryPoint) bool { return p.Time.Before(q.From) || !p.Time.Before(q.To) })
	slices.SortStableFunc(points, func(a, b models.HistoryPoint) int { return a.Time.Compare(b.Time) })
	start := 0
	if q.Continue != "" {
		if start, err = strconv.Atoi(q.Continue); err != nil {
			return out, models.BadParameter(models.KindMalformed, "continue", "must be what the page before gave")
		}
	}
	if q.Step == 0 {
		end := min(start+q.Limit, len(points))
		if end < len(points) {
			out.Continue = strconv.Itoa(end)
		}
		out.Points = append([]models.HistoryPoint{}, points[start:end]...)
		return out, nil
	}
	all := bucketsOf(points, q)
	end := min(start+q.Limit, len(all))
	if end < len(all) {
		out.Continue = strconv.Itoa(end)
	}
	out.Buckets = append([]models.HistoryBucket{}, all[start:end]...)
	return out, nil
}

// bucketsOf is a bucket for every step with numbers in it.
func bucketsOf(points []models.HistoryPoint, q models.HistoryQuery) (out []models.HistoryBucket) {
	for len(points) > 0 {
		at := points[0].Time.Truncate(q.Step)
		var sum float64
		var values []models.Value
		for len(points) > 0 && points[0].Time.Truncate(q.Step).Equal(at) {
			if f, ok := points[0].Value.AsFloat(); ok {
				sum += f
				values = append(values, points[0].Value)
			}
			points = points[1:]
		}
		if len(values) == 0 {
			continue
		}
		b := models.HistoryBucket{Time: at}
		order := func(a, b models.Value) int { c, _ := a.Compare(b); return c }
		for _, a := range q.Agg {
			switch a {
			case models.AggAvg:
				b.Avg = new(sum / float64(len(values)))
			case models.AggMin:
				b.Min = new(slices.MinFunc(values, order))
			case models.AggMax:
				b.Max = new(slices.MaxFunc(values, order))
			case models.AggCount:
				b.Count = new(int64(len(values)))
			case models.AggFirst:
				b.First = &values[0]
			case models.AggLast:
				b.Last = &values[len(values)-1]
			}
		}
		out = append(out, b)
	}
	return out
}
