package modbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
)

// device is one unit. Read, Write and Canonical are called from one goroutine,
// as mappers.Device says; Plan from any.
type device struct {
	target target
	line   *line
	log    *slog.Logger
	names  []mappers.Point
	points []point

	client *wire.Client // of made, replaced when the line is made anew
	made   *wire.Line
	tap    wire.Tap
	found  []found // by point, what the Read under way has brought
	why    []error // by point, why the device last refused to have it read
	spare  int     // refusals that the Read under way may still look into

	mu      sync.Mutex // guards what Plan reads too
	terrain terrain
	refused []bool // by point: the device refuses to have it read
	plans   map[uint64]*route
}

// found is what a Read brought for one point, before it is decoded.
type found struct {
	read    bool
	refused bool // its value, or its scale factor
	regs    []byte
	on      bool
}

// route is the plan of one set of points.
type route struct {
	points []int
	blocks []block
	asides []int // points that the device refuses, read apart
	next   int   // of asides, which to try again next
}

// maxRefusals bounds how many refused requests one Read looks into, to find out
// which part of them can be read, so that a device that refuses everything does
// not hold the line. What is not found out is bad until the next Read goes on.
const maxRefusals = 16

// maxPlans bounds the cached plans: the Runner asks for the same few sets.
const maxPlans = 64

var (
	_ mappers.Device        = (*device)(nil)
	_ mappers.Canonicalizer = (*device)(nil)
	_ mappers.Planner       = (*device)(nil)
	_ mappers.LineSharer    = (*device)(nil)
	_ mappers.Recordable    = (*device)(nil)
)

func newDevice(table *lines, t target, points []point, names []mappers.Point, log *slog.Logger) *device {
	d := &device{target: t, points: points, names: names, log: log,
		found: make([]found, len(points)), why: make([]error, len(points)), refused: make([]bool, len(points)), plans: map[uint64]*route{}}
	d.line = table.join(t.place, d, t.pause)
	return d
}

// Close implements mappers.Device. The connection lives on while other devices
// use it.
func (d *device) Close() error {
	d.line.leave(d)
	return nil
}

// Line implements mappers.LineSharer.
func (d *device) Line() string { return d.target.place.String() }

// Plan implements mappers.Planner.
func (d *device) Plan(points []int) []models.ReadRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.routeLocked(points)
	out := make([]models.ReadRequest, 0, len(r.blocks)+1)
	for i := range r.blocks {
		out = append(out, r.blocks[i].request())
	}
	if len(r.asides) > 0 { // one of them is tried in every cycle
		s := d.spanOf(r.asides[0])
		b := blockOf([]span{s})
		out = append(out, models.ReadRequest{Text: b.text() + ", refused by the device", Points: len(r.asides)})
	}
	return out
}

// routeLocked returns the plan for a set of points, made at its first use.
func (d *device) routeLocked(points []int) *route {
	hash := uint64(14695981039346656037) // FNV-1a
	for _, p := range points {
		hash = (hash ^ uint64(p)) * 1099511628211
	}
	if r := d.plans[hash]; r != nil && slices.Equal(r.points, points) {
		return r
	}
	if len(d.plans) >= maxPlans {
		clear(d.plans)
	}
	r := &route{points: slices.Clone(points)}
	var spans []span
	for _, p := range points {
		if d.refused[p] {
			r.asides = append(r.asides, p)
			continue
		}
		spans = append(spans, d.spanOf(p))
		if s, ok := d.scaleSpanOf(p); ok {
			spans = append(spans, s)
		}
	}
	r.blocks = plan(spans, d.target.limits, &d.terrain)
	d.plans[hash] = r
	return r
}

func (d *device) route(points []int) *route {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.routeLocked(points)
}

func (d *device) spanOf(p int) span {
	pt := &d.points[p]
	return span{point: p, table: pt.table, start: int(pt.register), width: pt.width}
}

