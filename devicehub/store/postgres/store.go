// Package postgres keeps what the hub keeps in a Postgres database: it
// implements the stores of packages store and identity. Only the hub's wiring
// imports it.
//
// What belongs together goes to the server in one round trip: a pipeline without
// BEGIN is one implicit transaction. Steps that compare before they set are
// functions in the schema that fail, and with them the whole pipeline.
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/migrations"
)

// Store is an open database.
type Store struct {
	pool *pgxpool.Pool

	compacting sync.Mutex     // held by Compact; protects those below
	partitions map[int64]bool // periods whose partitions are there
	merged     time.Time      // when there was last nothing to merge
	removed    int            // rows taken out of samples_batch since it was vacuumed
	vacuumed   time.Time      // when it was last done for want of other work
	replaced   int            // chunks taken out of samples_young since then
}

var (
	_ store.Store         = (*Store)(nil)
	_ identity.Secrets    = (*Store)(nil)
	_ identity.JoinTokens = (*Store)(nil)
	_ identity.APITokens  = (*Store)(nil)
)

// What the SQLSTATEs that are asked for mean.
const (
	codeConflict = "WB001" // raised by the functions of the schema
	codeUnique   = "23505"
)

// migrationLock is the advisory lock under which hubs that start together
// migrate one after the other. The number means nothing.
const migrationLock = 0x77686d62726c

// Open connects to the database that url names and brings its schema up to
// date. The pool's size may be set in the url (pool_max_conns).
func Open(ctx context.Context, url string, log *slog.Logger) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err) // pgx leaves the password out
	}
	if _, set := cfg.ConnConfig.RuntimeParams["application_name"]; !set {
		cfg.ConnConfig.RuntimeParams["application_name"] = "whimbrel"
	}
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		acceptEncoded(c.TypeMap())
		// What is acknowledged must survive a power cut, whatever the database's
		// default is.
		// Statements here are short, and many partitions make them look long: compiling
		// one takes longer than running it.
		_, err := c.Exec(ctx, `SET jit = off; SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`)
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	s := &Store{pool: pool, partitions: map[int64]bool{}}
	version, err := s.migrate(ctx, cfg.ConnConfig)
	if err == nil {
		err = s.nameLineage(ctx)
	}
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("open database %s on %s: %w", cfg.ConnConfig.Database, cfg.ConnConfig.Host, err)
	}
	log.Info("database is open", "engine", "postgres", "host", cfg.ConnConfig.Host,
		"database", cfg.ConnConfig.Database, "schema", version)
	return s, nil
}

func (s *Store) migrate(ctx context.Context, cfg *pgx.ConnConfig) (version int64, err error) {
	lock, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	// Closed and not returned to the pool: the lock goes with its connection.
	defer func() { err = errors.Join(err, lock.Hijack().Close(context.WithoutCancel(ctx))) }()
	if _, err := lock.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(migrationLock)); err != nil {
		return 0, err
	}
	db := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, db.Close()) }()
	return migrations.HubPostgres.Up(ctx, db)
}

func (s *Store) nameLineage(ctx context.Context) error {
	id, err := ulid.New(ulid.Timestamp(time.Now()), rand.Reader)
	if err != nil {
		return err
	}
	_, err = s.pool.Exec(ctx, `UPDATE hub SET lineage = $1 WHERE lineage = ''`, id.String())
	return err
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// Lineage implements store.Meta.
func (s *Store) Lineage(ctx context.Context) (lineage string, err error) {
	if err := s.pool.QueryRow(ctx, `SELECT lineage FROM hub`).Scan(&lineage); err != nil {
		return "", fmt.Errorf("read lineage: %w", err)
	}
	return lineage, nil
}

// Date implements store.Meta.
func (s *Store) Date(ctx context.Context) (d store.Date, err error) {
	var us, doubted int64
	if err := s.pool.QueryRow(ctx, `SELECT date_us, doubted_us FROM hub`).Scan(&us, &doubted); err != nil {
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
	if _, err := s.pool.Exec(ctx, `UPDATE hub SET date_us = $1, doubted_us = $2`, d.Time.UnixMicro(), d.Doubted.Microseconds()); err != nil {
		return fmt.Errorf("store the date: %w", err)
	}
	return nil
}

// Versions implements store.Meta.
func (s *Store) Versions(ctx context.Context) (v store.Versions, err error) {
	if err := s.pool.QueryRow(ctx, `SELECT twin_era, twin_open FROM hub`).Scan(&v.Era, &v.Open); err != nil {
		return v, fmt.Errorf("read the era of versions: %w", err)
	}
	return v, nil
}

// SetVersions implements store.Meta.
func (s *Store) SetVersions(ctx context.Context, v store.Versions) error {
	if _, err := s.pool.Exec(ctx, `UPDATE hub SET twin_era = $1, twin_open = $2`, v.Era, v.Open); err != nil {
		return fmt.Errorf("store the era of versions: %w", err)
	}
	return nil
}

// send runs the batch as one transaction in one round trip.
func (s *Store) send(ctx context.Context, b *pgx.Batch) error {
	err := s.pool.SendBatch(ctx, b).Close()
	if code(err) == codeConflict {
		return store.ErrConflict
	}
	return err
}

// code returns the SQLSTATE that err brings, or "".
func code(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}
