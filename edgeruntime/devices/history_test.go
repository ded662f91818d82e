package devices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

const (
	historiesWanted = "WHIMBREL_WRITE_HISTORIES" // how many; without it a few
	historySeed     = "WHIMBREL_WRITE_SEED"      // of the first one; without it 1
)

// TestWriteHistories lets writes of the cloud and of apps meet everything that can
// happen to them: devices that fail in each way, disks that fail, an outbox that is
// slow or refuses, a hub that is away or goes back to an older copy, other
// configurations, clean stops, and kills in the middle of each step. When all has been
// well for long enough, hub, edge and device agree on what became of every write.
func TestWriteHistories(t *testing.T) {
	n, seed := 25, uint64(1)
	for name, set := range map[string]func(uint64){historiesWanted: func(v uint64) { n = int(v) }, historySeed: func(v uint64) { seed = v }} {
		if text := os.Getenv(name); text != "" {
			v, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			set(v)
		}
	}
	for i := range n {
		if !t.Run(fmt.Sprintf("seed=%d", seed+uint64(i)), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { writeHistory(t, seed+uint64(i)) }) }) {
			return
		}
	}
}

func writeHistory(t *testing.T, seed uint64) {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 0)), began: time.Now(), driver: newFakeDriver(), store: newMemStore(), log: &recordLog{}, locals: map[string]localAsked{}, forgotten: map[string]bool{}, unsaved: map[string]bool{}, shaken: map[string]bool{},

		hub: hubModel{rows: map[string]*row{}, expired: map[string]bool{}}}
	w.log.w = w
	defer func() {
		w.life.stop()
		w.asking.Wait()
		if t.Failed() {
			t.Log("what happened:\n" + strings.Join(w.story, "\n"))
		}
	}()
	w.start()
	w.apply()
	wait(2 * time.Second)
	for range 10 + w.rng.IntN(60) {
		w.step()
		w.look()
	}
	w.heal()
	w.judge()
}

// world is an edge of one device, that device, and a hub.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	began time.Time

	driver *fakeDriver
	store  *memStore
	log    *recordLog
	life   *process
	era    uint64
	n      int // counts ids and values

	model   int // which of historyModels
	locked  bool
	touched int  // changes the connection, so that the device is opened anew
	linked  bool // the hub hears the edge
	items   []store.Item
	hub     hubModel
	copied  *hubModel // an older copy
	edgeHas int64     // the desired version that the edge was handed last

	forgotten map[string]bool // by a hub that was restored: what the edge said of these
	restored  int             // n when the hub was; so it forgot all before but what it desires
	unsaved   map[string]bool // writes of which the disk does not have what is known
	shaken    map[string]bool // those of which that was forgotten

	version uint64 // of the twin, as last seen

	mu     sync.Mutex
	asking sync.WaitGroup
	locals map[string]localAsked // by id
	story  []string
}

type localAsked struct {
	property string
	lives    int // in which life of the edge the answer came
}

// historyModels are the configurations. The property secret never leaves the edge.
var historyModels = func() []string {
	property := map[string]string{
		"temp":   `{"name":"temp","type":"float","access":"Read"}`,
		"once":   `{"name":"once","type":"float","access":"ReadWrite"}`,
		"hold":   `{"name":"hold","type":"float","access":"ReadWrite","write":"hold"}`,
		"mode":   `{"name":"mode","type":"int","access":"ReadWrite"}`,
		"wo":     `{"name":"wo","type":"float","access":"Write"}`,
		"secret": `{"name":"secret","type":"float","access":"ReadWrite","uplink":"none"}`,
	}
	model := func(names ...string) string {
		var out []string
		for _, name := range names {
			if p := property[name]; p != "" {
				name = p
			}
			out = append(out, name)
		}
		return `{"protocol":"fake","defaults":{"every":"5s"},"properties":[` + strings.Join(out, ",") + `]}`
	}
	return []string{
		model("temp", "once", "hold", "mode", "wo", "secret"),
		model("hold", "mode", "temp"),
		model("once", "secret", "temp"),
		model("temp", `{"name":"once","type":"float","access":"Write"}`, "hold", "mode", "wo", "secret"), // it cannot be read any more
		model("temp", "once", "hold", "mode", "wo", `{"name":"secret","type":"float","access":"Write","uplink":"none"}`),
	}
}()

