-- +goose Up

-- Samples as they are kept: one row holds one run of one series in the order of
-- time. samples_batch is where they arrive; within seconds the compactor writes
-- them here and takes them out there. A row's samples are of one period of seven
-- days, counted from 1970: so a partition's bounds hold for every sample in it.
--
-- Every array has one element per sample, and is NULL where it would say nothing.
-- The i-th sample (from 0) is of
--   time   t0 + tick * (t4[i], else t8[i], else i)
--   kind   kinds[i], else kind
--   whole  base + (v2[i], else v4[i], else v8[i], else 0)
--   value  kinds bool, int and, by its bits, uint: whole;
--          kind float: whole / divisor + nudge[i] * nudge_by where there is a divisor,
--          else f4[i], else f8[i]; the others: text_v[i], where NULL is empty
CREATE SEQUENCE samples_chunk_id;

CREATE TABLE samples_chunk (
    id       bigint      NOT NULL DEFAULT nextval('samples_chunk_id'), -- in the order of arrival, for one series and period
    series   bigint      NOT NULL,
    t0       bigint      NOT NULL, -- microseconds since 1970
    t1       bigint      NOT NULL, -- of the last sample
    n        integer     NOT NULL, -- samples
    level    smallint    NOT NULL, -- how often it was merged; 3: for good
    made     timestamptz NOT NULL DEFAULT now(),
    tick     bigint      NOT NULL,
    t4       integer[],
    t8       bigint[],
    kind     smallint    NOT NULL, -- models.Kind
    kinds    smallint[],
    base     bigint      NOT NULL,
    v2       smallint[],
    v4       integer[],
    v8       bigint[],
    divisor  float8,               -- a power of ten
    nudge    smallint[],           -- what calculating with floats left behind the last digit; NULL: nothing
    nudge_by float8      NOT NULL, -- 0 where nudge is NULL
    f4       float4[],
    f8       float8[],
    text_v   bytea[],
    quality  smallint[],           -- models.Quality; NULL: all are good
    reason   text[],               -- an element that is NULL is empty
    backfill boolean[]             -- NULL: none
) PARTITION BY RANGE (t0);

CREATE INDEX samples_chunk_series ON samples_chunk (series, t0);
CREATE INDEX samples_chunk_merge ON samples_chunk (level, series, t0) WHERE level < 3;

-- Arrays are compressed also where they are small, and stay with their row where
-- they fit. LIKE hands this on to partitions, but for the target.
ALTER TABLE samples_chunk ALTER t4 SET STORAGE MAIN, ALTER t8 SET STORAGE MAIN, ALTER kinds SET STORAGE MAIN, ALTER v2 SET STORAGE MAIN,
    ALTER v4 SET STORAGE MAIN, ALTER v8 SET STORAGE MAIN, ALTER nudge SET STORAGE MAIN, ALTER f4 SET STORAGE MAIN, ALTER f8 SET STORAGE MAIN,
    ALTER quality SET STORAGE MAIN, ALTER reason SET STORAGE MAIN, ALTER backfill SET STORAGE MAIN;

-- What fits no other: dates that no clock should show.
CREATE TABLE samples_chunk_default PARTITION OF samples_chunk DEFAULT WITH (toast_tuple_target = 128);

