package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

func eventOf(key, name string, at time.Duration) store.Event {
	return store.Event{Key: key, Kind: "Device", Namespace: "plant", Name: name, UID: "uid-of-" + name, Reason: "DeviceOffline", Message: "größe " + key,
		Source: "edge", Node: "n", Warning: true, First: now.Add(at), Last: now.Add(at), Count: 1, Recorded: now.Add(time.Hour)}
}

func withRevision(e store.Event, revision int64) store.Event {
	e.Revision = revision
	return e
}

func events(t *testing.T, s *subject) {
	ctx := t.Context()
	a, b, c := eventOf("ka", "a", 0), eventOf("kb", "b", time.Second), eventOf("kc", "c", 2*time.Second)
	c.Kind, c.Namespace, c.Warning, c.Reason = "Node", "", false, "NodeReady"
	must(t, s.Commit(ctx, store.Commit{Revision: 1, Events: []store.Event{b, a}}))
	must(t, s.AddEvents(ctx, nil))
	again := eventOf("ka", "a", -time.Second) // told later, of before
	again.Message, again.Count, again.Recorded = "older words", 2, now.Add(2*time.Hour)
	later := eventOf("ka", "a", time.Minute)
	later.Message, later.Warning = "newest words", false
	_, err := s.StartEpoch(ctx, "n", "e", now)
	must(t, err)
	must(t, s.Ingest(ctx, []store.Batch{
		{NodeUID: "n", Epoch: "e", Acked: 1, Received: now, Events: []store.Event{again, c}},
		{NodeUID: "n", Epoch: "e", After: 1, Acked: 2, Received: now, Events: []store.Event{later}},
	}))
	wantErr(t, "resend", s.Ingest(ctx, []store.Batch{{NodeUID: "n", Epoch: "e", Acked: 1, Received: now, Events: []store.Event{c}}}), store.ErrConflict)
	// With a change of objects they are stored, or not, as it is.
	wantErr(t, "conflict", s.Commit(ctx, store.Commit{Revision: 0, Events: []store.Event{eventOf("kd", "d", 0)}}), store.ErrConflict)
	s.reopen(t)
	one := withRevision(later, 3)
	one.First, one.Count, one.Recorded = now.Add(-time.Second), 4, later.Recorded
	all := []store.Event{one, withRevision(c, 4), withRevision(b, 2)}
	page := func(q store.EventQuery) []store.Event {
		t.Helper()
		if q.Limit == 0 {
			q.Limit = 100
		}
		out, err := s.EventsPage(ctx, q)
		must(t, err)
		return out
	}
	wantSame(t, "all", page(store.EventQuery{}), all)
	wantSame(t, "first page", page(store.EventQuery{Limit: 2}), all[:2])
	wantSame(t, "second page", page(store.EventQuery{Limit: 2, BeforeUS: c.Last.UnixMicro(), BeforeKey: "kc"}), all[2:])
	no := false
	for what, q := range map[string]store.EventQuery{
		"kind": {Kind: "Node"}, "name": {Name: "b"}, "uid": {UID: "uid-of-a"}, "reason": {Reason: "NodeReady"}, "warning": {Warning: &no},
		"since": {Since: now.Add(2 * time.Second)}, "namespace": {Namespaces: []string{""}}, "namespaces": {Namespaces: []string{"", "plant"}},
		"hidden": {HideKinds: []string{"Node", "x"}}, "none": {Name: "nobody"},
	} {
		want := slices.DeleteFunc(slices.Clone(all), func(e store.Event) bool { return !q.Matches(&e) })
		if got := page(q); len(want) == len(all) != (what == "namespaces") || len(want) == 0 != (what == "none") {
			t.Errorf("%s chooses %d of %d", what, len(want), len(all))
		} else {
			wantSame(t, what, got, want)
		}
	}
	after := func(revision int64, limit int) []store.Event {
		t.Helper()
		out, err := s.EventsAfter(ctx, revision, limit)
		must(t, err)
		return out
	}
	wantSame(t, "after 0", after(0, 100), []store.Event{all[2], all[0], all[1]})
	wantSame(t, "after 2", after(2, 1), []store.Event{all[0]})
	if revision, err := s.EventsRevision(ctx); err != nil || revision != 4 {
		t.Fatalf("revision %d, error %v", revision, err)
	}
	repair := s.db.Break(t, "events")
	if err := s.Ingest(ctx, []store.Batch{{NodeUID: "n", Epoch: "e", After: 2, Acked: 3, Received: now, Events: []store.Event{eventOf("kd", "d", 0)}}}); err == nil {
		t.Fatal("an ingest succeeded with its table broken")
	}
	repair()
	if e := readEpochs(t, s.Store, "n"); e[0].Acked != 2 {
		t.Fatalf("acknowledged up to %d", e[0].Acked)
	}
}

