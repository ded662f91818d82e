package opcua

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/opcua"
)

// device is one server. Read, Write and Canonical are called from one
// goroutine, as mappers.Device says, and Subscribe from another; they share the
// session.
type device struct {
	target target
	link   *link
	log    *slog.Logger
	points []point
	tap    tap

	// batch is how many nodes one request may name, as far as the server has
	// taught.
	batch atomic.Int64

	mu     sync.Mutex
	shapes []wire.Shape // by point, of the node; the zero Shape is not known yet
}

// maxBatch is how many nodes a request names unless the server takes fewer.
const maxBatch = 1000

var (
	_ mappers.Device        = (*device)(nil)
	_ mappers.Canonicalizer = (*device)(nil)
	_ mappers.Planner       = (*device)(nil)
	_ mappers.Subscriber    = (*device)(nil)
	_ mappers.Recordable    = (*device)(nil)
)

func newDevice(t target, points []point, identify func() (*wire.Identity, error), log *slog.Logger) *device {
	d := &device{target: t, points: points, log: log, shapes: make([]wire.Shape, len(points))}
	d.link = newLink(t, identify, d.lookAround)
	d.batch.Store(maxBatch)
	return d
}

// lookAround says which namespaces of the points a server does not have: it
// answers only that it does not know their nodes.
func (d *device) lookAround(s *session) {
	told := map[string]bool{}
	for i := range d.points {
		if uri := d.points[i].node.Unknown(s.namespaces); uri != "" && !told[uri] {
			told[uri] = true
			d.log.Warn("the server does not have a namespace that properties are in", "namespace", uri, "property", d.points[i].property)
		}
	}
}

// Close implements mappers.Device.
func (d *device) Close() error {
	d.link.close()
	return nil
}

// Plan implements mappers.Planner.
func (d *device) Plan(points []int) []models.ReadRequest {
	var out []models.ReadRequest
	for part := range slices.Chunk(points, int(d.batch.Load())) {
		out = append(out, models.ReadRequest{Text: fmt.Sprintf("Read %d values", len(part)), Points: len(part)})
	}
	return out
}

// Read implements mappers.Device.
func (d *device) Read(ctx context.Context, points []int, out []mappers.Result) error {
	s, err := d.link.session(ctx)
	if err != nil {
		d.tap.failed(ctx, err, d.target.timeout)
		return err
	}
	return d.read(ctx, s, points, out)
}

// read reads points in as few requests as the server allows.
func (d *device) read(ctx context.Context, s *session, points []int, out []mappers.Result) error {
	nodes := make([]*ua.ReadValueID, len(points))
	for i, p := range points {
		nodes[i] = &ua.ReadValueID{NodeID: s.node(&d.points[p]), AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}}
	}
	values, err := d.attributes(ctx, s, nodes)
	if err != nil {
		d.tap.failed(ctx, err, d.target.timeout)
		return failure(err)
	}
	d.tap.told(d.points, points, values)
	for i, p := range points {
		out[i] = d.result(p, values[i])
	}
	return nil
}

// attributes reads attributes in batches.
func (d *device) attributes(ctx context.Context, s *session, nodes []*ua.ReadValueID) ([]*ua.DataValue, error) {
	out := make([]*ua.DataValue, 0, len(nodes))
	for len(out) < len(nodes) {
		n := min(int(d.batch.Load()), len(nodes)-len(out))
		part := nodes[len(out) : len(out)+n]
		answer, err := ask[*ua.ReadResponse](ctx, d.link, s, &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth, NodesToRead: part})
		switch {
		case tooMany(err) && n > 1:
			d.batch.Store(int64((n + 1) / 2))
			continue
		case err != nil:
			return nil, err
		case len(answer.Results) != n:
			s.fail()
			return nil, mappers.Fail(models.ReasonProtocolError, fmt.Errorf("%d answers to %d nodes", len(answer.Results), n))
		}
		out = append(out, answer.Results...)
	}
	return out, nil
}

// tooMany tells the errors by which a server says that a request names too many
// nodes.
func tooMany(err error) bool {
	return errors.Is(err, ua.StatusBadTooManyOperations) || errors.Is(err, ua.StatusBadRequestTooLarge) ||
		errors.Is(err, ua.StatusBadResponseTooLarge) || errors.Is(err, ua.StatusBadEncodingLimitsExceeded)
}

// result is what a value says about a point. It learns the node's type.
func (d *device) result(p int, dv *ua.DataValue) mappers.Result {
	pt := &d.points[p]
	if dv == nil {
		return mappers.Result{Quality: models.Bad, Reason: models.ReasonProtocolError, Err: fmt.Errorf("the server says nothing of node %s", pt.address)}
	}
	r := mappers.Result{Time: timeOf(dv)}
	r.Quality, r.Reason = wire.Judge(dv.Status)
	if shape := wire.ShapeOf(dv.Value); shape.Type != 0 {
		d.learn(p, shape)
	}
	if r.Quality == models.Bad {
		r.Err = d.explain(pt, dv.Status)
		return r
	}
	bad := func(reason models.Reason) mappers.Result {
		return mappers.Result{Quality: models.Bad, Reason: reason, Time: r.Time}
	}
	v, err := pt.value(dv.Value)
	switch {
	case err != nil:
		r := bad(models.ReasonConfiguration)
		r.Err = fmt.Errorf("node %s: %w; correct the property's type, or its address", pt.address, err)
		return r
	case v.IsNull() && wire.HoldsNumber(dv.Value):
		return bad(models.ReasonNotANumber)
	case v.IsNull():
		return bad(models.ReasonNotImplemented)
	}
	r.Value = v
	return r
}

