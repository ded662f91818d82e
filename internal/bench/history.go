package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/postgres"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
	"github.com/whimbrel-edge/whimbrel/models"
)

// A temperature in an office building, hourly over ten months, with up to 14
// decimals: from the Numenta Anomaly Benchmark, under the MIT licence beside it.
//
//go:embed testdata/nab/ambient_temperature_system_failure.csv
var realSeries string

// realValues are the values of the real series.
func realValues() (out []float64, err error) {
	for i, line := range strings.Split(strings.TrimSpace(realSeries), "\n") {
		if i == 0 {
			continue
		}
		_, text, _ := strings.Cut(strings.TrimSpace(line), ",")
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// library fills a store as ingest does.
type library struct {
	*postgres.Store
	url   string
	acked uint64
}

func openLibrary(ctx context.Context, url string) (*library, error) {
	s, err := postgres.Open(ctx, url, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if _, err := s.StartEpoch(ctx, "bench-library", "bench", time.Now()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &library{Store: s, url: url}, nil
}

// add ingests samples, and compacts now and then.
func (l *library) add(ctx context.Context, samples store.Samples) error {
	err := l.Ingest(ctx, []store.Batch{{NodeUID: "bench-library", Epoch: "bench", After: l.acked, Acked: l.acked + 1, Received: time.Now(), Samples: samples}})
	l.acked++
	if err == nil && l.acked%20 == 0 {
		_, err = l.Compact(ctx, time.Now())
	}
	return err
}

// settle compacts as if it were later, until everything is in chunks and all weeks
// that are over are merged. Where a hub on the same database is at it, a call does
// nothing.
func (l *library) settle(ctx context.Context, now time.Time) error {
	c, err := pgx.Connect(ctx, l.url)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); sleep(ctx, 50*time.Millisecond) {
		for more := true; more; {
			if more, err = l.Compact(ctx, now); err != nil {
				return err
			}
		}
		var settled bool
		if err := c.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM samples_batch) AND NOT EXISTS (SELECT FROM samples_young WHERE samples_period(t0) < samples_period($1))
			AND NOT EXISTS (SELECT FROM samples_week WHERE hours IS NULL AND start < samples_period($1))`, now.UnixMicro()).Scan(&settled); err != nil || settled {
			return err
		}
	}
	return errors.New("history was not compacted in two minutes")
}

// keys are the series of devices and properties.
func keys(uids []string, properties int) (out []store.SeriesKey) {
	for _, uid := range uids {
		for p := range properties {
			out = append(out, store.SeriesKey{DeviceUID: uid, Assignment: 1, Property: propertyName(p)})
		}
	}
	return out
}

// signal adds n values of each series, one step apart, in parts of about a hundred
// thousand samples.
func (l *library) signal(ctx context.Context, ids []int64, from time.Time, step time.Duration, n int, value func(series, i int) float64) error {
	const part = 100_000
	var s store.Samples
	for i := range n {
		at := from.Add(time.Duration(i) * step).UnixMicro()
		for k, id := range ids {
			s.Series, s.TimeUS, s.Kind, s.Float = append(s.Series, id), append(s.TimeUS, at), append(s.Kind, uint8(models.KindFloat)), append(s.Float, value(k, i))
		}
		if len(s.Series) >= part || i == n-1 {
			if err := l.add(ctx, s); err != nil {
				return err
			}
			s = store.Samples{}
		}
	}
	return nil
}

// benchSize measures what a sample of a real series takes on the disk, as the
// compactor leaves it, next to a table of rows with its index after VACUUM FULL.
func benchSize(ctx context.Context, _ settings) (out []result, err error) {
	values, err := realValues()
	if err != nil {
		return nil, err
	}
	tenths := make([]float64, len(values))
	for i, v := range values {
		tenths[i] = math.Round(v*10) / 10
	}
	for _, c := range []struct {
		what   string
		values []float64
		step   time.Duration
	}{
		{"as recorded, hourly", values, time.Hour},
		{"as recorded, one every 5m", values, 5 * time.Minute},
		{"as recorded, one every 1s", values, time.Second},
		{"in tenths, hourly", tenths, time.Hour},
		{"in tenths, one every 1s", tenths, time.Second},
	} {
		r, err := sizeOf(ctx, c.what, c.values, c.step)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

func sizeOf(ctx context.Context, what string, values []float64, step time.Duration) (r result, err error) {
	pg, err := pgtest.Open(pgtest.Options{Settings: postgresSettings})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, pg.Close()) }()
	l, err := openLibrary(ctx, pg.URL("postgres"))
	if err != nil {
		return r, err
	}
	defer l.Close()
	const series = 300
	ids, err := l.SeriesIDs(ctx, keys([]string{"bench"}, series))
	if err != nil {
		return r, err
	}
	from := time.Now().Add(-time.Duration(len(values))*step).AddDate(0, 0, -30)
	if err := l.signal(ctx, ids, from, step, len(values), func(_, i int) float64 { return values[i] }); err != nil {
		return r, err
	}
	if err := l.settle(ctx, time.Now().Add(time.Hour)); err != nil {
		return r, err
	}
	c, err := pgx.Connect(ctx, pg.URL("postgres"))
	if err != nil {
		return r, err
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, `CREATE TABLE bare (series int, time timestamptz, value float8, quality smallint); CREATE INDEX ON bare (series, time)`); err != nil {
		return r, err
	}
	next, total := 0, series*len(values)
	if _, err := c.CopyFrom(ctx, pgx.Identifier{"bare"}, []string{"series", "time", "value", "quality"}, pgx.CopyFromFunc(func() ([]any, error) {
		if next == total {
			return nil, nil
		}
		next++
		return []any{int32(next % series), from.Add(time.Duration((next-1)/series) * step), values[(next-1)/series], int16(0)}, nil
	})); err != nil {
		return r, err
	}
	size := func(tables string) (perSample float64, err error) {
		err = c.QueryRow(ctx, `SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname ~ $1 AND relkind = 'r' AND pg_relation_size(oid) > 0`, tables).Scan(&perSample)
		return perSample / float64(total), err
	}
	const history = "^samples_(chunk|young|week|batch)"
	ours, err := size(history)
	if err != nil {
		return r, err
	}
	rowsAsMade, err := size("^bare$")
	if err != nil {
		return r, err
	}
	if _, err := c.Exec(ctx, `VACUUM FULL`); err != nil {
		return r, err
	}
	least, err := size(history)
	if err != nil {
		return r, err
	}
	rows, err := size("^bare$")
	if err != nil {
		return r, err
	}
	return result{"bytes/sample with rollups, real temperature, " + what, fmt.Sprintf("%.2f (%.2f after VACUUM FULL)", ours, least),
		fmt.Sprintf("%.0f rows and index (%.0f as COPY leaves it)", rows, rowsAsMade), fmt.Sprintf("%.3f", ours/rows), "≤ 0.1", ours <= rows/10}, nil
}

// Of the queries' plant, devices and properties of each.
const (
	queryDevices    = 100
	queryProperties = 100
	year            = 365 * 24 * time.Hour
)

// fillQuery gives a hub 10,000 series that end now: one of a year, two of thirty
// days, of all others an hour, every ten seconds.
func fillQuery(ctx context.Context, w *world, database string) (now time.Time, err error) {
	model := make([]map[string]any, queryProperties)
	for i := range model {
		model[i] = map[string]any{"name": propertyName(i), "type": "float", "access": "Read", "every": "1s",
			"address": map[string]any{"table": "holding", "register": 2 * i, "encoding": "float32"}}
	}
	if err := w.model(ctx, "query", model); err != nil {
		return now, err
	}
	var uids []string
	for d := range queryDevices {
		name := fmt.Sprintf("dev-%d", d)
		if err := w.device(ctx, "query", "nowhere", name, "127.0.0.1:1"); err != nil {
			return now, err
		}
		var made struct{ Metadata struct{ UID string } }
		if err := w.call(ctx, "GET", "/api/v1/devices/"+name, nil, &made); err != nil {
			return now, err
		}
		uids = append(uids, made.Metadata.UID)
		sleep(ctx, perWrite)
	}
	l, err := openLibrary(ctx, database)
	if err != nil {
		return now, err
	}
	defer l.Close()
	ids, err := l.SeriesIDs(ctx, keys(uids, queryProperties))
	if err != nil {
		return now, err
	}
	f := fleet{}
	now = time.Now().Truncate(time.Second)
	fill := func(ids []int64, from, to, step time.Duration) error {
		return l.signal(ctx, ids, now.Add(-from), step, int((from-to)/step), f.value)
	}
	const hour = time.Hour
	for _, part := range []func() error{
		func() error { return fill(ids[:1], year, hour, time.Second) },
		func() error { return fill(ids[1:3], 30*24*hour, hour, time.Second) },
		func() error { return fill(ids[3:], hour, 0, 10*time.Second) },
		func() error { return fill(ids[:3], hour, 0, time.Second) },
	} {
		if err := part(); err != nil {
			return now, err
		}
	}
	// As it is an hour later: weeks that are over are merged for good.
	return now, l.settle(ctx, time.Now().Add(time.Hour))
}

// question is one kind of query, asked n times.
type question struct {
	what  string
	goal  time.Duration
	n     int
	want  int // points or buckets
	query func(i int) (device, property string)
	back  time.Duration
	step  string
}

var questions = []question{
	{"last hour of one of 10,000 series, 360 points", 20 * time.Millisecond, 300, 360, anyOf, time.Hour, ""},
	{"last hour of a sample a second, 3600 points", 20 * time.Millisecond, 300, 3600, denseOf, time.Hour, ""},
	{"30 days of a sample a second by the hour", 50 * time.Millisecond, 300, 720, denseOf, 30 * 24 * time.Hour, "1h"},
	{"30 days of a sample a second by 5 minutes", 50 * time.Millisecond, 100, 8640, denseOf, 30 * 24 * time.Hour, "5m"},
	{"a year of a sample a second by the hour", 100 * time.Millisecond, 100, 8760, yearOf, year, "1h"},
	{"a year of a sample a second by the day", 100 * time.Millisecond, 100, 365, yearOf, year, "24h"},
}

func anyOf(i int) (device, property string) {
	return fmt.Sprintf("dev-%d", 1+i*7%(queryDevices-1)), propertyName(i * 31 % queryProperties)
}
func denseOf(i int) (device, property string) { return "dev-0", propertyName(i % 3) }
func yearOf(int) (device, property string)    { return "dev-0", propertyName(0) }

// ask asks a question and measures the time until the whole answer is there.
func (w *world) ask(ctx context.Context, q question, now time.Time) (result, error) {
	var took []time.Duration
	for i := range q.n {
		device, property := q.query(i)
		path := fmt.Sprintf("/api/v1/devices/%s/properties/%s/history?limit=100000&from=%s&to=%s", device, property,
			url.QueryEscape(now.Add(-q.back).UTC().Format(time.RFC3339)), url.QueryEscape(now.UTC().Format(time.RFC3339)))
		if q.step != "" {
			path += "&step=" + q.step
		}
		sleep(ctx, perWrite)
		at := time.Now()
		answer, err := w.send(ctx, "GET", path, nil)
		if err != nil {
			return result{}, err
		}
		took = append(took, time.Since(at))
		var got struct{ Points, Buckets []json.RawMessage }
		if err := json.Unmarshal(answer, &got); err != nil {
			return result{}, err
		}
		if len(got.Points)+len(got.Buckets) < q.want {
			return result{}, fmt.Errorf("%s: %d points or buckets, want %d", q.what, len(got.Points)+len(got.Buckets), q.want)
		}
	}
	slices.Sort(took)
	p99 := percentile(took, 0.99)
	return result{fmt.Sprintf("REST: %s, p99 of %d (p50 %s)", q.what, q.n, percentile(took, 0.5).Round(10*time.Microsecond)), p99.Round(10 * time.Microsecond).String(),
		"-", "-", "< " + q.goal.String(), p99 < q.goal}, nil
}

// benchQuery measures queries over REST while the hub holds 10,000 series.
func benchQuery(ctx context.Context, _ settings) (out []result, err error) {
	pg, err := pgtest.Open(pgtest.Options{Fsync: true, Settings: postgresSettings})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pg.Close()) }()
	w, err := newHub(ctx, pg.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	now, err := fillQuery(ctx, w, pg.URL("postgres"))
	if err != nil {
		return nil, err
	}
	for _, q := range questions {
		r, err := w.ask(ctx, q, now)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}
