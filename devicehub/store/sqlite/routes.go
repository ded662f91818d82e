package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

const routedColumns = `id, key, target, route, namespace, name, lane, node, topic, device, property, content_type,
	accepted_us, deadline_us, ttl_us, retries, attempts, died_us, error, send_to, payload`

func scanRouted(rows *sql.Rows) (m store.RoutedMessage, err error) {
	var accepted, deadline, ttl int64
	var died sql.NullInt64
	err = rows.Scan(&m.ID, &m.Key, &m.Target, &m.Route, &m.Namespace, &m.Name, &m.Lane, &m.Node, &m.Topic, &m.Device, &m.Property, &m.ContentType,
		&accepted, &deadline, &ttl, &m.Retries, &m.Attempts, &died, &m.Error, &m.To, &m.Payload)
	m.Accepted, m.Deadline, m.TTL = time.UnixMicro(accepted).UTC(), time.UnixMicro(deadline).UTC(), time.Duration(ttl)*time.Microsecond
	m.Dead, m.Died = died.Valid, fromMicros(died)
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
	err = s.tx(ctx, func(tx *sql.Tx) error {
		insert, err := tx.Prepare(insertRoutedSQL)
		if err != nil {
			return err
		}
		defer insert.Close()
		for _, m := range ms {
			id, ok, err := insertRouted(insert, m)
			if err != nil {
				return err
			}
			if ok {
				m.ID = id
				added = append(added, m)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store routed messages: %w", err)
	}
	return added, nil
}

const insertRoutedSQL = `INSERT INTO routed (key, target, route, namespace, name, lane, node, topic, device, property, content_type,
	accepted_us, deadline_us, ttl_us, retries, attempts, died_us, error, send_to, payload)
	VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (key, target) DO NOTHING`

// insertRouted adds a message; ok is false when it is there already.
func insertRouted(insert *sql.Stmt, m store.RoutedMessage) (id int64, ok bool, err error) {
	died := micros(m.Died)
	died.Valid = m.Dead
	res, err := insert.Exec(m.Key, m.Target, m.Route, m.Namespace, m.Name, m.Lane, m.Node, m.Topic, m.Device, m.Property, m.ContentType,
		m.Accepted.UnixMicro(), m.Deadline.UnixMicro(), m.TTL.Microseconds(), m.Retries, m.Attempts, died, m.Error, notNull(m.To), notNull(m.Payload))
	if err != nil {
		return 0, false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return 0, false, err
	}
	id, err = res.LastInsertId()
	return id, true, err
}

// Routed implements store.Routes.
func (s *Store) Routed(ctx context.Context, q store.RoutedQuery) (out []store.RoutedMessage, err error) {
	where, args := `died_us IS NULL`, []any{}
	if q.Dead {
		where = `died_us IS NOT NULL`
	}
	if q.Target != "" {
		where, args = where+` AND target = ?`, append(args, q.Target)
	}
	if q.Route != "" {
		where, args = where+` AND route = ?`, append(args, q.Route)
	}
	if !q.Overdue.IsZero() {
		where, args = where+` AND deadline_us <= ?`, append(args, q.Overdue.UnixMicro())
	}
	err = each(ctx, s.read, func(rows *sql.Rows) error {
		m, err := scanRouted(rows)
		out = append(out, m)
		return err
	}, `SELECT `+routedColumns+` FROM routed WHERE `+where+` AND id > ? ORDER BY id LIMIT ?`, append(args, q.After, q.Limit)...)
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
	if err := s.tx(ctx, func(tx *sql.Tx) error { return settleRouted(tx, outcomes) }); err != nil {
		return fmt.Errorf("store outcomes of routed messages: %w", err)
	}
	return nil
}

// settled is what outcomes add to a route's total.
type settled struct {
	delivered, failed int
	error             string
	at                time.Time
}

func settleRouted(tx *sql.Tx, outcomes []store.RoutedOutcome) error {
	forget, err := tx.Prepare(`DELETE FROM routed WHERE id = ? AND died_us IS NULL RETURNING route`)
	if err != nil {
		return err
	}
	defer forget.Close()
	totals := map[string]*settled{}
	for _, o := range outcomes {
		var row *sql.Row
		switch {
		case o.Handed, o.Delivered:
			row = forget.QueryRow(o.ID)
		case o.Dead:
			row = tx.QueryRow(`UPDATE routed SET died_us = ?, attempts = ?, error = ? WHERE id = ? AND died_us IS NULL RETURNING route`, o.At.UnixMicro(), o.Attempts, o.Error, o.ID)
		default:
			row = tx.QueryRow(`UPDATE routed SET attempts = ?, error = ? WHERE id = ? AND died_us IS NULL RETURNING route`, o.Attempts, o.Error, o.ID)
		}
		var route string
		if err := row.Scan(&route); errors.Is(err, sql.ErrNoRows) {
			continue // it was settled before
		} else if err != nil {
			return err
		}
		if o.Handed {
			continue
		}
		t := totals[route]
		if t == nil {
			t = &settled{}
			totals[route] = t
		}
		switch {
		case o.Delivered:
			t.delivered++
		case o.Dead:
			t.failed++
		}
		if o.Error != "" {
			t.error, t.at = o.Error, o.At
		}
	}
	for route, t := range totals {
		at := micros(t.at)
		at.Valid = t.error != ""
		if _, err := tx.Exec(`INSERT INTO route_total (route, place, node, delivered, failed, dropped, queued, error, error_us) VALUES (?, 'hub', '', ?, ?, 0, 0, ?, ?)
			ON CONFLICT (route, place) DO UPDATE SET delivered = delivered + excluded.delivered, failed = failed + excluded.failed,
			error = CASE WHEN excluded.error = '' THEN error ELSE excluded.error END, error_us = coalesce(excluded.error_us, error_us)`,
			route, t.delivered, t.failed, t.error, at); err != nil {
			return err
		}
	}
	return nil
}

// deadLetters selects dead letters of a route by their ids, nil for all.
func deadLetters(tx *sql.Tx, route string, ids []int64) (out []store.RoutedMessage, err error) {
	rows, err := tx.Query(`SELECT `+routedColumns+` FROM routed WHERE route = ? AND died_us IS NOT NULL ORDER BY id`, route)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		m, err := scanRouted(rows)
		if err != nil {
			return nil, err
		}
		if ids == nil || slices.Contains(ids, m.ID) {
			out = append(out, m)
		}
	}
	return out, rows.Err()
}

// ReviveRouted implements store.Routes.
func (s *Store) ReviveRouted(ctx context.Context, route string, ids []int64, now time.Time) (out []store.RoutedMessage, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		dead, err := deadLetters(tx, route, ids)
		if err != nil {
			return err
		}
		insert, err := tx.Prepare(insertRoutedSQL)
		if err != nil {
			return err
		}
		defer insert.Close()
		for _, m := range dead {
			if _, err := tx.Exec(`DELETE FROM routed WHERE id = ?`, m.ID); err != nil {
				return err
			}
			m.Dead, m.Died, m.Attempts, m.Error, m.Deadline = false, time.Time{}, 0, "", now.Add(m.TTL).UTC()
			if m.ID, _, err = insertRouted(insert, m); err != nil {
				return err
			}
			out = append(out, m)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("revive dead letters: %w", err)
	}
	return out, nil
}

// DropRouted implements store.Routes.
func (s *Store) DropRouted(ctx context.Context, route string, ids []int64) (n int, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		dead, err := deadLetters(tx, route, ids)
		if err != nil {
			return err
		}
		for _, m := range dead {
			if _, err := tx.Exec(`DELETE FROM routed WHERE id = ?`, m.ID); err != nil {
				return err
			}
		}
		n = len(dead)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("drop dead letters: %w", err)
	}
	return n, nil
}

// RouteTotals implements store.Routes.
func (s *Store) RouteTotals(ctx context.Context, f func(store.RouteTotal) error) error {
	var failed error
	err := each(ctx, s.read, func(rows *sql.Rows) error {
		var t store.RouteTotal
		var delivered, dead, dropped, queued int64
		var at sql.NullInt64
		if err := rows.Scan(&t.Route, &t.Place, &t.Node, &delivered, &dead, &dropped, &queued, &t.LastError, &at); err != nil {
			return err
		}
		t.Delivered, t.Failed, t.Dropped, t.Queued, t.LastAt = uint64(delivered), uint64(dead), uint64(dropped), uint64(queued), fromMicros(at)
		failed = f(t)
		return failed
	}, `SELECT route, place, node, delivered, failed, dropped, queued, error, error_us FROM route_total`)
	if failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("read totals of routes: %w", err)
	}
	return nil
}

