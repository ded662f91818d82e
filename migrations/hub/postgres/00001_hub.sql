-- +goose Up

-- Numbers that are unsigned in the programs (acked, rank, seq, assignment) are
-- kept by their 64 bits: above 2^63 they show as negative.
-- Times by the hub's clock are timestamptz; times that edges and devices say are
-- bigint microseconds since 1970, because they may be anything.

-- One row: what the database is.
CREATE TABLE hub (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    lineage  text    NOT NULL, -- its own id; empty until it is opened for the first time
    revision bigint  NOT NULL  -- of the last change of an object or desired value
);

INSERT INTO hub (lineage, revision) VALUES ('', 0);

-- json and not jsonb: what was stored comes back to the byte, and \u0000 is allowed.
CREATE TABLE objects (
    kind       text        NOT NULL,
    namespace  text        NOT NULL, -- empty for kinds that are in none
    name       text        NOT NULL,
    uid        text        NOT NULL,
    revision   bigint      NOT NULL,
    generation bigint      NOT NULL,
    assignment bigint      NOT NULL, -- of a device: counts its moves between nodes
    created    timestamptz NOT NULL,
    json       json        NOT NULL,
    PRIMARY KEY (kind, namespace, name)
);

CREATE TABLE desired (
    device_uid text   PRIMARY KEY,
    revision   bigint NOT NULL,
    json       json   NOT NULL
);

-- Rewritten about once a second while they change: room for updates in place.
CREATE TABLE twins (
    device_uid text PRIMARY KEY,
    json       json NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE epochs (
    node_uid text        NOT NULL,
    epoch    text        NOT NULL,
    rank     bigint      NOT NULL, -- 1, 2, 3… for each node
    acked    bigint      NOT NULL, -- every record up to here is committed
    started  timestamptz NOT NULL,
    PRIMARY KEY (node_uid, epoch),
    UNIQUE (node_uid, rank)
) WITH (fillfactor = 50);

CREATE TABLE series (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_uid text   NOT NULL,
    assignment bigint NOT NULL,
    property   text   NOT NULL,
    UNIQUE (device_uid, property, assignment)
);

-- Samples as they came: one row holds many of many series, by columns with one
-- element per sample. A column that says nothing is NULL as a whole.
CREATE TABLE samples_batch (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- in the order of arrival, for one series
    received timestamptz NOT NULL,
    backfill boolean     NOT NULL, -- made while there was no link
    t0       bigint      NOT NULL, -- the earliest of time_us
    t1       bigint      NOT NULL, -- the latest
    series   bigint[]    NOT NULL,
    time_us  bigint[]    NOT NULL,
    kind     smallint[]  NOT NULL, -- models.Kind
    int_v    bigint[],             -- of kinds bool, int and, by its bits, uint
    float_v  float8[],             -- of kind float
    text_v   bytea[],              -- of kinds string, bytes and JSON; an element that is NULL is empty
    quality  smallint[],           -- models.Quality; NULL: all are good
    reason   text[]                -- an element that is NULL is empty
);

CREATE INDEX samples_batch_series ON samples_batch USING gin (series);

CREATE TABLE gaps (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_uid  text        NOT NULL,
    reason    text        NOT NULL,
    epoch     text        NOT NULL,
    first_seq bigint      NOT NULL,
    last_seq  bigint      NOT NULL,
    samples   bigint      NOT NULL, -- 0: unknown
    from_us   bigint,               -- NULL: unknown
    to_us     bigint,
    recorded  timestamptz NOT NULL
);

CREATE INDEX gaps_node ON gaps (node_uid, id);

-- Keys come from clients and may be any bytes.
CREATE TABLE idempotency (
    caller      text        NOT NULL,
    key         bytea       NOT NULL,
    fingerprint text        NOT NULL,
    status      integer     NOT NULL, -- 0 while the request runs
    etag        text        NOT NULL,
    body        bytea       NOT NULL,
    created     timestamptz NOT NULL,
    keep_until  timestamptz NOT NULL,
    PRIMARY KEY (caller, key)
);

CREATE INDEX idempotency_keep_until ON idempotency (keep_until);

CREATE TABLE secrets (
    key  text  PRIMARY KEY,
    blob bytea NOT NULL -- sealed
);

CREATE TABLE join_tokens (
    id         text        PRIMARY KEY,
    hash       text        NOT NULL UNIQUE, -- of the secret
    node       text        NOT NULL,
    created_by text        NOT NULL,
    created    timestamptz NOT NULL,
    expires    timestamptz NOT NULL,
    used_at    timestamptz,
    used_key   text        NOT NULL
);

CREATE TABLE api_tokens (
    id          text        PRIMARY KEY,
    hash        text        NOT NULL UNIQUE, -- of the whole token
    user_name   text        NOT NULL,
    user_uid    text        NOT NULL,
    description text        NOT NULL,
    created     timestamptz NOT NULL,
    expires     timestamptz,
    last_used   timestamptz
);

CREATE INDEX api_tokens_user ON api_tokens (user_name);

-- The two compare-and-set steps are functions that fail, so that they and all
-- that depends on them can be sent in one go.

-- +goose StatementBegin
CREATE FUNCTION advance_revision(to_revision bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE hub SET revision = to_revision WHERE revision < to_revision;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'revision % is not above the stored one', to_revision USING ERRCODE = 'WB001';
    END IF;
END
$$;
-- +goose StatementEnd

-- Seqs are unsigned: flipping the highest bit compares them so.
-- +goose StatementBegin
CREATE FUNCTION acknowledge(of_node text, of_epoch text, after_seq bigint, to_seq bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE epochs SET acked = to_seq
    WHERE node_uid = of_node AND epoch = of_epoch AND acked = after_seq
      AND (after_seq # '-9223372036854775808'::bigint) < (to_seq # '-9223372036854775808'::bigint);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'epoch % is not acknowledged up to %', of_epoch, after_seq USING ERRCODE = 'WB001';
    END IF;
END
$$;
-- +goose StatementEnd
