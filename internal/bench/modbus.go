package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goburrow/modbus"

	"github.com/whimbrel-edge/whimbrel/mappers"
	mapper "github.com/whimbrel-edge/whimbrel/mappers/modbus"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// points is how many properties the measured device has: half float32, half
// uint16, side by side.
const points = 100

// registers is how many holding registers they take.
const registers = points/2*2 + points/2

// startDevice runs a simulator of the measured device.
func startDevice(ctx context.Context) (addr string, err error) {
	cfg := modbussim.Config{Name: "bench", Tick: 10 * time.Millisecond, Signals: map[string]signal.Spec{}}
	unit := modbussim.Unit{Unit: 1}
	for i := range points {
		name := fmt.Sprintf("s%d", i)
		cfg.Signals[name] = signal.Spec{Sine: &signal.Sine{Min: 0, Max: 1000, Period: time.Duration(5+i) * time.Second}}
		register, encoding := uint16(i/2*3), "float32"
		if i%2 == 1 {
			register, encoding = register+2, "uint16"
		}
		unit.Points = append(unit.Points, modbussim.Point{Name: name, Table: "holding", Register: &register, Encoding: encoding})
	}
	cfg.Units = []modbussim.Unit{unit}
	return startSimulator(ctx, cfg)
}

// startSimulator runs a simulator until ctx ends.
func startSimulator(ctx context.Context, cfg modbussim.Config) (addr string, err error) {
	sim, err := modbussim.New(cfg)
	if err != nil {
		return "", err
	}
	if err := sim.Listen(); err != nil {
		return "", err
	}
	go func() { _ = sim.Run(ctx) }() // ends with ctx
	return sim.Addr(), nil
}

// deviceProperties are the measured device's properties at an interval.
func deviceProperties(every time.Duration) []models.ResolvedProperty {
	props := make([]models.ResolvedProperty, points)
	for i := range points / 2 {
		props[2*i] = property(fmt.Sprintf("f%d", i), models.TypeFloat, every, 3*i, "float32")
		props[2*i+1] = property(fmt.Sprintf("u%d", i), models.TypeInt, every, 3*i+2, "uint16")
	}
	return props
}

func property(name string, t models.Type, every time.Duration, register int, encoding string) models.ResolvedProperty {
	address, _ := json.Marshal(map[string]any{"table": "holding", "register": register, "encoding": encoding})
	return models.ResolvedProperty{Name: name, Type: t, Access: models.Read, Every: every, Heartbeat: time.Minute, History: true,
		Uplink: models.UplinkAll, Write: models.Once, Address: address}
}

// benchModbus measures the way from a device into its twin.
func benchModbus(ctx context.Context, s settings) ([]result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	addr, err := startDevice(ctx)
	if err != nil {
		return nil, err
	}
	connection, _ := json.Marshal(map[string]any{"url": "tcp://" + addr, "unit": 1})
	// As fast as it can: far below the shortest interval a model may ask for.
	props := deviceProperties(time.Microsecond)
	driver := mapper.New()
	var requests int
	var ours, bare, ratios []float64
	for range s.rounds {
		b, err := bareLoop(ctx, addr, s.duration)
		if err != nil {
			return nil, err
		}
		dev, err := driver.Open(mappers.DeviceConfig{Name: "bench", Connection: connection, Points: mappers.PointsOf(props), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, err
		}
		loop := newTwinLoop(props)
		runner := mappers.NewRunner(mappers.RunnerConfig{Name: "bench", Protocol: "modbus", Device: dev, Properties: props, Sink: loop})
		requests = runner.Plan().RequestsPerCycle
		o := loop.measure(ctx, runner, s.duration)
		bare, ours, ratios = append(bare, b), append(ours, o), append(ratios, o/b)
	}
	return []result{
		{fmt.Sprintf("requests per %d mixed contiguous points", points), fmt.Sprint(requests), "-", "-", "≤ 2", requests <= 2},
		{"points/s, device to twin, against a bare goburrow loop", fmt.Sprintf("%.0f", median(ours)), fmt.Sprintf("%.0f", median(bare)),
			fmt.Sprintf("%.2f", median(ratios)), "≥ 0.5", median(ratios) >= 0.5},
	}, nil
}

// bareLoop reads the same registers with goburrow alone and decodes nothing.
func bareLoop(ctx context.Context, addr string, d time.Duration) (pointsPerSecond float64, err error) {
	h := modbus.NewTCPClientHandler(addr)
	h.SlaveId, h.Timeout = 1, time.Second
	if err := h.Connect(); err != nil {
		return 0, err
	}
	defer h.Close()
	client := modbus.NewClient(h)
	start, n := time.Now(), 0
	for time.Since(start) < d && ctx.Err() == nil {
		// The two blocks that the mapper reads: as many whole points as fit 125 registers.
		if _, err := client.ReadHoldingRegisters(0, 125); err != nil {
			return 0, err
		}
		if _, err := client.ReadHoldingRegisters(125, registers-125); err != nil {
			return 0, err
		}
		n += points
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// twinLoop does with a Runner's batches what a device's loop does: one goroutine
// owns the twin and gets copies of them through a channel.
type twinLoop struct {
	twin    *twin.Twin
	batches chan mappers.Batch // bounded; full stops the Runner
	points  atomic.Int64
	// What has changed is counted from when warm changes have come.
	warm        int64
	changes     int64
	first, last time.Time
}

func newTwinLoop(props []models.ResolvedProperty) *twinLoop {
	return &twinLoop{twin: twin.New(props, twin.Stored{}, time.Now()), batches: make(chan mappers.Batch, 16)}
}

// Report implements mappers.Sink.
func (l *twinLoop) Report(b mappers.Batch) {
	l.batches <- mappers.Batch{Time: b.Time, Refreshed: slices.Clone(b.Refreshed), Changed: slices.Clone(b.Changed)}
}

// Written implements mappers.Sink.
func (l *twinLoop) Written(mappers.WriteResult) {}

// State implements mappers.Sink.
func (l *twinLoop) State(models.DeviceState, models.Reason, error) {}

// changeRate is how many changes a second came, once measure has returned.
func (l *twinLoop) changeRate() float64 {
	if l.last.IsZero() {
		return 0
	}
	return float64(l.changes) / l.last.Sub(l.first).Seconds()
}

func (l *twinLoop) measure(ctx context.Context, r *mappers.Runner, d time.Duration) (pointsPerSecond float64) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var wait sync.WaitGroup
	wait.Go(func() {
		for b := range l.batches {
			for _, c := range b.Changed {
				l.twin.Report(c.Property, c.Sample, b.Time)
			}
			for _, i := range b.Refreshed {
				l.twin.Refresh(i, b.Time)
			}
			l.points.Add(int64(len(b.Refreshed)))
			switch l.changes += int64(len(b.Changed)); {
			case l.first.IsZero() && l.changes >= l.warm:
				l.first, l.changes = time.Now(), 0
			case !l.first.IsZero():
				l.last = time.Now()
			}
		}
	})
	start := time.Now()
	_ = r.Run(ctx) // ends with ctx
	took := time.Since(start)
	close(l.batches)
	wait.Wait()
	return float64(l.points.Load()) / took.Seconds()
}
