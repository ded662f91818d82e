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
CREATE TABLE assignments (
    device_uid TEXT    NOT NULL,
    assignment INTEGER NOT NULL,
    since_us   INTEGER NOT NULL,
    PRIMARY KEY (device_uid, assignment)
);
CREATE TABLE audit (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    time_us   INTEGER NOT NULL,
    by_user   TEXT    NOT NULL, -- empty: the hub itself
    action    TEXT    NOT NULL, -- created, changed, deleted
    kind      TEXT    NOT NULL, -- of an object, or Token
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    uid       TEXT    NOT NULL,
    revision  INTEGER NOT NULL, -- 0 for what has none
    fields    TEXT    NOT NULL  -- what a change changed: JSON Pointers, one a line
);
CREATE TABLE deleted_devices (
    uid        TEXT    NOT NULL PRIMARY KEY,
    namespace  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    deleted_us INTEGER NOT NULL
);
CREATE TABLE desired (
    device_uid TEXT    NOT NULL PRIMARY KEY,
    revision   INTEGER NOT NULL,
    json       TEXT    NOT NULL
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
CREATE TABLE event_count (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
);
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
CREATE TABLE goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);
CREATE TABLE hub (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    lineage  TEXT    NOT NULL, -- its own id; empty until it is opened for the first time
    revision INTEGER NOT NULL, -- of the last change of an object or desired value
    samples  INTEGER NOT NULL  -- how many samples have ever come: numbers them
);
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
CREATE TABLE pod_state (
    pod_uid TEXT    PRIMARY KEY,
    node    TEXT    NOT NULL, -- that told it
    told_us INTEGER NOT NULL, -- when, by the hub's clock
    json    TEXT    NOT NULL  -- models.PodStatus
) WITHOUT ROWID;
CREATE TABLE rollups (
    series  INTEGER NOT NULL,
    hour_us INTEGER NOT NULL, -- its first microsecond
    minutes BLOB,             -- NULL: not worth it
    hour    BLOB,
    PRIMARY KEY (series, hour_us)
) WITHOUT ROWID;
CREATE TABLE rollups_due (
    hour_us INTEGER NOT NULL,
    series  INTEGER NOT NULL,
    PRIMARY KEY (hour_us, series)
) WITHOUT ROWID;
CREATE TABLE route_spec (
    route      TEXT    NOT NULL, -- uid
    generation INTEGER NOT NULL,
    spec       BLOB    NOT NULL,
    stored_us  INTEGER NOT NULL,
    PRIMARY KEY (route, generation)
) WITHOUT ROWID;
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
CREATE TABLE secrets (
    key  TEXT NOT NULL PRIMARY KEY,
    blob BLOB NOT NULL -- sealed
);
CREATE TABLE series (
    id         INTEGER PRIMARY KEY,
    device_uid TEXT    NOT NULL,
    assignment INTEGER NOT NULL,
    property   TEXT    NOT NULL,
    UNIQUE (device_uid, property, assignment)
);
CREATE TABLE served (
    device_uid TEXT    NOT NULL,
    assignment INTEGER NOT NULL,
    node_uid   TEXT    NOT NULL,
    PRIMARY KEY (device_uid, assignment, node_uid)
);
CREATE TABLE twins (
    device_uid TEXT NOT NULL PRIMARY KEY,
    json       TEXT NOT NULL
);
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
CREATE VIEW history AS
    SELECT o.namespace, o.name AS device, s.property,
           strftime('%Y-%m-%dT%H:%M:%S', v.time_us / 1000000 - (v.time_us % 1000000 < 0), 'unixepoch')
               || printf('.%06dZ', (v.time_us % 1000000 + 1000000) % 1000000) AS time,
           CASE v.kind WHEN 1 THEN v.value WHEN 2 THEN v.value WHEN 3 THEN v.value + 18446744073709551616.0 WHEN 4 THEN v.value END AS value,
           CASE v.kind WHEN 1 THEN iif(v.value, 'true', 'false')
                       WHEN 3 THEN (v.value / 10 + 1844674407370955161 - (v.value % 10 < -6)) || ((v.value % 10 + 16) % 10)
                       WHEN 6 THEN hex(v.value)
                       ELSE CAST(v.value AS TEXT) END AS text,
           CASE v.quality WHEN 0 THEN 'good' WHEN 1 THEN 'uncertain' ELSE 'bad' END AS quality, v.reason
    FROM objects o
    JOIN series s ON s.device_uid = o.uid AND o.kind = 'Device'
    JOIN samples v ON v.series = s.id;
