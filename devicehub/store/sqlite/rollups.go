package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
)

// An hour of a series is rolled up when it is over for a while, and again after
// something late has come for it. It has rollups when they are a good deal
// shorter than its samples.
const (
	rollUpAfter = time.Minute
	rollUpHours = 50 // in one transaction
	rollUpShare = 8  // samples an entry, on average
)

// hour is one hour of one series.
type hour struct{ series, us int64 }

// hourOf is the hour of a sample; ok is false for the first and the last there are,
// which are no whole ones.
func hourOf(series, us int64) (h hour, ok bool) {
	h = hour{series, store.BucketStart(us, store.Hour)}
	return h, h.us != math.MinInt64 && h.us <= math.MaxInt64-store.Hour
}

// dueKept bounds the memory of hours that are noted already.
const dueKept = 1 << 16

// due notes, in the transaction that adds samples, that their hours are to be
// rolled up, and drops what they came to before. Hours that are noted already are
// remembered: a plant is in the same hour all the time.
func (s *Store) due(tx *sql.Tx, batches []store.Batch) error {
	for b := range batches {
		v := &batches[b].Samples
		var last hour
		for i, series := range v.Series {
			h, ok := hourOf(series, v.TimeUS[i])
			if !ok || i > 0 && h == last {
				continue
			}
			last = h
			if _, noted := s.noted[h]; noted {
				continue
			}
			if _, err := tx.Exec(`INSERT OR IGNORE INTO rollups_due (hour_us, series) VALUES (?, ?)`, h.us, h.series); err != nil {
				return err
			}
			if _, err := tx.Exec(`DELETE FROM rollups WHERE series = ? AND hour_us = ?`, h.series, h.us); err != nil {
				return err
			}
			if len(s.noted) >= dueKept {
				clear(s.noted)
			}
			s.noted[h] = struct{}{}
			failpoint.Here("ingest.due")
		}
	}
	return nil
}

