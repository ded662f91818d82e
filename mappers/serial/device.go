package serial

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// device is a device that is asked. Read, Write and Canonical are called from
// one goroutine, as mappers.Device says; Plan, which only looks at what does
// not change, from any.
type device struct {
	target target
	line   *line
	log    *slog.Logger
	points []point
	asks   []ask
	askOf  []int // by point; -1 for those that are not read

	tap tap

	misses  []int     // by ask: how often in a row it was not answered, though others were
	retried time.Time // when a quiet one was last asked
	next    int       // which of them to ask then
}

// ask is a question and the points that its answer tells of.
type ask struct {
	text  []byte
	asked string
}

// maxSilent is how many questions in a row a device that has said nothing in a
// Read is asked before it counts as silent: it may not know the first one.
const maxSilent = 2

// quietAfter is how many times in a row a question goes unanswered, though
// others are, before it is no more asked in every Read.
const quietAfter = 3

// quietFor is how many times a timeout passes before a question that the device
// does not answer is asked again, so that it costs little of the line's time.
const quietFor = 10

var (
	_ mappers.Device        = (*device)(nil)
	_ mappers.Canonicalizer = (*device)(nil)
	_ mappers.Planner       = (*device)(nil)
	_ mappers.LineSharer    = (*device)(nil)
	_ mappers.Recordable    = (*device)(nil)
)

func newDevice(table *lines, t target, points []point, log *slog.Logger) *device {
	d := &device{target: t, line: table.join(t.port), log: log, points: points, askOf: make([]int, len(points))}
	for i := range points {
		d.askOf[i] = -1
		if points[i].ask == nil {
			continue
		}
		at := slices.IndexFunc(d.asks, func(a ask) bool { return string(a.text) == string(points[i].ask) })
		if at < 0 {
			at = len(d.asks)
			d.asks = append(d.asks, ask{text: points[i].ask, asked: points[i].asked})
		}
		d.askOf[i] = at
	}
	d.misses = make([]int, len(d.asks))
	return d
}

// Close implements mappers.Device. The port lives on while other devices use
// it.
func (d *device) Close() error {
	d.line.leave()
	return nil
}

// Line implements mappers.LineSharer.
func (d *device) Line() string { return "serial://" + d.target.port.Device }

// Plan implements mappers.Planner.
func (d *device) Plan(points []int) []models.ReadRequest {
	var out []models.ReadRequest
	for _, a := range d.needed(points) {
		n := 0
		for _, p := range points {
			if d.askOf[p] == a {
				n++
			}
		}
		out = append(out, models.ReadRequest{Text: strconv.Quote(d.asks[a].asked), Points: n})
	}
	return out
}

// needed lists the questions that tell of points, each once.
func (d *device) needed(points []int) []int {
	var asks []int
	for _, p := range points {
		if a := d.askOf[p]; a >= 0 && !slices.Contains(asks, a) {
			asks = append(asks, a)
		}
	}
	return asks
}

// Read implements mappers.Device.
func (d *device) Read(ctx context.Context, points []int, out []mappers.Result) error {
	for i := range out {
		out[i] = bad(models.ReasonTimeout) // unless something is heard
	}
	asks := d.needed(points)
	asks, trial := d.due(asks)
	answered, silent := false, 0
	var last *mappers.Failure
	var missed []int
	for _, a := range asks {
		f := d.ask(ctx, a, points, out)
		switch {
		case f == nil:
			answered = true
			if d.quiet(a) {
				d.log.Info("the device answers a question again", "read", d.asks[a].asked)
			}
			d.misses[a] = 0
			continue
		case f.Reason == models.ReasonNotConnected || ctx.Err() != nil:
			clear(d.misses)
			return f
		}
		if f.Reason != models.ReasonTimeout {
			answered = true // it said something, if nothing useful
			d.misses[a] = 0
			for i, p := range points {
				if d.askOf[p] == a && out[i].Reason == models.ReasonTimeout {
					out[i] = bad(f.Reason)
					out[i].Err = fmt.Errorf("the answer to %q: %w", d.asks[a].asked, f.Err)
				}
			}
			d.log.Debug("an answer is of no use", "read", d.asks[a].asked, "err", f)
			continue
		}
		last = f
		missed = append(missed, a)
		if silent++; !answered && silent == maxSilent {
			break
		}
	}
	if len(asks) > 0 && !answered && !trial && last != nil {
		clear(d.misses)
		return last
	}
	for _, a := range missed {
		if !answered {
			continue
		}
		if d.misses[a]++; d.misses[a] == quietAfter {
			d.log.Info("the device does not answer a question", "read", d.asks[a].asked)
		}
	}
	for i, p := range points {
		if out[i].Reason == models.ReasonTimeout {
			out[i].Err = fmt.Errorf("no answer to %q within %s", d.points[p].asked, d.target.timeout)
		}
	}
	return nil
}

