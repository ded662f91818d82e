-- +goose Up

-- What an action was that is no change of an object: JSON, empty for none.
ALTER TABLE audit ADD COLUMN detail TEXT NOT NULL DEFAULT '';
