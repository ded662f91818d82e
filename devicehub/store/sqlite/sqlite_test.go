package sqlite

import (
	"database/sql"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/identity/identitytest"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openAt(tb testing.TB, path string) *Store {
	tb.Helper()
	s, err := Open(tb.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func openNew(tb testing.TB) *Store {
	s := openAt(tb, filepath.Join(tb.TempDir(), "hub.db"))
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Database {
		// A name that would be misread in an address.
		path := filepath.Join(t.TempDir(), "a b%41?mode=memory#c.db")
		var s *Store
		return storetest.Database{
			Open: func(t *testing.T) store.Store {
				s = openAt(t, path)
				return s
			},
			Break: func(t *testing.T, table string) func() {
				exec(t, s.write, `CREATE TRIGGER broken BEFORE INSERT ON `+table+` BEGIN SELECT RAISE(ABORT, 'injected'); END`)
				return func() { exec(t, s.write, `DROP TRIGGER broken`) }
			},
		}
	})
}

func exec(t *testing.T, db *sql.DB, query string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func TestIdentity(t *testing.T) {
	identitytest.Run(t, func(t *testing.T) identity.Stores {
		// Users and nodes are objects: the registry answers for them.
		s, objects := openNew(t), identitytest.NewMemory()
		return identity.Stores{Secrets: s, JoinTokens: s, APITokens: s, Users: objects, Nodes: objects}
	})
}

func TestFileIsForItsOwner(t *testing.T) {
	s := openNew(t)
	if _, err := s.StartEpoch(t.Context(), "n", "e", time.Now()); err != nil {
		t.Fatal(err)
	}
	var path string
	if err := s.read.QueryRow(`SELECT file FROM pragma_database_list`).Scan(&path); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", info.Name(), info.Mode())
		}
	}
}

func TestSettings(t *testing.T) {
	s := openNew(t)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var have string
		if err := s.write.QueryRow(`PRAGMA ` + pragma).Scan(&have); err != nil || have != want {
			t.Errorf("%s is %s, want %s (error %v)", pragma, have, want, err)
		}
	}
	if _, err := s.read.Exec(`DELETE FROM hub`); err == nil {
		t.Error("the connections for reading can write")
	}
}

