-- +goose Up

-- What nodes told of their pods last: of a node that is not connected when the hub
-- starts, nobody else knows it. Rows of pods that are gone are deleted later.
CREATE TABLE pod_state (
    pod_uid TEXT    PRIMARY KEY,
    node    TEXT    NOT NULL, -- that told it
    told_us INTEGER NOT NULL, -- when, by the hub's clock
    json    TEXT    NOT NULL  -- models.PodStatus
) WITHOUT ROWID;
