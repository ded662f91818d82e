-- +goose Up

-- Times are microseconds since 1970. Numbers that are unsigned in the programs
-- (acked, rank, seq, assignment) are kept by their 64 bits: above 2^63 they show
-- as negative.

-- One row: what the database is.
CREATE TABLE hub (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    lineage  TEXT    NOT NULL, -- its own id; empty until it is opened for the first time
    revision INTEGER NOT NULL, -- of the last change of an object or desired value
    samples  INTEGER NOT NULL  -- how many samples have ever come: numbers them
);

INSERT INTO hub VALUES (1, '', 0, 0);

CREATE TABLE objects (
    kind       TEXT    NOT NULL,
    namespace  TEXT    NOT NULL, -- empty for kinds that are in none
    name       TEXT    NOT NULL,
    uid        TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    assignment INTEGER NOT NULL, -- of a device: counts its moves between nodes
    created_us INTEGER NOT NULL,
    json       TEXT    NOT NULL,
    PRIMARY KEY (kind, namespace, name)
);

CREATE TABLE desired (
    device_uid TEXT    NOT NULL PRIMARY KEY,
    revision   INTEGER NOT NULL,
    json       TEXT    NOT NULL
);

CREATE TABLE twins (
    device_uid TEXT NOT NULL PRIMARY KEY,
    json       TEXT NOT NULL
);

CREATE TABLE epochs (
    node_uid   TEXT    NOT NULL,
    epoch      TEXT    NOT NULL,
    rank       INTEGER NOT NULL, -- 1, 2, 3… for each node
    acked      INTEGER NOT NULL, -- every record up to here is committed
    started_us INTEGER NOT NULL,
    PRIMARY KEY (node_uid, epoch),
    UNIQUE (node_uid, rank)
);

CREATE TABLE series (
    id         INTEGER PRIMARY KEY,
    device_uid TEXT    NOT NULL,
    assignment INTEGER NOT NULL,
    property   TEXT    NOT NULL,
    UNIQUE (device_uid, property, assignment)
);

-- One row per sample, in the order in which they are read.
CREATE TABLE samples (
    series   INTEGER NOT NULL,
    time_us  INTEGER NOT NULL,
    n        INTEGER NOT NULL, -- the order in which samples came
    kind     INTEGER NOT NULL, -- models.Kind
    quality  INTEGER NOT NULL, -- models.Quality
    backfill INTEGER NOT NULL, -- made while there was no link
    value,                     -- bool, int and, by its bits, uint: integer; float: real; the rest: blob; null: NULL
    reason   TEXT,             -- NULL: none
    PRIMARY KEY (series, time_us, n)
) WITHOUT ROWID;

CREATE TABLE gaps (
    id          INTEGER PRIMARY KEY,
    node_uid    TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    epoch       TEXT    NOT NULL,
    first_seq   INTEGER NOT NULL,
    last_seq    INTEGER NOT NULL,
    samples     INTEGER NOT NULL, -- 0: unknown
    from_us     INTEGER,          -- NULL: unknown
    to_us       INTEGER,
    recorded_us INTEGER NOT NULL
);

CREATE INDEX gaps_node ON gaps (node_uid, id);

-- Keys come from clients and may be any bytes.
CREATE TABLE idempotency (
    caller        TEXT    NOT NULL,
    key           BLOB    NOT NULL,
    fingerprint   TEXT    NOT NULL,
    status        INTEGER NOT NULL, -- 0 while the request runs
    etag          TEXT    NOT NULL,
    body          BLOB    NOT NULL,
    created_us    INTEGER NOT NULL,
    keep_until_us INTEGER NOT NULL,
    PRIMARY KEY (caller, key)
);

CREATE INDEX idempotency_keep_until ON idempotency (keep_until_us);

CREATE TABLE secrets (
    key  TEXT NOT NULL PRIMARY KEY,
    blob BLOB NOT NULL -- sealed
);

CREATE TABLE join_tokens (
    id         TEXT    NOT NULL PRIMARY KEY,
    hash       TEXT    NOT NULL UNIQUE, -- of the secret
    node       TEXT    NOT NULL,
    created_by TEXT    NOT NULL,
    created_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    used_us    INTEGER, -- NULL: not yet
    used_key   TEXT    NOT NULL
);

CREATE TABLE api_tokens (
    id           TEXT    NOT NULL PRIMARY KEY,
    hash         TEXT    NOT NULL UNIQUE, -- of the whole token
    user_name    TEXT    NOT NULL,
    user_uid     TEXT    NOT NULL,
    description  TEXT    NOT NULL,
    created_us   INTEGER NOT NULL,
    expires_us   INTEGER, -- NULL: never
    last_used_us INTEGER  -- NULL: not yet
);

CREATE INDEX api_tokens_user ON api_tokens (user_name);
