package postgres

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/identity/identitytest"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func openAt(tb testing.TB, url string) *Store {
	tb.Helper()
	s, err := Open(tb.Context(), url, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func openNew(tb testing.TB) *Store {
	s := openAt(tb, pgtest.New(tb))
	tb.Cleanup(func() { s.Close() })
	return s
}

// emptied is a database that is made as good as new again and again, in a tenth of
// the time that migrating an empty one takes.
type emptied struct{ url, reset string }

func newEmptied(t *testing.T) emptied {
	t.Helper()
	url := pgtest.New(t)
	if err := openAt(t, url).Close(); err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	run(t, c, `UPDATE hub SET lineage = ''; CREATE SCHEMA seed`)
	names := func(query string) []string {
		t.Helper()
		rows, err := c.Query(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		out, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	tables := names(`SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname !~ 'goose'`)
	// As a replica would: the audit's trigger lets nobody delete.
	reset := `SET session_replication_role = replica;
		DO $$ DECLARE name text; BEGIN
			FOR name IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'samples_chunk'::regclass AND inhrelid <> 'samples_chunk_default'::regclass LOOP
				EXECUTE 'DROP TABLE ' || name;
			END LOOP; END $$;
		DELETE FROM ` + strings.Join(tables, "; DELETE FROM ") + `;
		SELECT setval(seqrelid, seqstart, false) FROM pg_sequence;`
	for _, table := range tables {
		// What migrations have put there.
		run(t, c, `CREATE TABLE seed.`+table+` AS TABLE `+table)
		if len(names(`SELECT 'row' FROM seed.`+table)) > 0 {
			reset += `INSERT INTO ` + table + ` OVERRIDING SYSTEM VALUE SELECT * FROM seed.` + table + `;`
		}
	}
	return emptied{url, reset}
}

func (e emptied) empty(t *testing.T) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), e.url)
	if err != nil {
		t.Fatal(err)
	}
	run(t, c, e.reset)
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	db := newEmptied(t)
	storetest.Run(t, func(t *testing.T) storetest.Database {
		db.empty(t)
		return storetest.Database{
			Open: func(t *testing.T) store.Store { return openAt(t, db.url) },
			Break: func(t *testing.T, table string) func() {
				c, err := pgx.Connect(t.Context(), db.url)
				if err != nil {
					t.Fatal(err)
				}
				if table == "samples" {
					table = "samples_batch"
				}
				run(t, c, `CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''injected''; END';
					CREATE TRIGGER broken BEFORE INSERT ON `+table+` FOR EACH ROW EXECUTE FUNCTION broken()`)
				return func() {
					run(t, c, `DROP FUNCTION broken CASCADE`)
					if err := c.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			},
		}
	})
}

// run runs any number of statements.
func run(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestIdentity(t *testing.T) {
	db := newEmptied(t)
	identitytest.Run(t, func(t *testing.T) identity.Stores {
		db.empty(t)
		s := openAt(t, db.url)
		t.Cleanup(func() { s.Close() })
		// Users and nodes are objects: the registry answers for them.
		objects := identitytest.NewMemory()
		return identity.Stores{Secrets: s, JoinTokens: s, APITokens: s, Users: objects, Nodes: objects}
	})
}

// TestOpenedByMany starts several hubs at once on an empty database.
func TestOpenedByMany(t *testing.T) {
	url := pgtest.New(t)
	lineages := make([]string, 4)
	var wg sync.WaitGroup
	for i := range lineages {
		wg.Go(func() {
			s, err := Open(t.Context(), url, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			lineages[i], err = s.Lineage(t.Context())
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, l := range lineages {
		if l == "" || l != lineages[0] {
			t.Fatalf("lineages %q", lineages)
		}
	}
}

func TestCommitsWaitForTheDisk(t *testing.T) {
	address := pgtest.New(t)
	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	run(t, c, `ALTER DATABASE `+c.Config().Database+` SET synchronous_commit = off`)
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, address)
	defer s.Close()
	var have string
	if err := s.pool.QueryRow(t.Context(), `SHOW synchronous_commit`).Scan(&have); err != nil || have != "on" {
		t.Fatalf("synchronous_commit is %q, error %v", have, err)
	}
}

// TestSecretsStayOut gives a password that is wrong and one that does not parse.
func TestSecretsStayOut(t *testing.T) {
	var logged strings.Builder
	log := slog.New(slog.NewTextHandler(&logged, nil))
	good, err := url.Parse(pgtest.New(t))
	if err != nil {
		t.Fatal(err)
	}
	good.User = url.UserPassword("postgres", "correct-horse")
	s, err := Open(t.Context(), good.String(), log)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if !strings.Contains(logged.String(), "engine=postgres") || strings.Contains(logged.String(), "horse") {
		t.Errorf("logged %s", logged.String())
	}
	for _, bad := range []string{
		"postgres://postgres:correct-horse@" + good.Host + "/no-such-database?sslmode=disable",
		"postgres://postgres:correct-horse@127.0.0.1:1/t?sslmode=disable",
		"postgres://postgres:correct-horse@127.0.0.1:port/t",
	} {
		s, err := Open(t.Context(), bad, log)
		if err == nil {
			s.Close()
			t.Errorf("%s was opened", bad)
		} else if strings.Contains(err.Error(), "horse") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestRefusesNewerDatabase(t *testing.T) {
	address := pgtest.New(t)
	s := openAt(t, address)
	if _, err := s.pool.Exec(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (4711, true)`); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err := Open(t.Context(), address, slog.New(slog.DiscardHandler)); err == nil {
		s.Close()
		t.Error("a database of a newer release was opened")
	}
}

// TestKilledServer kills Postgres while many ingest and wants what was
// acknowledged, no more and no less.
func TestKilledServer(t *testing.T) {
	server := pgtest.StartServer(t, pgtest.Options{})
	s := openAt(t, server.URL("postgres"))
	t.Cleanup(func() { s.Close() })
	const nodes, perCall = 4, 50
	ctx := t.Context()
	told := [nodes]uint64{} // acknowledged to the caller
	for round := range 2 {
		var wg sync.WaitGroup
		enough := make(chan struct{})
		var once sync.Once
		for i := range nodes {
			node := fmt.Sprint("n", i)
			epoch, err := s.StartEpoch(ctx, node, "e", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if epoch.Acked < told[i] {
				t.Fatalf("node %d: %d was acknowledged and %d is there", i, told[i], epoch.Acked)
			}
			ids, err := s.SeriesIDs(ctx, []store.SeriesKey{{DeviceUID: node, Assignment: 1, Property: "p"}})
			if err != nil {
				t.Fatal(err)
			}
			told[i] = epoch.Acked
			wg.Go(func() {
				for seq := epoch.Acked + 1; ; seq++ {
					if seq == epoch.Acked+20 {
						once.Do(func() { close(enough) })
					}
					b := store.Batch{NodeUID: node, Epoch: "e", After: seq - 1, Acked: seq, Received: time.Now()}
					for k := range perCall {
						storetest.Add(&b.Samples, ids[0], store.Sample{TimeUS: int64(seq), Kind: uint8(models.KindInt), Int: int64(k)})
					}
					if s.Ingest(ctx, []store.Batch{b}) != nil {
						return
					}
					told[i] = seq
				}
			})
		}
		<-enough
		if err := server.Kill9(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		for i := range nodes {
			node := fmt.Sprint("n", i)
			epochs, err := eventually(ctx, func() ([]store.Epoch, error) { return s.Epochs(ctx, node) })
			if err != nil {
				t.Fatal(err)
			}
			samples := uint64(0)
			if err := s.Samples(ctx, node, "p", 0, 1<<40, func(store.Sample) error { samples++; return nil }); err != nil {
				t.Fatal(err)
			}
			if acked := epochs[0].Acked; acked < told[i] || acked > told[i]+1 || samples != acked*perCall {
				t.Errorf("round %d, node %d: told %d, stored %d with %d samples", round, i, told[i], acked, samples)
			}
		}
	}
}

// eventually calls f until it succeeds: the pool finds out one by one that its
// connections are gone.
func eventually[T any](ctx context.Context, f func() (T, error)) (v T, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if v, err = f(); err == nil {
			return v, nil
		}
	}
	return v, err
}

var dumpTo = flag.String("dump", "", "write a dump of a filled database to this file, for testdata")

func TestOldDatabases(t *testing.T) {
	if *dumpTo != "" {
		address := pgtest.New(t)
		s := openAt(t, address)
		storetest.Fill(t, s, s, s, s)
		s.Close()
		if err := os.WriteFile(*dumpTo, []byte(dump(t, address)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fresh := schema(t, openNew(t))
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
			address := pgtest.New(t)
			c, err := pgx.Connect(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			run(t, c, string(text))
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			s := openAt(t, address)
			t.Cleanup(func() { s.Close() })
			storetest.CheckFilled(t, file, s, s, s, s)
			if have := schema(t, s); have != fresh {
				t.Errorf("its schema has become\n%s\nand a new one is\n%s", have, fresh)
			}
		})
	}
}

func schema(t *testing.T, s *Store) string {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), `
		SELECT concat_ws(' ', 'column', table_name, column_name, data_type, is_nullable, column_default, is_identity) AS line
			FROM information_schema.columns WHERE table_schema = 'public'
		UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
		UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
		UNION ALL SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
		ORDER BY line`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	// Partitions are made for the times of samples.
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "samples_chunk_20") })
	return strings.Join(lines, "\n")
}

// dump is the database as SQL that a plain connection can run.
func dump(t *testing.T, address string) string {
	programs, err := filepath.Glob("/usr/lib/postgresql/*/bin/pg_dump")
	if err != nil || len(programs) == 0 {
		t.Fatalf("no pg_dump: %v", err)
	}
	out, err := exec.CommandContext(t.Context(), programs[len(programs)-1], "--inserts", "--no-owner", "--no-privileges", address).Output()
	if err != nil {
		t.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(string(out)) {
		if line != "\n" && !strings.HasPrefix(line, "\\") && !strings.HasPrefix(line, "--") &&
			(!strings.HasPrefix(line, "SET ") || strings.HasPrefix(line, "SET check_function_bodies")) &&
			!strings.HasPrefix(line, "SELECT pg_catalog.set_config('search_path'") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// BenchmarkIngest measures with fsync, as in production; BenchmarkCopy is the
// bare COPY of the same samples as rows into a table with the index that reads
// would need.
func BenchmarkIngest(b *testing.B) {
	server := pgtest.StartServer(b, pgtest.Options{Fsync: true, Settings: map[string]string{"shared_buffers": "256MB"}})
	s := openAt(b, server.URL("postgres"))
	b.Cleanup(func() { s.Close() })
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
			storetest.Add(&batch.Samples, ids[i%len(ids)], store.Sample{TimeUS: at, Kind: uint8(models.KindFloat), Float: float64(i) / 7})
		}
		if err := s.Ingest(b.Context(), []store.Batch{batch}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(at)/b.Elapsed().Seconds(), "samples/s")
}

func BenchmarkCopy(b *testing.B) {
	server := pgtest.StartServer(b, pgtest.Options{Fsync: true, Settings: map[string]string{"shared_buffers": "256MB"}})
	c, err := pgx.Connect(b.Context(), server.URL("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(context.Background()) })
	if _, err := c.Exec(b.Context(), `CREATE TABLE samples (series bigint, time_us bigint, float_v float8)`); err != nil {
		b.Fatal(err)
	}
	if _, err := c.Exec(b.Context(), `CREATE INDEX ON samples (series, time_us)`); err != nil {
		b.Fatal(err)
	}
	at := int64(0)
	for b.Loop() {
		_, err := c.CopyFrom(b.Context(), pgx.Identifier{"samples"}, []string{"series", "time_us", "float_v"}, pgx.CopyFromSlice(10_000, func(i int) ([]any, error) {
			at++
			return []any{int64(i % 1000), at, float64(i) / 7}, nil
		}))
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(at)/b.Elapsed().Seconds(), "samples/s")
}
