-- +goose Up

-- Chunks that are to be merged with others live in a table of their own, and the
-- partitions of samples_chunk get only those that stay as they are. So nothing is
-- ever deleted from a partition but by retention, and it has no holes.

-- Floats that do not go the way of the others of their chunk: odd[k] is the float of
-- the sample odd_at[k] (from 0, ascending). NULL: there are none.
ALTER TABLE samples_chunk ADD COLUMN odd_at integer[], ADD COLUMN odd float8[];
ALTER TABLE samples_chunk ALTER odd_at SET STORAGE MAIN, ALTER odd SET STORAGE MAIN;

DROP INDEX samples_chunk_merge;

-- Chunks of levels below 3, of any time.
CREATE TABLE samples_young (LIKE samples_chunk INCLUDING DEFAULTS INCLUDING STORAGE)
    WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000, toast.autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_threshold = 5000);

INSERT INTO samples_young SELECT * FROM samples_chunk WHERE level < 3;
DELETE FROM samples_chunk WHERE level < 3;

CREATE INDEX samples_young_series ON samples_young (series, t0);
CREATE INDEX samples_young_merge ON samples_young (level, series, t0);

-- Both: what readers read.
CREATE VIEW samples_chunks AS SELECT * FROM samples_chunk UNION ALL SELECT * FROM samples_young;

-- What all chunks of one series and period in samples_chunk come to by the hour: so a
-- chart of a year reads fifty rows. Whoever writes such a chunk, or deletes one,
-- makes hours NULL in the same transaction, or deletes the row; the compactor makes
-- it anew when the period is over.
CREATE TABLE samples_week (
    series bigint NOT NULL,
    start  bigint NOT NULL, -- of the period
    t0     bigint NOT NULL DEFAULT 0, -- of the first sample
    t1     bigint NOT NULL DEFAULT 0, -- of the last one
    hours  bytea,           -- NULL: to be made; empty: not worth it
    PRIMARY KEY (series, start)
);
ALTER TABLE samples_week ALTER hours SET STORAGE EXTERNAL;
CREATE INDEX samples_week_due ON samples_week (start) WHERE hours IS NULL;

INSERT INTO samples_week (series, start) SELECT DISTINCT series, samples_period(t0) FROM samples_chunk WHERE hours IS NOT NULL;

DROP VIEW history;
DROP FUNCTION samples(text, text, text, timestamptz, timestamptz);
DROP FUNCTION samples_of(text, text, timestamptz, timestamptz);

-- All samples of a property of the device with this uid, be it deleted, from
-- (inclusive) to (exclusive), in no order.
CREATE FUNCTION samples_of(uid text, property text, "from" timestamptz, "to" timestamptz)
RETURNS TABLE ("time" timestamptz, value float8, text text, quality text, reason text) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT samples_time(x.t), samples_value(x.k, x.whole, x.f), samples_text(x.k, x.whole, x.f, x.x), samples_quality(x.q), x.why
    FROM series s
    JOIN samples_chunks c ON c.series = s.id
    CROSS JOIN LATERAL ROWS FROM (generate_series(0, c.n - 1), unnest(c.t4), unnest(c.t8), unnest(c.kinds), unnest(c.v2), unnest(c.v4), unnest(c.v8),
        unnest(c.nudge), unnest(c.f4), unnest(c.f8), unnest(c.text_v), unnest(c.quality), unnest(c.reason)) AS v (i, t4, t8, k, v2, v4, v8, nudge, f4, f8, x, q, why)
    CROSS JOIN LATERAL (SELECT c.t0 + c.tick * coalesce(v.t4, v.t8, v.i) AS t, coalesce(v.k, c.kind) AS k, c.base + coalesce(v.v2, v.v4, v.v8, 0) AS whole,
        coalesce(c.odd[array_position(c.odd_at, v.i)], (c.base + coalesce(v.v2, v.v4, v.v8, 0)) / c.divisor + coalesce(v.nudge, 0) * c.nudge_by, v.f4, v.f8) AS f,
        v.x, v.q, v.why) AS x
    WHERE s.device_uid = $1 AND s.property = $2
      AND c.t0 >= samples_period(samples_us($3)) AND c.t0 < samples_us($4) AND c.t1 >= samples_us($3)
      AND x.t >= samples_us($3) AND x.t < samples_us($4)
    UNION ALL
    SELECT samples_time(w.t), samples_value(w.k, w.whole, w.f), samples_text(w.k, w.whole, w.f, w.x), samples_quality(w.q), w.why
    FROM series s
    JOIN samples_batch b ON b.s0 <= s.id AND b.s1 >= s.id
    CROSS JOIN LATERAL (SELECT array_position(b.series, s.id) AS p OFFSET 0) AS at
    CROSS JOIN LATERAL (SELECT coalesce(b.ends[at.p - 1], 0) + 1 AS lo, b.ends[at.p] AS hi OFFSET 0) AS x
    CROSS JOIN LATERAL ROWS FROM (generate_series(x.lo, x.hi), unnest(b.t4[x.lo:x.hi]), unnest(b.t8[x.lo:x.hi]), unnest(b.kinds[x.lo:x.hi]), unnest(b.int_v[x.lo:x.hi]),
        unnest(b.float_v[x.lo:x.hi]), unnest(b.text_v[x.lo:x.hi]), unnest(b.qualities[x.lo:x.hi]), unnest(b.reasons[x.lo:x.hi])) AS v (n, t4, t8, k, i, f, x, q, why)
    CROSS JOIN LATERAL (SELECT coalesce(b.t0 + v.t4, v.t8) AS t, coalesce(v.k, b.kind) AS k, coalesce(v.i, 0) AS whole, coalesce(v.f, 0) AS f, v.x, v.q, v.why) AS w
    WHERE s.device_uid = $1 AND s.property = $2 AND at.p IS NOT NULL
      AND b.t0 < samples_us($4) AND b.t1 >= samples_us($3)
      AND w.t >= samples_us($3) AND w.t < samples_us($4)
$$;

-- The same of a device by its name.
CREATE FUNCTION samples(namespace text, device text, property text, "from" timestamptz, "to" timestamptz)
RETURNS TABLE ("time" timestamptz, value float8, text text, quality text, reason text) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT v."time", v.value, v.text, v.quality, v.reason
    FROM objects o
    CROSS JOIN LATERAL samples_of(o.uid, $3, $4, $5) AS v
    WHERE o.kind = 'Device' AND o.namespace = $1 AND o.name = $2
$$;

-- The same of everything, for a look at small scale: a condition on the time
-- spares neither partitions nor rows.
CREATE VIEW history AS
    SELECT o.namespace, o.name AS device, p.property, v."time", v.value, v.text, v.quality, v.reason
    FROM objects o
    JOIN (SELECT DISTINCT s.device_uid, s.property FROM series s) AS p ON p.device_uid = o.uid
    CROSS JOIN LATERAL samples_of(p.device_uid, p.property, '-infinity', 'infinity') AS v
    WHERE o.kind = 'Device';
