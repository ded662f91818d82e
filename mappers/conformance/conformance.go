// Package conformance is what a driver has to do, as numbered requirements that
// can be checked: the suite behind mappers/drivertest, which checks drivers in Go
// tests, and behind `whimbrel mapper test`, which checks mappers that are
// processes of their own.
package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/schema"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// T is what a requirement says its findings to; *testing.T is one. Fatal, Fatalf
// and Skip end the goroutine.
type T interface {
	Helper()
	Context() context.Context
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
}

// Harness is a driver and how to get at a device that speaks its protocol.
type Harness struct {
	Driver mappers.Driver
	// Start starts a device of its own for one requirement. It sees to its end.
	Start func(t T) Device
	// BadAddress is an address that Open must refuse.
	BadAddress json.RawMessage
	// OpenWithin is how long Open may take; 0 is 100 ms.
	OpenWithin time.Duration
	// Watch begins to look for what a requirement leaves behind, and returns what
	// finds it. Unless nil.
	Watch func() (leaks func() error)
}

// Device is a real or simulated device for a test.
type Device struct {
	Connection json.RawMessage // with a timeout of at most a second
	// Points the device has, at least two of them writable and readable.
	Points []Point
	// Refused is a point that Open accepts and the device has not; it lies
	// among the others. Its zero value says that the protocol knows no such
	// thing.
	Refused mappers.Point
	// Unplug cuts the device off, so that connecting fails; Plug undoes it. Nil
	// for a device of which it cannot be had; what needs it is skipped then.
	Unplug, Plug func()
	// Silence keeps the device connected, but it answers nothing; Speak undoes
	// it. Nil as above.
	Silence, Speak func()
	// Slow makes the device answer nothing for so long, and then everything. Nil
	// as above.
	Slow func(d time.Duration)
}

// Point is a point and what it holds.
type Point struct {
	mappers.Point
	Value models.Value // when the device starts
	// Other is another value that the device stores exactly, for writable
	// points.
	Other models.Value
	// Beyond is a value of the point's type that the device cannot store; Null
	// when there is none.
	Beyond models.Value
}

// The bounds that the suite holds drivers to.
const (
	cancelWithin = time.Second
	closeWithin  = 2 * time.Second
	backWithin   = 10 * time.Second
	failWithin   = 5 * time.Second // a read of a silent device; its timeout is at most a second
	late         = 100 * time.Millisecond
)

// needs is what of a device a requirement cannot do without.
type needs int

const (
	nothing needs = iota
	unplugging
	silencing
	slowing
)

var requirements = []struct {
	id, name string
	needs    needs
	f        func(T, *env)
}{
	{"D01", "info names the driver", nothing, infoNames},
	{"D02", "schemas are JSON Schema 2020-12", nothing, schemasCompile},
	{"D03", "schemas accept what Open accepts, and no unknown field", nothing, schemasFit},
	{"D04", "open refuses a bad address with a pointer to it", nothing, openRefusesAddress},
	{"D05", "open refuses an unknown field of the connection with a pointer to it", nothing, openRefusesConnection},
	{"D06", "open does not reach for the device", unplugging, openIsQuiet},
	{"D07", "one batch reads every point in its type", nothing, readBatch},
	{"D08", "points may be read in any choice and order", nothing, readSome},
	{"D09", "what is written is read back", nothing, writeReadBack},
	{"D10", "several values are written in one call", nothing, writeMany},
	{"D11", "a value that the device cannot hold is refused and not sent", nothing, writeBeyond},
	{"D12", "a bad point is bad alone", nothing, refusedAlone},
	{"D13", "a lost device fails as a whole, and comes back by itself", unplugging, lostAndBack},
	{"D14", "a write to a lost device does not succeed, nor claim to be refused", unplugging, writeLost},
	{"D15", "a silent device is a timeout", silencing, silentTimesOut},
	{"D16", "read and write return soon after their context ends", silencing, cancelled},
	{"D17", "close is quick, also while the device is silent", silencing, closeQuick},
	{"D18", "devices of one driver may be used at the same time", nothing, together},
	{"D19", "plans cover the points, and lines keep their names", nothing, plans},
	{"D20", "subscriptions deliver present values and end with their context", nothing, subscriptions},
	{"D21", "a slow device is waited for", slowing, slowIsWaitedFor},
	{"D22", "who reads by himself reports every point again and again, and that the device is gone, and that it is back", unplugging, reports},
}

