package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// Epochs implements store.Log.
func (s *Store) Epochs(ctx context.Context, nodeUID string) ([]store.Epoch, error) {
	rows, err := s.pool.Query(ctx, `SELECT node_uid, epoch, rank, acked, started FROM epochs WHERE node_uid = $1`, nodeUID)
	if err != nil {
		return nil, fmt.Errorf("epochs of node %s: %w", nodeUID, err)
	}
	epochs, err := pgx.CollectRows(rows, scanEpoch)
	if err != nil {
		return nil, fmt.Errorf("epochs of node %s: %w", nodeUID, err)
	}
	slices.SortFunc(epochs, func(a, b store.Epoch) int { return cmp.Compare(a.Rank, b.Rank) })
	return epochs, nil
}

func scanEpoch(row pgx.CollectableRow) (e store.Epoch, err error) {
	var rank, acked int64
	err = row.Scan(&e.NodeUID, &e.ID, &rank, &acked, &e.Started)
	e.Rank, e.Acked = uint64(rank), uint64(acked)
	return e, err
}

// StartEpoch implements store.Log.
func (s *Store) StartEpoch(ctx context.Context, nodeUID, epoch string, now time.Time) (store.Epoch, error) {
	for {
		// Two at once may see the same highest rank; the second is refused then.
		_, err := s.pool.Exec(ctx, `INSERT INTO epochs (node_uid, epoch, rank, acked, started)
			SELECT $1, $2, coalesce(max(rank), 0) + 1, 0, $3 FROM epochs WHERE node_uid = $1
			ON CONFLICT (node_uid, epoch) DO NOTHING`, nodeUID, epoch, now)
		if code(err) == codeUnique {
			continue
		}
		if err != nil {
			return store.Epoch{}, fmt.Errorf("start epoch %s of node %s: %w", epoch, nodeUID, err)
		}
		break
	}
	rows, err := s.pool.Query(ctx, `SELECT node_uid, epoch, rank, acked, started FROM epochs WHERE node_uid = $1 AND epoch = $2`, nodeUID, epoch)
	if err != nil {
		return store.Epoch{}, fmt.Errorf("start epoch %s of node %s: %w", epoch, nodeUID, err)
	}
	e, err := pgx.CollectExactlyOneRow(rows, scanEpoch)
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
	ids := make(map[store.SeriesKey]int64, len(keys))
	if err := s.findSeries(ctx, keys, ids); err != nil {
		return nil, err
	}
	var missing []store.SeriesKey
	for _, k := range keys {
		if _, ok := ids[k]; !ok {
			missing = append(missing, k)
		}
	}
	if len(missing) > 0 {
		if err := s.makeSeries(ctx, missing); err != nil {
			return nil, err
		}
		if err := s.findSeries(ctx, missing, ids); err != nil {
			return nil, err
		}
	}
	out := make([]int64, len(keys))
	for i, k := range keys {
		id, ok := ids[k]
		if !ok {
			return nil, fmt.Errorf("series of device %s, property %s, was made and is not there", k.DeviceUID, k.Property)
		}
		out[i] = id
	}
	return out, nil
}

func seriesColumns(keys []store.SeriesKey) (devices, properties []string, assignments []int64) {
	for _, k := range keys {
		devices, properties, assignments = append(devices, k.DeviceUID), append(properties, k.Property), append(assignments, int64(k.Assignment))
	}
	return devices, properties, assignments
}

func (s *Store) findSeries(ctx context.Context, keys []store.SeriesKey, ids map[store.SeriesKey]int64) error {
	devices, properties, assignments := seriesColumns(keys)
	rows, err := s.pool.Query(ctx, `SELECT s.id, s.device_uid, s.property, s.assignment FROM series s
		JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS k (d, p, a)
		ON s.device_uid = k.d AND s.property = k.p AND s.assignment = k.a`, devices, properties, assignments)
	if err != nil {
		return fmt.Errorf("find series: %w", err)
	}
	var id, assignment int64
	var key store.SeriesKey
	if _, err := pgx.ForEachRow(rows, []any{&id, &key.DeviceUID, &key.Property, &assignment}, func() error {
		key.Assignment = uint64(assignment)
		ids[key] = id
		return nil
	}); err != nil {
		return fmt.Errorf("find series: %w", err)
	}
	return nil
}

