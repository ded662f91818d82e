-- +goose Up

-- Samples as they arrive, and until there are enough of a series for a chunk of
-- its own: one row holds runs of many series, ordered by series, so that a reader
-- of one series finds the few rows that may have it by s0 and s1 and the run
-- within by series and ends. There is no index over what is in the arrays: these
-- rows live for seconds, and maintaining one costs more than all the rest.
--
-- Every array but the first two has one element per sample, and is NULL where it
-- would say nothing. Nothing is compressed: it would not pay.
ALTER TABLE samples_batch RENAME TO samples_batch_before;
ALTER INDEX samples_batch_pkey RENAME TO samples_batch_before_pkey;
ALTER SEQUENCE samples_batch_id_seq RENAME TO samples_batch_before_id_seq;

CREATE TABLE samples_batch (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- in the order of arrival, for one series and level
    level     smallint    NOT NULL, -- 0: as it arrived; higher ones hold what came before
    received  timestamptz NOT NULL, -- by the hub's clock; of several, the first
    n         integer     NOT NULL, -- samples
    runs      integer     NOT NULL, -- series
    s0        bigint      NOT NULL, -- the least of series
    s1        bigint      NOT NULL, -- the greatest
    t0        bigint      NOT NULL, -- the earliest sample, microseconds since 1970
    t1        bigint      NOT NULL, -- the latest
    series    bigint[]    NOT NULL, -- ascending, each once
    ends      integer[]   NOT NULL, -- for each series the position of its last sample, from 1
    t4        integer[],            -- the time less t0
    t8        bigint[],             -- else the time
    kind      smallint    NOT NULL, -- models.Kind
    kinds     smallint[],           -- where they differ
    int_v     bigint[],             -- of kinds bool, int and, by its bits, uint
    float_v   float8[],             -- of kind float
    text_v    bytea[],              -- of kinds string, bytes and JSON; an element that is NULL is empty
    qualities smallint[],           -- models.Quality; NULL: all are good
    reasons   text[],               -- an element that is NULL is empty
    backfill  boolean     NOT NULL, -- made while there was no link
    backfills boolean[]             -- where it differs
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000);

ALTER TABLE samples_batch ALTER series SET STORAGE EXTERNAL, ALTER ends SET STORAGE EXTERNAL, ALTER t4 SET STORAGE EXTERNAL, ALTER t8 SET STORAGE EXTERNAL,
    ALTER kinds SET STORAGE EXTERNAL, ALTER int_v SET STORAGE EXTERNAL, ALTER float_v SET STORAGE EXTERNAL, ALTER qualities SET STORAGE EXTERNAL,
    ALTER reasons SET STORAGE EXTERNAL, ALTER backfills SET STORAGE EXTERNAL;

-- What has arrived under the release before.
INSERT INTO samples_batch (level, received, n, runs, s0, s1, t0, t1, series, ends, t8, kind, kinds, int_v, float_v, text_v, qualities, reasons, backfill)
SELECT 0, b.received, v.n, cardinality(r.series), r.series[1], r.series[cardinality(r.series)], b.t0, b.t1, r.series, r.ends, v.times, 0, v.kinds, v.ints, v.floats, v.texts, v.qualities, v.reasons, b.backfill
FROM samples_batch_before b
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS n, array_agg(u.t ORDER BY u.s, u.o) AS times, array_agg(u.k ORDER BY u.s, u.o) AS kinds,
        array_agg(coalesce(u.i, 0) ORDER BY u.s, u.o) AS ints, array_agg(coalesce(u.f, 0) ORDER BY u.s, u.o) AS floats,
        array_agg(u.x ORDER BY u.s, u.o) AS texts, array_agg(coalesce(u.q, 0::smallint) ORDER BY u.s, u.o) AS qualities, array_agg(u.why ORDER BY u.s, u.o) AS reasons
    FROM unnest(b.series, b.time_us, b.kind, b.int_v, b.float_v, b.text_v, b.quality, b.reason) WITH ORDINALITY AS u (s, t, k, i, f, x, q, why, o)
) AS v
CROSS JOIN LATERAL (
    SELECT array_agg(g.s ORDER BY g.s) AS series, array_agg(g.upto ORDER BY g.s) AS ends
    FROM (SELECT u.s, (sum(count(*)) OVER (ORDER BY u.s))::integer AS upto FROM unnest(b.series) AS u (s) GROUP BY u.s) AS g
) AS r
ORDER BY b.id;

