package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

const eventColumns = `key, revision, kind, namespace, name, uid, field, warning, reason, message, source, node, first_us, last_us, count, recorded_us`

// insertEvents adds events, each of which is the latest change then.
func insertEvents(tx *sql.Tx, events []store.Event) error {
	for _, e := range store.FoldEvents(events) {
		if _, err := tx.Exec(`UPDATE event_count SET revision = revision + 1`); err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO events (`+eventColumns+`)
			SELECT ?, revision, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM event_count WHERE true
			ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, count = count + excluded.count, recorded_us = excluded.recorded_us,
				first_us = min(first_us, excluded.first_us), last_us = max(last_us, excluded.last_us),
				warning = iif(excluded.last_us < last_us, warning, excluded.warning), message = iif(excluded.last_us < last_us, message, excluded.message),
				source = iif(excluded.last_us < last_us, source, excluded.source), node = iif(excluded.last_us < last_us, node, excluded.node)`,
			e.Key, e.Kind, e.Namespace, e.Name, e.UID, e.Field, e.Warning, e.Reason, e.Message, e.Source, e.Node,
			e.First.UnixMicro(), e.Last.UnixMicro(), e.Count, e.Recorded.UnixMicro()); err != nil {
			return err
		}
	}
	return nil
}

// AddEvents implements store.Events.
func (s *Store) AddEvents(ctx context.Context, events []store.Event) error {
	if len(events) == 0 {
		return nil
	}
	if err := s.tx(ctx, func(tx *sql.Tx) error { return insertEvents(tx, events) }); err != nil {
		return fmt.Errorf("add events: %w", err)
	}
	return nil
}

func (s *Store) readEvents(ctx context.Context, query string, args ...any) (events []store.Event, err error) {
	err = each(ctx, s.read, func(rows *sql.Rows) error {
		var e store.Event
		var first, last, recorded int64
		if err := rows.Scan(&e.Key, &e.Revision, &e.Kind, &e.Namespace, &e.Name, &e.UID, &e.Field, &e.Warning, &e.Reason, &e.Message, &e.Source, &e.Node,
			&first, &last, &e.Count, &recorded); err != nil {
			return err
		}
		e.First, e.Last, e.Recorded = time.UnixMicro(first).UTC(), time.UnixMicro(last).UTC(), time.UnixMicro(recorded).UTC()
		events = append(events, e)
		return nil
	}, `SELECT `+eventColumns+` FROM events WHERE `+query, args...)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return events, nil
}

// where is a condition in the making.
type where struct {
	parts []string
	args  []any
}

func (w *where) add(condition string, values ...any) {
	w.parts, w.args = append(w.parts, condition), append(w.args, values...)
}

func (w *where) in(column, operator string, values []string) {
	if len(values) == 0 {
		return
	}
	w.parts = append(w.parts, column+" "+operator+" (?"+strings.Repeat(", ?", len(values)-1)+")")
	for _, v := range values {
		w.args = append(w.args, v)
	}
}

func (w *where) String() string {
	if len(w.parts) == 0 {
		return "true"
	}
	return strings.Join(w.parts, " AND ")
}

// EventsPage implements store.Events.
func (s *Store) EventsPage(ctx context.Context, q store.EventQuery) ([]store.Event, error) {
	var w where
	w.in("namespace", "IN", q.Namespaces)
	for column, value := range map[string]string{"kind": q.Kind, "name": q.Name, "uid": q.UID, "reason": q.Reason} {
		if value != "" {
			w.in(column, "IN", []string{value})
		}
	}
	if q.Warning != nil {
		w.add("warning = ?", *q.Warning)
	}
	if !q.Since.IsZero() {
		w.add("last_us >= ?", q.Since.UnixMicro())
	}
	w.in("kind", "NOT IN", q.HideKinds)
	if q.BeforeKey != "" {
		w.add("(last_us, key) < (?, ?)", q.BeforeUS, q.BeforeKey)
	}
	return s.readEvents(ctx, w.String()+` ORDER BY last_us DESC, key DESC LIMIT ?`, append(w.args, q.Limit)...)
}

// EventsAfter implements store.Events.
func (s *Store) EventsAfter(ctx context.Context, after int64, limit int) ([]store.Event, error) {
	return s.readEvents(ctx, `revision > ? ORDER BY revision LIMIT ?`, after, limit)
}

// EventsRevision implements store.Events.
func (s *Store) EventsRevision(ctx context.Context) (revision int64, err error) {
	if err := s.read.QueryRowContext(ctx, `SELECT revision FROM event_count`).Scan(&revision); err != nil {
		return 0, fmt.Errorf("read the events' revision: %w", err)
	}
	return revision, nil
}

// TrimEvents implements store.Events.
func (s *Store) TrimEvents(ctx context.Context, b store.EventBounds) error {
	if err := s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec(`DELETE FROM events WHERE recorded_us < ?`, b.Before.UnixMicro()); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM events WHERE key IN (SELECT key FROM (
				SELECT key, row_number() OVER (PARTITION BY kind, namespace, name, uid ORDER BY last_us DESC, key DESC) AS of_object,
					row_number() OVER (ORDER BY last_us DESC, key DESC) AS of_all
				FROM events
			) WHERE of_object > ? OR of_all > ?)`, b.PerObject, b.Total)
		return err
	}); err != nil {
		return fmt.Errorf("trim events: %w", err)
	}
	return nil
}