func (s *Store) makeSeries(ctx context.Context, keys []store.SeriesKey) error {
	devices, properties, assignments := seriesColumns(keys)
	// In one order, so that two that make the same series cannot deadlock.
	_, err := s.pool.Exec(ctx, `INSERT INTO series (device_uid, property, assignment)
		SELECT DISTINCT d, p, a FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (d, p, a) ORDER BY d, p, a
		ON CONFLICT (device_uid, property, assignment) DO NOTHING`, devices, properties, assignments)
	if err != nil {
		return fmt.Errorf("make series: %w", err)
	}
	return nil
}

// Ingest implements store.Log. The samples of all batches are ordered by series
// and share rows.
func (s *Store) Ingest(ctx context.Context, batches []store.Batch) error {
	if len(batches) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	var nodes, epochs []string
	var after, acked []int64
	for i := range batches {
		nodes, epochs = append(nodes, batches[i].NodeUID), append(epochs, batches[i].Epoch)
		after, acked = append(after, int64(batches[i].After)), append(acked, int64(batches[i].Acked))
	}
	// First, so that who conflicts has written nothing and who waits for the same
	// epoch waits here.
	b.Queue(`SELECT acknowledge(n, e, f, a) FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS k (n, e, f, a)`, nodes, epochs, after, acked)
	all, n := make([]columns, len(batches)), 0
	for i := range batches {
		all[i] = columns{Samples: batches[i].Samples, Late: batches[i].Backfill}
		n += countRuns(&all[i])
	}
	runs := make([]span, 0, n)
	for i := range all {
		runs = appendRuns(runs, &all[i])
	}
	if len(runs) > 0 {
		batchRows(sortRuns(runs), 0, batches[0].Received, func(row *tuple) { b.Queue(insertBatch, batchArgs(row)...) })
	}
	var events []store.Event
	for i := range batches {
		batch := &batches[i]
		queueGaps(b, batch.Gaps)
		queueServed(b, batch.NodeUID, batch.Served)
		events = append(events, batch.Events...)
	}
	queueLedger(b, batches)
	queueEvents(b, events)
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	return nil
}

// queueLedger queues what the batches say of writes: together, for they are
// sorted.
func queueLedger(b *pgx.Batch, batches []store.Batch) {
	var writes []store.Write
	var ends []store.WriteEnd
	var outcomes []store.WriteOutcome
	for i := range batches {
		writes, ends, outcomes = append(writes, batches[i].Writes...), append(ends, batches[i].Ends...), append(outcomes, batches[i].Outcomes...)
	}
	queueWrites(b, writes, ends, outcomes)
}

func queueGaps(b *pgx.Batch, gaps []store.Gap) {
	for _, g := range gaps {
		b.Queue(`INSERT INTO gaps (node_uid, reason, epoch, first_seq, last_seq, samples, from_us, to_us, recorded)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			g.NodeUID, g.Reason, g.Epoch, int64(g.FirstSeq), int64(g.LastSeq), int64(g.Samples), micros(g.From), micros(g.To), g.Recorded)
	}
}

// AddGaps implements store.Log.
func (s *Store) AddGaps(ctx context.Context, gaps []store.Gap) error {
	if len(gaps) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	queueGaps(b, gaps)
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("add gaps: %w", err)
	}
	return nil
}

// Gaps implements store.Log.
func (s *Store) Gaps(ctx context.Context, nodeUID string, f func(store.Gap) error) error {
	rows, err := s.pool.Query(ctx, `SELECT node_uid, reason, epoch, first_seq, last_seq, samples, from_us, to_us, recorded
		FROM gaps WHERE node_uid = $1 ORDER BY id`, nodeUID)
	if err != nil {
		return fmt.Errorf("gaps of node %s: %w", nodeUID, err)
	}
	defer rows.Close()
	for rows.Next() {
		var g store.Gap
		var first, last, samples int64
		var from, to *int64
		if err := rows.Scan(&g.NodeUID, &g.Reason, &g.Epoch, &first, &last, &samples, &from, &to, &g.Recorded); err != nil {
			return fmt.Errorf("gaps of node %s: %w", nodeUID, err)
		}
		g.FirstSeq, g.LastSeq, g.Samples = uint64(first), uint64(last), uint64(samples)
		g.From, g.To = fromMicros(from), fromMicros(to)
		if err := f(g); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("gaps of node %s: %w", nodeUID, err)
	}
	return nil
}

// micros is a time as microseconds since 1970, NULL for the zero time.
func micros(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	return new(t.UnixMicro())
}

func fromMicros(us *int64) time.Time {
	if us == nil {
		return time.Time{}
	}
	return time.UnixMicro(*us).UTC()
}
