-- +goose Up

-- No query is planned by what is in the arrays; for autovacuum to count their elements
-- took a good part of the time that storing the samples takes.
-- +goose StatementBegin
CREATE FUNCTION samples_without_statistics(of regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name name;
BEGIN
    FOR name IN SELECT a.attname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = of AND a.attnum > 0 AND NOT a.attisdropped AND t.typcategory = 'A'
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER %I SET STATISTICS 0', of, name);
    END LOOP;
END
$$;
-- +goose StatementEnd

SELECT samples_without_statistics('samples_batch');
SELECT samples_without_statistics('samples_young');
SELECT samples_without_statistics('samples_chunk'); -- and its partitions

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION samples_make_partition(start bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    period constant bigint := 604800000000;
    name   constant text   := 'samples_chunk_' || to_char(timestamp 'epoch' + start * interval '1 microsecond', 'YYYYMMDD');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE samples_chunk INCLUDING DEFAULTS INCLUDING INDEXES INCLUDING STORAGE) WITH (toast_tuple_target = 128)', name);
    PERFORM samples_without_statistics(name::regclass); -- which LIKE does not hand on
    EXECUTE format('WITH moved AS (DELETE FROM samples_chunk_default WHERE t0 >= %s AND t0 < %s RETURNING *) INSERT INTO %I SELECT * FROM moved',
        start, start + period, name);
    EXECUTE format('ALTER TABLE samples_chunk ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', name, start, start + period);
    RETURN true;
END
$$;
-- +goose StatementEnd
