package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/mappers"
	mapper "github.com/whimbrel-edge/whimbrel/mappers/opcua"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

const (
	opcuaNodes      = 1000
	opcuaTick       = 20 * time.Millisecond // each node changes as often
	opcuaPublishing = 20 * time.Millisecond
)

// benchOPCUA measures how many notifications arrive in twins, against a bare
// gopcua subscription that counts them. The server is the same, and in this
// process: what it costs, both pay.
func benchOPCUA(ctx context.Context, s settings) ([]result, error) {
	cfg := opcuasim.Config{Tick: opcuaTick, Signals: map[string]signal.Spec{}}
	props := make([]models.ResolvedProperty, opcuaNodes)
	for i := range props {
		name := fmt.Sprintf("n%d", i)
		cfg.Signals[name] = signal.Spec{Expr: "self + 1"}
		cfg.Nodes = append(cfg.Nodes, opcuasim.Node{Name: name, Type: "Double"})
		address, _ := json.Marshal(map[string]string{"node": "ns=2;s=" + name})
		props[i] = models.ResolvedProperty{Name: name, Type: models.TypeFloat, Access: models.Read, Every: time.Second, Heartbeat: time.Minute, History: true, Address: address}
	}
	sim, err := opcuasim.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := sim.Listen(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() { defer close(over); _ = sim.Run(ctx) }()
	defer func() { cancel(); <-over }()

	connection, _ := json.Marshal(map[string]any{"url": sim.URL(), "publishingInterval": opcuaPublishing.String(), "samplingInterval": "0s"})
	driver := mapper.New()
	var ours, bare, ratios []float64
	for range s.rounds {
		b, err := bareSubscription(ctx, sim.URL(), s.duration)
		if err != nil {
			return nil, err
		}
		dev, err := driver.Open(mappers.DeviceConfig{Name: "bench", Connection: connection, Points: mappers.PointsOf(props), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, err
		}
		loop := newTwinLoop(props)
		loop.warm = opcuaNodes
		loop.measure(ctx, mappers.NewRunner(mappers.RunnerConfig{Name: "bench", Protocol: "opcua", Device: dev, Properties: props, Sink: loop}), s.duration+2*time.Second)
		o := loop.changeRate()
		bare, ours, ratios = append(bare, b), append(ours, o), append(ratios, o/b)
	}
	return []result{{"OPC UA notifications/s, server to twin, against a bare gopcua subscription", fmt.Sprintf("%.0f", median(ours)), fmt.Sprintf("%.0f", median(bare)),
		fmt.Sprintf("%.2f", median(ratios)), "≥ 0.5", median(ratios) >= 0.5}}, nil
}

// bareSubscription counts the notifications of a subscription that does nothing
// with them, from the first of every node on.
func bareSubscription(ctx context.Context, url string, d time.Duration) (perSecond float64, err error) {
	client, err := opcua.NewClient(url, opcua.SecurityMode(ua.MessageSecurityModeNone), opcua.AutoReconnect(false))
	if err != nil {
		return 0, err
	}
	if err := client.Connect(ctx); err != nil {
		return 0, err
	}
	defer func() { _ = client.Close(context.WithoutCancel(ctx)) }()
	notes := make(chan *opcua.PublishNotificationData, 16)
	sub, err := client.Subscribe(ctx, &opcua.SubscriptionParameters{Interval: opcuaPublishing}, notes)
	if err != nil {
		return 0, err
	}
	defer func() { _ = sub.Cancel(context.WithoutCancel(ctx)) }()
	var items []*ua.MonitoredItemCreateRequest
	for i := range opcuaNodes {
		items = append(items, opcua.NewMonitoredItemCreateRequestWithDefaults(ua.NewStringNodeID(opcuasim.Namespace, fmt.Sprintf("n%d", i)), ua.AttributeIDValue, uint32(i)))
	}
	if _, err := sub.Monitor(ctx, ua.TimestampsToReturnBoth, items...); err != nil {
		return 0, err
	}
	n := 0
	var start time.Time
	deadline := time.After(d + 10*time.Second)
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-deadline:
			return 0, fmt.Errorf("%d notifications, and then no more", n)
		case note := <-notes:
			if note.Error != nil {
				return 0, note.Error
			}
			if change, ok := note.Value.(*ua.DataChangeNotification); ok {
				n += len(change.MonitoredItems)
			}
			switch {
			case start.IsZero() && n >= opcuaNodes:
				start, n = time.Now(), 0
			case !start.IsZero() && time.Since(start) >= d:
				return float64(n) / time.Since(start).Seconds(), nil
			}
		}
	}
}