CREATE TRIGGER audit_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is only added to');
END;
CREATE TRIGGER audit_not_deleted BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is only added to');
END;
CREATE INDEX api_tokens_user ON api_tokens (user_name);
CREATE INDEX deleted_devices_name ON deleted_devices (namespace, name);
CREATE INDEX events_last ON events (last_us, key);
CREATE INDEX events_object ON events (name, kind, last_us);
CREATE UNIQUE INDEX events_revision ON events (revision);
CREATE INDEX gaps_node ON gaps (node_uid, id);
CREATE INDEX idempotency_keep_until ON idempotency (keep_until_us);
CREATE INDEX routed_route ON routed (route, id);
CREATE INDEX routed_waiting ON routed (target, id) WHERE died_us IS NULL;
CREATE INDEX writes_device ON writes (device_uid, id);
CREATE INDEX writes_property ON writes (device_uid, property, since_us);
INSERT INTO api_tokens (id, hash, user_name, user_uid, description, created_us, expires_us, last_used_us) VALUES ('a', 'ah', 'anna', 'uid-of-anna', '', 1772600767890123, NULL, NULL);
INSERT INTO assignments (device_uid, assignment, since_us) VALUES ('uid-of-boiler-1', 1, 1772600767890123);
INSERT INTO assignments (device_uid, assignment, since_us) VALUES ('uid-of-boiler-1', 2, 1772604367890123);
INSERT INTO audit (id, time_us, by_user, action, kind, namespace, name, uid, revision, fields) VALUES (1, 1772600767890123, 'anna', 'deleted', 'Device', 'plant', 'pump-1', 'uid-of-pump-1', 4, '');
INSERT INTO deleted_devices (uid, namespace, name, deleted_us) VALUES ('uid-of-pump-1', 'plant', 'pump-1', 1772600767890123);
INSERT INTO desired (device_uid, revision, json) VALUES ('uid-of-boiler-1', 3, '{"version":1}');
INSERT INTO epochs (node_uid, epoch, rank, acked, started_us) VALUES ('uid-of-gateway-1', 'e', 1, -1, 1772600767890123);
INSERT INTO epochs (node_uid, epoch, rank, acked, started_us) VALUES ('uid-of-gateway-2', 'f', 1, 1, 1772600767890123);
INSERT INTO event_count (id, revision) VALUES (1, 1);
INSERT INTO events (key, revision, kind, namespace, name, uid, field, warning, reason, message, source, node, first_us, last_us, count, recorded_us) VALUES ('k1', 1, 'Device', 'plant', 'boiler-1', 'uid-of-boiler-1', '', 1, 'DeviceOffline', 'größe k1', 'edge', 'n', 1772600767890123, 1772600768890123, 2, 1772604367890123);
INSERT INTO gaps (id, node_uid, reason, epoch, first_seq, last_seq, samples, from_us, to_us, recorded_us) VALUES (1, 'uid-of-gateway-1', 'outbox-full', 'e', 1, 2, 3, 1772600767890123, NULL, 1772600767890123);
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (1, 0, 1, '2026-11-22 18:02:28');
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (2, 1, 1, '2026-11-22 18:02:28');
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (3, 2, 1, '2026-11-22 18:02:28');
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (4, 3, 1, '2026-11-22 18:02:28');
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (5, 4, 1, '2026-11-22 18:02:28');
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (6, 6, 1, '2026-11-22 18:02:28');
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (7, 8, 1, '2026-11-22 18:02:28');
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (8, 13, 1, '2026-11-22 18:02:28');
INSERT INTO hub (id, lineage, revision, samples) VALUES (1, '01M826RZJ91E7N5BVZ5APFS6QP', 4, 1123);
INSERT INTO idempotency (caller, key, fingerprint, status, etag, body, created_us, keep_until_us) VALUES ('anna', X'6B6579', 'f', 0, '', X'', 1772600767890123, 5372600767890123);
INSERT INTO join_tokens (id, hash, node, created_by, created_us, expires_us, used_us, used_key) VALUES ('j', 'jh', 'gateway-1', '', 1772600767890123, 1772600767890123, NULL, '');
INSERT INTO objects (kind, namespace, name, uid, revision, generation, assignment, created_us, json) VALUES ('Device', 'default', 'boiler-1', 'uid-of-boiler-1', 1, 1, 0, 1772600767890123, '{"revision": 1}');
INSERT INTO objects (kind, namespace, name, uid, revision, generation, assignment, created_us, json) VALUES ('Node', '', 'gateway-1', 'uid-of-gateway-1', 2, 1, 0, 1772600767890123, '{"revision": 2}');
INSERT INTO objects (kind, namespace, name, uid, revision, generation, assignment, created_us, json) VALUES ('User', '', 'anna', 'uid-of-anna', 3, 1, 0, 1772600767890123, '{"apiVersion":"whimbrel/v1","kind":"User","metadata":{"name":"anna"},"spec":{"role":"operator","namespace":"plant"}}');
INSERT INTO pod_state (pod_uid, node, told_us, json) VALUES ('uid-of-web-0', 'gw-ä', 1772600767890123, '{"phase":"Running"}');
INSERT INTO rollups (series, hour_us, minutes, hour) VALUES (2, 1772600400000000, X'01133C80D0DD92F68AA6068093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40003C80897A8093A2380200027602000276010000000000A89B40001480897A80AB8F120200022602000226010000000000C0674000', X'0101CC0880D0DD92F68AA60680A38B980802000226020002760100000000804CDF4000');
INSERT INTO route_spec (route, generation, spec, stored_us) VALUES ('route-uid', 2, X'7B22746F223A7B7D7D', 1772600767890123);
INSERT INTO route_total (route, place, node, delivered, failed, dropped, queued, error, error_us) VALUES ('route-uid', 'hub', '', 0, 1, 0, 0, 'refused ü', 1772600767890123);
INSERT INTO routed (id, key, target, route, namespace, name, lane, node, topic, device, property, content_type, accepted_us, deadline_us, ttl_us, retries, attempts, died_us, error, send_to, payload) VALUES (1, 'key1', 'hub', 'route-uid', 'plant', 'alarms', 'gw/alarms/ä', 'gw', 'alarms/ä', 'boiler-1', 'p', 'text/plain', 1772600767890123, 1772604367890123, 3600000000, 5, 0, NULL, '', X'7B2268747470223A7B7D7D', X'00FF01');
INSERT INTO routed (id, key, target, route, namespace, name, lane, node, topic, device, property, content_type, accepted_us, deadline_us, ttl_us, retries, attempts, died_us, error, send_to, payload) VALUES (2, 'key2', 'node:gw', 'route-uid', 'plant', 'alarms', 'gw/alarms/ä', 'gw', 'alarms/ä', 'boiler-1', 'p', 'text/plain', 1772600767890123, 1772604367890123, 3600000000, 5, 6, 1772600767890123, 'refused ü', X'7B2268747470223A7B7D7D', X'00FF02');
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 0, 1, 0, 2, 1, NULL, 'timeout');
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 1, 2, 1, 0, 1, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 2, 3, 1, 0, 1, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 3, 4, 2, 0, 1, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 4, 5, 2, 0, 1, 9223372036854775807, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 5, 6, 2, 0, 1, -9223372036854775808, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 6, 7, 2, 1, 1, 9007199254740993, 'out-of-range');
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 7, 8, 3, 0, 1, -1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 8, 9, 3, 0, 1, -9223372036854775808, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 9, 10, 4, 0, 1, 0.0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 10, 11, 4, 0, 1, 5.0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 11, 12, 4, 0, 1, 0.1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 12, 13, 4, 0, 1, -1.7976931348623157e+308, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 13, 14, 4, 0, 1, 4.9406564584124654e-324, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 14, 15, 4, 2, 1, 1.0e+22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 15, 16, 5, 0, 1, X'', NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 16, 17, 5, 0, 1, X'6772C3B6C39F6520E697A5E69CAC20F09F98802027225C207B4E554C4C7D', NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 17, 18, 5, 0, 1, X'610062', NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 18, 19, 5, 0, 1, X'4E554C4C', NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 19, 20, 6, 0, 1, X'', NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 20, 21, 6, 0, 1, X'00FFFE802000', NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 21, 22, 7, 0, 1, X'7B2261223A5B312C31383434363734343037333730393535313631352C225C7530303030225D7D', 'größe');
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (1, 22, 23, 2, 255, 1, 1, 'of a newer release');
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600400000000, 24, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600401000000, 25, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600402000000, 26, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600403000000, 27, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600404000000, 28, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600405000000, 29, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600406000000, 30, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600407000000, 31, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600408000000, 32, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600409000000, 33, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600410000000, 34, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600411000000, 35, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600412000000, 36, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600413000000, 37, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600414000000, 38, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600415000000, 39, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600416000000, 40, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600417000000, 41, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600418000000, 42, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600419000000, 43, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600420000000, 44, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600421000000, 45, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600422000000, 46, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600423000000, 47, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600424000000, 48, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600425000000, 49, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600426000000, 50, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600427000000, 51, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600428000000, 52, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600429000000, 53, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600430000000, 54, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600431000000, 55, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600432000000, 56, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600433000000, 57, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600434000000, 58, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600435000000, 59, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600436000000, 60, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600437000000, 61, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600438000000, 62, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600439000000, 63, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600440000000, 64, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600441000000, 65, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600442000000, 66, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600443000000, 67, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600444000000, 68, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600445000000, 69, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600446000000, 70, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600447000000, 71, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600448000000, 72, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600449000000, 73, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600450000000, 74, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600451000000, 75, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600452000000, 76, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600453000000, 77, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600454000000, 78, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600455000000, 79, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600456000000, 80, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600457000000, 81, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600458000000, 82, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600459000000, 83, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600460000000, 84, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600461000000, 85, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600462000000, 86, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600463000000, 87, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600464000000, 88, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600465000000, 89, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600466000000, 90, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600467000000, 91, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600468000000, 92, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600469000000, 93, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600470000000, 94, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600471000000, 95, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600472000000, 96, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600473000000, 97, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600474000000, 98, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600475000000, 99, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600476000000, 100, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600477000000, 101, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600478000000, 102, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600479000000, 103, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600480000000, 104, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600481000000, 105, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600482000000, 106, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600483000000, 107, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600484000000, 108, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600485000000, 109, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600486000000, 110, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600487000000, 111, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600488000000, 112, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600489000000, 113, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600490000000, 114, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600491000000, 115, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600492000000, 116, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600493000000, 117, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600494000000, 118, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600495000000, 119, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600496000000, 120, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600497000000, 121, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600498000000, 122, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600499000000, 123, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600500000000, 124, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600501000000, 125, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600502000000, 126, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600503000000, 127, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600504000000, 128, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600505000000, 129, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600506000000, 130, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600507000000, 131, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600508000000, 132, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600509000000, 133, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600510000000, 134, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600511000000, 135, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600512000000, 136, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600513000000, 137, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600514000000, 138, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600515000000, 139, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600516000000, 140, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600517000000, 141, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600518000000, 142, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600519000000, 143, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600520000000, 144, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600521000000, 145, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600522000000, 146, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600523000000, 147, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600524000000, 148, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600525000000, 149, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600526000000, 150, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600527000000, 151, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600528000000, 152, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600529000000, 153, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600530000000, 154, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600531000000, 155, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600532000000, 156, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600533000000, 157, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600534000000, 158, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600535000000, 159, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600536000000, 160, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600537000000, 161, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600538000000, 162, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600539000000, 163, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600540000000, 164, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600541000000, 165, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600542000000, 166, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600543000000, 167, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600544000000, 168, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600545000000, 169, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600546000000, 170, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600547000000, 171, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600548000000, 172, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600549000000, 173, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600550000000, 174, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600551000000, 175, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600552000000, 176, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600553000000, 177, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600554000000, 178, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600555000000, 179, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600556000000, 180, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600557000000, 181, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600558000000, 182, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600559000000, 183, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600560000000, 184, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600561000000, 185, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600562000000, 186, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600563000000, 187, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600564000000, 188, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600565000000, 189, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600566000000, 190, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600567000000, 191, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600568000000, 192, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600569000000, 193, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600570000000, 194, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600571000000, 195, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600572000000, 196, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600573000000, 197, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600574000000, 198, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600575000000, 199, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600576000000, 200, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600577000000, 201, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600578000000, 202, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600579000000, 203, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600580000000, 204, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600581000000, 205, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600582000000, 206, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600583000000, 207, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600584000000, 208, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600585000000, 209, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600586000000, 210, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600587000000, 211, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600588000000, 212, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600589000000, 213, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600590000000, 214, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600591000000, 215, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600592000000, 216, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600593000000, 217, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600594000000, 218, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600595000000, 219, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600596000000, 220, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600597000000, 221, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600598000000, 222, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600599000000, 223, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600600000000, 224, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600601000000, 225, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600602000000, 226, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600603000000, 227, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600604000000, 228, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600605000000, 229, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600606000000, 230, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600607000000, 231, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600608000000, 232, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600609000000, 233, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600610000000, 234, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600611000000, 235, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600612000000, 236, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600613000000, 237, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600614000000, 238, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600615000000, 239, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600616000000, 240, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600617000000, 241, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600618000000, 242, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600619000000, 243, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600620000000, 244, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600621000000, 245, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600622000000, 246, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600623000000, 247, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600624000000, 248, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600625000000, 249, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600626000000, 250, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600627000000, 251, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600628000000, 252, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600629000000, 253, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600630000000, 254, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600631000000, 255, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600632000000, 256, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600633000000, 257, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600634000000, 258, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600635000000, 259, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600636000000, 260, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600637000000, 261, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600638000000, 262, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600639000000, 263, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600640000000, 264, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600641000000, 265, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600642000000, 266, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600643000000, 267, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600644000000, 268, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600645000000, 269, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600646000000, 270, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600647000000, 271, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600648000000, 272, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600649000000, 273, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600650000000, 274, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600651000000, 275, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600652000000, 276, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600653000000, 277, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600654000000, 278, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600655000000, 279, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600656000000, 280, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600657000000, 281, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600658000000, 282, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600659000000, 283, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600660000000, 284, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600661000000, 285, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600662000000, 286, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600663000000, 287, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600664000000, 288, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600665000000, 289, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600666000000, 290, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600667000000, 291, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600668000000, 292, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600669000000, 293, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600670000000, 294, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600671000000, 295, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600672000000, 296, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600673000000, 297, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600674000000, 298, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600675000000, 299, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600676000000, 300, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600677000000, 301, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600678000000, 302, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600679000000, 303, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600680000000, 304, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600681000000, 305, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600682000000, 306, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600683000000, 307, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600684000000, 308, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600685000000, 309, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600686000000, 310, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600687000000, 311, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600688000000, 312, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600689000000, 313, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600690000000, 314, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600691000000, 315, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600692000000, 316, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600693000000, 317, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600694000000, 318, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600695000000, 319, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600696000000, 320, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600697000000, 321, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600698000000, 322, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600699000000, 323, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600700000000, 324, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600701000000, 325, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600702000000, 326, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600703000000, 327, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600704000000, 328, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600705000000, 329, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600706000000, 330, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600707000000, 331, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600708000000, 332, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600709000000, 333, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600710000000, 334, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600711000000, 335, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600712000000, 336, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600713000000, 337, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600714000000, 338, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600715000000, 339, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600716000000, 340, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600717000000, 341, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600718000000, 342, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600719000000, 343, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600720000000, 344, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600721000000, 345, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600722000000, 346, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600723000000, 347, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600724000000, 348, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600725000000, 349, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600726000000, 350, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600727000000, 351, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600728000000, 352, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600729000000, 353, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600730000000, 354, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600731000000, 355, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600732000000, 356, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600733000000, 357, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600734000000, 358, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600735000000, 359, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600736000000, 360, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600737000000, 361, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600738000000, 362, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600739000000, 363, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600740000000, 364, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600741000000, 365, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600742000000, 366, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600743000000, 367, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600744000000, 368, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600745000000, 369, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600746000000, 370, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600747000000, 371, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600748000000, 372, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600749000000, 373, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600750000000, 374, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600751000000, 375, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600752000000, 376, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600753000000, 377, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600754000000, 378, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600755000000, 379, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600756000000, 380, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600757000000, 381, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600758000000, 382, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600759000000, 383, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600760000000, 384, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600761000000, 385, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600762000000, 386, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600763000000, 387, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600764000000, 388, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600765000000, 389, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600766000000, 390, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600767000000, 391, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600768000000, 392, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600769000000, 393, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600770000000, 394, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600771000000, 395, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600772000000, 396, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600773000000, 397, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600774000000, 398, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600775000000, 399, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600776000000, 400, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600777000000, 401, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600778000000, 402, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600779000000, 403, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600780000000, 404, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600781000000, 405, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600782000000, 406, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600783000000, 407, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600784000000, 408, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600785000000, 409, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600786000000, 410, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600787000000, 411, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600788000000, 412, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600789000000, 413, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600790000000, 414, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600791000000, 415, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600792000000, 416, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600793000000, 417, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600794000000, 418, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600795000000, 419, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600796000000, 420, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600797000000, 421, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600798000000, 422, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600799000000, 423, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600800000000, 424, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600801000000, 425, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600802000000, 426, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600803000000, 427, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600804000000, 428, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600805000000, 429, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600806000000, 430, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600807000000, 431, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600808000000, 432, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600809000000, 433, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600810000000, 434, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600811000000, 435, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600812000000, 436, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600813000000, 437, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600814000000, 438, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600815000000, 439, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600816000000, 440, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600817000000, 441, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600818000000, 442, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600819000000, 443, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600820000000, 444, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600821000000, 445, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600822000000, 446, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600823000000, 447, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600824000000, 448, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600825000000, 449, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600826000000, 450, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600827000000, 451, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600828000000, 452, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600829000000, 453, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600830000000, 454, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600831000000, 455, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600832000000, 456, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600833000000, 457, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600834000000, 458, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600835000000, 459, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600836000000, 460, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600837000000, 461, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600838000000, 462, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600839000000, 463, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600840000000, 464, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600841000000, 465, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600842000000, 466, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600843000000, 467, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600844000000, 468, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600845000000, 469, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600846000000, 470, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600847000000, 471, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600848000000, 472, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600849000000, 473, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600850000000, 474, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600851000000, 475, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600852000000, 476, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600853000000, 477, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600854000000, 478, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600855000000, 479, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600856000000, 480, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600857000000, 481, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600858000000, 482, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600859000000, 483, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600860000000, 484, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600861000000, 485, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600862000000, 486, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600863000000, 487, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600864000000, 488, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600865000000, 489, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600866000000, 490, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600867000000, 491, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600868000000, 492, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600869000000, 493, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600870000000, 494, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600871000000, 495, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600872000000, 496, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600873000000, 497, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600874000000, 498, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600875000000, 499, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600876000000, 500, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600877000000, 501, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600878000000, 502, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600879000000, 503, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600880000000, 504, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600881000000, 505, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600882000000, 506, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600883000000, 507, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600884000000, 508, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600885000000, 509, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600886000000, 510, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600887000000, 511, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600888000000, 512, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600889000000, 513, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600890000000, 514, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600891000000, 515, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600892000000, 516, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600893000000, 517, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600894000000, 518, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600895000000, 519, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600896000000, 520, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600897000000, 521, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600898000000, 522, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600899000000, 523, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600900000000, 524, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600901000000, 525, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600902000000, 526, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600903000000, 527, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600904000000, 528, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600905000000, 529, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600906000000, 530, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600907000000, 531, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600908000000, 532, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600909000000, 533, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600910000000, 534, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600911000000, 535, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600912000000, 536, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600913000000, 537, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600914000000, 538, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600915000000, 539, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600916000000, 540, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600917000000, 541, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600918000000, 542, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600919000000, 543, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600920000000, 544, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600921000000, 545, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600922000000, 546, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600923000000, 547, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600924000000, 548, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600925000000, 549, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600926000000, 550, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600927000000, 551, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600928000000, 552, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600929000000, 553, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600930000000, 554, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600931000000, 555, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600932000000, 556, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600933000000, 557, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600934000000, 558, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600935000000, 559, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600936000000, 560, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600937000000, 561, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600938000000, 562, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600939000000, 563, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600940000000, 564, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600941000000, 565, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600942000000, 566, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600943000000, 567, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600944000000, 568, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600945000000, 569, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600946000000, 570, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600947000000, 571, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600948000000, 572, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600949000000, 573, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600950000000, 574, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600951000000, 575, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600952000000, 576, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600953000000, 577, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600954000000, 578, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600955000000, 579, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600956000000, 580, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600957000000, 581, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600958000000, 582, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600959000000, 583, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600960000000, 584, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600961000000, 585, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600962000000, 586, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600963000000, 587, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600964000000, 588, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600965000000, 589, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600966000000, 590, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600967000000, 591, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600968000000, 592, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600969000000, 593, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600970000000, 594, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600971000000, 595, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600972000000, 596, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600973000000, 597, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600974000000, 598, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600975000000, 599, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600976000000, 600, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600977000000, 601, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600978000000, 602, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600979000000, 603, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600980000000, 604, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600981000000, 605, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600982000000, 606, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600983000000, 607, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600984000000, 608, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600985000000, 609, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600986000000, 610, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600987000000, 611, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600988000000, 612, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600989000000, 613, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600990000000, 614, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600991000000, 615, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600992000000, 616, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600993000000, 617, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600994000000, 618, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600995000000, 619, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600996000000, 620, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600997000000, 621, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600998000000, 622, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772600999000000, 623, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601000000000, 624, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601001000000, 625, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601002000000, 626, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601003000000, 627, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601004000000, 628, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601005000000, 629, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601006000000, 630, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601007000000, 631, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601008000000, 632, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601009000000, 633, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601010000000, 634, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601011000000, 635, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601012000000, 636, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601013000000, 637, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601014000000, 638, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601015000000, 639, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601016000000, 640, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601017000000, 641, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601018000000, 642, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601019000000, 643, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601020000000, 644, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601021000000, 645, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601022000000, 646, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601023000000, 647, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601024000000, 648, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601025000000, 649, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601026000000, 650, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601027000000, 651, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601028000000, 652, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601029000000, 653, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601030000000, 654, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601031000000, 655, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601032000000, 656, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601033000000, 657, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601034000000, 658, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601035000000, 659, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601036000000, 660, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601037000000, 661, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601038000000, 662, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601039000000, 663, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601040000000, 664, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601041000000, 665, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601042000000, 666, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601043000000, 667, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601044000000, 668, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601045000000, 669, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601046000000, 670, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601047000000, 671, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601048000000, 672, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601049000000, 673, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601050000000, 674, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601051000000, 675, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601052000000, 676, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601053000000, 677, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601054000000, 678, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601055000000, 679, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601056000000, 680, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601057000000, 681, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601058000000, 682, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601059000000, 683, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601060000000, 684, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601061000000, 685, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601062000000, 686, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601063000000, 687, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601064000000, 688, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601065000000, 689, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601066000000, 690, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601067000000, 691, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601068000000, 692, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601069000000, 693, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601070000000, 694, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601071000000, 695, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601072000000, 696, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601073000000, 697, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601074000000, 698, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601075000000, 699, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601076000000, 700, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601077000000, 701, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601078000000, 702, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601079000000, 703, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601080000000, 704, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601081000000, 705, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601082000000, 706, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601083000000, 707, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601084000000, 708, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601085000000, 709, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601086000000, 710, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601087000000, 711, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601088000000, 712, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601089000000, 713, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601090000000, 714, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601091000000, 715, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601092000000, 716, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601093000000, 717, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601094000000, 718, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601095000000, 719, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601096000000, 720, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601097000000, 721, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601098000000, 722, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601099000000, 723, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601100000000, 724, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601101000000, 725, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601102000000, 726, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601103000000, 727, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601104000000, 728, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601105000000, 729, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601106000000, 730, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601107000000, 731, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601108000000, 732, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601109000000, 733, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601110000000, 734, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601111000000, 735, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601112000000, 736, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601113000000, 737, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601114000000, 738, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601115000000, 739, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601116000000, 740, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601117000000, 741, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601118000000, 742, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601119000000, 743, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601120000000, 744, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601121000000, 745, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601122000000, 746, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601123000000, 747, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601124000000, 748, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601125000000, 749, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601126000000, 750, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601127000000, 751, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601128000000, 752, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601129000000, 753, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601130000000, 754, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601131000000, 755, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601132000000, 756, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601133000000, 757, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601134000000, 758, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601135000000, 759, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601136000000, 760, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601137000000, 761, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601138000000, 762, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601139000000, 763, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601140000000, 764, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601141000000, 765, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601142000000, 766, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601143000000, 767, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601144000000, 768, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601145000000, 769, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601146000000, 770, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601147000000, 771, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601148000000, 772, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601149000000, 773, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601150000000, 774, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601151000000, 775, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601152000000, 776, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601153000000, 777, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601154000000, 778, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601155000000, 779, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601156000000, 780, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601157000000, 781, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601158000000, 782, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601159000000, 783, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601160000000, 784, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601161000000, 785, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601162000000, 786, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601163000000, 787, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601164000000, 788, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601165000000, 789, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601166000000, 790, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601167000000, 791, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601168000000, 792, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601169000000, 793, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601170000000, 794, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601171000000, 795, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601172000000, 796, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601173000000, 797, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601174000000, 798, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601175000000, 799, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601176000000, 800, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601177000000, 801, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601178000000, 802, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601179000000, 803, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601180000000, 804, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601181000000, 805, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601182000000, 806, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601183000000, 807, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601184000000, 808, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601185000000, 809, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601186000000, 810, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601187000000, 811, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601188000000, 812, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601189000000, 813, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601190000000, 814, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601191000000, 815, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601192000000, 816, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601193000000, 817, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601194000000, 818, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601195000000, 819, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601196000000, 820, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601197000000, 821, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601198000000, 822, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601199000000, 823, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601200000000, 824, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601201000000, 825, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601202000000, 826, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601203000000, 827, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601204000000, 828, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601205000000, 829, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601206000000, 830, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601207000000, 831, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601208000000, 832, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601209000000, 833, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601210000000, 834, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601211000000, 835, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601212000000, 836, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601213000000, 837, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601214000000, 838, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601215000000, 839, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601216000000, 840, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601217000000, 841, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601218000000, 842, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601219000000, 843, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601220000000, 844, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601221000000, 845, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601222000000, 846, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601223000000, 847, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601224000000, 848, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601225000000, 849, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601226000000, 850, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601227000000, 851, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601228000000, 852, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601229000000, 853, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601230000000, 854, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601231000000, 855, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601232000000, 856, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601233000000, 857, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601234000000, 858, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601235000000, 859, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601236000000, 860, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601237000000, 861, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601238000000, 862, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601239000000, 863, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601240000000, 864, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601241000000, 865, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601242000000, 866, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601243000000, 867, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601244000000, 868, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601245000000, 869, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601246000000, 870, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601247000000, 871, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601248000000, 872, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601249000000, 873, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601250000000, 874, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601251000000, 875, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601252000000, 876, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601253000000, 877, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601254000000, 878, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601255000000, 879, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601256000000, 880, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601257000000, 881, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601258000000, 882, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601259000000, 883, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601260000000, 884, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601261000000, 885, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601262000000, 886, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601263000000, 887, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601264000000, 888, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601265000000, 889, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601266000000, 890, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601267000000, 891, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601268000000, 892, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601269000000, 893, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601270000000, 894, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601271000000, 895, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601272000000, 896, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601273000000, 897, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601274000000, 898, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601275000000, 899, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601276000000, 900, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601277000000, 901, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601278000000, 902, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601279000000, 903, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601280000000, 904, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601281000000, 905, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601282000000, 906, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601283000000, 907, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601284000000, 908, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601285000000, 909, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601286000000, 910, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601287000000, 911, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601288000000, 912, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601289000000, 913, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601290000000, 914, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601291000000, 915, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601292000000, 916, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601293000000, 917, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601294000000, 918, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601295000000, 919, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601296000000, 920, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601297000000, 921, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601298000000, 922, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601299000000, 923, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601300000000, 924, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601301000000, 925, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601302000000, 926, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601303000000, 927, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601304000000, 928, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601305000000, 929, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601306000000, 930, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601307000000, 931, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601308000000, 932, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601309000000, 933, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601310000000, 934, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601311000000, 935, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601312000000, 936, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601313000000, 937, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601314000000, 938, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601315000000, 939, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601316000000, 940, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601317000000, 941, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601318000000, 942, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601319000000, 943, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601320000000, 944, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601321000000, 945, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601322000000, 946, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601323000000, 947, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601324000000, 948, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601325000000, 949, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601326000000, 950, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601327000000, 951, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601328000000, 952, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601329000000, 953, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601330000000, 954, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601331000000, 955, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601332000000, 956, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601333000000, 957, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601334000000, 958, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601335000000, 959, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601336000000, 960, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601337000000, 961, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601338000000, 962, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601339000000, 963, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601340000000, 964, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601341000000, 965, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601342000000, 966, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601343000000, 967, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601344000000, 968, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601345000000, 969, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601346000000, 970, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601347000000, 971, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601348000000, 972, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601349000000, 973, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601350000000, 974, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601351000000, 975, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601352000000, 976, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601353000000, 977, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601354000000, 978, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601355000000, 979, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601356000000, 980, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601357000000, 981, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601358000000, 982, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601359000000, 983, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601360000000, 984, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601361000000, 985, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601362000000, 986, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601363000000, 987, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601364000000, 988, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601365000000, 989, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601366000000, 990, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601367000000, 991, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601368000000, 992, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601369000000, 993, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601370000000, 994, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601371000000, 995, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601372000000, 996, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601373000000, 997, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601374000000, 998, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601375000000, 999, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601376000000, 1000, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601377000000, 1001, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601378000000, 1002, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601379000000, 1003, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601380000000, 1004, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601381000000, 1005, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601382000000, 1006, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601383000000, 1007, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601384000000, 1008, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601385000000, 1009, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601386000000, 1010, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601387000000, 1011, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601388000000, 1012, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601389000000, 1013, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601390000000, 1014, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601391000000, 1015, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601392000000, 1016, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601393000000, 1017, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601394000000, 1018, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601395000000, 1019, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601396000000, 1020, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601397000000, 1021, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601398000000, 1022, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601399000000, 1023, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601400000000, 1024, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601401000000, 1025, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601402000000, 1026, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601403000000, 1027, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601404000000, 1028, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601405000000, 1029, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601406000000, 1030, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601407000000, 1031, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601408000000, 1032, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601409000000, 1033, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601410000000, 1034, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601411000000, 1035, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601412000000, 1036, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601413000000, 1037, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601414000000, 1038, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601415000000, 1039, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601416000000, 1040, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601417000000, 1041, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601418000000, 1042, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601419000000, 1043, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601420000000, 1044, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601421000000, 1045, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601422000000, 1046, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601423000000, 1047, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601424000000, 1048, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601425000000, 1049, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601426000000, 1050, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601427000000, 1051, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601428000000, 1052, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601429000000, 1053, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601430000000, 1054, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601431000000, 1055, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601432000000, 1056, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601433000000, 1057, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601434000000, 1058, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601435000000, 1059, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601436000000, 1060, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601437000000, 1061, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601438000000, 1062, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601439000000, 1063, 2, 0, 0, 19, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601440000000, 1064, 2, 0, 0, 20, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601441000000, 1065, 2, 0, 0, 21, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601442000000, 1066, 2, 0, 0, 22, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601443000000, 1067, 2, 0, 0, 23, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601444000000, 1068, 2, 0, 0, 24, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601445000000, 1069, 2, 0, 0, 25, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601446000000, 1070, 2, 0, 0, 26, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601447000000, 1071, 2, 0, 0, 27, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601448000000, 1072, 2, 0, 0, 28, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601449000000, 1073, 2, 0, 0, 29, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601450000000, 1074, 2, 0, 0, 30, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601451000000, 1075, 2, 0, 0, 31, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601452000000, 1076, 2, 0, 0, 32, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601453000000, 1077, 2, 0, 0, 33, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601454000000, 1078, 2, 0, 0, 34, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601455000000, 1079, 2, 0, 0, 35, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601456000000, 1080, 2, 0, 0, 36, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601457000000, 1081, 2, 0, 0, 37, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601458000000, 1082, 2, 0, 0, 38, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601459000000, 1083, 2, 0, 0, 39, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601460000000, 1084, 2, 0, 0, 40, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601461000000, 1085, 2, 0, 0, 41, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601462000000, 1086, 2, 0, 0, 42, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601463000000, 1087, 2, 0, 0, 43, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601464000000, 1088, 2, 0, 0, 44, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601465000000, 1089, 2, 0, 0, 45, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601466000000, 1090, 2, 0, 0, 46, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601467000000, 1091, 2, 0, 0, 47, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601468000000, 1092, 2, 0, 0, 48, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601469000000, 1093, 2, 0, 0, 49, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601470000000, 1094, 2, 0, 0, 50, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601471000000, 1095, 2, 0, 0, 51, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601472000000, 1096, 2, 0, 0, 52, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601473000000, 1097, 2, 0, 0, 53, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601474000000, 1098, 2, 0, 0, 54, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601475000000, 1099, 2, 0, 0, 55, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601476000000, 1100, 2, 0, 0, 56, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601477000000, 1101, 2, 0, 0, 57, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601478000000, 1102, 2, 0, 0, 58, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601479000000, 1103, 2, 0, 0, 59, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601480000000, 1104, 2, 0, 0, 0, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601481000000, 1105, 2, 0, 0, 1, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601482000000, 1106, 2, 0, 0, 2, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601483000000, 1107, 2, 0, 0, 3, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601484000000, 1108, 2, 0, 0, 4, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601485000000, 1109, 2, 0, 0, 5, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601486000000, 1110, 2, 0, 0, 6, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601487000000, 1111, 2, 0, 0, 7, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601488000000, 1112, 2, 0, 0, 8, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601489000000, 1113, 2, 0, 0, 9, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601490000000, 1114, 2, 0, 0, 10, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601491000000, 1115, 2, 0, 0, 11, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601492000000, 1116, 2, 0, 0, 12, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601493000000, 1117, 2, 0, 0, 13, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601494000000, 1118, 2, 0, 0, 14, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601495000000, 1119, 2, 0, 0, 15, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601496000000, 1120, 2, 0, 0, 16, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601497000000, 1121, 2, 0, 0, 17, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601498000000, 1122, 2, 0, 0, 18, NULL);
INSERT INTO samples (series, time_us, n, kind, quality, backfill, value, reason) VALUES (2, 1772601499000000, 1123, 2, 0, 0, 19, NULL);
INSERT INTO secrets (key, blob) VALUES ('ca', X'000102FF');
INSERT INTO series (id, device_uid, assignment, property) VALUES (1, 'uid-of-boiler-1', 1, 'p');
INSERT INTO series (id, device_uid, assignment, property) VALUES (2, 'uid-of-pump-1', 1, 'q');
INSERT INTO served (device_uid, assignment, node_uid) VALUES ('uid-of-boiler-1', 2, 'uid-of-gateway-2');
INSERT INTO twins (device_uid, json) VALUES ('uid-of-boiler-1', '{"version":812}');
INSERT INTO writes (id, device_uid, property, value, version, by_user, origin, reason, trace, before, asked_us, since_us, until_us, expires_us, sent_us, confirmed_us, ended_us, state, error, superseded_by, refused, late, settled) VALUES ('w1', 'uid-of-boiler-1', 'p', '1.5', 1, 'anna', 'cloud', 'kühl', '00-ab-cd-01', '{"value":1}', 1772600767890123, 1772600767890123, 1772600827890123, 1772604367890123, 1772600768890123, 1772600769890123, 1772600769890123, 'applied', '', 'w2', 0, 1, 2);
INSERT INTO writes (id, device_uid, property, value, version, by_user, origin, reason, trace, before, asked_us, since_us, until_us, expires_us, sent_us, confirmed_us, ended_us, state, error, superseded_by, refused, late, settled) VALUES ('w2', 'uid-of-boiler-1', 'p', 'null', 2, '', 'mqtt', '', '', '', 1772600767890123, 1772600827890123, NULL, NULL, NULL, NULL, NULL, 'pending', '', '', 0, 0, 0);
INSERT INTO writes (id, device_uid, property, value, version, by_user, origin, reason, trace, before, asked_us, since_us, until_us, expires_us, sent_us, confirmed_us, ended_us, state, error, superseded_by, refused, late, settled) VALUES ('w3', 'uid-of-pump-1', 'q', '"on"', 0, '', 'edge', '', '', '', 1772600767890123, NULL, NULL, NULL, NULL, NULL, 1772600767890123, 'failed', 'nö', '', 1, 0, 2);
