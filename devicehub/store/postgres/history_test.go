package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/internal/pgtest"
	"github.com/whimbrel-edge/whimbrel/models"
)

// filler ingests samples of properties p0, p1… of device boiler-1.
type filler struct {
	s     *Store
	ids   []int64
	acked uint64
}

func newFiller(tb testing.TB, s *Store, properties int) *filler {
	tb.Helper()
	f := &filler{s: s}
	var keys []store.SeriesKey
	for i := range properties {
		keys = append(keys, store.SeriesKey{DeviceUID: "uid-1", Assignment: 1, Property: fmt.Sprint("p", i)})
	}
	ids, err := s.SeriesIDs(tb.Context(), keys)
	if err != nil {
		tb.Fatal(err)
	}
	f.ids = ids
	if _, err := s.StartEpoch(tb.Context(), "n", "e", time.Now()); err != nil {
		tb.Fatal(err)
	}
	if err := s.Commit(tb.Context(), store.Commit{Revision: 1, Put: []store.Object{{Kind: "Device", Namespace: "plant", Name: "boiler-1", UID: "uid-1", JSON: []byte(`{}`)}}}); err != nil {
		tb.Fatal(err)
	}
	return f
}

// add ingests n samples of every property, made by sample.
func (f *filler) add(tb testing.TB, n int, sample func(property, i int) store.Sample) {
	tb.Helper()
	b := store.Batch{NodeUID: "n", Epoch: "e", After: f.acked, Acked: f.acked + 1, Received: time.Now()}
	f.acked++
	for i := range n {
		for p, id := range f.ids {
			storetest.Add(&b.Samples, id, sample(p, i))
		}
	}
	if err := f.s.Ingest(tb.Context(), []store.Batch{b}); err != nil {
		tb.Fatal(err)
	}
}

func compactAll(tb testing.TB, s *Store, now time.Time) {
	tb.Helper()
	for {
		more, err := s.Compact(tb.Context(), now)
		if err != nil {
			tb.Fatal(err)
		}
		if !more {
			return
		}
	}
}

// TestSamplesInSQL compares the SQL function and the view with what Samples
// returns, before and after compaction.
func TestSamplesInSQL(t *testing.T) {
	s := openNew(t)
	signals := storetest.Signals()
	f := newFiller(t, s, len(signals))
	random := rand.New(rand.NewPCG(3, 4))
	start := time.Date(2026, 3, 4, 23, 59, 50, 0, time.UTC) // a Wednesday: partitions change within
	for range 3 {
		f.add(t, 20, func(p, i int) store.Sample {
			v := signals[p](random)
			v.TimeUS = start.UnixMicro() + int64(i)*777_777 + random.Int64N(2)
			return v
		})
		start = start.Add(15 * time.Second)
	}
	from, to := time.Date(2026, 3, 4, 23, 59, 55, 5000, time.UTC), time.Date(2026, 3, 5, 0, 0, 20, 123456000, time.UTC)
	for _, when := range []string{"arrived", "compacted", "merged"} {
		for p := range signals {
			property := fmt.Sprint("p", p)
			var want []string
			if err := s.Samples(t.Context(), "uid-1", property, from.UnixMicro(), to.UnixMicro(), func(v store.Sample) error {
				want = append(want, line(v))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if len(want) < 20 {
				t.Fatalf("%s: %d samples", property, len(want))
			}
			for what, query := range map[string]string{
				"function": `SELECT time, value, text, quality, coalesce(reason, '') FROM samples('plant', 'boiler-1', $1, $2, $3) ORDER BY time`,
				"by uid":   `SELECT time, value, text, quality, coalesce(reason, '') FROM samples_of('uid-1', $1, $2, $3) ORDER BY time`,
				"view":     `SELECT time, value, text, quality, coalesce(reason, '') FROM history WHERE namespace = 'plant' AND device = 'boiler-1' AND property = $1 AND time >= $2 AND time < $3 ORDER BY time`,
			} {
				rows, err := s.pool.Query(t.Context(), query, property, from, to)
				if err != nil {
					t.Fatal(err)
				}
				have, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
					var at time.Time
					var value *float64
					var text *string
					var quality, reason string
					err := row.Scan(&at, &value, &text, &quality, &reason)
					return shown(at, value, text, quality, reason), err
				})
				if err != nil {
					t.Fatalf("%s of %s, %s: %v", what, property, when, err)
				}
				sortWithin(have)
				sortWithin(want)
				if strings.Join(have, "\n") != strings.Join(want, "\n") {
					t.Errorf("%s of %s, %s:\n%s\nwant\n%s", what, property, when, strings.Join(have, "\n"), strings.Join(want, "\n"))
				}
			}
		}
		compactAll(t, s, time.Now())
		if when == "compacted" {
			compactAll(t, s, time.Now().Add(time.Hour)) // which makes chunks of everything
		}
	}
	// All of time, and times that are no dates.
	f.add(t, 1, func(int, int) store.Sample {
		return store.Sample{TimeUS: math.MinInt64, Kind: uint8(models.KindInt), Int: 1}
	})
	f.add(t, 1, func(int, int) store.Sample {
		return store.Sample{TimeUS: math.MaxInt64 - 1, Kind: uint8(models.KindInt), Int: 1}
	})
	for range 2 {
		var n int
		if err := s.pool.QueryRow(t.Context(), `SELECT count(time) FROM samples('plant', 'boiler-1', 'p0', '-infinity', 'infinity')`).Scan(&n); err != nil || n != 62 {
			t.Errorf("%d samples of all time, error %v", n, err)
		}
		compactAll(t, s, time.Now().Add(time.Hour))
	}
}

