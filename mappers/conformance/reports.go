package conformance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// This file is the requirements about drivers that report by themselves.

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
