package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Process sizes to compare with: KubeEdge's edgecore as measured on a machine
// of this kind.
const (
	edgecoreIdle    = 87 << 20
	edgecoreBacklog = 139 << 20
)

// benchEdge measures the edge's process: its size on disk, and its memory idle
// and at work.
func benchEdge(ctx context.Context, s settings) (out []result, err error) {
	w, err := newWorld(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	file, err := os.Stat(w.edge.cmd.Path)
	if err != nil {
		return nil, err
	}
	mib := func(b int64) string { return fmt.Sprintf("%.1f MiB", float64(b)/(1<<20)) }
	out = append(out, result{"whimbrel-edge binary, stripped", mib(file.Size()), "96.3 MiB (edgecore)", fmt.Sprintf("%.2f", float64(file.Size())/(96.3*(1<<20))), "-", true})
	settle := max(5*s.duration, 10*time.Second)
	sleep(ctx, settle)
	idle, err := rss(w.edge.cmd.Process.Pid)
	if err != nil {
		return out, err
	}
	out = append(out, result{"whimbrel-edge RSS, idle and linked", mib(idle), mib(edgecoreIdle) + " (edgecore)", fmt.Sprintf("%.2f", float64(idle)/edgecoreIdle), "≤ 30 MiB", idle <= 30<<20})
	devices := map[string]string{}
	for i := range 10 {
		addr, err := startDevice(ctx)
		if err != nil {
			return out, err
		}
		devices[fmt.Sprintf("dev-%d", i)] = addr
	}
	if err := w.register(ctx, "bench", deviceModel(time.Second), devices); err != nil {
		return out, err
	}
	for name := range devices {
		if err := w.until(ctx, 20*time.Second, name+" to report", func() bool { return w.good(ctx, name, points) }); err != nil {
			return out, err
		}
	}
	sleep(ctx, 2*settle)
	busy, err := rss(w.edge.cmd.Process.Pid)
	if err != nil {
		return out, err
	}
	return append(out, result{fmt.Sprintf("whimbrel-edge RSS, %d properties every 1 s", 10*points), mib(busy), mib(edgecoreBacklog) + " (edgecore, backlog)",
		fmt.Sprintf("%.2f", float64(busy)/edgecoreBacklog), "-", true}), nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// deviceModel is the measured device's properties as a DeviceModel has them.
func deviceModel(every time.Duration) (out []map[string]any) {
	for _, p := range deviceProperties(every) {
		out = append(out, map[string]any{"name": p.Name, "type": p.Type, "access": p.Access, "every": every.String(), "address": p.Address})
	}
	return out
}
