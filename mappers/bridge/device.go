package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// requestTimeout is how long a mapper may take to answer a read or a write.
const requestTimeout = 10 * time.Second

// stage is how far a device has come with its mapper in this session.
type stage int

const (
	untold   stage = iota // the mapper does not know of it
	told                  // and has not answered yet
	served                // it accepted it
	unserved              // it refused it
)

// device is an open device of a mapper.
type device struct {
	m       *Mapper
	name    string
	points  []mappers.Point
	index   map[string]int            // by property
	config  assignment                // without secrets
	secrets map[string]mappers.Secret // by field of the connection
	wake    chan struct{}             // one slot: inbox is not empty

	// Under Mapper.mu.
	stage    stage
	toldAt   time.Time
	tries    int
	refusal  error
	toldLost bool
	changed  chan struct{}      // closed and replaced when stage changes
	inbox    []mappers.Delivery // bounded by MaxWaiting and one word between two batches
	closed   bool

	// shown is, by point, what the mapper said that the device makes of a value
	// that was written last. The Runner's goroutine owns it.
	shown map[int]canonical
}

type canonical struct{ written, shown models.Value }

var (
	_ mappers.Device        = (*device)(nil)
	_ mappers.Reporter      = (*device)(nil)
	_ mappers.Canonicalizer = (*device)(nil)
)

func newDevice(m *Mapper, cfg mappers.DeviceConfig) (*device, error) {
	room := 64
	for _, field := range slices.Sorted(maps.Keys(cfg.Secrets)) {
		text := cfg.Secrets[field].Reveal()
		if !utf8.ValidString(text) {
			return nil, models.Invalid("/spec/connection/"+field, "the secret is no text (UTF-8), and only text goes to mappers in processes of their own: put it into the Secret in base64")
		}
		room += len(field) + 6*len(text) + 16 // a control character takes six bytes
	}
	d := &device{m: m, name: cfg.Name, secrets: maps.Clone(cfg.Secrets), points: slices.Clone(cfg.Points), index: map[string]int{}, wake: make(chan struct{}, 1),
		changed: make(chan struct{}), shown: map[int]canonical{}}
	d.config = assignment{Device: cfg.Name, Connection: compact(cfg.Connection)}
	for i, p := range cfg.Points {
		d.index[p.Property] = i
		prop := property{Name: p.Property, Type: p.Type, Access: p.Access, Address: compact(p.Address)}
		if p.Every > 0 && p.Access.Readable() {
			prop.Every = new(models.Duration(p.Every))
		}
		d.config.Properties = append(d.config.Properties, prop)
	}
	text, err := json.Marshal(d.config)
	if err != nil {
		return nil, models.Invalid("/spec/connection", "%s", err)
	}
	if len(text) > MaxMessage-room {
		return nil, models.Invalid("/spec/properties", "the device's configuration has %d bytes, more than the %d that go to a mapper at once: give it fewer properties", len(text), MaxMessage)
	}
	// The same configuration is the same assignment also after a restart of the
	// edge: what the mapper sent and was not acknowledged for still counts. Of
	// secrets there is nothing in it: it stands in logs, and short ones could be
	// found by trying.
	sum := sha256.Sum256(text)
	d.config.Assignment = hex.EncodeToString(sum[:8])
	return d, nil
}

// disclose is what the mapper is told of the device, its secrets included, or
// why it must not be.
func (d *device) disclose(local, wanted bool) (assignment, error) {
	told := d.config
	for _, field := range slices.Sorted(maps.Keys(d.secrets)) {
		switch {
		case !wanted:
			return told, models.Invalid("/spec/connection/"+field, "mapper %s does not take secrets (secrets in its announce): let it have this one from its own configuration", d.m.name)
		case !local:
			return told, models.Invalid("/spec/connection/"+field, "mapper %s runs on another machine, as seen by the MQTT broker, which does not encrypt: secrets do not go there", d.m.name)
		}
		if told.Secrets == nil {
			told.Secrets = map[string]string{}
		}
		told.Secrets[field] = d.secrets[field].Reveal()
	}
	return told, nil
}

// Verdict waits until the mapper has accepted or refused the device, and returns
// the refusal.
func (d *device) Verdict(ctx context.Context) error {
	for {
		d.m.mu.Lock()
		stage, refusal, changed := d.stage, d.refusal, d.changed
		d.m.mu.Unlock()
		switch stage {
		case served:
			return nil
		case unserved:
			return refusal
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("mapper %s neither accepts nor refuses device %s: %w", d.m.name, d.name, context.Cause(ctx))
		case <-changed:
		}
	}
}

func (d *device) settleLocked(s stage, refusal error) {
	d.toldLost = false
	d.tries = 0
	if d.stage == s && s == served {
		return
	}
	d.stage, d.refusal = s, refusal
	d.changedLocked()
}

