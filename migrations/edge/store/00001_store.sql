-- +goose Up

-- What the hub wants of this edge, as it last said.
CREATE TABLE item (
    kind       TEXT NOT NULL, -- DeviceModel, Device, Desired, or one of a newer hub
    namespace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    uid        TEXT NOT NULL,
    revision   INTEGER NOT NULL,
    assignment INTEGER NOT NULL,
    body       BLOB NOT NULL, -- JSON
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;

-- The twin of a device, by the device's uid.
CREATE TABLE twin (
    uid      TEXT PRIMARY KEY,
    intent   BLOB NOT NULL, -- JSON of twin.Intent, synced before anyone is told of it
    observed BLOB NOT NULL  -- JSON of twin.Observed, written about once a second
) WITHOUT ROWID;

-- What the edge was started with and what it has learned of its hub.
CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
