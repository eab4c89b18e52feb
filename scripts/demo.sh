#!/usr/bin/env bash
# Shows weir at work on a real MySQL: seeds a shop, follows live traffic, and checks every table against the source.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: scripts/demo.sh

Needs target/release/weir and scripts/services.sh mysql-fetch; `make demo` sees to both. Exit 0 only if everything is equal.

Environment:
  WEIR_BIN        the weir to show (default target/release/weir)
  DEMO_SECONDS    length of the live traffic (default 15)
  DEMO_KEEP=1     keep the folder with the lake, the configuration and the logs
USAGE
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
weir_bin=${WEIR_BIN:-$here/../target/release/weir}
traffic_s=${DEMO_SECONDS:-15}
services=$here/services.sh
mysql_client=${WEIR_SERVICES_DIR:-$here/../target/services}/mysql/bin/mysql
. "$here/demo/compare.sh"

work=
weir_pid=
traffic_pid=

heading() { printf '\n== %s\n' "$*"; }

fail() {
    printf '\ndemo: FAILED: %s\n' "$*" >&2
    exit 1
}

# The mysql client on our server, without headings. Answers are utf8mb4 and timestamps UTC.
sql() {
    "$mysql_client" --no-defaults --host=127.0.0.1 --port="$port" --user=root --default-character-set=utf8mb4 --batch --skip-column-names "$@"
}

weir() { "$weir_bin" --config "$config" "$@"; }

start_mysql() {
    local url
    # If this script is killed, the server goes too.
    url=$(WEIR_SERVICE_OWNER_PID=$$ "$services" mysql-start "$work/mysql")
    port=${url##*:}
    sql <"$here/demo/shop.sql"
    printf '%s with %s rows in %s tables at %s\n' "$(sql -e 'SELECT CONCAT("MySQL ", VERSION())')" \
        "$(sql -e 'SELECT (SELECT COUNT(*) FROM shop.customers) + (SELECT COUNT(*) FROM shop.products) + (SELECT COUNT(*) FROM shop.orders) + (SELECT COUNT(*) FROM shop.order_items)')" \
        "$(source_tables | wc -l)" "$url"
}

write_config() {
    cat >"$config" <<TOML
[source]
name = "shop"
url = "mysql://weir@127.0.0.1:$port"
tables = ["shop.*"]

[warehouse]
url = "file://$work/lake"

[transport]
kind = "direct"

[trace]
kind = "sqlite"

[apply]
commit_interval_ms = 500
state_dir = "$work/state"

[http]
listen = "127.0.0.1:0"
TOML
    cat "$config"
}

run_beside_traffic() {
    # The program itself and not the function weir, whose pid would be a shell's.
    "$weir_bin" --config "$config" run >"$work/weir.log" 2>&1 &
    weir_pid=$!
    # The traffic goes on for a moment after the service has stopped, so that there is something to catch up with.
    mkfifo "$work/traffic"
    "$here/demo/traffic.sh" $((traffic_s + 2)) >"$work/traffic" &
    traffic_pid=$!
    sql --force <"$work/traffic" >"$work/traffic.log" 2>&1 &
    local client_pid=$! second
    for ((second = 1; second <= traffic_s; second++)); do
        sleep 1
        kill -0 "$weir_pid" 2>/dev/null || { stop_service; fail "weir run ended by itself; the end of its log is above"; }
        if ((second % 5 == 0)); then
            printf '  after %2d s: %s transactions executed at the source\n' "$second" "$(executed_transactions)"
        fi
    done
    stop_service || fail "weir run did not end with exit 0 after SIGTERM"
    wait "$traffic_pid" "$client_pid" || true
    traffic_pid=
    [ ! -s "$work/traffic.log" ] || { cat "$work/traffic.log"; fail "the traffic itself ran into errors"; }
}

executed_transactions() {
    sql -e 'SELECT @@GLOBAL.gtid_executed' | sed -E 's/.*-([0-9]+)$/\1/'
}

# SIGTERM, then the exit code of weir, which has 30 s to finish.
stop_service() {
    local pid=$weir_pid status=0 waited_s
    weir_pid=
    kill -TERM "$pid" 2>/dev/null || true
    for ((waited_s = 0; waited_s < 300; waited_s++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" || status=$?
    if ((status != 0)); then
        tail -n 20 "$work/weir.log" >&2
    fi
    return "$status"
}

compare_everything() {
    local table different=0
    for table in $(source_tables); do
        compare_table "$table" || different=1
    done
    return "$different"
}

compare_revenue() {
    revenue_in_mysql >"$work/revenue.source"
    revenue_in_lake >"$work/revenue.lake"
    printf '  %-8s %8s %16s   %8s %16s\n' country orders 'MySQL' orders 'lake'
    join -t $'\t' -a 1 -a 2 -e - -o '0 1.2 1.3 2.2 2.3' "$work/revenue.source" "$work/revenue.lake" |
        awk -F '\t' '{ printf "  %-8s %8s %16s   %8s %16s\n", $1, $2, $3, $4, $5 }'
    cmp -s "$work/revenue.source" "$work/revenue.lake"
}

clean_up() {
    local status=$?
    trap - EXIT INT TERM
    [ -z "$weir_pid" ] || kill -KILL "$weir_pid" 2>/dev/null || true
    [ -z "$traffic_pid" ] || kill -TERM "$traffic_pid" 2>/dev/null || true
    [ ! -d "$work/mysql" ] || "$services" mysql-stop "$work/mysql" || true
    if [ "${DEMO_KEEP:-0}" = 1 ] || ((status != 0)); then
        printf 'demo: everything is kept in %s\n' "$work" >&2
        rm -rf "$work/mysql/data"
    else
        rm -rf "$work"
    fi
    exit "$status"
}

main() {
    case ${1:-} in
    '') ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    [ -x "$weir_bin" ] || fail "there is no $weir_bin; run make demo"
    "$services" mysql-fetch
    work=$(mktemp -d "${TMPDIR:-/tmp}/weir-demo-XXXXXXXX")
    config=$work/weir.toml
    trap clean_up EXIT
    trap 'exit 130' INT TERM

    heading "A shop"
    start_mysql

    heading "weir.toml"
    write_config

    heading "weir check"
    weir check || fail "weir check found something to mend"

    heading "weir run, beside $traffic_s s of live traffic: inserts, updates, deletes, changed keys, a new column, a new table"
    run_beside_traffic

    heading "weir run --until-caught-up"
    weir run --until-caught-up 2>"$work/caught-up.log" || { tail -n 20 "$work/caught-up.log" >&2; fail "weir run --until-caught-up"; }
    echo "  caught up with $(executed_transactions) transactions"

    heading "weir reconcile"
    weir reconcile --format table || fail "weir reconcile found differences"

    heading "weir table list"
    weir table list --format table
    heading "weir status"
    weir status --format table

    heading "Every table, row for row, against MySQL"
    compare_everything || fail "tables differ"

    heading "Revenue by country, asked of MySQL and of the lake"
    compare_revenue || fail "the revenue differs"

    printf '\ndemo: everything is equal\n'
}

main "$@"