// quiet tells whether the device does not answer a question.
func (d *device) quiet(a int) bool { return d.misses[a] >= quietAfter }

// due leaves out the questions that the device does not answer, all but the one
// whose time it is to be tried again, which comes last. trial says that it is
// asked nothing else.
func (d *device) due(asks []int) (due []int, trial bool) {
	var quiet []int
	for _, a := range asks {
		if d.quiet(a) {
			quiet = append(quiet, a)
		} else {
			due = append(due, a)
		}
	}
	trial = len(due) == 0
	if now := time.Now(); len(quiet) > 0 && now.Sub(d.retried) >= quietFor*d.target.timeout {
		d.retried = now
		due = append(due, quiet[d.next%len(quiet)])
		d.next++
	}
	return due, trial
}

// ask asks one question and stores what its answer says of points.
func (d *device) ask(ctx context.Context, a int, points []int, out []mappers.Result) *mappers.Failure {
	return d.line.do(ctx, exchange{framing: d.target.framing, timeout: d.target.timeout, pause: d.target.pause, text: d.asks[a].text, tap: &d.tap,
		answer: func(message []byte) *mappers.Failure {
			said, bytewise := text(message, d.target.framing)
			any := false
			for i, p := range points {
				if d.askOf[p] != a {
					continue
				}
				if value, ok := d.points[p].fits(said); ok {
					out[i] = d.points[p].decode(value, bytewise)
					any = true
				} else {
					out[i] = d.points[p].misfit(said)
				}
			}
			if !any {
				return mappers.Fail(models.ReasonProtocolError, fmt.Errorf("%q fits no property's match", short(said)))
			}
			return nil
		}})
}

// Canonical implements mappers.Canonicalizer.
func (d *device) Canonical(p int, v models.Value) (models.Value, error) {
	return d.points[p].canonical(v)
}

// Write implements mappers.Device.
func (d *device) Write(ctx context.Context, writes []mappers.WriteRequest) []error {
	return mappers.WriteInTurn(writes, func(w mappers.WriteRequest) *mappers.Failure {
		pt := &d.points[w.Point]
		request, err := pt.request(w.Value)
		if err != nil {
			return refused(err)
		}
		e := exchange{framing: d.target.framing, timeout: d.target.timeout, pause: d.target.pause, text: request, tap: &d.tap}
		if pt.expect != nil {
			e.answer = pt.accepted
		}
		return d.line.do(ctx, e)
	})
}

// accepted judges the answer to a write.
func (pt *point) accepted(message []byte) *mappers.Failure {
	said, bytewise := text(message, pt.framing)
	if pt.expect.MatchString(said) {
		return nil
	}
	err := fmt.Errorf("the answer is %q, expected was %s", said, pt.expected)
	if bytewise && pt.framing.Length == 0 || !utf8.ValidString(said) || slices.ContainsFunc([]rune(said), unprintable) {
		return mappers.Fail(models.ReasonProtocolError, err) // noise, not a word: who knows what it did
	}
	return &mappers.Failure{Reason: models.ReasonDeviceError, Refused: true, Err: err}
}

func unprintable(r rune) bool { return r < ' ' && r != '\t' || r == 0x7F || r == utf8.RuneError }

var errSilent = errors.New("the device says nothing")
