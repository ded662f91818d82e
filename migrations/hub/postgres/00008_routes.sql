-- +goose Up

-- Messages of routes that the hub has taken and that are not delivered, and dead
-- letters.
CREATE TABLE routed (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key          text        NOT NULL,
    target       text        NOT NULL, -- hub, or node:NAME
    route        text        NOT NULL, -- uid
    namespace    text        NOT NULL,
    name         text        NOT NULL,
    lane         text        NOT NULL,
    node         text        NOT NULL,
    topic        text        NOT NULL,
    device       text        NOT NULL,
    property     text        NOT NULL,
    content_type text        NOT NULL,
    payload      bytea       NOT NULL,
    send_to      bytea       NOT NULL,
    accepted     timestamptz NOT NULL,
    deadline     timestamptz NOT NULL,
    ttl_us       bigint      NOT NULL,
    retries      integer     NOT NULL,
    attempts     integer     NOT NULL,
    died         timestamptz,          -- of a dead letter
    error        text        NOT NULL,
    UNIQUE (key, target)
);

CREATE INDEX routed_waiting ON routed (target, id) WHERE died IS NULL;
CREATE INDEX routed_route ON routed (route, id);

CREATE TABLE route_total (
    route     text        NOT NULL, -- uid
    place     text        NOT NULL, -- hub, or the id of an edge's queue
    node      text        NOT NULL,
    delivered bigint      NOT NULL,
    failed    bigint      NOT NULL,
    dropped   bigint      NOT NULL,
    queued    bigint      NOT NULL,
    error     text        NOT NULL,
    error_at  timestamptz,
    PRIMARY KEY (route, place)
);

-- What routes said at each generation: a message that was taken under one of them goes
-- where that one says.
CREATE TABLE route_spec (
    route      text        NOT NULL, -- uid
    generation bigint      NOT NULL,
    spec       bytea       NOT NULL,
    stored     timestamptz NOT NULL,
    PRIMARY KEY (route, generation)
);
