package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

const (
	routedTopics = 16
	routedSize   = 200 // bytes of a message
)

// benchRoutes measures messages from a program at the edge, through a route, to
// an HTTP target, until the last is delivered; beside bare requests to the same
// target by as many callers as a route has.
func benchRoutes(ctx context.Context, s settings) ([]result, error) {
	var count atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	target := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		count.Add(1)
	})}
	go func() { _ = target.Serve(listener) }() // ends with Close
	defer target.Close()
	url := "http://" + listener.Addr().String() + "/in"

	w, err := newWorld(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.close() }()
	if err := w.call(ctx, "POST", "/api/v1/routes", map[string]any{"apiVersion": "whimbrel/v1", "kind": "Route", "metadata": map[string]any{"name": "bench"},
		"spec": map[string]any{"from": map[string]any{"mqtt": "bench/#"}, "to": map[string]any{"http": map[string]any{"url": url}}}}, nil); err != nil {
		return nil, err
	}
	broker, err := w.broker()
	if err != nil {
		return nil, err
	}
	client, err := broker.connect("bench")
	if err != nil {
		return nil, err
	}
	defer client.Disconnect(100)
	payload := bytes.Repeat([]byte("x"), routedSize)
	if err := w.until(ctx, 10*time.Second, "the route to carry", func() bool {
		client.Publish("bench/probe", 1, false, payload).WaitTimeout(time.Second)
		return count.Load() > 0
	}); err != nil {
		return nil, err
	}

	var ours, bare, ratios []float64
	for range s.rounds {
		// As many as bare requests make in the time of a loop, but few enough for
		// both to end in about that time.
		n := int(min(max(int64(s.duration.Seconds()*1500), 500), 10_000))
		routed, err := routedRate(ctx, client, &count, payload, n)
		if err != nil {
			return nil, err
		}
		direct, err := directRate(ctx, url, payload, n)
		if err != nil {
			return nil, err
		}
		ours, bare, ratios = append(ours, routed), append(bare, direct), append(ratios, routed/direct)
	}
	return []result{{what: "messages/s of a route, edge MQTT to HTTP, until delivered", ours: fmt.Sprintf("%.0f", median(ours)), baseline: fmt.Sprintf("%.0f requests/s, bare", median(bare)),
		ratio: fmt.Sprintf("%.2f", median(ratios)), goal: "≥ 0.12", ok: median(ratios) >= 0.12}}, nil
}

func routedRate(ctx context.Context, client mqtt.Client, count *atomic.Int64, payload []byte, n int) (float64, error) {
	before, began := count.Load(), time.Now()
	tokens := make([]mqtt.Token, 0, n)
	for i := range n {
		tokens = append(tokens, client.Publish(fmt.Sprint("bench/", i%routedTopics), 1, false, payload))
	}
	for _, t := range tokens {
		if !t.WaitTimeout(30*time.Second) || t.Error() != nil {
			return 0, fmt.Errorf("publish: %v", t.Error())
		}
	}
	for count.Load()-before < int64(n) {
		if time.Since(began) > time.Minute {
			return 0, fmt.Errorf("%d of %d messages came", count.Load()-before, n)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

func directRate(ctx context.Context, url string, payload []byte, n int) (float64, error) {
	const callers = 4 // what a route has
	began := time.Now()
	var wait sync.WaitGroup
	failed := make(chan error, callers)
	for range callers {
		wait.Go(func() {
			for range n / callers {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(payload))
				if err != nil {
					failed <- err
					return
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					failed <- err
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
	wait.Wait()
	select {
	case err := <-failed:
		return 0, err
	default:
	}
	return float64(n/callers*callers) / time.Since(began).Seconds(), nil
}

// broker is the edge's, with the edge's own credentials.
func (w *world) broker() (b mqttBroker, err error) {
	text, err := os.ReadFile(filepath.Join(w.dir, "edge", "mqtt.json"))
	if err != nil {
		return b, err
	}
	var c struct{ URL, Username, Password string }
	if err := json.Unmarshal(text, &c); err != nil {
		return b, err
	}
	return mqttBroker{"tcp" + c.URL[len("mqtt"):], c.Username, c.Password}, nil
}
