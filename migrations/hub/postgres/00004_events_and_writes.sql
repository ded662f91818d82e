-- +goose Up

-- Events and the write ledger. All times are bigint microseconds since 1970:
-- many are an edge's, and may be anything.

-- One row: numbers the changes of events in the order in which they are
-- committed, because who counts it up holds it until then.
CREATE TABLE event_count (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    revision bigint  NOT NULL
) WITH (fillfactor = 10);

INSERT INTO event_count (revision) VALUES (0);

-- What happened. One row stands for all that is alike within a short time.
CREATE TABLE events (
    key         text    COLLATE "C" PRIMARY KEY, -- of what is alike
    revision    bigint  NOT NULL,    -- of the row's last change
    kind        text    NOT NULL,    -- of the object that it is about
    namespace   text    NOT NULL,
    name        text    NOT NULL,
    uid         text    NOT NULL,
    field       text    NOT NULL,    -- a part of the object, or empty
    warning     boolean NOT NULL,
    reason      text    NOT NULL,
    message     text    NOT NULL,    -- the latest one
    source      text    NOT NULL,    -- the part of Whimbrel that says so
    node        text    NOT NULL,    -- whose log told of it, or empty
    first_us    bigint  NOT NULL,
    last_us     bigint  NOT NULL,
    count       bigint  NOT NULL,
    recorded_us bigint  NOT NULL     -- by the hub's clock, when last
);

CREATE UNIQUE INDEX events_revision ON events (revision);
CREATE INDEX events_last ON events (last_us, key);
CREATE INDEX events_object ON events (name, kind, last_us);

-- Every desired write, and what became of it.
CREATE TABLE writes (
    id            text     COLLATE "C" PRIMARY KEY,
    device_uid    text     NOT NULL,
    property      text     NOT NULL,
    value         text     NOT NULL, -- JSON; null withdraws
    version       bigint   NOT NULL, -- desiredVersion that it made, 0: never got to be desired at the hub
    by_user       text     NOT NULL,
    origin        text     NOT NULL,
    reason        text     NOT NULL,
    trace         text     NOT NULL,
    before        text     NOT NULL, -- JSON of what was reported when it was asked; empty: unknown
    asked_us      bigint   NOT NULL,
    since_us      bigint,            -- when it became the desired value, by the hub's clock
    until_us      bigint,            -- when it ceased to be
    expires_us    bigint,
    sent_us       bigint,            -- when it was last handed to the device
    confirmed_us  bigint,            -- when it was read back
    ended_us      bigint,            -- when its state became what it is, if that is final
    state         text     NOT NULL,
    error         text     NOT NULL,
    superseded_by text     NOT NULL,
    refused       boolean  NOT NULL,
    late          boolean  NOT NULL,
    settled       smallint NOT NULL  -- 0: pending, 1: ended by the hub's judgement, 2: by the edge's word
) WITH (fillfactor = 70);

CREATE INDEX writes_device ON writes (device_uid, id);
CREATE INDEX writes_property ON writes (device_uid, property, since_us);

-- When a device was assigned to a node for the n-th time.
CREATE TABLE assignments (
    device_uid text   NOT NULL,
    assignment bigint NOT NULL,
    since_us   bigint NOT NULL,
    PRIMARY KEY (device_uid, assignment)
);

INSERT INTO assignments SELECT uid, assignment, 0 FROM objects WHERE kind = 'Device' AND assignment = 1;

-- Which nodes' logs have brought anything of a device.
CREATE TABLE served (
    device_uid text   NOT NULL,
    assignment bigint NOT NULL,
    node_uid   text   NOT NULL,
    PRIMARY KEY (device_uid, assignment, node_uid)
);

-- Devices that are gone and have history still.
CREATE TABLE deleted_devices (
    uid        text   PRIMARY KEY,
    namespace  text   NOT NULL,
    name       text   NOT NULL,
    deleted_us bigint NOT NULL
);

CREATE INDEX deleted_devices_name ON deleted_devices (namespace, name);

INSERT INTO deleted_devices
    SELECT s.device_uid, coalesce(max(a.namespace), ''), coalesce(max(a.name), ''), (extract(epoch FROM coalesce(max(a.time), now())) * 1000000)::bigint
    FROM series s
    LEFT JOIN audit a ON a.kind = 'Device' AND a.action = 'deleted' AND a.uid = s.device_uid
    WHERE NOT EXISTS (SELECT FROM objects o WHERE o.kind = 'Device' AND o.uid = s.device_uid)
    GROUP BY s.device_uid;

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
    SELECT samples_time(v.t), samples_value(v.k, coalesce(v.i, 0), coalesce(v.f, 0)), samples_text(v.k, coalesce(v.i, 0), coalesce(v.f, 0), v.x),
           samples_quality(v.q), v.why
    FROM series s
    JOIN samples_batch b ON b.series @> ARRAY[s.id]
    CROSS JOIN LATERAL unnest(b.series, b.time_us, b.kind, b.int_v, b.float_v, b.text_v, b.quality, b.reason) AS v (s, t, k, i, f, x, q, why)
    WHERE s.device_uid = $1 AND s.property = $2
      AND b.t0 < samples_us($4) AND b.t1 >= samples_us($3) AND v.s = s.id AND v.t >= samples_us($3) AND v.t < samples_us($4)
$$;
