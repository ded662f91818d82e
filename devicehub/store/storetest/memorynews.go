package storetest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// newsLocked takes what batches hold beside samples and gaps.
func (m *Memory) newsLocked(batches []store.Batch) {
	var events []store.Event
	var writes []store.Write
	var ends []store.WriteEnd
	var outcomes []store.WriteOutcome
	for _, b := range batches {
		events, writes, ends, outcomes = append(events, b.Events...), append(writes, b.Writes...), append(ends, b.Ends...), append(outcomes, b.Outcomes...)
	}
	m.writesLocked(writes, ends, outcomes)
	m.eventsLocked(events)
}

func (m *Memory) eventsLocked(events []store.Event) {
	for _, e := range store.FoldEvents(events) {
		e.First, e.Last, e.Recorded = micro(e.First), micro(e.Last), micro(e.Recorded)
		if was, ok := m.data.events[e.Key]; ok {
			was.Add(e)
			e = was
		}
		m.data.counted++
		e.Revision = m.data.counted
		m.data.events[e.Key] = e
	}
}

// AddEvents implements store.Events.
func (m *Memory) AddEvents(ctx context.Context, events []store.Event) error {
	return m.do(ctx, "AddEvents", func() error {
		m.eventsLocked(events)
		return nil
	})
}

func (m *Memory) sortedEventsLocked() (all []store.Event) {
	for _, e := range m.data.events {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b store.Event) int { return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(b.Key, a.Key)) })
	return all
}

// EventsPage implements store.Events.
func (m *Memory) EventsPage(ctx context.Context, q store.EventQuery) (out []store.Event, err error) {
	err = m.do(ctx, "EventsPage", func() error {
		for _, e := range m.sortedEventsLocked() {
			us := e.Last.UnixMicro()
			here := q.BeforeKey == "" || us < q.BeforeUS || us == q.BeforeUS && e.Key < q.BeforeKey
			if here && q.Matches(&e) && len(out) < q.Limit {
				out = append(out, e)
			}
		}
		return nil
	})
	return out, err
}

// EventsAfter implements store.Events.
func (m *Memory) EventsAfter(ctx context.Context, after int64, limit int) (out []store.Event, err error) {
	err = m.do(ctx, "EventsAfter", func() error {
		for _, e := range m.data.events {
			if e.Revision > after {
				out = append(out, e)
			}
		}
		slices.SortFunc(out, func(a, b store.Event) int { return cmp.Compare(a.Revision, b.Revision) })
		out = out[:min(len(out), limit)]
		return nil
	})
	return out, err
}

// EventsRevision implements store.Events.
func (m *Memory) EventsRevision(ctx context.Context) (revision int64, err error) {
	err = m.do(ctx, "EventsRevision", func() error {
		revision = m.data.counted
		return nil
	})
	return revision, err
}

// TrimEvents implements store.Events.
func (m *Memory) TrimEvents(ctx context.Context, b store.EventBounds) error {
	return m.do(ctx, "TrimEvents", func() error {
		for key, e := range m.data.events {
			if e.Recorded.Before(micro(b.Before)) {
				delete(m.data.events, key)
			}
		}
		ofObject := map[[4]string]int{}
		for i, e := range m.sortedEventsLocked() {
			object := [4]string{e.Kind, e.Namespace, e.Name, e.UID}
			if ofObject[object]++; ofObject[object] > b.PerObject || i >= b.Total {
				delete(m.data.events, e.Key)
			}
		}
		return nil
	})
}

func (m *Memory) writesLocked(writes []store.Write, ends []store.WriteEnd, outcomes []store.WriteOutcome) {
	all := m.data.writes
	for _, w := range writes {
		for _, t := range []*time.Time{&w.Asked, &w.Since, &w.Until, &w.Expires, &w.Sent, &w.Confirmed, &w.Ended} {
			if !t.IsZero() {
				*t = micro(*t)
			}
		}
		if have, ok := all[w.ID]; ok {
			have.Fill(w)
			w = have
		}
		all[w.ID] = w
	}
	for _, e := range ends {
		if w, ok := all[e.ID]; ok {
			e.At = micro(e.At)
			w.End(e)
			all[e.ID] = w
		}
	}
	for _, o := range outcomes {
		if w, ok := all[o.ID]; ok {
			if o.At = micro(o.At); !o.Sent.IsZero() {
				o.Sent = micro(o.Sent)
			}
			w.Settle(o)
			all[o.ID] = w
		}
	}
}

func (m *Memory) sortedWritesLocked() (all []store.Write) {
	for _, w := range m.data.writes {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b store.Write) int { return cmp.Compare(b.ID, a.ID) })
	return all
}

// WritesPage implements store.Writes.
func (m *Memory) WritesPage(ctx context.Context, q store.WriteQuery) (out []store.Write, err error) {
	err = m.do(ctx, "WritesPage", func() error {
		for _, w := range m.sortedWritesLocked() {
			if w.DeviceUID == q.DeviceUID && (q.Property == "" || w.Property == q.Property) && (q.State == "" || w.State == q.State) &&
				(q.Since.IsZero() || !w.Asked.Before(micro(q.Since))) && (q.Before == "" || w.ID < q.Before) && len(out) < q.Limit {
				out = append(out, w)
			}
		}
		return nil
	})
	return out, err
}

