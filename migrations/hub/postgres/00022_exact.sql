-- +goose Up

-- Every time that there can be, to the microsecond. Multiplying an interval is exact
-- up to 2^53, and that is the quick way; beyond it, before 1684 and after 2255, days
-- and the rest of one go apart.
CREATE OR REPLACE FUNCTION samples_time(us bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN $1 > -9007199254740992 AND $1 < 9007199254740992 THEN (timestamp 'epoch' + $1 * interval '1 microsecond') AT TIME ZONE 'UTC'
                WHEN $1 < -210866803200000000 THEN '-infinity'::timestamptz
                ELSE (timestamp 'epoch' + ($1 / 86400000000) * interval '1 day' + ($1 % 86400000000) * interval '1 microsecond') AT TIME ZONE 'UTC' END
$$;