func (w *world) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story = append(w.story, fmt.Sprintf("%9.3fs ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

// process is a life of the edge's process. A dead one has no effects any more.
type process struct {
	w    *world
	m    *Manager
	stop func()

	mu     sync.Mutex
	dead   bool
	killIn int // effects until it is killed; 0: it is not
}

// alive is called around each effect: a kill comes before it, or between it and the
// answer.
func (l *process) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.killIn > 0 {
		if l.killIn--; l.killIn == 0 {
			l.dead = true
		}
	}
	return !l.dead
}

func (l *process) isDead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

var errKilled = errors.New("killed")

func (w *world) start() {
	l := &process{w: w}
	w.life = l
	l.m = New(Config{Drivers: map[string]mappers.Driver{"fake": lifeDriver{l}}, Store: lifeStore{w.store, l}, Outbox: lifeOutbox{w.log, l}, Log: slog.New(slog.DiscardHandler), NewID: func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.n++
		return fmt.Sprintf("L%04d", w.n)
	}, Era: w.era})
	w.era++
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.m.Run(ctx)
	}()
	l.stop = func() { cancel(); <-done }
	w.hub.fresh = true
	if w.items != nil {
		l.m.Apply(w.items)
	}
}

// lifeStore, lifeOutbox and lifeDriver are what a life has of the world.
type lifeStore struct {
	*memStore
	l *process
}

func (s lifeStore) SaveIntent(ctx context.Context, uid string, i twin.Intent) error {
	if !s.l.alive() {
		return errKilled
	}
	err := s.memStore.SaveIntent(ctx, uid, i)
	s.l.w.saved(i, err)
	if !s.l.alive() {
		return errKilled
	}
	return err
}

func (s lifeStore) Twin(ctx context.Context, uid string) (twin.Stored, error) {
	s.l.w.mu.Lock()
	maps.Copy(s.l.w.shaken, s.l.w.unsaved)
	s.l.w.mu.Unlock()
	return s.memStore.Twin(ctx, uid)
}

// saved notes which writes the disk is behind of.
func (w *world) saved(i twin.Intent, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		clear(w.unsaved)
		return
	}
	for _, e := range i.Writes {
		w.unsaved[e.ID] = true
	}
	for _, u := range i.Untold {
		w.unsaved[u.Write.ID] = true
	}
}

func (s lifeStore) SaveObserved(ctx context.Context, observed map[string]twin.Observed) error {
	if s.l.isDead() {
		return errKilled
	}
	return s.memStore.SaveObserved(ctx, observed)
}

func (s lifeStore) DropTwin(ctx context.Context, uid string) error { return errKilled }

type lifeOutbox struct {
	*recordLog
	l *process
}

func (o lifeOutbox) Append(ctx context.Context, e outbox.Entry, done func(uint64, error)) error {
	if !o.l.alive() {
		return outbox.ErrClosed
	}
	err := o.recordLog.append(ctx, o.l, e, done)
	o.l.alive()
	return err
}

type lifeDriver struct{ l *process }

func (d lifeDriver) Info() mappers.Info { return d.l.w.driver.Info() }

func (d lifeDriver) Open(cfg mappers.DeviceConfig) (mappers.Device, error) {
	dev, err := d.l.w.driver.Open(cfg)
	if err != nil {
		return nil, err
	}
	return &lifeDevice{dev.(*opened), d.l}, nil
}

type lifeDevice struct {
	*opened
	l *process
}

func (d *lifeDevice) Read(ctx context.Context, points []int, out []mappers.Result) error {
	if d.l.isDead() {
		return errKilled
	}
	return d.opened.Read(ctx, points, out)
}

func (d *lifeDevice) Write(ctx context.Context, writes []mappers.WriteRequest) []error {
	if d.l.alive() {
		for _, r := range writes {
			d.l.w.tell("the device is written %s=%s", d.points[r.Point].Property, r.Value)
		}
		errs := d.opened.Write(ctx, writes)
		if d.l.alive() {
			return errs
		}
	}
	errs := make([]error, len(writes))
	for i := range errs {
		errs[i] = errKilled
	}
	return errs
}

// recordLog is an outbox: what is pending becomes durable, or does not, in order.
type recordLog struct {
	w *world

	mu      sync.Mutex
	pending []pendingEntry
	stored  []storedEntry // that the hub has not acknowledged
	seq     uint64
	held    bool
	fail    error
	room    chan struct{} // closed when there is room; nil: there is
}

type pendingEntry struct {
	entry outbox.Entry
	done  func(uint64, error)
	l     *process
}

type storedEntry struct {
	entry outbox.Entry
	seq   uint64
}

func (o *recordLog) append(ctx context.Context, l *process, e outbox.Entry, done func(uint64, error)) error {
	o.mu.Lock()
	for o.room != nil {
		room := o.room
		o.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-room:
		}
		if l.isDead() {
			return outbox.ErrClosed
		}
		o.mu.Lock()
	}
	defer o.mu.Unlock()
	e.Samples, e.Writes, e.Locals = nil, slices.Clone(e.Writes), slices.Clone(e.Locals)
	o.pending = append(o.pending, pendingEntry{e, done, l})
	if !o.held {
		o.commitLocked(len(o.pending), o.fail)
	}
	return nil
}

