-- +goose Up

-- samples_of reads batches in the shape that they have had since 00006; it still
-- read the one before, which is gone.

DROP FUNCTION samples_of(text, text, timestamptz, timestamptz);

-- +goose StatementBegin
-- All samples of a property of the device with this uid, be it deleted, from
-- (inclusive) to (exclusive), in no order.
CREATE FUNCTION samples_of(uid text, property text, "from" timestamptz, "to" timestamptz)
RETURNS TABLE ("time" timestamptz, value float8, text text, quality text, reason text) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT samples_time(c.t0 + c.tick * coalesce(v.t4, v.t8, v.i)),
           samples_value(coalesce(v.k, c.kind), c.base + coalesce(v.v2, v.v4, v.v8, 0), coalesce((c.base + coalesce(v.v2, v.v4, v.v8, 0)) / c.divisor + coalesce(v.nudge, 0) * c.nudge_by, v.f4, v.f8)),
           samples_text(coalesce(v.k, c.kind), c.base + coalesce(v.v2, v.v4, v.v8, 0), coalesce((c.base + coalesce(v.v2, v.v4, v.v8, 0)) / c.divisor + coalesce(v.nudge, 0) * c.nudge_by, v.f4, v.f8), v.x),
           samples_quality(v.q), v.why
    FROM series s
    JOIN samples_chunk c ON c.series = s.id
    CROSS JOIN LATERAL ROWS FROM (generate_series(0, c.n - 1), unnest(c.t4), unnest(c.t8), unnest(c.kinds), unnest(c.v2), unnest(c.v4), unnest(c.v8),
        unnest(c.nudge), unnest(c.f4), unnest(c.f8), unnest(c.text_v), unnest(c.quality), unnest(c.reason)) AS v (i, t4, t8, k, v2, v4, v8, nudge, f4, f8, x, q, why)
    WHERE s.device_uid = $1 AND s.property = $2
      AND c.t0 >= samples_period(samples_us($3)) AND c.t0 < samples_us($4) AND c.t1 >= samples_us($3)
      AND c.t0 + c.tick * coalesce(v.t4, v.t8, v.i) >= samples_us($3) AND c.t0 + c.tick * coalesce(v.t4, v.t8, v.i) < samples_us($4)
    UNION ALL
    SELECT samples_time(coalesce(b.t0 + v.t4, v.t8)), samples_value(coalesce(v.k, b.kind), coalesce(v.i, 0), coalesce(v.f, 0)), samples_text(coalesce(v.k, b.kind), coalesce(v.i, 0), coalesce(v.f, 0), v.x),
           samples_quality(v.q), v.why
    FROM series s
    JOIN samples_batch b ON b.s0 <= s.id AND b.s1 >= s.id
    CROSS JOIN LATERAL (SELECT array_position(b.series, s.id) AS p OFFSET 0) AS at
    CROSS JOIN LATERAL (SELECT coalesce(b.ends[at.p - 1], 0) + 1 AS lo, b.ends[at.p] AS hi OFFSET 0) AS x
    CROSS JOIN LATERAL ROWS FROM (generate_series(x.lo, x.hi), unnest(b.t4[x.lo:x.hi]), unnest(b.t8[x.lo:x.hi]), unnest(b.kinds[x.lo:x.hi]), unnest(b.int_v[x.lo:x.hi]),
        unnest(b.float_v[x.lo:x.hi]), unnest(b.text_v[x.lo:x.hi]), unnest(b.qualities[x.lo:x.hi]), unnest(b.reasons[x.lo:x.hi])) AS v (n, t4, t8, k, i, f, x, q, why)
    WHERE s.device_uid = $1 AND s.property = $2 AND at.p IS NOT NULL
      AND b.t0 < samples_us($4) AND b.t1 >= samples_us($3)
      AND coalesce(b.t0 + v.t4, v.t8) >= samples_us($3) AND coalesce(b.t0 + v.t4, v.t8) < samples_us($4)
$$;
-- +goose StatementEnd
