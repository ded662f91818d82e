package migrations

import (
	"database/sql"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3"
)

func open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

func TestUp(t *testing.T) {
	db := open(t)
	for range 2 { // the second time there is nothing to do
		version, err := EdgeOutbox.Up(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		if version < 1 {
			t.Errorf("at version %d", version)
		}
	}
	if _, err := db.Exec(`INSERT INTO epoch VALUES (1, 'E', '', 0, 0)`); err != nil {
		t.Error(err)
	}
	if err := Up(t.Context(), open(t), SQLite, edgeOutbox, "edge/outbox"); err != nil {
		t.Error(err)
	}
	if err := Up(t.Context(), open(t), SQLite, edgeOutbox, "edge/nothing"); err == nil {
		t.Error("a set without files was applied")
	}
}

// TestNewerDatabase: after a downgrade, the old program leaves the database alone.
func TestNewerDatabase(t *testing.T) {
	db := open(t)
	if _, err := EdgeOutbox.Up(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`); err != nil {
		t.Fatal(err)
	}
	if _, err := EdgeOutbox.Up(t.Context(), db); err == nil || !strings.Contains(err.Error(), "newer release") {
		t.Errorf("err = %v", err)
	}
}

// TestFileNames: each number is used once, so that two changes made at once collide
// here and not in the field. A number may be left out.
func TestFileNames(t *testing.T) {
	name := regexp.MustCompile(`^(\d{5})_[a-z0-9_]+\.sql$`)
	dirs, err := filepath.Glob("*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		used := map[string]bool{}
		for _, file := range files {
			m := name.FindStringSubmatch(file.Name())
			if m == nil || used[m[1]] {
				t.Errorf("%s/%s: want a name such as 00007_what_it_does.sql, with a number of its own", dir, file.Name())
				continue
			}
			used[m[1]] = true
		}
	}
}