func (d *device) scaleSpanOf(p int) (span, bool) {
	pt := &d.points[p]
	return span{point: p, scale: true, table: pt.table, start: pt.scaleFrom, width: 1}, pt.scaleFrom >= 0
}

// wire returns the client of the line as it is now.
func (d *device) wire() *wire.Client {
	if l := d.line.current.Load(); l != d.made {
		d.made, d.client = l, l.Client(d.target.unit, d.target.timeout).Tapped(&d.tap)
	}
	return d.client
}

// Read implements mappers.Device.
func (d *device) Read(ctx context.Context, points []int, out []mappers.Result) error {
	for _, p := range points {
		d.found[p] = found{}
	}
	d.spare = maxRefusals
	r := d.route(points)
	for i := range r.blocks {
		if _, err := d.readBlock(ctx, &r.blocks[i]); err != nil {
			return d.lost(err)
		}
	}
	if err := d.retryRefused(ctx, r); err != nil {
		return d.lost(err)
	}
	for i, p := range points {
		if f := &d.found[p]; f.read && !f.refused {
			out[i] = d.points[p].decode(f.regs, f.on)
		} else { // unread are those that were refused before, and whose turn to be tried again it is not
			out[i] = bad(models.ReasonDeviceError)
			out[i].Err = d.why[p]
		}
	}
	return nil
}

// readBlock reads a block and takes it apart when the device refuses it. It
// reports whether all of it was read. Its error is the whole device's.
func (d *device) readBlock(ctx context.Context, b *block) (whole bool, err error) {
	data, err := d.wire().Read(ctx, b.table, uint16(b.start), uint16(b.count))
	if err == nil {
		d.take(b, data)
		return true, nil
	}
	var refusal *wire.Exception
	if !errors.As(err, &refusal) || gateway(refusal.Code) {
		return false, err
	}
	if refusal.Code != wire.IllegalDataAddress && refusal.Code != wire.IllegalDataValue {
		d.refuse(b, refusal) // it is not about this request: a smaller one would fare no better
		return false, nil
	}
	d.spare = max(0, d.spare-1)
	parts := b.split()
	if len(parts) == 0 {
		d.refuse(b, refusal)
		d.learnRefused(b)
		return false, nil
	}
	allWhole := true
	for i := range parts {
		if d.spare == 0 {
			d.refuse(&parts[i], refusal)
			allWhole = false
			continue
		}
		whole, err := d.readBlock(ctx, &parts[i])
		if err != nil {
			return false, err
		}
		allWhole = allWhole && whole
	}
	d.learnParts(b, parts, allWhole)
	return false, nil
}

// take keeps what a block brought, by point.
func (d *device) take(b *block, data []byte) {
	for _, s := range b.spans {
		at := s.start - b.start
		switch f := &d.found[s.point]; {
		case s.table.Bits():
			f.on, f.read = wire.Bit(data, at), true
		case s.scale:
			d.points[s.point].setPower(int(int16(uint16(data[2*at])<<8 | uint16(data[2*at+1]))))
		default:
			f.regs, f.read = data[2*at:2*(at+s.width):2*(at+s.width)], true
		}
	}
}

// refuse notes that the device refuses a block.
func (d *device) refuse(b *block, refusal *wire.Exception) {
	for _, s := range b.spans {
		d.found[s.point].refused = true
		d.why[s.point] = fmt.Errorf("%s %d: the device answers with exception %d, %v", s.table, s.start, byte(refusal.Code), refusal.Code)
	}
}

// learnRefused notes the points of a block that is refused though it cannot be
// divided: they are read apart from now on, one in each Read.
func (d *device) learnRefused(b *block) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range b.spans {
		d.refused[s.point] = true
		d.log.Info("the device refuses to have a property read", "property", d.names[s.point].Property, "request", b.text())
	}
	d.digLocked(b.table, b.start, b.start+b.count)
	clear(d.plans)
}

