// Package migrations holds the database schemas of hub and edge as ordered SQL
// files, embedded, and brings a database up to them. A file that has been
// released is never edited: a change is a new file with the next number.
//
// Each set of files has a folder and, beside this file, a small Go file with its
// embedded FS.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/pressly/goose/v3"

	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
)

// Dialect is the SQL that a set is written in.
type Dialect = goose.Dialect

// The dialects of Whimbrel's databases.
const (
	SQLite   = goose.DialectSQLite3
	Postgres = goose.DialectPostgres
)

// Set is one schema: files in Dir of FS, named 00001_what_it_does.sql.
type Set struct {
	FS      embed.FS
	Dir     string
	Dialect Dialect
}

// Up applies the files of the set that the database has not seen yet, each in a
// transaction of its own, and reports the version it is at then.
//
// A database that a newer release has brought further than this one knows is
// left as it is and is an error: an older program must not write to it.
func (s Set) Up(ctx context.Context, db *sql.DB) (version int64, err error) {
	files, err := fs.Sub(s.FS, s.Dir)
	if err != nil {
		return 0, fmt.Errorf("migrate %s: %w", s.Dir, err)
	}
	p, err := goose.NewProvider(s.Dialect, db, files,
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return 0, fmt.Errorf("migrate %s: %w", s.Dir, err)
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrate %s: %w", s.Dir, err)
	}
	if current > target {
		return 0, fmt.Errorf("migrate %s: the database is at version %d of a newer release, this one knows %d", s.Dir, current, target)
	}
	for {
		failpoint.Here("migration.step")
		_, err := p.UpByOne(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return target, nil
		}
		if err != nil {
			return 0, fmt.Errorf("migrate %s: %w", s.Dir, err)
		}
	}
}

// Up applies dir of files to db; see Set.Up.
func Up(ctx context.Context, db *sql.DB, dialect Dialect, files embed.FS, dir string) error {
	_, err := Set{FS: files, Dir: dir, Dialect: dialect}.Up(ctx, db)
	return err
}
