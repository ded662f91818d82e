package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// Of messages from app to app.
const (
	appPairs    = 4
	appMessage  = 128 // bytes
	appInFlight = 256 // of one publisher, QoS 1
)

// benchMQTT measures messages from apps to apps on the edge's broker, until they
// have come, beside mosquitto with the same clients. The clients take most of the
// machine, so both are below what they could do.
func benchMQTT(ctx context.Context, s settings) (out []result, err error) {
	w, err := newWorld(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.close() }()
	ours, err := w.broker()
	if err != nil {
		return nil, err
	}
	theirs, end, err := startMosquitto(ctx, w.dir)
	if err != nil {
		return nil, err
	}
	defer end()
	for qos := range byte(2) {
		var rates, bare, ratios []float64
		for round := range s.rounds + 1 {
			us, err := messageRate(ctx, ours, qos, s.duration)
			if err != nil {
				return out, err
			}
			them, err := messageRate(ctx, theirs, qos, s.duration)
			if err != nil {
				return out, fmt.Errorf("mosquitto: %w", err)
			}
			if round > 0 { // the first warms up
				rates, bare, ratios = append(rates, us), append(bare, them), append(ratios, us/them)
			}
		}
		out = append(out, result{fmt.Sprintf("messages from app to app, QoS %d, %d pairs", qos, appPairs), fmt.Sprintf("%.0f/s", median(rates)), fmt.Sprintf("%.0f/s (mosquitto)", median(bare)),
			fmt.Sprintf("%.2f", median(ratios)), "≥ 0.80", median(ratios) >= 0.8})
	}
	return out, nil
}

// mqttBroker is where a broker is, and how one comes in.
type mqttBroker struct{ url, username, password string }

func (b mqttBroker) connect(id string) (mqtt.Client, error) {
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(b.url).SetUsername(b.username).SetPassword(b.password).SetClientID(id).SetOrderMatters(false).SetAutoReconnect(false))
	if t := client.Connect(); !t.WaitTimeout(10*time.Second) || t.Error() != nil {
		return nil, fmt.Errorf("connect to %s: %v", b.url, t.Error())
	}
	return client, nil
}

// messageRate is how many messages come in a second from publishers that never
// wait for more than their window. At QoS 0 a broker may drop; what comes counts.
func messageRate(ctx context.Context, b mqttBroker, qos byte, d time.Duration) (rate float64, err error) {
	var came atomic.Int64
	var clients []mqtt.Client
	defer func() {
		for _, c := range clients {
			c.Disconnect(0)
		}
	}()
	payload := bytes.Repeat([]byte("x"), appMessage)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, appPairs)
	windows := make([]chan struct{}, appPairs)
	for i := range appPairs {
		windows[i] = make(chan struct{}, appInFlight)
		sub, err := b.connect(fmt.Sprint("sub-", i))
		if err != nil {
			return 0, err
		}
		clients = append(clients, sub)
		// Who has got one lets the next one go: the window is of messages on their way,
		// not of those that the broker has acknowledged.
		if t := sub.Subscribe(fmt.Sprint("pair/", i), qos, func(mqtt.Client, mqtt.Message) {
			came.Add(1)
			select {
			case <-windows[i]:
			default:
			}
		}); !t.WaitTimeout(10*time.Second) || t.Error() != nil {
			return 0, fmt.Errorf("subscribe: %v", t.Error())
		}
		pub, err := b.connect(fmt.Sprint("pub-", i))
		if err != nil {
			return 0, err
		}
		clients = append(clients, pub)
		go func() { // ends with ctx, and is waited for
			topic := fmt.Sprint("pair/", i)
			for {
				select {
				case <-ctx.Done():
					ended <- nil
					return
				case windows[i] <- struct{}{}:
				}
				if t := pub.Publish(topic, qos, false, payload); t.Error() != nil {
					ended <- t.Error()
					return
				}
			}
		}()
	}
	sleep(ctx, d/4) // until it flows
	before, began := came.Load(), time.Now()
	sleep(ctx, d)
	rate = float64(came.Load()-before) / time.Since(began).Seconds()
	cancel()
	for range appPairs {
		err = errors.Join(err, <-ended)
	}
	if rate == 0 && err == nil {
		err = errors.New("no message came")
	}
	return rate, err
}

// startMosquitto starts mosquitto without a disk, and for whoever comes.
func startMosquitto(ctx context.Context, dir string) (b mqttBroker, end func(), err error) {
	binary := "/usr/sbin/mosquitto"
	if path, err := exec.LookPath("mosquitto"); err == nil {
		binary = path
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return b, nil, err
	}
	addr := free.Addr().(*net.TCPAddr)
	if err := free.Close(); err != nil {
		return b, nil, err
	}
	conf := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "listener %d 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\nuser root\n", addr.Port), 0o600); err != nil {
		return b, nil, err
	}
	p, err := start(binary, "-c", conf)
	if err != nil {
		return b, nil, fmt.Errorf("%w (the package mosquitto has it)", err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; sleep(ctx, 20*time.Millisecond) {
		conn, err := net.Dial("tcp", addr.String())
		if err == nil {
			_ = conn.Close()
			return mqttBroker{url: "tcp://" + addr.String()}, p.stop, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			p.stop()
			return b, nil, fmt.Errorf("mosquitto does not listen: %s", p.said())
		}
	}
}
