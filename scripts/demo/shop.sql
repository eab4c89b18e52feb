-- The demo's shop: a few 10,000 rows that follow from their numbers. Runs before weir starts.
CREATE DATABASE shop DEFAULT CHARACTER SET utf8mb4;
USE shop;
SET cte_max_recursion_depth = 100000;

CREATE TABLE customers (
    id INT NOT NULL PRIMARY KEY,
    name VARCHAR(80) NOT NULL,
    country CHAR(2) NOT NULL,
    email VARCHAR(120) NULL,
    preferences JSON NULL,
    joined_on DATE NOT NULL
);

CREATE TABLE products (
    sku VARCHAR(24) NOT NULL PRIMARY KEY,
    title VARCHAR(120) NOT NULL,
    price DECIMAL(10,2) NOT NULL,
    stock INT UNSIGNED NOT NULL,
    tags SET('new','sale','fragile','export') NOT NULL
);

CREATE TABLE orders (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    customer_id INT NOT NULL,
    status ENUM('new','paid','shipped','returned') NOT NULL,
    total DECIMAL(12,2) NOT NULL,
    placed_at DATETIME(3) NOT NULL,
    changed_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    note TEXT NULL
);

CREATE TABLE order_items (
    order_id BIGINT UNSIGNED NOT NULL,
    line_no SMALLINT NOT NULL,
    sku VARCHAR(24) NOT NULL,
    quantity SMALLINT UNSIGNED NOT NULL,
    discount DOUBLE NULL,
    PRIMARY KEY (order_id, line_no)
);

-- Stays without rows.
CREATE TABLE vouchers (code VARCHAR(16) NOT NULL PRIMARY KEY, amount DECIMAL(8,2) NOT NULL);

INSERT INTO customers
WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 4000)
SELECT n,
    CONCAT(ELT(1 + n % 5, 'Ana García', 'Łukasz Nowak', '山田 太郎', 'Zoë O''Brien', 'Mehmet Çelik'), ' ', n),
    ELT(1 + CRC32(n) % 6, 'DE', 'ES', 'FR', 'JP', 'PL', 'TR'),
    IF(n % 9 = 0, NULL, CONCAT('customer', n, '@example.com')),
    IF(n % 4 = 0, NULL, JSON_OBJECT('newsletter', n % 2 = 0, 'sizes', JSON_ARRAY(n % 7, 'M'), 'nick', CONCAT('"', n, '" 😀'))),
    DATE '2020-01-01' + INTERVAL n % 2000 DAY
FROM r;

INSERT INTO products
WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 1500)
SELECT CONCAT('SKU-', LPAD(n, 5, '0')), CONCAT(ELT(1 + n % 3, 'Teapot, blue', 'Käsemesser', '茶碗'), ' #', n),
    (CRC32(n) % 100000) / 100, n % 300, CRC32(n) % 16
FROM r;

INSERT INTO orders (id, customer_id, status, total, placed_at, changed_at, note)
WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 20000)
SELECT n, 1 + CRC32(n) % 4000, 1 + n % 4, (CRC32(n * 3) % 5000000) / 100,
    TIMESTAMP '2026-01-01 00:00:00.000' + INTERVAL n * 61 SECOND + INTERVAL n % 1000 * 1000 MICROSECOND,
    TIMESTAMP '2026-01-01 00:00:00' + INTERVAL n * 67 SECOND,
    IF(n % 3 = 0, NULL, CONCAT('Leave at door ', n, ',\nring "twice" \\ naïve 😀'))
FROM r;

INSERT INTO order_items
SELECT o.id, l.line_no, CONCAT('SKU-', LPAD(1 + CRC32(CONCAT(o.id, '-', l.line_no)) % 1500, 5, '0')), 1 + o.id % 7, IF(o.id % 5 = 0, NULL, 1 / l.line_no)
FROM orders o JOIN (SELECT 1 AS line_no UNION ALL SELECT 2) l;

-- What weir's account needs on a source; weir says so itself in `weir check`.
CREATE USER 'weir'@'127.0.0.1';
GRANT SELECT, RELOAD, PROCESS, LOCK TABLES, SHOW VIEW, REPLICATION CLIENT, REPLICATION SLAVE, XA_RECOVER_ADMIN, BACKUP_ADMIN
    ON *.* TO 'weir'@'127.0.0.1';
