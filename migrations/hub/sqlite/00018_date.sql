-- +goose Up

-- How late it is believed to be, for what is deleted because it is old; 0: nobody has
-- said yet. doubted_us is for how long the hub's clock has been further ahead.
ALTER TABLE hub ADD COLUMN date_us    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hub ADD COLUMN doubted_us INTEGER NOT NULL DEFAULT 0;
