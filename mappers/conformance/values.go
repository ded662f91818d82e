package conformance

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// This file is the requirements about reading and writing.

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