// commitLocked answers for the oldest n entries.
func (o *recordLog) commitLocked(n int, err error) {
	for _, p := range o.pending[:n] {
		if err != nil {
			if len(p.entry.Writes)+len(p.entry.Locals) > 0 {
				o.w.tell("the outbox loses %s", words(p.entry))
			}
			p.done(0, err)
			continue
		}
		o.seq++
		if len(p.entry.Writes)+len(p.entry.Locals) > 0 {
			o.w.tell("the outbox has %s", words(p.entry))
		}
		o.stored = append(o.stored, storedEntry{p.entry, o.seq})
		p.done(o.seq, nil)
	}
	o.pending = slices.Delete(o.pending, 0, n)
}

func words(e outbox.Entry) string {
	var out []string
	for _, l := range e.Locals {
		out = append(out, fmt.Sprintf("local %s %s=%s", l.ID, l.Property, l.Value))
	}
	for _, w := range e.Writes {
		text := fmt.Sprintf("%s %s %s", w.ID, w.Property, w.State)
		if w.Asked != nil {
			text += " asked"
		}
		if !w.Sent.IsZero() {
			text += " sent"
		}
		if w.Late {
			text += " late"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func (o *recordLog) Epochs() []*pb.Epoch {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := &pb.Epoch{Id: "E", Last: o.seq}
	if len(o.stored) > 0 {
		e.First = o.stored[0].seq
	}
	return []*pb.Epoch{e}
}

// tellsLocked reports whether there is something of a write.
func (o *recordLog) tellsLocked(id string) bool {
	of := func(e outbox.Entry) bool {
		return slices.ContainsFunc(e.Writes, func(w edgelink.WriteEvent) bool { return w.ID == id })
	}
	return slices.ContainsFunc(o.pending, func(p pendingEntry) bool { return of(p.entry) }) || slices.ContainsFunc(o.stored, func(s storedEntry) bool { return of(s.entry) })
}

// killed leaves what a kill leaves: of what was not answered, the older part.
func (o *recordLog) killed(survive int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.pending[:min(survive, len(o.pending))] {
		o.seq++
		o.stored = append(o.stored, storedEntry{p.entry, o.seq})
		o.w.tell("the outbox had %s", words(p.entry))
	}
	o.pending = nil
	o.setRoomLocked(true)
}

func (o *recordLog) setRoomLocked(is bool) {
	switch {
	case is && o.room != nil:
		close(o.room)
		o.room = nil
	case !is && o.room == nil:
		o.room = make(chan struct{})
	}
}

// step is one thing that happens.
func (w *world) step() {
	if w.life.isDead() {
		w.bury()
	}
	switch w.rng.IntN(22) {
	case 0, 1, 2:
		w.cloudWrites()
	case 3, 4:
		w.edgeWrites()
	case 5, 6:
		w.changeDevice()
	case 7:
		w.changeOutbox()
	case 8:
		failing := w.rng.IntN(2) == 0
		w.tell("the disk fails: %v", failing)
		w.store.setFail(nil)
		if failing {
			w.store.setFail(errors.New("disk is full"))
		}
	case 9:
		switch w.rng.IntN(3) {
		case 0:
			w.locked = !w.locked
		case 1:
			w.touched++
		default:
			w.model = w.rng.IntN(len(historyModels))
		}
		w.tell("model %d, connection %d, locked %v", w.model, w.touched, w.locked)
		if w.linked {
			w.apply()
		}
	case 10:
		w.linked = !w.linked
		w.hub.fresh = true
		w.tell("linked: %v", w.linked)
		if w.linked {
			w.apply()
		}
	case 11, 12:
		w.hear(w.rng.IntN(4))
	case 13:
		w.hear(1 << 20)
	case 14:
		if w.rng.IntN(2) == 0 {
			w.restore()
		} else if w.hub.desired.Version > 0 {
			w.tell("the hub is copied")
			w.copied = w.hub.clone()
		}
	case 15:
		w.tell("the edge stops")
		w.life.stop()
		w.log.killed(w.rng.IntN(3))
		w.tell("and starts")
		w.start()
	case 16:
		w.kill(0)
	case 17:
		w.kill(1 + w.rng.IntN(12))
	}
	w.pause([]time.Duration{0, 0, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second, time.Minute}[w.rng.IntN(7)])
}

func (w *world) pause(d time.Duration) {
	wait(d)
	w.expire()
}

// kill kills the edge, now or after so many effects.
func (w *world) kill(after int) {
	w.life.mu.Lock()
	w.life.killIn = after
	w.life.dead = w.life.dead || after == 0
	w.life.mu.Unlock()
	if after == 0 {
		w.bury()
	} else {
		w.tell("a kill is near")
	}
}

// bury starts the edge after it was killed.
func (w *world) bury() {
	w.tell("the edge was killed")
	w.life.stop()
	w.log.killed(w.rng.IntN(4))
	w.start()
}

func (w *world) property() string {
	return []string{"once", "hold", "mode", "wo", "secret", "once", "hold"}[w.rng.IntN(7)]
}

// patch is values for some properties that the model has.
func (w *world) patch() map[string]models.Value {
	out := map[string]models.Value{}
	for range 1 + w.rng.IntN(2) {
		p := w.property()
		if !strings.Contains(historyModels[w.model], `"`+p+`"`) {
			continue
		}
		if w.rng.IntN(6) == 0 {
			out[p] = models.Null
			continue
		}
		w.mu.Lock()
		w.n++
		n := w.n
		w.mu.Unlock()
		out[p] = models.Float(float64(n))
		if p == "mode" {
			out[p] = models.Int(int64(n))
		}
	}
	return out
}

func (w *world) cloudWrites() {
	patch := w.patch()
	if w.locked || len(patch) == 0 {
		return
	}
	c := twin.Change{Time: time.Now().UTC(), By: "admin", NewID: func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.n++
		return fmt.Sprintf("C%04d", w.n)
	}}
	if w.rng.IntN(3) == 0 {
		c.Expires = new(c.Time.Add(time.Duration(1+w.rng.IntN(60)) * time.Second))
	}
	next := w.hub.desired.Patch(patch, c)
	if w.linked {
		next = give(next, "edge")
	}
	w.tell("the cloud desires %v: version %d", patch, next.Version)
	w.hub.change(next, time.Now())
	if w.linked && w.rng.IntN(4) > 0 {
		w.apply()
	}
}

func (w *world) edgeWrites() {
	patch := w.patch()
	if len(patch) == 0 {
		return
	}
	l, lives := w.life, int(w.era)
	w.asking.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		patched, err := l.m.Patch(ctx, "a", Patch{Body: mustJSON(patch), By: "app", Origin: OriginMQTT})
		if l.isDead() {
			err = errKilled
		}
		w.tell("an app desires %v: %v %v", patch, patched.Writes, err)
		if err != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for p, id := range patched.Writes {
			w.locals[id] = localAsked{p, lives}
		}
	})
}

