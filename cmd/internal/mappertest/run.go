// Package mappertest is `whimbrel mapper test`: it checks a mapper that is a
// process of its own against the numbered requirements of mappers/conformance,
// and what there is to ask of the process itself. The mapper sees an edge's
// broker; behind it is nothing but the bridge.
package mappertest

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/broker"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/bridge"
	"github.com/whimbrel-edge/whimbrel/mappers/conformance"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// The bounds that a process is held to.
const (
	appearWithin = 10 * time.Second
	stopWithin   = 2 * time.Second
	acceptWithin = 5 * time.Second
)

// Result is how a requirement was met.
type Result struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Result   string   `json:"result"` // passed, failed, skipped
	Messages []string `json:"messages,omitempty"`
	Seconds  float64  `json:"seconds"`
}

// Report is what a test found.
type Report struct {
	Mapper  string   `json:"mapper"`
	Version string   `json:"version,omitempty"`
	Passed  int      `json:"passed"`
	Failed  int      `json:"failed"`
	Skipped int      `json:"skipped"`
	Checks  []Result `json:"checks"`
	Output  string   `json:"output,omitempty"` // the end of what the mapper printed, when something failed
}

// t is a requirement's conformance.T.
type t struct {
	ctx context.Context

	mu       sync.Mutex
	messages []string
	failed   bool
	skipped  bool
}

func (t *t) Helper()                  {}
func (t *t) Context() context.Context { return t.ctx }

func (t *t) say(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.messages = append(t.messages, strings.TrimSpace(text))
}

func (t *t) fail(text string) {
	t.say(text)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
}

func (t *t) Error(args ...any)                 { t.fail(fmt.Sprintln(args...)) }
func (t *t) Errorf(format string, args ...any) { t.fail(fmt.Sprintf(format, args...)) }
func (t *t) Fatal(args ...any)                 { t.Error(args...); runtime.Goexit() }
func (t *t) Fatalf(format string, args ...any) { t.Errorf(format, args...); runtime.Goexit() }

func (t *t) Skip(args ...any) {
	t.say(fmt.Sprintln(args...))
	t.mu.Lock()
	t.skipped = true
	t.mu.Unlock()
	runtime.Goexit()
}

// rig is everything around the mapper.
type rig struct {
	ctx    context.Context
	name   string
	file   *file
	only   []string
	broker *broker.Broker
	bridge *bridge.Bridge
	mapper *process
	device *process // nil for one that is there anyway
	output tail
	report *Report
	tell   func(Result)

	mu       sync.Mutex
	problems []string // that were told the mapper
	sessions int      // announcements taken
	conn     uint64   // of the newest
}

// Run tests the mapper called name, which command starts, with the device of a
// test file. With only, it checks the requirements of these numbers, and P01.
// tell is called after each.
func Run(ctx context.Context, name, path string, command, only []string, log *slog.Logger, tell func(Result)) (*Report, error) {
	f, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if err := known(only); err != nil {
		return nil, err
	}
	r := &rig{ctx: ctx, name: name, file: f, only: only, report: &Report{Mapper: name}, tell: tell}
	password := rand.Text()
	r.bridge = bridge.New(bridge.Config{Node: "mapper-test", Log: log, NewID: func() string { return ulid.Make().String() },
		Publish: r.publish, Disconnect: func(conn uint64) { r.broker.Disconnect(conn) }})
	r.broker, err = broker.New(broker.Config{Addr: "127.0.0.1:0", Auth: credential{name, password}, Devices: noDevices{}, Mappers: speech{r}, Log: log})
	if err != nil {
		return nil, err
	}
	loops, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wait sync.WaitGroup
	wait.Go(func() { _ = r.broker.Run(loops) })
	wait.Go(func() { _ = r.bridge.Run(loops) })
	defer wait.Wait()
	defer cancel()
	r.mapper = &process{name: "the mapper", args: command, out: &r.output, env: []string{"WHIMBREL_MQTT_URL=mqtt://" + r.broker.Addr(),
		"WHIMBREL_MQTT_USERNAME=mapper-" + name, "WHIMBREL_MQTT_PASSWORD=" + password, "WHIMBREL_NODE=mapper-test"}}
	if len(f.Device.Run) > 0 {
		r.device = &process{name: "the device", args: f.Device.Run, dir: f.dir, out: &tail{}}
	}
	defer func() {
		r.mapper.kill()
		if r.device != nil {
			r.device.signal(contSignal)
			r.device.kill()
		}
	}()
	// Without a device there would be as many failures as requirements, and none
	// of them the mapper's.
	if err := r.deviceThere(); err != nil {
		return nil, err
	}
	r.all()
	if r.report.Failed > 0 {
		r.report.Output = r.output.String()
	}
	return r.report, ctx.Err()
}

