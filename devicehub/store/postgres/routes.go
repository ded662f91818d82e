package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

const routedColumns = `id, key, target, route, namespace, name, lane, node, topic, device, property, content_type, payload, send_to,
	accepted, deadline, ttl_us, retries, attempts, died, error`

func scanRouted(row pgx.CollectableRow) (m store.RoutedMessage, err error) {
	var ttl int64
	var died *time.Time
	err = row.Scan(&m.ID, &m.Key, &m.Target, &m.Route, &m.Namespace, &m.Name, &m.Lane, &m.Node, &m.Topic, &m.Device, &m.Property, &m.ContentType, &m.Payload, &m.To,
		&m.Accepted, &m.Deadline, &ttl, &m.Retries, &m.Attempts, &died, &m.Error)
	m.TTL = time.Duration(ttl) * time.Microsecond
	m.Accepted, m.Deadline = m.Accepted.UTC(), m.Deadline.UTC()
	if died != nil {
		m.Dead, m.Died = true, died.UTC()
	}
	return m, err
}

// notNull keeps an empty value from being NULL.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// AddRouted implements store.Routes.
func (s *Store) AddRouted(ctx context.Context, ms []store.RoutedMessage) (added []store.RoutedMessage, err error) {
	if len(ms) == 0 {
		return nil, nil
	}
	b := &pgx.Batch{}
	for _, m := range ms {
		var died *time.Time
		if m.Dead {
			died = &m.Died
		}
		b.Queue(`INSERT INTO routed (key, target, route, namespace, name, lane, node, topic, device, property, content_type, payload, send_to,
			accepted, deadline, ttl_us, retries, attempts, died, error)
			VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20) ON CONFLICT (key, target) DO NOTHING RETURNING id`,
			m.Key, m.Target, m.Route, m.Namespace, m.Name, m.Lane, m.Node, m.Topic, m.Device, m.Property, m.ContentType, notNull(m.Payload), notNull(m.To),
			m.Accepted, m.Deadline, m.TTL.Microseconds(), m.Retries, m.Attempts, died, m.Error).Query(func(rows pgx.Rows) error {
			ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
			for _, id := range ids {
				m.ID = id
				added = append(added, m)
			}
			return err
		})
	}
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("store routed messages: %w", err)
	}
	return added, nil
}

// Routed implements store.Routes.
func (s *Store) Routed(ctx context.Context, q store.RoutedQuery) ([]store.RoutedMessage, error) {
	where, args := `died IS NULL`, []any{q.After, q.Limit}
	if q.Dead {
		where = `died IS NOT NULL`
	}
	filter := func(condition string, value any) {
		args = append(args, value)
		where += fmt.Sprintf(" AND %s $%d", condition, len(args))
	}
	if q.Target != "" {
		filter("target =", q.Target)
	}
	if q.Route != "" {
		filter("route =", q.Route)
	}
	if !q.Overdue.IsZero() {
		filter("deadline <=", q.Overdue)
	}
	rows, err := s.pool.Query(ctx, `SELECT `+routedColumns+` FROM routed WHERE `+where+` AND id > $1 ORDER BY id LIMIT $2`, args...)
	if err != nil {
		return nil, fmt.Errorf("read routed messages: %w", err)
	}
	out, err := pgx.CollectRows(rows, scanRouted)
	if err != nil {
		return nil, fmt.Errorf("read routed messages: %w", err)
	}
	return out, nil
}

// SettleRouted implements store.Routes.
func (s *Store) SettleRouted(ctx context.Context, outcomes []store.RoutedOutcome) error {
	if len(outcomes) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	for _, o := range outcomes {
		const count = `INSERT INTO route_total (route, place, node, delivered, failed, dropped, queued, error, error_at)
			SELECT route, 'hub', '', $2::bigint, $3::bigint, 0, 0, $4, CASE WHEN $4 = '' THEN NULL ELSE $5::timestamptz END FROM gone
			ON CONFLICT (route, place) DO UPDATE SET delivered = route_total.delivered + excluded.delivered, failed = route_total.failed + excluded.failed,
			error = CASE WHEN excluded.error = '' THEN route_total.error ELSE excluded.error END, error_at = coalesce(excluded.error_at, route_total.error_at)`
		delivered, failed := 0, 0
		switch {
		case o.Handed:
			b.Queue(`DELETE FROM routed WHERE id = $1 AND died IS NULL`, o.ID)
			continue
		case o.Delivered:
			delivered = 1
			b.Queue(`WITH gone AS (DELETE FROM routed WHERE id = $1 AND died IS NULL RETURNING route) `+count, o.ID, delivered, failed, o.Error, o.At)
		case o.Dead:
			failed = 1
			b.Queue(`WITH gone AS (UPDATE routed SET died = $5, attempts = $6, error = $4 WHERE id = $1 AND died IS NULL RETURNING route) `+count,
				o.ID, delivered, failed, o.Error, o.At, o.Attempts)
		default:
			b.Queue(`WITH gone AS (UPDATE routed SET attempts = $6, error = $4 WHERE id = $1 AND died IS NULL RETURNING route) `+count,
				o.ID, delivered, failed, o.Error, o.At, o.Attempts)
		}
	}
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("store outcomes of routed messages: %w", err)
	}
	return nil
}

