// Package pgtest gives tests a real Postgres. Most tests want a database of
// their own and call New; tests that kill, stop or restart the server start one
// for themselves with StartServer. Imported by tests and test tools only; Linux
// only.
//
// A package that calls New says so in its TestMain:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
package pgtest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// shared is the one server of this test binary that New uses, started by the
// first call.
var shared struct {
	sync.Mutex
	hasMain bool
	server  *Server
	failed  error
}

var databases atomic.Int64

// Main runs the package's tests, stops the server that New started, and fails
// the run when goroutines are left over (see goleak for the options).
func Main(m *testing.M, options ...goleak.Option) {
	shared.hasMain = true
	goleak.VerifyTestMain(stopping{m}, options...)
}

type stopping struct{ m *testing.M }

// Run is what goleak calls before it counts goroutines.
func (s stopping) Run() int {
	code := s.m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		if err := shared.server.Close(); err != nil {
			fmt.Println("pgtest:", err)
			code = max(code, 1)
		}
		shared.server = nil
	}
	return code
}

// New makes an empty database for this test and returns its URL. It is dropped,
// connections and all, when the test ends. Where no Postgres is installed the
// test is skipped, or failed with WHIMBREL_REQUIRE=1.
func New(tb testing.TB) (url string) {
	tb.Helper()
	server := sharedServer(tb)
	name := fmt.Sprintf("t%d", databases.Add(1))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := server.exec(ctx, "CREATE DATABASE "+name); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Error(err)
		}
	})
	return server.URL(name)
}

func sharedServer(tb testing.TB) *Server {
	tb.Helper()
	bin := programs(tb)
	shared.Lock()
	defer shared.Unlock()
	if !shared.hasMain {
		// Otherwise the server would outlive the tests.
		tb.Fatal("pgtest.New needs `func TestMain(m *testing.M) { pgtest.Main(m) }` in this package")
	}
	if shared.server == nil && shared.failed == nil {
		shared.server, shared.failed = open(bin, Options{})
	}
	if shared.failed != nil {
		tb.Fatal(shared.failed)
	}
	return shared.server
}

// exec runs one statement in the maintenance database.
func (s *Server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.socketURL())
	if err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	_, err = conn.Exec(ctx, sql)
	if closeErr := conn.Close(ctx); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("pgtest: %s: %w", sql, err)
	}
	return nil
}