// Run hands each requirement to run, with its number and name, which is to call
// check with a T of its own and wait for it.
func Run(h Harness, run func(id, name string, check func(T))) {
	for _, r := range requirements {
		run(r.id, r.name, func(t T) {
			e := &env{Harness: h, Device: h.Start(t), t: t}
			switch {
			case r.needs == unplugging && (e.Unplug == nil || e.Plug == nil):
				t.Skip("the device cannot be unplugged")
			case r.needs == silencing && (e.Silence == nil || e.Speak == nil):
				t.Skip("the device cannot be silenced")
			case r.needs == slowing && e.Slow == nil:
				t.Skip("the device cannot be slowed down")
			}
			leaks := func() error { return nil }
			if h.Watch != nil {
				leaks = h.Watch()
			}
			// D00: whatever a test does, closing what it opened leaves nothing behind.
			defer func() {
				e.closeAll(t)
				if err := leaks(); err != nil {
					t.Errorf("D00 left behind after Close: %v", err)
				}
			}()
			r.f(t, e)
		})
	}
}

// env is one requirement's device and what was opened for it.
type env struct {
	Harness
	Device
	t    T
	open []mappers.Device
	made int // devices
}

// config is a device's, under a name of its own.
func (e *env) config(connection json.RawMessage, points []mappers.Point) mappers.DeviceConfig {
	e.made++
	return mappers.DeviceConfig{Name: fmt.Sprintf("conformance-%d", e.made), Connection: connection, Points: points}
}

func (e *env) points() []mappers.Point {
	points := make([]mappers.Point, len(e.Points))
	for i, p := range e.Points {
		points[i] = p.Point
	}
	return points
}

// opened opens the device; the suite closes it.
func (e *env) opened(t T, points ...mappers.Point) mappers.Device {
	t.Helper()
	if points == nil {
		points = e.points()
	}
	dev, err := e.Driver.Open(e.config(e.Connection, points))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	e.open = append(e.open, dev)
	return dev
}

