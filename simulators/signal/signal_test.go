package signal

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at steps a set to seconds after t0 and gives one value.
func at(t *testing.T, s *Set, seconds float64, name string) any {
	t.Helper()
	if err := s.Step(t0.Add(time.Duration(seconds * float64(time.Second)))); err != nil {
		t.Fatal(err)
	}
	v, ok := s.Value(name)
	if !ok {
		t.Fatalf("no signal %s", name)
	}
	return v
}

func compile(t *testing.T, signals map[string]Spec, inputs map[string]any) *Set {
	t.Helper()
	s, err := Compile(signals, inputs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGenerators(t *testing.T) {
	for name, c := range map[string]struct {
		spec Spec
		want map[float64]any // by seconds
	}{
		"constant int":    {Spec{Constant: 7}, map[float64]any{0: int64(7), 99: int64(7)}},
		"constant big":    {Spec{Constant: uint64(math.MaxUint64)}, map[float64]any{0: uint64(math.MaxUint64)}},
		"constant string": {Spec{Constant: "WB-20"}, map[float64]any{5: "WB-20"}},
		"ramp":            {Spec{Ramp: &Ramp{From: 10, To: 20, Over: 10 * time.Second}}, map[float64]any{0: 10.0, 5: 15.0, 10: 20.0, 60: 20.0}},
		"sawtooth":        {Spec{Ramp: &Ramp{From: 10, To: 20, Over: 10 * time.Second, Repeat: true}}, map[float64]any{0: 10.0, 9: 19.0, 12: 12.0}},
		"falling":         {Spec{Ramp: &Ramp{From: 1, To: -1, Over: time.Second}}, map[float64]any{0.5: 0.0, 2: -1.0}},
		"sine":            {Spec{Sine: &Sine{Min: -1, Max: 3, Period: 8 * time.Second}}, map[float64]any{0: 1.0, 2: 3.0, 6: -1.0}},
		"sine in phase":   {Spec{Sine: &Sine{Max: 2, Period: 8 * time.Second, Phase: 2 * time.Second}}, map[float64]any{0: 2.0, 4: 0.0}},
		"list":            {Spec{List: &List{Values: []any{1, 2, 3}, Every: 2 * time.Second}}, map[float64]any{0: int64(1), 1.9: int64(1), 2: int64(2), 4: int64(3), 6: int64(1)}},
		"list of states":  {Spec{List: &List{Values: []any{"off", "on"}}}, map[float64]any{0: "off", 1: "on", 2: "off"}},
	} {
		t.Run(name, func(t *testing.T) {
			for sec, want := range c.want {
				s := compile(t, map[string]Spec{"x": c.spec}, nil)
				at(t, s, 0, "x")
				got := at(t, s, sec, "x")
				g, isF := got.(float64)
				w, _ := want.(float64)
				if isF && math.Abs(g-w) > 1e-9 || !isF && got != want {
					t.Errorf("at %vs: %v (%T), want %v", sec, got, got, want)
				}
			}
		})
	}
}

func TestWalk(t *testing.T) {
	w := &Walk{Start: 50, Step: 5, Min: 40, Max: 60, Seed: 7}
	run := func(w Walk, step float64) (trail []float64) {
		s := compile(t, map[string]Spec{"x": {Walk: &w}}, nil)
		at(t, s, 0, "x")
		for sec := step; sec <= 200; sec += step {
			v := at(t, s, sec, "x").(float64)
			if v < 40 || v > 60 {
				t.Fatalf("walked to %v", v)
			}
			if math.Mod(sec, 1) == 0 {
				trail = append(trail, v)
			}
		}
		return trail
	}
	first := run(*w, 1)
	if fmt.Sprint(first) != fmt.Sprint(run(*w, 0.25)) {
		t.Error("the walk depends on how often it is stepped")
	}
	other := *w
	other.Seed = 8
	if fmt.Sprint(first) == fmt.Sprint(run(other, 1)) {
		t.Error("two seeds walk the same way")
	}
	low, high := first[0], first[0]
	for _, v := range first {
		low, high = min(low, v), max(high, v)
	}
	if high-low < 5 {
		t.Errorf("hardly walked: %v to %v", low, high)
	}
}

func TestExpressions(t *testing.T) {
	s := compile(t, map[string]Spec{
		// Named so that the alphabet is not the order of need.
		"a_sum":   {Expr: "b_base * 2 + z_in"},
		"b_base":  {Constant: 10},
		"count":   {Expr: "self + dt * 2", Start: 100},
		"hot":     {Expr: "a_sum > 25"},
		"label":   {Expr: `hot ? "hot" : "cold"`},
		"clock":   {Expr: "t"},
		"was":     {Expr: "prev.count"},
		"toggled": {Expr: "on and hot"},
		"limited": {Expr: "clamp(a_sum, 0, 22.5)"},
		"mixed":   {Expr: "lag(0, on ? 8 : a_sum, 0, dt)"}, // an int or a float
	}, map[string]any{"z_in": 3, "on": true})
	if got := at(t, s, 0, "a_sum"); got != 23.0 {
		t.Errorf("a_sum %v", got)
	}
	if got := at(t, s, 4, "count"); got != 108.0 {
		t.Errorf("count %v after 4 s", got)
	}
	if v, _ := s.Value("was"); v != 100.0 {
		t.Errorf("was %v: prev is not the step before", v)
	}
	if v, _ := s.Value("clock"); v != 4.0 {
		t.Errorf("t %v", v)
	}
	if v, _ := s.Value("limited"); v != 22.5 {
		t.Errorf("limited %v", v)
	}
	if v, _ := s.Value("mixed"); v != 8.0 {
		t.Errorf("mixed %v", v)
	}
	if v, _ := s.Value("label"); v != "cold" {
		t.Errorf("label %v", v)
	}
	if err := s.Put("z_in", 10); err != nil {
		t.Fatal(err)
	}
	if got := at(t, s, 4, "label"); got != "hot" { // no time has passed: the input alone
		t.Errorf("label %v after the write", got)
	}
	if v, _ := s.Value("toggled"); v != true {
		t.Errorf("toggled %v", v)
	}
	// An earlier time does not turn the clock back.
	if got := at(t, s, 1, "count"); got != 108.0 {
		t.Errorf("count %v after going back", got)
	}
}

// TestFeedback couples a heater and a tank in a circle, by way of prev.
func TestFeedback(t *testing.T) {
	s := compile(t, map[string]Spec{
		"burner":      {Expr: "clamp((setpoint - prev.temperature) * 10, 0, 100)"},
		"temperature": {Expr: "lag(self, 20 + burner, 8, dt)", Start: 20},
	}, map[string]any{"setpoint": 0.0})
	at(t, s, 0, "temperature")
	if got := at(t, s, 60, "temperature").(float64); math.Abs(got-20) > 0.1 {
		t.Errorf("cold tank at %v", got)
	}
	if err := s.Put("setpoint", 60.0); err != nil {
		t.Fatal(err)
	}
	for sec := 60.0; sec < 120; sec += 0.1 {
		at(t, s, sec, "temperature")
	}
	if got := at(t, s, 120, "temperature").(float64); got < 50 || got > 60 {
		t.Errorf("after a minute at setpoint 60: %v", got)
	}
}

func TestForceAndReset(t *testing.T) {
	s := compile(t, map[string]Spec{
		"count": {Expr: "self + dt"},
		"twice": {Expr: "count * 2"},
	}, map[string]any{"level": 2})
	at(t, s, 0, "count")
	at(t, s, 5, "count")
	if err := s.Force("count", 100); err != nil {
		t.Fatal(err)
	}
	if got := at(t, s, 10, "twice"); got != 200.0 {
		t.Errorf("twice %v while count is held", got)
	}
	s.Release("count")
	if got := at(t, s, 12, "count"); got != 102.0 {
		t.Errorf("count %v after release", got)
	}
	if err := s.Force("level", 9); err != nil {
		t.Fatal(err)
	}
	s.Reset()
	if v, _ := s.Value("level"); v != int64(2) {
		t.Errorf("level %v after reset", v)
	}
	if got := at(t, s, 13, "count"); got != 1.0 {
		t.Errorf("count %v one second after reset", got)
	}
	for _, err := range []error{s.Put("count", 1), s.Put("nothing", 1), s.Put("level", "x"), s.Put("level", []int{1}), s.Force("nothing", 1), s.Force("count", true)} {
		if err == nil {
			t.Error("accepted")
		}
	}
}

func TestExpressionFailsAlone(t *testing.T) {
	s := compile(t, map[string]Spec{
		"bad":  {Expr: "[1.0, 2.0][int(t)]"},
		"good": {Expr: "t"},
	}, nil)
	at(t, s, 0, "bad")
	if got := at(t, s, 1, "bad"); got != 2.0 {
		t.Errorf("bad %v", got)
	}
	err := s.Step(t0.Add(5 * time.Second))
	if err == nil || !strings.Contains(err.Error(), "signal bad") {
		t.Errorf("error %v", err)
	}
	if v, _ := s.Value("bad"); v != 2.0 {
		t.Errorf("bad is %v after failing", v)
	}
	if v, _ := s.Value("good"); v != 5.0 {
		t.Errorf("good is %v beside a failing one", v)
	}
}

func TestCompileRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		signals map[string]Spec
		inputs  map[string]any
		want    string
	}{
		"nothing":         {map[string]Spec{"x": {}}, nil, "signal x: needs exactly one of"},
		"two":             {map[string]Spec{"x": {Constant: 1, Expr: "1"}}, nil, "has 2"},
		"circle":          {map[string]Spec{"a": {Expr: "b"}, "b": {Expr: "c + 1"}, "c": {Expr: "a"}}, nil, "in a circle: a -> b -> c -> a; use prev.a"},
		"itself":          {map[string]Spec{"a": {Expr: "a + 1"}}, nil, "a -> a"},
		"unknown":         {map[string]Spec{"a": {Expr: "temprature + 1"}}, nil, "unknown name temprature"},
		"unknown prev":    {map[string]Spec{"a": {Expr: "prev.b + 1"}}, nil, "unknown field b"},
		"syntax":          {map[string]Spec{"a": {Expr: "1 +"}}, nil, "signal a: unexpected token"},
		"kind":            {map[string]Spec{"a": {Expr: `"x" * 2`}}, nil, "mismatched types"},
		"list result":     {map[string]Spec{"a": {Expr: "[1,2]"}}, nil, "not a bool, a number or a string"},
		"start kind":      {map[string]Spec{"a": {Expr: "1 > 2", Start: 3}}, nil, "start 3 is a number, the expression gives a bool"},
		"start alone":     {map[string]Spec{"a": {Constant: 1, Start: 3}}, nil, "start goes with expr"},
		"name":            {map[string]Spec{"a-b": {Constant: 1}}, nil, "signal a-b: a signal's name"},
		"reserved":        {map[string]Spec{"self": {Constant: 1}}, nil, "the name is taken"},
		"reserved input":  {nil, map[string]any{"t": 1.0}, "the name is taken"},
		"input too":       {map[string]Spec{"a": {Constant: 1}}, map[string]any{"a": 1.0}, "an input of the same name"},
		"input kind":      {nil, map[string]any{"a": []int{1}}, "not a bool, a number or a string"},
		"ramp over":       {map[string]Spec{"a": {Ramp: &Ramp{}}}, nil, "over must be"},
		"sine period":     {map[string]Spec{"a": {Sine: &Sine{}}}, nil, "period must be"},
		"sine bounds":     {map[string]Spec{"a": {Sine: &Sine{Min: 2, Max: 1, Period: 1}}}, nil, "above max"},
		"walk bounds":     {map[string]Spec{"a": {Walk: &Walk{Start: 5, Step: 1}}}, nil, "must lie between"},
		"walk step":       {map[string]Spec{"a": {Walk: &Walk{Max: 1}}}, nil, "step must be"},
		"walk every":      {map[string]Spec{"a": {Walk: &Walk{Max: 1, Step: 1, Every: -1}}}, nil, "every must be"},
		"list empty":      {map[string]Spec{"a": {List: &List{}}}, nil, "no values"},
		"list mixed":      {map[string]Spec{"a": {List: &List{Values: []any{1, "x"}}}}, nil, "different kinds"},
		"list every":      {map[string]Spec{"a": {List: &List{Values: []any{1}, Every: -1}}}, nil, "every must be"},
		"constant object": {map[string]Spec{"a": {Constant: map[string]any{}}}, nil, "not a bool"},
		"environment":     {map[string]Spec{"a": {Expr: `$env["b"]`}, "b": {Constant: 1}}, nil, "$env hides"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(c.signals, c.inputs)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v\nwant …%s…", err, c.want)
			}
		})
	}
	// Every mistake is told, not the first only.
	_, err := Compile(map[string]Spec{"a": {}, "b": {Ramp: &Ramp{}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "signal a") || !strings.Contains(err.Error(), "signal b") {
		t.Errorf("two mistakes: %v", err)
	}
}

func BenchmarkStep(b *testing.B) {
	specs := map[string]Spec{"base": {Sine: &Sine{Max: 1, Period: time.Second}}}
	for i := range 100 {
		specs[fmt.Sprintf("s%d", i)] = Spec{Expr: "lag(self, base * 100, 5, dt)"}
	}
	s, err := Compile(specs, nil)
	if err != nil {
		b.Fatal(err)
	}
	now := t0
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(100 * time.Millisecond)
		if err := s.Step(now); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAProblemIsToldOnce(t *testing.T) {
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	var p Problem
	for _, err := range []error{nil, errors.New("a"), errors.New("a"), errors.New("b"), nil, errors.New("b")} {
		p.Tell(log, "s", err)
	}
	if n := strings.Count(said.String(), "\n"); n != 3 {
		t.Errorf("told %d times, want 3:\n%s", n, said.String())
	}
}
