package storetest

import (
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

func idempotency(t *testing.T, s *subject) {
	ctx := t.Context()
	const hour = time.Hour
	reserve := func(caller, key, fingerprint string, at time.Time) (store.IdempotentAnswer, error) {
		return s.ReserveKey(ctx, caller, key, fingerprint, at, hour)
	}
	_, err := reserve("a", "k", "f", now)
	must(t, err)
	have, err := reserve("a", "k", "other", now)
	wantErr(t, "reserved", err, store.ErrConflict)
	wantSame(t, "while it runs", have, store.IdempotentAnswer{Fingerprint: "f"})
	for _, free := range [][2]string{{"b", "k"}, {"a", "K"}, {"a", "\x00\xff größe"}, {"", ""}} {
		_, err := reserve(free[0], free[1], "f", now)
		must(t, err)
		_, err = reserve(free[0], free[1], "f", now)
		wantErr(t, "reserved", err, store.ErrConflict)
	}

	want := store.IdempotentAnswer{Fingerprint: "f", Status: 201, Head: `"5"`, Body: []byte("\x00\xffbody")}
	must(t, s.AnswerKey(ctx, "a", "k", want))
	for _, at := range []time.Time{now, now.Add(-hour), now.Add(hour)} {
		have, err = reserve("a", "k", "f", at)
		wantErr(t, "answered", err, store.ErrConflict)
		wantSame(t, "answer", have, want)
	}
	late := now.Add(hour + time.Microsecond)
	have, err = reserve("a", "k", "f2", late)
	must(t, err)
	wantSame(t, "too old", have, store.IdempotentAnswer{})
	have, err = reserve("a", "k", "f", late)
	wantErr(t, "reserved anew", err, store.ErrConflict)
	wantSame(t, "anew", have, store.IdempotentAnswer{Fingerprint: "f2"})

	must(t, s.AnswerKey(ctx, "a", "k", store.IdempotentAnswer{}))
	_, err = reserve("a", "k", "f3", late)
	must(t, err)
	must(t, s.AnswerKey(ctx, "a", "not reserved", want))
	_, err = reserve("a", "not reserved", "f", late)
	must(t, err)

	won := race(t, 8, store.ErrConflict, func(int) error {
		_, err := reserve("a", "contended", "f", late)
		return err
	})
	if won != 1 {
		t.Fatalf("%d calls reserved one key", won)
	}
	won = race(t, 8, store.ErrConflict, func(int) error {
		_, err := reserve("a", "contended", "f", late.Add(hour+time.Second))
		return err
	})
	if won != 1 {
		t.Fatalf("%d calls took over one old key", won)
	}
}