func (e *env) closeAll(t T) {
	for _, dev := range e.open {
		if err := dev.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	e.open = nil
}

func upTo(n int) []int {
	points := make([]int, n)
	for i := range points {
		points[i] = i
	}
	return points
}

func read(t T, dev mappers.Device, points []int) []mappers.Result {
	t.Helper()
	out := make([]mappers.Result, len(points))
	if err := dev.Read(t.Context(), points, out); err != nil {
		t.Fatalf("read: %v", err)
	}
	return out
}

// write returns the error of each write.
func write(ctx context.Context, dev mappers.Device, writes ...mappers.WriteRequest) []error {
	errs := dev.Write(ctx, writes)
	if errs == nil {
		return make([]error, len(writes))
	}
	return errs
}

func (e *env) writable() []int {
	var points []int
	for i, p := range e.Points {
		if p.Access.Writable() && p.Access.Readable() && !p.Other.IsNull() {
			points = append(points, i)
		}
	}
	if len(points) < 2 {
		e.t.Fatal("the harness needs two points that can be written and read, with another value each")
	}
	return points
}

func canonical(t T, dev mappers.Device, p int, v models.Value) models.Value {
	t.Helper()
	c, ok := dev.(mappers.Canonicalizer)
	if !ok {
		return v
	}
	got, err := c.Canonical(p, v)
	if err != nil {
		t.Fatalf("canonical: %v", err)
	}
	return got
}

func infoNames(t T, e *env) {
	info := e.Driver.Info()
	if models.CheckLabelName(info.Name) != "" || info.Version == "" {
		t.Errorf("name %q, version %q", info.Name, info.Version)
	}
}

func compile(t T, how func([]byte) (*schema.Schema, error), text []byte) *schema.Schema {
	t.Helper()
	s, err := how(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func schemasCompile(t T, e *env) {
	info := e.Driver.Info()
	for _, s := range []struct {
		name string
		text json.RawMessage
		how  func([]byte) (*schema.Schema, error)
	}{{"connection", info.Connection, schema.Compile}, {"address", info.Address, schema.Compile}, {"property", info.Property, schema.CompileProperty}} {
		if s.name == "property" && len(s.text) == 0 {
			continue
		}
		var head struct {
			Schema string `json:"$schema"`
		}
		if err := json.Unmarshal(s.text, &head); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if head.Schema != "https://json-schema.org/draft/2020-12/schema" {
			t.Errorf("%s: $schema is %q", s.name, head.Schema)
		}
		compile(t, s.how, s.text)
	}
}

func schemasFit(t T, e *env) {
	info := e.Driver.Info()
	connection, address := compile(t, schema.Compile, info.Connection), compile(t, schema.Compile, info.Address)
	check := func(s *schema.Schema, text json.RawMessage) {
		for _, f := range s.Check(text, "") {
			t.Errorf("%s: %v", text, f)
		}
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatal(err)
		}
		doc["noSuchField"] = json.RawMessage("true")
		more, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Check(more, "")) == 0 {
			t.Errorf("%s with an unknown field is accepted", text)
		}
	}
	check(connection, e.Connection)
	for _, p := range e.Points {
		check(address, p.Address)
	}
	if len(info.Property) == 0 {
		return
	}
	property := compile(t, schema.CompileProperty, info.Property)
	for _, p := range e.points() {
		doc := fmt.Appendf(nil, `{"name": %q, "type": %q, "access": %q, "address": %s}`, p.Property, p.Type, p.Access, p.Address)
		for _, f := range property.Check(doc, "") {
			t.Errorf("property %s: %v", p.Property, f)
		}
		for _, c := range property.CheckAgainst(doc, e.Connection) {
			t.Errorf("property %s with the connection %s: %v", p.Property, e.Connection, c.Property)
		}
	}
}

// refusal checks that err is a models.Error with a field at, or below, at.
func refusal(t T, err error, at string) {
	t.Helper()
	var e *models.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is no *models.Error", err)
	}
	if !slices.ContainsFunc(e.Fields, func(f models.FieldError) bool { return f.Pointer == at || strings.HasPrefix(f.Pointer, at+"/") }) {
		t.Errorf("%v points to nothing under %s", err, at)
	}
}

func openRefusesAddress(t T, e *env) {
	points := e.points()
	points[len(points)-1].Address = e.BadAddress
	dev, err := e.Driver.Open(e.config(e.Connection, points))
	if err == nil {
		dev.Close()
		t.Fatalf("%s was accepted", e.BadAddress)
	}
	refusal(t, err, "/spec/properties/"+points[len(points)-1].Property+"/address")
}

func openRefusesConnection(t T, e *env) {
	var fields map[string]any
	if err := json.Unmarshal(e.Connection, &fields); err != nil {
		t.Fatal(err)
	}
	fields["noSuchField"] = true
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := e.Driver.Open(e.config(text, e.points()))
	if err == nil {
		dev.Close()
		t.Fatal("it was accepted")
	}
	refusal(t, err, "/spec/connection/noSuchField")
}

func openIsQuiet(t T, e *env) {
	e.Unplug()
	began := time.Now()
	dev := e.opened(t)
	within := e.OpenWithin
	if within == 0 {
		within = 100 * time.Millisecond
	}
	if took := time.Since(began); took > within {
		t.Errorf("open took %v", took)
	}
	e.Plug()
	e.waitGood(t, dev)
}

