package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

func audit(t *testing.T, s *subject) {
	ctx := t.Context()
	entry := func(n int64) store.AuditEntry {
		return store.AuditEntry{Time: now.Add(time.Duration(n) * time.Microsecond), By: "größe", Action: store.AuditChanged, Kind: "Device", Namespace: "plant",
			Name: fmt.Sprint("d", n), UID: "u", Revision: n, Fields: "/spec/node\n/spec/model", Detail: `{"größe": 1}`}
	}
	must(t, s.Commit(ctx, store.Commit{Revision: 2, Put: []store.Object{object("Device", "a", 2)}, Audit: []store.AuditEntry{entry(1), entry(2)}}))
	must(t, s.AppendAudit(ctx, []store.AuditEntry{entry(3)}))
	must(t, s.AppendAudit(ctx, nil))
	wantErr(t, "conflict", s.Commit(ctx, store.Commit{Revision: 1, Audit: []store.AuditEntry{entry(4)}}), store.ErrConflict)
	repair := s.db.Break(t, "objects")
	if err := s.Commit(ctx, store.Commit{Revision: 3, Put: []store.Object{object("Device", "b", 3)}, Audit: []store.AuditEntry{entry(4)}}); err == nil {
		t.Fatal("a commit succeeded with its table broken")
	}
	repair()
	s.reopen(t)
	must(t, s.AppendAudit(ctx, []store.AuditEntry{entry(5)}))
	page := func(before int64, limit int) (out []store.AuditEntry, last int64) {
		t.Helper()
		out, err := s.AuditPage(ctx, store.AuditQuery{}, before, limit)
		must(t, err)
		for i := range out {
			if last > 0 && out[i].ID >= last {
				t.Fatalf("entry %d comes after entry %d", out[i].ID, last)
			}
			last, out[i].ID = out[i].ID, 0
		}
		return out, last
	}
	all, _ := page(0, 100)
	wantSame(t, "all", all, []store.AuditEntry{entry(5), entry(3), entry(2), entry(1)})
	first, last := page(0, 2)
	rest, _ := page(last, 100)
	wantSame(t, "pages", append(first, rest...), all)
	var followed []store.AuditEntry
	for after := int64(0); ; {
		page, err := s.AuditAfter(ctx, after, 3)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			if e.ID <= after {
				t.Fatalf("entry %d follows %d", e.ID, after)
			}
			after, e.ID = e.ID, 0
			followed = append(followed, e)
		}
	}
	slices.Reverse(followed)
	wantSame(t, "followed", followed, all)
	auditChosen(t, s)
}

// auditChosen: whatever chooses entries chooses the same as Match, also together
// with pages.
func auditChosen(t *testing.T, s *subject) {
	ctx := t.Context()
	var all []store.AuditEntry
	for n := range 24 {
		all = append(all, store.AuditEntry{Time: now.Add(time.Duration(n) * time.Minute), By: []string{"", "ann", "bob"}[n%3], Action: []string{store.AuditCreated, store.AuditDeleted}[n/12],
			Kind: []string{"Device", "Token"}[n%2], Namespace: []string{"", "chosen"}[n%2], Name: fmt.Sprint("c", n%4), UID: fmt.Sprint("chosen", n%5)})
	}
	must(t, s.AppendAudit(ctx, all))
	slices.Reverse(all)
	for _, q := range []store.AuditQuery{{UID: "chosen1"}, {UID: "chosen2", By: "ann"}, {Namespace: "chosen"}, {Namespace: "chosen", Kind: "Device"}, {Namespace: "chosen", Kind: "Token", Action: store.AuditDeleted},
		{Name: "c3", By: "bob"}, {Since: now.Add(20 * time.Minute)}, {Since: now.Add(7*time.Minute + time.Microsecond), By: "ann", Name: "c0"}, {By: "' OR 1=1"}} {
		var want []store.AuditEntry
		for _, e := range all {
			if q.Match(e) {
				want = append(want, e)
			}
		}
		var got []store.AuditEntry
		for before := int64(0); ; {
			page, err := s.AuditPage(ctx, q, before, 2)
			must(t, err)
			if len(page) == 0 {
				break
			}
			for _, e := range page {
				before, e.ID = e.ID, 0
				got = append(got, e)
			}
		}
		wantSame(t, fmt.Sprintf("%+v", q), got, want)
	}
}