func (w *world) changeDevice() {
	dev := w.driver.device("a")
	what := w.rng.IntN(8)
	w.tell("the device: %s", []string{"well", "well", "unplugged", "silent", "refuses", "deaf", "its answers get lost", "drifts"}[what])
	dev.set(func(f *fakeDevice) {
		if what < 7 {
			f.fail, f.refuse, f.deaf, f.lost = nil, nil, false, nil
		}
		switch what {
		case 2:
			f.fail = &mappers.Failure{Reason: models.ReasonNotConnected, Unsent: true, Err: errors.New("no route")}
		case 3:
			f.fail = mappers.Fail(models.ReasonTimeout, errors.New("silent"))
		case 4:
			f.refuse = &mappers.Failure{Reason: models.ReasonDeviceError, Refused: true, Err: errors.New("illegal value")}
		case 5:
			f.deaf = true
		case 6:
			f.lost, f.deaf = mappers.Fail(models.ReasonTimeout, errors.New("no answer")), w.rng.IntN(3) == 0
		case 7:
			f.values[w.property()] = models.Float(-1)
		}
	})
}

func (w *world) changeOutbox() {
	o := w.log
	o.mu.Lock()
	defer o.mu.Unlock()
	what := w.rng.IntN(8)
	w.tell("the outbox: %s", []string{"well", "well", "held", "held", "fails", "answers one", "fails one", "full"}[what])
	switch what {
	case 0, 1:
		o.held, o.fail = false, nil
		o.setRoomLocked(true)
		o.commitLocked(len(o.pending), nil)
	case 2, 3:
		o.held = true
	case 4:
		o.fail = outbox.ErrDiskFull
	case 5:
		o.commitLocked(min(1, len(o.pending)), nil)
	case 6:
		o.commitLocked(min(1, len(o.pending)), outbox.ErrNotStored)
	case 7:
		o.setRoomLocked(false)
	}
}

// apply has the hub hand the edge what it wants.
func (w *world) apply() {
	w.hub.desired = give(w.hub.desired, "edge")
	w.items = []store.Item{modelItem("plain", historyModels[w.model]),
		deviceItem("a", fmt.Sprintf(`{"model":"plain","locked":%v,"connection":{"n":%d}}`, w.locked, w.touched))}
	if w.hub.desired.Version > 0 {
		w.items = append(w.items, desiredItem("a", w.hub.forEdge(time.Now())))
	}
	if w.hub.restored && (w.hub.desired.Version >= w.edgeHas || w.behind()) { // the edge cannot see it
		for _, v := range w.hub.desired.Properties {
			w.forgotten[v.ID] = true
		}
	}
	for id, r := range w.hub.rows { // it has given these up before the edge heard of it
		if w.hub.restored && !r.byEdge && w.hub.desired.Properties[r.property].ID != id || w.hub.restored && r.byHub {
			w.forgotten[id] = true
		}
	}
	w.hub.restored, w.edgeHas = false, w.hub.desired.Version
	if w.life.isDead() {
		return // it reads them when it starts
	}
	w.life.m.Apply(w.items)
}