// waitGood reads until every point is good.
func (e *env) waitGood(t T, dev mappers.Device) {
	t.Helper()
	out := make([]mappers.Result, len(e.Points))
	var err error
	for deadline := time.Now().Add(backWithin); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = dev.Read(t.Context(), upTo(len(out)), out); err == nil && !slices.ContainsFunc(out, func(r mappers.Result) bool { return r.Quality != models.Good }) {
			return
		}
	}
	t.Fatalf("the device has not come back within %v: %v, %v", backWithin, err, out)
}

func readBatch(t T, e *env) {
	dev := e.opened(t)
	for i, r := range read(t, dev, upTo(len(e.Points))) {
		p := e.Points[i]
		if r.Value != p.Value || r.Quality != models.Good || r.Reason != models.ReasonNone {
			t.Errorf("%s: %v %v %v, want %v", p.Property, r.Value, r.Quality, r.Reason, p.Value)
		}
		if fitted, err := r.Value.Fit(p.Type); err != nil || fitted != r.Value {
			t.Errorf("%s: %v is no %s", p.Property, r.Value, p.Type)
		}
		if !r.Time.IsZero() && time.Since(r.Time).Abs() > time.Hour {
			t.Errorf("%s: time %v", p.Property, r.Time)
		}
	}
}

func readSome(t T, e *env) {
	dev := e.opened(t)
	n := len(e.Points)
	reversed := upTo(n)
	slices.Reverse(reversed)
	for _, points := range [][]int{reversed, {n - 1}, {n - 1, 0}, {0}, {}, reversed} {
		for i, r := range read(t, dev, points) {
			if want := e.Points[points[i]].Value; r.Value != want {
				t.Errorf("reading %v: point %d is %v, want %v", points, points[i], r.Value, want)
			}
		}
	}
}

func writeReadBack(t T, e *env) {
	dev := e.opened(t)
	for _, p := range e.writable() {
		for _, v := range []models.Value{e.Points[p].Other, e.Points[p].Value} {
			if err := write(t.Context(), dev, mappers.WriteRequest{Point: p, Value: v})[0]; err != nil {
				t.Errorf("%s = %v: %v", e.Points[p].Property, v, err)
				continue
			}
			if got, want := read(t, dev, []int{p})[0], canonical(t, dev, p, v); got.Value != want || got.Quality != models.Good {
				t.Errorf("%s = %v reads back %v %v", e.Points[p].Property, want, got.Value, got.Quality)
			}
		}
	}
	readBatchAgain(t, e, dev)
}

// readBatchAgain checks that nothing but what was meant has changed.
func readBatchAgain(t T, e *env, dev mappers.Device) {
	t.Helper()
	for i, r := range read(t, dev, upTo(len(e.Points))) {
		if r.Value != e.Points[i].Value {
			t.Errorf("%s: %v, want %v", e.Points[i].Property, r.Value, e.Points[i].Value)
		}
	}
}

func writeMany(t T, e *env) {
	dev := e.opened(t)
	points := e.writable()
	var writes []mappers.WriteRequest
	for _, p := range points {
		writes = append(writes, mappers.WriteRequest{Point: p, Value: e.Points[p].Other})
	}
	errs := write(t.Context(), dev, writes...)
	if len(errs) != len(writes) {
		t.Fatalf("%d answers to %d writes", len(errs), len(writes))
	}
	for i, r := range read(t, dev, points) {
		if errs[i] != nil || r.Value != canonical(t, dev, points[i], e.Points[points[i]].Other) {
			t.Errorf("%s: %v, reads back %v", e.Points[points[i]].Property, errs[i], r.Value)
		}
	}
}

