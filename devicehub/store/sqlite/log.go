package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Epochs implements store.Log.
func (s *Store) Epochs(ctx context.Context, nodeUID string) (epochs []store.Epoch, err error) {
	err = each(ctx, s.read, func(rows *sql.Rows) error {
		e, err := scanEpoch(rows)
		epochs = append(epochs, e)
		return err
	}, `SELECT node_uid, epoch, rank, acked, started_us FROM epochs WHERE node_uid = ? ORDER BY rank`, nodeUID)
	if err != nil {
		return nil, fmt.Errorf("epochs of node %s: %w", nodeUID, err)
	}
	return epochs, nil
}

func scanEpoch(row interface{ Scan(...any) error }) (e store.Epoch, err error) {
	var rank, acked, started int64
	err = row.Scan(&e.NodeUID, &e.ID, &rank, &acked, &started)
	e.Rank, e.Acked, e.Started = uint64(rank), uint64(acked), time.UnixMicro(started).UTC()
	return e, err
}

// StartEpoch implements store.Log.
func (s *Store) StartEpoch(ctx context.Context, nodeUID, epoch string, now time.Time) (e store.Epoch, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec(`INSERT INTO epochs (node_uid, epoch, rank, acked, started_us)
			SELECT ?1, ?2, coalesce(max(rank), 0) + 1, 0, ?3 FROM epochs WHERE node_uid = ?1
			ON CONFLICT (node_uid, epoch) DO NOTHING`, nodeUID, epoch, now.UnixMicro()); err != nil {
			return err
		}
		e, err = scanEpoch(tx.QueryRow(`SELECT node_uid, epoch, rank, acked, started_us FROM epochs WHERE node_uid = ? AND epoch = ?`, nodeUID, epoch))
		return err
	})
	if err != nil {
		return store.Epoch{}, fmt.Errorf("start epoch %s of node %s: %w", epoch, nodeUID, err)
	}
	return e, nil
}

