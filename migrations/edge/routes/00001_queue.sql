-- +goose Up

-- One row. The id tells the hub one queue's totals from another's.
CREATE TABLE queue (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  TEXT NOT NULL
);

-- Messages that routes have taken and that are not delivered yet. The body is last, so
-- that the start reads past it.
CREATE TABLE message (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    key         TEXT NOT NULL,
    route       TEXT NOT NULL, -- uid
    destination INTEGER NOT NULL, -- 0 the hub, 1 here
    lane        TEXT NOT NULL,
    accepted_us INTEGER NOT NULL,
    deadline_us INTEGER NOT NULL,
    retries     INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    body        BLOB NOT NULL -- pb.RouteMessage
);

CREATE UNIQUE INDEX message_key ON message (key, destination);

-- What became of messages, by route, ever since.
CREATE TABLE total (
    route         TEXT PRIMARY KEY,
    delivered     INTEGER NOT NULL,
    failed        INTEGER NOT NULL,
    dropped       INTEGER NOT NULL,
    last_error    TEXT NOT NULL,
    last_error_us INTEGER NOT NULL
) WITHOUT ROWID;