// ReviveRouted implements store.Routes.
func (s *Store) ReviveRouted(ctx context.Context, route string, ids []int64, now time.Time) ([]store.RoutedMessage, error) {
	rows, err := s.pool.Query(ctx, `WITH gone AS (DELETE FROM routed WHERE route = $1 AND died IS NOT NULL AND ($2::bigint[] IS NULL OR id = ANY($2)) RETURNING *)
		INSERT INTO routed (key, target, route, namespace, name, lane, node, topic, device, property, content_type, payload, send_to, accepted, deadline, ttl_us, retries, attempts, died, error)
		SELECT key, target, route, namespace, name, lane, node, topic, device, property, content_type, payload, send_to,
			accepted, $3::timestamptz + ttl_us * interval '1 microsecond', ttl_us, retries, 0, NULL, '' FROM gone ORDER BY id
		RETURNING `+routedColumns, route, ids, now)
	if err != nil {
		return nil, fmt.Errorf("revive dead letters: %w", err)
	}
	out, err := pgx.CollectRows(rows, scanRouted)
	if err != nil {
		return nil, fmt.Errorf("revive dead letters: %w", err)
	}
	return out, nil
}

// DropRouted implements store.Routes.
func (s *Store) DropRouted(ctx context.Context, route string, ids []int64) (int, error) {
	tag, err := s.pool.Exec(ctx, `DELETE FROM routed WHERE route = $1 AND died IS NOT NULL AND ($2::bigint[] IS NULL OR id = ANY($2))`, route, ids)
	if err != nil {
		return 0, fmt.Errorf("drop dead letters: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// RouteTotals implements store.Routes.
func (s *Store) RouteTotals(ctx context.Context, f func(store.RouteTotal) error) error {
	rows, err := s.pool.Query(ctx, `SELECT route, place, node, delivered, failed, dropped, queued, error, error_at FROM route_total`)
	if err != nil {
		return fmt.Errorf("read totals of routes: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var t store.RouteTotal
		var at *time.Time
		if err := rows.Scan(&t.Route, &t.Place, &t.Node, &t.Delivered, &t.Failed, &t.Dropped, &t.Queued, &t.LastError, &at); err != nil {
			return fmt.Errorf("read totals of routes: %w", err)
		}
		if at != nil {
			t.LastAt = at.UTC()
		}
		if err := f(t); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read totals of routes: %w", err)
	}
	return nil
}

// SetRouteTotals implements store.Routes.
func (s *Store) SetRouteTotals(ctx context.Context, totals []store.RouteTotal) error {
	if len(totals) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	for _, t := range totals {
		var at *time.Time
		if !t.LastAt.IsZero() {
			at = &t.LastAt
		}
		b.Queue(`INSERT INTO route_total (route, place, node, delivered, failed, dropped, queued, error, error_at) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9)
			ON CONFLICT (route, place) DO UPDATE SET node = excluded.node, delivered = excluded.delivered, failed = excluded.failed, dropped = excluded.dropped,
			queued = excluded.queued, error = excluded.error, error_at = excluded.error_at`,
			t.Route, t.Place, t.Node, int64(t.Delivered), int64(t.Failed), int64(t.Dropped), int64(t.Queued), t.LastError, at)
	}
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("store totals of routes: %w", err)
	}
	return nil
}

// ForgetRoute implements store.Routes.
func (s *Store) ForgetRoute(ctx context.Context, route string) error {
	b := &pgx.Batch{}
	b.Queue(`DELETE FROM routed WHERE route = $1 AND died IS NOT NULL`, route)
	b.Queue(`DELETE FROM route_total WHERE route = $1`, route)
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("forget a route: %w", err)
	}
	return nil
}

// RouteSpec implements store.Routes.
func (s *Store) RouteSpec(ctx context.Context, route string, generation int64) (spec []byte, err error) {
	err = s.pool.QueryRow(ctx, `SELECT spec FROM route_spec WHERE route = $1 AND generation = $2`, route, generation).Scan(&spec)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read a route's spec: %w", err)
	}
	return spec, nil
}

// SetRouteSpec implements store.Routes.
func (s *Store) SetRouteSpec(ctx context.Context, route string, generation int64, spec []byte, now time.Time, keep time.Duration) error {
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO route_spec (route, generation, spec, stored) VALUES ($1, $2, $3, $4) ON CONFLICT (route, generation) DO UPDATE SET stored = excluded.stored`,
		route, generation, notNull(spec), now)
	b.Queue(`DELETE FROM route_spec WHERE stored < $1`, now.Add(-keep))
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("store a route's spec: %w", err)
	}
	return nil
}
