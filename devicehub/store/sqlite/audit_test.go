package sqlite

import (
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

func TestAuditIsOnlyAddedTo(t *testing.T) {
	s := openNew(t)
	if err := s.AppendAudit(t.Context(), []store.AuditEntry{{Time: time.Now(), Action: store.AuditCreated, Kind: "Token", Name: "anna"}}); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{`UPDATE audit SET name = 'bert'`, `DELETE FROM audit`, `INSERT OR REPLACE INTO audit SELECT id, time_us, by_user, action, kind, namespace, 'bert', uid, revision, fields, detail FROM audit`} {
		if _, err := s.write.ExecContext(t.Context(), query); err == nil {
			t.Errorf("%s succeeded", query)
		}
	}
	if page, err := s.AuditPage(t.Context(), store.AuditQuery{}, 0, 10); err != nil || len(page) != 1 || page[0].Name != "anna" {
		t.Errorf("audit %+v, error %v", page, err)
	}
}

// TestHistoryView reads samples of every kind as people do.
func TestHistoryView(t *testing.T) {
	s := openNew(t)
	if err := s.Commit(t.Context(), store.Commit{Revision: 1, Put: []store.Object{{Kind: "Device", Namespace: "plant", Name: "boiler-1", UID: "u", JSON: []byte(`{}`)}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.ExecContext(t.Context(), `INSERT INTO series VALUES (1, 'u', 1, 'p');
		INSERT INTO samples VALUES (1, 0, 1, 3, 0, 0, -1, NULL), (1, 1, 2, 3, 0, 0, -9223372036854775808, NULL), (1, 2, 3, 3, 0, 0, -7, NULL),
			(1, 3, 4, 1, 0, 0, 1, NULL), (1, 4, 5, 2, 1, 0, -5, 'stale'), (1, 5, 6, 4, 0, 0, 1.5, NULL), (1, 6, 7, 5, 0, 0, x'6f6e', NULL),
			(1, -1, 0, 0, 2, 0, NULL, 'timeout')`); err != nil {
		t.Fatal(err)
	}
	have := column(t, s.write, `SELECT concat_ws(' ', time, coalesce(value, '-'), coalesce(text, '-'), quality, reason) FROM history
		WHERE namespace = 'plant' AND device = 'boiler-1' AND property = 'p' ORDER BY time`)
	want := []string{
		"1969-12-31T23:59:59.999999Z - - bad timeout",
		"1970-01-01T00:00:00.000000Z 1.8446744073709552e+19 18446744073709551615 good",
		"1970-01-01T00:00:00.000001Z 9.2233720368547758e+18 9223372036854775808 good",
		"1970-01-01T00:00:00.000002Z 1.8446744073709552e+19 18446744073709551609 good",
		"1970-01-01T00:00:00.000003Z 1 true good",
		"1970-01-01T00:00:00.000004Z -5 -5 uncertain stale",
		"1970-01-01T00:00:00.000005Z 1.5 1.5 good",
		"1970-01-01T00:00:00.000006Z - on good",
	}
	for i := range want {
		if i >= len(have) || have[i] != want[i] {
			t.Fatalf("have\n%q\nwant\n%q", have, want)
		}
	}
}