func eventsTrimmed(t *testing.T, s *subject) {
	ctx := t.Context()
	for i := range 10 {
		e := eventOf(fmt.Sprint("k", i), fmt.Sprint("d", i%2), time.Duration(i)*time.Second)
		if e.Recorded = now; i == 9 {
			e.Recorded = now.Add(-time.Hour)
		}
		must(t, s.AddEvents(ctx, []store.Event{e}))
	}
	left := func() (keys []string) {
		t.Helper()
		out, err := s.EventsPage(ctx, store.EventQuery{Limit: 100})
		must(t, err)
		for _, e := range out {
			keys = append(keys, e.Key)
		}
		return keys
	}
	must(t, s.TrimEvents(ctx, store.EventBounds{Before: now, PerObject: 100, Total: 100}))
	wantSame(t, "by age", left(), []string{"k8", "k7", "k6", "k5", "k4", "k3", "k2", "k1", "k0"})
	must(t, s.TrimEvents(ctx, store.EventBounds{PerObject: 3, Total: 100}))
	wantSame(t, "by object", left(), []string{"k8", "k7", "k6", "k5", "k4", "k3"})
	must(t, s.TrimEvents(ctx, store.EventBounds{PerObject: 3, Total: 2}))
	wantSame(t, "by all", left(), []string{"k8", "k7"})
	if revision, err := s.EventsRevision(ctx); err != nil || revision != 10 {
		t.Fatalf("revision %d, error %v", revision, err)
	}
}

// eventsFollowed: who follows by revisions misses nothing, however many write.
func eventsFollowed(t *testing.T, s *subject) {
	ctx := t.Context()
	const writers, each = 4, 25
	done := make(chan error, writers)
	for w := range writers {
		go func() { // ends with its events
			var err error
			for i := range each {
				if e := s.AddEvents(ctx, []store.Event{eventOf(fmt.Sprintf("%d-%d", w, i), "d", 0), eventOf("shared", "d", 0)}); e != nil {
					err = e
				}
			}
			done <- err
		}()
	}
	seen, at, running := map[string]int64{}, int64(0), writers
	for running > 0 || at < 2*writers*each {
		select {
		case err := <-done:
			must(t, err)
			running--
		default:
		}
		page, err := s.EventsAfter(ctx, at, 7)
		must(t, err)
		for _, e := range page {
			if e.Revision <= at {
				t.Fatalf("revision %d after %d", e.Revision, at)
			}
			at, seen[e.Key] = e.Revision, e.Count
		}
	}
	if len(seen) != writers*each+1 || seen["shared"] != writers*each {
		t.Fatalf("%d events, %d shared ones", len(seen), seen["shared"])
	}
}

func writeOf(id, property, value string) store.Write {
	return store.Write{ID: id, DeviceUID: "d", Property: property, Value: value, Version: 1, By: "anna", Origin: "cloud", Reason: "größe", Trace: "00-1",
		Before: `{"value":1}`, Asked: now, Since: now, State: "pending"}
}