// behind reports whether the edge's disk may be older than what the edge was handed.
func (w *world) behind() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	return len(w.unsaved) > 0 || w.store.fail != nil
}

// hear has the hub hear so many records, and the latest lane.
func (w *world) hear(n int) {
	if !w.linked || w.life.isDead() {
		return
	}
	o := w.log
	o.mu.Lock()
	records := slices.Clone(o.stored[:min(n, len(o.stored))])
	o.stored = o.stored[len(records):]
	o.mu.Unlock()
	before := w.hub.desired.Version
	for _, r := range records {
		w.hub.record(r.entry, historyModels[w.model], time.Now(), w.t)
	}
	if w.rng.IntN(3) > 0 {
		w.latest()
	}
	if w.hub.desired.Version != before && w.rng.IntN(3) > 0 {
		w.apply()
	}
}

func (w *world) latest() {
	for _, t := range w.life.m.Latest(LatestWanted{Full: w.hub.fresh}) {
		for _, u := range t.Writes {
			w.hub.setWrite(u.Property, twin.Write{ID: u.Id, State: twin.WriteState(u.State), Error: u.Error, Refused: u.Refused, Late: u.Late, Time: time.UnixMicro(u.TimeUs).UTC()})
		}
	}
	w.hub.fresh = false
}

func (w *world) restore() {
	if w.copied == nil {
		return
	}
	w.tell("the hub is restored to version %d", w.copied.desired.Version)
	w.hub = *w.copied.clone()
	w.hub.restores++
	w.hub.fresh, w.hub.restored = true, true
	w.mu.Lock()
	w.restored = w.n
	w.mu.Unlock()
	known := map[string]bool{}
	for _, v := range w.hub.desired.Properties {
		known[v.ID] = true
	}
	for n := range w.restored + 1 {
		for _, kind := range "CL" {
			if id := fmt.Sprintf("%c%04d", kind, n); !known[id] && (w.hub.rows[id] == nil || !w.hub.rows[id].byEdge || kind == 'L') {
				w.forgotten[id] = true
			}
		}
	}
	// What is on its way may still tell of an end that these had before they came back.
	doc, err := w.life.m.Document("a")
	w.log.mu.Lock()
	for name, v := range w.hub.desired.Properties {
		is := err == nil && doc.Properties[name].Write != nil && doc.Properties[name].Write.ID == v.ID
		w.forgotten[v.ID] = w.forgotten[v.ID] || !is || w.log.tellsLocked(v.ID)
	}
	w.log.mu.Unlock()
	for name, v := range w.hub.desired.Properties { // it may have forgotten to whom it handed what
		if !v.Value.IsNull() && name != "hold" {
			v.Given = "lost"
			w.hub.desired.Properties[name] = v
		}
	}
	if w.linked {
		w.apply()
	}
}

// expire has the hub withdraw what was not confirmed in time.
func (w *world) expire() {
	now := time.Now()
	for name, v := range w.hub.desired.Properties {
		if v.Expires == nil || v.Value.IsNull() || now.Before(*v.Expires) || w.hub.expired[v.ID] {
			continue
		}
		known := w.hub.shadow.Property(name).Write()
		if known.ID != v.ID {
			known = twin.Write{}
		}
		if known.State == twin.Applied {
			w.hub.expired[v.ID] = true
			continue
		}
		if known.State != twin.Expired && w.linked && now.Before(v.Expires.Add(2*time.Second)) {
			continue
		}
		next, ok := w.hub.desired.Withdraw(name, v.ID, now.UTC())
		if !ok {
			continue
		}
		w.tell("the hub gives %s up", v.ID)
		w.hub.change(next, now)
		w.hub.shadow.SetWrite(name, twin.Write{ID: v.ID, State: twin.Expired, Error: "not confirmed in time", Time: now}, v.ID)
		if w.linked {
			w.apply()
		}
	}
}

// look looks at what must hold at any time.
func (w *world) look() {
	if w.life.isDead() {
		return
	}
	doc, err := w.life.m.Document("a")
	if err != nil || w.life.isDead() {
		return
	}
	if doc.Version < w.version {
		w.t.Errorf("version %d after %d", doc.Version, w.version)
	}
	w.version = doc.Version
}

// heal makes everything well, for long enough.
func (w *world) heal() {
	w.life.mu.Lock()
	w.life.killIn = 0
	w.life.mu.Unlock()
	if w.life.isDead() {
		w.bury()
	}
	w.tell("all is well")
	w.driver.device("a").set(func(f *fakeDevice) { f.fail, f.refuse, f.deaf, f.lost = nil, nil, false, nil })
	w.store.setFail(nil)
	w.log.mu.Lock()
	w.log.held, w.log.fail = false, nil
	w.log.setRoomLocked(true)
	w.log.commitLocked(len(w.log.pending), nil)
	w.log.mu.Unlock()
	w.linked, w.locked, w.model = true, false, 0
	w.hub.fresh = true
	w.apply()
	for range 14 {
		w.pause(time.Minute)
		for range 3 { // what is judged lets more come
			w.hear(1 << 20)
			w.latest()
			w.apply()
			w.pause(time.Second)
		}
		w.look()
	}
}

