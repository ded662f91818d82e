package opcuasim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/opcua"
	"github.com/whimbrel-edge/whimbrel/protocols/recording"
	"github.com/whimbrel-edge/whimbrel/simulators/replay"
)

// player shows what a recorded server did.
type player struct {
	*replay.Player
	nodes map[string]*node // by the recorded name

	showing sync.Mutex // held while events happen, of either the time or Seek
}

// NewReplay makes a simulator that plays a recording: it has the recorded nodes,
// which change as they did, with their status codes and source timestamps, in the
// recording's time. It is as silent, and as absent, as the server was. What
// clients write is noted (Writes), answered with the status that was recorded of
// the node's last write, and changes nothing. It asks for no security and no user.
func NewReplay(rec *recording.Recording, o replay.Options) (*Server, error) {
	var addresses []address
	seen := map[string]bool{}
	first := map[string]recording.Value{} // that holds a value, if any does
	add := func(v recording.Value) error {
		if !seen[v.Node] {
			ref, err := opcua.ParseRef(v.Node)
			if err != nil {
				return fmt.Errorf("opcuasim: %s: %w", rec.Device, err)
			}
			seen[v.Node] = true
			addresses = append(addresses, address{Node: v.Node, ref: ref})
		}
		if f, any := first[v.Node]; !any || f.Type == "" {
			first[v.Node] = v
		}
		return nil
	}
	for _, e := range rec.Events {
		for _, v := range e.Values {
			if err := add(v); err != nil {
				return nil, err
			}
		}
		for _, w := range e.Writes {
			if err := add(w.Value); err != nil {
				return nil, err
			}
		}
	}
	cfg := Config{Name: rec.Device, Listen: o.Listen, Namespaces: tableOf(addresses)}
	known := namespaces(cfg)
	for _, a := range addresses {
		if a.ref.In(known).Namespace() == 0 {
			continue // the specification's own: the server has it
		}
		cfg.Nodes = append(cfg.Nodes, Node{Name: a.Node, Node: a.Node, Type: "String", Value: ""})
	}
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	p := &player{nodes: map[string]*node{}}
	if p.Player, err = replay.New(rec, o, func([]byte) string { return "" }); err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		n.signal, n.replayed, n.cfg.Writable = "", true, true
		if err := n.recorded(first[n.name], time.Now()); err != nil {
			return nil, fmt.Errorf("opcuasim: %s: node %s: %w", rec.Device, n.name, err)
		}
		p.nodes[n.name] = n
	}
	s.player = p
	return s, nil
}

// recorded makes a node show a recorded value. One without a value keeps the
// type it had.
func (n *node) recorded(v recording.Value, at time.Time) error {
	n.status, n.at = ua.StatusCode(v.Status), at
	if v.Type == "" {
		if n.variant == nil || n.status == ua.StatusOK {
			n.variant = ua.MustVariant("")
			n.shape = opcua.ShapeOf(n.variant)
		}
		return nil
	}
	t, err := opcua.ParseType(v.Type)
	if err != nil {
		return err
	}
	shape := opcua.Shape{Type: t, Array: v.Array}
	var variant *ua.Variant
	switch isFloat := t == ua.TypeIDFloat || t == ua.TypeIDDouble; {
	case !v.Value.IsNull() || v.Array:
		variant, err = opcua.Variant(v.Value, shape)
	case isFloat && t == ua.TypeIDFloat:
		variant, err = ua.NewVariant(float32(math.NaN()))
	case isFloat:
		variant, err = ua.NewVariant(math.NaN())
	default:
		err = errors.New("a value of a type and none: it cannot be both")
	}
	if err != nil {
		return err
	}
	n.variant, n.shape = variant, shape
	return nil
}

// run shows one event after the other until ctx ends.
func (p *player) run(ctx context.Context, s *Server) {
	select {
	case <-p.Begun():
	case <-ctx.Done():
		return
	}
	for round := time.Now(); p.round(ctx, s, round) && p.Loops(); {
		round = round.Add(p.Real(recording.Millis(p.Length())))
	}
	<-ctx.Done()
}

// round shows all events, and waits for the end; false when ctx has ended or
// somebody seeks.
func (p *player) round(ctx context.Context, s *Server, round time.Time) bool {
	_, held, moved := p.Held()
	wait := func(at recording.Millis) bool {
		if held {
			return false
		}
		t := time.NewTimer(time.Until(round.Add(p.Real(at))))
		defer t.Stop()
		select {
		case <-t.C:
			return true
		case <-moved:
		case <-ctx.Done():
		}
		return false
	}
	for _, e := range p.Events() {
		if !wait(e.At) {
			return false
		}
		p.showing.Lock()
		if _, held, _ := p.Held(); !held {
			p.show(s, e)
		}
		p.showing.Unlock()
	}
	return wait(recording.Millis(p.Length()))
}

// showAll shows how things stand at a time.
func (p *player) showAll(s *Server, at time.Duration) {
	p.showing.Lock()
	defer p.showing.Unlock()
	for _, e := range p.Events() {
		if e.At <= recording.Millis(at) && (len(e.Values) > 0 || len(e.Writes) > 0) {
			p.show(s, e)
		}
	}
	for _, e := range slices.Backward(p.Events()) {
		if e.At <= recording.Millis(at) {
			if e.End != recording.Answered {
				p.show(s, e)
			}
			return
		}
	}
}

// show lets an event happen.
func (p *player) show(s *Server, e recording.Event) {
	switch {
	case e.End == recording.Silence:
		s.Silence()
		return
	case e.End == recording.HungUp:
		s.HangUp()
		return
	case len(e.Values) > 0 || len(e.Writes) > 0:
		s.Speak()
	}
	now := time.Now()
	s.mu.Lock()
	for _, v := range e.Values {
		n := p.nodes[v.Node]
		if n == nil {
			continue
		}
		at := now
		if v.Source != nil {
			at = now.Add(time.Duration(*v.Source - e.At))
		}
		if err := n.recorded(v, at); err != nil {
			s.cfg.Log.Warn("a recorded value cannot be shown", "simulator", s.cfg.Name, "node", v.Node, "error", err)
			continue
		}
		s.dirty = append(s.dirty, n)
	}
	changed := s.changedLocked()
	s.mu.Unlock()
	s.notify(changed)
}

// writeReplayedLocked takes note of a write.
func (s *Server) writeReplayedLocked(n *node, v *ua.Variant, now time.Time) ua.StatusCode {
	value, err := opcua.Plain(v)
	if err != nil {
		value = models.Null
	}
	s.log(Write{Time: now, Node: n.name, Value: value.String()})
	status, t := ua.StatusOK, recording.Millis(s.player.Time(now))
	for _, e := range s.player.Events() {
		for _, w := range e.Writes {
			if w.Node == n.name && e.At <= t {
				status = ua.StatusCode(w.Status)
			}
		}
	}
	return status
}

// Seek puts a recording's time where a test wants it, and holds it there.
func (s *Server) Seek(t time.Duration) {
	if s.player != nil {
		s.player.Seek(t)
		s.player.Settle(s.Unplug, s.Plug, s.cfg.Log)
		s.player.showAll(s, t)
	}
}

// Report says what was written while a recording was played; nothing of
// simulators that play none.
func (s *Server) Report() (out []string) {
	if s.player == nil {
		return nil
	}
	for _, w := range s.Writes() {
		text, _ := json.Marshal(w.Value) // a string does not fail
		out = append(out, fmt.Sprintf("written: %s = %s", w.Node, text))
	}
	return out
}
