#!/usr/bin/env bash
# Prints SQL for a busy shop, at the pace of real time; the demo pipes it into the mysql client.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: scripts/demo/traffic.sh SECONDS [SEED]

Prints transactions on the schema of shop.sql for SECONDS seconds: inserts, updates, deletes, changed keys, a rollback now
and then, a new column after a third of the time and a new table after two thirds. The same SEED gives the same order of
transactions.
USAGE
}

if [[ ! ${1:-} =~ ^[0-9]+$ ]]; then
    usage >&2
    exit 2
fi
duration_s=$1
RANDOM=${2:-7}

# $RANDOM has 15 bits.
pick() { picked=$(((RANDOM * 32768 + RANDOM) % $1 + 1)); }

next_order=20001
has_column=0
has_table=0

place_order() {
    pick 4000
    local customer=$picked id=$next_order
    pick 50000
    echo "BEGIN; INSERT INTO orders (id, customer_id, status, total, placed_at, note) VALUES ($id, $customer, 'new', $picked.$((RANDOM % 90 + 10)), NOW(3), 'ordered live, nº $id 😀');"
    pick 1400
    echo "INSERT INTO order_items VALUES ($id, 1, 'SKU-$(printf %05d "$picked")', 2, NULL), ($id, 2, 'SKU-00001', 1, 0.1); COMMIT;"
    next_order=$((id + 1))
}

pay_orders() {
    pick "$next_order"
    echo "UPDATE orders SET status = 'paid', total = total + 0.01 WHERE id BETWEEN $picked AND $((picked + 40));"
}

cancel_orders() {
    pick "$next_order"
    echo "BEGIN; DELETE FROM order_items WHERE order_id BETWEEN $picked AND $((picked + 4)); DELETE FROM orders WHERE id BETWEEN $picked AND $((picked + 4)); COMMIT;"
}

# Keys change: an int, a string and half of a composite one; and two rows swap theirs.
renumber() {
    pick 4000
    echo "UPDATE IGNORE customers SET id = id + 1000000 WHERE id = $picked;"
    pick 1500
    echo "UPDATE IGNORE products SET sku = CONCAT(LEFT(sku, 9), '-é', $RANDOM) WHERE sku = 'SKU-$(printf %05d "$picked")';"
    pick "$next_order"
    echo "UPDATE order_items SET line_no = line_no + 10 WHERE order_id = $picked AND line_no < 10;"
    pick 1999
    echo "BEGIN; UPDATE orders SET id = 0xFFFFFFFFFFFFFFFF WHERE id = $picked; UPDATE orders SET id = $picked WHERE id = $((picked + 2000)); UPDATE orders SET id = $((picked + 2000)) WHERE id = 0xFFFFFFFFFFFFFFFF; COMMIT;"
}

reprice() {
    pick 900
    echo "UPDATE products SET price = price * 1.01, stock = stock + 1, tags = tags | 2 WHERE sku BETWEEN 'SKU-$(printf %05d "$picked")' AND 'SKU-$(printf %05d $((picked + 100)))';"
}

change_preferences() {
    pick 4000
    echo "UPDATE customers SET preferences = JSON_SET(COALESCE(preferences, '{}'), '$.visits', $RANDOM), email = IF(id % 2, NULL, email) WHERE id BETWEEN $picked AND $((picked + 10));"
}

change_of_mind() {
    pick "$next_order"
    echo "BEGIN; DELETE FROM orders WHERE id > $picked; ROLLBACK;"
}

add_column() {
    echo "ALTER TABLE orders ADD COLUMN gift_note VARCHAR(60) NULL AFTER status;"
    has_column=1
}

add_table() {
    echo "CREATE TABLE returns (order_id BIGINT UNSIGNED NOT NULL PRIMARY KEY, reason VARCHAR(200) NOT NULL, refunded DECIMAL(12,2) NULL);"
    has_table=1
}

use_what_is_new() {
    pick "$next_order"
    ((has_column == 0)) || echo "UPDATE orders SET gift_note = 'for you, 🎁 $picked' WHERE id BETWEEN $picked AND $((picked + 20));"
    ((has_table == 0)) || echo "REPLACE INTO returns SELECT id, CONCAT('too small, ', id), total FROM orders WHERE id BETWEEN $picked AND $((picked + 5));"
}

echo "USE shop; SET autocommit = 1;"
SECONDS=0
while ((SECONDS < duration_s)); do
    ((has_column == 1 || SECONDS * 3 < duration_s)) || add_column
    ((has_table == 1 || SECONDS * 3 < duration_s * 2)) || add_table
    case $((RANDOM % 20)) in
    [0-9]) place_order ;;
    1[0-2]) pay_orders ;;
    13 | 14) cancel_orders ;;
    15) renumber ;;
    16) reprice ;;
    17) change_preferences ;;
    18) change_of_mind ;;
    19) use_what_is_new ;;
    esac
    sleep 0.01
done