// SetRouteTotals implements store.Routes.
func (s *Store) SetRouteTotals(ctx context.Context, totals []store.RouteTotal) error {
	if len(totals) == 0 {
		return nil
	}
	if err := s.tx(ctx, func(tx *sql.Tx) error {
		for _, t := range totals {
			if _, err := tx.Exec(`INSERT OR REPLACE INTO route_total (route, place, node, delivered, failed, dropped, queued, error, error_us) VALUES (?,?,?,?,?,?,?,?,?)`,
				t.Route, t.Place, t.Node, int64(t.Delivered), int64(t.Failed), int64(t.Dropped), int64(t.Queued), t.LastError, micros(t.LastAt)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("store totals of routes: %w", err)
	}
	return nil
}

// ForgetRoute implements store.Routes.
func (s *Store) ForgetRoute(ctx context.Context, route string) error {
	if err := s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec(`DELETE FROM routed WHERE route = ? AND died_us IS NOT NULL`, route); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM route_total WHERE route = ?`, route)
		return err
	}); err != nil {
		return fmt.Errorf("forget a route: %w", err)
	}
	return nil
}

// RouteSpec implements store.Routes.
func (s *Store) RouteSpec(ctx context.Context, route string, generation int64) (spec []byte, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT spec FROM route_spec WHERE route = ? AND generation = ?`, route, generation).Scan(&spec)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read a route's spec: %w", err)
	}
	return spec, nil
}

// SetRouteSpec implements store.Routes.
func (s *Store) SetRouteSpec(ctx context.Context, route string, generation int64, spec []byte, now time.Time, keep time.Duration) error {
	if err := s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec(`INSERT INTO route_spec (route, generation, spec, stored_us) VALUES (?,?,?,?) ON CONFLICT (route, generation) DO UPDATE SET stored_us = excluded.stored_us`,
			route, generation, notNull(spec), now.UnixMicro()); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM route_spec WHERE stored_us < ?`, now.Add(-keep).UnixMicro())
		return err
	}); err != nil {
		return fmt.Errorf("store a route's spec: %w", err)
	}
	return nil
}
