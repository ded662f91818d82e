package storetest

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// podsMemory is Memory's store.Pods. Its zero value is empty.
type podsMemory struct {
	mu   sync.Mutex
	rows map[string]store.PodState
}

func (m *podsMemory) PodStates(_ context.Context, f func(store.PodState) error) error {
	m.mu.Lock()
	rows := slices.Collect(maps.Values(m.rows))
	m.mu.Unlock()
	for _, p := range rows {
		p.JSON = bytes.Clone(p.JSON)
		if err := f(p); err != nil {
			return err
		}
	}
	return nil
}

func (m *podsMemory) SavePodStates(_ context.Context, put []store.PodState, drop []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows == nil {
		m.rows = map[string]store.PodState{}
	}
	for _, uid := range drop {
		delete(m.rows, uid)
	}
	for _, p := range put {
		p.JSON = bytes.Clone(p.JSON)
		m.rows[p.PodUID] = p
	}
	return nil
}

func podState(uid string, after time.Duration, json string) store.PodState {
	return store.PodState{PodUID: uid, Node: "gw-ä", Told: now.Add(after), JSON: []byte(json)}
}

func podStates(t *testing.T, s interface{ store.Pods }) (out []store.PodState) {
	t.Helper()
	must(t, s.PodStates(t.Context(), func(p store.PodState) error {
		out = append(out, p)
		return nil
	}))
	slices.SortFunc(out, func(a, b store.PodState) int { return cmp.Compare(a.PodUID, b.PodUID) })
	return out
}

func pods(t *testing.T, s *subject) {
	ctx := t.Context()
	wantSame(t, "at first", podStates(t, s), []store.PodState(nil))
	must(t, s.SavePodStates(ctx, nil, nil))
	a, b, c := podState("a", 0, `{"phase": "Running",  "message":"ü\n"}`), podState("b", time.Second, `{}`), podState("c", time.Minute, `{}`)
	must(t, s.SavePodStates(ctx, []store.PodState{c, a, b}, nil))
	s.reopen(t)
	wantSame(t, "stored", podStates(t, s), []store.PodState{a, b, c})
	a = podState("a", time.Hour, `{"phase":"Failed"}`)
	a.Node = "another"
	must(t, s.SavePodStates(ctx, []store.PodState{a}, []string{"b", "unknown"}))
	wantSame(t, "changed", podStates(t, s), []store.PodState{a, c})
	must(t, s.SavePodStates(ctx, []store.PodState{c}, []string{"c", "a"})) // what is put stays
	s.reopen(t)
	wantSame(t, "left", podStates(t, s), []store.PodState{c})
}
