package storetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// routesMemory is Memory's store.Routes. Its zero value is empty.
type routesMemory struct {
	mu     sync.Mutex
	last   int64
	rows   []store.RoutedMessage // by id
	totals map[[2]string]store.RouteTotal
	specs  map[string]rememberedSpec
}

type rememberedSpec struct {
	spec []byte
	at   time.Time
}

func ownBytes(m store.RoutedMessage) store.RoutedMessage {
	m.Payload, m.To = bytes.Clone(m.Payload), bytes.Clone(m.To)
	m.Accepted, m.Deadline = m.Accepted.UTC(), m.Deadline.UTC()
	return m
}

func (s *routesMemory) AddRouted(_ context.Context, ms []store.RoutedMessage) (added []store.RoutedMessage, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range ms {
		if slices.ContainsFunc(s.rows, func(o store.RoutedMessage) bool { return o.Key == m.Key && o.Target == m.Target }) {
			continue
		}
		s.last++
		m.ID = s.last
		s.rows = append(s.rows, ownBytes(m))
		added = append(added, m)
	}
	return added, nil
}

func (s *routesMemory) Routed(_ context.Context, q store.RoutedQuery) (out []store.RoutedMessage, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.rows {
		if m.ID > q.After && m.Dead == q.Dead && (q.Target == "" || m.Target == q.Target) && (q.Route == "" || m.Route == q.Route) && (q.Overdue.IsZero() || !m.Deadline.After(q.Overdue)) && len(out) < q.Limit {
			out = append(out, ownBytes(m))
		}
	}
	return out, nil
}

func (s *routesMemory) SettleRouted(_ context.Context, outcomes []store.RoutedOutcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range outcomes {
		i := slices.IndexFunc(s.rows, func(m store.RoutedMessage) bool { return m.ID == o.ID && !m.Dead })
		if i < 0 {
			continue
		}
		m := &s.rows[i]
		key := [2]string{m.Route, "hub"}
		t := s.totals[key]
		t.Route, t.Place = m.Route, "hub"
		switch {
		case o.Handed:
			s.rows = slices.Delete(s.rows, i, i+1)
			continue
		case o.Delivered:
			s.rows = slices.Delete(s.rows, i, i+1)
			t.Delivered++
		case o.Dead:
			m.Dead, m.Died, m.Attempts, m.Error = true, o.At.UTC(), o.Attempts, o.Error
			t.Failed++
		default:
			m.Attempts, m.Error = o.Attempts, o.Error
		}
		if o.Error != "" {
			t.LastError, t.LastAt = o.Error, o.At.UTC()
		}
		s.setTotal(t)
	}
	return nil
}

func (s *routesMemory) setTotal(t store.RouteTotal) {
	if s.totals == nil {
		s.totals = map[[2]string]store.RouteTotal{}
	}
	s.totals[[2]string{t.Route, t.Place}] = t
}

// takeDead removes dead letters.
func (s *routesMemory) takeDead(route string, ids []int64) (out []store.RoutedMessage) {
	s.rows = slices.DeleteFunc(s.rows, func(m store.RoutedMessage) bool {
		if m.Route != route || !m.Dead || ids != nil && !slices.Contains(ids, m.ID) {
			return false
		}
		out = append(out, m)
		return true
	})
	return out
}

func (s *routesMemory) ReviveRouted(_ context.Context, route string, ids []int64, now time.Time) ([]store.RoutedMessage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.takeDead(route, ids)
	for i := range out {
		m := &out[i]
		s.last++
		m.ID, m.Dead, m.Died, m.Attempts, m.Error, m.Deadline = s.last, false, time.Time{}, 0, "", now.Add(m.TTL).UTC()
		s.rows = append(s.rows, ownBytes(*m))
	}
	return out, nil
}

func (s *routesMemory) DropRouted(_ context.Context, route string, ids []int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.takeDead(route, ids)), nil
}

func (s *routesMemory) RouteTotals(_ context.Context, f func(store.RouteTotal) error) error {
	s.mu.Lock()
	var all []store.RouteTotal
	for _, t := range s.totals {
		all = append(all, t)
	}
	s.mu.Unlock()
	for _, t := range all {
		if err := f(t); err != nil {
			return err
		}
	}
	return nil
}

func (s *routesMemory) SetRouteTotals(_ context.Context, totals []store.RouteTotal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range totals {
		s.setTotal(t)
	}
	return nil
}

func (s *routesMemory) ForgetRoute(_ context.Context, route string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeDead(route, nil)
	for key := range s.totals {
		if key[0] == route {
			delete(s.totals, key)
		}
	}
	return nil
}

func (s *routesMemory) RouteSpec(_ context.Context, route string, generation int64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.specs[fmt.Sprint(route, generation)]
	if !ok {
		return nil, store.ErrNotFound
	}
	return bytes.Clone(r.spec), nil
}

func (s *routesMemory) SetRouteSpec(_ context.Context, route string, generation int64, spec []byte, now time.Time, keep time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.specs == nil {
		s.specs = map[string]rememberedSpec{}
	}
	key := fmt.Sprint(route, generation)
	if old, ok := s.specs[key]; ok {
		spec = old.spec
	}
	s.specs[key] = rememberedSpec{bytes.Clone(spec), now}
	for k, r := range s.specs {
		if r.at.Before(now.Add(-keep)) {
			delete(s.specs, k)
		}
	}
	return nil
}
