-- +goose Up

-- One row: what must outlive the records.
CREATE TABLE log (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    ran_ms   INTEGER NOT NULL, -- how long this log has been open, over all its epochs
    last     INTEGER NOT NULL, -- no seq up to here is ever given out again
    counted  INTEGER NOT NULL, -- records and bytes below count the rows up to this seq
    records  INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    dropped  INTEGER NOT NULL, -- samples, ever
    synced   INTEGER NOT NULL  -- counts the syncs; changed to have something to commit
);

INSERT INTO log VALUES (1, 0, 0, 0, 0, 0, 0, 0);

CREATE TABLE epoch (
    n           INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    parent      TEXT NOT NULL,
    parent_last INTEGER NOT NULL,
    acked       INTEGER NOT NULL
);

-- The body is last, so that counting and dropping never read its overflow pages.
CREATE TABLE record (
    seq        INTEGER PRIMARY KEY,
    epoch      INTEGER NOT NULL, -- epoch.n
    samples    INTEGER NOT NULL,
    gaps       INTEGER NOT NULL, -- gaps in the body, which must not be forgotten when it is dropped
    created_us INTEGER NOT NULL,
    ran_ms     INTEGER NOT NULL, -- log.ran_ms when it was made
    from_us    INTEGER NOT NULL, -- of its samples
    to_us      INTEGER NOT NULL,
    crc        INTEGER NOT NULL, -- CRC-32C of the body
    body       BLOB NOT NULL
);

-- Gaps that are not in a record yet.
CREATE TABLE gap (
    n         INTEGER PRIMARY KEY,
    reason    TEXT NOT NULL,
    epoch     TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    samples   INTEGER NOT NULL,
    from_us   INTEGER NOT NULL,
    to_us     INTEGER NOT NULL
);