// explain says what a bad status of a node means, and what to do where that is
// known.
func (d *device) explain(pt *point, status ua.StatusCode) error {
	return means(pt, status, advice(status, d.target.device))
}

// refusal is the same of a write.
func (d *device) refusal(pt *point, status ua.StatusCode) error {
	do := ""
	switch status {
	case ua.StatusBadNotWritable:
		do = "give the property access: Read, or another address"
	case ua.StatusBadUserAccessDenied:
		do = "give the connection a user who may write it: username and passwordFrom, or certificateFrom"
	case ua.StatusBadOutOfRange:
		do = "the model's minimum and maximum would refuse it earlier"
	case ua.StatusBadNotReadable: // of reading alone
	default:
		do = advice(status, d.target.device)
	}
	return means(pt, status, do)
}

func means(pt *point, status ua.StatusCode, do string) error {
	name, meaning := wire.Name(status), wire.Meaning(status)
	text := fmt.Sprintf("node %s: %s", pt.address, name)
	if meaning != "" {
		text += ": " + meaning
	}
	if do != "" {
		text += "; " + do
	}
	return errors.New(text)
}

// advice is what to do about a node's status; "" where the status says it all.
func advice(status ua.StatusCode, device string) string {
	switch status {
	case ua.StatusBadNodeIDUnknown, ua.StatusBadNodeIDInvalid:
		if device == "" {
			return "correct the property's address"
		}
		return "correct the property's address; the server's nodes: whimbrel browse " + argument(device)
	case ua.StatusBadAttributeIDInvalid:
		return "the node is no variable: the property's address must name one"
	case ua.StatusBadNotReadable:
		return "give the property access: Write, or another address"
	case ua.StatusBadUserAccessDenied:
		return "give the connection a user who may read it: username and passwordFrom, or certificateFrom"
	case ua.StatusBadSecurityModeInsufficient:
		return "give the connection a policy and a mode"
	}
	return ""
}

// value is the point's part of what the node holds.
func (pt *point) value(v *ua.Variant) (models.Value, error) {
	if pt.index >= 0 {
		return wire.Element(v, pt.index, pt.kind)
	}
	return wire.Value(v, pt.kind)
}

// timeOf is when the device took a value, or else when the server did. Times
// that nobody can have meant are left out.
func timeOf(dv *ua.DataValue) time.Time {
	for _, stamp := range []struct {
		mask byte
		at   time.Time
	}{{ua.DataValueSourceTimestamp, dv.SourceTimestamp}, {ua.DataValueServerTimestamp, dv.ServerTimestamp}} {
		if dv.Has(stamp.mask) && stamp.at.Year() >= 1970 && stamp.at.Year() < 2200 {
			return stamp.at
		}
	}
	return time.Time{}
}

func (d *device) learn(p int, s wire.Shape) {
	d.mu.Lock()
	d.shapes[p] = s
	d.mu.Unlock()
}

func (d *device) shape(p int) wire.Shape {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shapes[p]
}

// Canonical implements mappers.Canonicalizer.
func (d *device) Canonical(p int, v models.Value) (models.Value, error) {
	shape, pt := d.shape(p), &d.points[p]
	if shape.Type == 0 {
		return v, nil
	}
	if pt.index >= 0 {
		shape.Array = false
	}
	variant, err := wire.Variant(v, shape)
	if err != nil {
		return models.Null, err
	}
	return wire.Value(variant, pt.kind)
}

// Write implements mappers.Device.
func (d *device) Write(ctx context.Context, writes []mappers.WriteRequest) []error {
	errs := make([]error, len(writes))
	all := func(f *mappers.Failure) []error {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = f
			}
		}
		return errs
	}
	s, err := d.link.session(ctx)
	if err != nil {
		return all(failure(err))
	}
	if err := d.discover(ctx, s, writes, errs); err != nil {
		f := failure(err)
		return all(unsent(f.Reason, fmt.Errorf("asking for the type before the write: %w", f.Err)))
	}
	var requests []*ua.WriteValue
	var sent []int // requests[i] is of writes[sent[i]]
	for i, w := range writes {
		if errs[i] != nil {
			continue
		}
		request, err := d.request(s, w)
		if err != nil {
			errs[i] = refused(err)
			continue
		}
		requests, sent = append(requests, request), append(sent, i)
	}
	for len(requests) > 0 {
		n := min(int(d.batch.Load()), len(requests))
		answer, err := ask[*ua.WriteResponse](ctx, d.link, s, &ua.WriteRequest{NodesToWrite: requests[:n]})
		switch {
		case tooMany(err) && n > 1:
			d.batch.Store(int64((n + 1) / 2))
			continue
		case err == nil && len(answer.Results) != n:
			err = fmt.Errorf("%d answers to %d writes", len(answer.Results), n)
			s.fail()
		}
		d.tap.wrote(ctx, d.target.timeout, d.points, writes, sent[:n], requests[:n], answer, err)
		if err != nil {
			f := failure(err)
			for _, i := range sent[:n] {
				errs[i] = f
			}
			for _, i := range sent[n:] {
				errs[i] = unsent(f.Reason, fmt.Errorf("not tried after the write before it failed: %w", f.Err))
			}
			return errs
		}
		for i, status := range answer.Results {
			errs[sent[i]] = d.written(writes[sent[i]].Point, status)
		}
		requests, sent = requests[n:], sent[n:]
	}
	return errs
}

