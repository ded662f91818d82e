// Package courier brings queued messages to targets that may be slow, refuse, or be
// away: lane by lane, each in order, until they are delivered or are dead
// letters. The queue itself, which survives a crash, is its user's; a courier
// keeps of every waiting message only where it stands.
//
// Within a lane a message is tried only when the one before it has been delivered
// or given up, so order is kept and one that is refused for ever holds up its
// own lane no longer than its retries take. Lanes of one group share a bound of
// attempts at a time, so that a target that hangs does not take what others need.
package courier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Message is one that waits.
type Message struct {
	ID       int64  // its place in the queue; those added later have a higher one
	Group    string // shares a bound of concurrent attempts, such as a route
	Lane     string // within it, messages go in order
	Deadline time.Time
	Retries  int // attempts after the first that a target may refuse
	Attempts int // that it has refused already
	// Asker is by what Config.Behind knows who waits for the outcome; "" when nobody does.
	Asker string
}

// Refused is a target's answer that it does not take a message.
type Refused struct {
	Final bool // no use in asking again
	Err   error
}

func (r *Refused) Error() string { return r.Err.Error() }
func (r *Refused) Unwrap() error { return r.Err }

// Judge turns the status of an HTTP answer into what Deliver returns. Statuses by which a
// server says that it may take the same request later (RFC 9110 sections 15.5.9 and
// 15.6, RFC 6585 section 4, RFC 8470 section 5.2) are refusals, others final ones.
func Judge(status int, who string) error {
	switch {
	case status >= 200 && status < 300:
		return nil
	case status >= 300 && status < 400:
		return &Refused{Final: true, Err: fmt.Errorf("%s answers %d: redirections are not followed", who, status)}
	}
	again := status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooEarly || status == http.StatusTooManyRequests
	return &Refused{Final: !again, Err: fmt.Errorf("%s answers %d %s", who, status, http.StatusText(status))}
}

// Done is what became of an attempt.
type Done struct {
	ID       int64
	Group    string
	Attempts int    // refused so far
	Error    string // "" when it was delivered
	Dead     bool   // it is not tried again
}

// Config is what a Courier needs.
type Config struct {
	// Deliver makes one attempt: nil when the target has taken the message, a
	// *Refused when it answered that it does not, any other error when it could
	// not be asked. Called from many goroutines, never twice at a time for one
	// lane. ctx ends with Run.
	Deliver func(ctx context.Context, m Message) error
	// Store makes outcomes durable: delivered messages are forgotten, dead ones set
	// aside, others counted. Until it returns they may be attempted again after
	// a crash. Outcomes that it fails to store are handed to it again. Called once at a
	// time, while attempts go on: those that end meanwhile are stored together.
	Store func(ctx context.Context, done []Done) error

	// Behind is told of a message with an Asker that stands behind one that was tried
	// with err and is to be tried again: when its turn comes is not known. Once of each
	// message, by Run's loop, which it must not hold up. nil: nobody wants to know.
	Behind func(m Message, err error)

	First, Max time.Duration // pauses after a failure: from, doubling up to; default 1 s and 1 min
	PerGroup   int           // attempts at a time, default 4
	Total      int           // default 64
	Now        func() time.Time
	Log        *slog.Logger
}

// Courier is made by New. Its methods may be called from any goroutine.
type Courier struct {
	cfg   Config
	first []Message // Run's own once it has begun
	added chan []Message
	ended chan struct{} // closed when Run has ended
}

