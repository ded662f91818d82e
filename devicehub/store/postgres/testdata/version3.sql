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
    SELECT samples_time(v.t), samples_value(v.k, coalesce(v.i, 0), coalesce(v.f, 0)), samples_text(v.k, coalesce(v.i, 0), coalesce(v.f, 0), v.x),
           samples_quality(v.q), v.why
    FROM objects o
    JOIN series s ON s.device_uid = o.uid
    JOIN samples_batch b ON b.series @> ARRAY[s.id]
    CROSS JOIN LATERAL unnest(b.series, b.time_us, b.kind, b.int_v, b.float_v, b.text_v, b.quality, b.reason) AS v (s, t, k, i, f, x, q, why)
    WHERE o.kind = 'Device' AND o.namespace = $1 AND o.name = $2 AND s.property = $3
      AND b.t0 < samples_us($5) AND b.t1 >= samples_us($4) AND v.s = s.id AND v.t >= samples_us($4) AND v.t < samples_us($5)
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
    received timestamp with time zone NOT NULL,
    backfill boolean NOT NULL,
    t0 bigint NOT NULL,
    t1 bigint NOT NULL,
    series bigint[] NOT NULL,
    time_us bigint[] NOT NULL,
    kind smallint[] NOT NULL,
    int_v bigint[],
    float_v double precision[],
    text_v bytea[],
    quality smallint[],
    reason text[]
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000');
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
    backfill boolean[]
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
    public.samples_time(v.t) AS "time",
    public.samples_value(v.k, COALESCE(v.i, (0)::bigint), COALESCE(v.f, (0)::double precision)) AS value,
    public.samples_text(v.k, COALESCE(v.i, (0)::bigint), COALESCE(v.f, (0)::double precision), v.x) AS text,
    public.samples_quality(v.q) AS quality,
    v.why AS reason
   FROM (((public.objects o
     JOIN public.series s ON (((s.device_uid = o.uid) AND (o.kind = 'Device'::text))))
     JOIN public.samples_batch b ON ((b.series @> ARRAY[s.id])))
     CROSS JOIN LATERAL UNNEST(b.series, b.time_us, b.kind, b.int_v, b.float_v, b.text_v, b.quality, b.reason) v(s, t, k, i, f, x, q, why))
  WHERE (v.s = s.id);
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
ALTER TABLE public.samples_batch ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.samples_batch_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
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
    backfill boolean[]
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
CREATE TABLE public.twins (
    device_uid text NOT NULL,
    json json NOT NULL
)
WITH (fillfactor='70');
ALTER TABLE ONLY public.samples_chunk ATTACH PARTITION public.samples_chunk_default DEFAULT;
INSERT INTO public.api_tokens VALUES ('a', 'ah', 'anna', 'uid-of-anna', '', '2026-03-04 05:06:07.890123+00', NULL, NULL);
INSERT INTO public.desired VALUES ('uid-of-boiler-1', 3, '{"version":1}');
INSERT INTO public.epochs VALUES ('uid-of-gateway-1', 'e', 1, -1, '2026-03-04 05:06:07.890123+00');
INSERT INTO public.gaps OVERRIDING SYSTEM VALUE VALUES (1, 'uid-of-gateway-1', 'outbox-full', 'e', 1, 2, 3, 1772600767890123, NULL, '2026-03-04 05:06:07.890123+00');
INSERT INTO public.goose_db_version VALUES (1, 0, true, '2026-11-22 13:27:01.693358');
INSERT INTO public.goose_db_version VALUES (2, 1, true, '2026-11-22 13:27:01.703073');
INSERT INTO public.goose_db_version VALUES (3, 2, true, '2026-11-22 13:27:01.775864');
INSERT INTO public.goose_db_version VALUES (4, 3, true, '2026-11-22 13:27:01.789928');
INSERT INTO public.hub VALUES (true, '01M81Q0KX5KKS05DW50EYAD232', 3);
INSERT INTO public.idempotency VALUES ('anna', '\x6b6579', 'f', 0, '', '\x', '2026-03-04 05:06:07.890123+00', '2140-04-01 21:06:07.890123+00');
INSERT INTO public.join_tokens VALUES ('j', 'jh', 'gateway-1', '', '2026-03-04 05:06:07.890123+00', '2026-03-04 05:06:07.890123+00', NULL, '');
INSERT INTO public.objects VALUES ('Device', 'default', 'boiler-1', 'uid-of-boiler-1', 1, 1, 0, '2026-03-04 05:06:07.890123+00', '{"revision": 1}');
INSERT INTO public.objects VALUES ('Node', '', 'gateway-1', 'uid-of-gateway-1', 2, 1, 0, '2026-03-04 05:06:07.890123+00', '{"revision": 2}');
INSERT INTO public.objects VALUES ('User', '', 'anna', 'uid-of-anna', 3, 1, 0, '2026-03-04 05:06:07.890123+00', '{"apiVersion":"whimbrel/v1","kind":"User","metadata":{"name":"anna"},"spec":{"role":"operator","namespace":"plant"}}');
INSERT INTO public.samples_batch OVERRIDING SYSTEM VALUE VALUES (1, '2026-03-04 05:06:07.890123+00', true, 0, 22, '{1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}', '{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22}', '{0,1,1,2,2,2,2,3,3,4,4,4,4,4,4,5,5,5,5,6,6,7,2}', '{0,0,1,0,9223372036854775807,-9223372036854775808,9007199254740993,-1,-9223372036854775808,0,0,0,0,0,0,0,0,0,0,0,0,0,1}', '{0,0,0,0,0,0,0,0,0,0,5,0.1,-1.7976931348623157e+308,5e-324,1e+22,0,0,0,0,0,0,0,0}', '{NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,"\\x6772c3b6c39f6520e697a5e69cac20f09f98802027225c207b4e554c4c7d","\\x610062","\\x4e554c4c",NULL,"\\x00fffe802000","\\x7b2261223a5b312c31383434363734343037333730393535313631352c225c7530303030225d7d",NULL}', '{2,0,0,0,0,0,1,0,0,0,0,0,0,0,2,0,0,0,0,0,0,0,255}', '{timeout,NULL,NULL,NULL,NULL,NULL,out-of-range,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,größe,"of a newer release"}');
INSERT INTO public.secrets VALUES ('ca', '\x000102ff');
INSERT INTO public.series OVERRIDING SYSTEM VALUE VALUES (1, 'uid-of-boiler-1', 1, 'p');
INSERT INTO public.twins VALUES ('uid-of-boiler-1', '{"version":812}');
SELECT pg_catalog.setval('public.audit_id_seq', 1, false);
SELECT pg_catalog.setval('public.gaps_id_seq', 1, true);
SELECT pg_catalog.setval('public.goose_db_version_id_seq', 4, true);
SELECT pg_catalog.setval('public.samples_batch_id_seq', 1, true);
SELECT pg_catalog.setval('public.samples_chunk_id', 1, false);
SELECT pg_catalog.setval('public.series_id_seq', 1, true);
ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_hash_key UNIQUE (hash);
ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.desired
    ADD CONSTRAINT desired_pkey PRIMARY KEY (device_uid);
