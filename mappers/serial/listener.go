package serial

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/serial"
)

// listener is a device that talks unasked. Its ear tells it what comes; Read,
// Write and Subscribe wait for that.
type listener struct {
	target target
	ear    *ear
	log    *slog.Logger
	points []point
	tap    tap

	mu       sync.Mutex
	news     chan struct{} // closed and replaced when something below changes
	split    *wire.Splitter
	lastByte time.Time
	stray    string  // the last message that was no point's
	damage   error   // what was wrong with it, if anything was
	heard    []heard // by point
	up       bool    // the port is open
	err      error   // why it is not, once it was tried
	failures int     // how often it was tried in vain
	// told is why the last Subscribe returned, until something is heard: the
	// next one does not return for the same reason.
	told  models.Reason
	reply *reply // of the write that waits for an answer
}

// heard is the last that was heard of a point.
type heard struct {
	result mappers.Result
	at     time.Time
	times  uint64
}

// reply is what a write waits for.
type reply struct {
	point *point
	came  bool
	other string // the last message that is nobody's
}

var (
	_ mappers.Device        = (*listener)(nil)
	_ mappers.Canonicalizer = (*listener)(nil)
	_ mappers.Planner       = (*listener)(nil)
	_ mappers.Subscriber    = (*listener)(nil)
	_ mappers.Recordable    = (*listener)(nil)
)

func newListener(table *ears, t target, points []point, log *slog.Logger) *listener {
	l := &listener{target: t, log: log, points: points, news: make(chan struct{}), split: wire.NewSplitter(t.framing), heard: make([]heard, len(points))}
	l.ear = table.join(t.port, l)
	return l
}

// Close implements mappers.Device.
func (l *listener) Close() error {
	l.ear.leave(l)
	return nil
}

func (l *listener) tellLocked() {
	close(l.news)
	l.news = make(chan struct{})
}

// found takes note that the port is open. What was there before is half a
// message at most.
func (l *listener) found() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up, l.err = true, nil
	l.split.Reset()
	l.tellLocked()
}

// lost takes note that the port is not.
func (l *listener) lost(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tap.unasked(nil, mappers.Fail(models.ReasonNotConnected, err), l.up)
	l.up, l.err = false, err
	l.failures++
	l.tellLocked()
}

// gap is the silence after which bytes of a message with a length are its
// first.
func (l *listener) gap() time.Duration {
	return max(50*time.Millisecond, l.target.port.CharTime(20))
}

// take takes in what the device says.
func (l *listener) take(b []byte, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.target.framing.Length > 0 && now.Sub(l.lastByte) > l.gap() {
		l.split.Reset()
	}
	l.lastByte = now
	l.tap.unasked(b, nil, true)
	any := false
	l.split.Feed(b, func(message []byte, err error) bool {
		if err != nil {
			l.log.Debug("what the device says has no end", "err", err)
			l.stray, l.damage = "", err
			return true
		}
		any = l.messageLocked(message, now) || any
		return true
	})
	if any {
		l.tellLocked()
	}
}

// silenceLocked says why no point was heard of: nothing came, or nothing of use.
func (l *listener) silenceLocked() error {
	switch {
	case time.Since(l.lastByte) > l.target.timeout:
		return fmt.Errorf("%w: waited %s", errSilent, l.target.timeout)
	case l.stray == "" && l.damage == nil:
		return fmt.Errorf("what the device says has no end within %s: are baud rate and terminator, or length, those of the device?", l.target.timeout)
	case l.damage != nil:
		return fmt.Errorf("the device says nothing of use within %s; last it said %q: %w", l.target.timeout, short(l.stray), l.damage)
	}
	return fmt.Errorf("what the device says fits no property's match: waited %s, last it said %q", l.target.timeout, short(l.stray))
}

// messageLocked takes one message, and tells whether it matters to anyone.
func (l *listener) messageLocked(message []byte, now time.Time) bool {
	body, err := l.target.framing.Text(message)
	said, bytewise := text(body, l.target.framing)
	fits := false
	for i := range l.points {
		pt := &l.points[i]
		if pt.match == nil {
			continue
		}
		value, ok := pt.fits(said)
		if !ok {
			continue
		}
		fits = true
		r := bad(ReasonChecksum)
		if err == nil {
			r = pt.decode(value, bytewise)
		}
		h := &l.heard[i]
		h.result, h.at = r, now
		h.times++
		l.told = models.ReasonNone
	}
	if !fits {
		l.stray, l.damage = said, err
	}
	switch {
	case err != nil:
		l.log.Debug("a message is damaged", "err", err)
	case l.reply != nil && l.reply.point.expect.MatchString(said):
		l.reply.came, fits = true, true
	case l.reply != nil && !fits:
		l.reply.other = said
	}
	return fits
}

// Plan implements mappers.Planner.
func (l *listener) Plan(points []int) []models.ReadRequest {
	if len(points) == 0 {
		return nil
	}
	return []models.ReadRequest{{Text: "listen", Points: len(points)}}
}

// Canonical implements mappers.Canonicalizer.
func (l *listener) Canonical(p int, v models.Value) (models.Value, error) {
	return l.points[p].canonical(v)
}

// Subscribes implements mappers.Subscriber.
func (l *listener) Subscribes(p int) bool { return l.points[p].match != nil }

