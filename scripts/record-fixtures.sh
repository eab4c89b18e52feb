#!/usr/bin/env bash
# Records fixtures/binlog/*.000001 anew from the .sql files beside them, with a real MySQL. Needed only when a fixture is
# added or changed: the recorded files are committed, so that tests need no server for them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fixtures=$(cd "$here/../fixtures/binlog" && pwd)
folder=$(mktemp -d)

stop() {
    "$here/services.sh" mysql-stop "$folder/server"
    rm -rf "$folder"
}
trap stop EXIT

"$here/services.sh" mysql-start "$folder/server" >"$folder/url"
port=$(cat "$folder/server/port")
client=${WEIR_SERVICES_DIR:-$here/../target/services}/mysql/bin/mysql

run() {
    "$client" --no-defaults --host=127.0.0.1 --port="$port" --user=root --default-character-set=utf8mb4 "$@"
}

current_binlog() {
    run --batch --skip-column-names --execute='SHOW BINARY LOG STATUS' | cut -f1
}

# record NAME SQL_FILE [STATEMENT…]: runs the file in an empty database `shop`, and keeps the one binlog it wrote.
record() {
    local name=$1 sql=$2 binlog
    shift 2
    run --execute='DROP DATABASE IF EXISTS shop; CREATE DATABASE shop; FLUSH BINARY LOGS'
    binlog=$(current_binlog)
    { printf '%s;\n' "$@" && cat "$fixtures/$sql"; } | run shop
    run --execute='FLUSH BINARY LOGS'
    install -m 644 "$folder/server/data/$binlog" "$fixtures/$name.000001"
}

zone="SET time_zone = '+00:00'"
record basic basic.sql "$zone"
record compressed basic.sql "$zone" 'SET binlog_transaction_compression = ON'
record ddl ddl.sql "$zone"
record oracle oracle.sql "$zone"
record images images.sql "$zone"
record xa xa.sql "$zone"
for refused in statement; do
    record "refused_$refused" "refused_$refused.sql" "$zone"
done
run --execute='SET GLOBAL binlog_checksum = NONE'
record no_checksum no_checksum.sql "$zone"
ls -l "$fixtures"/*.000001
