package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

const eventColumns = `key, revision, kind, namespace, name, uid, field, warning, reason, message, source, node, first_us, last_us, count, recorded_us`

// queueEvents adds events. It takes the counter and holds it until the
// transaction ends, so it comes last.
func queueEvents(b *pgx.Batch, events []store.Event) {
	events = store.FoldEvents(events)
	if len(events) == 0 {
		return
	}
	var key, kind, namespace, name, uid, field, reason, message, source, node []string
	var warning []bool
	var first, last, count, recorded []int64
	for _, e := range events {
		key, kind, namespace, name, uid = append(key, e.Key), append(kind, e.Kind), append(namespace, e.Namespace), append(name, e.Name), append(uid, e.UID)
		field, reason, message, source, node = append(field, e.Field), append(reason, e.Reason), append(message, text(e.Message)), append(source, e.Source), append(node, e.Node)
		warning, count = append(warning, e.Warning), append(count, e.Count)
		first, last, recorded = append(first, e.First.UnixMicro()), append(last, e.Last.UnixMicro()), append(recorded, e.Recorded.UnixMicro())
	}
	b.Queue(`WITH counted AS (UPDATE event_count SET revision = revision + $1 RETURNING revision - $1 AS base)
		INSERT INTO events (`+eventColumns+`)
		SELECT key, base + n, kind, namespace, name, uid, field, warning, reason, message, source, node, first_us, last_us, count, recorded_us
		FROM counted, unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::boolean[], $9::text[], $10::text[], $11::text[], $12::text[],
			$13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[]) WITH ORDINALITY
			AS new (key, kind, namespace, name, uid, field, warning, reason, message, source, node, first_us, last_us, count, recorded_us, n)
		ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, count = events.count + excluded.count, recorded_us = excluded.recorded_us,
			first_us = least(events.first_us, excluded.first_us), last_us = greatest(events.last_us, excluded.last_us),
			warning = CASE WHEN excluded.last_us < events.last_us THEN events.warning ELSE excluded.warning END,
			message = CASE WHEN excluded.last_us < events.last_us THEN events.message ELSE excluded.message END,
			source = CASE WHEN excluded.last_us < events.last_us THEN events.source ELSE excluded.source END,
			node = CASE WHEN excluded.last_us < events.last_us THEN events.node ELSE excluded.node END`,
		int64(len(events)), key, kind, namespace, name, uid, field, warning, reason, message, source, node, first, last, count, recorded)
}

// text is a text as the database can hold it: a log must not be refused for a
// NUL in a message.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// AddEvents implements store.Events.
func (s *Store) AddEvents(ctx context.Context, events []store.Event) error {
	if len(events) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	queueEvents(b, events)
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("add events: %w", err)
	}
	return nil
}

func scanEvent(row pgx.CollectableRow) (e store.Event, err error) {
	var first, last, recorded int64
	err = row.Scan(&e.Key, &e.Revision, &e.Kind, &e.Namespace, &e.Name, &e.UID, &e.Field, &e.Warning, &e.Reason, &e.Message, &e.Source, &e.Node,
		&first, &last, &e.Count, &recorded)
	e.First, e.Last, e.Recorded = time.UnixMicro(first).UTC(), time.UnixMicro(last).UTC(), time.UnixMicro(recorded).UTC()
	return e, err
}

// where is a condition in the making.
type where struct {
	parts []string
	args  []any
}

// add adds a condition, in which ? stands for the value.
func (w *where) add(condition string, value any) {
	w.args = append(w.args, value)
	w.parts = append(w.parts, strings.ReplaceAll(condition, "?", fmt.Sprintf("$%d", len(w.args))))
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
	if len(q.Namespaces) > 0 {
		w.add("namespace = ANY(?)", q.Namespaces)
	}
	for column, value := range map[string]string{"kind": q.Kind, "name": q.Name, "uid": q.UID, "reason": q.Reason} {
		if value != "" {
			w.add(column+" = ?", value)
		}
	}
	if q.Warning != nil {
		w.add("warning = ?", *q.Warning)
	}
	if !q.Since.IsZero() {
		w.add("last_us >= ?", q.Since.UnixMicro())
	}
	if len(q.HideKinds) > 0 {
		w.add("kind <> ALL(?)", q.HideKinds)
	}
	if q.BeforeKey != "" {
		w.args = append(w.args, q.BeforeUS, q.BeforeKey)
		w.parts = append(w.parts, fmt.Sprintf("(last_us, key) < ($%d, $%d)", len(w.args)-1, len(w.args)))
	}
	rows, err := s.pool.Query(ctx, fmt.Sprintf(`SELECT `+eventColumns+` FROM events WHERE %s ORDER BY last_us DESC, key DESC LIMIT %d`, &w, q.Limit), w.args...)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	events, err := pgx.CollectRows(rows, scanEvent)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return events, nil
}

// EventsAfter implements store.Events.
func (s *Store) EventsAfter(ctx context.Context, after int64, limit int) ([]store.Event, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+eventColumns+` FROM events WHERE revision > $1 ORDER BY revision LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read events after %d: %w", after, err)
	}
	events, err := pgx.CollectRows(rows, scanEvent)
	if err != nil {
		return nil, fmt.Errorf("read events after %d: %w", after, err)
	}
	return events, nil
}

// EventsRevision implements store.Events.
func (s *Store) EventsRevision(ctx context.Context) (revision int64, err error) {
	if err := s.pool.QueryRow(ctx, `SELECT revision FROM event_count`).Scan(&revision); err != nil {
		return 0, fmt.Errorf("read the events' revision: %w", err)
	}
	return revision, nil
}

// TrimEvents implements store.Events.
func (s *Store) TrimEvents(ctx context.Context, bounds store.EventBounds) error {
	b := &pgx.Batch{}
	b.Queue(`DELETE FROM events WHERE recorded_us < $1`, bounds.Before.UnixMicro())
	b.Queue(`DELETE FROM events USING (
			SELECT key AS k, row_number() OVER (PARTITION BY kind, namespace, name, uid ORDER BY last_us DESC, key DESC) AS of_object,
				row_number() OVER (ORDER BY last_us DESC, key DESC) AS of_all
			FROM events
		) AS o WHERE key = k AND (of_object > $1 OR of_all > $2)`, bounds.PerObject, bounds.Total)
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("trim events: %w", err)
	}
	return nil
}
