-- +goose Up

-- From where the versions of twins count on in the next life of the hub. twin_open says
-- that a life has begun whose end nobody has noted: it may have shown versions that
-- are stored nowhere.
ALTER TABLE hub
    ADD COLUMN twin_era  bigint  NOT NULL DEFAULT 0,
    ADD COLUMN twin_open boolean NOT NULL DEFAULT false;
