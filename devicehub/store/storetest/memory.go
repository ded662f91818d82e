package storetest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// Memory is a store.Store that keeps everything in memory, for tests that want
// a quick one. It passes the suite of this package, and it can be told to fail.
type Memory struct {
	routesMemory
	podsMemory
	mu      sync.Mutex
	closed  bool
	fault   func(step string) error
	lineage string
	data    data
	answers map[answerKey]answer
}

// data is what calls change as a whole or not at all.
type data struct {
	revision int64
	date     store.Date
	versions store.Versions
	objects  map[objectKey]store.Object
	desired  map[string]store.Desired
	twins    map[string][]byte
	epochs   map[string][]store.Epoch // by node uid, by rank
	series   map[store.SeriesKey]int64
	samples  map[int64][]numbered // by series
	count    int                  // of all samples
	gaps     []store.Gap
	audit    []store.AuditEntry
	counted  int64 // changes of events
	events   map[string]store.Event
	writes   map[string]store.Write
	assigned map[assignmentKey]store.Assignment
	served   map[servedKey]bool
	gone     map[string]store.DeletedDevice
}

type (
	objectKey struct{ kind, namespace, name string }
	answerKey struct{ caller, key string }

	assignmentKey struct {
		uid        string
		assignment uint64
	}
	servedKey struct {
		assignmentKey
		node string
	}
)

type numbered struct {
	store.Sample
	series int64 // set in what is read
	n      int   // in the order in which samples came
}

type answer struct {
	store.IdempotentAnswer
	created time.Time
}

var _ store.Store = (*Memory)(nil)

var errClosed = errors.New("storetest: the store is closed")

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{
		lineage: ulid.MustNew(ulid.Now(), rand.Reader).String(),
		answers: map[answerKey]answer{},
		data: data{
			objects: map[objectKey]store.Object{}, desired: map[string]store.Desired{}, twins: map[string][]byte{},
			epochs: map[string][]store.Epoch{}, series: map[store.SeriesKey]int64{}, samples: map[int64][]numbered{},
			events: map[string]store.Event{}, writes: map[string]store.Write{}, assigned: map[assignmentKey]store.Assignment{},
			served: map[servedKey]bool{}, gone: map[string]store.DeletedDevice{},
		},
	}
}

// Reopen returns the same database opened again, as after a restart.
func (m *Memory) Reopen() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = false
	return m
}

