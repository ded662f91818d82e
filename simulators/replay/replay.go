// Package replay finds what a recorded device says at a time: to a request, or
// by itself. It knows recordings and their time, not protocols; packages of
// simulators play what it finds. Only simulators import it.
package replay

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/recording"
)

// Options say how a recording is played.
type Options struct {
	// Speed is how many times faster than it was recorded; 0 is 1.
	Speed float64
	// Loop begins again at the end. Without it the last answers stand.
	Loop bool
	// Listen is where, in the words of the simulator; "" is a free address of the
	// kind that was recorded.
	Listen string
}

// Check tells what is wrong with Options.
func (o Options) Check() error {
	if o.Speed < 0 || o.Speed > 1000 {
		return fmt.Errorf("speed %v is not within 0 to 1000", o.Speed)
	}
	return nil
}

// maxUnknown bounds the different requests that are remembered because nobody
// recorded them; of further ones only the number is told.
const maxUnknown = 100

// Player is a recording in its own time, which begins with Begin. It is safe
// for concurrent use.
type Player struct {
	speed  float64
	loop   bool
	length time.Duration
	events []recording.Event

	byKey map[string][]int // events that answer a request, by time
	gone  []span

	begun chan struct{} // closed by Begin

	line sync.Mutex // taken first
	out  bool       // the line is unplugged

	mu      sync.Mutex
	began   time.Time
	held    bool          // by Seek, at
	at      time.Duration // this time
	moved   chan struct{} // closed and replaced by Seek
	unknown map[string]int
	more    int // requests beyond maxUnknown
	pieced  map[string]int
}

// span is a stretch of recorded time.
type span struct{ from, to time.Duration }

// New makes a player. key makes what is sent comparable; "" is nothing that
// anybody could ask.
func New(rec *recording.Recording, o Options, key func(send []byte) string) (*Player, error) {
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	p := &Player{speed: cmp.Or(o.Speed, 1), loop: o.Loop, length: rec.Length(), begun: make(chan struct{}), moved: make(chan struct{}), byKey: map[string][]int{}, unknown: map[string]int{}, pieced: map[string]int{}}
	p.events = slices.Clone(rec.Events)
	slices.SortStableFunc(p.events, func(a, b recording.Event) int { return cmp.Compare(a.At, b.At) })
	for i, e := range p.events {
		if e.Send == nil {
			continue
		}
		if k := key(e.Send); k != "" {
			p.byKey[k] = append(p.byKey[k], i)
		}
	}
	p.gone = absences(p.events, p.length)
	return p, nil
}

// absences finds when there was no line: from where it was lost to the next
// event with one.
func absences(events []recording.Event, length time.Duration) (out []span) {
	open := false
	var lost time.Duration
	hung := false
	for _, e := range events {
		at := time.Duration(e.At)
		switch {
		case e.End == recording.NoLine && !open:
			open = true
			from := at
			if hung {
				from = lost
			}
			out = append(out, span{from, length})
		case e.End != recording.NoLine && open:
			open = false
			out[len(out)-1].to = at
		}
		if hung = e.End == recording.HungUp; hung {
			lost = at + time.Duration(e.Took)
		}
	}
	return out
}

// Begin starts the recording's time, unless it runs.
func (p *Player) Begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began.IsZero() {
		p.began = now
		close(p.begun)
	}
}

// Begun is closed once the recording's time runs.
func (p *Player) Begun() <-chan struct{} { return p.begun }

// Time is the recording's, 0 before Begin.
func (p *Player) Time(now time.Time) time.Duration {
	p.mu.Lock()
	began, held, at := p.began, p.held, p.at
	p.mu.Unlock()
	switch {
	case held:
		return at
	case began.IsZero():
		return 0
	}
	t := time.Duration(float64(now.Sub(began)) * p.speed)
	if p.loop && p.length > 0 {
		t %= p.length
	}
	return t
}

// Seek puts the recording's time where a test wants it, and holds it there.
func (p *Player) Seek(t time.Duration) {
	p.Begin(time.Now())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held, p.at = true, t
	close(p.moved)
	p.moved = make(chan struct{})
}

