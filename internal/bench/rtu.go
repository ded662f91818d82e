package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	mapper "github.com/whimbrel-edge/whimbrel/mappers/modbus"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/protocols/serial"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

// benchRTU measures how much of a serial line's time is used. The line is a
// pty, which knows no baud rate: the simulator lets its answers take as long as
// the characters would.
func benchRTU(ctx context.Context, s settings) ([]result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var results []result
	for _, baud := range []int{9600, 115200} {
		r, err := lineShare(ctx, s, baud)
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}

// lineShare reads ten registers from each of two units on a line, in turns, as
// often as it goes.
func lineShare(ctx context.Context, s settings, baud int) (result, error) {
	const units, count = 2, 10
	cfg := modbussim.Config{Name: "line", Listen: fmt.Sprintf("rtu://?baud=%d&parity=none", baud), Pace: true}
	for u := range units {
		cfg.Units = append(cfg.Units, modbussim.Unit{Unit: byte(u + 1), Memory: []modbussim.Memory{{Table: "holding", Register: 0, Count: count}}})
	}
	sim, err := modbussim.New(cfg)
	if err != nil {
		return result{}, err
	}
	if err := sim.Listen(); err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() { defer close(over); _ = sim.Run(ctx) }()
	defer func() { cancel(); <-over }() // it removes the line's path

	props := make([]models.ResolvedProperty, count)
	for i := range props {
		props[i] = property(fmt.Sprintf("r%d", i), models.TypeInt, time.Second, i, "uint16")
	}
	driver := mapper.New()
	var devices []mappers.Device
	for u := range units {
		connection, _ := json.Marshal(map[string]any{"url": sim.URL(fmt.Sprintf("unit-%d", u+1)), "unit": u + 1})
		dev, err := driver.Open(mappers.DeviceConfig{Name: "bench", Connection: connection, Points: mappers.PointsOf(props), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return result{}, err
		}
		defer dev.Close()
		devices = append(devices, dev)
	}

	// A request of 8 characters, an answer of 5 around the registers, and the
	// silence that the specification wants behind each.
	line := serial.Config{Baud: baud, DataBits: 8, Parity: serial.None, StopBits: 1}
	limit := 1 / (line.CharTime(8+5+2*count) + 2*wire.Gap(line)).Seconds()
	var rates, ratios []float64
	for range s.rounds {
		rate, err := requestRate(ctx, devices, count, s.duration)
		if err != nil {
			return result{}, err
		}
		rates, ratios = append(rates, rate), append(ratios, rate/limit)
	}
	return result{fmt.Sprintf("RTU requests/s at %d baud, %d units, against the line's limit", baud, units),
		fmt.Sprintf("%.1f", median(rates)), fmt.Sprintf("%.1f", limit), fmt.Sprintf("%.2f", median(ratios)),
		"-", true}, nil
}

// requestRate reads all devices at once, each again and again.
func requestRate(ctx context.Context, devices []mappers.Device, points int, d time.Duration) (float64, error) {
	all := make([]int, points)
	for i := range all {
		all[i] = i
	}
	var n atomic.Int64
	errs := make([]error, len(devices))
	var wg sync.WaitGroup
	start := time.Now()
	for i, dev := range devices {
		wg.Go(func() {
			out := make([]mappers.Result, points)
			for time.Since(start) < d && ctx.Err() == nil {
				if errs[i] = dev.Read(ctx, all, out); errs[i] != nil {
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return float64(n.Load()) / took.Seconds(), nil
}