// unassignLocked forgets what the mapper knows.
func (d *device) unassignLocked() {
	d.stage, d.refusal, d.tries = untold, nil, 0
	d.changedLocked()
}

func (d *device) changedLocked() {
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *device) lostLocked(why *mappers.Failure) {
	d.toldLost = true
	d.failLocked(why)
}

// failLocked queues a failure of the device as a whole; one that follows another
// replaces it.
func (d *device) failLocked(why *mappers.Failure) {
	if d.closed {
		return
	}
	*d.wordLocked() = mappers.Delivery{Err: why}
	d.wakeUp()
}

// askLocked queues that the device is to be read, because its mapper serves it.
func (d *device) askLocked() {
	if d.closed {
		return
	}
	d.wordLocked().Ask = true
	d.wakeUp()
}

// wordLocked returns the end of the queue if that is no batch, else a new one.
func (d *device) wordLocked() *mappers.Delivery {
	if n := len(d.inbox); n == 0 || d.inbox[n-1].Err == nil && !d.inbox[n-1].Ask {
		d.inbox = append(d.inbox, mappers.Delivery{})
	}
	return &d.inbox[len(d.inbox)-1]
}

func (d *device) wakeUp() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// batchLocked queues a batch. What is wrong with single samples is returned; the
// others count.
func (d *device) batchLocked(msg Message, b batch) error {
	var errs []models.FieldError
	del := mappers.Delivery{}
	for i, s := range b.Samples {
		p, ok := d.index[s.Property]
		if !ok || !d.points[p].Access.Readable() {
			if len(errs) < maxErrors {
				errs = append(errs, models.FieldError{Pointer: fmt.Sprintf("/samples/%d/property", i), Detail: "the device has no readable property of that name"})
			}
			continue
		}
		r := s.result()
		if r.Time.IsZero() {
			r.Time = b.Time
		}
		if v, err := r.Value.Fit(d.points[p].Type); err == nil { // else the Runner says what is wrong
			r.Value = v
		}
		del.Points, del.Results = append(del.Points, p), append(del.Results, r)
	}
	size := len(msg.Payload)
	d.m.countLocked(1, size)
	del.Stored = func(err error) {
		d.m.mu.Lock()
		d.m.countLocked(-1, -size)
		d.m.mu.Unlock()
		msg.Done(err)
	}
	d.toldLost = false
	d.inbox = append(d.inbox, del)
	d.wakeUp()
	if len(errs) > 0 {
		return &models.Error{Kind: models.KindInvalid, Fields: errs}
	}
	return nil
}

func (r *reading) result() mappers.Result {
	return mappers.Result{Value: r.Value, Quality: r.Quality, Reason: r.Reason, Time: r.Time}
}

// Report implements mappers.Reporter.
func (d *device) Report(ctx context.Context, deliver func(mappers.Delivery) bool) {
	for {
		d.m.mu.Lock()
		inbox := d.inbox
		d.inbox = nil
		d.m.mu.Unlock()
		for i, it := range inbox {
			if !deliver(it) {
				d.m.mu.Lock()
				d.inbox = append(inbox[i:], d.inbox...)
				d.m.mu.Unlock()
				return
			}
		}
		if len(inbox) > 0 && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		}
	}
}

// ask sends a request and waits for its answer.
func (d *device) ask(ctx context.Context, kind mqtt.MapperTopicKind, request func(id string) any) (answer, *mappers.Failure) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answers := make(chan answer, 1)
	id := d.m.b.cfg.NewID()
	changed, failure := d.send(ctx, kind, id, request(id), answers)
	if failure != nil {
		failure.Unsent = true
		return answer{}, failure
	}
	defer func() {
		d.m.mu.Lock()
		defer d.m.mu.Unlock()
		delete(d.m.asked, id)
	}()
	d.m.flush()
	select {
	case a := <-answers:
		if a.Error != nil {
			return a, a.Error.failure()
		}
		return a, nil
	case <-changed:
		d.m.mu.Lock()
		defer d.m.mu.Unlock()
		if d.m.session == nil {
			return answer{}, d.m.lost()
		}
		return answer{}, mappers.Fail(models.ReasonMapperLost, errors.New("the mapper gave the device up"))
	case <-ctx.Done():
		return answer{}, mappers.Fail(models.ReasonTimeout, fmt.Errorf("the mapper does not answer: %w", context.Cause(ctx)))
	}
}