// learnParts notes why a block was refused: because of the gaps that it read
// over, or, when both of its halves can be read, because of its length or
// where it lies.
func (d *device) learnParts(b *block, parts []block, allWhole bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := 1; i < len(parts); i++ {
		end, start := parts[i-1].start+parts[i-1].count, parts[i].start
		if b.unused > 0 {
			d.digLocked(b.table, end, start)
		} else if allWhole {
			if d.terrain.cuts == nil {
				d.terrain.cuts = map[cell]bool{}
			}
			d.terrain.cuts[cell{b.table, start}] = true
		}
	}
	clear(d.plans)
}

// digLocked makes holes of the cells from start up to end.
func (d *device) digLocked(t wire.Table, start, end int) {
	if d.terrain.holes == nil {
		d.terrain.holes = map[cell]bool{}
	}
	for a := start; a < end; a++ {
		d.terrain.holes[cell{t, a}] = true
	}
}

// retryRefused tries the refused points of a route again: one of them, and as
// long as that succeeds the next.
func (d *device) retryRefused(ctx context.Context, r *route) error {
	for range r.asides {
		p := r.asides[r.next%len(r.asides)]
		r.next++
		s := d.spanOf(p)
		b := blockOf([]span{s})
		ok, err := d.readApart(ctx, &b)
		if ok && err == nil {
			if s, has := d.scaleSpanOf(p); has {
				b := blockOf([]span{s})
				ok, err = d.readApart(ctx, &b)
			}
		}
		if err != nil || !ok {
			return err
		}
		d.restore(p)
	}
	return nil
}

// readApart reads a block without learning from it.
func (d *device) readApart(ctx context.Context, b *block) (bool, error) {
	data, err := d.wire().Read(ctx, b.table, uint16(b.start), uint16(b.count))
	var refusal *wire.Exception
	switch {
	case err == nil:
		d.take(b, data)
		return true, nil
	case errors.As(err, &refusal) && !gateway(refusal.Code):
		d.refuse(b, refusal)
		return false, nil
	}
	return false, err
}

// restore takes back that a point is refused.
func (d *device) restore(p int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused[p] = false
	spans := []span{d.spanOf(p)}
	if s, ok := d.scaleSpanOf(p); ok {
		spans = append(spans, s)
	}
	for _, s := range spans {
		for a := s.start; a < s.end(); a++ {
			delete(d.terrain.holes, cell{s.table, a})
		}
	}
	clear(d.plans)
}

// forget drops what the device has taught: it may come back as another.
func (d *device) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.terrain.holes == nil && d.terrain.cuts == nil {
		return
	}
	d.terrain = terrain{}
	clear(d.refused)
	clear(d.plans)
}

// gateway tells the exceptions by which a gateway says that it did not reach
// the unit.
func gateway(c wire.Code) bool { return c == wire.GatewayPathUnusable || c == wire.GatewayTargetSilent }

// lost turns a failed request into the whole device's failure.
func (d *device) lost(err error) error {
	d.forget()
	return failure(err)
}

