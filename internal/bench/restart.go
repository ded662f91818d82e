package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// benchRestart measures how long a hub that was killed takes until it serves the
// latest value of every property again, as they were committed. No edge is linked:
// none says anything anew.
func benchRestart(ctx context.Context, s settings) ([]result, error) {
	f := fleet{edges: 10, devices: 100, properties: 100, perRecord: 1}
	for f.series() > s.scale {
		f.devices /= 10
	}
	w, err := newFleet(ctx, f)
	if err != nil {
		return nil, err
	}
	out, err := restart(ctx, w, "Postgres")
	if err != nil {
		return nil, err
	}
	if w, err = newFleetOn(ctx, nil, f); err != nil {
		return nil, err
	}
	onSQLite, err := restart(ctx, w, "SQLite")
	return append(out, onSQLite...), err
}

// restart does so with a fleet, which it closes.
func restart(ctx context.Context, w *fleetWorld, engine string) (out []result, err error) {
	const each = 20
	defer func() { err = errors.Join(err, w.close()) }()
	for _, e := range w.edges {
		if err := e.fill(ctx, 0, each, time.Now().Add(-each*time.Second), time.Second); err != nil {
			return nil, err
		}
	}
	if _, err := w.drain(ctx); err != nil {
		return nil, err
	}
	hub := w.hub.cmd.Path
	if err := w.hub.kill(); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := w.startHub(ctx, hub); err != nil {
		return nil, err
	}
	serving := time.Since(began)
	const done = "twins are brought up to what was committed"
	if err := w.until(ctx, 2*time.Minute, "the twins to be brought up", func() bool { return strings.Contains(w.hub.log.String(), done) }); err != nil {
		return nil, err
	}
	whole := time.Since(began)
	if err := w.latest(ctx, each-1); err != nil {
		return nil, err
	}
	return append(out, result{fmt.Sprintf("restart of a hub on %s after SIGKILL, %d properties: serving after %s, latest values as they were committed after", engine, w.fleet.series(), round(serving)),
		round(whole), "-", "-", "< 3s", whole < 3*time.Second}), nil
}

// latest checks that the twins of all devices show the n-th value of each property.
func (w *fleetWorld) latest(ctx context.Context, n int) error {
	numbers := map[string]int{}
	for _, e := range w.edges {
		items, err := e.store.Items(ctx)
		if err != nil {
			return err
		}
		for _, item := range items {
			for d, ref := range e.refs {
				if item.UID == ref.UID {
					numbers[item.Name] = e.first + d*w.fleet.properties
				}
			}
		}
	}
	checked := 0
	for more := ""; ; {
		var list struct {
			Metadata struct{ Continue string }
			Items    []struct {
				Device     string
				Properties map[string]struct{ Reported struct{ Value float64 } }
			}
		}
		if err := w.call(ctx, http.MethodGet, "/api/v1/twins?limit=200&continue="+url.QueryEscape(more), nil, &list); err != nil {
			return err
		}
		for _, d := range list.Items {
			for p := range w.fleet.properties {
				if got, want := d.Properties[propertyName(p)].Reported.Value, w.fleet.value(numbers[d.Device]+p, n); got != want {
					return fmt.Errorf("%s of %s is %v after the restart, %v was committed", propertyName(p), d.Device, got, want)
				}
				checked++
			}
		}
		if more = list.Metadata.Continue; more == "" {
			break
		}
	}
	if checked != w.fleet.series() {
		return fmt.Errorf("%d properties have twins, want %d", checked, w.fleet.series())
	}
	return nil
}