func writes(t *testing.T, s *subject) {
	ctx := t.Context()
	must(t, s.Commit(ctx, store.Commit{Revision: 1, Writes: []store.Write{writeOf("1", "a", "1"), writeOf("2", "b", "2")}}))
	second := writeOf("3", "a", "3")
	second.Since, second.Version, second.Expires = now.Add(time.Second), 2, now.Add(time.Minute)
	must(t, s.Commit(ctx, store.Commit{Revision: 2, Writes: []store.Write{second},
		WriteEnds: []store.WriteEnd{{ID: "1", At: now.Add(time.Second), SupersededBy: "3", State: "superseded"}, {ID: "nobody", At: now}}}))
	_, err := s.StartEpoch(ctx, "n", "e", now)
	must(t, err)
	asked := writeOf("4", "c", "4")
	asked.Since, asked.Version = time.Time{}, 0
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	must(t, s.Ingest(ctx, []store.Batch{{NodeUID: "n", Epoch: "e", Acked: 1, Received: now, Writes: []store.Write{asked}, Outcomes: []store.WriteOutcome{
		{ID: "1", DeviceUID: "d", State: "applied", Final: true, Applied: true, Sent: at(2), At: at(3)},
		{ID: "2", DeviceUID: "another", State: "applied", Final: true, Applied: true, At: at(3)},
		{ID: "3", DeviceUID: "d", State: "pending", Error: "no answer", Sent: at(4), At: at(5)},
		{ID: "nobody", DeviceUID: "d", State: "applied", Final: true},
	}, Ends: []store.WriteEnd{{ID: "4", At: at(9), SupersededBy: "3", State: "superseded", Error: "overridden"}}}}))
	s.reopen(t)
	first, other := writeOf("1", "a", "1"), writeOf("2", "b", "2")
	first.Until, first.SupersededBy = at(1), "3"
	first.State, first.Sent, first.Confirmed, first.Ended, first.Settled = "applied", at(2), at(3), at(3), store.SettledByEdge
	second.Error, second.Sent = "no answer", at(4)
	asked.State, asked.Error, asked.Ended, asked.SupersededBy, asked.Settled = "superseded", "overridden", at(9), "3", store.SettledByHub
	page := func(q store.WriteQuery) []store.Write {
		t.Helper()
		if q.DeviceUID = "d"; q.Limit == 0 {
			q.Limit = 100
		}
		out, err := s.WritesPage(ctx, q)
		must(t, err)
		return out
	}
	wantSame(t, "all", page(store.WriteQuery{}), []store.Write{asked, second, other, first})
	wantSame(t, "page", page(store.WriteQuery{Limit: 2, Before: "4"}), []store.Write{second, other})
	wantSame(t, "of a property", page(store.WriteQuery{Property: "a"}), []store.Write{second, first})
	wantSame(t, "of a state", page(store.WriteQuery{State: "pending"}), []store.Write{second, other})
	wantSame(t, "since", page(store.WriteQuery{Since: at(1)}), []store.Write(nil))
	for seconds, want := range map[int][]store.Write{-1: nil, 0: {first, other}, 1: {second, other}} {
		have, err := s.DesiredAt(ctx, "d", at(seconds))
		must(t, err)
		wantSame(t, fmt.Sprint("desired at ", seconds), have, want)
	}
	must(t, s.TrimWrites(ctx, store.WriteBounds{Before: at(4), PerProperty: 100}))
	wantSame(t, "trimmed by age", page(store.WriteQuery{}), []store.Write{asked, second, other})
	must(t, s.TrimWrites(ctx, store.WriteBounds{PerProperty: 0}))
	wantSame(t, "trimmed by number", page(store.WriteQuery{}), []store.Write{second, other})
}