// judge compares what hub, edge and device know.
func (w *world) judge() {
	t := w.t
	w.log.mu.Lock()
	before := w.log.seq
	w.log.mu.Unlock()
	w.pause(10 * time.Minute)
	w.log.mu.Lock()
	for _, r := range w.log.stored {
		if len(r.entry.Writes)+len(r.entry.Locals) > 0 && r.seq > before {
			t.Errorf("told again: %s", words(r.entry))
		}
	}
	w.log.mu.Unlock()
	for _, l := range w.life.m.Latest(LatestWanted{}) {
		if len(l.Writes) > 0 {
			t.Errorf("the latest lane tells again: %v", l.Writes)
		}
	}
	stored, err := w.store.Twin(t.Context(), "uid-a")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range stored.Untold {
		t.Errorf("untold %+v", u)
	}
	if len(stored.Locals) > 0 {
		for _, l := range stored.Locals {
			if l.Property != "secret" {
				t.Errorf("the hub has not judged %+v", l)
			}
		}
	}

	received := map[string]int{}
	for _, text := range w.driver.device("a").written() {
		received[text]++
	}
	for text, n := range received {
		if n > 1 && !strings.HasPrefix(text, "hold=") {
			t.Errorf("%s was written %d times", text, n)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.hub.rows)) {
		r := w.hub.rows[id]
		if r.null || w.forgotten[id] {
			continue
		}
		got := received[r.property+"="+r.value] > 0
		switch {
		case r.property == "secret" && r.local:
			t.Errorf("the hub knows of %s, which is to stay at the edge", id)
		case r.state == twin.Pending && !w.shaken[id]:
			t.Errorf("%s of %s is pending for ever", id, r.property)
		case r.state == twin.Applied && !got:
			t.Errorf("%s is applied, and the device never had it", id)
		case got && r.sent.IsZero() && r.state != twin.Unknown && !w.shaken[id]:
			t.Errorf("%s is %s and not sent, and the device had it", id, r.state)
		}
	}
	for id, asked := range w.locals {
		if r := w.hub.rows[id]; asked.property != "secret" && r == nil && w.hub.restores == 0 {
			t.Errorf("the hub does not know of %s of %s", id, asked.property)
		}
	}
	doc, err := w.life.m.Document("a")
	if err != nil {
		t.Fatal(err)
	}
	if doc.DesiredVersion != w.hub.desired.Version {
		t.Errorf("desired version %d, the hub's %d", doc.DesiredVersion, w.hub.desired.Version)
	}
	for name, p := range doc.Properties {
		if p.Write == nil {
			continue
		}
		if p.Write.State == twin.Pending {
			t.Errorf("%s: at the edge %s is pending", name, p.Write.ID)
		}
		r := w.hub.rows[p.Write.ID]
		if name == "secret" && strings.HasPrefix(p.Write.ID, "L") || w.forgotten[p.Write.ID] || w.shaken[p.Write.ID] {
			continue
		}
		if r == nil {
			t.Errorf("%s: the ledger knows nothing of %s", name, p.Write.ID)
		} else if r.state != p.Write.State && !(name == "hold" && r.state == twin.Applied) { // it drifted since
			t.Errorf("%s: %s is %s in the ledger and %s at the edge", name, p.Write.ID, r.state, p.Write.State)
		}
		if s := w.hub.shadow.Property(name).Write(); s.ID != p.Write.ID || s.State != p.Write.State {
			t.Errorf("%s: the latest lane said %s %s last, the edge says %s %s", name, s.ID, s.State, p.Write.ID, p.Write.State)
		}
	}
}

// hubModel does with desired values, records and the latest lane what the hub does.
type hubModel struct {
	desired  twin.Desired
	rows     map[string]*row // the ledger
	shadow   twin.Shadow
	expired  map[string]bool // confirmed before they expired
	fresh    bool            // the session is new
	restored bool            // and the edge has not heard of that
	restores int
}

type row struct {
	property, value string
	null, local     bool
	state           twin.WriteState
	sent            time.Time
	byHub, byEdge   bool // settled
	late            bool
}

func (h *hubModel) clone() *hubModel {
	c := &hubModel{desired: h.desired.Clone(), rows: map[string]*row{}, expired: map[string]bool{}, restores: h.restores}
	for id, r := range h.rows {
		c.rows[id] = new(*r)
	}
	for _, name := range h.shadow.Names() {
		if w := h.shadow.Property(name).Write(); w.ID != "" {
			c.shadow.SetWrite(name, w, "")
		}
	}
	return c
}