func writeBeyond(t T, e *env) {
	dev := e.opened(t)
	read(t, dev, upTo(len(e.Points))) // what a point can hold may be the device's to tell
	tried := false
	for p, point := range e.Points {
		if point.Beyond.IsNull() {
			continue
		}
		tried = true
		if c, ok := dev.(mappers.Canonicalizer); ok {
			// One that cannot know returns the value; the device then refuses it.
			if got, err := c.Canonical(p, point.Beyond); err == nil && got != point.Beyond {
				t.Errorf("%s: Canonical makes %v of %v", point.Property, got, point.Beyond)
			}
		}
		err := write(t.Context(), dev, mappers.WriteRequest{Point: p, Value: point.Beyond})[0]
		if err == nil || !mappers.FailureOf(err).Refused {
			t.Errorf("%s = %v: error %v, want a refusal", point.Property, point.Beyond, err)
		}
	}
	if !tried {
		t.Skip("the harness has no such value")
	}
	readBatchAgain(t, e, dev)
}

func refusedAlone(t T, e *env) {
	if e.Refused.Property == "" {
		t.Skip("the harness has no such point")
	}
	dev := e.opened(t, append(e.points(), e.Refused)...)
	n := len(e.Points)
	for cycle := range 3 {
		for i, r := range read(t, dev, upTo(n+1)) {
			switch {
			case i == n && (r.Quality != models.Bad || r.Reason == models.ReasonNone || !r.Value.IsNull()):
				t.Errorf("cycle %d: the refused point is %v %v %v", cycle, r.Value, r.Quality, r.Reason)
			case i < n && (r.Quality != models.Good || r.Value != e.Points[i].Value):
				t.Errorf("cycle %d: %s is %v %v %v", cycle, e.Points[i].Property, r.Value, r.Quality, r.Reason)
			}
		}
	}
}

func lostAndBack(t T, e *env) {
	dev := e.opened(t)
	read(t, dev, upTo(len(e.Points)))
	for range 2 {
		e.Unplug()
		out := make([]mappers.Result, len(e.Points))
		for i := range 3 {
			err := dev.Read(t.Context(), upTo(len(out)), out)
			if err == nil {
				t.Fatal("reading a lost device succeeds")
			}
			// The first failure may be the old connection's end.
			if f := mappers.FailureOf(err); i > 0 && f.Reason != models.ReasonNotConnected && f.Reason != models.ReasonTimeout {
				t.Errorf("reason %s (%v)", f.Reason, err)
			}
		}
		e.Plug()
		e.waitGood(t, dev)
	}
}

func writeLost(t T, e *env) {
	dev := e.opened(t)
	read(t, dev, upTo(len(e.Points)))
	p := e.writable()[0]
	e.Unplug()
	for i := range 3 {
		err := write(t.Context(), dev, mappers.WriteRequest{Point: p, Value: e.Points[p].Other})[0]
		f := mappers.FailureOf(err)
		if err == nil || f.Refused {
			t.Errorf("error %v", err)
		}
		if i == 2 && !f.Unsent {
			t.Errorf("a write without a connection claims that it may have been sent: %v", err)
		}
	}
	e.Plug()
	e.waitGood(t, dev)
	if got := read(t, dev, []int{p})[0]; got.Value != e.Points[p].Value {
		t.Errorf("a failed write was sent later: %v", got.Value)
	}
}

func silentTimesOut(t T, e *env) {
	dev := e.opened(t)
	read(t, dev, upTo(len(e.Points)))
	e.Silence()
	began := time.Now()
	err := dev.Read(t.Context(), upTo(len(e.Points)), make([]mappers.Result, len(e.Points)))
	if took := time.Since(began); took > failWithin {
		t.Errorf("the read took %v", took)
	}
	if err == nil || mappers.FailureOf(err).Reason != models.ReasonTimeout {
		t.Errorf("error %v, want a timeout", err)
	}
	p := e.writable()[0]
	err = write(t.Context(), dev, mappers.WriteRequest{Point: p, Value: e.Points[p].Other})[0]
	if f := mappers.FailureOf(err); err == nil || f.Refused {
		t.Errorf("write: %v", err)
	}
	e.Speak()
	e.waitGood(t, dev)
}

