SET check_function_bodies = false;
CREATE FUNCTION public.acknowledge(of_node text, of_epoch text, after_seq bigint, to_seq bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    UPDATE epochs SET acked = to_seq
    WHERE node_uid = of_node AND epoch = of_epoch AND acked = after_seq
      AND (after_seq # '-9223372036854775808'::bigint) < (to_seq # '-9223372036854775808'::bigint);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'epoch % is not acknowledged up to %', of_epoch, after_seq USING ERRCODE = 'WB001';
    END IF;
END
$$;
CREATE FUNCTION public.advance_revision(to_revision bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    UPDATE hub SET revision = to_revision WHERE revision < to_revision;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'revision % is not above the stored one', to_revision USING ERRCODE = 'WB001';
    END IF;
END
$$;
CREATE FUNCTION public.audit_refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'the audit is only added to';
END
$$;
CREATE FUNCTION public.samples(namespace text, device text, property text, "from" timestamp with time zone, "to" timestamp with time zone) RETURNS TABLE("time" timestamp with time zone, value double precision, text text, quality text, reason text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $_$
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
$_$;
CREATE FUNCTION public.samples_make_partition(start bigint) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
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
CREATE FUNCTION public.samples_of(uid text, property text, "from" timestamp with time zone, "to" timestamp with time zone) RETURNS TABLE("time" timestamp with time zone, value double precision, text text, quality text, reason text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $_$
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
$_$;
CREATE FUNCTION public.samples_period(us bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT CASE WHEN $1 < -9223372036854775808 + (($1 % 604800000000) + 604800000000) % 604800000000 THEN -9223372036854775808
                ELSE $1 - (($1 % 604800000000) + 604800000000) % 604800000000 END
$_$;
CREATE FUNCTION public.samples_quality(quality smallint) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT CASE coalesce($1, 0) WHEN 0 THEN 'good' WHEN 1 THEN 'uncertain' ELSE 'bad' END
$_$;
CREATE FUNCTION public.samples_text(kind smallint, whole bigint, f double precision, x bytea) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT CASE $1 WHEN 1 THEN CASE WHEN $2 = 0 THEN 'false' ELSE 'true' END
                   WHEN 2 THEN $2::text
                   WHEN 3 THEN ($2 + 18446744073709551616::numeric)::text
                   WHEN 4 THEN $3::text
                   WHEN 6 THEN replace(encode(coalesce($4, ''::bytea), 'base64'), E'\n', '')
                   WHEN 5 THEN CASE WHEN position('\x00'::bytea IN $4) > 0 THEN encode($4, 'escape') ELSE convert_from(coalesce($4, ''::bytea), 'UTF8') END
                   WHEN 7 THEN convert_from($4, 'UTF8') END
$_$;
CREATE FUNCTION public.samples_time(us bigint) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT CASE WHEN $1 < -210866803200000000 THEN '-infinity'::timestamptz
                WHEN $1 >= 9007199254740992 THEN 'infinity'::timestamptz
                ELSE (timestamp 'epoch' + $1 * interval '1 microsecond') AT TIME ZONE 'UTC' END
$_$;
CREATE FUNCTION public.samples_us(t timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT CASE WHEN $1 = '-infinity'::timestamptz THEN -9223372036854775808
                WHEN $1 = 'infinity'::timestamptz THEN 9223372036854775807
                ELSE (extract(epoch FROM $1 AT TIME ZONE 'UTC') * 1000000)::bigint END
$_$;
CREATE FUNCTION public.samples_value(kind smallint, whole bigint, f double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT CASE $1 WHEN 4 THEN $3
                   WHEN 1 THEN $2::float8
                   WHEN 2 THEN $2::float8
                   WHEN 3 THEN ($2 + 18446744073709551616::numeric)::float8 END
$_$;
CREATE TABLE public.api_tokens (
    id text NOT NULL,
    hash text NOT NULL,
    user_name text NOT NULL,
    user_uid text NOT NULL,
    description text NOT NULL,
    created timestamp with time zone NOT NULL,
    expires timestamp with time zone,
    last_used timestamp with time zone
);
CREATE TABLE public.assignments (
    device_uid text NOT NULL,
    assignment bigint NOT NULL,
    since_us bigint NOT NULL
);
CREATE TABLE public.audit (
    id bigint NOT NULL,
    "time" timestamp with time zone NOT NULL,
    by_user text NOT NULL,
    action text NOT NULL,
    kind text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    uid text NOT NULL,
    revision bigint NOT NULL,
    fields text NOT NULL
);
ALTER TABLE public.audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.deleted_devices (
    uid text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    deleted_us bigint NOT NULL
);
CREATE TABLE public.desired (
    device_uid text NOT NULL,
    revision bigint NOT NULL,
    json json NOT NULL
);
CREATE TABLE public.epochs (
    node_uid text NOT NULL,
    epoch text NOT NULL,
    rank bigint NOT NULL,
    acked bigint NOT NULL,
    started timestamp with time zone NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.event_count (
    one boolean DEFAULT true NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT event_count_one_check CHECK (one)
)
WITH (fillfactor='10');
CREATE TABLE public.events (
    key text NOT NULL COLLATE pg_catalog."C",
    revision bigint NOT NULL,
    kind text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    uid text NOT NULL,
    field text NOT NULL,
    warning boolean NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    source text NOT NULL,
    node text NOT NULL,
    first_us bigint NOT NULL,
    last_us bigint NOT NULL,
    count bigint NOT NULL,
    recorded_us bigint NOT NULL
);
CREATE TABLE public.gaps (
    id bigint NOT NULL,
    node_uid text NOT NULL,
    reason text NOT NULL,
    epoch text NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    samples bigint NOT NULL,
    from_us bigint,
    to_us bigint,
    recorded timestamp with time zone NOT NULL
);
ALTER TABLE public.gaps ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.gaps_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.goose_db_version (
    id integer NOT NULL,
    version_id bigint NOT NULL,
    is_applied boolean NOT NULL,
    tstamp timestamp without time zone DEFAULT now() NOT NULL
);
ALTER TABLE public.goose_db_version ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.goose_db_version_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.objects (
    kind text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    uid text NOT NULL,
    revision bigint NOT NULL,
    generation bigint NOT NULL,
    assignment bigint NOT NULL,
    created timestamp with time zone NOT NULL,
    json json NOT NULL
);
CREATE TABLE public.samples_batch (
    id bigint NOT NULL,
    level smallint NOT NULL,
    received timestamp with time zone NOT NULL,
    n integer NOT NULL,
    runs integer NOT NULL,
    s0 bigint NOT NULL,
    s1 bigint NOT NULL,
    t0 bigint NOT NULL,
    t1 bigint NOT NULL,
    series bigint[] NOT NULL,
    ends integer[] NOT NULL,
    t4 integer[],
    t8 bigint[],
    kind smallint NOT NULL,
    kinds smallint[],
    int_v bigint[],
    float_v double precision[],
    text_v bytea[],
    qualities smallint[],
    reasons text[],
    backfill boolean NOT NULL,
    backfills boolean[]
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000', toast.autovacuum_vacuum_scale_factor='0', toast.autovacuum_vacuum_threshold='20000');
ALTER TABLE ONLY public.samples_batch ALTER COLUMN series SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_batch ALTER COLUMN ends SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_batch ALTER COLUMN t4 SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_batch ALTER COLUMN t8 SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_batch ALTER COLUMN kinds SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_batch ALTER COLUMN int_v SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_batch ALTER COLUMN float_v SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_batch ALTER COLUMN qualities SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_batch ALTER COLUMN reasons SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_batch ALTER COLUMN backfills SET STORAGE EXTERNAL;
CREATE SEQUENCE public.samples_chunk_id
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
CREATE TABLE public.samples_chunk (
    id bigint DEFAULT nextval('public.samples_chunk_id'::regclass) NOT NULL,
    series bigint NOT NULL,
    t0 bigint NOT NULL,
    t1 bigint NOT NULL,
    n integer NOT NULL,
    level smallint NOT NULL,
    made timestamp with time zone DEFAULT now() NOT NULL,
    tick bigint NOT NULL,
    t4 integer[],
    t8 bigint[],
    kind smallint NOT NULL,
    kinds smallint[],
    base bigint NOT NULL,
    v2 smallint[],
    v4 integer[],
    v8 bigint[],
    divisor double precision,
    nudge smallint[],
    nudge_by double precision NOT NULL,
    f4 real[],
    f8 double precision[],
    text_v bytea[],
    quality smallint[],
    reason text[],
    backfill boolean[],
    minutes bytea,
    hours bytea
)
PARTITION BY RANGE (t0);
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN t4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN t8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN kinds SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN v2 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN v4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN v8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN nudge SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN f4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN f8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN quality SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN reason SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN backfill SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN minutes SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_chunk ALTER COLUMN hours SET STORAGE MAIN;
CREATE TABLE public.series (
    id bigint NOT NULL,
    device_uid text NOT NULL,
    assignment bigint NOT NULL,
    property text NOT NULL
);
CREATE VIEW public.history AS
 SELECT o.namespace,
    o.name AS device,
    s.property,
    public.samples_time((c.t0 + (c.tick * COALESCE((v.t4)::bigint, v.t8, (v.i)::bigint)))) AS "time",
    public.samples_value(COALESCE(v.k, c.kind), (c.base + COALESCE((v.v2)::bigint, (v.v4)::bigint, v.v8, (0)::bigint)), COALESCE(((((c.base + COALESCE((v.v2)::bigint, (v.v4)::bigint, v.v8, (0)::bigint)))::double precision / c.divisor) + ((COALESCE((v.nudge)::integer, 0))::double precision * c.nudge_by)), (v.f4)::double precision, v.f8)) AS value,
    public.samples_text(COALESCE(v.k, c.kind), (c.base + COALESCE((v.v2)::bigint, (v.v4)::bigint, v.v8, (0)::bigint)), COALESCE(((((c.base + COALESCE((v.v2)::bigint, (v.v4)::bigint, v.v8, (0)::bigint)))::double precision / c.divisor) + ((COALESCE((v.nudge)::integer, 0))::double precision * c.nudge_by)), (v.f4)::double precision, v.f8), v.x) AS text,
    public.samples_quality(v.q) AS quality,
    v.why AS reason
   FROM (((public.objects o
     JOIN public.series s ON (((s.device_uid = o.uid) AND (o.kind = 'Device'::text))))
     JOIN public.samples_chunk c ON ((c.series = s.id)))
     CROSS JOIN LATERAL ROWS FROM(generate_series(0, (c.n - 1)), unnest(c.t4), unnest(c.t8), unnest(c.kinds), unnest(c.v2), unnest(c.v4), unnest(c.v8), unnest(c.nudge), unnest(c.f4), unnest(c.f8), unnest(c.text_v), unnest(c.quality), unnest(c.reason)) v(i, t4, t8, k, v2, v4, v8, nudge, f4, f8, x, q, why))
UNION ALL
 SELECT o.namespace,
    o.name AS device,
    s.property,
    public.samples_time(COALESCE((b.t0 + v.t4), v.t8)) AS "time",
    public.samples_value(COALESCE(v.k, b.kind), COALESCE(v.i, (0)::bigint), COALESCE(v.f, (0)::double precision)) AS value,
    public.samples_text(COALESCE(v.k, b.kind), COALESCE(v.i, (0)::bigint), COALESCE(v.f, (0)::double precision), v.x) AS text,
    public.samples_quality(v.q) AS quality,
    v.why AS reason
   FROM (((((public.objects o
     JOIN public.series s ON (((s.device_uid = o.uid) AND (o.kind = 'Device'::text))))
     JOIN public.samples_batch b ON (((b.s0 <= s.id) AND (b.s1 >= s.id))))
     CROSS JOIN LATERAL ( SELECT array_position(b.series, s.id) AS p
         OFFSET 0) at)
     CROSS JOIN LATERAL ( SELECT (COALESCE(b.ends[(at.p - 1)], 0) + 1) AS lo,
            b.ends[at.p] AS hi
         OFFSET 0) x)
     CROSS JOIN LATERAL ROWS FROM(generate_series(x.lo, x.hi), unnest(b.t4[x.lo:x.hi]), unnest(b.t8[x.lo:x.hi]), unnest(b.kinds[x.lo:x.hi]), unnest(b.int_v[x.lo:x.hi]), unnest(b.float_v[x.lo:x.hi]), unnest(b.text_v[x.lo:x.hi]), unnest(b.qualities[x.lo:x.hi]), unnest(b.reasons[x.lo:x.hi])) v(n, t4, t8, k, i, f, x, q, why))
  WHERE (at.p IS NOT NULL);
CREATE TABLE public.hub (
    one boolean DEFAULT true NOT NULL,
    lineage text NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT hub_one_check CHECK (one)
);
CREATE TABLE public.idempotency (
    caller text NOT NULL,
    key bytea NOT NULL,
    fingerprint text NOT NULL,
    status integer NOT NULL,
    etag text NOT NULL,
    body bytea NOT NULL,
    created timestamp with time zone NOT NULL,
    keep_until timestamp with time zone NOT NULL
);
CREATE TABLE public.join_tokens (
    id text NOT NULL,
    hash text NOT NULL,
    node text NOT NULL,
    created_by text NOT NULL,
    created timestamp with time zone NOT NULL,
    expires timestamp with time zone NOT NULL,
    used_at timestamp with time zone,
    used_key text NOT NULL
);
CREATE TABLE public.pod_state (
    pod_uid text NOT NULL,
    node text NOT NULL,
    told_us bigint NOT NULL,
    json text NOT NULL
);
CREATE TABLE public.route_spec (
    route text NOT NULL,
    generation bigint NOT NULL,
    spec bytea NOT NULL,
    stored timestamp with time zone NOT NULL
);
CREATE TABLE public.route_total (
    route text NOT NULL,
    place text NOT NULL,
    node text NOT NULL,
    delivered bigint NOT NULL,
    failed bigint NOT NULL,
    dropped bigint NOT NULL,
    queued bigint NOT NULL,
    error text NOT NULL,
    error_at timestamp with time zone
);
CREATE TABLE public.routed (
    id bigint NOT NULL,
    key text NOT NULL,
    target text NOT NULL,
    route text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    lane text NOT NULL,
    node text NOT NULL,
    topic text NOT NULL,
    device text NOT NULL,
    property text NOT NULL,
    content_type text NOT NULL,
    payload bytea NOT NULL,
    send_to bytea NOT NULL,
    accepted timestamp with time zone NOT NULL,
    deadline timestamp with time zone NOT NULL,
    ttl_us bigint NOT NULL,
    retries integer NOT NULL,
    attempts integer NOT NULL,
    died timestamp with time zone,
    error text NOT NULL
);
ALTER TABLE public.routed ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.routed_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
ALTER TABLE public.samples_batch ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.samples_batch_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.samples_chunk_20260226 (
    id bigint DEFAULT nextval('public.samples_chunk_id'::regclass) NOT NULL,
    series bigint NOT NULL,
    t0 bigint NOT NULL,
    t1 bigint NOT NULL,
    n integer NOT NULL,
    level smallint NOT NULL,
    made timestamp with time zone DEFAULT now() NOT NULL,
    tick bigint NOT NULL,
    t4 integer[],
    t8 bigint[],
    kind smallint NOT NULL,
    kinds smallint[],
    base bigint NOT NULL,
    v2 smallint[],
    v4 integer[],
    v8 bigint[],
    divisor double precision,
    nudge smallint[],
    nudge_by double precision NOT NULL,
    f4 real[],
    f8 double precision[],
    text_v bytea[],
    quality smallint[],
    reason text[],
    backfill boolean[],
    minutes bytea,
    hours bytea
)
WITH (toast_tuple_target='128');
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN t4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN t8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN kinds SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN v2 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN v4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN v8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN nudge SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN f4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN f8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN quality SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN reason SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN backfill SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN minutes SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_chunk_20260226 ALTER COLUMN hours SET STORAGE MAIN;
CREATE TABLE public.samples_chunk_20260305 (
    id bigint DEFAULT nextval('public.samples_chunk_id'::regclass) NOT NULL,
    series bigint NOT NULL,
    t0 bigint NOT NULL,
    t1 bigint NOT NULL,
    n integer NOT NULL,
    level smallint NOT NULL,
    made timestamp with time zone DEFAULT now() NOT NULL,
    tick bigint NOT NULL,
    t4 integer[],
    t8 bigint[],
    kind smallint NOT NULL,
    kinds smallint[],
    base bigint NOT NULL,
    v2 smallint[],
    v4 integer[],
    v8 bigint[],
    divisor double precision,
    nudge smallint[],
    nudge_by double precision NOT NULL,
    f4 real[],
    f8 double precision[],
    text_v bytea[],
    quality smallint[],
    reason text[],
    backfill boolean[],
    minutes bytea,
    hours bytea
)
WITH (toast_tuple_target='128');
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN t4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN t8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN kinds SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN v2 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN v4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN v8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN nudge SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN f4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN f8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN quality SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN reason SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN backfill SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN minutes SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_chunk_20260305 ALTER COLUMN hours SET STORAGE MAIN;
CREATE TABLE public.samples_chunk_20260312 (
    id bigint DEFAULT nextval('public.samples_chunk_id'::regclass) NOT NULL,
    series bigint NOT NULL,
    t0 bigint NOT NULL,
    t1 bigint NOT NULL,
    n integer NOT NULL,
    level smallint NOT NULL,
    made timestamp with time zone DEFAULT now() NOT NULL,
    tick bigint NOT NULL,
    t4 integer[],
    t8 bigint[],
    kind smallint NOT NULL,
    kinds smallint[],
    base bigint NOT NULL,
    v2 smallint[],
    v4 integer[],
    v8 bigint[],
    divisor double precision,
    nudge smallint[],
    nudge_by double precision NOT NULL,
    f4 real[],
    f8 double precision[],
    text_v bytea[],
    quality smallint[],
    reason text[],
    backfill boolean[],
    minutes bytea,
    hours bytea
)
WITH (toast_tuple_target='128');
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN t4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN t8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN kinds SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN v2 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN v4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN v8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN nudge SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN f4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN f8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN quality SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN reason SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN backfill SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN minutes SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_chunk_20260312 ALTER COLUMN hours SET STORAGE MAIN;
CREATE TABLE public.samples_chunk_20260319 (
    id bigint DEFAULT nextval('public.samples_chunk_id'::regclass) NOT NULL,
    series bigint NOT NULL,
    t0 bigint NOT NULL,
    t1 bigint NOT NULL,
    n integer NOT NULL,
    level smallint NOT NULL,
    made timestamp with time zone DEFAULT now() NOT NULL,
    tick bigint NOT NULL,
    t4 integer[],
    t8 bigint[],
    kind smallint NOT NULL,
    kinds smallint[],
    base bigint NOT NULL,
    v2 smallint[],
    v4 integer[],
    v8 bigint[],
    divisor double precision,
    nudge smallint[],
    nudge_by double precision NOT NULL,
    f4 real[],
    f8 double precision[],
    text_v bytea[],
    quality smallint[],
    reason text[],
    backfill boolean[],
    minutes bytea,
    hours bytea
)
WITH (toast_tuple_target='128');
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN t4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN t8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN kinds SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN v2 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN v4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN v8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN nudge SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN f4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN f8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN quality SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN reason SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN backfill SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN minutes SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_chunk_20260319 ALTER COLUMN hours SET STORAGE MAIN;
CREATE TABLE public.samples_chunk_20260326 (
    id bigint DEFAULT nextval('public.samples_chunk_id'::regclass) NOT NULL,
    series bigint NOT NULL,
    t0 bigint NOT NULL,
    t1 bigint NOT NULL,
    n integer NOT NULL,
    level smallint NOT NULL,
    made timestamp with time zone DEFAULT now() NOT NULL,
    tick bigint NOT NULL,
    t4 integer[],
    t8 bigint[],
    kind smallint NOT NULL,
    kinds smallint[],
    base bigint NOT NULL,
    v2 smallint[],
    v4 integer[],
    v8 bigint[],
    divisor double precision,
    nudge smallint[],
    nudge_by double precision NOT NULL,
    f4 real[],
    f8 double precision[],
    text_v bytea[],
    quality smallint[],
    reason text[],
    backfill boolean[],
    minutes bytea,
    hours bytea
)
WITH (toast_tuple_target='128');
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN t4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN t8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN kinds SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN v2 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN v4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN v8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN nudge SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN f4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN f8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN quality SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN reason SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN backfill SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN minutes SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_chunk_20260326 ALTER COLUMN hours SET STORAGE MAIN;
CREATE TABLE public.samples_chunk_20260402 (
    id bigint DEFAULT nextval('public.samples_chunk_id'::regclass) NOT NULL,
    series bigint NOT NULL,
    t0 bigint NOT NULL,
    t1 bigint NOT NULL,
    n integer NOT NULL,
    level smallint NOT NULL,
    made timestamp with time zone DEFAULT now() NOT NULL,
    tick bigint NOT NULL,
    t4 integer[],
    t8 bigint[],
    kind smallint NOT NULL,
    kinds smallint[],
    base bigint NOT NULL,
    v2 smallint[],
    v4 integer[],
    v8 bigint[],
    divisor double precision,
    nudge smallint[],
    nudge_by double precision NOT NULL,
    f4 real[],
    f8 double precision[],
    text_v bytea[],
    quality smallint[],
    reason text[],
    backfill boolean[],
    minutes bytea,
    hours bytea
)
WITH (toast_tuple_target='128');
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN t4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN t8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN kinds SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN v2 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN v4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN v8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN nudge SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN f4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN f8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN quality SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN reason SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN backfill SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN minutes SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_chunk_20260402 ALTER COLUMN hours SET STORAGE MAIN;
CREATE TABLE public.samples_chunk_default (
    id bigint DEFAULT nextval('public.samples_chunk_id'::regclass) NOT NULL,
    series bigint NOT NULL,
    t0 bigint NOT NULL,
    t1 bigint NOT NULL,
    n integer NOT NULL,
    level smallint NOT NULL,
    made timestamp with time zone DEFAULT now() NOT NULL,
    tick bigint NOT NULL,
    t4 integer[],
    t8 bigint[],
    kind smallint NOT NULL,
    kinds smallint[],
    base bigint NOT NULL,
    v2 smallint[],
    v4 integer[],
    v8 bigint[],
    divisor double precision,
    nudge smallint[],
    nudge_by double precision NOT NULL,
    f4 real[],
    f8 double precision[],
    text_v bytea[],
    quality smallint[],
    reason text[],
    backfill boolean[],
    minutes bytea,
    hours bytea
)
WITH (toast_tuple_target='128');
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN t4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN t8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN kinds SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN v2 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN v4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN v8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN nudge SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN f4 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN f8 SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN quality SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN reason SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN backfill SET STORAGE MAIN;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN minutes SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.samples_chunk_default ALTER COLUMN hours SET STORAGE MAIN;
CREATE TABLE public.secrets (
    key text NOT NULL,
    blob bytea NOT NULL
);
ALTER TABLE public.series ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.series_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.served (
    device_uid text NOT NULL,
    assignment bigint NOT NULL,
    node_uid text NOT NULL
);
CREATE TABLE public.twins (
    device_uid text NOT NULL,
    json json NOT NULL
)
WITH (fillfactor='70');
CREATE TABLE public.writes (
    id text NOT NULL COLLATE pg_catalog."C",
    device_uid text NOT NULL,
    property text NOT NULL,
    value text NOT NULL,
    version bigint NOT NULL,
    by_user text NOT NULL,
    origin text NOT NULL,
    reason text NOT NULL,
    trace text NOT NULL,
    before text NOT NULL,
    asked_us bigint NOT NULL,
    since_us bigint,
    until_us bigint,
    expires_us bigint,
    sent_us bigint,
    confirmed_us bigint,
    ended_us bigint,
    state text NOT NULL,
    error text NOT NULL,
    superseded_by text NOT NULL,
    refused boolean NOT NULL,
    late boolean NOT NULL,
    settled smallint NOT NULL
)
WITH (fillfactor='70');
ALTER TABLE ONLY public.samples_chunk ATTACH PARTITION public.samples_chunk_20260226 FOR VALUES FROM ('1772064000000000') TO ('1772668800000000');
ALTER TABLE ONLY public.samples_chunk ATTACH PARTITION public.samples_chunk_20260305 FOR VALUES FROM ('1772668800000000') TO ('1773273600000000');
ALTER TABLE ONLY public.samples_chunk ATTACH PARTITION public.samples_chunk_20260312 FOR VALUES FROM ('1773273600000000') TO ('1773878400000000');
ALTER TABLE ONLY public.samples_chunk ATTACH PARTITION public.samples_chunk_20260319 FOR VALUES FROM ('1773878400000000') TO ('1774483200000000');
ALTER TABLE ONLY public.samples_chunk ATTACH PARTITION public.samples_chunk_20260326 FOR VALUES FROM ('1774483200000000') TO ('1775088000000000');
ALTER TABLE ONLY public.samples_chunk ATTACH PARTITION public.samples_chunk_20260402 FOR VALUES FROM ('1775088000000000') TO ('1775692800000000');
ALTER TABLE ONLY public.samples_chunk ATTACH PARTITION public.samples_chunk_default DEFAULT;
INSERT INTO public.api_tokens VALUES ('a', 'ah', 'anna', 'uid-of-anna', '', '2026-03-04 05:06:07.890123+00', NULL, NULL);
INSERT INTO public.assignments VALUES ('uid-of-boiler-1', 1, 1772600767890123);
INSERT INTO public.assignments VALUES ('uid-of-boiler-1', 2, 1772604367890123);
INSERT INTO public.audit OVERRIDING SYSTEM VALUE VALUES (1, '2026-03-04 05:06:07.890123+00', 'anna', 'deleted', 'Device', 'plant', 'pump-1', 'uid-of-pump-1', 4, '');
INSERT INTO public.deleted_devices VALUES ('uid-of-pump-1', 'plant', 'pump-1', 1772600767890123);
INSERT INTO public.desired VALUES ('uid-of-boiler-1', 3, '{"version":1}');
INSERT INTO public.epochs VALUES ('uid-of-gateway-1', 'e', 1, -1, '2026-03-04 05:06:07.890123+00');
INSERT INTO public.epochs VALUES ('uid-of-gateway-2', 'f', 1, 1, '2026-03-04 05:06:07.890123+00');
INSERT INTO public.event_count VALUES (true, 1);
INSERT INTO public.events VALUES ('k1', 1, 'Device', 'plant', 'boiler-1', 'uid-of-boiler-1', '', true, 'DeviceOffline', 'größe k1', 'edge', 'n', 1772600767890123, 1772600768890123, 2, 1772604367890123);
INSERT INTO public.gaps OVERRIDING SYSTEM VALUE VALUES (1, 'uid-of-gateway-1', 'outbox-full', 'e', 1, 2, 3, 1772600767890123, NULL, '2026-03-04 05:06:07.890123+00');
INSERT INTO public.goose_db_version VALUES (1, 0, true, '2026-11-22 18:02:39.700806');
INSERT INTO public.goose_db_version VALUES (2, 1, true, '2026-11-22 18:02:39.708294');
INSERT INTO public.goose_db_version VALUES (3, 2, true, '2026-11-22 18:02:39.755458');
INSERT INTO public.goose_db_version VALUES (4, 3, true, '2026-11-22 18:02:39.770545');
INSERT INTO public.goose_db_version VALUES (5, 4, true, '2026-11-22 18:02:39.776267');
INSERT INTO public.goose_db_version VALUES (6, 6, true, '2026-11-22 18:02:39.804114');
INSERT INTO public.goose_db_version VALUES (7, 8, true, '2026-11-22 18:02:39.817712');
INSERT INTO public.goose_db_version VALUES (8, 11, true, '2026-11-22 18:02:39.832215');
INSERT INTO public.goose_db_version VALUES (9, 13, true, '2026-11-22 18:02:39.833779');
INSERT INTO public.hub VALUES (true, '01M826SAAXTKYDZPZXTTAS5MD7', 4);
INSERT INTO public.idempotency VALUES ('anna', '\x6b6579', 'f', 0, '', '\x', '2026-03-04 05:06:07.890123+00', '2140-04-01 21:06:07.890123+00');
INSERT INTO public.join_tokens VALUES ('j', 'jh', 'gateway-1', '', '2026-03-04 05:06:07.890123+00', '2026-03-04 05:06:07.890123+00', NULL, '');
INSERT INTO public.objects VALUES ('Device', 'default', 'boiler-1', 'uid-of-boiler-1', 1, 1, 0, '2026-03-04 05:06:07.890123+00', '{"revision": 1}');
INSERT INTO public.objects VALUES ('Node', '', 'gateway-1', 'uid-of-gateway-1', 2, 1, 0, '2026-03-04 05:06:07.890123+00', '{"revision": 2}');
INSERT INTO public.objects VALUES ('User', '', 'anna', 'uid-of-anna', 3, 1, 0, '2026-03-04 05:06:07.890123+00', '{"apiVersion":"whimbrel/v1","kind":"User","metadata":{"name":"anna"},"spec":{"role":"operator","namespace":"plant"}}');
INSERT INTO public.pod_state VALUES ('uid-of-web-0', 'gw-ä', 1772600767890123, '{"phase":"Running"}');
INSERT INTO public.route_spec VALUES ('route-uid', 2, '\x7b22746f223a7b7d7d', '2026-03-04 05:06:07.890123+00');
INSERT INTO public.route_total VALUES ('route-uid', 'hub', '', 0, 1, 0, 0, 'refused ü', '2026-03-04 05:06:07.890123+00');
INSERT INTO public.routed OVERRIDING SYSTEM VALUE VALUES (1, 'key1', 'hub', 'route-uid', 'plant', 'alarms', 'gw/alarms/ä', 'gw', 'alarms/ä', 'boiler-1', 'p', 'text/plain', '\x00ff01', '\x7b2268747470223a7b7d7d', '2026-03-04 05:06:07.890123+00', '2026-03-04 06:06:07.890123+00', 3600000000, 5, 0, NULL, '');
INSERT INTO public.routed OVERRIDING SYSTEM VALUE VALUES (2, 'key2', 'node:gw', 'route-uid', 'plant', 'alarms', 'gw/alarms/ä', 'gw', 'alarms/ä', 'boiler-1', 'p', 'text/plain', '\x00ff02', '\x7b2268747470223a7b7d7d', '2026-03-04 05:06:07.890123+00', '2026-03-04 06:06:07.890123+00', 3600000000, 5, 6, '2026-03-04 05:06:07.890123+00', 'refused ü');
INSERT INTO public.samples_chunk_20260226 VALUES (2, 2, 1772600400000000, 1772601499000000, 1100, 0, '2026-11-22 18:02:39.896618+00', 1000000, NULL, NULL, 2, NULL, 0, '{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19}', NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, '\x01133c80d0dd92f68aa6068093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40003c80897a8093a2380200027602000276010000000000a89b40001480897a80ab8f120200022602000226010000000000c0674000', '\x0101cc0880d0dd92f68aa60680a38b980802000226020002760100000000804cdf4000');
INSERT INTO public.samples_chunk_default VALUES (1, 1, 0, 22, 23, 0, '2026-11-22 18:02:39.896618+00', 1, NULL, NULL, 0, '{0,1,1,2,2,2,2,3,3,4,4,4,4,4,4,5,5,5,5,6,6,7,2}', 0, NULL, NULL, '{0,0,1,0,9223372036854775807,-9223372036854775808,9007199254740993,-1,-9223372036854775808,-9223372036854775808,-9223372036854775808,-9223372036854775808,-9223372036854775808,-9223372036854775808,-9223372036854775808,-9223372036854775808,-9223372036854775808,-9223372036854775808,-9223372036854775808,-9223372036854775808,-9223372036854775808,-9223372036854775808,1}', NULL, NULL, 0, NULL, '{0,0,0,0,0,0,0,0,0,0,5,0.1,-1.7976931348623157e+308,5e-324,1e+22,0,0,0,0,0,0,0,0}', '{NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,"\\x6772c3b6c39f6520e697a5e69cac20f09f98802027225c207b4e554c4c7d","\\x610062","\\x4e554c4c",NULL,"\\x00fffe802000","\\x7b2261223a5b312c31383434363734343037333730393535313631352c225c7530303030225d7d",NULL}', '{2,0,0,0,0,0,1,0,0,0,0,0,0,0,2,0,0,0,0,0,0,0,255}', '{timeout,NULL,NULL,NULL,NULL,NULL,out-of-range,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,größe,"of a newer release"}', '{t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t}', NULL, NULL);
INSERT INTO public.secrets VALUES ('ca', '\x000102ff');
INSERT INTO public.series OVERRIDING SYSTEM VALUE VALUES (1, 'uid-of-boiler-1', 1, 'p');
INSERT INTO public.series OVERRIDING SYSTEM VALUE VALUES (2, 'uid-of-pump-1', 1, 'q');
INSERT INTO public.served VALUES ('uid-of-boiler-1', 2, 'uid-of-gateway-2');
INSERT INTO public.twins VALUES ('uid-of-boiler-1', '{"version":812}');
INSERT INTO public.writes VALUES ('w1', 'uid-of-boiler-1', 'p', '1.5', 1, 'anna', 'cloud', 'kühl', '00-ab-cd-01', '{"value":1}', 1772600767890123, 1772600767890123, 1772600827890123, 1772604367890123, 1772600768890123, 1772600769890123, 1772600769890123, 'applied', '', 'w2', false, true, 2);
INSERT INTO public.writes VALUES ('w2', 'uid-of-boiler-1', 'p', 'null', 2, '', 'mqtt', '', '', '', 1772600767890123, 1772600827890123, NULL, NULL, NULL, NULL, NULL, 'pending', '', '', false, false, 0);
INSERT INTO public.writes VALUES ('w3', 'uid-of-pump-1', 'q', '"on"', 0, '', 'edge', '', '', '', 1772600767890123, NULL, NULL, NULL, NULL, NULL, 1772600767890123, 'failed', 'nö', '', true, false, 2);
SELECT pg_catalog.setval('public.audit_id_seq', 1, true);
SELECT pg_catalog.setval('public.gaps_id_seq', 1, true);
SELECT pg_catalog.setval('public.goose_db_version_id_seq', 9, true);
SELECT pg_catalog.setval('public.routed_id_seq', 2, true);
SELECT pg_catalog.setval('public.samples_batch_id_seq', 2, true);
SELECT pg_catalog.setval('public.samples_chunk_id', 2, true);
SELECT pg_catalog.setval('public.series_id_seq', 2, true);
ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_hash_key UNIQUE (hash);
ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.assignments
    ADD CONSTRAINT assignments_pkey PRIMARY KEY (device_uid, assignment);
ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.deleted_devices
    ADD CONSTRAINT deleted_devices_pkey PRIMARY KEY (uid);
ALTER TABLE ONLY public.desired
    ADD CONSTRAINT desired_pkey PRIMARY KEY (device_uid);
ALTER TABLE ONLY public.epochs
    ADD CONSTRAINT epochs_node_uid_rank_key UNIQUE (node_uid, rank);
ALTER TABLE ONLY public.epochs
    ADD CONSTRAINT epochs_pkey PRIMARY KEY (node_uid, epoch);
ALTER TABLE ONLY public.event_count
    ADD CONSTRAINT event_count_pkey PRIMARY KEY (one);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (key);
ALTER TABLE ONLY public.gaps
    ADD CONSTRAINT gaps_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.goose_db_version
    ADD CONSTRAINT goose_db_version_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.hub
    ADD CONSTRAINT hub_pkey PRIMARY KEY (one);
ALTER TABLE ONLY public.idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (caller, key);
ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_hash_key UNIQUE (hash);
ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.objects
    ADD CONSTRAINT objects_pkey PRIMARY KEY (kind, namespace, name);
ALTER TABLE ONLY public.pod_state
    ADD CONSTRAINT pod_state_pkey PRIMARY KEY (pod_uid);
ALTER TABLE ONLY public.route_spec
    ADD CONSTRAINT route_spec_pkey PRIMARY KEY (route, generation);
ALTER TABLE ONLY public.route_total
    ADD CONSTRAINT route_total_pkey PRIMARY KEY (route, place);
ALTER TABLE ONLY public.routed
    ADD CONSTRAINT routed_key_target_key UNIQUE (key, target);
ALTER TABLE ONLY public.routed
    ADD CONSTRAINT routed_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.samples_batch
    ADD CONSTRAINT samples_batch_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT secrets_pkey PRIMARY KEY (key);
ALTER TABLE ONLY public.series
    ADD CONSTRAINT series_device_uid_property_assignment_key UNIQUE (device_uid, property, assignment);
ALTER TABLE ONLY public.series
    ADD CONSTRAINT series_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.served
    ADD CONSTRAINT served_pkey PRIMARY KEY (device_uid, assignment, node_uid);
ALTER TABLE ONLY public.twins
    ADD CONSTRAINT twins_pkey PRIMARY KEY (device_uid);
ALTER TABLE ONLY public.writes
    ADD CONSTRAINT writes_pkey PRIMARY KEY (id);
CREATE INDEX api_tokens_user ON public.api_tokens USING btree (user_name);
CREATE INDEX deleted_devices_name ON public.deleted_devices USING btree (namespace, name);
CREATE INDEX events_last ON public.events USING btree (last_us, key);
CREATE INDEX events_object ON public.events USING btree (name, kind, last_us);
CREATE UNIQUE INDEX events_revision ON public.events USING btree (revision);
CREATE INDEX gaps_node ON public.gaps USING btree (node_uid, id);
CREATE INDEX idempotency_keep_until ON public.idempotency USING btree (keep_until);
CREATE INDEX routed_route ON public.routed USING btree (route, id);
CREATE INDEX routed_waiting ON public.routed USING btree (target, id) WHERE (died IS NULL);
CREATE INDEX samples_chunk_merge ON ONLY public.samples_chunk USING btree (level, series, t0) WHERE (level < 3);
CREATE INDEX samples_chunk_20260226_level_series_t0_idx ON public.samples_chunk_20260226 USING btree (level, series, t0) WHERE (level < 3);
CREATE INDEX samples_chunk_series ON ONLY public.samples_chunk USING btree (series, t0);
CREATE INDEX samples_chunk_20260226_series_t0_idx ON public.samples_chunk_20260226 USING btree (series, t0);
CREATE INDEX samples_chunk_20260305_level_series_t0_idx ON public.samples_chunk_20260305 USING btree (level, series, t0) WHERE (level < 3);
CREATE INDEX samples_chunk_20260305_series_t0_idx ON public.samples_chunk_20260305 USING btree (series, t0);
CREATE INDEX samples_chunk_20260312_level_series_t0_idx ON public.samples_chunk_20260312 USING btree (level, series, t0) WHERE (level < 3);
CREATE INDEX samples_chunk_20260312_series_t0_idx ON public.samples_chunk_20260312 USING btree (series, t0);
CREATE INDEX samples_chunk_20260319_level_series_t0_idx ON public.samples_chunk_20260319 USING btree (level, series, t0) WHERE (level < 3);
CREATE INDEX samples_chunk_20260319_series_t0_idx ON public.samples_chunk_20260319 USING btree (series, t0);
CREATE INDEX samples_chunk_20260326_level_series_t0_idx ON public.samples_chunk_20260326 USING btree (level, series, t0) WHERE (level < 3);
CREATE INDEX samples_chunk_20260326_series_t0_idx ON public.samples_chunk_20260326 USING btree (series, t0);
CREATE INDEX samples_chunk_20260402_level_series_t0_idx ON public.samples_chunk_20260402 USING btree (level, series, t0) WHERE (level < 3);
CREATE INDEX samples_chunk_20260402_series_t0_idx ON public.samples_chunk_20260402 USING btree (series, t0);
CREATE INDEX samples_chunk_default_level_series_t0_idx ON public.samples_chunk_default USING btree (level, series, t0) WHERE (level < 3);
CREATE INDEX samples_chunk_default_series_t0_idx ON public.samples_chunk_default USING btree (series, t0);
CREATE INDEX writes_device ON public.writes USING btree (device_uid, id);
CREATE INDEX writes_property ON public.writes USING btree (device_uid, property, since_us);
ALTER INDEX public.samples_chunk_merge ATTACH PARTITION public.samples_chunk_20260226_level_series_t0_idx;
ALTER INDEX public.samples_chunk_series ATTACH PARTITION public.samples_chunk_20260226_series_t0_idx;
ALTER INDEX public.samples_chunk_merge ATTACH PARTITION public.samples_chunk_20260305_level_series_t0_idx;
ALTER INDEX public.samples_chunk_series ATTACH PARTITION public.samples_chunk_20260305_series_t0_idx;
ALTER INDEX public.samples_chunk_merge ATTACH PARTITION public.samples_chunk_20260312_level_series_t0_idx;
ALTER INDEX public.samples_chunk_series ATTACH PARTITION public.samples_chunk_20260312_series_t0_idx;
ALTER INDEX public.samples_chunk_merge ATTACH PARTITION public.samples_chunk_20260319_level_series_t0_idx;
ALTER INDEX public.samples_chunk_series ATTACH PARTITION public.samples_chunk_20260319_series_t0_idx;
ALTER INDEX public.samples_chunk_merge ATTACH PARTITION public.samples_chunk_20260326_level_series_t0_idx;
ALTER INDEX public.samples_chunk_series ATTACH PARTITION public.samples_chunk_20260326_series_t0_idx;
ALTER INDEX public.samples_chunk_merge ATTACH PARTITION public.samples_chunk_20260402_level_series_t0_idx;
ALTER INDEX public.samples_chunk_series ATTACH PARTITION public.samples_chunk_20260402_series_t0_idx;
ALTER INDEX public.samples_chunk_merge ATTACH PARTITION public.samples_chunk_default_level_series_t0_idx;
ALTER INDEX public.samples_chunk_series ATTACH PARTITION public.samples_chunk_default_series_t0_idx;
CREATE TRIGGER audit_only_added_to BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit FOR EACH STATEMENT EXECUTE FUNCTION public.audit_refuse();
