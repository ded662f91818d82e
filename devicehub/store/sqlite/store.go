// Package sqlite keeps what the hub keeps in one SQLite file: it implements the
// stores of packages store and identity. Only the hub's wiring imports it.
//
// SQLite has one writer at a time, so there is one connection that writes, and
// calls queue for it in this process instead of failing with "database is
// locked"; reads have connections of their own and never wait for it (WAL).
// Every commit is on the disk when it returns (synchronous=FULL).
package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/migrations"
)

// Store is an open database.
type Store struct {
	write *sql.DB // one connection; never used inside a transaction on it
	read  *sql.DB

	// Prepared on write: adding one sample, and many.
	addOne, addMany *sql.Stmt

	noting sync.Mutex        // held by Ingest and Compact
	noted  map[hour]struct{} // hours that are in rollups_due
}

var (
	_ store.Store         = (*Store)(nil)
	_ identity.Secrets    = (*Store)(nil)
	_ identity.JoinTokens = (*Store)(nil)
	_ identity.APITokens  = (*Store)(nil)
)

const (
	readers     = 4
	busyTimeout = "10000" // ms; only another process can be in the way
)

// Open opens the database file at path, making it when there is none, and brings
// its schema up to date. The file is for its owner only: it holds sealed keys.
func Open(ctx context.Context, path string, log *slog.Logger) (*Store, error) {
	s, version, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	log.Info("database is open", "engine", "sqlite", "path", path, "schema", version)
	return s, nil
}

func open(ctx context.Context, path string) (_ *Store, version int64, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return nil, 0, err
	}
	// SQLite would make it readable for everyone; its other files take this one's mode.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, err
	}
	if err := f.Close(); err != nil {
		return nil, 0, err
	}
	s := &Store{noted: map[hour]struct{}{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.write, err = sql.Open("sqlite3", dsn(path, url.Values{
		"_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_foreign_keys": {"1"},
		"_busy_timeout": {busyTimeout}, "_txlock": {"immediate"}, "_cache_size": {"-16000"},
	})); err != nil {
		return nil, 0, err
	}
	s.write.SetMaxOpenConns(1)
	if version, err = migrations.HubSQLite.Up(ctx, s.write); err != nil {
		return nil, 0, err
	}
	id, err := ulid.New(ulid.Timestamp(time.Now()), rand.Reader)
	if err != nil {
		return nil, 0, err
	}
	if _, err = s.write.ExecContext(ctx, `UPDATE hub SET lineage = ? WHERE lineage = ''`, id.String()); err != nil {
		return nil, 0, err
	}
	// A log that grew in a long transaction is cut back to this.
	if _, err = s.write.ExecContext(ctx, `PRAGMA journal_size_limit = 67108864`); err != nil {
		return nil, 0, err
	}
	if err = s.prepare(ctx); err != nil {
		return nil, 0, err
	}
	if s.read, err = sql.Open("sqlite3", dsn(path, url.Values{
		"mode": {"ro"}, "_query_only": {"1"}, "_busy_timeout": {busyTimeout}, "_cache_size": {"-8000"},
	})); err != nil {
		return nil, 0, err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	if err = s.read.PingContext(ctx); err != nil {
		return nil, 0, err
	}
	return s, version, nil
}

func dsn(path string, options url.Values) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: options.Encode()}
	return u.String()
}

// Close implements store.Store.
func (s *Store) Close() error {
	var err error
	if s.read != nil {
		err = s.read.Close()
	}
	for _, stmt := range []*sql.Stmt{s.addOne, s.addMany} {
		if stmt != nil {
			err = errors.Join(err, stmt.Close())
		}
	}
	// Last, for the last connection to close empties the write-ahead log.
	if s.write != nil {
		err = errors.Join(err, s.write.Close())
	}
	return err
}

// Lineage implements store.Meta.
func (s *Store) Lineage(ctx context.Context) (lineage string, err error) {
	if err := s.read.QueryRowContext(ctx, `SELECT lineage FROM hub`).Scan(&lineage); err != nil {
		return "", fmt.Errorf("read lineage: %w", err)
	}
	return lineage, nil
}

// Date implements store.Meta.
func (s *Store) Date(ctx context.Context) (d store.Date, err error) {
	var us, doubted int64
	if err := s.read.QueryRowContext(ctx, `SELECT date_us, doubted_us FROM hub`).Scan(&us, &doubted); err != nil {
		return d, fmt.Errorf("read the date: %w", err)
	}
	if us != 0 {
		d.Time = time.UnixMicro(us).UTC()
	}
	d.Doubted = time.Duration(doubted) * time.Microsecond
	return d, nil
}

// SetDate implements store.Meta.
func (s *Store) SetDate(ctx context.Context, d store.Date) error {
	if _, err := s.write.ExecContext(ctx, `UPDATE hub SET date_us = ?, doubted_us = ?`, d.Time.UnixMicro(), d.Doubted.Microseconds()); err != nil {
		return fmt.Errorf("store the date: %w", err)
	}
	return nil
}

// Versions implements store.Meta.
func (s *Store) Versions(ctx context.Context) (v store.Versions, err error) {
	if err := s.read.QueryRowContext(ctx, `SELECT twin_era, twin_open FROM hub`).Scan(&v.Era, &v.Open); err != nil {
		return v, fmt.Errorf("read the era of versions: %w", err)
	}
	return v, nil
}

// SetVersions implements store.Meta.
func (s *Store) SetVersions(ctx context.Context, v store.Versions) error {
	if _, err := s.write.ExecContext(ctx, `UPDATE hub SET twin_era = ?, twin_open = ?`, v.Era, v.Open); err != nil {
		return fmt.Errorf("store the era of versions: %w", err)
	}
	return nil
}

// tx runs f in a writing transaction. Statements in f take no context, which
// would cost a goroutine each: when ctx ends the transaction is rolled back and
// the next statement fails.
func (s *Store) tx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err = f(tx); err == nil {
		err = tx.Commit()
	}
	if err == nil {
		return nil
	}
	if undo := tx.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
		err = errors.Join(err, undo)
	}
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// each runs a query for reading and f for each of its rows.
func each(ctx context.Context, db interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}, f func(*sql.Rows) error, query string, args ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close() // an error of it would show in rows.Err
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// isUnique reports whether err says that a key is taken.
func isUnique(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.ExtendedCode == sqlite3.ErrConstraintUnique || e.ExtendedCode == sqlite3.ErrConstraintPrimaryKey)
}

// micros is a time as it is stored, NULL for the zero time.
func micros(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMicro(), Valid: !t.IsZero()}
}

func fromMicros(us sql.NullInt64) time.Time {
	if !us.Valid {
		return time.Time{}
	}
	return time.UnixMicro(us.Int64).UTC()
}