// Compact implements store.History: it rolls up hours that are over. Samples
// themselves are stored in the order in which they are read.
func (s *Store) Compact(ctx context.Context, now time.Time) (more bool, err error) {
	s.noting.Lock()
	defer s.noting.Unlock()
	err = s.tx(ctx, func(tx *sql.Tx) error {
		var hours []hour
		if err := each(ctx, tx, func(rows *sql.Rows) error {
			var h hour
			err := rows.Scan(&h.us, &h.series)
			hours = append(hours, h)
			return err
		}, `SELECT hour_us, series FROM rollups_due WHERE hour_us <= ? ORDER BY hour_us, series LIMIT ?`,
			now.Add(-rollUpAfter-time.Hour).UnixMicro(), rollUpHours); err != nil {
			return err
		}
		more = len(hours) == rollUpHours
		for _, h := range hours {
			if err := rollUp(ctx, tx, h); err != nil {
				return err
			}
			delete(s.noted, h) // also if this is not committed: then it is noted once more
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("roll up history: %w", err)
	}
	failpoint.Here("history.compacted")
	return more, nil
}

func rollUp(ctx context.Context, tx *sql.Tx, h hour) error {
	if _, err := tx.Exec(`DELETE FROM rollups_due WHERE hour_us = ? AND series = ?`, h.us, h.series); err != nil {
		return err
	}
	failpoint.Here("history.rollup")
	var samples []store.Sample
	if err := each(ctx, tx, func(rows *sql.Rows) error {
		v, err := scanSample(rows)
		samples = append(samples, v)
		return err
	}, selectSamples+`series = ? AND time_us >= ? AND time_us < ? ORDER BY time_us, n`, h.series, h.us, h.us+store.Hour); err != nil {
		return err
	}
	entries := func(step int64) []byte {
		list := store.Rolled(len(samples), func(i int) store.Sample { return samples[i] }, step)
		if len(list)*rollUpShare > len(samples) {
			return nil
		}
		out, ok := store.AppendEntries(nil, list)
		if !ok {
			return nil
		}
		return out
	}
	minutes, whole := entries(store.Minute), entries(store.Hour)
	if minutes == nil && whole == nil {
		return nil
	}
	_, err := tx.Exec(`INSERT OR REPLACE INTO rollups (series, hour_us, minutes, hour) VALUES (?, ?, ?, ?)`, h.series, h.us, minutes, whole)
	failpoint.Here("history.rollup.written")
	return err
}

// Rollups implements store.History: hours that have rollups are read by them, what
// is between them by samples.
func (s *Store) Rollups(ctx context.Context, deviceUID, property string, fromUS, toUS, stepUS int64, sample func(store.Sample) error, rollup func(*store.Rollup) error) error {
	var column string
	switch {
	case stepUS%store.Hour == 0:
		column = "hour"
	case stepUS%store.Minute == 0:
		column = "minutes"
	default:
		return s.Samples(ctx, deviceUID, property, fromUS, toUS, sample)
	}
	err := s.reading(ctx, func(tx *sql.Tx) error {
		series, err := seriesOf(ctx, tx, deviceUID, property)
		if err != nil || len(series) == 0 {
			return err
		}
		list := seriesList(series)
		at := fromUS
		// Hours are read a few at a time, so that no statement is open for long while
		// samples are read by another.
		for after := int64(math.MinInt64); ; {
			type rolled struct {
				hour
				entries []byte
			}
			var found []rolled
			if err := each(ctx, tx, func(rows *sql.Rows) error {
				var r rolled
				err := rows.Scan(&r.series, &r.us, &r.entries)
				found = append(found, r)
				return err
			}, `SELECT series, hour_us, `+column+` FROM rollups WHERE series IN (`+list+`) AND hour_us >= ? AND hour_us > ? AND hour_us <= ? AND `+column+` IS NOT NULL
				ORDER BY hour_us, series LIMIT 1000`, fromUS, after, max(toUS, math.MinInt64+store.Hour)-store.Hour); err != nil {
				return err
			}
			for _, r := range found {
				after = max(after, r.us)
				if r.us < at {
					continue // of another series, and in an hour that was read by samples
				}
				alone, err := isAlone(tx, r.hour, series)
				if err != nil {
					return err
				}
				if !alone {
					continue
				}
				if r.us > at {
					if err := samplesOf(ctx, tx, list, at, r.us, sample); err != nil {
						return err
					}
				}
				if err := store.EachEntry(r.entries, func(e *store.Entry) error {
					if e.Rollup.Count == 0 {
						return sample(e.Sample)
					}
					return rollup(&e.Rollup)
				}); err != nil {
					return err
				}
				at = r.us + store.Hour
			}
			if len(found) < 1000 {
				break
			}
		}
		return samplesOf(ctx, tx, list, at, toUS, sample)
	})
	if err != nil {
		return fmt.Errorf("samples of device %s, property %s: %w", deviceUID, property, err)
	}
	return nil
}

// isAlone reports whether no other series of the property has samples in the hour:
// those would have to be put in their order.
func isAlone(tx *sql.Tx, h hour, series []int64) (bool, error) {
	for _, id := range series {
		if id == h.series {
			continue
		}
		var one int
		err := tx.QueryRow(`SELECT 1 FROM samples WHERE series = ? AND time_us >= ? AND time_us < ? LIMIT 1`, id, h.us, h.us+store.Hour).Scan(&one)
		if err == nil {
			return false, nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return false, err
		}
	}
	return true, nil
}

// reading runs f on one moment's state.
func (s *Store) reading(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.read.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // it has changed nothing
	return f(tx)
}

func seriesOf(ctx context.Context, tx *sql.Tx, deviceUID, property string) (series []int64, err error) {
	err = each(ctx, tx, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		series = append(series, id)
		return err
	}, `SELECT id FROM series WHERE device_uid = ? AND property = ? ORDER BY id`, deviceUID, property)
	return series, err
}

// seriesList is ids as SQL has them after IN.
func seriesList(series []int64) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(series), " ", ", "), "[]")
}

const selectSamples = `SELECT time_us, kind, quality, backfill, value, reason FROM samples WHERE `

// samplesOf reads the samples of series, given as a list of ids.
func samplesOf(ctx context.Context, tx *sql.Tx, list string, fromUS, toUS int64, f func(store.Sample) error) error {
	if fromUS >= toUS {
		return nil
	}
	order := `time_us, n` // as they are stored
	if strings.Contains(list, ",") {
		order = `time_us, series, n`
	}
	return each(ctx, tx, func(rows *sql.Rows) error {
		v, err := scanSample(rows)
		if err != nil {
			return err
		}
		return f(v)
	}, selectSamples+`series IN (`+list+`) AND time_us >= ? AND time_us < ? ORDER BY `+order, fromUS, toUS)
}