// known refuses numbers that no requirement has: nothing would be checked.
func known(ids []string) error {
	all := []string{"P01", "P02", "P03", "P04", "P05", "P06", "P07"}
	conformance.Run(conformance.Harness{}, func(id, _ string, _ func(conformance.T)) { all = append(all, id) })
	for _, id := range ids {
		if !slices.Contains(all, id) {
			slices.Sort(all)
			return fmt.Errorf("there is no requirement %q; there are %s", id, strings.Join(all, ", "))
		}
	}
	return nil
}

// deviceThere starts the device, if the test does, and waits until it is ready.
func (r *rig) deviceThere() error {
	if r.device == nil {
		return nil
	}
	ready := r.file.Device.Ready
	if ready != "" && listens(r.ctx, ready) {
		return fmt.Errorf("somebody listens at %s already: end that, or let the device listen elsewhere (run, ready and connection in the test file)", ready)
	}
	if err := r.device.start(); err != nil {
		return err
	}
	if ready != "" {
		return r.device.listening(r.ctx, ready)
	}
	return nil
}

// check runs one requirement.
func (r *rig) check(id, name string, f func(conformance.T)) bool {
	if r.ctx.Err() != nil {
		return false
	}
	if len(r.only) > 0 && id != "P01" && !slices.Contains(r.only, id) {
		return true
	}
	began := time.Now()
	check := &t{ctx: r.ctx}
	done := make(chan struct{})
	go func() { // Fatal ends it; awaited below
		defer close(done)
		f(check)
	}()
	<-done
	check.mu.Lock()
	res := Result{ID: id, Name: name, Result: "passed", Messages: check.messages, Seconds: time.Since(began).Round(time.Millisecond).Seconds()}
	switch {
	case check.failed:
		res.Result = "failed"
		r.report.Failed++
	case check.skipped:
		res.Result = "skipped"
		r.report.Skipped++
	default:
		r.report.Passed++
	}
	check.mu.Unlock()
	r.report.Checks = append(r.report.Checks, res)
	r.tell(res)
	return res.Result != "failed"
}

// all checks everything. Without a mapper that announces itself there is nothing
// to check.
func (r *rig) all() {
	if !r.check("P01", "the process announces itself", r.announces) {
		return
	}
	r.report.Version = r.bridge.Mapper(r.name).Info().Version
	r.check("P02", "it sends heartbeats while it has nothing to do", r.beats)
	conformance.Run(conformance.Harness{Driver: patient{r}, Start: r.start, BadAddress: r.file.BadAddress, OpenWithin: stopWithin}, func(id, name string, check func(conformance.T)) {
		r.check(id, name, func(t conformance.T) {
			r.revive(t)
			check(t)
			if !r.live() {
				t.Error("the mapper is gone")
			}
		})
	})
	r.check("P03", "when its connection is cut it comes back, and serves its devices again", r.reconnects)
	r.check("P04", "killed and started again, it serves its devices again", r.restarts)
	r.check("P05", "what is opened and closed leaves nothing behind", r.leaks)
	r.check("P06", "it stops within 2 s of SIGTERM", r.stops)
	r.check("P07", "nothing that it sent was refused", func(t conformance.T) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range r.problems {
			t.Error(p)
		}
	})
}

func (r *rig) live() bool {
	m := r.bridge.Mapper(r.name)
	return m != nil && m.Live()
}

