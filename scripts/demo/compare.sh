# Compares a table of the source with weir's. Sourced by scripts/demo.sh, which provides $work, $config, sql and weir.
#
# weir's rows go back into MySQL, into a database that weir doesn't follow, so that both sides are printed by one program in
# one way, in key order; equal texts then mean equal values, without rules of ours for dates, decimals or JSON.

# compare_table TABLE: prints one line; fails if the two differ.
compare_table() {
    local table=$1 rows_source rows_lake
    weir read --table "shop.$table" --format jsonl >"$work/$table.jsonl" || return 1
    load_lake_rows "$table" "$work/$table.jsonl" || return 1
    print_rows shop "$table" >"$work/$table.source"
    print_rows lake "$table" >"$work/$table.lake"
    rows_source=$(wc -l <"$work/$table.source")
    rows_lake=$(wc -l <"$work/$table.lake")
    if [ "$(sha256sum <"$work/$table.source")" = "$(sha256sum <"$work/$table.lake")" ]; then
        printf '  %-14s %8d rows  equal      sha256 %.16s\n' "$table" "$rows_source" "$(sha256sum <"$work/$table.source")"
        return 0
    fi
    printf '  %-14s %8d rows in MySQL, %d in the lake  DIFFERENT; first differences (< MySQL, > lake):\n' "$table" "$rows_source" "$rows_lake"
    diff "$work/$table.source" "$work/$table.lake" | head -n 10 | cut -c 1-300
    return 1
}

# shop's tables, one a line.
source_tables() {
    sql -e "SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop' ORDER BY 1"
}

load_lake_rows() {
    local table=$1 file=$2 columns values
    columns=$(for_each_column "$table" <<<'CONCAT("`", column_name, "`")')
    # JSON null and a missing field are NULL; timestamps carry a Z that MySQL's own literals don't have.
    values=$(
        for_each_column "$table" <<'SQL'
CONCAT("IF(COALESCE(JSON_TYPE(JSON_EXTRACT(doc, '$.", column_name, "')), 'NULL') = 'NULL', NULL, ",
    IF(data_type IN ("datetime", "timestamp"), "TRIM(TRAILING 'Z' FROM ", "("),
    "JSON_UNQUOTE(JSON_EXTRACT(doc, '$.", column_name, "'))))")
SQL
    )
    sql <<SQL
SET sql_log_bin = 0;
CREATE DATABASE IF NOT EXISTS lake;
CREATE TABLE lake.$table LIKE shop.$table;
CREATE TABLE lake.docs (doc JSON NOT NULL);
LOAD DATA INFILE '$file' INTO TABLE lake.docs CHARACTER SET utf8mb4 FIELDS TERMINATED BY '\t' ESCAPED BY '' LINES TERMINATED BY '\n' (doc);
INSERT INTO lake.$table ($columns) SELECT $values FROM lake.docs;
DROP TABLE lake.docs;
SQL
}

# Every row on a line, columns in the source's order, ordered by the text itself. HEX keeps texts with a separator or a line
# break in them apart from others, and NULL from the text NULL.
print_rows() {
    local database=$1 table=$2 columns
    columns=$(
        for_each_column "$table" <<'SQL'
CONCAT("COALESCE(", IF(data_type IN ("char", "varchar", "text", "json"), "HEX", ""), "(CAST(`", column_name, "` AS CHAR)), 'NULL')")
SQL
    )
    sql -e "SELECT CONCAT_WS('|', $columns) FROM $database.$table" | LC_ALL=C sort
}

# Reads an SQL expression over information_schema.columns, prints its values for the table's columns with commas between.
for_each_column() {
    local expression
    expression=$(cat)
    sql --raw -e "SET SESSION group_concat_max_len = 1000000;
        SELECT GROUP_CONCAT($expression ORDER BY ordinal_position SEPARATOR ', ') FROM information_schema.columns
        WHERE table_schema = 'shop' AND table_name = '$1'"
}

# One business question answered twice: by MySQL, and from the lake alone with awk.
revenue_in_mysql() {
    sql -e "SELECT c.country, COUNT(*), SUM(o.total) FROM shop.orders o JOIN shop.customers c ON c.id = o.customer_id
        WHERE o.status <> 'returned' GROUP BY c.country ORDER BY c.country"
}

revenue_in_lake() {
    weir read --table shop.customers --columns id,country --format csv >"$work/customers.csv"
    weir read --table shop.orders --columns customer_id,status,total --format csv >"$work/orders.csv"
    # Amounts are summed as whole cents, so that no rounding can hide or make a difference.
    awk -F, -v OFS='\t' '
        { sub(/\r$/, ""); gsub(/"/, "") }
        FNR == 1 { split("", at); for (i = 1; i <= NF; i++) at[$i] = i; file++; next }
        file == 1 { country[$at["id"]] = $at["country"]; next }
        $at["status"] != "returned" && ($at["customer_id"] in country) {
            c = country[$at["customer_id"]]; orders[c]++; cents[c] += sprintf("%.0f", $at["total"] * 100)
        }
        END { for (c in orders) print c, orders[c], sprintf("%.2f", cents[c] / 100) }
    ' "$work/customers.csv" "$work/orders.csv" | LC_ALL=C sort
}
