-- +goose Up

-- Events and the write ledger. All times are microseconds since 1970.

-- One row: numbers the changes of events.
CREATE TABLE event_count (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
);

INSERT INTO event_count VALUES (1, 0);

-- What happened. One row stands for all that is alike within a short time.
CREATE TABLE events (
    key         TEXT    NOT NULL PRIMARY KEY, -- of what is alike
    revision    INTEGER NOT NULL, -- of the row's last change
    kind        TEXT    NOT NULL, -- of the object that it is about
    namespace   TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    uid         TEXT    NOT NULL,
    field       TEXT    NOT NULL, -- a part of the object, or empty
    warning     INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    message     TEXT    NOT NULL, -- the latest one
    source      TEXT    NOT NULL, -- the part of Whimbrel that says so
    node        TEXT    NOT NULL, -- whose log told of it, or empty
    first_us    INTEGER NOT NULL,
    last_us     INTEGER NOT NULL,
    count       INTEGER NOT NULL,
    recorded_us INTEGER NOT NULL  -- by the hub's clock, when last
);

CREATE UNIQUE INDEX events_revision ON events (revision);
CREATE INDEX events_last ON events (last_us, key);
CREATE INDEX events_object ON events (name, kind, last_us);

-- Every desired write, and what became of it.
CREATE TABLE writes (
    id            TEXT    NOT NULL PRIMARY KEY,
    device_uid    TEXT    NOT NULL,
    property      TEXT    NOT NULL,
    value         TEXT    NOT NULL, -- JSON; null withdraws
    version       INTEGER NOT NULL, -- desiredVersion that it made, 0: never got to be desired at the hub
    by_user       TEXT    NOT NULL,
    origin        TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    trace         TEXT    NOT NULL,
    before        TEXT    NOT NULL, -- JSON of what was reported when it was asked; empty: unknown
    asked_us      INTEGER NOT NULL,
    since_us      INTEGER,          -- when it became the desired value, by the hub's clock
    until_us      INTEGER,          -- when it ceased to be
    expires_us    INTEGER,
    sent_us       INTEGER,          -- when it was last handed to the device
    confirmed_us  INTEGER,          -- when it was read back
    ended_us      INTEGER,          -- when its state became what it is, if that is final
    state         TEXT    NOT NULL,
    error         TEXT    NOT NULL,
    superseded_by TEXT    NOT NULL,
    refused       INTEGER NOT NULL,
    late          INTEGER NOT NULL,
    settled       INTEGER NOT NULL  -- 0: pending, 1: ended by the hub's judgement, 2: by the edge's word
);

CREATE INDEX writes_device ON writes (device_uid, id);
CREATE INDEX writes_property ON writes (device_uid, property, since_us);

-- When a device was assigned to a node for the n-th time.
CREATE TABLE assignments (
    device_uid TEXT    NOT NULL,
    assignment INTEGER NOT NULL,
    since_us   INTEGER NOT NULL,
    PRIMARY KEY (device_uid, assignment)
);

INSERT INTO assignments SELECT uid, assignment, 0 FROM objects WHERE kind = 'Device' AND assignment = 1;

-- Which nodes' logs have brought anything of a device.
CREATE TABLE served (
    device_uid TEXT    NOT NULL,
    assignment INTEGER NOT NULL,
    node_uid   TEXT    NOT NULL,
    PRIMARY KEY (device_uid, assignment, node_uid)
);

-- Devices that are gone and have history still.
CREATE TABLE deleted_devices (
    uid        TEXT    NOT NULL PRIMARY KEY,
    namespace  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    deleted_us INTEGER NOT NULL
);

CREATE INDEX deleted_devices_name ON deleted_devices (namespace, name);

INSERT INTO deleted_devices
    SELECT s.device_uid, coalesce(max(a.namespace), ''), coalesce(max(a.name), ''), coalesce(max(a.time_us), unixepoch() * 1000000)
    FROM series s
    LEFT JOIN audit a ON a.kind = 'Device' AND a.action = 'deleted' AND a.uid = s.device_uid
    WHERE NOT EXISTS (SELECT 1 FROM objects o WHERE o.kind = 'Device' AND o.uid = s.device_uid)
    GROUP BY s.device_uid;
