-- +goose Up

-- Messages of routes that the hub has taken and that are not delivered, and dead
-- letters. The payload is last, so that counting reads past it.
CREATE TABLE routed (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    key          TEXT    NOT NULL,
    target       TEXT    NOT NULL, -- hub, or node:NAME
    route        TEXT    NOT NULL, -- uid
    namespace    TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    lane         TEXT    NOT NULL,
    node         TEXT    NOT NULL,
    topic        TEXT    NOT NULL,
    device       TEXT    NOT NULL,
    property     TEXT    NOT NULL,
    content_type TEXT    NOT NULL,
    accepted_us  INTEGER NOT NULL,
    deadline_us  INTEGER NOT NULL,
    ttl_us       INTEGER NOT NULL,
    retries      INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    died_us      INTEGER,          -- of a dead letter
    error        TEXT    NOT NULL,
    send_to      BLOB    NOT NULL,
    payload      BLOB    NOT NULL,
    UNIQUE (key, target)
);

CREATE INDEX routed_waiting ON routed (target, id) WHERE died_us IS NULL;
CREATE INDEX routed_route ON routed (route, id);

CREATE TABLE route_total (
    route     TEXT    NOT NULL, -- uid
    place     TEXT    NOT NULL, -- hub, or the id of an edge's queue
    node      TEXT    NOT NULL,
    delivered INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    dropped   INTEGER NOT NULL,
    queued    INTEGER NOT NULL,
    error     TEXT    NOT NULL,
    error_us  INTEGER,
    PRIMARY KEY (route, place)
) WITHOUT ROWID;

-- What routes said at each generation: a message that was taken under one of them goes
-- where that one says.
CREATE TABLE route_spec (
    route      TEXT    NOT NULL, -- uid
    generation INTEGER NOT NULL,
    spec       BLOB    NOT NULL,
    stored_us  INTEGER NOT NULL,
    PRIMARY KEY (route, generation)
) WITHOUT ROWID;
