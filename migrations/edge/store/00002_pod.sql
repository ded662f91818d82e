-- +goose Up

-- What is to survive a restart of the pod in a slot: which of its generations has
-- served, and the credentials that are in their containers.
CREATE TABLE pod (
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    state     BLOB NOT NULL, -- JSON of package workload, sealed
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