func give(d twin.Desired, to string) twin.Desired {
	d = d.Clone()
	for name, v := range d.Properties {
		if name != "hold" && !v.Value.IsNull() && v.Given == "" {
			v.Given = to
			d.Properties[name] = v
		}
	}
	return d
}

func (h *hubModel) forEdge(now time.Time) twin.Desired {
	out := h.desired.Clone()
	for name, v := range out.Properties {
		if v.Expires != nil {
			v.ExpiresInMS = max(v.Expires.Sub(now).Milliseconds(), 1)
			v.Expires = nil
		}
		if w := h.shadow.Property(name).Write(); !v.Value.IsNull() && w.ID == v.ID && w.State.Final() {
			v.Settled = w.State
		}
		if v.Given != "" && v.Given != "edge" && v.Settled == "" {
			v.Hidden, v.Settled = true, twin.Unknown
		}
		v.Given = ""
		out.Properties[name] = v
	}
	return out
}

// change makes d the desired values.
func (h *hubModel) change(d twin.Desired, now time.Time) {
	for name, v := range d.Properties {
		was := h.desired.Properties[name]
		switch {
		case v.Version == was.Version:
		case v.ID == was.ID:
			h.end(v.ID, twin.Expired)
		default:
			h.row(v.ID, name, v.Value, false)
			if was.ID != "" {
				h.end(was.ID, twin.Superseded)
			}
		}
	}
	h.desired = d
}

func (h *hubModel) row(id, property string, v models.Value, local bool) {
	if h.rows[id] == nil {
		h.rows[id] = &row{property: property, value: v.String(), null: v.IsNull(), local: local, state: twin.Pending}
	}
}

func (h *hubModel) end(id string, state twin.WriteState) {
	if r := h.rows[id]; r != nil && !r.byHub && !r.byEdge {
		r.state, r.byHub = state, true
	}
}

// record takes what a record says.
func (h *hubModel) record(e outbox.Entry, model string, now time.Time, t *testing.T) {
	for _, l := range e.Locals {
		if l.Property == "secret" {
			t.Errorf("the hub hears of %s, which is to stay at the edge", l.ID)
		}
		verdict := twin.Overridden
		if l.Value.IsNull() || strings.Contains(model, `"`+l.Property+`"`) {
			var next twin.Desired
			next, verdict = h.desired.Accept(twin.Local{Property: l.Property, Value: l.Value, ID: l.ID, Base: l.Base, After: l.After, Time: l.Time, By: l.By})
			if verdict == twin.Accepted {
				h.asked(l)
				h.change(give(next, "edge"), now)
			}
		}
		if verdict == twin.Overridden {
			h.asked(l)
			h.end(l.ID, twin.Superseded)
		}
	}
	for _, w := range e.Writes {
		if w.Asked != nil {
			if l := *w.Asked; l.Property == "secret" {
				t.Errorf("the hub hears of %s, which is to stay at the edge", l.ID)
			}
			h.asked(*w.Asked)
		}
	}
	for _, w := range e.Writes {
		if r := h.rows[w.ID]; r != nil {
			r.settle(w)
		}
		h.setWrite(w.Property, twin.Write{ID: w.ID, State: twin.WriteState(w.State), Error: w.Error, Refused: w.Refused, Late: w.Late, Time: w.Time.Truncate(time.Microsecond)})
	}
}

func (h *hubModel) asked(l edgelink.LocalDesired) { h.row(l.ID, l.Property, l.Value, true) }

func (r *row) settle(w edgelink.WriteEvent) {
	state := twin.WriteState(w.State)
	if r.byEdge && !(w.Late && state.Final()) {
		return
	}
	if !w.Sent.IsZero() {
		r.sent = w.Sent
	}
	if state.Final() {
		r.state, r.byEdge, r.late = state, true, r.late || w.Late
	}
}

func (h *hubModel) setWrite(property string, w twin.Write) {
	before := h.shadow.Property(property).Write()
	if before.ID == w.ID && before.State == twin.Expired && w.State == twin.Applied {
		w.Late = true
	}
	h.shadow.SetWrite(property, w, h.desired.Properties[property].ID)
}

// TestForgetWhileTheDiskFails: a log that answers while the twin cannot be stored
// leaves the loop nothing to do until that is tried again.
func TestForgetWhileTheDiskFails(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.m.Apply(one())
		wait(2 * time.Second)
		b.outbox.set(true, nil)
		b.store.setFail(errors.New("disk is full"))
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "hold", models.Float(5)))))
		wait(500 * time.Millisecond)
		b.outbox.set(false, nil)
		wait(30 * time.Second) // which does not pass while the loop spins
		b.store.setFail(nil)
		wait(30 * time.Second)
		if stored, err := b.store.Twin(t.Context(), "uid-a"); err != nil || len(stored.Untold) > 0 {
			t.Errorf("kept %+v, %v", stored.Untold, err)
		}
	})
}

