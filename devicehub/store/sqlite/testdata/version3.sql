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
CREATE TABLE twins (
    device_uid TEXT NOT NULL PRIMARY KEY,
    json       TEXT NOT NULL
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
CREATE INDEX gaps_node ON gaps (node_uid, id);
CREATE INDEX idempotency_keep_until ON idempotency (keep_until_us);
INSERT INTO api_tokens (id, hash, user_name, user_uid, description, created_us, expires_us, last_used_us) VALUES ('a', 'ah', 'anna', 'uid-of-anna', '', 1772600767890123, NULL, NULL);
INSERT INTO desired (device_uid, revision, json) VALUES ('uid-of-boiler-1', 3, '{"version":1}');
INSERT INTO epochs (node_uid, epoch, rank, acked, started_us) VALUES ('uid-of-gateway-1', 'e', 1, -1, 1772600767890123);
INSERT INTO gaps (id, node_uid, reason, epoch, first_seq, last_seq, samples, from_us, to_us, recorded_us) VALUES (1, 'uid-of-gateway-1', 'outbox-full', 'e', 1, 2, 3, 1772600767890123, NULL, 1772600767890123);
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (1, 0, 1, '2026-11-22 13:27:58');
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (2, 1, 1, '2026-11-22 13:27:58');
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (3, 2, 1, '2026-11-22 13:27:58');
INSERT INTO goose_db_version (id, version_id, is_applied, tstamp) VALUES (4, 3, 1, '2026-11-22 13:27:58');
INSERT INTO hub (id, lineage, revision, samples) VALUES (1, '01M81Q2BH09XSHYBKF9T55K6ZE', 3, 23);
INSERT INTO idempotency (caller, key, fingerprint, status, etag, body, created_us, keep_until_us) VALUES ('anna', X'6B6579', 'f', 0, '', X'', 1772600767890123, 5372600767890123);
INSERT INTO join_tokens (id, hash, node, created_by, created_us, expires_us, used_us, used_key) VALUES ('j', 'jh', 'gateway-1', '', 1772600767890123, 1772600767890123, NULL, '');
INSERT INTO objects (kind, namespace, name, uid, revision, generation, assignment, created_us, json) VALUES ('Device', 'default', 'boiler-1', 'uid-of-boiler-1', 1, 1, 0, 1772600767890123, '{"revision": 1}');
INSERT INTO objects (kind, namespace, name, uid, revision, generation, assignment, created_us, json) VALUES ('Node', '', 'gateway-1', 'uid-of-gateway-1', 2, 1, 0, 1772600767890123, '{"revision": 2}');
INSERT INTO objects (kind, namespace, name, uid, revision, generation, assignment, created_us, json) VALUES ('User', '', 'anna', 'uid-of-anna', 3, 1, 0, 1772600767890123, '{"apiVersion":"whimbrel/v1","kind":"User","metadata":{"name":"anna"},"spec":{"role":"operator","namespace":"plant"}}');
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
INSERT INTO secrets (key, blob) VALUES ('ca', X'000102FF');
INSERT INTO series (id, device_uid, assignment, property) VALUES (1, 'uid-of-boiler-1', 1, 'p');
INSERT INTO twins (device_uid, json) VALUES ('uid-of-boiler-1', '{"version":812}');
