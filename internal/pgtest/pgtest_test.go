package pgtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { Main(m) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec1(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func count(t *testing.T, c *pgx.Conn, table string) (n int) {
	t.Helper()
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDatabasesAreSeparateAndDropped(t *testing.T) {
	var gone string
	t.Run("first", func(t *testing.T) {
		gone = New(t)
		c := connect(t, gone)
		exec1(t, c, "CREATE TABLE mine (id int)")

		other := connect(t, New(t))
		exec1(t, other, "CREATE TABLE mine (id int)")
		exec1(t, other, "INSERT INTO mine VALUES (1)")
		if n := count(t, c, "mine"); n != 0 {
			t.Errorf("%d rows came over from another test's database", n)
		}
	})
	if _, err := pgx.Connect(t.Context(), gone); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("connecting after the test ended: %v, want that the database does not exist", err)
	}
}

func TestDropsDatabaseInUse(t *testing.T) {
	var left *pgx.Conn
	t.Run("leaves a connection", func(t *testing.T) {
		var err error
		if left, err = pgx.Connect(t.Context(), New(t)); err != nil {
			t.Fatal(err)
		}
	})
	if err := left.Ping(t.Context()); err == nil {
		t.Error("the connection outlived its database")
	}
}

func TestKilledServerComesBackWithEveryCommit(t *testing.T) {
	s := StartServer(t, Options{})
	url := s.URL("postgres")
	c := connect(t, url)
	exec1(t, c, "CREATE TABLE log (id int PRIMARY KEY)")
	exec1(t, c, "INSERT INTO log SELECT generate_series(1, 1000)")
	exec1(t, c, "BEGIN")
	exec1(t, c, "INSERT INTO log VALUES (1001)") // never committed

	if err := s.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ping(t.Context()); err == nil {
		t.Error("a connection survived kill -9")
	}
	if _, err := pgx.Connect(t.Context(), url); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting to the killed server: %v, want refused", err)
	}
	if err := s.Kill9(); err != nil {
		t.Errorf("killing it again: %v", err)
	}

	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if s.URL("postgres") != url {
		t.Errorf("the URL changed from %s to %s", url, s.URL("postgres"))
	}
	if n := count(t, connect(t, url), "log"); n != 1000 {
		t.Errorf("%d rows after kill -9, want the 1000 committed ones", n)
	}
}

func TestRestartKeepsDataAndAddress(t *testing.T) {
	s := StartServer(t, Options{Fsync: true, Settings: map[string]string{"max_connections": "33"}})
	c := connect(t, s.URL("postgres"))
	var fsync, most string
	if err := c.QueryRow(t.Context(), "SELECT current_setting('fsync'), current_setting('max_connections')").Scan(&fsync, &most); err != nil {
		t.Fatal(err)
	}
	if fsync != "on" || most != "33" {
		t.Errorf("fsync=%s max_connections=%s, want on and 33", fsync, most)
	}
	exec1(t, c, "CREATE TABLE kept AS SELECT 1 AS id")
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, connect(t, s.URL("postgres")), "kept"); n != 1 {
		t.Errorf("%d rows after a restart, want 1", n)
	}
	if err := s.Start(); err == nil {
		t.Error("a running server was started a second time")
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Errorf("stopping a stopped server: %v", err)
	}
}

func TestBadSettingIsReportedWithTheLog(t *testing.T) {
	_, err := open(programs(t), Options{Settings: map[string]string{"shared_buffers": "a lot"}})
	if err == nil || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("open = %v, want the server's own complaint", err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	s, err := open(programs(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir, pid := s.dir, s.proc.Pid
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	if !gone(pid) {
		t.Errorf("process %d is still there", pid)
	}
}

// TestServerDiesWithTheTestBinary runs this test binary once more as a child
// that starts a server and hangs, and kills the child.
func TestServerDiesWithTheTestBinary(t *testing.T) {
	const report = "PGTEST_CHILD_REPORT"
	if path := os.Getenv(report); path != "" {
		s := StartServer(t, Options{})
		t.Log(os.WriteFile(path+".tmp", []byte(s.dir), 0o600), os.Rename(path+".tmp", path))
		select {} // until the parent kills this process
	}
	programs(t)
	path := filepath.Join(t.TempDir(), "report")
	child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), report+"="+path)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait() // the error is that it was killed
	var dir []byte
	eventually(t, func() bool {
		var err error
		dir, err = os.ReadFile(path)
		return err == nil
	})
	t.Cleanup(func() { os.RemoveAll(string(dir)) })
	lock := filepath.Join(string(dir), "data", "postmaster.pid")
	if _, err := os.Stat(lock); err != nil {
		t.Fatalf("the child's server is not running: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// An immediate shutdown removes the lock file.
	eventually(t, func() bool {
		_, err := os.Stat(lock)
		return errors.Is(err, os.ErrNotExist)
	})
}

func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatal("did not happen in 20 s")
		}
		time.Sleep(20 * time.Millisecond) //sleep: polls another process
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		New(b)
	}
}