func TestRefusesWhatItCannotOpen(t *testing.T) {
	dir := t.TempDir()
	for what, path := range map[string]string{
		"a directory":        dir,
		"no such directory":  filepath.Join(dir, "missing", "hub.db"),
		"not a database":     write(t, dir, "text.db", strings.Repeat("this is no database. ", 1000)),
		"an unknown version": newer(t, filepath.Join(dir, "newer.db")),
	} {
		s, err := Open(t.Context(), path, slog.New(slog.DiscardHandler))
		if err == nil {
			t.Errorf("%s was opened", what)
			s.Close()
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error does not name it: %v", what, err)
		}
	}
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newer makes a database of a release to come.
func newer(t *testing.T, path string) string {
	s := openAt(t, path)
	exec(t, s.write, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (4711, 1)`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

var dumpTo = flag.String("dump", "", "write a dump of a filled database to this file, for testdata")

func TestOldDatabases(t *testing.T) {
	if *dumpTo != "" {
		s := openNew(t)
		storetest.Fill(t, s, s, s, s)
		if err := os.WriteFile(*dumpTo, []byte(dump(t, s.write)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fresh := schema(t, openNew(t).write)
	files, err := filepath.Glob("testdata/version*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no old databases: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "hub.db")
			db, err := sql.Open("sqlite3", path)
			if err != nil {
				t.Fatal(err)
			}
			exec(t, db, string(text))
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			s := openAt(t, path)
			t.Cleanup(func() { s.Close() })
			storetest.CheckFilled(t, file, s, s, s, s)
			if have := schema(t, s.write); have != fresh {
				t.Errorf("its schema has become\n%s\nand a new one is\n%s", have, fresh)
			}
		})
	}
}

func schema(t *testing.T, db *sql.DB) string {
	return strings.Join(column(t, db, `SELECT type || ' ' || name || ': ' || sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type, name`), "\n")
}

func column(t *testing.T, db *sql.DB, query string) (out []string) {
	t.Helper()
	err := each(t.Context(), db, func(rows *sql.Rows) error {
		var s string
		err := rows.Scan(&s)
		out = append(out, s)
		return err
	}, query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}

// dump is the database as SQL.
func dump(t *testing.T, db *sql.DB) string {
	var out strings.Builder
	for _, create := range column(t, db, `SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type <> 'table', type DESC, name`) {
		out.WriteString(create + ";\n")
	}
	for _, table := range column(t, db, `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name`) {
		names := column(t, db, `SELECT name FROM pragma_table_info('`+table+`') ORDER BY cid`)
		rows := column(t, db, `SELECT quote(`+strings.Join(names, `) || ', ' || quote(`)+`) FROM `+table)
		for _, row := range rows {
			fmt.Fprintf(&out, "INSERT INTO %s (%s) VALUES (%s);\n", table, strings.Join(names, ", "), row)
		}
	}
	return out.String()
}

func BenchmarkIngest(b *testing.B) {
	s := openNew(b)
	var keys []store.SeriesKey
	for i := range 1000 {
		keys = append(keys, store.SeriesKey{DeviceUID: fmt.Sprint("d", i/10), Assignment: 1, Property: fmt.Sprint("p", i%10)})
	}
	ids, err := s.SeriesIDs(b.Context(), keys)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.StartEpoch(b.Context(), "n", "e", time.Now()); err != nil {
		b.Fatal(err)
	}
	acked, at := uint64(0), int64(0)
	for b.Loop() {
		acked++
		batch := store.Batch{NodeUID: "n", Epoch: "e", After: acked - 1, Acked: acked, Received: time.Now()}
		for i := range 10_000 {
			at++
			storetest.Add(&batch.Samples, ids[i%len(ids)], store.Sample{TimeUS: at, Kind: uint8(models.KindFloat), Float: float64(i)})
		}
		if err := s.Ingest(b.Context(), []store.Batch{batch}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(at)/b.Elapsed().Seconds(), "samples/s")
}

// TestWorker is the process that TestKilled kills.
func TestWorker(t *testing.T) {
	storetest.Worker(t, func(t *testing.T, database string) store.Store { return openAt(t, database) })
}

// TestKilled kills the process at every step that history takes: while late samples
// take back what their hours came to, while hours are rolled up, while old samples go.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	storetest.Killed(t, storetest.Killing{Database: path, Open: func(t *testing.T) store.Store { return openAt(t, path) },
		Steps: []string{"ingest.due", "history.rollup", "history.rollup.written", "ingest.due", "history.compacted", "history.expire"}})
}

// TestHistoryViewOfFloats: the text of a float is that float.
func TestHistoryViewOfFloats(t *testing.T) {
	s := openNew(t)
	if err := s.Commit(t.Context(), store.Commit{Revision: 1, Put: []store.Object{{Kind: "Device", Namespace: "plant", Name: "boiler-1", UID: "u", JSON: []byte(`{}`)}}}); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	want := []float64{0, 1, -1, 0.1, 1.0 / 3, 123456789.12345679, 1e15, 1e16, 1e21, 1e308, -math.MaxFloat64, math.SmallestNonzeroFloat64, 5e-324, 2.2250738585072014e-308, 1e-7, 71.5, 45.29999923706055}
	for range 2000 {
		if f := math.Float64frombits(random.Uint64()); !math.IsNaN(f) && !math.IsInf(f, 0) {
			want = append(want, f, float64(float32(random.Float64()*1e6)), math.Round(random.Float64()*1e6)/100)
		}
	}
	if _, err := s.write.ExecContext(t.Context(), `INSERT INTO series VALUES (1, 'u', 1, 'p')`); err != nil {
		t.Fatal(err)
	}
	for i, f := range want {
		if _, err := s.write.ExecContext(t.Context(), `INSERT INTO samples VALUES (1, ?, ?, 4, 0, 0, ?, NULL)`, i, i+1, f); err != nil {
			t.Fatal(err)
		}
	}
	for i, text := range column(t, s.write, `SELECT text FROM history ORDER BY time`) {
		if f, err := strconv.ParseFloat(text, 64); err != nil || f != want[i] {
			t.Errorf("%v is shown as %s", want[i], text)
		}
	}
	if have := column(t, s.write, `SELECT text FROM history ORDER BY time LIMIT 4`); strings.Join(have, " ") != "0 1 -1 0.1" {
		t.Errorf("simple ones are shown as %q", have)
	}
}
