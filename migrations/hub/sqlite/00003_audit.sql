-- +goose Up

-- Who changed what. Rows are added and never changed.
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

-- +goose StatementBegin
CREATE TRIGGER audit_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is only added to');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_not_deleted BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is only added to');
END;
-- +goose StatementEnd
