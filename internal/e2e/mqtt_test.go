package e2e

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// message is one that a subscriber got.
type message struct {
	topic, payload string
	retained       bool
}

// inbox is an MQTT client that keeps what it gets.
type inbox struct {
	client mqtt.Client

	mu       sync.Mutex
	messages []message
}

var clients atomic.Int64

// subscribe connects to a broker and subscribes.
func subscribe(t testing.TB, addr string, filters ...string) *inbox {
	t.Helper()
	in := &inbox{}
	in.client = subscribeWith(t, addr, func(m message) {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.messages = append(in.messages, m)
	}, filters...)
	return in
}

// subscribeWith calls handle, from one goroutine, with every message. It
// connects and subscribes again after every loss.
func subscribeWith(t testing.TB, addr string, handle func(message), filters ...string) mqtt.Client {
	t.Helper()
	subscribed := make(chan error, 1)
	o := mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(fmt.Sprintf("e2e-%d", clients.Add(1)))
	o.SetCleanSession(true).SetConnectRetry(true).SetConnectRetryInterval(50 * time.Millisecond).SetMaxReconnectInterval(100 * time.Millisecond)
	o.SetKeepAlive(5 * time.Second).SetWriteTimeout(5 * time.Second).SetOrderMatters(true)
	o.SetOnConnectHandler(func(c mqtt.Client) {
		for _, f := range filters {
			token := c.Subscribe(f, 1, func(_ mqtt.Client, m mqtt.Message) {
				handle(message{m.Topic(), string(m.Payload()), m.Retained()})
			})
			token.Wait()
			select {
			case subscribed <- token.Error():
			default: // only the first is waited for
			}
		}
	})
	client := mqtt.NewClient(o)
	client.Connect()
	t.Cleanup(func() { client.Disconnect(100) })
	select {
	case err := <-subscribed:
		if err != nil {
			t.Fatalf("subscribe at %s: %v", addr, err)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("no broker at %s", addr)
	}
	return client
}

// publish publishes with QoS 1.
func (in *inbox) publish(t testing.TB, topic, payload string) {
	t.Helper()
	token := in.client.Publish(topic, 1, false, payload)
	if !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatalf("publish to %s: %v", topic, token.Error())
	}
}

// all is what came so far.
func (in *inbox) all() []message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.messages[:len(in.messages):len(in.messages)]
}

// await waits for a message to a topic that contains every one of parts.
func (in *inbox) await(t testing.TB, topic string, parts ...string) message {
	t.Helper()
	var found message
	eventually(t, 10*time.Second, "a message to "+topic, func() error {
		seen := ""
	next:
		for _, m := range in.all() {
			if m.topic != topic {
				continue
			}
			seen = m.payload
			for _, p := range parts {
				if !strings.Contains(m.payload, p) {
					continue next
				}
			}
			found = m
			return nil
		}
		return fmt.Errorf("the last one is %q, want %q in it", seen, parts)
	})
	return found
}