// Fault sets a function that every call asks at its steps, nil for none: the
// name of the method when the call begins, for example "Ingest", and that name
// with ":done" when what it changes is stored and the caller does not know yet,
// "Ingest:done". An error of f is the error of the call. f may block; no lock is
// held meanwhile.
func (m *Memory) Fault(f func(step string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

func (m *Memory) step(ctx context.Context, name string) error {
	m.mu.Lock()
	f, closed := m.fault, m.closed
	m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if closed {
		return errClosed
	}
	if f != nil {
		return f(name)
	}
	return nil
}

// do runs one call: f under the lock, between the call's steps.
func (m *Memory) do(ctx context.Context, name string, f func() error) error {
	if err := m.step(ctx, name); err != nil {
		return err
	}
	if err := m.locked(f); err != nil {
		return err
	}
	return m.step(context.WithoutCancel(ctx), name+":done")
}

func (m *Memory) locked(f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return f()
}

// Close implements store.Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// Lineage implements store.Meta.
func (m *Memory) Lineage(ctx context.Context) (string, error) {
	return m.lineage, m.step(ctx, "Lineage")
}

// Date implements store.Meta.
func (m *Memory) Date(ctx context.Context) (d store.Date, err error) {
	err = m.do(ctx, "Date", func() error { d = m.data.date; return nil })
	return d, err
}

// SetDate implements store.Meta.
func (m *Memory) SetDate(ctx context.Context, d store.Date) error {
	return m.do(ctx, "SetDate", func() error {
		m.data.date = store.Date{Time: micro(d.Time), Doubted: d.Doubted.Truncate(time.Microsecond)}
		return nil
	})
}

// Versions implements store.Meta.
func (m *Memory) Versions(ctx context.Context) (v store.Versions, err error) {
	err = m.do(ctx, "Versions", func() error { v = m.data.versions; return nil })
	return v, err
}

// SetVersions implements store.Meta.
func (m *Memory) SetVersions(ctx context.Context, v store.Versions) error {
	return m.do(ctx, "SetVersions", func() error { m.data.versions = v; return nil })
}

// Load implements store.Objects.
func (m *Memory) Load(ctx context.Context, object func(store.Object) error, desired func(store.Desired) error) (int64, error) {
	var revision int64
	var objects []store.Object
	var values []store.Desired
	err := m.do(ctx, "Load", func() error {
		revision = m.data.revision
		for _, o := range m.data.objects {
			o.JSON = slices.Clone(o.JSON)
			objects = append(objects, o)
		}
		for _, d := range m.data.desired {
			d.JSON = slices.Clone(d.JSON)
			values = append(values, d)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, o := range objects {
		if err := object(o); err != nil {
			return 0, err
		}
	}
	for _, d := range values {
		if err := desired(d); err != nil {
			return 0, err
		}
	}
	return revision, nil
}

// Commit implements store.Objects.
func (m *Memory) Commit(ctx context.Context, c store.Commit) error {
	return m.do(ctx, "Commit", func() error {
		d := &m.data
		if c.Revision <= d.revision {
			return store.ErrConflict
		}
		d.revision = c.Revision
		for _, o := range c.Put {
			o.JSON, o.Created = slices.Clone(o.JSON), micro(o.Created)
			d.objects[objectKey{o.Kind, o.Namespace, o.Name}] = o
		}
		for _, o := range c.Delete {
			key := objectKey{o.Kind, o.Namespace, o.Name}
			if d.objects[key].UID == o.UID {
				delete(d.objects, key)
			}
		}
		for _, v := range c.PutDesired {
			v.JSON = slices.Clone(v.JSON)
			d.desired[v.DeviceUID] = v
		}
		for _, uid := range c.DeletedDevices {
			delete(d.desired, uid)
			delete(d.twins, uid)
		}
		m.writesLocked(c.Writes, c.WriteEnds, nil)
		for _, a := range c.Assigned {
			a.Since = micro(a.Since)
			if key := (assignmentKey{a.DeviceUID, a.Assignment}); d.assigned[key].DeviceUID == "" {
				d.assigned[key] = a
			}
		}
		for _, g := range c.Gone {
			g.Deleted = micro(g.Deleted)
			if d.gone[g.UID].UID == "" {
				d.gone[g.UID] = g
			}
		}
		m.auditLocked(c.Audit)
		m.eventsLocked(c.Events)
		return nil
	})
}

func (m *Memory) auditLocked(entries []store.AuditEntry) {
	for _, e := range entries {
		e.ID, e.Time = int64(len(m.data.audit))+1, micro(e.Time)
		m.data.audit = append(m.data.audit, e)
	}
}

// AppendAudit implements store.Audit.
func (m *Memory) AppendAudit(ctx context.Context, entries []store.AuditEntry) error {
	return m.do(ctx, "AppendAudit", func() error {
		m.auditLocked(entries)
		return nil
	})
}

// AuditPage implements store.Audit.
func (m *Memory) AuditPage(ctx context.Context, q store.AuditQuery, before int64, limit int) (out []store.AuditEntry, err error) {
	err = m.do(ctx, "AuditPage", func() error {
		for _, e := range slices.Backward(m.data.audit) {
			if (before <= 0 || e.ID < before) && q.Match(e) && len(out) < limit {
				out = append(out, e)
			}
		}
		return nil
	})
	return out, err
}

// AuditAfter implements store.Audit.
func (m *Memory) AuditAfter(ctx context.Context, after int64, limit int) (out []store.AuditEntry, err error) {
	err = m.do(ctx, "AuditAfter", func() error {
		for _, e := range m.data.audit {
			if e.ID > after && len(out) < limit {
				out = append(out, e)
			}
		}
		return nil
	})
	return out, err
}

// micro is a time as the databases keep it.
func micro(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }

// LoadTwins implements store.Twins.
func (m *Memory) LoadTwins(ctx context.Context, f func(store.Checkpoint) error) error {
	var all []store.Checkpoint
	err := m.do(ctx, "LoadTwins", func() error {
		for uid, json := range m.data.twins {
			all = append(all, store.Checkpoint{DeviceUID: uid, JSON: slices.Clone(json)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range all {
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

// SaveTwins implements store.Twins.
func (m *Memory) SaveTwins(ctx context.Context, c []store.Checkpoint) error {
	return m.do(ctx, "SaveTwins", func() error {
		for i := range c {
			m.data.twins[c[i].DeviceUID] = slices.Clone(c[i].JSON)
		}
		return nil
	})
}

// Epochs implements store.Log.
func (m *Memory) Epochs(ctx context.Context, nodeUID string) (epochs []store.Epoch, err error) {
	err = m.do(ctx, "Epochs", func() error {
		epochs = slices.Clone(m.data.epochs[nodeUID])
		return nil
	})
	return epochs, err
}

// StartEpoch implements store.Log.
func (m *Memory) StartEpoch(ctx context.Context, nodeUID, epoch string, now time.Time) (e store.Epoch, err error) {
	err = m.do(ctx, "StartEpoch", func() error {
		known := m.data.epochs[nodeUID]
		for _, e = range known {
			if e.ID == epoch {
				return nil
			}
		}
		e = store.Epoch{NodeUID: nodeUID, ID: epoch, Rank: uint64(len(known)) + 1, Started: micro(now)}
		m.data.epochs[nodeUID] = append(known, e)
		return nil
	})
	if err != nil {
		return store.Epoch{}, err
	}
	return e, nil
}

// SeriesIDs implements store.Log.
func (m *Memory) SeriesIDs(ctx context.Context, keys []store.SeriesKey) (ids []int64, err error) {
	err = m.do(ctx, "SeriesIDs", func() error {
		for _, k := range keys {
			id, ok := m.data.series[k]
			if !ok {
				id = int64(len(m.data.series)) + 1
				m.data.series[k] = id
			}
			ids = append(ids, id)
		}
		return nil
	})
	return ids, err
}

// Ingest implements store.Log.
func (m *Memory) Ingest(ctx context.Context, batches []store.Batch) error {
	return m.do(ctx, "Ingest", func() error {
		// On a copy first: nothing may change when one of them does not fit.
		epochs := map[string][]store.Epoch{}
		for i := range batches {
			b := &batches[i]
			if epochs[b.NodeUID] == nil {
				epochs[b.NodeUID] = slices.Clone(m.data.epochs[b.NodeUID])
			}
			at := slices.IndexFunc(epochs[b.NodeUID], func(e store.Epoch) bool { return e.ID == b.Epoch })
			if at < 0 || b.After != epochs[b.NodeUID][at].Acked || b.Acked <= b.After {
				return fmt.Errorf("epoch %s is not acknowledged up to %d: %w", b.Epoch, b.After, store.ErrConflict)
			}
			epochs[b.NodeUID][at].Acked = b.Acked
		}
		maps.Copy(m.data.epochs, epochs)
		for i := range batches {
			m.addSamplesLocked(&batches[i])
			m.addGapsLocked(batches[i].Gaps)
			for _, v := range batches[i].Served {
				m.data.served[servedKey{assignmentKey{v.DeviceUID, v.Assignment}, batches[i].NodeUID}] = true
			}
		}
		m.newsLocked(batches)
		return nil
	})
}

func (m *Memory) addSamplesLocked(b *store.Batch) {
	s := &b.Samples
	for i, series := range s.Series {
		m.data.count++
		v := s.At(i)
		v.Backfill = b.Backfill
		m.data.samples[series] = append(m.data.samples[series], numbered{n: m.data.count, Sample: v})
	}
}

func (m *Memory) addGapsLocked(gaps []store.Gap) {
	for _, g := range gaps {
		g.Recorded = micro(g.Recorded)
		for _, t := range []*time.Time{&g.From, &g.To} {
			if !t.IsZero() {
				*t = micro(*t)
			}
		}
		m.data.gaps = append(m.data.gaps, g)
	}
}

// AddGaps implements store.Log.
func (m *Memory) AddGaps(ctx context.Context, gaps []store.Gap) error {
	return m.do(ctx, "AddGaps", func() error {
		m.addGapsLocked(gaps)
		return nil
	})
}

// Gaps implements store.Log.
func (m *Memory) Gaps(ctx context.Context, nodeUID string, f func(store.Gap) error) error {
	var found []store.Gap
	err := m.do(ctx, "Gaps", func() error {
		for _, g := range m.data.gaps {
			if g.NodeUID == nodeUID {
				found = append(found, g)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, g := range found {
		if err := f(g); err != nil {
			return err
		}
	}
	return nil
}

// Compact implements store.History: there is nothing to do.
func (m *Memory) Compact(ctx context.Context, _ time.Time) (more bool, err error) {
	return false, m.step(ctx, "Compact")
}

// Expire implements store.History.
func (m *Memory) Expire(ctx context.Context, rules []store.Retention, _ time.Time) error {
	return m.do(ctx, "Expire", func() error {
		for _, r := range rules {
			byProperty := map[string][]int64{}
			for key, id := range m.data.series {
				if key.DeviceUID == r.DeviceUID {
					for _, s := range m.data.samples[id] {
						byProperty[key.Property] = append(byProperty[key.Property], s.TimeUS)
					}
				}
			}
			for key, id := range m.data.series {
				if key.DeviceUID != r.DeviceUID {
					continue
				}
				times := byProperty[key.Property]
				slices.Sort(times)
				before := r.BeforeUS
				if n := int64(len(times)); r.Keep >= n {
					continue
				} else if r.Keep > 0 {
					before = min(before, times[n-r.Keep])
				}
				m.data.samples[id] = slices.DeleteFunc(m.data.samples[id], func(s numbered) bool { return s.TimeUS < before })
			}
		}
		return nil
	})
}

// Samples implements store.History.
func (m *Memory) Samples(ctx context.Context, deviceUID, property string, fromUS, toUS int64, f func(store.Sample) error) error {
	var found []numbered
	err := m.do(ctx, "Samples", func() error {
		for key, id := range m.data.series {
			if key.DeviceUID != deviceUID || key.Property != property {
				continue
			}
			for _, s := range m.data.samples[id] {
				if s.TimeUS >= fromUS && s.TimeUS < toUS {
					s.series = id
					found = append(found, s)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b numbered) int {
		return cmp.Or(cmp.Compare(a.TimeUS, b.TimeUS), cmp.Compare(a.series, b.series), cmp.Compare(a.n, b.n))
	})
	for _, s := range found {
		if err := f(s.Sample); err != nil {
			return err
		}
	}
	return nil
}

// ReserveKey implements store.Idempotency.
func (m *Memory) ReserveKey(ctx context.Context, caller, key, fingerprint string, now time.Time, maxAge time.Duration) (a store.IdempotentAnswer, err error) {
	err = m.do(ctx, "ReserveKey", func() error {
		k := answerKey{caller, key}
		if have, ok := m.answers[k]; ok && !have.created.Before(micro(now.Add(-maxAge))) {
			a = have.IdempotentAnswer
			a.Body = slices.Clone(a.Body)
			return store.ErrConflict
		}
		m.answers[k] = answer{IdempotentAnswer: store.IdempotentAnswer{Fingerprint: fingerprint}, created: micro(now)}
		return nil
	})
	return a, err
}

// AnswerKey implements store.Idempotency.
func (m *Memory) AnswerKey(ctx context.Context, caller, key string, a store.IdempotentAnswer) error {
	return m.do(ctx, "AnswerKey", func() error {
		k := answerKey{caller, key}
		have, ok := m.answers[k]
		switch {
		case a.Status == 0:
			delete(m.answers, k)
		case ok:
			have.Status, have.Head, have.Body = a.Status, a.Head, slices.Clone(a.Body)
			m.answers[k] = have
		}
		return nil
	})
}

// Rollups implements store.History, without any.
func (m *Memory) Rollups(ctx context.Context, deviceUID, property string, fromUS, toUS, _ int64, sample func(store.Sample) error, _ func(*store.Rollup) error) error {
	return m.Samples(ctx, deviceUID, property, fromUS, toUS, sample)
}
