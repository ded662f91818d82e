package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// Compact implements store.History. There is nothing to do: samples are stored in
// the order in which they are read.
func (s *Store) Compact(context.Context, time.Time) (more bool, err error) { return false, nil }

// Samples implements store.History.
func (s *Store) Samples(ctx context.Context, deviceUID, property string, fromUS, toUS int64, f func(store.Sample) error) error {
	fail := func(err error) error {
		return fmt.Errorf("samples of device %s, property %s: %w", deviceUID, property, err)
	}
	var series []int64
	if err := each(ctx, s.read, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		series = append(series, id)
		return err
	}, `SELECT id FROM series WHERE device_uid = ? AND property = ? ORDER BY id`, deviceUID, property); err != nil {
		return fail(err)
	}
	// Those of one series are there in order; of several they have to be sorted.
	query, args := `series = ?1 AND time_us >= ?2 AND time_us < ?3 ORDER BY time_us, n`, []any{int64(0), fromUS, toUS}
	switch {
	case len(series) == 0:
		return nil
	case len(series) == 1:
		args[0] = series[0]
	default:
		query = `series IN (SELECT id FROM series WHERE device_uid = ?1 AND property = ?4) AND time_us >= ?2 AND time_us < ?3 ORDER BY time_us, series, n`
		args[0] = deviceUID
		args = append(args, property)
	}
	if err := each(ctx, s.read, func(rows *sql.Rows) error {
		var v store.Sample
		var value any
		var reason sql.NullString
		if err := rows.Scan(&v.TimeUS, &v.Kind, &v.Quality, &v.Backfill, &value, &reason); err != nil {
			return err
		}
		v.Reason = reason.String
		switch value := value.(type) {
		case int64:
			v.Int = value
		case float64:
			v.Float = value
		case []byte:
			v.Text = string(value)
		}
		return f(v)
	}, `SELECT time_us, kind, quality, backfill, value, reason FROM samples WHERE `+query, args...); err != nil {
		return fail(err)
	}
	return nil
}