// SeriesIDs implements store.Log.
func (s *Store) SeriesIDs(ctx context.Context, keys []store.SeriesKey) ([]int64, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	ids := make([]int64, len(keys))
	err := s.tx(ctx, func(tx *sql.Tx) error {
		find, err := tx.Prepare(`SELECT id FROM series WHERE device_uid = ? AND assignment = ? AND property = ?`)
		if err != nil {
			return err
		}
		defer find.Close() // the transaction closes it anyway
		for i, k := range keys {
			err := find.QueryRow(k.DeviceUID, int64(k.Assignment), k.Property).Scan(&ids[i])
			if errors.Is(err, sql.ErrNoRows) {
				var res sql.Result
				res, err = tx.Exec(`INSERT INTO series (device_uid, assignment, property) VALUES (?, ?, ?)`, k.DeviceUID, int64(k.Assignment), k.Property)
				if err == nil {
					ids[i], err = res.LastInsertId()
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find series: %w", err)
	}
	return ids, nil
}

// Samples are added by statements of many rows: most of a statement's cost is
// entering and leaving it.
const (
	manyRows   = 64
	sampleCols = 8
	addSamples = `INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES `
	oneSample  = `(?, ?, ?, ?, ?, ?, ?, ?)`
)

func (s *Store) prepare(ctx context.Context) (err error) {
	if s.addOne, err = s.write.PrepareContext(ctx, addSamples+oneSample); err != nil {
		return err
	}
	s.addMany, err = s.write.PrepareContext(ctx, addSamples+strings.Repeat(oneSample+", ", manyRows-1)+oneSample)
	return err
}

// Ingest implements store.Log.
func (s *Store) Ingest(ctx context.Context, batches []store.Batch) error {
	if len(batches) == 0 {
		return nil
	}
	s.noting.Lock()
	defer s.noting.Unlock()
	err := s.tx(ctx, func(tx *sql.Tx) error {
		total := 0
		for i := range batches {
			if err := acknowledge(tx, &batches[i]); err != nil {
				return err
			}
			total += batches[i].Samples.Len()
		}
		var n int64
		if err := tx.QueryRow(`UPDATE hub SET samples = samples + ? RETURNING samples`, total).Scan(&n); err != nil {
			return err
		}
		if err := s.insertSamples(tx, batches, n-int64(total)); err != nil {
			return err
		}
		if err := s.due(tx, batches); err != nil {
			return err
		}
		return insertNews(tx, batches)
	})
	if err != nil {
		clear(s.noted) // what was noted in vain is not
		return fmt.Errorf("ingest: %w", err)
	}
	return nil
}

// insertNews adds what the batches hold beside samples.
func insertNews(tx *sql.Tx, batches []store.Batch) error {
	var events []store.Event
	for i := range batches {
		b := &batches[i]
		if err := insertGaps(tx, b.Gaps); err != nil {
			return err
		}
		if err := insertServed(tx, b.NodeUID, b.Served); err != nil {
			return err
		}
		events = append(events, b.Events...)
	}
	for _, change := range []func(b *store.Batch) error{
		func(b *store.Batch) error { return changeWrites(tx, b.Writes, nil, nil) },
		func(b *store.Batch) error { return changeWrites(tx, nil, b.Ends, nil) },
		func(b *store.Batch) error { return changeWrites(tx, nil, nil, b.Outcomes) },
	} {
		for i := range batches {
			if err := change(&batches[i]); err != nil {
				return err
			}
		}
	}
	return insertEvents(tx, events)
}

// acknowledge moves the epoch's number on, if it is where the batch begins.
func acknowledge(tx *sql.Tx, b *store.Batch) error {
	var bits int64
	err := tx.QueryRow(`SELECT acked FROM epochs WHERE node_uid = ? AND epoch = ?`, b.NodeUID, b.Epoch).Scan(&bits)
	if errors.Is(err, sql.ErrNoRows) || err == nil && (b.After != uint64(bits) || b.Acked <= b.After) {
		return fmt.Errorf("epoch %s is not acknowledged up to %d: %w", b.Epoch, b.After, store.ErrConflict)
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE epochs SET acked = ? WHERE node_uid = ? AND epoch = ?`, int64(b.Acked), b.NodeUID, b.Epoch)
	return err
}

// insertSamples adds the samples of all batches, numbered from n+1.
func (s *Store) insertSamples(tx *sql.Tx, batches []store.Batch, n int64) error {
	many, one := tx.Stmt(s.addMany), tx.Stmt(s.addOne)
	args := make([]any, 0, manyRows*sampleCols)
	for b := range batches {
		for i, series := range batches[b].Samples.Series {
			n++
			v := batches[b].Samples.At(i)
			var reason any
			if v.Reason != "" {
				reason = v.Reason
			}
			args = append(args, series, v.TimeUS, n, int64(v.Kind), int64(v.Quality), batches[b].Backfill, value(v), reason)
			if len(args) == cap(args) {
				if _, err := many.Exec(args...); err != nil {
					return err
				}
				args = args[:0]
			}
		}
	}
	for ; len(args) > 0; args = args[sampleCols:] {
		if _, err := one.Exec(args[:sampleCols]...); err != nil {
			return err
		}
	}
	return nil
}

// value is a sample's value as it is stored.
func value(v store.Sample) any {
	switch models.Kind(v.Kind) {
	case models.KindNull:
		return nil
	case models.KindBool, models.KindInt, models.KindUint:
		return v.Int
	case models.KindFloat:
		return v.Float
	}
	return []byte(v.Text)
}

func insertGaps(tx *sql.Tx, gaps []store.Gap) error {
	for _, g := range gaps {
		if _, err := tx.Exec(`INSERT INTO gaps (node_uid, reason, epoch, first_seq, last_seq, samples, from_us, to_us, recorded_us)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, g.NodeUID, g.Reason, g.Epoch, int64(g.FirstSeq), int64(g.LastSeq), int64(g.Samples),
			micros(g.From), micros(g.To), g.Recorded.UnixMicro()); err != nil {
			return err
		}
	}
	return nil
}

// AddGaps implements store.Log.
func (s *Store) AddGaps(ctx context.Context, gaps []store.Gap) error {
	if len(gaps) == 0 {
		return nil
	}
	if err := s.tx(ctx, func(tx *sql.Tx) error { return insertGaps(tx, gaps) }); err != nil {
		return fmt.Errorf("add gaps: %w", err)
	}
	return nil
}

// Gaps implements store.Log.
func (s *Store) Gaps(ctx context.Context, nodeUID string, f func(store.Gap) error) error {
	err := each(ctx, s.read, func(rows *sql.Rows) error {
		var g store.Gap
		var first, last, samples, recorded int64
		var from, to sql.NullInt64
		if err := rows.Scan(&g.NodeUID, &g.Reason, &g.Epoch, &first, &last, &samples, &from, &to, &recorded); err != nil {
			return err
		}
		g.FirstSeq, g.LastSeq, g.Samples = uint64(first), uint64(last), uint64(samples)
		g.From, g.To, g.Recorded = fromMicros(from), fromMicros(to), time.UnixMicro(recorded).UTC()
		return f(g)
	}, `SELECT node_uid, reason, epoch, first_seq, last_seq, samples, from_us, to_us, recorded_us FROM gaps WHERE node_uid = ? ORDER BY id`, nodeUID)
	if err != nil {
		return fmt.Errorf("gaps of node %s: %w", nodeUID, err)
	}
	return nil
}