// until waits for a condition.
func (r *rig) until(within time.Duration, ok func() bool) bool {
	for over := time.Now().Add(within); !ok(); {
		if time.Now().After(over) || r.ctx.Err() != nil {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}

func (r *rig) announces(t conformance.T) {
	if err := r.mapper.start(); err != nil {
		t.Fatal(err)
	}
	if !r.until(appearWithin, func() bool { return r.live() || !r.mapper.running() }) || !r.live() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range r.problems {
			t.Error(p)
		}
		if !r.mapper.running() {
			t.Fatal(r.mapper.ended())
		}
		t.Fatalf("it has not announced the mapper %q within %v", r.name, appearWithin)
	}
}

// revive starts a mapper again that an earlier requirement was too much for.
func (r *rig) revive(t conformance.T) {
	if r.live() {
		return
	}
	if !r.mapper.running() {
		t.Error(fmt.Errorf("%w; it is started again", r.mapper.ended()))
		r.mapper.kill()
		if err := r.mapper.start(); err != nil {
			t.Fatal(err)
		}
	}
	if !r.until(appearWithin, r.live) {
		t.Fatal("there is no mapper")
	}
}

func (r *rig) beats(t conformance.T) {
	every := r.bridge.Mapper(r.name).Heartbeat()
	// Bounded: one that promises little is believed.
	if r.until(min(4*every, 10*time.Second), func() bool { return !r.live() }) {
		t.Errorf("it was not heard for three times %v, the heartbeat that it announced", every)
	}
}

// opened opens the device and waits until it is read, and good.
func (r *rig) opened(t conformance.T, name string) mappers.Device {
	d := r.file.what()
	cfg := mappers.DeviceConfig{Name: name, Connection: d.Connection}
	for _, p := range d.Points {
		cfg.Points = append(cfg.Points, p.Point)
	}
	dev, err := patient{r}.Open(cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return dev
}

func (r *rig) good(t conformance.T, dev mappers.Device) {
	out := make([]mappers.Result, len(r.file.Properties))
	points := make([]int, len(out))
	for i := range points {
		points[i] = i
	}
	var err error
	if !r.until(appearWithin, func() bool {
		ctx, cancel := context.WithTimeout(r.ctx, acceptWithin)
		defer cancel()
		if err = dev.Read(ctx, points, out); err != nil {
			return false
		}
		for _, res := range out {
			if res.Quality != models.Good {
				return false
			}
		}
		return true
	}) {
		if err != nil {
			t.Fatalf("the device is not served within %v: %v", appearWithin, err)
		}
		for i, res := range out {
			if res.Quality != models.Good {
				t.Errorf("%s is not good within %v: %s %s (%v)", r.file.Properties[i].Name, appearWithin, res.Quality, res.Reason, res.Err)
			}
		}
		runtime.Goexit()
	}
}

func (r *rig) reconnects(t conformance.T) {
	r.revive(t)
	r.start(t)
	dev := r.opened(t, "reconnect")
	defer dev.Close()
	r.good(t, dev)
	r.mu.Lock()
	sessions, conn := r.sessions, r.conn
	r.mu.Unlock()
	r.broker.Disconnect(conn)
	if !r.until(appearWithin, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.sessions > sessions }) {
		t.Fatalf("it has not announced itself again within %v", appearWithin)
	}
	r.good(t, dev)
}

func (r *rig) restarts(t conformance.T) {
	r.revive(t)
	r.start(t)
	dev := r.opened(t, "restart")
	defer dev.Close()
	r.good(t, dev)
	r.mapper.kill()
	if !r.until(time.Second, func() bool { return !r.live() }) {
		t.Error("it is dead, and has a session")
	}
	if err := r.mapper.start(); err != nil {
		t.Fatal(err)
	}
	if !r.until(appearWithin, r.live) {
		t.Fatalf("it has not announced itself again within %v", appearWithin)
	}
	r.good(t, dev)
}

// rounds is how often leaks opens and closes.
const rounds = 20

func (r *rig) leaks(t conformance.T) {
	r.revive(t)
	r.start(t)
	round := func(n int) {
		for i := range n {
			dev := r.opened(t, fmt.Sprintf("round-%d", i))
			r.good(t, dev)
			_ = dev.Close()
		}
	}
	round(rounds / 4) // what is made once and kept
	before, err := r.mapper.usage()
	if errors.Is(err, errNoProc) {
		t.Skip(err)
	}
	round(rounds)
	const files, threads, memory = 3, 3, 16 << 20
	var after usage
	if !r.until(5*time.Second, func() bool {
		if after, err = r.mapper.usage(); err != nil {
			return false
		}
		return after.files <= before.files+files && after.threads <= before.threads+threads && after.memory <= before.memory+memory
	}) {
		t.Errorf("before %d devices: %s; after: %s", rounds, before, after)
	}
}

func (r *rig) stops(t conformance.T) {
	r.revive(t)
	r.start(t)
	dev := r.opened(t, "stop")
	defer dev.Close()
	r.good(t, dev)
	if !r.mapper.stop(stopWithin) {
		t.Error("it runs on")
	}
}

// start starts the device, or finds it as it is.
func (r *rig) start(t conformance.T) conformance.Device {
	out, d := r.file.what(), &r.file.Device
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	if r.device == nil {
		do := func(args []string) func() {
			if len(args) == 0 {
				return nil
			}
			return func() { must(command(r.ctx, r.file.dir, args)) }
		}
		out.Unplug, out.Plug, out.Silence, out.Speak = do(d.Unplug), do(d.Plug), do(d.Silence), do(d.Speak)
		return out
	}
	out.Unplug = func() { r.device.signal(contSignal); r.device.kill() }
	out.Plug = func() { must(r.deviceThere()) }
	out.Silence = func() { r.device.signal(stopSignal) }
	out.Speak = func() { r.device.signal(contSignal) }
	out.Slow = func(late time.Duration) {
		r.device.signal(stopSignal)
		time.AfterFunc(late, func() { r.device.signal(contSignal) })
	}
	out.Unplug() // every requirement has a device as it is at its start
	if err := r.deviceThere(); err != nil {
		t.Fatal(err)
	}
	return out
}

// patient is the mapper as the suite sees it: a driver whose Open waits for what
// the mapper says.
type patient struct{ r *rig }

func (p patient) Info() mappers.Info { return p.r.bridge.Mapper(p.r.name).Info() }

func (p patient) Open(cfg mappers.DeviceConfig) (mappers.Device, error) {
	dev, err := p.r.bridge.Mapper(p.r.name).Open(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(p.r.ctx, acceptWithin)
	defer cancel()
	if err := dev.(interface{ Verdict(context.Context) error }).Verdict(ctx); err != nil {
		_ = dev.Close()
		return nil, err
	}
	return dev, nil
}

// publish publishes for the bridge, and notes what it complains of.
func (r *rig) publish(topic string, payload []byte) error {
	if _, kind, _ := mqtt.ParseMapperTopic(topic); kind == mqtt.MapperProblem {
		var p struct{ Topic, Detail string }
		_ = json.Unmarshal(payload, &p)
		r.mu.Lock()
		r.problems = append(r.problems, p.Topic+": "+p.Detail)
		r.mu.Unlock()
	}
	return r.broker.Publish(topic, payload, false)
}

// credential lets the mapper in.
type credential struct{ name, password string }

func (c credential) Authenticate(username, password string) (broker.Identity, bool) {
	own := mqtt.MapperTopic(c.name, "")
	return broker.Identity{Name: username, Rules: []broker.Rule{{Filter: own + "+", Publish: true}, {Filter: own + "#", Subscribe: true}}},
		username == "mapper-"+c.name && subtle.ConstantTimeCompare([]byte(password), []byte(c.password)) == 1
}

// noDevices: there are no twins here.
type noDevices struct{}

func (noDevices) Desired(context.Context, string, string, bool, []byte) ([]byte, error) {
	return nil, models.Errorf(models.KindNotFound, "there are no devices here")
}

// speech is the bridge as the broker sees it.
type speech struct{ r *rig }

func (s speech) Message(m broker.MapperMessage) {
	was := s.r.live()
	s.r.bridge.Message(bridge.Message(m))
	if m.Kind == mqtt.MapperAnnounce && !was && s.r.live() {
		s.r.mu.Lock()
		s.r.sessions++
		s.r.conn = m.Conn
		s.r.mu.Unlock()
	}
}

func (s speech) Gone(conn uint64) { s.r.bridge.Gone(conn) }

func (s speech) MayRead(conn uint64, mapper string, kind mqtt.MapperTopicKind) bool {
	return s.r.bridge.MayRead(conn, mapper, kind)
}