// TestPrivateWriteIsToldOnce: of a local write that the hub is not to hear of there is
// nothing to tell the next life.
func TestPrivateWriteIsToldOnce(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.m.Apply(one())
		wait(2 * time.Second)
		if _, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(`{"secret":4}`)}); err != nil {
			t.Fatal(err)
		}
		wait(5 * time.Second)
		if stored, err := b.store.Twin(t.Context(), "uid-a"); err != nil || len(stored.Untold) > 0 {
			t.Errorf("kept %+v, %v", stored.Untold, err)
		}
	})
}

// TestUntoldOfALostProperty: the model loses a property while the outbox refuses what
// became of its write, and the disk too.
func TestUntoldOfALostProperty(t *testing.T) {
	for _, disk := range []error{nil, errors.New("disk is full")} {
		in(t, func(t *testing.T, b *bench) {
			b.m.Apply(one())
			wait(2 * time.Second)
			b.outbox.set(false, outbox.ErrDiskFull)
			b.store.setFail(disk)
			desired := desiredItem("a", wants(1, "W1", "hold", models.Float(5)))
			b.m.Apply(one(desired))
			wait(2 * time.Second)
			b.m.Apply([]store.Item{modelItem("plain", `{"protocol":"fake","properties":[{"name":"temp","type":"float","access":"Read"}]}`),
				deviceItem("a", `{"model":"plain"}`), desired})
			wait(2 * time.Second)
			b.store.setFail(nil)
			b.outbox.set(false, nil)
			b.outbox.take()
			wait(30 * time.Second)
			same(t, "told", writeEvents(b.outbox.take()), []string{"W1 hold applied"})
			if stored, err := b.store.Twin(t.Context(), "uid-a"); err != nil || len(stored.Untold) > 0 {
				t.Errorf("kept %+v, %v", stored.Untold, err)
			}
		})
	}
}

// TestLostFirstWordIsToldWithTheLast: the outbox loses that a local write was asked
// for, and takes what became of it.
func TestLostFirstWordIsToldWithTheLast(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.m.Apply(one())
		wait(2 * time.Second)
		b.outbox.set(false, outbox.ErrDiskFull)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, body := range []string{`{"once":1}`, `{"once":2}`} {
			if _, err := b.m.Patch(ctx, "a", Patch{Body: []byte(body)}); err != nil {
				t.Fatal(err)
			}
		}
		b.outbox.take()
		b.outbox.set(false, nil)
		if _, err := b.m.Patch(ctx, "a", Patch{Body: []byte(`{"once":3}`)}); err != nil {
			t.Fatal(err)
		}
		wait(30 * time.Second)
		known, last := map[string]bool{}, map[string]string{}
		for _, e := range b.outbox.take() {
			for _, w := range e.Writes {
				known[w.ID] = known[w.ID] || w.Asked != nil
				if known[w.ID] {
					last[w.ID] = w.State
				}
			}
		}
		for _, id := range []string{"L001", "L002", "L003"} {
			if last[id] == "" || last[id] == "pending" {
				t.Errorf("what became of %s: %q", id, last[id])
			}
		}
	})
}

// TestKilledBeforeALocalWriteIsAimed: the edge is killed when it has stored a local
// write, and the hub has never said what it desires.
func TestKilledBeforeALocalWriteIsAimed(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.m.Apply(one())
		wait(2 * time.Second)
		var killed *memStore
		b.store.saved = func(_ string, i twin.Intent) {
			if len(i.Locals) > 0 && killed == nil {
				killed = &memStore{intents: maps.Clone(b.store.intents), observed: maps.Clone(b.store.observed)}
			}
		}
		b.driver.device("a").set(func(f *fakeDevice) { f.fail = mappers.Fail(models.ReasonTimeout, errors.New("silent")) })
		if _, err := b.m.Patch(t.Context(), "a", Patch{Body: []byte(`{"once":4}`)}); err != nil {
			t.Fatal(err)
		}
		b.stop()
		b.driver.device("a").set(func(f *fakeDevice) { f.fail = nil })
		b.store, b.outbox = killed, &memOutbox{}
		b.start()
		b.m.Apply(one())
		wait(10 * time.Second)
		same(t, "written", b.driver.device("a").written(), []string{"once=4"})
	})
}

// TestStopStoresWhenTheDiskIsBack: an edge that stops does not wait for the next try.
func TestStopStoresWhenTheDiskIsBack(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.m.Apply(one())
		wait(2 * time.Second)
		b.store.setFail(errors.New("disk is full"))
		b.m.Apply(one(desiredItem("a", wants(1, "W1", "hold", models.Float(5)))))
		wait(500 * time.Millisecond)
		b.store.setFail(nil)
		b.stop()
		if stored, err := b.store.Twin(t.Context(), "uid-a"); err != nil || stored.Writes["hold"].State != twin.Applied {
			t.Errorf("stored %+v, %v", stored.Intent, err)
		}
	})
}