// New returns a courier, whose Run is to be called.
func New(cfg Config) *Courier {
	for _, d := range []struct {
		v     *int
		value int
	}{{&cfg.PerGroup, 4}, {&cfg.Total, 64}} {
		if *d.v == 0 {
			*d.v = d.value
		}
	}
	if cfg.First == 0 {
		cfg.First = time.Second
	}
	if cfg.Max == 0 {
		cfg.Max = time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Courier{cfg: cfg, added: make(chan []Message, 16), ended: make(chan struct{})}
}

// Load says what was in the queue before, in the order of IDs. It is called
// before Run, and before anything that is added is in the queue: a message that
// is both loaded and added would be delivered twice.
func (c *Courier) Load(ms ...Message) { c.first = append(c.first, ms...) }

// Add says that messages are in the queue, in the order of their IDs. It blocks
// while Run is busy storing, and returns at once when Run has ended: they are
// found in the queue at the next start.
func (c *Courier) Add(ms ...Message) {
	if len(ms) == 0 {
		return
	}
	select {
	case c.added <- ms:
	case <-c.ended:
	}
}

// next is what the pure part of a courier says of an attempt.
type next struct {
	delivered, dead bool
	attempts        int
	pause           time.Duration // before the next attempt
}

// after decides what follows an attempt at m that ended with err. failures counts
// the lane's failures in a row, this one included.
func (c *Config) after(m Message, err error, failures int, now time.Time) next {
	if err == nil {
		return next{delivered: true, attempts: m.Attempts}
	}
	n := next{attempts: m.Attempts, pause: c.First}
	for range failures - 1 {
		if n.pause *= 2; n.pause >= c.Max {
			n.pause = c.Max
			break
		}
	}
	var refused *Refused
	if errors.As(err, &refused) {
		n.attempts++
		n.dead = refused.Final || n.attempts > m.Retries
	}
	n.dead = n.dead || !now.Before(m.Deadline)
	// The last attempt is made when the time is up, not never.
	if left := m.Deadline.Sub(now); n.pause > left {
		n.pause = max(left, 0)
	}
	return n
}

// lane is the messages of one group and lane.
type lane struct {
	key      [2]string
	waiting  []Message // the first is tried, or is next
	busy     bool      // an attempt is being made
	failures int       // in a row
	err      error     // of the last of them
}

type result struct {
	lane *lane
	err  error
}

// Run makes attempts until ctx ends, and waits for those under way.
func (c *Courier) Run(ctx context.Context) error {
	defer close(c.ended)
	r := &run{c: c, ctx: ctx, lanes: map[[2]string]*lane{}, active: map[string]int{}, results: make(chan result, c.cfg.Total),
		due: make(chan *lane), timers: map[*lane]*time.Timer{}, stored: make(chan error, 1)}
	return r.loop()
}

// run is what Run owns.
type run struct {
	c       *Courier
	ctx     context.Context
	lanes   map[[2]string]*lane
	ready   []*lane        // in the order they became so
	active  map[string]int // attempts by group
	total   int
	results chan result // as many as attempts
	due     chan *lane  // a pause is over
	timers  map[*lane]*time.Timer
	done    []Done // not stored yet; start bounds them
	storing []Done // by the one call of Store that there may be; nil when there is none
	stored  chan error
	retry   <-chan time.Time
}

// unstored is how many outcomes may wait for the store before no attempt is
// started: each of them would be made again after a crash.
const unstored = 1024

func (r *run) loop() error {
	defer func() {
		for _, t := range r.timers {
			t.Stop()
		}
		for ; r.total > 0; r.total-- { // attempts end with ctx
			res := <-r.results
			r.finish(res)
		}
		if r.storing != nil {
			r.settled(<-r.stored)
		}
		r.retry = nil
		if r.store(context.WithoutCancel(r.ctx)); r.storing != nil {
			<-r.stored // what was not stored is tried again after the next start
		}
	}()
	for _, m := range r.c.first {
		r.add(m)
	}
	r.c.first = nil
	for {
		r.start()
		select {
		case <-r.ctx.Done():
			return nil
		case ms := <-r.c.added:
			for _, m := range ms {
				r.add(m)
			}
			continue
		case l := <-r.due:
			delete(r.timers, l)
			r.ready = append(r.ready, l)
			continue
		case <-r.retry:
			r.retry = nil
		case err := <-r.stored:
			r.settled(err)
		case res := <-r.results:
			r.total--
			r.finish(res)
		}
		for more := true; more; { // what is there is stored together
			select {
			case res := <-r.results:
				r.total--
				r.finish(res)
			default:
				more = false
			}
		}
		r.store(r.ctx)
	}
}

func (r *run) add(m Message) {
	key := [2]string{m.Group, m.Lane}
	l := r.lanes[key]
	if l == nil {
		l = &lane{key: key}
		r.lanes[key] = l
	}
	l.waiting = append(l.waiting, m)
	if len(l.waiting) == 1 && !l.busy {
		r.ready = append(r.ready, l)
	}
	if l.failures > 0 {
		r.behind(l, len(l.waiting)-1)
	}
}

// behind tells of those in a lane from the i-th on.
func (r *run) behind(l *lane, i int) {
	for ; i < len(l.waiting); i++ {
		m := l.waiting[i]
		if m.Asker == "" {
			continue
		}
		l.waiting[i].Asker = ""
		if r.c.cfg.Behind != nil {
			r.c.cfg.Behind(m, l.err)
		}
	}
}

// start starts what may be started.
func (r *run) start() {
	kept := r.ready[:0]
	for _, l := range r.ready {
		group := l.key[0]
		if r.total >= r.c.cfg.Total || r.active[group] >= r.c.cfg.PerGroup || len(r.done)+len(r.storing) >= unstored {
			kept = append(kept, l)
			continue
		}
		l.busy = true
		r.active[group]++
		r.total++
		m := l.waiting[0]
		go func() { r.results <- result{l, r.c.cfg.Deliver(r.ctx, m)} }()
	}
	clear(r.ready[len(kept):])
	r.ready = kept
}

func (r *run) finish(res result) {
	l := res.lane
	l.busy = false
	if r.active[l.key[0]]--; r.active[l.key[0]] == 0 {
		delete(r.active, l.key[0])
	}
	if res.err != nil && r.ctx.Err() != nil {
		return // it was broken off: no outcome
	}
	m := l.waiting[0]
	l.failures++
	n := r.c.cfg.after(m, res.err, l.failures, r.c.cfg.Now())
	d := Done{ID: m.ID, Group: m.Group, Attempts: n.attempts, Dead: n.dead}
	if res.err != nil {
		d.Error = res.err.Error()
	}
	r.done = append(r.done, d)
	if n.delivered || n.dead {
		l.failures, l.err = 0, nil
		l.waiting[0] = Message{}
		if l.waiting = l.waiting[1:]; len(l.waiting) == 0 {
			delete(r.lanes, l.key)
			return
		}
		r.ready = append(r.ready, l)
		return
	}
	l.waiting[0].Attempts = n.attempts
	l.err = res.err
	r.behind(l, 1)
	r.timers[l] = time.AfterFunc(n.pause, func() {
		select {
		case r.due <- l:
		case <-r.ctx.Done():
		}
	})
}

// storeAgain is the pause after a store that failed.
const storeAgain = time.Second

// store begins to store outcomes, unless that is being done.
func (r *run) store(ctx context.Context) {
	if len(r.done) == 0 || r.storing != nil || r.retry != nil {
		return
	}
	batch := r.done
	r.storing, r.done = batch, nil
	go func() { r.stored <- r.c.cfg.Store(ctx, batch) }()
}

func (r *run) settled(err error) {
	batch := r.storing
	r.storing = nil
	if err == nil {
		return
	}
	r.done = append(batch, r.done...)
	if r.ctx.Err() == nil {
		r.c.cfg.Log.Error("outcomes of deliveries cannot be stored; it is tried again", "outcomes", len(batch), "error", err)
		r.retry = time.After(storeAgain)
	}
}