// written is what a status says about a write; nil when it was done.
func (d *device) written(p int, status ua.StatusCode) error {
	q, reason := wire.Judge(status)
	switch {
	case q == models.Good:
		return nil
	case q == models.Uncertain, status == ua.StatusBadTimeout, gone(status):
		return mappers.Fail(reason, status)
	case status == ua.StatusBadTypeMismatch:
		d.learn(p, wire.Shape{}) // the node may have become another
	case d.points[p].index >= 0 && (status == ua.StatusBadWriteNotSupported || status == ua.StatusBadIndexRangeInvalid):
		return &mappers.Failure{Reason: reason, Refused: true, Err: fmt.Errorf("the server does not take a single element of an array: %w", status)}
	}
	return &mappers.Failure{Reason: reason, Refused: true, Err: d.refusal(&d.points[p], status)}
}

// discover finds out the types of the nodes to be written, where they are not
// known. What a node answers goes into errs.
func (d *device) discover(ctx context.Context, s *session, writes []mappers.WriteRequest, errs []error) error {
	var ask []*ua.ReadValueID
	var of []int
	for i, w := range writes {
		if d.shape(w.Point).Type != 0 {
			continue
		}
		for _, a := range []ua.AttributeID{ua.AttributeIDDataType, ua.AttributeIDValueRank, ua.AttributeIDValue} {
			ask = append(ask, &ua.ReadValueID{NodeID: s.node(&d.points[w.Point]), AttributeID: a, DataEncoding: &ua.QualifiedName{}})
		}
		of = append(of, i)
	}
	if len(ask) == 0 {
		return nil
	}
	values, err := d.attributes(ctx, s, ask)
	if err != nil {
		return err
	}
	for k, i := range of {
		shape, err := shapeOf(values[3*k], values[3*k+1], values[3*k+2])
		if err != nil {
			errs[i] = err
			continue
		}
		d.learn(writes[i].Point, shape)
	}
	return nil
}

// shapeOf tells from a node's attributes what it takes.
func shapeOf(dataType, rank, value *ua.DataValue) (wire.Shape, error) {
	if held := wire.ShapeOf(value.Value); held.Type != 0 && value.Status == ua.StatusOK {
		return held, nil
	}
	if dataType.Status != ua.StatusOK || dataType.Value == nil {
		return wire.Shape{}, &mappers.Failure{Reason: wire.ReasonOf(dataType.Status), Refused: true,
			Err: fmt.Errorf("the node does not tell its type: %w", dataType.Status)}
	}
	t, ok := wire.TypeOf(dataType.Value.NodeID())
	if !ok {
		return wire.Shape{}, refused(fmt.Errorf("the node's type %s is not known, and it holds no value to tell by", dataType.Value.NodeID()))
	}
	shape := wire.Shape{Type: t}
	if rank.Status == ua.StatusOK && rank.Value != nil {
		r, _ := rank.Value.Value().(int32)
		shape.Array = r >= 0
	}
	return shape, nil
}

// request is one write in the node's type.
func (d *device) request(s *session, w mappers.WriteRequest) (*ua.WriteValue, error) {
	pt, shape := &d.points[w.Point], d.shape(w.Point)
	request := &ua.WriteValue{NodeID: s.node(pt), AttributeID: ua.AttributeIDValue}
	v := w.Value
	if pt.index >= 0 {
		if !shape.Array {
			return nil, fmt.Errorf("index %d: the node holds one %s, no array", pt.index, wire.TypeName(shape.Type))
		}
		request.IndexRange = fmt.Sprint(pt.index)
		var err error
		if v, err = models.JSON(append(v.AppendJSON([]byte{'['}), ']')); err != nil {
			return nil, err
		}
	}
	variant, err := wire.Variant(v, shape)
	if err != nil {
		return nil, err
	}
	// Nothing but the value: many servers refuse to be told times.
	request.Value = &ua.DataValue{EncodingMask: ua.DataValueValue, Value: variant}
	return request, nil
}

// publishing is how often the server is to publish.
func (t *target) publishingFor(points []mappers.Subscription) time.Duration {
	if t.publishing > 0 {
		return t.publishing
	}
	shortest := time.Duration(math.MaxInt64)
	for _, s := range points {
		shortest = min(shortest, s.Every)
	}
	return max(100*time.Millisecond, min(shortest, time.Second))
}