// DesiredAt implements store.Writes.
func (m *Memory) DesiredAt(ctx context.Context, deviceUID string, at time.Time) (out []store.Write, err error) {
	err = m.do(ctx, "DesiredAt", func() error {
		at = micro(at)
		for _, w := range m.data.writes {
			if w.DeviceUID == deviceUID && !w.Since.IsZero() && !w.Since.After(at) && (w.Until.IsZero() || w.Until.After(at)) {
				out = append(out, w)
			}
		}
		slices.SortFunc(out, func(a, b store.Write) int {
			return cmp.Or(cmp.Compare(a.Property, b.Property), cmp.Compare(a.Version, b.Version))
		})
		return nil
	})
	return out, err
}

// TrimWrites implements store.Writes.
func (m *Memory) TrimWrites(ctx context.Context, b store.WriteBounds) error {
	return m.do(ctx, "TrimWrites", func() error {
		before := micro(b.Before)
		for id, w := range m.data.writes {
			if w.Asked.Before(before) && w.Ended.Before(before) && (w.Since.IsZero() || !w.Until.IsZero() && w.Until.Before(before)) {
				delete(m.data.writes, id)
			}
		}
		n := map[[2]string]int{}
		for _, w := range m.sortedWritesLocked() {
			of := [2]string{w.DeviceUID, w.Property}
			if n[of]++; n[of] > b.PerProperty && (w.Since.IsZero() || !w.Until.IsZero()) {
				delete(m.data.writes, w.ID)
			}
		}
		return nil
	})
}

// Services implements store.Lives.
func (m *Memory) Services(ctx context.Context, deviceUID string) (out []store.Service, err error) {
	err = m.do(ctx, "Services", func() error {
		var keys []servedKey
		for key := range m.data.served {
			if key.uid == deviceUID {
				keys = append(keys, key)
			}
		}
		slices.SortFunc(keys, func(a, b servedKey) int {
			return cmp.Or(cmp.Compare(a.assignment, b.assignment), cmp.Compare(a.node, b.node))
		})
		for _, key := range keys {
			v := store.Service{NodeUID: key.node, Since: m.data.assigned[key.assignmentKey].Since}
			for _, a := range m.data.assigned {
				if a.DeviceUID == deviceUID && a.Assignment > key.assignment && (v.Till.IsZero() || a.Since.Before(v.Till)) {
					v.Till = a.Since
				}
			}
			out = append(out, v)
		}
		return nil
	})
	return out, err
}

// Properties implements store.Lives.
func (m *Memory) Properties(ctx context.Context, deviceUID string) (out []string, err error) {
	err = m.do(ctx, "Properties", func() error {
		for key := range m.data.series {
			if key.DeviceUID == deviceUID && !slices.Contains(out, key.Property) {
				out = append(out, key.Property)
			}
		}
		slices.Sort(out)
		return nil
	})
	return out, err
}

// DeletedDevices implements store.Lives.
func (m *Memory) DeletedDevices(ctx context.Context, namespace, name string) (out []store.DeletedDevice, err error) {
	err = m.do(ctx, "DeletedDevices", func() error {
		for _, d := range m.data.gone {
			if d.Namespace == namespace && d.Name == name {
				out = append(out, d)
			}
		}
		slices.SortFunc(out, func(a, b store.DeletedDevice) int {
			return cmp.Or(b.Deleted.Compare(a.Deleted), cmp.Compare(b.UID, a.UID))
		})
		return nil
	})
	return out, err
}

// ForgetDeleted implements store.Lives.
func (m *Memory) ForgetDeleted(ctx context.Context, before time.Time, limit int) (more bool, err error) {
	err = m.do(ctx, "ForgetDeleted", func() error {
		var all []store.DeletedDevice
		for _, d := range m.data.gone {
			if d.Deleted.Before(micro(before)) {
				all = append(all, d)
			}
		}
		slices.SortFunc(all, func(a, b store.DeletedDevice) int { return a.Deleted.Compare(b.Deleted) })
		more = len(all) >= limit
		for _, d := range all[:min(len(all), limit)] {
			for key, id := range m.data.series {
				if key.DeviceUID == d.UID {
					delete(m.data.samples, id)
				}
			}
			for id, w := range m.data.writes {
				if w.DeviceUID == d.UID {
					delete(m.data.writes, id)
				}
			}
			for key := range m.data.served {
				if key.uid == d.UID {
					delete(m.data.served, key)
				}
			}
			for key := range m.data.assigned {
				if key.uid == d.UID {
					delete(m.data.assigned, key)
				}
			}
			delete(m.data.gone, d.UID)
		}
		return nil
	})
	return more, err
}

// LastSamples implements store.History.
func (m *Memory) LastSamples(ctx context.Context, deviceUID string, properties []string, atUS int64) (map[string]store.Sample, error) {
	out := map[string]store.Sample{}
	for _, p := range properties {
		take := func(v store.Sample) error {
			if v.TimeUS <= atUS {
				out[p] = v
			}
			return nil
		}
		if err := m.Samples(ctx, deviceUID, p, -1<<63, 1<<63-1, take); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// LastSince implements store.History.
func (m *Memory) LastSince(ctx context.Context, since map[string]map[string]int64, atUS int64) (map[string]map[string]store.Sample, error) {
	out := map[string]map[string]store.Sample{}
	for uid, properties := range since {
		last, err := m.LastSamples(ctx, uid, slices.Collect(maps.Keys(properties)), atUS)
		if err != nil {
			return nil, err
		}
		if len(last) > 0 {
			out[uid] = last
		}
	}
	return out, nil
}