// writesSettle compares the engines' rules with those of package store.
func writesSettle(t *testing.T, s *subject) {
	ctx := t.Context()
	_, err := s.StartEpoch(ctx, "n", "e", now)
	must(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	model := map[string]store.Write{}
	states := []string{"pending", "applied", "failed", "superseded", "expired", "unknown"}
	for i := range 150 {
		id := fmt.Sprint("w", r.IntN(6))
		at := now.Add(time.Duration(i) * time.Second)
		b := store.Batch{NodeUID: "n", Epoch: "e", After: uint64(i), Acked: uint64(i) + 1, Received: now}
		have, there := model[id]
		switch r.IntN(4) {
		case 0:
			w := writeOf(id, "p", "1")
			if w.Asked = at; r.IntN(2) == 0 {
				w.Since, w.By, w.Before, w.Version = time.Time{}, "", "", 0
			}
			if w.Expires = at; r.IntN(2) == 0 {
				w.Expires = time.Time{}
			}
			if b.Writes = []store.Write{w}; there {
				have.Fill(w)
			} else {
				have = w
			}
			model[id] = have
		case 1:
			e := store.WriteEnd{ID: id, At: at, State: states[3+r.IntN(2)], SupersededBy: []string{"", "x", "y"}[r.IntN(3)]}
			if b.Ends = []store.WriteEnd{e}; there {
				have.End(e)
				model[id] = have
			}
		default:
			n := r.IntN(len(states))
			o := store.WriteOutcome{ID: id, DeviceUID: "d", State: states[n], Final: n > 0, Applied: n == 1, Late: r.IntN(4) == 0, Refused: r.IntN(4) == 0,
				Error: fmt.Sprint("e", r.IntN(3)), At: at}
			if r.IntN(2) == 0 {
				o.Sent = at.Add(-time.Second)
			}
			if b.Outcomes = []store.WriteOutcome{o}; there {
				have.Settle(o)
				model[id] = have
			}
		}
		must(t, s.Ingest(ctx, []store.Batch{b}))
		if w, ok := model[id]; ok {
			page, err := s.WritesPage(ctx, store.WriteQuery{DeviceUID: "d", Limit: 100})
			must(t, err)
			at := slices.IndexFunc(page, func(w store.Write) bool { return w.ID == id })
			if at < 0 {
				t.Fatalf("step %d: %s is not there", i, id)
			}
			wantSame(t, fmt.Sprint("step ", i), page[at], w)
		}
	}
}

func lives(t *testing.T, s *subject) {
	ctx := t.Context()
	at := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	must(t, s.Commit(ctx, store.Commit{Revision: 1, Assigned: []store.Assignment{{DeviceUID: "d", Assignment: 1, Since: at(0)}, {DeviceUID: "d", Assignment: 2, Since: at(1)}}}))
	must(t, s.Commit(ctx, store.Commit{Revision: 2, Assigned: []store.Assignment{{DeviceUID: "d", Assignment: 3, Since: at(2)}, {DeviceUID: "d", Assignment: 1, Since: at(9)}}}))
	for _, node := range []string{"n1", "n2"} {
		_, err := s.StartEpoch(ctx, node, "e", now)
		must(t, err)
	}
	must(t, s.Ingest(ctx, []store.Batch{{NodeUID: "n1", Epoch: "e", Acked: 1, Received: now, Served: []store.Served{{DeviceUID: "d", Assignment: 1}, {DeviceUID: "d", Assignment: 3}, {DeviceUID: "o", Assignment: 7}}}}))
	must(t, s.Ingest(ctx, []store.Batch{{NodeUID: "n2", Epoch: "e", Acked: 1, Received: now, Served: []store.Served{{DeviceUID: "d", Assignment: 2}, {DeviceUID: "d", Assignment: 2}}}}))
	s.reopen(t)
	services := func(uid string) []store.Service {
		t.Helper()
		out, err := s.Services(ctx, uid)
		must(t, err)
		return out
	}
	wantSame(t, "services", services("d"), []store.Service{{NodeUID: "n1", Since: at(0), Till: at(1)}, {NodeUID: "n2", Since: at(1), Till: at(2)}, {NodeUID: "n1", Since: at(2)}})
	wantSame(t, "of an assignment that is not recorded", services("o"), []store.Service{{NodeUID: "n1"}})

	ids, err := s.SeriesIDs(ctx, []store.SeriesKey{keyOf("d", 1, "p"), keyOf("kept", 1, "p")})
	must(t, err)
	b := store.Batch{NodeUID: "n1", Epoch: "e", After: 1, Acked: 2, Received: now}
	for _, id := range ids {
		Add(&b.Samples, id, intSample(now.UnixMicro(), 7))
	}
	must(t, s.Ingest(ctx, []store.Batch{b}))
	compact(t, s.Store, now)
	gone := []store.DeletedDevice{{UID: "d", Namespace: "plant", Name: "a", Deleted: at(1)}, {UID: "o", Namespace: "plant", Name: "a", Deleted: at(2)}, {UID: "q", Namespace: "plant", Name: "b", Deleted: at(3)}}
	must(t, s.Commit(ctx, store.Commit{Revision: 3, Gone: gone, Writes: []store.Write{writeOf("1", "p", "1")}}))
	deleted := func() []store.DeletedDevice {
		t.Helper()
		out, err := s.DeletedDevices(ctx, "plant", "a")
		must(t, err)
		return out
	}
	wantSame(t, "deleted", deleted(), []store.DeletedDevice{gone[1], gone[0]})
	more, err := s.ForgetDeleted(ctx, at(1), 1)
	if must(t, err); more {
		t.Error("there are more devices to forget than there are")
	}
	wantSame(t, "deleted yet", len(deleted()), 2)
	if more, err = s.ForgetDeleted(ctx, at(3), 1); err != nil || !more {
		t.Fatalf("more %v, error %v", more, err)
	}
	wantSame(t, "left", deleted(), gone[1:2])
	wantSame(t, "forgotten samples", readSamples(t, s.Store, "d", "p", -everything, everything), []store.Sample(nil))
	wantSame(t, "kept samples", len(readSamples(t, s.Store, "kept", "p", -everything, everything)), 1)
	wantSame(t, "forgotten services", services("d"), []store.Service(nil))
	page, err := s.WritesPage(ctx, store.WriteQuery{DeviceUID: "d", Limit: 9})
	must(t, err)
	wantSame(t, "forgotten writes", page, []store.Write(nil))
}

// lastSamples compares with a search through all samples, over the borders of
// what stores keep together.
func lastSamples(t *testing.T, s *subject) {
	ctx := t.Context()
	_, err := s.StartEpoch(ctx, "n", "e", now)
	must(t, err)
	r := rand.New(rand.NewPCG(3, 4))
	const week = int64(7 * 24 * 3600 * 1_000_000)
	origin := now.UnixMicro() / week * week
	names := []string{"a", "b", "c", "d", "none"}
	var keys []store.SeriesKey
	for i, name := range names[:4] {
		for a := range i%2 + 1 { // some were served under two assignments
			keys = append(keys, keyOf("d", uint64(a+1), name))
		}
	}
	ids, err := s.SeriesIDs(ctx, keys)
	must(t, err)
	all := map[string][]int64{}
	for round := range 12 {
		b := store.Batch{NodeUID: "n", Epoch: "e", After: uint64(round), Acked: uint64(round) + 1, Received: now, Backfill: r.IntN(3) == 0}
		for range 60 {
			i := r.IntN(len(keys))
			us := origin + r.Int64N(6*week) - 3*week
			if r.IntN(3) == 0 {
				us = origin + r.Int64N(5) // many at one time, at the border of two periods
			} else if r.IntN(20) == 0 {
				us = -r.Int64N(1 << 60)
			}
			v := intSample(us, r.Int64())
			if r.IntN(4) == 0 {
				v = store.Sample{TimeUS: us, Quality: 2, Reason: "timeout"}
			}
			Add(&b.Samples, ids[i], v)
			all[keys[i].Property] = append(all[keys[i].Property], us)
		}
		must(t, s.Ingest(ctx, []store.Batch{b}))
		if round%3 == 1 {
			compact(t, s.Store, now)
		}
	}
	times := []int64{-everything - 1, everything, origin, origin - 1, origin + week}
	for _, of := range all {
		for range 10 {
			times = append(times, of[r.IntN(len(of))], of[r.IntN(len(of))]-1)
		}
	}
	for _, at := range times {
		want := map[string]store.Sample{}
		for _, name := range names {
			must(t, s.Samples(ctx, "d", name, -everything-1, everything, func(v store.Sample) error {
				if v.TimeUS <= at {
					want[name] = v
				}
				return nil
			}))
		}
		have, err := s.LastSamples(ctx, "d", names, at)
		must(t, err)
		wantSame(t, fmt.Sprint("at ", at), have, want)
		// Of many devices, those that are later than something; others may be there, too.
		since := map[string]map[string]int64{"nobody": {names[0]: 0}, "d": {}}
		for _, name := range names {
			since["d"][name] = times[r.IntN(len(times))]
		}
		of, err := s.LastSince(ctx, since, at)
		must(t, err)
		for _, name := range names {
			v, there := of["d"][name]
			if last, is := want[name]; is && (there || last.TimeUS > since["d"][name]) {
				wantSame(t, fmt.Sprintf("%s since %d at %d", name, since["d"][name], at), v, last)
			} else if there {
				t.Errorf("%s at %d: %v where there is nothing", name, at, v)
			}
		}
		if len(of["nobody"]) > 0 {
			t.Errorf("of nobody: %v", of["nobody"])
		}
	}
	have, err := s.LastSamples(ctx, "nobody", names, everything)
	must(t, err)
	wantSame(t, "of nobody", have, map[string]store.Sample{})
}
