-- +goose Up

-- INSERT OR REPLACE deletes what it replaces without asking the triggers of DELETE.
-- +goose StatementBegin
CREATE TRIGGER audit_not_replaced BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id) BEGIN
    SELECT RAISE(ABORT, 'the audit is only added to');
END;
-- +goose StatementEnd

DROP VIEW history;

-- What people read: samples by the names of their devices. value is a number of
-- any kind, text is any value exactly, but for bytes, which are in hex. A float has as
-- many digits as it takes to tell it from any other.
CREATE VIEW history AS
    SELECT o.namespace, o.name AS device, s.property,
           strftime('%Y-%m-%dT%H:%M:%S', v.time_us / 1000000 - (v.time_us % 1000000 < 0), 'unixepoch')
               || printf('.%06dZ', (v.time_us % 1000000 + 1000000) % 1000000) AS time,
           CASE v.kind WHEN 1 THEN v.value WHEN 2 THEN v.value WHEN 3 THEN v.value + 18446744073709551616.0 WHEN 4 THEN v.value END AS value,
           CASE v.kind WHEN 1 THEN iif(v.value, 'true', 'false')
                       WHEN 3 THEN (v.value / 10 + 1844674407370955161 - (v.value % 10 < -6)) || ((v.value % 10 + 16) % 10)
                       WHEN 4 THEN CASE v.value WHEN CAST(printf('%.15g', v.value) AS REAL) THEN printf('%.15g', v.value)
                                                WHEN CAST(printf('%.16g', v.value) AS REAL) THEN printf('%.16g', v.value)
                                                ELSE printf('%!.17g', v.value) END
                       WHEN 6 THEN hex(v.value)
                       ELSE CAST(v.value AS TEXT) END AS text,
           CASE v.quality WHEN 0 THEN 'good' WHEN 1 THEN 'uncertain' ELSE 'bad' END AS quality, v.reason
    FROM objects o
    JOIN series s ON s.device_uid = o.uid AND o.kind = 'Device'
    JOIN samples v ON v.series = s.id;