// TestTimesInSQL: every microsecond is that one in SQL, too.
func TestTimesInSQL(t *testing.T) {
	s := openNew(t)
	random := rand.New(rand.NewPCG(7, 8))
	times := []int64{0, -1, 1, 1 << 53, 1<<53 + 1, 1<<53 - 1, -1 << 53, -1<<53 - 1, -1<<53 + 1, -210866803200000000,
		time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC).UnixMicro(), time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC).UnixMicro()}
	for range 500 {
		times = append(times, max(random.Int64()>>random.IntN(20), 0)-random.Int64N(210866803200000000))
	}
	for _, us := range times {
		var have int64
		if err := s.pool.QueryRow(t.Context(), `SELECT samples_us(samples_time($1))`, us).Scan(&have); err != nil || have != us {
			t.Errorf("%d became %d, error %v", us, have, err)
		}
	}
	var least string
	if err := s.pool.QueryRow(t.Context(), `SELECT samples_time(-210866803200000001)::text || samples_time($1)::text`, int64(math.MinInt64)).Scan(&least); err != nil || least != "-infinity-infinity" {
		t.Errorf("before all dates: %s, error %v", least, err)
	}
}

// TestReader does as the guide says, and reads history as a role that can read
// nothing else.
func TestReader(t *testing.T) {
	text, err := os.ReadFile("../../../docs/history.md")
	if err != nil {
		t.Fatal(err)
	}
	grants := regexp.MustCompile("(?s)```sql\n(CREATE ROLE grafana.*?)```").FindSubmatch(text)
	if grants == nil {
		t.Fatal("docs/history.md grants nothing")
	}
	s := openNew(t)
	f := newFiller(t, s, 1)
	f.add(t, 3, func(_, i int) store.Sample { return store.Sample{TimeUS: int64(i), Kind: uint8(models.KindInt)} })
	compactAll(t, s, time.Now().Add(time.Hour))
	f.add(t, 2, func(_, i int) store.Sample { return store.Sample{TimeUS: int64(i) + 10, Kind: uint8(models.KindInt)} })
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	exec := func(query string) {
		t.Helper()
		if _, err := conn.Exec(context.WithoutCancel(t.Context()), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	exec(string(grants[1]))
	defer exec(`RESET ROLE; DROP OWNED BY grafana; DROP ROLE grafana`)
	exec(`SET ROLE grafana`)
	for query, want := range map[string]int{
		`SELECT count(*) FROM samples('plant', 'boiler-1', 'p0', '-infinity', 'infinity')`:      5,
		`SELECT count(*) FROM samples_of('uid-1', 'p0', '-infinity', 'infinity')`:               5,
		`SELECT count(*) FROM history WHERE device = 'boiler-1' AND value = 0 AND time < now()`: 5,
	} {
		var n int
		if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil || n != want {
			t.Errorf("%s: %d, error %v", query, n, err)
		}
	}
	for _, query := range []string{`SELECT json FROM objects`, `SELECT * FROM secrets`, `SELECT * FROM api_tokens`, `SELECT * FROM audit`, `DELETE FROM samples_batch`} {
		if _, err := conn.Exec(t.Context(), query); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: error %v", query, err)
		}
	}
}

// sortWithin is enough of a sort: lines begin with their times.
func sortWithin(lines []string) {
	for i := 1; i < len(lines); i++ {
		for k := i; k > 0 && lines[k] < lines[k-1]; k-- {
			lines[k], lines[k-1] = lines[k-1], lines[k]
		}
	}
}

func shown(at time.Time, value *float64, text *string, quality, reason string) string {
	v, x := "null", "null"
	if value != nil {
		v = strconv.FormatFloat(*value, 'g', -1, 64)
	}
	if text != nil {
		x = *text
	}
	return fmt.Sprintf("%d %s %s %s %s", at.UnixMicro(), v, x, quality, reason)
}

// line is how the SQL function is to show a sample.
func line(v store.Sample) string {
	var value *float64
	var text *string
	switch models.Kind(v.Kind) {
	case models.KindNull:
	case models.KindBool:
		value, text = new(float64(v.Int)), new(strconv.FormatBool(v.Int != 0))
	case models.KindInt:
		value, text = new(float64(v.Int)), new(strconv.FormatInt(v.Int, 10))
	case models.KindUint:
		value, text = new(float64(uint64(v.Int))), new(strconv.FormatUint(uint64(v.Int), 10))
	case models.KindFloat:
		value = &v.Float
		text = new(sqlFloat(v.Float))
	case models.KindString:
		text = new(strings.ReplaceAll(v.Text, "\x00", `\000`))
	case models.KindBytes:
		b, _ := models.Bytes([]byte(v.Text)).MarshalJSON()
		text = new(strings.Trim(string(b), `"`))
	default:
		text = &v.Text
	}
	quality := models.Quality(min(v.Quality, 2)).String()
	return shown(time.UnixMicro(v.TimeUS), value, text, quality, v.Reason)
}

var exponent = regexp.MustCompile(`e([+-])(\d)$`)

// sqlFloat writes a float as Postgres does.
func sqlFloat(f float64) string {
	if abs := math.Abs(f); abs != 0 && (abs < 1e-4 || abs >= 1e15) {
		return exponent.ReplaceAllString(strconv.FormatFloat(f, 'e', -1, 64), "e${1}0$2")
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// TestPruning looks at how the function is planned: of twenty weeks it may read
// only those that were asked for, with and without the bounds known beforehand.
func TestPruning(t *testing.T) {
	s := openNew(t)
	f := newFiller(t, s, 1)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // the first day of a period
	for week := range 20 {
		f.add(t, 100, func(_, i int) store.Sample {
			return store.Sample{TimeUS: start.Add(time.Duration(week*7*24+i) * time.Hour).UnixMicro(), Kind: uint8(models.KindInt), Int: int64(i)}
		})
	}
	compactAll(t, s, time.Now().Add(time.Hour))
	c, err := pgx.Connect(t.Context(), s.pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	explain := func(query string) string {
		t.Helper()
		results, err := c.PgConn().Exec(t.Context(), query).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, row := range results[len(results)-1].Rows {
			lines = append(lines, string(row[0]))
		}
		return strings.Join(lines, "\n")
	}
	const asked = `samples('plant', 'boiler-1', 'p0', '2026-02-12 10:00+00', '2026-02-21 00:00+00')`
	for what, query := range map[string]string{
		"constants": `EXPLAIN SELECT * FROM ` + asked,
		"a plan for any times": `SET plan_cache_mode = force_generic_plan;
			PREPARE q (timestamptz, timestamptz) AS SELECT * FROM samples('plant', 'boiler-1', 'p0', $1, $2);
			EXPLAIN EXECUTE q ('2026-02-12 10:00+00', '2026-02-21 00:00+00')`,
	} {
		plan := explain(query)
		tables := regexp.MustCompile(`on (samples_chunk_\w+)`).FindAllStringSubmatch(plan, -1)
		read := map[string]bool{}
		for _, m := range tables {
			if !strings.Contains(m[1], "_series_t0_idx") {
				read[m[1]] = true
			}
		}
		delete(read, "samples_chunk_default") // small, and always looked into
		if len(read) != 2 || !read["samples_chunk_20260212"] || !read["samples_chunk_20260219"] {
			t.Errorf("%s: reads %v in\n%s", what, read, plan)
		}
	}
	var n int
	if err := c.QueryRow(t.Context(), `SELECT count(*) FROM `+asked).Scan(&n); err != nil || n != 90+48 {
		t.Errorf("%d samples, error %v", n, err)
	}
}

// TestPruningOfArrived: of what has only arrived the function unpacks the rows of
// the time and of the series, and no others.
func TestPruningOfArrived(t *testing.T) {
	s := openNew(t)
	f := newFiller(t, s, 3)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for hour := range 30 {
		b := store.Batch{NodeUID: "n", Epoch: "e", After: f.acked, Acked: f.acked + 1, Received: time.Now()}
		f.acked++
		for i := range 60 {
			storetest.Add(&b.Samples, f.ids[hour%3], store.Sample{TimeUS: start.Add(time.Duration(hour)*time.Hour + time.Duration(i)*time.Minute).UnixMicro(), Kind: uint8(models.KindInt), Int: 1})
		}
		if err := s.Ingest(t.Context(), []store.Batch{b}); err != nil {
			t.Fatal(err)
		}
	}
	const of = ` FROM samples('plant', 'boiler-1', 'p0', '2026-01-01 03:30+00', '2026-01-01 12:10+00')` // hours 3, 6, 9 and 12 are p0's
	var n int
	if err := s.pool.QueryRow(t.Context(), `SELECT count(*)`+of).Scan(&n); err != nil || n != 30+60+60+10 {
		t.Errorf("%d samples, error %v", n, err)
	}
	var text []byte
	if err := s.pool.QueryRow(t.Context(), `EXPLAIN (ANALYZE, FORMAT JSON) SELECT *`+of).Scan(&text); err != nil {
		t.Fatal(err)
	}
	type node struct {
		Type  string `json:"Node Type"`
		Loops int    `json:"Actual Loops"`
		Plans []node
	}
	var plans []struct{ Plan node }
	if err := json.Unmarshal(text, &plans); err != nil {
		t.Fatal(err)
	}
	unpacked := 0
	var look func(node)
	look = func(p node) {
		if p.Type == "Function Scan" {
			unpacked += p.Loops
		}
		for _, below := range p.Plans {
			look(below)
		}
	}
	look(plans[0].Plan)
	if unpacked != 4 {
		t.Errorf("%d rows of 30 are unpacked, want 4:\n%s", unpacked, text)
	}
}

// TestWeeks: a week that is over is told by one row, until something late is merged
// into it, and after that again.
func TestWeeks(t *testing.T) {
	s := openNew(t)
	f := newFiller(t, s, 1)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() // the first day of a period
	const n = 20_000                                                 // one a minute: two weeks
	f.add(t, n, func(_, i int) store.Sample {
		return store.Sample{TimeUS: start + int64(i)*store.Minute, Kind: uint8(models.KindInt), Int: int64(i)}
	})
	compactAll(t, s, time.Now().Add(time.Hour))
	weeks := func(want string) {
		t.Helper()
		var have string
		if err := s.pool.QueryRow(t.Context(), `SELECT string_agg(coalesce(sign(length(hours))::text, 'due'), ' ' ORDER BY start) FROM samples_week`).Scan(&have); err != nil || have != want {
			t.Errorf("weeks are %q, want %q, error %v", have, want, err)
		}
	}
	read := func() (samples, rollups, total int64) {
		t.Helper()
		if err := s.Rollups(t.Context(), "uid-1", "p0", start, start+100*7*24*store.Hour, 24*store.Hour, func(store.Sample) error { samples++; return nil },
			func(r *store.Rollup) error { rollups++; total += r.Count; return nil }); err != nil {
			t.Fatal(err)
		}
		return samples, rollups, total + samples
	}
	weeks("1 1")
	// Without the rollups of chunks there are still those of weeks.
	if _, err := s.pool.Exec(t.Context(), `UPDATE samples_chunk SET hours = NULL`); err != nil {
		t.Fatal(err)
	}
	if samples, rollups, total := read(); samples != 0 || rollups != (n+59)/60 || total != n {
		t.Errorf("%d samples, %d rollups, of %d samples in all", samples, rollups, total)
	}
	late := func() {
		f.add(t, 1, func(int, int) store.Sample {
			return store.Sample{TimeUS: start + 5*store.Minute, Kind: uint8(models.KindInt), Int: 7}
		})
	}
	late()
	if _, rollups, total := read(); rollups == 0 || total != n+1 {
		t.Errorf("late: %d rollups, of %d samples in all", rollups, total)
	}
	if _, err := s.merge(t.Context(), time.Now()); err != nil { // it has only arrived
		t.Fatal(err)
	}
	weeks("1 1")
	compactAll(t, s, time.Now().Add(time.Hour))
	weeks("1 1")
	if samples, rollups, total := read(); samples != 0 || rollups < n/60 || total != n+1 {
		t.Errorf("late, merged: %d samples, %d rollups, of %d samples in all", samples, rollups, total)
	}
	// What is deleted is told no longer.
	if err := s.Expire(t.Context(), []store.Retention{{DeviceUID: "uid-1", BeforeUS: start + 7*24*store.Hour}}, time.UnixMicro(start+24*store.Hour)); err != nil {
		t.Fatal(err)
	}
	weeks("1")
	if _, _, total := read(); total != n-7*24*60 {
		t.Errorf("%d samples are left, want %d", total, n-7*24*60)
	}
}

// TestOddFloats: a few floats that are no decimal numbers do not cost all others of
// their chunk eight bytes each.
func TestOddFloats(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for what, c := range map[string]struct {
		n    int
		odd  func(i int) bool
		want func(*chunk) bool
	}{
		"none":           {4096, func(int) bool { return false }, func(k *chunk) bool { return k.odd == nil && k.v2 != nil }},
		"some":           {4096, func(i int) bool { return i%30 == 7 }, func(k *chunk) bool { return len(k.odd) == 137 && k.v2 != nil }},
		"first and last": {100, func(i int) bool { return i == 0 || i == 99 }, func(k *chunk) bool { return len(k.odd) == 2 && k.v2 != nil }},
		"too many":       {4096, func(i int) bool { return i%10 == 0 }, func(k *chunk) bool { return k.odd == nil && k.f8 != nil }},
		"all":            {10, func(int) bool { return true }, func(k *chunk) bool { return k.odd == nil && k.f8 != nil }},
	} {
		var in store.Samples
		for i := range c.n {
			v := store.Sample{TimeUS: int64(i) * 1_000_000, Kind: uint8(models.KindFloat), Float: float64(random.IntN(5000)) / 100}
			if c.odd(i) {
				v.Float = random.NormFloat64()
			}
			storetest.Add(&in, 1, v)
		}
		k := encodeChunk(&columns{Samples: in}, 1)
		if !c.want(k) {
			t.Errorf("%s: %d odd ones, %d of two bytes, %d of eight", what, len(k.odd), len(k.v2), len(k.f8))
		}
		for i := range c.n {
			if v := k.sample(i); math.Float64bits(v.Float) != math.Float64bits(in.Float[i]) {
				t.Fatalf("%s: sample %d is %v, was %v", what, i, v.Float, in.Float[i])
			}
		}
	}
}

// TestStrangeDates: dates that no clock should show are kept all the same, and go
// into partitions when these come to be made.
func TestStrangeDates(t *testing.T) {
	s := openNew(t)
	f := newFiller(t, s, 1)
	now := time.Now()
	times := []time.Time{time.Unix(0, 0), now.AddDate(30, 0, 0), now.AddDate(0, 2, 0), now}
	for _, at := range times {
		f.add(t, 1, func(int, int) store.Sample { return store.Sample{TimeUS: at.UnixMicro()} })
	}
	inDefault := func(want int) {
		t.Helper()
		var n int
		if err := s.pool.QueryRow(t.Context(), `SELECT coalesce(sum(n), 0) FROM samples_chunk_default`).Scan(&n); err != nil || n != want {
			t.Errorf("%d samples in the default partition, want %d, error %v", n, want, err)
		}
	}
	compactAll(t, s, now.Add(2*chunkAfter))
	inDefault(1) // what is of a time to come is still to be merged
	if _, err := s.pool.Exec(t.Context(), `WITH full_ones AS (DELETE FROM samples_young WHERE t0 > $1 RETURNING *) INSERT INTO samples_chunk SELECT * FROM full_ones`,
		now.AddDate(0, 1, 0).UnixMicro()); err != nil {
		t.Fatal(err)
	}
	inDefault(3)
	compactAll(t, s, now.AddDate(0, 2, 0)) // two months later there is a partition for one
	inDefault(2)
	n := 0
	if err := s.Samples(t.Context(), "uid-1", "p0", math.MinInt64, math.MaxInt64, func(store.Sample) error { n++; return nil }); err != nil || n != len(times) {
		t.Errorf("%d samples, error %v", n, err)
	}
}

// TestWorker is the process that TestKilled kills.
func TestWorker(t *testing.T) {
	storetest.Worker(t, func(t *testing.T, database string) store.Store { return openAt(t, database) })
}

// TestKilled kills the process, and the server, at every step that history takes:
// what has arrived becomes chunks, these are merged, weeks are summed up, partitions made and dropped, chunks expire.
func TestKilled(t *testing.T) {
	server := pgtest.StartServer(t, pgtest.Options{})
	url := server.URL("postgres")
	storetest.Killed(t, storetest.Killing{Database: url, Open: func(t *testing.T) store.Store { return openAt(t, url) },
		Steps: []string{"history.partition", "history.compact", "history.compact.deleted", "history.compacted", "history.merge", "history.merge.deleted", "history.week", "history.drop", "history.expire"},
		Crash: func(t *testing.T) {
			t.Helper()
			if err := errors.Join(server.Kill9(), server.Start()); err != nil {
				t.Fatal(err)
			}
		}})
}

// BenchmarkCompact measures how quickly what has arrived becomes chunks, and what
// a sample of a slowly changing signal takes afterwards, next to a table of rows
// with its index.
func BenchmarkCompact(b *testing.B) {
	server := pgtest.StartServer(b, pgtest.Options{Fsync: true, Settings: map[string]string{"shared_buffers": "256MB"}})
	s := openAt(b, server.URL("postgres"))
	b.Cleanup(func() { s.Close() })
	const properties, seconds = 100, 1000
	f := newFiller(b, s, properties)
	levels := make([]float64, properties)
	random := rand.New(rand.NewPCG(5, 6))
	at := time.Now().AddDate(0, 0, -30).UnixMicro()
	total := 0
	for b.Loop() {
		b.StopTimer()
		for range 5 {
			f.add(b, seconds/5, func(p, i int) store.Sample {
				levels[p] += math.Round(random.NormFloat64() * 3)
				return store.Sample{TimeUS: at + int64(i)*1_000_000 + random.Int64N(3000), Kind: uint8(models.KindFloat), Float: levels[p] / 10}
			})
			at += seconds / 5 * 1_000_000
		}
		total += properties * seconds
		b.StartTimer()
		compactAll(b, s, time.Now())
	}
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "samples/s")
	compactAll(b, s, time.Now().Add(time.Hour))
	b.ReportMetric(perSample(b, s, "^samples_(chunk|young|week)", total), "B/sample")
	if _, err := s.pool.Exec(b.Context(), `CREATE TABLE rows (series int, time timestamptz, value float8, quality smallint); CREATE INDEX ON rows (series, time)`); err != nil {
		b.Fatal(err)
	}
	if _, err := s.pool.Exec(b.Context(), `INSERT INTO rows SELECT 1, time, value, 0 FROM history ORDER BY time`); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(perSample(b, s, "^rows$", total), "B/row")
}

// BenchmarkRead measures the last hour of one series among 10,000, of which each
// has a sample every ten seconds, while the newest have only arrived.
func BenchmarkRead(b *testing.B) {
	server := pgtest.StartServer(b, pgtest.Options{Settings: map[string]string{"shared_buffers": "256MB"}})
	s := openAt(b, server.URL("postgres"))
	b.Cleanup(func() { s.Close() })
	const properties = 10_000
	f := newFiller(b, s, properties)
	now := time.Now()
	at := now.Add(-time.Hour)
	for range 360 {
		f.add(b, 1, func(p, i int) store.Sample {
			return store.Sample{TimeUS: at.UnixMicro() + int64(p), Kind: uint8(models.KindFloat), Float: float64(i+p) / 10}
		})
		at = at.Add(10 * time.Second)
		if at.Second() < 10 && at.Minute() < 59 {
			compactAll(b, s, now)
		}
	}
	for n := 0; b.Loop(); n++ {
		got := 0
		if err := s.Samples(b.Context(), "uid-1", fmt.Sprint("p", n*7919%properties), now.Add(-time.Hour).UnixMicro(), math.MaxInt64, func(store.Sample) error { got++; return nil }); err != nil || got != 360 {
			b.Fatalf("%d samples, error %v", got, err)
		}
	}
}

// perSample is what tables take on the disk, indexes and all, after a VACUUM FULL.
func perSample(b *testing.B, s *Store, tables string, samples int) float64 {
	b.Helper()
	if _, err := s.pool.Exec(b.Context(), `VACUUM FULL`); err != nil {
		b.Fatal(err)
	}
	var size float64
	if err := s.pool.QueryRow(b.Context(), `SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname ~ $1 AND relkind = 'r'
		AND pg_relation_size(oid) > 0`, tables).Scan(&size); err != nil {
		b.Fatal(err)
	}
	return size / float64(samples)
}

// TestPartitionsAreDropped: a week of which nothing is to be kept goes as a whole,
// and comes back when something late is of it.
// TestRowsStayAsTheyAre: large rows of one bucket are not written again before they
// become chunks, and samples of one time stay in the order in which they arrived
// between them, those that are put together, and chunks.
func TestRowsStayAsTheyAre(t *testing.T) {
	const series, times = 600, 40
	s := openNew(t)
	f := newFiller(t, s, series)
	random := rand.New(rand.NewPCG(3, 4))
	begin := time.Now().Add(-time.Minute).UnixMicro()
	want := make([][times][]int64, series) // by property and time, in the order of arrival
	next := int64(0)
	check := func(when string) {
		t.Helper()
		for range 20 {
			p := random.IntN(series)
			var have, expected []int64
			if err := s.Samples(t.Context(), "uid-1", fmt.Sprint("p", p), math.MinInt64, math.MaxInt64, func(v store.Sample) error {
				have = append(have, v.Int)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			for i := range want[p] {
				expected = append(expected, want[p][i]...)
			}
			if fmt.Sprint(have) != fmt.Sprint(expected) {
				t.Fatalf("%s: p%d is %v, want %v", when, p, have, expected)
			}
		}
	}
	stayed, chunks := 0, 0
	for i := range 150 {
		if i < 40 || random.IntN(3) > 0 {
			f.add(t, 1, func(p, _ int) store.Sample {
				next++
				at := random.IntN(times)
				want[p][at] = append(want[p][at], next)
				return store.Sample{TimeUS: begin + int64(at), Kind: uint8(models.KindInt), Int: next}
			})
		} else {
			b := store.Batch{NodeUID: "n", Epoch: "e", After: f.acked, Acked: f.acked + 1, Received: time.Now()}
			f.acked++
			for range 1 + random.IntN(50) {
				p, at := random.IntN(series), random.IntN(times)
				next++
				want[p][at] = append(want[p][at], next)
				storetest.Add(&b.Samples, f.ids[p], store.Sample{TimeUS: begin + int64(at), Kind: uint8(models.KindInt), Int: next})
			}
			if err := s.Ingest(t.Context(), []store.Batch{b}); err != nil {
				t.Fatal(err)
			}
		}
		if i > 40 && random.IntN(4) > 0 {
			continue
		}
		if _, err := s.Compact(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		var large, young int
		if err := s.pool.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE level = 1 AND n = $1), (SELECT count(*) FROM samples_young) FROM samples_batch`, series).Scan(&large, &young); err != nil {
			t.Fatal(err)
		}
		stayed, chunks = max(stayed, large), max(chunks, young)
		if i%10 == 0 {
			check(fmt.Sprint("after ", i))
		}
	}
	check("in the end")
	compactAll(t, s, time.Now().Add(2*chunkAfter))
	check("in chunks")
	if stayed < bucketSteps-1 || chunks == 0 {
		t.Errorf("%d rows at most stayed as they are, and there were %d chunks before the end", stayed, chunks)
	}
}

// TestRowsOfOneBucket: what arrives is cut where large buckets begin and end.
func TestRowsOfOneBucket(t *testing.T) {
	const b = 1 << bucketBits
	var in store.Samples
	for _, of := range [][2]int64{{0, 10}, {b, b + 20}, {2 * b, 2*b + 700}, {3 * b, 3*b + 5}, {7 * b, 7*b + 3000}, {8 * b, 8*b + 3000}, {9 * b, 9*b + 3}, {12 * b, 12*b + 4}} {
		for id := of[0]; id < of[1]; id++ {
			storetest.Add(&in, id, store.Sample{TimeUS: id, Kind: uint8(models.KindInt), Int: id})
		}
	}
	var have []string
	batchRows(appendRuns(nil, &columns{Samples: in}), 0, time.Now(), func(row *tuple) {
		v := row.values()
		have = append(have, fmt.Sprint(readInt8(v[4])>>bucketBits, "-", readInt8(v[5])>>bucketBits, " ", readInt4(v[2])))
	})
	if want := []string{"0-1 30", "2-2 700", "3-3 5", "7-7 3000", "8-8 3000", "9-12 7"}; !slices.Equal(have, want) {
		t.Errorf("rows %q, want %q", have, want)
	}
}

// TestKept: rows stay where all of their bucket can.
func TestKept(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	for what, c := range map[string]struct {
		rows    []arrived
		pending map[int64]bool
		keep    string
	}{
		"large":                       {[]arrived{{1, 5, 5, 4096, 4096, at(1)}, {2, 6, 6, 4096, 4096, at(1)}, {3, 5, 5, 4096, 4096, at(2)}}, nil, "[1 2 3]"},
		"small beside large":          {[]arrived{{1, 5, 5, 4096, 4096, at(1)}, {2, 6, 6, 4096, 4096, at(1)}, {3, 5, 5, keepFrom - 1, 9, at(2)}}, nil, "[2]"},
		"wide":                        {[]arrived{{1, 5, 5, 4096, 4096, at(1)}, {2, 6, 6, 4096, 4096, at(1)}, {3, 4, 5, 4096, 4096, at(2)}, {4, 3, 3, 4096, 4096, at(3)}}, nil, "[2 4]"},
		"enough for chunks":           {[]arrived{{1, 5, 5, 4096, 10, at(1)}, {2, 6, 6, 4096, 4096, at(1)}}, nil, "[2]"},
		"enough, but others wait":     {[]arrived{{1, 5, 5, 4096, 10, at(1)}, {2, 6, 6, 4096, 4096, at(1)}}, map[int64]bool{5: true}, "[1 2]"},
		"enough in many rows of some": {[]arrived{{1, 5, 5, 4096, 400, at(1)}, {2, 5, 5, 4096, 400, at(1)}, {3, 5, 5, 4096, 400, at(2)}, {4, 5, 5, 4096, 400, at(2)}}, nil, "[1 2 3 4]"},
		"nothing":                     {nil, nil, "[]"},
	} {
		keep, rest := kept(c.rows, c.pending)
		if fmt.Sprint(keep) != c.keep || len(keep)+len(rest) != len(c.rows) {
			t.Errorf("%s: %v stay, want %s; %v do not", what, keep, c.keep, rest)
		}
	}
}

// TestArraysHaveNoStatistics: to count the elements of all these arrays takes
// autovacuum longer than it takes to store them, and no plan asks for it.
func TestArraysHaveNoStatistics(t *testing.T) {
	s := openNew(t)
	if _, err := s.Compact(t.Context(), time.Now()); err != nil { // makes partitions
		t.Fatal(err)
	}
	rows, err := s.pool.Query(t.Context(), `SELECT c.relname || '.' || a.attname, a.attstattarget FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
		WHERE c.relname LIKE 'samples\_%' AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND t.typcategory = 'A'`)
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var target, n int
	partitions := map[string]bool{}
	if _, err := pgx.ForEachRow(rows, []any{&name, &target}, func() error {
		if n++; target != 0 {
			t.Errorf("%s has a statistics target of %d", name, target)
		}
		if strings.HasPrefix(name, "samples_chunk_2") {
			partitions[strings.Split(name, ".")[0]] = true
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n < 50 || len(partitions) < partitionsAhead {
		t.Errorf("looked at %d arrays and %d partitions", n, len(partitions))
	}
}

func TestPartitionsAreDropped(t *testing.T) {
	s := openNew(t)
	f := newFiller(t, s, 2)
	now := time.Now()
	for week := range 10 {
		f.add(t, 1, func(int, int) store.Sample {
			return store.Sample{TimeUS: now.Add(-time.Duration(week) * 7 * 24 * time.Hour).UnixMicro()}
		})
	}
	compactAll(t, s, now.Add(2*chunkAfter))
	partitions := func() (n int) {
		t.Helper()
		if err := s.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_inherits WHERE inhparent = 'samples_chunk'::regclass`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := partitions()
	rule := store.Retention{DeviceUID: "uid-1", BeforeUS: now.Add(-29 * 24 * time.Hour).UnixMicro()}
	if err := s.Expire(t.Context(), []store.Retention{{DeviceUID: "other", BeforeUS: now.UnixMicro()}}, now); err != nil || partitions() != before {
		t.Fatalf("%d of %d partitions are left by a rule for nobody, error %v", partitions(), before, err)
	}
	if err := s.Expire(t.Context(), []store.Retention{rule}, now); err != nil || partitions() != before-5 {
		t.Fatalf("%d of %d partitions are left, want 5 fewer, error %v", partitions(), before, err)
	}
	f.add(t, 1, func(int, int) store.Sample { return store.Sample{TimeUS: now.Add(-50 * 24 * time.Hour).UnixMicro()} })
	compactAll(t, s, now.Add(2*chunkAfter))
	n := 0
	if err := s.Samples(t.Context(), "uid-1", "p0", 0, math.MaxInt64, func(store.Sample) error { n++; return nil }); err != nil || n != 5+1 || partitions() != before-4 {
		t.Errorf("%d samples in %d partitions, error %v", n, partitions(), err)
	}
}
