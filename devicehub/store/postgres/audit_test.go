package postgres

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
	for _, query := range []string{`UPDATE audit SET name = 'bert'`, `DELETE FROM audit`, `TRUNCATE audit`} {
		if _, err := s.pool.Exec(t.Context(), query); err == nil {
			t.Errorf("%s succeeded", query)
		}
	}
	if page, err := s.AuditPage(t.Context(), store.AuditQuery{}, 0, 10); err != nil || len(page) != 1 || page[0].Name != "anna" {
		t.Errorf("audit %+v, error %v", page, err)
	}
}
