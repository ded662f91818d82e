package devices

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// memStore is a Store in memory that can be told to fail.
type memStore struct {
	mu       sync.Mutex
	intents  map[string][]byte
	observed map[string][]byte
	fail     error
	saved    func(uid string, i twin.Intent) // called after each SaveIntent
}

func newMemStore() *memStore {
	return &memStore{intents: map[string][]byte{}, observed: map[string][]byte{}}
}

func (s *memStore) Twin(_ context.Context, uid string) (t twin.Stored, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, part := range []struct {
		text []byte
		into any
	}{{s.intents[uid], &t.Intent}, {s.observed[uid], &t.Observed}} {
		if part.text != nil {
			if err := json.Unmarshal(part.text, part.into); err != nil {
				return t, err
			}
		}
	}
	return t, nil
}

func (s *memStore) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *memStore) SaveIntent(_ context.Context, uid string, i twin.Intent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.intents[uid] = mustJSON(i)
	if s.saved != nil {
		s.saved(uid, i)
	}
	return nil
}

func (s *memStore) SaveObserved(_ context.Context, observed map[string]twin.Observed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	for uid, o := range observed {
		s.observed[uid] = mustJSON(o)
	}
	return nil
}

func (s *memStore) DropTwin(_ context.Context, uid string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.intents, uid)
	delete(s.observed, uid)
	return nil
}

// clone is what a kill would leave.
func (s *memStore) clone() *memStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &memStore{intents: maps.Clone(s.intents), observed: maps.Clone(s.observed)}
}

func (s *memStore) KeepTwins(context.Context, []string) error { return nil }

func (s *memStore) has(uid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.intents[uid] != nil || s.observed[uid] != nil
}

// memOutbox is an Outbox in memory that can be told to hold its answers back or
// to fail.
type memOutbox struct {
	mu      sync.Mutex
	entries []outbox.Entry // stored
	dones   []func()       // held back
	held    bool
	one     bool // what is held is one record
	fail    error
	most    int // what one entry may hold, 0 for anything
	seq     uint64
	oldest  uint64
}

func (o *memOutbox) Append(ctx context.Context, e outbox.Entry, done func(uint64, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	e.Samples, e.Writes, e.Locals = slices.Clone(e.Samples), slices.Clone(e.Writes), slices.Clone(e.Locals)
	if n := len(e.Samples) + len(e.Writes) + len(e.Locals); o.most > 0 && n > o.most {
		return outbox.ErrTooLarge
	}
	err := o.fail
	var seq uint64
	if err == nil {
		o.entries = append(o.entries, e)
		if !o.one || len(o.dones) == 0 {
			o.seq++
		}
		seq = o.seq
	}
	answer := func() { done(seq, err) }
	if o.held {
		o.dones = append(o.dones, answer)
	} else {
		answer()
	}
	return nil
}

func (o *memOutbox) Epochs() []*pb.Epoch {
	o.mu.Lock()
	defer o.mu.Unlock()
	return []*pb.Epoch{{Id: "E", First: o.oldest, Last: o.seq}}
}

func (o *memOutbox) set(held bool, fail error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held, o.fail = held, fail
	if !held {
		for _, d := range o.dones {
			d()
		}
		o.dones = nil
	}
}

// answer gives the oldest answer that is held back.
func (o *memOutbox) answer() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dones[0]()
	o.dones = o.dones[1:]
}

func (o *memOutbox) take() []outbox.Entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.entries
	o.entries = nil
	return e
}

// all are the entries that were not taken.
func (o *memOutbox) all() []outbox.Entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.entries)
}

// fakeDriver opens fake devices, by name.
type fakeDriver struct {
	mu      sync.Mutex
	refuse  map[string]error
	devices map[string]*fakeDevice
	open    map[string]int // how many are open now
	opened  map[string]int
	doubled bool // two were open at once
}

func newFakeDriver() *fakeDriver {
	return &fakeDriver{refuse: map[string]error{}, devices: map[string]*fakeDevice{}, open: map[string]int{}, opened: map[string]int{}}
}

func (d *fakeDriver) Info() mappers.Info { return mappers.Info{Name: "fake"} }

func (d *fakeDriver) device(name string) *fakeDevice {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.devices[name]
	if f == nil {
		f = &fakeDevice{driver: d, name: name, values: map[string]models.Value{}}
		d.devices[name] = f
	}
	return f
}

func (d *fakeDriver) Open(cfg mappers.DeviceConfig) (mappers.Device, error) {
	f := d.device(cfg.Name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refuse[cfg.Name]; err != nil {
		return nil, err
	}
	var misfits []models.FieldError
	for _, p := range cfg.Points {
		if string(p.Address) == `"misfit"` {
			misfits = append(misfits, models.FieldError{Pointer: "/spec/properties/" + p.Property + "/address", Detail: "fits nothing"})
		}
	}
	if misfits != nil {
		return nil, &models.Error{Kind: models.KindInvalid, Fields: misfits}
	}
	d.open[cfg.Name]++
	d.opened[cfg.Name]++
	d.doubled = d.doubled || d.open[cfg.Name] > 1
	return &opened{fakeDevice: f, points: cfg.Points}, nil
}

// opens is how many connections there are to the device now, times how many
// there ever were, twice whether there ever were two at once to any.
func (d *fakeDriver) opens(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[name]
}

func (d *fakeDriver) times(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opened[name]
}

func (d *fakeDriver) twice() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.doubled
}

// fakeDevice outlives its connections, as devices do.
type fakeDevice struct {
	driver *fakeDriver
	name   string

	mu       sync.Mutex
	values   map[string]models.Value
	fail     error // of every Read and Write
	refuse   error // of every Write
	deaf     bool  // writes get an answer and change nothing
	lost     error // writes arrive, and their answer does not
	writes   []string
	closing  time.Duration // how long Close takes
	onWrite  func(property string)
	reads    int
	readTook time.Duration
}

