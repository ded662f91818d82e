package broker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
)

// logEvery is how often one kind of complaint is logged; a client can cause
// them at the rate at which it sends.
const logEvery = 10 * time.Second

// A limiter lets one event through per logEvery and counts the others. Not for
// several goroutines.
type limiter struct {
	next    time.Time
	skipped int
}

// allow reports whether to log now, and how many events were not since.
func (l *limiter) allow(now time.Time) (skipped int, ok bool) {
	if now.Before(l.next) {
		l.skipped++
		return 0, false
	}
	skipped, l.skipped, l.next = l.skipped, 0, now.Add(logEvery)
	return skipped, true
}

// mochiLog is a slog.Handler that passes on what is worth reading of mochi's
// log: warnings and errors, each message at most once per logEvery, and without
// the packets it attaches, which may hold a payload of a megabyte or a password.
type mochiLog struct {
	slog.Handler
	shared *mochiLimits
}

type mochiLimits struct {
	mu  sync.Mutex
	per map[string]*limiter // by message; mochi's messages are constants
}

func newMochiLog(h slog.Handler) mochiLog {
	return mochiLog{Handler: h, shared: &mochiLimits{per: make(map[string]*limiter)}}
}

func (h mochiLog) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}

func (h mochiLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == mochi.ErrMinimumKeepalive.Error() {
		return nil // a client's own business
	}
	h.shared.mu.Lock()
	l := h.shared.per[r.Message]
	if l == nil {
		l = new(limiter)
		h.shared.per[r.Message] = l
	}
	skipped, ok := l.allow(r.Time)
	h.shared.mu.Unlock()
	if !ok {
		return nil
	}
	out := slog.NewRecord(r.Time, r.Level, "mqtt: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "pk", "packet", "will", "hook":
		default:
			out.AddAttrs(a)
		}
		return true
	})
	if skipped > 0 {
		out.AddAttrs(slog.Int("skipped", skipped))
	}
	return h.Handler.Handle(ctx, out)
}

func (h mochiLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	kept := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		if a.Key != "hook" {
			kept = append(kept, a)
		}
	}
	return mochiLog{Handler: h.Handler.WithAttrs(kept), shared: h.shared}
}

func (h mochiLog) WithGroup(name string) slog.Handler {
	return mochiLog{Handler: h.Handler.WithGroup(name), shared: h.shared}
}
