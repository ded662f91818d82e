package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// watcher samples the newest values at a steady pace: properties are published
// when they change, and what does not change is usual too.
type watcher struct {
	cfg  Config
	log  *slog.Logger
	wake chan struct{} // of settle; one pending wake-up is as good as many

	mu       sync.Mutex
	signals  map[Signal]*watched
	alarming state
}

// state is whether any alarm is on. At first nobody knows: an earlier life of the
// app may have left a lamp burning.
type state int

const (
	unknown state = iota
	quiet
	alarming
)

// watched is one signal. Its values are guarded by the watcher's mu.
type watched struct {
	detector *Detector
	value    float64
	good     bool
	score    Score
	alarm    Alarm
	told     Alarm // what the broker has acknowledged; -1 is nothing yet
}

func newWatcher(cfg Config, log *slog.Logger) *watcher {
	w := &watcher{cfg: cfg, log: log, wake: make(chan struct{}, 1), signals: map[Signal]*watched{}}
	for _, s := range cfg.Watch {
		w.signals[s] = &watched{detector: NewDetector(cfg.Window, cfg.Smooth), told: Alarm{-1}}
	}
	return w
}

// message is what is said on alarms/DEVICE/PROPERTY, retained.
type message struct {
	Device   string    `json:"device"`
	Property string    `json:"property"`
	State    string    `json:"state"` // raised or cleared
	Severity int       `json:"severity"`
	Score    float64   `json:"score"`
	Value    float64   `json:"value"`
	Usual    float64   `json:"usual"` // mean of the baseline
	Time     time.Time `json:"time"`
}

// run samples until ctx ends.
func (w *watcher) run(ctx context.Context, env func(string) string) error {
	client, err := w.connect(ctx, env)
	if err != nil {
		return err
	}
	defer client.Disconnect(250)
	tick := time.NewTicker(w.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			for topic, m := range w.sample(now) {
				w.announce(client, topic, m)
			}
		}
	}
}