func (f *fakeDevice) set(change func(f *fakeDevice)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeDevice) value(property string, v models.Value) {
	f.set(func(f *fakeDevice) { f.values[property] = v })
}

func (f *fakeDevice) written() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.writes)
}

type opened struct {
	*fakeDevice
	points []mappers.Point
}

func (o *opened) Read(ctx context.Context, points []int, out []mappers.Result) error {
	o.mu.Lock()
	took := o.readTook
	o.mu.Unlock()
	if took > 0 && !pause(ctx, took) {
		return ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reads++
	if o.fail != nil {
		return o.fail
	}
	for i, p := range points {
		v, ok := o.values[o.points[p].Property]
		out[i] = mappers.Result{Value: v}
		if !ok {
			out[i] = mappers.Result{Value: models.Float(0)}
		}
	}
	return nil
}

func (o *opened) Write(_ context.Context, writes []mappers.WriteRequest) []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	errs := make([]error, len(writes))
	for i, w := range writes {
		name := o.points[w.Point].Property
		if o.onWrite != nil {
			o.onWrite(name)
		}
		switch {
		case o.fail != nil:
			errs[i] = o.fail
			continue
		case o.refuse != nil:
			errs[i] = o.refuse
			o.writes = append(o.writes, name+"="+w.Value.String())
			continue
		}
		o.writes = append(o.writes, name+"="+w.Value.String())
		if !o.deaf {
			o.values[name] = w.Value
		}
		errs[i] = o.lost
	}
	return errs
}

func (o *opened) Close() error {
	o.mu.Lock()
	closing := o.closing
	o.mu.Unlock()
	if closing > 0 {
		pause(context.Background(), closing)
	}
	o.driver.mu.Lock()
	defer o.driver.mu.Unlock()
	o.driver.open[o.name]--
	return nil
}

// bench is a Manager on fakes. It keeps what a broker would.
type bench struct {
	t        *testing.T
	m        *Manager
	driver   *fakeDriver
	store    *memStore
	outbox   *memOutbox
	stop     func()
	mu       sync.Mutex
	retained map[string]string
	messages []string
	ids      int
	era      uint64 // of the next start
}

func newBench(t *testing.T) *bench {
	return (&bench{t: t, driver: newFakeDriver(), store: newMemStore(), outbox: &memOutbox{}}).start()
}

// start begins a life of the process.
func (b *bench) start() *bench {
	b.retained = map[string]string{}
	b.messages = nil
	b.m = New(Config{Drivers: map[string]mappers.Driver{"fake": b.driver}, Store: b.store, Outbox: b.outbox, Publish: b.publish,
		Log: slog.New(slog.DiscardHandler), NewID: b.newID, Era: b.era})
	b.era++
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.m.Run(ctx)
	}()
	b.stop = func() { cancel(); <-done }
	return b
}

func (b *bench) newID() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ids++
	return fmt.Sprintf("L%03d", b.ids)
}

func (b *bench) publish(topic string, payload []byte, retain bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case retain && len(payload) == 0:
		delete(b.retained, topic)
	case retain:
		b.retained[topic] = string(payload)
	default:
		b.messages = append(b.messages, string(payload))
	}
	return nil
}

func (b *bench) topic(topic string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.retained[topic]
}

func (b *bench) writes() (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.messages {
		var w struct{ ID, Property, State string }
		if err := json.Unmarshal([]byte(m), &w); err != nil {
			b.t.Fatal(err)
		}
		out = append(out, w.ID+" "+w.Property+" "+w.State)
	}
	return out
}

func (b *bench) doc(id string) twin.Document {
	b.t.Helper()
	d, err := b.m.Document(id)
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

const plainModel = `{"protocol":"fake","defaults":{"every":"1s"},"properties":[
	{"name":"temp","type":"float","unit":"°C","access":"Read"},
	{"name":"once","type":"float","access":"ReadWrite","minimum":0,"maximum":95},
	{"name":"hold","type":"float","access":"ReadWrite","write":"hold"},
	{"name":"mode","type":"int","access":"ReadWrite","enum":{"0":"off","1":"heat"}},
	{"name":"noise","type":"float","access":"Read","history":false},
	{"name":"secret","type":"float","access":"ReadWrite","uplink":"none"}]}`

func modelItem(name, spec string) store.Item {
	return store.Item{Kind: store.KindDeviceModel, Namespace: "default", Name: name, UID: "model-" + name, Revision: 1,
		JSON: []byte(`{"kind":"DeviceModel","metadata":{"name":"` + name + `"},"spec":` + spec + `}`)}
}

func deviceItem(name, spec string) store.Item {
	return store.Item{Kind: store.KindDevice, Namespace: "default", Name: name, UID: "uid-" + name, Revision: 1, Assignment: 1,
		JSON: []byte(`{"kind":"Device","metadata":{"name":"` + name + `"},"spec":` + spec + `}`)}
}

func desiredItem(name string, d twin.Desired) store.Item {
	return store.Item{Kind: store.KindDesired, Namespace: "default", Name: name, UID: "uid-" + name, Revision: uint64(d.Version), JSON: mustJSON(d)}
}

func wants(version int64, id, property string, v models.Value) twin.Desired {
	return twin.Desired{Version: version, Properties: map[string]twin.DesiredValue{property: {Value: v, ID: id, Version: version, By: "admin"}}}
}

// one is the wanted state of one plain device and more.
func one(more ...store.Item) []store.Item {
	return append([]store.Item{modelItem("plain", plainModel), deviceItem("a", `{"model":"plain"}`)}, more...)
}