// Held is where Seek has put the time, and Moved is closed when it moves it.
func (p *Player) Held() (at time.Duration, held bool, moved <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at, p.held, p.moved
}

// Real is how long a recorded duration takes.
func (p *Player) Real(d recording.Millis) time.Duration {
	return time.Duration(float64(d) / p.speed)
}

// Answer is what was recorded of a request the last time before now, or else the
// first time.
func (p *Player) Answer(key string, now time.Time) (recording.Event, bool) {
	found := p.byKey[key]
	if len(found) == 0 {
		return recording.Event{}, false
	}
	t := recording.Millis(p.Time(now))
	n := sort.Search(len(found), func(i int) bool { return p.events[found[i]].At > t })
	return p.events[found[max(n-1, 0)]], true
}

// Events are all of them, by time. They are not to be changed.
func (p *Player) Events() []recording.Event { return p.events }

// Loops tells whether it begins again at the end, and Length when that is.
func (p *Player) Loops() bool { return p.loop }

// Length is the recording's, in its own time.
func (p *Player) Length() time.Duration { return p.length }

// Gone tells whether there is no line now, and how long it takes until there is
// one.
func (p *Player) Gone(now time.Time) (wait time.Duration, gone bool) {
	t := p.Time(now)
	for _, s := range p.gone {
		if t >= s.from && t < s.to {
			return p.Real(recording.Millis(s.to - t)), true
		}
	}
	return 0, false
}

// Next is how long it takes until the line goes away or comes back; false when it
// stays as it is.
func (p *Player) Next(now time.Time) (time.Duration, bool) {
	t := p.Time(now)
	if len(p.gone) > 0 && p.loop && t >= p.gone[len(p.gone)-1].to {
		return p.Real(recording.Millis(p.length - t + p.gone[0].from)), true
	}
	for _, s := range p.gone {
		for _, edge := range []time.Duration{s.from, s.to} {
			if t < edge {
				return p.Real(recording.Millis(edge - t)), true
			}
		}
	}
	return 0, false
}

// Follow calls unplug when the line goes away in the recording, and plug when it
// comes back, until ctx ends.
func (p *Player) Follow(ctx context.Context, unplug func(), plug func() error, log *slog.Logger) {
	if len(p.gone) == 0 {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-p.begun:
	}
	for {
		_, held, moved := p.Held()
		p.Settle(unplug, plug, log)
		wait, more := p.Next(time.Now())
		if held || !more {
			wait = time.Hour // until Seek says otherwise
		}
		t := time.NewTimer(wait + time.Millisecond) // the edge itself is then behind
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-moved:
			t.Stop()
		}
	}
}

// Settle does at once what Follow does.
func (p *Player) Settle(unplug func(), plug func() error, log *slog.Logger) {
	p.line.Lock()
	defer p.line.Unlock()
	switch _, gone := p.Gone(time.Now()); {
	case gone && !p.out:
		p.out = true
		unplug()
	case !gone && p.out:
		p.out = false
		if err := plug(); err != nil {
			log.Warn("a recorded line cannot come back", "error", err)
		}
	}
}

// Unknown notes a request that was not recorded, in words.
func (p *Player) Unknown(request string) { p.note(p.unknown, request) }

// Pieced notes one whose answer was put together of other answers.
func (p *Player) Pieced(request string) { p.note(p.pieced, request) }

func (p *Player) note(in map[string]int, request string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, any := in[request]; !any && len(in) >= maxUnknown {
		p.more++
		return
	}
	in[request]++
}

// Report says what was asked and not recorded.
func (p *Player) Report() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range slices.Sorted(maps.Keys(p.unknown)) {
		out = append(out, fmt.Sprintf("not recorded, asked %d times: %s", p.unknown[r], r))
	}
	for _, r := range slices.Sorted(maps.Keys(p.pieced)) {
		out = append(out, fmt.Sprintf("pieced together of other answers, asked %d times: %s", p.pieced[r], r))
	}
	if p.more > 0 {
		out = append(out, fmt.Sprintf("not recorded: %d requests more", p.more))
	}
	return out
}
