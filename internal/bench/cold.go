package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// coldDevices is how many devices are new at once; each has as many properties as
// points says.
const coldDevices = 200

// coldDevice runs a simulator of one of them. Every property changes with every
// tick, so that each poll has something to report.
func coldDevice(ctx context.Context, n int) (addr string, err error) {
	cfg := modbussim.Config{Name: "cold", Tick: 500 * time.Millisecond, Signals: map[string]signal.Spec{}}
	unit := modbussim.Unit{Unit: 1}
	for i := range points {
		name, register := propertyName(i), uint16(2*i)
		cfg.Signals[name] = signal.Spec{Sine: &signal.Sine{Min: 0, Max: 1000, Period: time.Duration(7+(n+i)%50) * time.Second}}
		unit.Points = append(unit.Points, modbussim.Point{Name: name, Table: "holding", Register: &register, Encoding: "float32"})
	}
	cfg.Units = []modbussim.Unit{unit}
	return startSimulator(ctx, cfg)
}

// benchCold measures how long it takes from the registration of many new devices,
// over REST, until the hub has a good value and then a further one of every
// property of theirs, as a reader of the stream of twins sees it.
func benchCold(ctx context.Context, _ settings) (out []result, err error) {
	pg, err := pgtest.Open(pgtest.Options{Fsync: true, Settings: postgresSettings})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pg.Close()) }()
	w, err := newWorldOn(ctx, pg.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var addrs []string
	for n := range coldDevices {
		addr, err := coldDevice(ctx, n)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	seen, err := w.watch(ctx, coldDevices*points)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := w.model(ctx, "cold", floats("1s")); err != nil {
		return nil, err
	}
	for n, addr := range addrs {
		if err := w.create(ctx, "cold", "bench", fmt.Sprintf("cold-%d", n), addr); err != nil {
			return nil, err
		}
	}
	registered := time.Since(began)
	var first, flowing time.Duration
	for _, at := range []*time.Duration{&first, &flowing} {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Minute):
			return nil, fmt.Errorf("waited a minute for every property's values; hub and edge say:\n%s\n%s", w.hub.said(), w.edge.said())
		case when, ok := <-seen:
			if !ok {
				return nil, errors.New("the stream of twins has ended")
			}
			*at = when.Sub(began)
		}
	}
	n, err := storedTwice(ctx, pg.URL("postgres"))
	if err != nil {
		return nil, err
	}
	if n != coldDevices*points {
		return nil, fmt.Errorf("history has two values of %d properties, the stream told of %d", n, coldDevices*points)
	}
	out = append(out, result{fmt.Sprintf("cold start of %d devices × %d properties at 1 s: registered after %s, all there after %s, all flowing after", coldDevices, points,
		round(registered), round(first)), round(flowing), "-", "-", "< 5s", flowing < 5*time.Second})
	linked, all, err := w.restartEdge(ctx)
	if err != nil {
		return out, err
	}
	return append(out, result{fmt.Sprintf("restart of that edge after SIGKILL: linked after %s, good values of all at the hub after", round(linked)), round(all), "-", "-", "< 5s", all < 5*time.Second}), nil
}

func round(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }

// restartEdge kills the edge, starts it again, and measures how long it takes until
// it is linked and until the hub has a good value of every property again.
func (w *world) restartEdge(ctx context.Context) (linked, all time.Duration, err error) {
	if err := w.edge.kill(); err != nil {
		return 0, 0, err
	}
	if err := w.until(ctx, 30*time.Second, "the hub to miss the edge", func() bool { return !w.ready(ctx, "bench") }); err != nil {
		return 0, 0, err
	}
	seen, err := w.watch(ctx, coldDevices*points) // what is stale is not good
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if w.edge, err = start(w.edge.cmd.Path, "--data", w.edgeData()); err != nil {
		return 0, 0, err
	}
	if err := w.until(ctx, time.Minute, "the edge to be back", func() bool { return w.ready(ctx, "bench") }); err != nil {
		return 0, 0, err
	}
	linked = time.Since(began)
	select {
	case when, ok := <-seen:
		if !ok {
			return 0, 0, errors.New("the stream of twins has ended")
		}
		return linked, when.Sub(began), nil
	case <-time.After(time.Minute):
	}
	return 0, 0, fmt.Errorf("waited a minute for every property's value; the edge says:\n%s", w.edge.said())
}

// floats are as many float properties as points says.
func floats(every string) (out []map[string]any) {
	for i := range points {
		out = append(out, map[string]any{"name": propertyName(i), "type": "float", "access": "Read", "every": every,
			"address": map[string]any{"table": "holding", "register": 2 * i, "encoding": "float32"}})
	}
	return out
}

// stream opens the stream of twins. It ends with ctx; who asked closes it.
func (w *world) stream(ctx context.Context) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", w.server+"/api/v1/twins/stream", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("GET /twins/stream: %s", resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

// twinEvent is what the stream tells of a device.
type twinEvent struct {
	Device     string
	Properties map[string]struct {
		Reported struct {
			Quality string
			Time    time.Time
		}
	}
}

// twinEvents calls f for each event of a stream until it returns false or the stream
// ends.
func twinEvents(stream io.Reader, f func(twinEvent) bool) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e twinEvent
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return err
		}
		if !f(e) {
			return nil
		}
	}
	return lines.Err()
}

// watch follows the stream of twins and says when so many properties have been
// reported good, and when each of them has been reported once more.
func (w *world) watch(ctx context.Context, properties int) (<-chan time.Time, error) {
	body, err := w.stream(ctx)
	if err != nil {
		return nil, err
	}
	moments := make(chan time.Time, 2)
	go func() { // ends with the stream, which ends with ctx
		defer close(moments)
		defer body.Close()
		reports := map[string]time.Time{} // the time of a property's first value
		again := map[string]struct{}{}
		_ = twinEvents(body, func(e twinEvent) bool { // moments say whether it came to the end
			for name, p := range e.Properties {
				if p.Reported.Quality != "good" {
					continue
				}
				key := e.Device + "/" + name
				if was, there := reports[key]; !there {
					if reports[key] = p.Reported.Time; len(reports) == properties {
						moments <- time.Now()
					}
				} else if p.Reported.Time.After(was) {
					if again[key] = struct{}{}; len(again) == properties {
						moments <- time.Now()
						return false
					}
				}
			}
			return true
		})
	}()
	return moments, nil
}

// storedTwice counts the series of which history has two samples or more.
func storedTwice(ctx context.Context, url string) (n int, err error) {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	err = c.QueryRow(ctx, `SELECT count(*) FROM objects o JOIN series s ON s.device_uid = o.uid WHERE o.kind = 'Device'
		AND (SELECT count(*) FROM (SELECT FROM samples('default', o.name, s.property, '-infinity', 'infinity') LIMIT 2) x) = 2`).Scan(&n)
	return n, err
}
