-- +goose Up

-- What the samples of one series come to in one hour, by the minute and whole, where
-- that is much shorter than the samples. devicehub/store says what the bytes are.
-- A row goes in the transaction that adds or deletes a sample of its hour.
CREATE TABLE rollups (
    series  INTEGER NOT NULL,
    hour_us INTEGER NOT NULL, -- its first microsecond
    minutes BLOB,             -- NULL: not worth it
    hour    BLOB,
    PRIMARY KEY (series, hour_us)
) WITHOUT ROWID;

-- Hours with samples that no rollup has.
CREATE TABLE rollups_due (
    hour_us INTEGER NOT NULL,
    series  INTEGER NOT NULL,
    PRIMARY KEY (hour_us, series)
) WITHOUT ROWID;