-- The rows of samples_batch live for seconds.
ALTER TABLE samples_batch SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- The start of the period that a time is in.
CREATE FUNCTION samples_period(us bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN $1 < -9223372036854775808 + (($1 % 604800000000) + 604800000000) % 604800000000 THEN -9223372036854775808
                ELSE $1 - (($1 % 604800000000) + 604800000000) % 604800000000 END
$$;

-- Makes the partition of the period that begins at start, with what the default
-- partition has of it.
-- +goose StatementBegin
CREATE FUNCTION samples_make_partition(start bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    period constant bigint := 604800000000;
    name   constant text   := 'samples_chunk_' || to_char(timestamp 'epoch' + start * interval '1 microsecond', 'YYYYMMDD');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE samples_chunk INCLUDING DEFAULTS INCLUDING INDEXES INCLUDING STORAGE) WITH (toast_tuple_target = 128)', name);
    EXECUTE format('WITH moved AS (DELETE FROM samples_chunk_default WHERE t0 >= %s AND t0 < %s RETURNING *) INSERT INTO %I SELECT * FROM moved',
        start, start + period, name);
    EXECUTE format('ALTER TABLE samples_chunk ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', name, start, start + period);
    RETURN true;
END
$$;
-- +goose StatementEnd

-- What people and Grafana read.

-- Microseconds since 1970. By way of UTC, for then it is immutable and partitions
-- are left out when a query is planned.
CREATE FUNCTION samples_us(t timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN $1 = '-infinity'::timestamptz THEN -9223372036854775808
                WHEN $1 = 'infinity'::timestamptz THEN 9223372036854775807
                ELSE (extract(epoch FROM $1 AT TIME ZONE 'UTC') * 1000000)::bigint END
$$;

CREATE FUNCTION samples_time(us bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN $1 < -210866803200000000 THEN '-infinity'::timestamptz
                WHEN $1 >= 9007199254740992 THEN 'infinity'::timestamptz
                ELSE (timestamp 'epoch' + $1 * interval '1 microsecond') AT TIME ZONE 'UTC' END
$$;

-- A number of any kind as the nearest float8; true is 1.
CREATE FUNCTION samples_value(kind smallint, whole bigint, f float8) RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE $1 WHEN 4 THEN $3
                   WHEN 1 THEN $2::float8
                   WHEN 2 THEN $2::float8
                   WHEN 3 THEN ($2 + 18446744073709551616::numeric)::float8 END
$$;

-- A value of any kind, exactly: bytes in base64.
CREATE FUNCTION samples_text(kind smallint, whole bigint, f float8, x bytea) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE $1 WHEN 1 THEN CASE WHEN $2 = 0 THEN 'false' ELSE 'true' END
                   WHEN 2 THEN $2::text
                   WHEN 3 THEN ($2 + 18446744073709551616::numeric)::text
                   WHEN 4 THEN $3::text
                   WHEN 6 THEN replace(encode(coalesce($4, ''::bytea), 'base64'), E'\n', '')
                   WHEN 5 THEN CASE WHEN position('\x00'::bytea IN $4) > 0 THEN encode($4, 'escape') ELSE convert_from(coalesce($4, ''::bytea), 'UTF8') END
                   WHEN 7 THEN convert_from($4, 'UTF8') END
$$;

CREATE FUNCTION samples_quality(quality smallint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE coalesce($1, 0) WHEN 0 THEN 'good' WHEN 1 THEN 'uncertain' ELSE 'bad' END
$$;

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
    SELECT samples_time(v.t), samples_value(v.k, coalesce(v.i, 0), coalesce(v.f, 0)), samples_text(v.k, coalesce(v.i, 0), coalesce(v.f, 0), v.x),
           samples_quality(v.q), v.why
    FROM objects o
    JOIN series s ON s.device_uid = o.uid
    JOIN samples_batch b ON b.series @> ARRAY[s.id]
    CROSS JOIN LATERAL unnest(b.series, b.time_us, b.kind, b.int_v, b.float_v, b.text_v, b.quality, b.reason) AS v (s, t, k, i, f, x, q, why)
    WHERE o.kind = 'Device' AND o.namespace = $1 AND o.name = $2 AND s.property = $3
      AND b.t0 < samples_us($5) AND b.t1 >= samples_us($4) AND v.s = s.id AND v.t >= samples_us($4) AND v.t < samples_us($5)
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
    SELECT o.namespace, o.name, s.property, samples_time(v.t), samples_value(v.k, coalesce(v.i, 0), coalesce(v.f, 0)),
           samples_text(v.k, coalesce(v.i, 0), coalesce(v.f, 0), v.x), samples_quality(v.q), v.why
    FROM objects o
    JOIN series s ON s.device_uid = o.uid AND o.kind = 'Device'
    JOIN samples_batch b ON b.series @> ARRAY[s.id]
    CROSS JOIN LATERAL unnest(b.series, b.time_us, b.kind, b.int_v, b.float_v, b.text_v, b.quality, b.reason) AS v (s, t, k, i, f, x, q, why)
    WHERE v.s = s.id;
