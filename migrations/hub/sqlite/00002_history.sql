-- +goose Up

-- What people read: samples by the names of their devices. value is a number of
-- any kind, text is any value exactly, but for bytes, which are in hex.
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