// failure sorts what went wrong on the line.
func failure(err error) *mappers.Failure {
	var refusal *wire.Exception
	switch {
	case errors.As(err, &refusal) && refusal.Code == wire.GatewayPathUnusable:
		return &mappers.Failure{Reason: models.ReasonNotConnected, Unsent: true, Err: err}
	case errors.As(err, &refusal) && refusal.Code == wire.GatewayTargetSilent:
		return mappers.Fail(models.ReasonTimeout, err)
	case errors.As(err, &refusal):
		f := mappers.Fail(models.ReasonDeviceError, err)
		// Acknowledge means that the device is at it still; busy, that it has not
		// begun.
		f.Unsent = refusal.Code == wire.DeviceBusy
		f.Refused = refusal.Code != wire.DeviceBusy && refusal.Code != wire.Acknowledge
		return f
	case errors.Is(err, wire.ErrTimeout):
		return mappers.Fail(models.ReasonTimeout, err)
	case errors.Is(err, wire.ErrNotConnected):
		return mappers.Fail(models.ReasonNotConnected, err)
	case errors.Is(err, wire.ErrProtocol):
		return mappers.Fail(models.ReasonProtocolError, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return unsent(models.ReasonTimeout, err) // while waiting for the line
	}
	return refused(err)
}

// Canonical implements mappers.Canonicalizer.
func (d *device) Canonical(p int, v models.Value) (models.Value, error) {
	return d.points[p].canonical(v)
}

// Write implements mappers.Device.
func (d *device) Write(ctx context.Context, writes []mappers.WriteRequest) []error {
	return mappers.WriteInTurn(writes, func(w mappers.WriteRequest) *mappers.Failure { return d.write(ctx, w) })
}

func (d *device) write(ctx context.Context, w mappers.WriteRequest) *mappers.Failure {
	select {
	case d.line.writing <- struct{}{}:
		defer func() { <-d.line.writing }()
	case <-ctx.Done():
		return unsent(models.ReasonTimeout, ctx.Err())
	}
	pt := &d.points[w.Point]
	client := d.wire()
	if pt.table.Bits() {
		on, ok := w.Value.AsBool()
		if !ok {
			return refused(fmt.Errorf("must be a bool, got %s", w.Value))
		}
		return d.send(ctx, func(ctx context.Context) error {
			if pt.multiple {
				return client.WriteCoils(ctx, pt.register, []bool{on})
			}
			return client.WriteCoil(ctx, pt.register, on)
		})
	}
	regs, f := d.registers(ctx, pt, w.Value)
	if f != nil {
		return f
	}
	return d.send(ctx, func(ctx context.Context) error {
		if pt.multiple {
			return client.WriteRegisters(ctx, pt.register, regs)
		}
		return client.WriteRegister(ctx, pt.register, regs)
	})
}

// registers lays a value out, and reads from the device what that takes: the
// register of which one bit changes, or the scale factor. Nothing has been
// written when it fails.
func (d *device) registers(ctx context.Context, pt *point, v models.Value) ([]byte, *mappers.Failure) {
	read := func(table wire.Table, register uint16) ([]byte, *mappers.Failure) {
		regs, err := d.wire().Urgent().Read(ctx, table, register, 1)
		if err != nil {
			f := failure(fmt.Errorf("read before the write: %w", err))
			f.Unsent = !f.Refused
			return nil, f
		}
		return regs, nil
	}
	if pt.bit >= 0 {
		on, ok := v.AsBool()
		if !ok {
			return nil, refused(fmt.Errorf("must be a bool, got %s", v))
		}
		regs, f := read(pt.table, pt.register)
		if f != nil {
			return nil, f
		}
		pt.setBit(regs, on)
		return regs, nil
	}
	if pt.scaleFrom >= 0 {
		regs, f := read(pt.table, uint16(pt.scaleFrom))
		if f != nil {
			return nil, f
		}
		pt.setPower(int(int16(uint16(regs[0])<<8 | uint16(regs[1]))))
		if pt.power == noPower {
			return nil, refused(errors.New("the device says that it does not implement the value"))
		}
	}
	regs, err := pt.encode(v)
	if err != nil {
		return nil, refused(err)
	}
	return regs, nil
}

// send sends a write and finds out, when it fails, whether it was sent.
func (d *device) send(ctx context.Context, write func(context.Context) error) *mappers.Failure {
	var note dialed
	err := write(context.WithValue(ctx, dialedKey{}, &note))
	if err == nil {
		return nil
	}
	f := failure(err)
	f.Unsent = f.Unsent || note.failed || errors.Is(err, wire.ErrNotConnected) && wire.Unsent(err)
	return f
}

func refused(err error) *mappers.Failure {
	return &mappers.Failure{Reason: models.ReasonConfiguration, Refused: true, Err: err}
}

func unsent(reason models.Reason, err error) *mappers.Failure {
	return &mappers.Failure{Reason: reason, Unsent: true, Err: err}
}
