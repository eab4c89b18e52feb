-- Rows @first to @last (at most a million) of the table that stands for {table}; each follows from its number alone.
INSERT INTO {table}
SELECT
    i,
    noise MOD 600000,
    CONCAT('ART-', LPAD(HEX(noise), 8, '0'), '-', noise MOD 89),
    (noise MOD 9000000) / 100,
    TIMESTAMP '2024-01-01 00:00:00.000' + INTERVAL (i * 6007) MOD 63000000 SECOND + INTERVAL (noise MOD 1000) * 1000 MICROSECOND,
    FROM_UNIXTIME(1704067200 + (i * 13) MOD 63000000),
    CAST(noise MOD 200 AS SIGNED) - 100,
    noise / 2048e0 * 1.3e0,
    CASE i MOD 10
        WHEN 0 THEN NULL
        WHEN 4 THEN CONCAT('Grüße, déjà-vu 東京 🚀 ', LEFT(SHA2(i, 256), 40))
        ELSE CONCAT('remark: ', SHA2(i, 256))
    END,
    IF(i MOD 8 = 0, NULL, noise MOD 5000),
    IF(i MOD 13 = 0, NULL, DATE '2024-01-01' + INTERVAL noise MOD 800 DAY),
    1 + noise MOD 5
FROM (
    SELECT i, CRC32(i) AS noise
    FROM (
        SELECT @first + high.n * 1000 + low.n AS i FROM bench.counter high JOIN bench.counter low
        WHERE high.n <= (@last - @first) DIV 1000
    ) numbered
    WHERE i <= @last
) numbers
ORDER BY i
