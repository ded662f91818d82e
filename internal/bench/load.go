package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// benchSingle measures reports of one reading each: 1,000 devices with one property
// that they report every 50 ms, each report by itself.
func benchSingle(ctx context.Context, s settings) (out []result, err error) {
	f := fleet{edges: 4, devices: 250, properties: 1}
	const every = 50 * time.Millisecond
	w, err := newFleet(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	var stops []func() error
	for _, e := range w.edges {
		stops = append(stops, e.run(ctx, true))
	}
	length := max(5*s.duration, 10*time.Second)
	var stored, offered atomic.Int64
	var wait sync.WaitGroup
	errs := make([]error, len(w.edges))
	began := time.Now()
	for i, e := range w.edges {
		wait.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for n := 0; time.Since(began) < length && errs[i] == nil; n++ {
				select {
				case <-ctx.Done():
					errs[i] = ctx.Err()
				case now := <-tick.C:
					for d, ref := range e.refs {
						entry := outbox.Entry{Device: ref, Samples: []outbox.Sample{{Property: propertyName(0), Sample: models.Sample{Time: now, Value: models.Float(f.value(d, n))}}}}
						if err := e.box.Append(ctx, entry, func(seq uint64, _ error) {
							stored.Add(1)
							e.mu.Lock()
							e.last = max(e.last, seq)
							e.mu.Unlock()
						}); err != nil {
							errs[i] = err
							return
						}
						offered.Add(1)
					}
				}
			}
		})
	}
	wait.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return out, err
	}
	// How far behind the hub is when the last report has been made.
	last := time.Now()
	if err := w.until(ctx, time.Minute, "all reports to be acknowledged", func() bool {
		for _, e := range w.edges {
			e.mu.Lock()
			behind := e.acked < e.last
			e.mu.Unlock()
			if behind {
				return false
			}
		}
		return stored.Load() == offered.Load()
	}); err != nil {
		return out, err
	}
	behind := time.Since(last)
	for i, stop := range stops {
		err = errors.Join(err, stop(), w.edges[i].reopen(ctx))
	}
	if err != nil {
		return out, err
	}
	n, err := w.count(ctx)
	if err != nil {
		return out, err
	}
	if int64(n) != offered.Load() {
		return out, fmt.Errorf("%d reports can be read, %d were made", n, offered.Load())
	}
	rate := float64(offered.Load()) / took.Seconds()
	want := float64(f.series()) / every.Seconds()
	return append(out, result{fmt.Sprintf("single-reading reports/s from %d devices, %s behind at the end", f.series(), behind.Round(time.Millisecond)), fmt.Sprintf("%.0f", rate),
		fmt.Sprintf("%.0f (offered)", want), fmt.Sprintf("%.2f", rate/want), "1.0, < 1s behind", rate > 0.98*want && behind < time.Second}), nil
}

// benchOutbox measures the outbox alone: how many samples a second it makes
// durable, and the memory that a gigabyte of backlog takes.
func benchOutbox(ctx context.Context, _ settings) (out []result, err error) {
	dir, err := os.MkdirTemp("", "whimbrel-bench-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// In a process of its own: its memory is what is measured.
	p, err := start(exe, "-outbox", filepath.Join(dir, "outbox.db"))
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, p.said())
	}
	var rate, before, after float64
	if _, err := fmt.Sscan(strings.TrimSpace(p.log.String()), &rate, &before, &after); err != nil {
		return nil, fmt.Errorf("%w: %s", err, p.said())
	}
	return []result{
		{"samples/s into a durable outbox, ten a device's report", fmt.Sprintf("%.0f", rate), "-", "-", "-", true},
		{"outbox RSS, from 64 MiB to 1 GiB of backlog", fmt.Sprintf("%.1f MiB", after/(1<<20)), fmt.Sprintf("%.1f MiB (at 64 MiB)", before/(1<<20)),
			fmt.Sprintf("%.2f", after/before), "within 10 MiB", after-before < 10<<20},
	}, nil
}

// fillOutbox is the process that benchOutbox starts: it prints samples a second and
// the memory at 64 MiB and at 1 GiB.
func fillOutbox(ctx context.Context, path string) error {
	box, err := outbox.Open(ctx, outbox.Config{Path: path, MaxBytes: 2 << 30, Log: quiet, Now: time.Now})
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() { _ = box.Run(running) }) // ends with running
	defer func() { cancel(); wait.Wait(); _ = box.Close() }()
	const devices, properties = 100, 10
	samples := make([]outbox.Sample, properties)
	var before int64
	n, began := 0, time.Now()
	rate := 0.0
	for i := 0; ; i++ {
		at := began.Add(time.Duration(i) * time.Millisecond)
		for d := range devices {
			for p := range samples {
				samples[p] = outbox.Sample{Property: propertyName(p), Sample: models.Sample{Time: at, Value: models.Float(float64(i*d+p) / 7)}}
			}
			if err := box.Append(ctx, outbox.Entry{Device: edgelink.DeviceRef{UID: fmt.Sprintf("01JD0000000000000000000%03d", d), Assignment: 1}, Samples: samples}, nil); err != nil {
				return err
			}
			n += properties
		}
		if i%100 != 0 {
			continue
		}
		switch bytes := box.Stats().Bytes; {
		case before == 0 && bytes >= 64<<20:
			if before, err = rss(os.Getpid()); err != nil {
				return err
			}
			rate = float64(n) / time.Since(began).Seconds()
		case bytes >= 1<<30:
			after, err := rss(os.Getpid())
			if err != nil {
				return err
			}
			fmt.Println(rate, before, after)
			return nil
		}
	}
}