// Read implements mappers.Device: it waits until the device has spoken of all
// the points.
func (l *listener) Read(ctx context.Context, points []int, out []mappers.Result) error {
	if len(points) == 0 {
		return nil
	}
	l.ear.start()
	timer := time.NewTimer(l.target.timeout)
	defer timer.Stop()
	l.mu.Lock()
	before, failures := make([]uint64, len(points)), l.failures
	for i, p := range points {
		before[i] = l.heard[p].times
	}
	l.mu.Unlock()
	for over := false; ; {
		l.mu.Lock()
		some, all := false, true
		for i, p := range points {
			if h := &l.heard[p]; h.times > before[i] {
				out[i], some = h.result, true
			} else {
				out[i], all = bad(models.ReasonTimeout), false
			}
		}
		news, gone, err, silence := l.news, !l.up && l.failures > failures, l.err, l.silenceLocked()
		l.mu.Unlock()
		switch {
		case all || over && some:
			return nil
		case gone:
			return mappers.Fail(models.ReasonNotConnected, err)
		case over:
			return mappers.Fail(models.ReasonTimeout, silence)
		}
		select {
		case <-news:
		case <-timer.C:
			over = true
		case <-ctx.Done():
			return mappers.Fail(models.ReasonTimeout, context.Cause(ctx))
		}
	}
}

// Write implements mappers.Device.
func (l *listener) Write(ctx context.Context, writes []mappers.WriteRequest) []error {
	l.ear.start()
	return mappers.WriteInTurn(writes, func(w mappers.WriteRequest) *mappers.Failure { return l.write(ctx, w) })
}

func (l *listener) write(ctx context.Context, w mappers.WriteRequest) *mappers.Failure {
	pt := &l.points[w.Point]
	request, err := pt.request(w.Value)
	if err != nil {
		return refused(err)
	}
	if f := l.open(ctx); f != nil {
		return f
	}
	wait := &reply{point: pt}
	message := l.target.framing.Append(nil, request)
	f := l.ear.write(ctx, message, l.target.timeout, func() {
		l.mu.Lock()
		l.tap.said(message)
		l.mu.Unlock()
		if pt.expect != nil {
			l.mu.Lock()
			l.reply = wait
			l.mu.Unlock()
		}
	})
	if f == nil && pt.expect != nil {
		f = l.await(ctx, wait)
	}
	l.mu.Lock()
	l.reply = nil
	l.mu.Unlock()
	if err := sleepUntil(ctx, time.Now().Add(l.target.pause)); f == nil && err != nil {
		return nil // it is written all the same
	}
	return f
}

// open waits for the port's first opening.
func (l *listener) open(ctx context.Context) *mappers.Failure {
	for {
		l.mu.Lock()
		up, err, news := l.up, l.err, l.news
		l.mu.Unlock()
		switch {
		case up:
			return nil
		case err != nil:
			return unsent(models.ReasonNotConnected, err)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return unsent(models.ReasonTimeout, context.Cause(ctx))
		}
	}
}

// await waits for the answer to a write, among all else that the device says.
func (l *listener) await(ctx context.Context, r *reply) *mappers.Failure {
	timer := time.NewTimer(l.target.timeout)
	defer timer.Stop()
	for over := false; ; {
		l.mu.Lock()
		came, other, up, err, news := r.came, r.other, l.up, l.err, l.news
		l.mu.Unlock()
		switch {
		case came:
			return nil
		case !up:
			return mappers.Fail(models.ReasonNotConnected, err)
		case over && other != "":
			return mappers.Fail(models.ReasonDeviceError, fmt.Errorf("%q came, expected was %s", other, r.point.expected))
		case over:
			return mappers.Fail(models.ReasonTimeout, fmt.Errorf("no answer that fits %s within %s", r.point.expected, l.target.timeout))
		}
		select {
		case <-news:
		case <-timer.C:
			over = true
		case <-ctx.Done():
			return mappers.Fail(models.ReasonTimeout, context.Cause(ctx))
		}
	}
}

// Subscribe implements mappers.Subscriber. A point that the device has not
// spoken of for the timeout is bad; when that is all of them the subscription
// is lost.
func (l *listener) Subscribe(ctx context.Context, subs []mappers.Subscription, deliver func([]int, []mappers.Result)) error {
	l.ear.start()
	began := time.Now()
	delivered := make([]uint64, len(subs)) // heard.times
	silent := make([]bool, len(subs))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		var points []int
		var results []mappers.Result
		next := time.Time{} // when the first of them has been silent for too long
		l.mu.Lock()
		alive := 0
		for i, s := range subs {
			h := &l.heard[s.Point]
			since := h.at
			if delivered[i] == 0 && since.Before(began) && now.Sub(since) > l.target.timeout {
				since = began // too old to be delivered; give it its time
			}
			late := since.Add(l.target.timeout)
			switch {
			case h.times > delivered[i] && now.Before(late) && since == h.at:
				delivered[i], silent[i] = h.times, false
				points, results = append(points, s.Point), append(results, h.result)
			case !now.Before(late) && !silent[i]:
				silent[i] = true
				points, results = append(points, s.Point), append(results, bad(models.ReasonTimeout))
			}
			if !silent[i] {
				alive++
				if next.IsZero() || late.Before(next) {
					next = late
				}
			}
		}
		var why *mappers.Failure
		switch {
		case !l.up && l.err != nil:
			why = mappers.Fail(models.ReasonNotConnected, l.err)
		case alive == 0:
			why = mappers.Fail(models.ReasonTimeout, l.silenceLocked())
		}
		if why != nil && why.Reason != l.told {
			l.told = why.Reason
			l.mu.Unlock()
			return why
		}
		dead := l.told != models.ReasonNone // it is known, and the values are bad already
		news := l.news
		l.mu.Unlock()
		if len(points) > 0 && !dead {
			deliver(points, results)
		}
		if next.IsZero() {
			next = now.Add(time.Hour)
		}
		timer.Reset(time.Until(next))
		select {
		case <-news:
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
