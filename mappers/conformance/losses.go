package conformance

import (
	"context"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// This file is the requirements about devices that are gone, silent or slow.

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
