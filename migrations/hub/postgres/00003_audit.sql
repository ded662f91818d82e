-- +goose Up

-- Who changed what. Rows are added and never changed.
CREATE TABLE audit (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time      timestamptz NOT NULL,
    by_user   text        NOT NULL, -- empty: the hub itself
    action    text        NOT NULL, -- created, changed, deleted
    kind      text        NOT NULL, -- of an object, or Token
    namespace text        NOT NULL,
    name      text        NOT NULL,
    uid       text        NOT NULL,
    revision  bigint      NOT NULL, -- 0 for what has none
    fields    text        NOT NULL  -- what a change changed: JSON Pointers, one a line
);

-- +goose StatementBegin
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is only added to';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER audit_only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
