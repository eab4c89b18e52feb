-- The benchmark's tables: twelve mixed columns, about 180 bytes a row. bench/run.py runs this file statement by statement and
-- fills the tables with rows.sql. Nothing of it goes into the binlog, as for tables that are older than the oldest log.
CREATE DATABASE IF NOT EXISTS bench DEFAULT CHARACTER SET utf8mb4;

CREATE TABLE IF NOT EXISTS bench.sales (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    buyer_id INT NOT NULL,
    article VARCHAR(32) NOT NULL,
    price DECIMAL(12,2) NOT NULL,
    ordered_at DATETIME(3) NOT NULL,
    changed_at TIMESTAMP NOT NULL,
    priority TINYINT NOT NULL,
    mass_kg DOUBLE NOT NULL,
    remark VARCHAR(100) NULL,
    pieces INT NULL,
    due_on DATE NULL,
    state ENUM('open','paid','sent','closed','void') NOT NULL
);

-- The one that the backlog changes.
CREATE TABLE IF NOT EXISTS bench.hot LIKE bench.sales;

-- 0 to 999, to count with.
CREATE TABLE IF NOT EXISTS bench.counter (n INT NOT NULL PRIMARY KEY);

INSERT IGNORE INTO bench.counter
WITH RECURSIVE r (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM r WHERE n < 999)
SELECT n FROM r;
