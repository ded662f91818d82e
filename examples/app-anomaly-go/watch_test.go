package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	cfg, err := parse([]string{"-watch=a/b", "-watch", "c/d", `-on-alarm=e/f="on"`, "-every=50ms"}, io.Discard)
	if err != nil || len(cfg.Watch) != 2 || cfg.Watch[1] != (Signal{"c", "d"}) || cfg.OnAlarm.Device != "e" || string(cfg.OnAlarm.Value) != `"on"` || cfg.OnClear != nil {
		t.Errorf("%+v, %v", cfg, err)
	}
	for _, args := range []string{"", "-watch=a", "-watch=a/b/c", "-watch=+/b", "-watch=a/b more", "-watch=a/b -window=2", "-watch=a/b -smooth=0", "-watch=a/b -smooth=NaN",
		"-watch=a/b -threshold=10", "-watch=a/b -every=-1s", "-watch=a/b -on-alarm=c/d", "-watch=a/b -on-alarm=c/d=on", "-wach=a/b"} {
		if cfg, err := parse(strings.Fields(args), io.Discard); err == nil {
			t.Errorf("%q is taken: %+v", args, cfg)
		}
	}
}

func newTestWatcher(t *testing.T) *watcher {
	t.Helper()
	cfg, err := parse([]string{"-watch=m/x", "-watch=m/y", "-window=20", "-on-alarm=lamp/on=true", "-on-clear=lamp/on=false"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return newWatcher(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

// say gives a signal a value.
func (w *watcher) say(s Signal, x float64) {
	w.take(s, fmt.Appendf(nil, `{"value":%v,"quality":"good"}`, x))
}

func TestSamples(t *testing.T) {
	w, x, y := newTestWatcher(t), Signal{"m", "x"}, Signal{"m", "y"}
	heard := func(say map[string]message) {
		for _, m := range say {
			w.signals[Signal{m.Device, m.Property}].told = Alarm{m.Severity}
		}
	}
	w.say(x, 1)
	w.say(y, 5)
	for range 5 {
		if say := w.sample(time.Now()); len(say) > 0 || w.alarming != unknown {
			t.Fatalf("without a baseline it says %v", say)
		}
	}
	say := w.sample(time.Now())
	if len(say) != 2 || say["alarms/m/x"].State != "cleared" || w.alarming != quiet {
		t.Fatalf("at first it says %+v, %v", say, w.alarming)
	}
	if again := w.sample(time.Now()); len(again) != 2 {
		t.Error("what was not heard is not said again")
	}
	heard(say)
	w.say(x, 2)
	rung := map[string]message{}
	for range 8 {
		for topic, m := range w.sample(time.Now()) {
			rung[topic] = m
		}
		heard(rung)
	}
	if m := rung["alarms/m/x"]; len(rung) != 1 || m.State != "raised" || m.Severity != 3 || m.Value != 2 || w.alarming != alarming {
		t.Errorf("it says %+v", rung)
	}
	for _, payload := range []string{`{"value":3,"quality":"bad"}`, `{"value":null,"quality":"good"}`, `{"value":"no"}`, `{`, ``} {
		w.say(x, 2)
		if w.take(x, []byte(payload)); w.signals[x].good {
			t.Errorf("%s is good", payload)
		}
	}
	before := w.signals[x].score.Samples
	w.sample(time.Now())
	if w.signals[x].score.Samples != before {
		t.Error("a bad value is a sample")
	}
}

func TestSettle(t *testing.T) {
	w := newTestWatcher(t)
	got, codes := make(chan string, 10), []int{503, 403, 202}
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization") + " " + string(body)
		out.WriteHeader(codes[0])
		codes = codes[1:]
	}))
	defer server.Close()
	a, err := newAPI(func(name string) string {
		return map[string]string{"WHIMBREL_API_URL": server.URL, "WHIMBREL_API_TOKEN": "secret"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	lamp := Setting{Signal{"lamp", "on"}, []byte("true")}
	if err := a.set(t.Context(), lamp); err == nil || isRefusal(err) {
		t.Errorf("503: %v", err)
	}
	if err := a.set(t.Context(), lamp); !isRefusal(err) {
		t.Errorf("403: %v", err)
	}
	<-got
	<-got
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { // ends with ctx
		defer close(ended)
		w.settle(ctx, a)
	}()
	w.mu.Lock()
	w.alarming = alarming
	w.mu.Unlock()
	w.wake <- struct{}{}
	if asked := <-got; asked != `PATCH /v1/devices/lamp/twin/desired Bearer secret {"on":true}` {
		t.Errorf("it asks %s", asked)
	}
	cancel()
	<-ended
	if _, err := newAPI(func(string) string { return "" }); err == nil {
		t.Error("it needs no edge")
	}
}