func cancelled(t T, e *env) {
	dev := e.opened(t)
	read(t, dev, upTo(len(e.Points)))
	e.Silence()
	defer e.Speak()
	p := e.writable()[0]
	for name, f := range map[string]func(context.Context) error{
		"read": func(ctx context.Context) error {
			return dev.Read(ctx, upTo(len(e.Points)), make([]mappers.Result, len(e.Points)))
		},
		"write": func(ctx context.Context) error {
			return write(ctx, dev, mappers.WriteRequest{Point: p, Value: e.Points[p].Other})[0]
		},
	} {
		for _, after := range []time.Duration{0, 20 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			began := time.Now()
			err := f(ctx)
			cancel()
			if took := time.Since(began) - after; took > cancelWithin {
				t.Errorf("%s returned %v after its context ended", name, took)
			}
			if err == nil {
				t.Errorf("%s of a silent device succeeded", name)
			}
		}
	}
}

func closeQuick(t T, e *env) {
	idle, used, silent := e.opened(t), e.opened(t), e.opened(t)
	e.open = nil
	read(t, used, upTo(len(e.Points)))
	read(t, silent, upTo(len(e.Points)))
	e.Silence()
	defer e.Speak()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := silent.Read(ctx, []int{0}, make([]mappers.Result, 1)); err == nil {
		t.Error("a silent device answered")
	}
	for name, dev := range map[string]mappers.Device{"never used": idle, "used": used, "silent": silent} {
		began := time.Now()
		if err := dev.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > closeWithin {
			t.Errorf("closing a device that is %s took %v", name, took)
		}
	}
}

func together(t T, e *env) {
	var group sync.WaitGroup
	for range 4 {
		dev := e.opened(t)
		group.Go(func() {
			for range 25 {
				out := make([]mappers.Result, len(e.Points))
				if err := dev.Read(t.Context(), upTo(len(out)), out); err != nil {
					t.Errorf("read: %v", err)
					return
				}
				for i, r := range out {
					if r.Value != e.Points[i].Value {
						t.Errorf("%s: %v, want %v", e.Points[i].Property, r.Value, e.Points[i].Value)
					}
				}
			}
		})
	}
	group.Wait()
}

func plans(t T, e *env) {
	dev := e.opened(t)
	if planner, ok := dev.(mappers.Planner); ok {
		covered := 0
		for _, r := range planner.Plan(upTo(len(e.Points))) {
			if r.Text == "" {
				t.Error("a request without text")
			}
			covered += r.Points
		}
		if covered != len(e.Points) {
			t.Errorf("the plan covers %d of %d points", covered, len(e.Points))
		}
		if got := planner.Plan(nil); len(got) != 0 {
			t.Errorf("nothing takes %d requests", len(got))
		}
	}
	if sharer, ok := dev.(mappers.LineSharer); ok {
		again := e.opened(t).(mappers.LineSharer)
		if sharer.Line() != again.Line() {
			t.Errorf("one connection is two lines, %q and %q", sharer.Line(), again.Line())
		}
	}
}

func subscriptions(t T, e *env) {
	dev := e.opened(t)
	subscriber, ok := dev.(mappers.Subscriber)
	var subs []mappers.Subscription
	for i := range e.Points {
		if ok && subscriber.Subscribes(i) {
			subs = append(subs, mappers.Subscription{Point: i, Every: 100 * time.Millisecond})
		}
	}
	if len(subs) == 0 {
		t.Skip("the driver does not subscribe")
	}
	ctx, cancel := context.WithTimeout(t.Context(), backWithin)
	defer cancel()
	values := map[int]models.Value{}
	var ended time.Time
	err := subscriber.Subscribe(ctx, subs, func(points []int, results []mappers.Result) {
		for i, p := range points {
			values[p] = results[i].Value
		}
		if len(values) == len(subs) && ended.IsZero() {
			ended = time.Now()
			cancel()
		}
	})
	if err == nil {
		t.Error("Subscribe returned no reason")
	}
	if ended.IsZero() {
		t.Fatalf("delivered %s within %v", fmt.Sprint(values), backWithin)
	}
	if took := time.Since(ended); took > cancelWithin {
		t.Errorf("Subscribe returned %v after its context ended", took)
	}
	for _, s := range subs {
		if values[s.Point] != e.Points[s.Point].Value {
			t.Errorf("%s: delivered %v", e.Points[s.Point].Property, values[s.Point])
		}
	}
}