-- Rollups: what the samples of a chunk come to by the minute and by the hour, for
-- those chunks where that is much shorter than the samples. They are made and
-- dropped with their chunk, so that they can say nothing else than it does.
ALTER TABLE samples_chunk ADD COLUMN minutes bytea, ADD COLUMN hours bytea;
ALTER TABLE samples_chunk ALTER minutes SET STORAGE EXTERNAL, ALTER hours SET STORAGE MAIN;

DROP FUNCTION samples(text, text, text, timestamptz, timestamptz);
DROP VIEW history;
DROP TABLE samples_batch_before;

-- All samples of a property from (inclusive) to (exclusive), in no order.
CREATE FUNCTION samples(namespace text, device text, property text, "from" timestamptz, "to" timestamptz)
RETURNS TABLE ("time" timestamptz, value float8, text text, quality text, reason text) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT samples_time(c.t0 + c.tick * coalesce(v.t4, v.t8, v.i)),
           samples_value(coalesce(v.k, c.kind), c.base + coalesce(v.v2, v.v4, v.v8, 0), coalesce((c.base + coalesce(v.v2, v.v4, v.v8, 0)) / c.divisor + coalesce(v.nudge, 0) * c.nudge_by, v.f4, v.f8)),
           samples_text(coalesce(v.k, c.kind), c.base + coalesce(v.v2, v.v4, v.v8, 0), coalesce((c.base + coalesce(v.v2, v.v4, v.v8, 0)) / c.divisor + coalesce(v.nudge, 0) * c.nudge_by, v.f4, v.f8), v.x),
           samples_quality(v.q), v.why
    FROM objects o
    JOIN series s ON s.device_uid = o.uid
    JOIN samples_chunk c ON c.series = s.id
    CROSS JOIN LATERAL ROWS FROM (generate_series(0, c.n - 1), unnest(c.t4), unnest(c.t8), unnest(c.kinds), unnest(c.v2), unnest(c.v4), unnest(c.v8),
        unnest(c.nudge), unnest(c.f4), unnest(c.f8), unnest(c.text_v), unnest(c.quality), unnest(c.reason)) AS v (i, t4, t8, k, v2, v4, v8, nudge, f4, f8, x, q, why)
    WHERE o.kind = 'Device' AND o.namespace = $1 AND o.name = $2 AND s.property = $3
      AND c.t0 >= samples_period(samples_us($4)) AND c.t0 < samples_us($5) AND c.t1 >= samples_us($4)
      AND c.t0 + c.tick * coalesce(v.t4, v.t8, v.i) >= samples_us($4) AND c.t0 + c.tick * coalesce(v.t4, v.t8, v.i) < samples_us($5)
    UNION ALL
    SELECT samples_time(coalesce(b.t0 + v.t4, v.t8)), samples_value(coalesce(v.k, b.kind), coalesce(v.i, 0), coalesce(v.f, 0)), samples_text(coalesce(v.k, b.kind), coalesce(v.i, 0), coalesce(v.f, 0), v.x),
           samples_quality(v.q), v.why
    FROM objects o
    JOIN series s ON s.device_uid = o.uid
    JOIN samples_batch b ON b.s0 <= s.id AND b.s1 >= s.id
    CROSS JOIN LATERAL (SELECT array_position(b.series, s.id) AS p OFFSET 0) AS at
    CROSS JOIN LATERAL (SELECT coalesce(b.ends[at.p - 1], 0) + 1 AS lo, b.ends[at.p] AS hi OFFSET 0) AS x
    CROSS JOIN LATERAL ROWS FROM (generate_series(x.lo, x.hi), unnest(b.t4[x.lo:x.hi]), unnest(b.t8[x.lo:x.hi]), unnest(b.kinds[x.lo:x.hi]), unnest(b.int_v[x.lo:x.hi]),
        unnest(b.float_v[x.lo:x.hi]), unnest(b.text_v[x.lo:x.hi]), unnest(b.qualities[x.lo:x.hi]), unnest(b.reasons[x.lo:x.hi])) AS v (n, t4, t8, k, i, f, x, q, why)
    WHERE o.kind = 'Device' AND o.namespace = $1 AND o.name = $2 AND s.property = $3 AND at.p IS NOT NULL
      AND b.t0 < samples_us($5) AND b.t1 >= samples_us($4)
      AND coalesce(b.t0 + v.t4, v.t8) >= samples_us($4) AND coalesce(b.t0 + v.t4, v.t8) < samples_us($5)
