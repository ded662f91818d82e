package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// world is a bridge and what it says. Every message is held against its schema.
type world struct {
	t *testing.T
	*Bridge
	schemas map[mqtt.MapperTopicKind]*jsonschema.Schema

	mu    sync.Mutex
	said  []string // "kind payload"
	ended []uint64
	ids   int
	acks  int // messages done with
	fails int // that could not be stored
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, schemas: map[mqtt.MapperTopicKind]*jsonschema.Schema{}}
	for _, kind := range []mqtt.MapperTopicKind{mqtt.MapperWelcome, mqtt.MapperDevices, mqtt.MapperRead, mqtt.MapperWrite, mqtt.MapperProblem} {
		w.schemas[kind] = schema(t, kind)
	}
	w.Bridge = New(Config{Node: "n", Publish: w.publish, NewID: w.id, Disconnect: func(conn uint64) {
		w.mu.Lock()
		w.ended = append(w.ended, conn)
		w.mu.Unlock()
		w.Gone(conn)
	}})
	return w
}

func (w *world) id() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids++
	return fmt.Sprint("r", w.ids)
}

func (w *world) publish(topic string, payload []byte) error {
	mapper, kind, ok := mqtt.ParseMapperTopic(topic)
	if !ok || mapper != "acme" {
		w.t.Errorf("published to %s", topic)
	}
	if err := validates(w.t, w.schemas[kind], payload); err != nil {
		w.t.Errorf("%s %s: %v", topic, payload, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, string(kind)+" "+string(payload))
	return nil
}

// heard returns what was said since the last time.
func (w *world) heard() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := strings.Join(w.said, "\n")
	w.said = nil
	return text
}

func (w *world) say(conn uint64, kind mqtt.MapperTopicKind, payload string) {
	w.Message(Message{Conn: conn, Client: fmt.Sprint("c", conn), Clean: true, Mapper: "acme", Kind: kind, Payload: []byte(payload), Done: func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err == nil {
			w.acks++
		} else {
			w.fails++
		}
	}})
}

func (w *world) acked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acks
}

const hello = `{"protocol":1,"version":"1","connection":true,"address":true,"heartbeat":"1s"}`

// sink takes deliveries.
type sink struct {
	mu  sync.Mutex
	got []mappers.Delivery
}

func (s *sink) take(d mappers.Delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, d)
	return true
}

func (s *sink) deliveries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

func (s *sink) last() mappers.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got) == 0 {
		return mappers.Delivery{}
	}
	return s.got[len(s.got)-1]
}

func (s *sink) reason() models.Reason {
	if d := s.last(); d.Err != nil {
		return mappers.FailureOf(d.Err).Reason
	}
	return ""
}

var config = mappers.DeviceConfig{Name: "d1", Connection: json.RawMessage(`{ "url": "x" }`), Points: []mappers.Point{
	{Property: "a", Type: models.TypeFloat, Access: models.Read, Every: time.Second, Address: json.RawMessage(`{"n": 1}`)},
	{Property: "w", Type: models.TypeInt, Access: models.Write},
}}

// begin runs a bridge with the mapper acme, which has announced itself on
// connection 1, and a device of it.
func begin(t *testing.T, w *world) (d *device, s *sink, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { _ = w.Run(ctx) })
	w.say(1, mqtt.MapperAnnounce, hello)
	dev, err := w.Mapper("acme").Open(config)
	if err != nil {
		t.Fatal(err)
	}
	d, s = dev.(*device), &sink{}
	wait.Go(func() { d.Report(ctx, s.take) })
	return d, s, func() { cancel(); wait.Wait(); d.Close() }
}

func (w *world) accept(conn uint64, d *device) {
	w.say(conn, mqtt.MapperState, fmt.Sprintf(`{"device":"d1","assignment":%q,"state":"accepted"}`, d.config.Assignment))
}

func TestSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d, s, stop := begin(t, w)
		defer stop()
		beat := func(n int) {
			for range n {
				time.Sleep(900 * time.Millisecond) //sleep: a bubble's clock
				w.say(1, mqtt.MapperHeartbeat, "")
			}
		}
		if got := w.heard(); !strings.Contains(got, "welcome ") || !strings.Contains(got, `devices {"device":"d1","assignment":"`+d.config.Assignment+`","connection":{"url":"x"},"properties":[{"name":"a","type":"float","access":"Read","every":"1s","address":{"n":1}},{"name":"w","type":"int","access":"Write"}]}`) {
			t.Fatal(got)
		}
		// Not answered: told again after 5 s; offline after the third time.
		beat(5)
		if got := w.heard(); got != "" {
			t.Errorf("told again too early: %s", got)
		}
		beat(7)
		if got := w.heard(); strings.Count(got, "devices ") != 2 || s.reason() != models.ReasonTimeout {
			t.Errorf("not answered: %s, %v", got, s.last())
		}
		w.accept(1, d)
		beat(10)
		if got := w.heard(); got != "" {
			t.Errorf("told although it is accepted: %s", got)
		}
		// Silent for three heartbeats: lost, and hung up.
		time.Sleep(3200 * time.Millisecond) //sleep: a bubble's clock
		if s.reason() != models.ReasonMapperLost || w.Mapper("acme").Live() || len(w.ended) != 1 {
			t.Errorf("silent: %v, %v", s.last(), w.ended)
		}
		if _, failure := d.ask(t.Context(), mqtt.MapperRead, func(string) any { return nil }); failure == nil || failure.Reason != models.ReasonMapperLost || !failure.Unsent {
			t.Errorf("asked a lost mapper: %v", failure)
		}
		// Back on another connection: everything again. That it serves the device is
		// told as often as it says so.
		w.say(2, mqtt.MapperAnnounce, hello)
		w.accept(2, d)
		synctest.Wait()
		if got := s.last(); !got.Ask || got.Err != nil {
			t.Errorf("back: %+v", got)
		}
		if got := w.heard(); strings.Count(got, "welcome ") != 1 || strings.Count(got, "devices ") != 1 {
			t.Errorf("back: %s", got)
		}
		w.say(2, mqtt.MapperBye, "{}")
		synctest.Wait()
		if s.reason() != models.ReasonMapperLost {
			t.Errorf("bye: %v", s.last())
		}
	})
}

// TestMisspeltTopics: a mapper is told of a topic that there is not, before it has a
// session, too.
func TestMisspeltTopics(t *testing.T) {
	w := newWorld(t)
	w.say(1, "anounce", hello)
	if got := w.heard(); !strings.HasPrefix(got, "problem ") || !strings.Contains(got, "mappers/acme/anounce") || !strings.Contains(got, "but announce, heartbeat") {
		t.Error(got)
	}
}

// TestWordsAreFewHoweverOftenTheyAreSaid: a mapper that changes its mind without
// end, while nobody takes what it says, costs no memory; the last word counts.
func TestWordsAreFewHoweverOftenTheyAreSaid(t *testing.T) {
	w := newWorld(t)
	w.say(1, mqtt.MapperAnnounce, hello)
	dev, err := w.Mapper("acme").Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	d := dev.(*device)
	offline := func() {
		w.say(1, mqtt.MapperState, fmt.Sprintf(`{"device":"d1","assignment":%q,"state":"offline"}`, d.config.Assignment))
	}
	for range 100 {
		w.accept(1, d)
		offline()
	}
	if len(d.inbox) != 1 || d.inbox[0].Err == nil || d.inbox[0].Ask {
		t.Errorf("offline last: %+v", d.inbox)
	}
	w.accept(1, d)
	w.accept(1, d)
	if len(d.inbox) != 1 || d.inbox[0].Err == nil || !d.inbox[0].Ask {
		t.Errorf("accepted last: %+v", d.inbox)
	}
	w.say(1, mqtt.MapperBatch, fmt.Sprintf(`{"device":"d1","assignment":%q,"samples":[{"property":"a","value":1}]}`, d.config.Assignment))
	w.accept(1, d)
	if len(d.inbox) != 3 || len(d.inbox[1].Points) != 1 || d.inbox[2].Err != nil || !d.inbox[2].Ask {
		t.Errorf("after a batch: %+v", d.inbox)
	}
}

func TestBatchesAreAcknowledgedWhenStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d, s, stop := begin(t, w)
		w.accept(1, d)
		synctest.Wait()
		before, words := w.acked(), s.deliveries()
		batch := fmt.Sprintf(`{"device":"d1","assignment":%q,"samples":[{"property":"a","value":1},{"property":"a","value":2}]}`, d.config.Assignment)
		w.say(1, mqtt.MapperBatch, batch)
		synctest.Wait()
		first := s.last()
		if len(first.Points) != 2 || first.Results[1].Value != models.Float(2) || w.acked() != before {
			t.Fatalf("%+v, %d", first, w.acked()-before)
		}
		w.say(1, mqtt.MapperBatch, batch)
		synctest.Wait()
		second := s.last()
		second.Stored(nil) // not in the order in which they came
		first.Stored(errors.New("disk full"))
		if w.acked() != before+1 || w.fails != 1 {
			t.Errorf("%d acknowledged, %d not", w.acked()-before, w.fails)
		}
		// Of a former configuration: done with, and nobody hears of it.
		w.say(1, mqtt.MapperBatch, strings.Replace(batch, d.config.Assignment, "0", 1))
		synctest.Wait()
		if w.acked() != before+2 || s.deliveries()-words != 2 {
			t.Errorf("a former assignment: %d acknowledged, %d deliveries", w.acked()-before, s.deliveries()-words)
		}
		// More than can wait ends the connection, without an acknowledgement.
		for range MaxWaiting + 1 {
			w.say(1, mqtt.MapperBatch, batch)
		}
		if len(w.ended) != 1 || w.acked() != before+2 {
			t.Errorf("ended %v, %d acknowledged", w.ended, w.acked()-before)
		}
		stop()
		if w.acked() != before+2 {
			t.Error("acknowledged at the end of the edge")
		}
	})
}

// TestBatchesSentAgain: a client that had no acknowledgement sends again on its next
// connection. That is stored once, and acknowledged when it is.
func TestBatchesSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d, s, stop := begin(t, w)
		defer stop()
		w.accept(1, d)
		batch := func(n int, time string) string {
			return fmt.Sprintf(`{"device":"d1","assignment":%q,%s"samples":[{"property":"a","value":%d}]}`, d.config.Assignment, time, n)
		}
		const at = `"time":"2026-01-01T00:00:00Z",`
		say := func(conn uint64, payload string) (deliveries, acks int) {
			synctest.Wait() // the reading that comes with a device that is taken
			before, had := s.deliveries(), w.acked()
			w.say(conn, mqtt.MapperBatch, payload)
			synctest.Wait()
			return s.deliveries() - before, w.acked() - had
		}
		again := func(conn uint64) {
			w.Gone(conn)
			w.say(conn+1, mqtt.MapperAnnounce, hello)
			w.accept(conn+1, d)
			synctest.Wait()
		}
		say(1, batch(1, at))
		first := s.last()
		say(1, batch(2, at))
		s.last().Stored(nil)
		say(1, batch(3, at))
		s.last().Stored(errors.New("disk full"))
		say(1, batch(4, ""))
		s.last().Stored(nil)
		again(1)
		if n, acks := say(2, batch(1, at)); n != 0 || acks != 0 {
			t.Errorf("one that is being stored: %d deliveries, %d acknowledged", n, acks)
		}
		if n, acks := say(2, batch(2, at)); n != 0 || acks != 1 {
			t.Errorf("one that is stored: %d deliveries, %d acknowledged", n, acks)
		}
		for what, payload := range map[string]string{"one that could not be stored": batch(3, at), "one without times": batch(4, ""), "another": batch(5, at)} {
			if n, acks := say(2, payload); n != 1 || acks != 0 {
				t.Errorf("%s: %d deliveries, %d acknowledged", what, n, acks)
			}
			s.last().Stored(nil)
		}
		if n, _ := say(2, batch(5, at)); n != 1 {
			t.Error("the same twice on one connection is stored once") // who says it twice means it
		}
		had := w.acked()
		first.Stored(nil)
		if w.acked() != had+1 {
			t.Errorf("%d acknowledged when the first one is stored", w.acked()-had)
		}
		again(2)
		if n, acks := say(3, batch(1, at)); n != 0 || acks != 1 {
			t.Errorf("a third time: %d deliveries, %d acknowledged", n, acks)
		}
		// What its device did not live to see stored is heard again.
		say(3, batch(6, at))
		if d.m.resent.closed(d.config.Assignment); len(d.m.resent.known) == 0 {
			t.Error("what is stored is forgotten")
		}
		again(3)
		if n, acks := say(4, batch(6, at)); n != 1 || acks != 0 {
			t.Errorf("of a closed device: %d deliveries, %d acknowledged", n, acks)
		}
		// What is remembered is bounded.
		for i := range 2 * maxRemembered {
			w.say(4, mqtt.MapperBatch, batch(1000+i, at))
			synctest.Wait()
			s.last().Stored(nil)
		}
		if m := w.Mapper("acme"); len(m.resent.known) > maxRemembered || len(m.resent.order) > maxRemembered {
			t.Errorf("%d are remembered", len(m.resent.known))
		}
	})
}