func slowIsWaitedFor(t T, e *env) {
	dev := e.opened(t)
	read(t, dev, upTo(len(e.Points)))
	p := e.writable()[0]
	for range 2 {
		e.Slow(late)
		for i, r := range read(t, dev, upTo(len(e.Points))) {
			if r.Value != e.Points[i].Value || r.Quality != models.Good {
				t.Errorf("%s: %v %v %v, want %v", e.Points[i].Property, r.Value, r.Quality, r.Reason, e.Points[i].Value)
			}
		}
	}
	e.Slow(late)
	if err := write(t.Context(), dev, mappers.WriteRequest{Point: p, Value: e.Points[p].Other})[0]; err != nil {
		t.Errorf("write: %v", err)
	}
	if got := read(t, dev, []int{p})[0]; got.Value != canonical(t, dev, p, e.Points[p].Other) {
		t.Errorf("%s reads back %v", e.Points[p].Property, got.Value)
	}
}

// reportEvery is the interval that reports asks for.
const reportEvery = 200 * time.Millisecond

func reports(t T, e *env) {
	points := e.points()
	for i := range points {
		points[i].Every = reportEvery
	}
	dev := e.opened(t, points...)
	reporter, ok := dev.(mappers.Reporter)
	if !ok {
		t.Skip("the runtime reads this driver's devices")
	}
	deliveries := make(chan mappers.Delivery)
	ctx, cancel := context.WithCancel(t.Context())
	var reporting sync.WaitGroup
	reporting.Go(func() {
		reporter.Report(ctx, func(d mappers.Delivery) bool {
			if d.Stored != nil {
				d.Stored(nil)
			}
			select {
			case deliveries <- d:
				return true
			case <-ctx.Done():
				return false
			}
		})
	})
	defer reporting.Wait()
	defer cancel()
	// await takes deliveries until ok.
	await := func(what string, within time.Duration, ok func(mappers.Delivery) bool) {
		t.Helper()
		over := time.After(within)
		for {
			select {
			case d := <-deliveries:
				if ok(d) {
					return
				}
			case <-over:
				t.Fatalf("not within %v: %s", within, what)
			}
		}
	}
	counts := func(n int) func(mappers.Delivery) bool {
		seen := make([]int, len(points))
		return func(d mappers.Delivery) bool {
			for i, p := range d.Points {
				if r := d.Results[i]; r.Quality == models.Good && r.Value == e.Points[p].Value {
					seen[p]++
				} else {
					t.Errorf("%s: reported %v %v %v, want %v", points[p].Property, r.Value, r.Quality, r.Reason, e.Points[p].Value)
				}
			}
			return !slices.ContainsFunc(seen, func(count int) bool { return count < n })
		}
	}
	began := time.Now()
	await("every point three times", backWithin, counts(3))
	if took := time.Since(began); took < reportEvery {
		t.Errorf("three reports of each in %v: more often than every %v", took, reportEvery)
	}
	e.Unplug()
	await("that the device is gone", failWithin, func(d mappers.Delivery) bool {
		if d.Err == nil {
			return false
		}
		if f := mappers.FailureOf(d.Err); f.Reason != models.ReasonNotConnected && f.Reason != models.ReasonTimeout {
			t.Errorf("reason %s (%v)", f.Reason, d.Err)
		}
		return true
	})
	e.Plug()
	await("every point again", backWithin, counts(1))
}
