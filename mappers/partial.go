package mappers

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Partial is a Device that lacks some of its points: what they are does not fit
// the protocol. They are bad, ReasonMisconfigured, and nothing is asked for
// them; the others are served.
type Partial interface {
	// Misfit says what is wrong with a point, nil when nothing is. The answer
	// does not change.
	Misfit(point int) error
}

// OpenFitting opens a device and leaves those points out that the driver
// refuses; it is then a Partial. The error is the driver's when it speaks of
// something else, or when no point would be left.
func OpenFitting(d Driver, cfg DeviceConfig) (Device, error) {
	misfits := make([]error, len(cfg.Points))
	left := cfg.Points
	for {
		fitting := cfg
		fitting.Points = left
		device, err := d.Open(fitting)
		if err == nil {
			if len(left) == len(cfg.Points) {
				return device, nil
			}
			return newPartial(device, misfits), nil
		}
		refused := refusedPoints(err, left)
		if len(refused) == 0 {
			return nil, err
		}
		for i, p := range cfg.Points {
			if why := refused[p.Property]; why != nil && misfits[i] == nil {
				misfits[i] = why
			}
		}
		left = nil
		for i, p := range cfg.Points {
			if misfits[i] == nil {
				left = append(left, p)
			}
		}
		if len(left) == 0 {
			return nil, err
		}
	}
}

// refusedPoints is what an error of Open says of points, by property; nothing
// when it speaks of anything else, too.
func refusedPoints(err error, points []Point) map[string]error {
	var e *models.Error
	if !errors.As(err, &e) || len(e.Fields) == 0 {
		return nil
	}
	given := map[string]bool{}
	for _, p := range points {
		given[p.Property] = true
	}
	fields := map[string][]models.FieldError{}
	for _, f := range e.Fields {
		rest, ok := strings.CutPrefix(f.Pointer, "/spec/properties/")
		name, field, _ := strings.Cut(rest, "/")
		if !ok || !given[name] {
			return nil
		}
		if field != "" {
			field = "/" + field
		}
		fields[name] = append(fields[name], models.FieldError{Pointer: field, Detail: f.Detail})
	}
	out := map[string]error{}
	for name, list := range fields {
		out[name] = &models.Error{Kind: models.KindInvalid, Fields: list}
	}
	return out
}

// partial is a device with some of its points.
type partial struct {
	Device
	misfits []error
	inner   []int // the device's point for each of ours, -1 for a misfit
	outer   []int // and the other way round
}

// partialReporter is a partial whose device reads by itself.
type partialReporter struct {
	*partial
	reporter Reporter
}

var (
	_ Partial       = (*partial)(nil)
	_ Canonicalizer = (*partial)(nil)
	_ Planner       = (*partial)(nil)
	_ LineSharer    = (*partial)(nil)
	_ Subscriber    = (*partial)(nil)
	_ Reporter      = (*partialReporter)(nil)
)

func newPartial(d Device, misfits []error) Device {
	p := &partial{Device: d, misfits: misfits, inner: make([]int, len(misfits))}
	for i, why := range misfits {
		p.inner[i] = -1
		if why == nil {
			p.inner[i] = len(p.outer)
			p.outer = append(p.outer, i)
		}
	}
	if r, ok := d.(Reporter); ok {
		return &partialReporter{p, r}
	}
	return p
}

// Misfit implements Partial.
func (p *partial) Misfit(point int) error { return p.misfits[point] }

// refuse is why nothing can be done with a misfit.
func (p *partial) refuse(point int) *Failure {
	return &Failure{Reason: models.ReasonMisconfigured, Refused: true, Unsent: true, Err: p.misfits[point]}
}

// split finds the device's points among ours: at[i] is where the i-th stands.
func (p *partial) split(points []int) (inner, at []int) {
	for i, point := range points {
		if k := p.inner[point]; k >= 0 {
			inner, at = append(inner, k), append(at, i)
		}
	}
	return inner, at
}

// Read implements Device.
func (p *partial) Read(ctx context.Context, points []int, out []Result) error {
	inner, at := p.split(points)
	for i := range out {
		out[i] = Result{Quality: models.Bad, Reason: models.ReasonMisconfigured}
	}
	if len(inner) == 0 {
		return nil
	}
	results := make([]Result, len(inner))
	if err := p.Device.Read(ctx, inner, results); err != nil {
		return err
	}
	for i, r := range results {
		out[at[i]] = r
	}
	return nil
}

// Write implements Device.
func (p *partial) Write(ctx context.Context, writes []WriteRequest) []error {
	errs := make([]error, len(writes))
	var fitting []WriteRequest
	var at []int
	for i, w := range writes {
		k := p.inner[w.Point]
		if k < 0 {
			errs[i] = p.refuse(w.Point)
			continue
		}
		w.Point = k
		fitting, at = append(fitting, w), append(at, i)
	}
	if len(fitting) == 0 {
		return errs
	}
	told := p.Device.Write(ctx, fitting)
	for i := range at {
		switch {
		case i < len(told):
			errs[at[i]] = told[i]
		case told != nil:
			errs[at[i]] = Fail(models.ReasonProtocolError, errors.New("the driver did not say what became of the write"))
		}
	}
	return errs
}

// Canonical implements Canonicalizer.
func (p *partial) Canonical(point int, v models.Value) (models.Value, error) {
	k := p.inner[point]
	if k < 0 {
		return models.Null, p.refuse(point)
	}
	if c, ok := p.Device.(Canonicalizer); ok {
		return c.Canonical(k, v)
	}
	return v, nil
}

// Plan implements Planner.
func (p *partial) Plan(points []int) []models.ReadRequest {
	inner, _ := p.split(points)
	if planner, ok := p.Device.(Planner); ok {
		return planner.Plan(inner)
	}
	return []models.ReadRequest{{Text: fmt.Sprintf("read %d points", len(inner)), Points: len(inner)}}
}

// Line implements LineSharer.
func (p *partial) Line() string {
	if s, ok := p.Device.(LineSharer); ok {
		return s.Line()
	}
	return ""
}

// Subscribes implements Subscriber.
func (p *partial) Subscribes(point int) bool {
	s, ok := p.Device.(Subscriber)
	return ok && p.inner[point] >= 0 && s.Subscribes(p.inner[point])
}

// Subscribe implements Subscriber.
func (p *partial) Subscribe(ctx context.Context, points []Subscription, deliver func(points []int, results []Result)) error {
	s, ok := p.Device.(Subscriber)
	if !ok {
		return errors.New("the device has no subscriptions") // unreachable: Subscribes says so
	}
	var inner []Subscription
	for _, sub := range points {
		if k := p.inner[sub.Point]; k >= 0 {
			sub.Point = k
			inner = append(inner, sub)
		}
	}
	return s.Subscribe(ctx, inner, func(points []int, results []Result) { deliver(p.ours(points), results) })
}

// ours are our numbers of the device's points.
func (p *partial) ours(points []int) []int {
	out := make([]int, len(points))
	for i, k := range points {
		out[i] = p.outer[k]
	}
	return out
}

// Report implements Reporter.
func (p *partialReporter) Report(ctx context.Context, deliver func(Delivery) bool) {
	p.reporter.Report(ctx, func(d Delivery) bool {
		d.Points = p.ours(d.Points)
		return deliver(d)
	})
}