// send queues a request once the mapper serves the device. What it returns is
// closed when that ends.
func (d *device) send(ctx context.Context, kind mqtt.MapperTopicKind, id string, request any, answers chan<- answer) (<-chan struct{}, *mappers.Failure) {
	for {
		d.m.mu.Lock()
		changed := d.changed
		switch {
		case d.closed:
			d.m.mu.Unlock()
			return nil, mappers.Fail(models.ReasonMapperLost, mappers.ErrClosed)
		case d.m.session == nil && !time.Now().Before(d.m.lostAt):
			defer d.m.mu.Unlock()
			return nil, d.m.lost()
		case d.stage == unserved:
			defer d.m.mu.Unlock()
			return nil, mappers.Fail(models.ReasonConfiguration, d.refusal)
		case d.stage == served:
			d.m.asked[id] = answers
			d.m.sayLocked(kind, request)
			d.m.mu.Unlock()
			return changed, nil
		}
		d.m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, mappers.Fail(models.ReasonTimeout, fmt.Errorf("the mapper has not accepted the device: %w", context.Cause(ctx)))
		}
	}
}

func (f *failure) failure() *mappers.Failure {
	message := f.Message
	if message == "" {
		message = "the mapper does not say more"
	}
	return &mappers.Failure{Reason: f.Reason, Refused: f.Refused, Unsent: f.Unsent, Err: errors.New(message)}
}

// Read implements mappers.Device: a fresh read, now.
func (d *device) Read(ctx context.Context, points []int, out []mappers.Result) error {
	if len(points) == 0 {
		return nil
	}
	a, failure := d.ask(ctx, mqtt.MapperRead, func(id string) any {
		r := readRequest{ID: id, Device: d.name, Assignment: d.config.Assignment, Timeout: models.Duration(requestTimeout)}
		for _, p := range points {
			r.Properties = append(r.Properties, d.points[p].Property)
		}
		return r
	})
	if failure != nil {
		failure.Unsent = false // of a write only
		return failure
	}
	if len(a.Results) != len(points) {
		return mappers.Fail(models.ReasonProtocolError, fmt.Errorf("the mapper answers with %d results to %d properties", len(a.Results), len(points)))
	}
	for i := range a.Results {
		r := &a.Results[i]
		if r.Error != nil {
			out[i] = mappers.Result{Quality: models.Bad, Reason: r.Error.Reason, Err: r.Error.said()}
			continue
		}
		if err := r.check(fmt.Sprintf("/results/%d", i)); err != nil {
			// The others' values are no worse for it.
			out[i] = mappers.Result{Quality: models.Bad, Reason: models.ReasonProtocolError, Err: fmt.Errorf("the mapper's answer: %w", err)}
			continue
		}
		out[i] = r.result()
		if v, err := out[i].Value.Fit(d.points[points[i]].Type); err == nil {
			out[i].Value = v
		}
	}
	return nil
}

// Write implements mappers.Device.
func (d *device) Write(ctx context.Context, writes []mappers.WriteRequest) []error {
	errs := make([]error, len(writes))
	a, failure := d.ask(ctx, mqtt.MapperWrite, func(id string) any {
		r := writeRequest{ID: id, Device: d.name, Assignment: d.config.Assignment, Timeout: models.Duration(requestTimeout)}
		for _, w := range writes {
			r.Writes = append(r.Writes, write{d.points[w.Point].Property, w.Value})
		}
		return r
	})
	if failure == nil && len(a.Results) != len(writes) {
		failure = mappers.Fail(models.ReasonProtocolError, fmt.Errorf("the mapper answers with %d results to %d writes", len(a.Results), len(writes)))
	}
	for i, w := range writes {
		delete(d.shown, w.Point)
		switch {
		case failure != nil:
			errs[i] = failure
		case a.Results[i].Error != nil:
			errs[i] = a.Results[i].Error.failure()
		case !a.Results[i].Value.IsNull():
			if v, err := a.Results[i].Value.Fit(d.points[w.Point].Type); err == nil {
				d.shown[w.Point] = canonical{w.Value, v}
			}
		}
	}
	return errs
}

// Canonical implements mappers.Canonicalizer: of a value that was written, the
// mapper may have said how it reads back.
func (d *device) Canonical(p int, v models.Value) (models.Value, error) {
	if c, ok := d.shown[p]; ok && c.written == v {
		return c.shown, nil
	}
	return v, nil
}

// Close implements mappers.Device. Batches that nobody has taken belong to no
// device any more and are done with, unless the edge stops: then they are not
// acknowledged, and come again when it is back.
func (d *device) Close() error {
	d.m.mu.Lock()
	if d.closed {
		d.m.mu.Unlock()
		return nil
	}
	d.closed = true
	delete(d.m.devices, d.config.Assignment)
	d.m.resent.closed(d.config.Assignment)
	if d.m.session != nil && d.stage != untold {
		d.m.sayLocked(mqtt.MapperDevices, assignment{Device: d.name, Assignment: d.config.Assignment, Removed: true})
	}
	d.changedLocked()
	left := d.inbox
	d.inbox = nil
	d.m.mu.Unlock()
	d.m.flush()
	for _, it := range left {
		if it.Stored != nil && !d.m.b.stopped.Load() {
			it.Stored(nil)
		}
	}
	return nil
}
