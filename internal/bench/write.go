package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/goburrow/modbus"

	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

// benchWrite measures a write's whole way: REST, hub, link, edge, register,
// read-back, and back again, beside a bare goburrow write and read-back.
func benchWrite(ctx context.Context, s settings) (out []result, err error) {
	w, err := newWorld(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, delay := range []time.Duration{0, 5 * time.Millisecond} {
		results, err := writesTo(ctx, w, s, delay)
		if err != nil {
			return out, err
		}
		out = append(out, results...)
	}
	return out, nil
}

// perWrite is how often a write begins at most.
const perWrite = 6 * time.Millisecond

// writesTo measures writes to a device that takes a while to answer.
func writesTo(ctx context.Context, w *world, s settings, delay time.Duration) ([]result, error) {
	register := uint16(0)
	unit := modbussim.Unit{Unit: 1, Points: []modbussim.Point{{Name: "setpoint", Table: "holding", Register: &register, Encoding: "uint16", Writable: true, Value: 1}}}
	if delay > 0 {
		unit.Faults = []modbussim.Fault{{Kind: modbussim.Slow, Delay: delay}}
	}
	addr, err := startSimulator(ctx, modbussim.Config{Name: "write", Units: []modbussim.Unit{unit}})
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("delay-%dms", delay.Milliseconds())
	property := map[string]any{"name": "setpoint", "type": "int", "access": "ReadWrite", "every": "1s",
		"address": map[string]any{"table": "holding", "register": 0, "encoding": "uint16"}}
	if err := w.register(ctx, name, []map[string]any{property}, map[string]string{name: addr}); err != nil {
		return nil, err
	}
	if err := w.until(ctx, 20*time.Second, name+" to report", func() bool { return w.good(ctx, name, 1) }); err != nil {
		return nil, err
	}
	h := modbus.NewTCPClientHandler(addr)
	h.SlaveId, h.Timeout = 1, time.Second
	if err := h.Connect(); err != nil {
		return nil, err
	}
	defer h.Close()
	client := modbus.NewClient(h)
	var ours, bare []time.Duration
	value, last := 1, time.Time{}
	for range s.rounds { // in turns, so that both meet the same noise
		for start := time.Now(); time.Since(start) < s.duration && ctx.Err() == nil; {
			value = value%60_000 + 1
			at := time.Now()
			if wait := perWrite - at.Sub(last); wait > 0 { // the hub takes 200 requests a second of one user
				sleep(ctx, wait)
				at = time.Now()
			}
			last = at
			if err := w.call(ctx, "PATCH", "/api/v1/devices/"+name+"/twin/desired?wait=5s", fmt.Sprintf(`{"setpoint":%d}`, value), nil); err != nil {
				return nil, err
			}
			ours = append(ours, time.Since(at))
		}
		for start := time.Now(); time.Since(start) < s.duration/2 && ctx.Err() == nil; {
			at := time.Now()
			if _, err := client.WriteSingleRegister(0, 7); err != nil {
				return nil, err
			}
			if _, err := client.ReadHoldingRegisters(0, 1); err != nil {
				return nil, err
			}
			bare = append(bare, time.Since(at))
		}
	}
	slices.Sort(ours)
	slices.Sort(bare)
	var out []result
	for _, bound := range []struct {
		share, ratio float64
	}{{0.5, 1.5}, {0.99, 3}} {
		o, b := percentile(ours, bound.share), percentile(bare, bound.share)
		r := result{fmt.Sprintf("REST write until confirmed, device answers in %s, p%.0f of %d", delay, bound.share*100, len(ours)),
			o.Round(10 * time.Microsecond).String(), b.Round(time.Microsecond).String() + " (write + read-back)",
			fmt.Sprintf("%.2f", float64(o)/float64(b)), fmt.Sprintf("≤ %.1f", bound.ratio), float64(o) <= bound.ratio*float64(b)}
		if delay == 0 { // what is measured is how often a disk is waited for on the way
			r.goal = "-"
		}
		out = append(out, r)
	}
	return out, nil
}
