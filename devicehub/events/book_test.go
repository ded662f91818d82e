package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var device = models.ObjectReference{Kind: "Device", Namespace: "default", Name: "boiler-1", UID: "u"}

func offline(at time.Time, message string) models.Occurrence {
	return models.Occurrence{Object: device, Severity: models.SeverityWarning, Reason: "DeviceOffline", Message: message, Source: "edge", Time: at}
}

// TestFlapping: what flaps for a day costs as many rows as there are windows in
// it, and the counts say how often.
func TestFlapping(t *testing.T) {
	day := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	var all []store.Event
	n := 0
	for at := day; at.Before(day.Add(24 * time.Hour)); at = at.Add(time.Duration(rand.IntN(5000)+1) * time.Millisecond) {
		all = append(all, Of(offline(at, fmt.Sprint("time ", n)), "n", day))
		n++
	}
	rows := store.FoldEvents(all)
	if want := int(24 * time.Hour / Window); len(rows) != want {
		t.Fatalf("%d rows of %d occurrences, want %d", len(rows), n, want)
	}
	total := int64(0)
	for _, r := range rows {
		total += r.Count
		if r.Last.Sub(r.First) > Window || r.First.Truncate(Window) != r.Last.Truncate(Window) {
			t.Errorf("a row from %s to %s", r.First, r.Last)
		}
	}
	if total != int64(n) {
		t.Errorf("%d counted, %d happened", total, n)
	}
}

func TestWhatIsAlike(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	base := Of(offline(at, "a"), "", at)
	if same := Of(offline(at.Add(time.Minute), "b"), "", at); same.Key != base.Key {
		t.Error("other words make another event")
	}
	different := map[string]models.Occurrence{"window": offline(at.Add(Window), "a")}
	for what, change := range map[string]func(*models.Occurrence){
		"reason": func(o *models.Occurrence) { o.Reason = "DeviceOnline" },
		"name":   func(o *models.Occurrence) { o.Object.Name = "boiler-2" },
		"uid":    func(o *models.Occurrence) { o.Object.UID = "v" },
		"field":  func(o *models.Occurrence) { o.Object.FieldPath = "setpoint" },
	} {
		o := offline(at, "a")
		change(&o)
		different[what] = o
	}
	for what, o := range different {
		if Of(o, "", at).Key == base.Key {
			t.Errorf("another %s makes no other event", what)
		}
	}
	odd := Of(models.Occurrence{Time: time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), Message: "a\x00\xff" + string(make([]byte, 5000))}, "", at)
	if !odd.Last.Equal(at) || len(odd.Message) > maxMessage || odd.Message[0] != 'a' {
		t.Errorf("odd one: %+v", odd)
	}
}

// TestStoreFails: what is raised while the store fails is stored afterwards, and
// watches see it only then.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := storetest.NewMemory()
		b := New(Config{Store: memory, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- b.Run(ctx) }()
		seen := make(chan models.EventChange, 100)
		go func() {
			done <- b.Watch(ctx, models.EventOptions{Kind: "Device"}, "", func(c models.EventChange) error {
				if c.Type != models.Bookmark {
					seen <- c
				}
				return nil
			})
		}()
		synctest.Wait()
		memory.Fault(func(step string) error {
			if step == "AddEvents" {
				return errors.New("injected")
			}
			return nil
		})
		for range 3 {
			b.Raise(offline(time.Time{}, "no answer"))
			time.Sleep(time.Second) //sleep: in a bubble
		}
		b.Raise(models.Occurrence{Object: models.ObjectReference{Kind: "Node", Name: "n"}, Reason: "NodeReady"})
		if len(seen) > 0 {
			t.Fatal("announced before it was stored")
		}
		memory.Fault(nil)
		time.Sleep(time.Minute) //sleep: in a bubble
		if c := <-seen; c.Event.Count != 3 || c.Type != models.Modified || len(seen) != 0 {
			t.Fatalf("seen %+v and %d more", c, len(seen))
		}
		b.Raise(offline(time.Time{}, "again"))
		cancel() // what is pending is stored still
		<-done
		<-done
		list, err := b.List(t.Context(), models.EventOptions{Name: "boiler-1", Limit: 10})
		if err != nil || len(list.Items) != 1 || list.Items[0].Count != 4 || list.Items[0].Message != "again" || list.ResourceVersion != "3" {
			t.Fatalf("list %+v, error %v", list, err)
		}
		if err := b.Watch(t.Context(), models.EventOptions{}, "99", nil); models.KindOf(err) != models.KindGone {
			t.Errorf("a watch from the future: %v", err)
		}
	})
}

// TestFull: what waits is bounded, and a flood of one thing does not fill it.
// TestNote: what is noted is stored when Note returns, without anybody who runs; what
// the store does not take then is raised.
func TestNote(t *testing.T) {
	s := storetest.NewMemory()
	b := New(Config{Store: s, Log: slog.New(slog.DiscardHandler)})
	stored := func() int {
		t.Helper()
		page, err := b.List(t.Context(), models.EventOptions{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Items)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel() // who asked has gone away
	b.Note(over, offline(time.Now(), "a"))
	if got := stored(); got != 1 {
		t.Fatalf("%d events are stored", got)
	}
	s.Fault(func(step string) error {
		if step == "AddEvents" {
			return errors.New("injected")
		}
		return nil
	})
	other := offline(time.Now(), "b")
	other.Reason = "Other"
	b.Note(t.Context(), other)
	s.Fault(nil)
	if got := stored(); got != 1 {
		t.Fatalf("%d events are stored", got)
	}
	if b.store(t.Context()); stored() != 2 {
		t.Fatal("what could not be noted is not stored later")
	}
}

func TestFull(t *testing.T) {
	b := New(Config{Store: storetest.NewMemory(), Log: slog.New(slog.DiscardHandler)})
	for range 10 * maxPending {
		b.Raise(offline(time.Time{}, "no answer"))
	}
	if len(b.pending) > 2 || b.dropped > 0 {
		t.Fatalf("%d pending, %d dropped", len(b.pending), b.dropped)
	}
	for i := range 2 * maxPending {
		b.Raise(models.Occurrence{Object: models.ObjectReference{Kind: "Device", Name: fmt.Sprint(i)}})
	}
	if len(b.pending) != maxPending || b.dropped < maxPending {
		t.Fatalf("%d pending, %d dropped", len(b.pending), b.dropped)
	}
	if !b.store(t.Context()) || b.dropped != 0 {
		t.Fatal("not stored")
	}
}

func TestPages(t *testing.T) {
	b := New(Config{Store: storetest.NewMemory(), Log: slog.New(slog.DiscardHandler)})
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for i := range 5 {
		b.Raise(offline(at.Add(time.Duration(i)*Window), fmt.Sprint(i)))
	}
	b.store(t.Context())
	var got string
	o := models.EventOptions{Limit: 2}
	for {
		list, err := b.List(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Items {
			got += e.Message
		}
		if o.Continue = list.Continue; o.Continue == "" {
			break
		}
		got += ","
	}
	if got != "43,21,0" {
		t.Errorf("pages %s", got)
	}
	for _, bad := range []string{"x", "1", "1.", ".k"} {
		if _, err := b.List(t.Context(), models.EventOptions{Limit: 1, Continue: bad}); models.KindOf(err) != models.KindMalformed {
			t.Errorf("continue %q: %v", bad, err)
		}
	}
}