// connect returns when the broker was reached for the first time, or with an
// error that time does not heal. After that the client connects by itself.
func (w *watcher) connect(ctx context.Context, env func(string) string) (mqtt.Client, error) {
	url := env("WHIMBREL_MQTT_URL")
	if url == "" {
		return nil, fmt.Errorf("no WHIMBREL_MQTT_URL: is this an app of an edge?")
	}
	// A new revision runs beside the old one for a while: two clients of one id
	// would throw each other out.
	o := mqtt.NewClientOptions().AddBroker(url).SetClientID(env("WHIMBREL_MQTT_USERNAME") + "-" + rand.Text()[:8]).
		SetUsername(env("WHIMBREL_MQTT_USERNAME")).SetPassword(env("WHIMBREL_MQTT_PASSWORD")).
		SetKeepAlive(15 * time.Second).SetMaxReconnectInterval(10 * time.Second).SetWriteTimeout(5 * time.Second).SetConnectTimeout(5 * time.Second)
	o.SetOnConnectHandler(func(c mqtt.Client) {
		// Subscribed again each time: the broker may have forgotten. Retained
		// values come at once.
		for s := range w.signals {
			topic := "devices/" + s.Device + "/properties/" + s.Property
			token := c.Subscribe(topic, 1, func(_ mqtt.Client, m mqtt.Message) { w.take(s, m.Payload()) })
			go func() { // ends with the answer or the connection
				if token.Wait(); token.Error() != nil {
					w.log.Error("subscribe", "topic", topic, "error", token.Error())
				} else if code := token.(*mqtt.SubscribeToken).Result()[topic]; code >= 0x80 {
					w.log.Error("may not subscribe: it is not in the access of the pod's template", "topic", topic)
				}
			}()
		}
		w.log.Info("connected", "broker", url)
	})
	o.SetConnectionLostHandler(func(_ mqtt.Client, err error) {
		// What is known grows old from here on.
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range w.signals {
			s.good = false
		}
		w.log.Warn("connection lost", "error", err)
	})
	client := mqtt.NewClient(o)
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		token := client.Connect()
		token.Wait()
		if token.Error() == nil {
			return client, nil
		}
		w.log.Warn("connect", "broker", url, "error", token.Error())
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// take takes a value that was published.
func (w *watcher) take(s Signal, payload []byte) {
	var report struct {
		Value   *json.Number
		Quality string
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.signals[s]
	at.good = false // also for the empty payload of a device that has gone
	if len(payload) == 0 {
		return
	}
	if err := json.Unmarshal(payload, &report); err != nil {
		w.log.Warn("not a number", "signal", s, "payload", string(payload), "error", err)
		return
	}
	if report.Value == nil || report.Quality != "good" {
		return
	}
	if x, err := report.Value.Float64(); err == nil {
		at.value, at.good = x, true
	}
}

// sample scores every signal that is good, and returns by topic what is to be
// said. What was not acknowledged is said again.
func (w *watcher) sample(now time.Time) map[string]message {
	w.mu.Lock()
	defer w.mu.Unlock()
	say := map[string]message{}
	any, all := false, true
	for at, s := range w.signals {
		if s.good {
			s.score = s.detector.Add(s.value)
			s.alarm = s.alarm.Next(s.score, w.cfg.Threshold)
		}
		if s.alarm != s.told && s.score.Ready {
			m := message{at.Device, at.Property, "raised", s.alarm.Severity, s.score.EWMA, s.value, s.score.Mean, now.UTC()}
			if s.alarm.Severity == 0 {
				m.State = "cleared"
			}
			say["alarms/"+at.String()] = m
		}
		if s.alarm.Severity > 0 {
			any = true
		}
		all = all && s.score.Ready
	}
	next := w.alarming
	switch {
	case any:
		next = alarming
	case all:
		next = quiet
	}
	if next != w.alarming {
		w.alarming = next
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return say
}

// announce says something, and notes that it was heard.
func (w *watcher) announce(client mqtt.Client, topic string, m message) {
	text, err := json.Marshal(m)
	if err != nil {
		w.log.Error("encode an alarm", "error", err)
		return
	}
	token := client.Publish(topic, 1, true, text)
	if !token.WaitTimeout(2*time.Second) || token.Error() != nil {
		w.log.Warn("publish", "topic", topic, "error", token.Error())
		return
	}
	w.log.Info("said", "topic", topic, "message", string(text))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signals[Signal{m.Device, m.Property}].told = Alarm{m.Severity}
}

// settle makes the property that shows alarms what it should be, whenever that
// changes, until ctx ends.
func (w *watcher) settle(ctx context.Context, api *api) {
	for wait := time.Duration(0); ; {
		var again <-chan time.Time
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-again:
		}
		w.mu.Lock()
		set := w.cfg.OnClear
		if w.alarming == alarming {
			set = w.cfg.OnAlarm
		}
		w.mu.Unlock()
		if wait = 0; set == nil {
			continue
		}
		switch err := api.set(ctx, *set); {
		case err == nil:
			w.log.Info("set", "property", set.Signal, "value", string(set.Value))
		case isRefusal(err):
			w.log.Error("set", "property", set.Signal, "error", err)
		default:
			w.log.Warn("set; trying again", "property", set.Signal, "error", err)
			wait = 5 * time.Second
		}
	}
}

// handler answers /ready, for the probe, and /scores, for people.
func (w *watcher) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(out http.ResponseWriter, _ *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		var missing []string
		for at, s := range w.signals {
			if !s.good {
				missing = append(missing, at.String())
			}
		}
		if len(missing) > 0 {
			http.Error(out, "no good value of "+strings.Join(missing, ", "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(out, "ok")
	})
	mux.HandleFunc("GET /scores", func(out http.ResponseWriter, _ *http.Request) {
		type score struct {
			Value    float64 `json:"value"`
			Good     bool    `json:"good"`
			Ready    bool    `json:"ready"`
			Z        float64 `json:"z"`
			Score    float64 `json:"score"`
			Usual    float64 `json:"usual"`
			Samples  int     `json:"samples"`
			Severity int     `json:"severity"`
		}
		all := map[string]score{}
		w.mu.Lock()
		for at, s := range w.signals {
			all[at.String()] = score{s.value, s.good, s.score.Ready, s.score.Z, s.score.EWMA, s.score.Mean, s.score.Samples, s.alarm.Severity}
		}
		w.mu.Unlock()
		out.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(out).Encode(all) // the reader may be gone
	})
	return mux
}
