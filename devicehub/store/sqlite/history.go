package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
)

// Samples implements store.History.
func (s *Store) Samples(ctx context.Context, deviceUID, property string, fromUS, toUS int64, f func(store.Sample) error) error {
	err := s.reading(ctx, func(tx *sql.Tx) error {
		series, err := seriesOf(ctx, tx, deviceUID, property)
		if err != nil || len(series) == 0 {
			return err
		}
		return samplesOf(ctx, tx, seriesList(series), fromUS, toUS, f)
	})
	if err != nil {
		return fmt.Errorf("samples of device %s, property %s: %w", deviceUID, property, err)
	}
	return nil
}

// Expire implements store.History. Each property is a transaction of its own: what
// arrives waits only for one.
func (s *Store) Expire(ctx context.Context, rules []store.Retention, _ time.Time) error {
	for _, r := range rules {
		var properties []string
		if err := each(ctx, s.read, func(rows *sql.Rows) error {
			var p string
			err := rows.Scan(&p)
			properties = append(properties, p)
			return err
		}, `SELECT DISTINCT property FROM series WHERE device_uid = ?`, r.DeviceUID); err != nil {
			return fmt.Errorf("expire history of device %s: %w", r.DeviceUID, err)
		}
		for _, p := range properties {
			if err := s.expire(ctx, r, p); err != nil {
				return fmt.Errorf("expire history of device %s, property %s: %w", r.DeviceUID, p, err)
			}
		}
	}
	return nil
}

func (s *Store) expire(ctx context.Context, r store.Retention, property string) error {
	const those = `series IN (SELECT id FROM series WHERE device_uid = ?1 AND property = ?2)`
	return s.tx(ctx, func(tx *sql.Tx) error {
		before := r.BeforeUS
		if r.Keep > 0 {
			var kept int64
			err := tx.QueryRow(`SELECT time_us FROM samples WHERE `+those+` ORDER BY time_us DESC LIMIT 1 OFFSET ?3`, r.DeviceUID, property, r.Keep-1).Scan(&kept)
			if errors.Is(err, sql.ErrNoRows) {
				return nil // there are fewer
			}
			if err != nil {
				return err
			}
			before = min(before, kept)
		}
		if _, err := tx.Exec(`DELETE FROM rollups WHERE `+those+` AND hour_us < ?3`, r.DeviceUID, property, before); err != nil {
			return err
		}
		failpoint.Here("history.expire")
		_, err := tx.Exec(`DELETE FROM samples WHERE `+those+` AND time_us < ?3`, r.DeviceUID, property, before)
		return err
	})
}

// LastSamples implements store.History.
func (s *Store) LastSamples(ctx context.Context, deviceUID string, properties []string, atUS int64) (map[string]store.Sample, error) {
	out := map[string]store.Sample{}
	for _, p := range properties {
		// Each series' last one is found by its key; of those the last in the order
		// of Samples.
		if err := each(ctx, s.read, func(rows *sql.Rows) error {
			v, err := scanSample(rows)
			out[p] = v
			return err
		}, `SELECT v.time_us, v.kind, v.quality, v.backfill, v.value, v.reason FROM series s
			JOIN samples v ON v.series = s.id AND (v.time_us, v.n) = (SELECT time_us, n FROM samples WHERE series = s.id AND time_us <= ?3 ORDER BY time_us DESC, n DESC LIMIT 1)
			WHERE s.device_uid = ?1 AND s.property = ?2
			ORDER BY v.time_us DESC, v.series DESC LIMIT 1`, deviceUID, p, atUS); err != nil {
			return nil, fmt.Errorf("last sample of device %s, property %s: %w", deviceUID, p, err)
		}
	}
	return out, nil
}

// LastSince implements store.History. All devices are asked for at once: a statement
// a property costs several times what finding its last sample does.
func (s *Store) LastSince(ctx context.Context, since map[string]map[string]int64, atUS int64) (map[string]map[string]store.Sample, error) {
	uids, err := json.Marshal(slices.Sorted(maps.Keys(since))) // in the order in which they are stored
	if err != nil {
		return nil, err
	}
	type place struct {
		device, property string
	}
	out, best := map[string]map[string]store.Sample{}, map[place]int64{} // the series of the last sample
	if err := each(ctx, s.read, func(rows *sql.Rows) error {
		var series int64
		var at place
		v, err := scanSample(rows, &series, &at.device, &at.property)
		if _, asked := since[at.device][at.property]; err != nil || !asked {
			return err
		}
		if was, there := out[at.device][at.property]; there && (was.TimeUS > v.TimeUS || was.TimeUS == v.TimeUS && best[at] > series) {
			return nil
		}
		if out[at.device] == nil {
			out[at.device] = map[string]store.Sample{}
		}
		out[at.device][at.property], best[at] = v, series
		return nil
	}, `SELECT v.time_us, v.kind, v.quality, v.backfill, v.value, v.reason, s.id, s.device_uid, s.property FROM json_each(?1) d
		JOIN series s ON s.device_uid = d.value
		JOIN samples v ON v.series = s.id AND (v.time_us, v.n) = (SELECT time_us, n FROM samples WHERE series = s.id AND time_us <= ?2 ORDER BY time_us DESC, n DESC LIMIT 1)`, string(uids), atUS); err != nil {
		return nil, fmt.Errorf("last samples of %d devices: %w", len(since), err)
	}
	return out, nil
}

// scanSample scans a row that begins with a sample, and goes on with more.
func scanSample(rows *sql.Rows, more ...any) (v store.Sample, err error) {
	var value any
	var reason sql.NullString
	if err := rows.Scan(append([]any{&v.TimeUS, &v.Kind, &v.Quality, &v.Backfill, &value, &reason}, more...)...); err != nil {
		return v, err
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
	return v, nil
}