$$;

-- The same of everything, for a look at small scale: a condition on the time
-- spares neither partitions nor rows.
CREATE VIEW history AS
    SELECT o.namespace, o.name AS device, s.property, samples_time(c.t0 + c.tick * coalesce(v.t4, v.t8, v.i)) AS "time",
           samples_value(coalesce(v.k, c.kind), c.base + coalesce(v.v2, v.v4, v.v8, 0), coalesce((c.base + coalesce(v.v2, v.v4, v.v8, 0)) / c.divisor + coalesce(v.nudge, 0) * c.nudge_by, v.f4, v.f8)) AS value,
           samples_text(coalesce(v.k, c.kind), c.base + coalesce(v.v2, v.v4, v.v8, 0), coalesce((c.base + coalesce(v.v2, v.v4, v.v8, 0)) / c.divisor + coalesce(v.nudge, 0) * c.nudge_by, v.f4, v.f8), v.x) AS text,
           samples_quality(v.q) AS quality, v.why AS reason
    FROM objects o
    JOIN series s ON s.device_uid = o.uid AND o.kind = 'Device'
    JOIN samples_chunk c ON c.series = s.id
    CROSS JOIN LATERAL ROWS FROM (generate_series(0, c.n - 1), unnest(c.t4), unnest(c.t8), unnest(c.kinds), unnest(c.v2), unnest(c.v4), unnest(c.v8),
        unnest(c.nudge), unnest(c.f4), unnest(c.f8), unnest(c.text_v), unnest(c.quality), unnest(c.reason)) AS v (i, t4, t8, k, v2, v4, v8, nudge, f4, f8, x, q, why)
    UNION ALL
    SELECT o.namespace, o.name, s.property, samples_time(coalesce(b.t0 + v.t4, v.t8)), samples_value(coalesce(v.k, b.kind), coalesce(v.i, 0), coalesce(v.f, 0)), samples_text(coalesce(v.k, b.kind), coalesce(v.i, 0), coalesce(v.f, 0), v.x),
           samples_quality(v.q), v.why
    FROM objects o
    JOIN series s ON s.device_uid = o.uid AND o.kind = 'Device'
    JOIN samples_batch b ON b.s0 <= s.id AND b.s1 >= s.id
    CROSS JOIN LATERAL (SELECT array_position(b.series, s.id) AS p OFFSET 0) AS at
    CROSS JOIN LATERAL (SELECT coalesce(b.ends[at.p - 1], 0) + 1 AS lo, b.ends[at.p] AS hi OFFSET 0) AS x
    CROSS JOIN LATERAL ROWS FROM (generate_series(x.lo, x.hi), unnest(b.t4[x.lo:x.hi]), unnest(b.t8[x.lo:x.hi]), unnest(b.kinds[x.lo:x.hi]), unnest(b.int_v[x.lo:x.hi]),
        unnest(b.float_v[x.lo:x.hi]), unnest(b.text_v[x.lo:x.hi]), unnest(b.qualities[x.lo:x.hi]), unnest(b.reasons[x.lo:x.hi])) AS v (n, t4, t8, k, i, f, x, q, why)
    WHERE at.p IS NOT NULL;