func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d, _, stop := begin(t, w)
		defer stop()
		w.accept(1, d)
		synctest.Wait()
		w.heard()
		out := make([]mappers.Result, 1)
		done := make(chan error, 1)
		read := func() { done <- d.Read(t.Context(), []int{0}, out) }
		for _, tt := range []struct {
			answer string
			reason models.Reason // of the device as a whole
			value  models.Value
			bad    models.Reason // of the value
		}{
			{`"results":[{"value":5}]`, "", models.Float(5), ""},
			{`"results":[{"error":{"reason":"device-error"}}]`, "", models.Null, models.ReasonDeviceError},
			{`"results":[]`, models.ReasonProtocolError, models.Null, ""},
			{`"results":[{"quality":"good"}]`, "", models.Null, models.ReasonProtocolError},
			{`"error":{"reason":"not-connected","message":"refused"}`, models.ReasonNotConnected, models.Null, ""},
		} {
			out[0] = mappers.Result{}
			go read()
			synctest.Wait()
			id := fmt.Sprint("r", w.ids)
			if got := w.heard(); !strings.HasPrefix(got, `read {"id":"`+id+`"`) {
				t.Fatal(got)
			}
			w.say(1, mqtt.MapperAnswer, `{"id":"nobody","results":[]}`)
			w.say(1, mqtt.MapperAnswer, fmt.Sprintf(`{"id":%q,%s}`, id, tt.answer))
			err := <-done
			if tt.reason == "" && (err != nil || out[0].Value != tt.value || out[0].Reason != tt.bad) || tt.reason != "" && (err == nil || mappers.FailureOf(err).Reason != tt.reason) {
				t.Errorf("%s: %v %v", tt.answer, err, out[0])
			}
		}
		// A write: what it reads back as is remembered; nobody answers; the mapper dies.
		errs := make(chan []error, 1)
		write := func() { errs <- d.Write(t.Context(), []mappers.WriteRequest{{Point: 1, Value: models.Int(7)}}) }
		go write()
		synctest.Wait()
		w.say(1, mqtt.MapperAnswer, fmt.Sprintf(`{"id":"r%d","results":[{"value":6}]}`, w.ids))
		if e := <-errs; e[0] != nil {
			t.Error(e)
		}
		if v, _ := d.Canonical(1, models.Int(7)); v != models.Int(6) {
			t.Errorf("canonical %v", v)
		}
		if v, _ := d.Canonical(1, models.Int(8)); v != models.Int(8) {
			t.Errorf("canonical of another value %v", v)
		}
		go write()
		for range 11 {
			time.Sleep(time.Second) //sleep: a bubble's clock
			w.say(1, mqtt.MapperHeartbeat, "")
		}
		if f := mappers.FailureOf((<-errs)[0]); f.Reason != models.ReasonTimeout || f.Unsent || f.Refused {
			t.Errorf("not answered: %v", f)
		}
		go write()
		synctest.Wait()
		w.Gone(1)
		if f := mappers.FailureOf((<-errs)[0]); f.Reason != models.ReasonMapperLost || f.Unsent {
			t.Errorf("died: %v", f)
		}
		if f := mappers.FailureOf(d.Write(t.Context(), []mappers.WriteRequest{{Point: 1, Value: models.Int(7)}})[0]); f.Reason != models.ReasonMapperLost || !f.Unsent {
			t.Errorf("dead: %v", f)
		}
	})
}

func TestManyDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Add(mappers.Info{Name: "acme"})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = w.Run(ctx) }()
		const n = 1000
		for i := range n {
			cfg := config
			cfg.Name = fmt.Sprintf("d%d", i)
			if _, err := w.Mapper("acme").Open(cfg); err != nil {
				t.Fatal(err)
			}
		}
		w.say(1, mqtt.MapperAnnounce, hello)
		seen := map[string]bool{}
		for range 100 {
			time.Sleep(watchEvery) //sleep: a bubble's clock
			said := strings.Split(w.heard(), "\n")
			if len(said) > maxAssigning+1 {
				t.Fatalf("%d messages at once", len(said))
			}
			for _, text := range said {
				payload, ok := strings.CutPrefix(text, "devices ")
				if !ok {
					continue
				}
				var a assignment
				if err := json.Unmarshal([]byte(payload), &a); err != nil || seen[a.Device] {
					t.Fatal(payload, err)
				}
				seen[a.Device] = true
				w.say(1, mqtt.MapperState, fmt.Sprintf(`{"device":%q,"assignment":%q,"state":"accepted"}`, a.Device, a.Assignment))
			}
		}
		if len(seen) != n {
			t.Errorf("told of %d", len(seen))
		}
		cancel()
		synctest.Wait()
	})
}

func TestLateMappersAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.Add(mappers.Info{Name: "acme", Version: "1"})
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() { _ = w.Run(ctx) })
		dev, err := m.Open(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Open(config); models.KindOf(err) != models.KindConflict {
			t.Errorf("opened twice: %v", err)
		}
		s := &sink{}
		wait.Go(func() { dev.(*device).Report(ctx, s.take) })
		time.Sleep(DefaultAppearWithin - time.Second) //sleep: a bubble's clock
		if s.reason() != "" {
			t.Errorf("lost at once: %v", s.last())
		}
		time.Sleep(2 * time.Second) //sleep: a bubble's clock
		if s.reason() != models.ReasonMapperLost {
			t.Errorf("not lost: %v", s.last())
		}
		cancel()
		wait.Wait()
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Secrets go to a mapper that asks for them and is on this machine, and to no
// other.
func TestSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() { _ = w.Run(ctx) })
		defer func() { cancel(); wait.Wait() }()
		asking := strings.Replace(hello, `"protocol":1`, `"protocol":1,"secrets":true`, 1)
		if asking == hello {
			t.Fatal(hello)
		}
		w.say(1, mqtt.MapperAnnounce, hello)
		cfg := config
		cfg.Secrets = map[string]mappers.Secret{"passwordFrom": mappers.NewSecret([]byte("s3cret\n"))}
		dev, err := w.Mapper("acme").Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		d, s := dev.(*device), &sink{}
		wait.Go(func() { d.Report(ctx, s.take) })
		defer d.Close()
		refused := func(who, why string) {
			t.Helper()
			time.Sleep(3 * time.Second) //sleep: a bubble's clock
			if got := w.heard(); strings.Contains(got, "devices ") || strings.Contains(got, "s3cret") {
				t.Errorf("%s is told %s", who, got)
			}
			if err := d.Verdict(ctx); err == nil || !strings.Contains(err.Error(), why) || s.reason() != models.ReasonConfiguration {
				t.Errorf("%s: %v, %v", who, err, s.last())
			}
		}
		refused("a mapper that does not ask", "does not take secrets")
		w.say(1, mqtt.MapperBye, "{}")
		w.say(2, mqtt.MapperAnnounce, asking)
		refused("a mapper elsewhere", "runs on another machine")
		w.say(2, mqtt.MapperBye, "{}")
		w.Message(Message{Conn: 3, Client: "c3", Clean: true, Local: true, Mapper: "acme", Kind: mqtt.MapperAnnounce, Payload: []byte(asking), Done: func(error) {}})
		synctest.Wait()
		if got := w.heard(); !strings.Contains(got, `"connection":{"url":"x"},"secrets":{"passwordFrom":"s3cret\n"},"properties"`) {
			t.Errorf("a mapper here is told %s", got)
		}
		plain, err := newDevice(w.Mapper("acme"), config)
		if err != nil || plain.config.Assignment != d.config.Assignment {
			t.Errorf("the assignment tells of the secret: %v", err)
		}
		cfg.Secrets["certificateFrom"] = mappers.NewSecret([]byte{0xFF})
		if _, err := newDevice(w.Mapper("acme"), cfg); err == nil || !strings.Contains(err.Error(), "certificateFrom") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("bytes: %v", err)
		}
	})
}