ALTER TABLE ONLY public.epochs
    ADD CONSTRAINT epochs_node_uid_rank_key UNIQUE (node_uid, rank);
ALTER TABLE ONLY public.epochs
    ADD CONSTRAINT epochs_pkey PRIMARY KEY (node_uid, epoch);
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
ALTER TABLE ONLY public.samples_batch
    ADD CONSTRAINT samples_batch_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT secrets_pkey PRIMARY KEY (key);
ALTER TABLE ONLY public.series
    ADD CONSTRAINT series_device_uid_property_assignment_key UNIQUE (device_uid, property, assignment);
ALTER TABLE ONLY public.series
    ADD CONSTRAINT series_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.twins
    ADD CONSTRAINT twins_pkey PRIMARY KEY (device_uid);
CREATE INDEX api_tokens_user ON public.api_tokens USING btree (user_name);
CREATE INDEX gaps_node ON public.gaps USING btree (node_uid, id);
CREATE INDEX idempotency_keep_until ON public.idempotency USING btree (keep_until);
CREATE INDEX samples_batch_series ON public.samples_batch USING gin (series);
CREATE INDEX samples_chunk_merge ON ONLY public.samples_chunk USING btree (level, series, t0) WHERE (level < 3);
CREATE INDEX samples_chunk_default_level_series_t0_idx ON public.samples_chunk_default USING btree (level, series, t0) WHERE (level < 3);
CREATE INDEX samples_chunk_series ON ONLY public.samples_chunk USING btree (series, t0);
CREATE INDEX samples_chunk_default_series_t0_idx ON public.samples_chunk_default USING btree (series, t0);
ALTER INDEX public.samples_chunk_merge ATTACH PARTITION public.samples_chunk_default_level_series_t0_idx;
ALTER INDEX public.samples_chunk_series ATTACH PARTITION public.samples_chunk_default_series_t0_idx;
CREATE TRIGGER audit_only_added_to BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit FOR EACH STATEMENT EXECUTE FUNCTION public.audit_refuse();
