# Gets ClickHouse into target/services/clickhouse, and starts and stops servers, each in a folder of its own: data/,
# config.xml, users.xml, clickhouse.pid, port, clickhouse.log.

clickhouse_dir=$services_dir/clickhouse
# The last release of Debian that has ClickHouse: an old engine, which the trace's SQL has to run on, too.
clickhouse_suite=bookworm

# --- clickhouse-fetch ---

clickhouse_fetch() {
    with_lock clickhouse clickhouse_fetch_locked
}

clickhouse_fetch_locked() {
    # The folder appears by a rename at the very end, so its presence means it is complete.
    if [ -x "$clickhouse_dir/bin/clickhouse-server" ]; then
        return 0
    fi
    local building=$services_dir/clickhouse.building
    rm -rf "$building"
    mkdir -p "$building/bin"
    if [ "${WEIR_USE_PATH_CLICKHOUSE:-0}" != 1 ] && is_debian; then
        say "fetching ClickHouse from Debian $clickhouse_suite"
        # tzdata, since the server reads its time zone from files.
        unpack_debian "$building" "$clickhouse_suite" clickhouse-server tzdata
        write_debian_wrapper "$building/bin/clickhouse-server" usr/sbin/clickhouse-server '' 'env TZDIR="$folder/usr/share/zoneinfo" '
    else
        clickhouse_from_path "$building"
    fi
    rm -rf "$clickhouse_dir"
    mv "$building" "$clickhouse_dir"
    say "ClickHouse is ready"
}

clickhouse_from_path() {
    local found
    found=$(command -v clickhouse-server || true)
    [ -n "$found" ] || die "no ClickHouse: this is not Debian (or WEIR_USE_PATH_CLICKHOUSE=1 is set) and PATH has no clickhouse-server.
Install it, or point WEIR_TEST_CLICKHOUSE_URL at a running server."
    say "taking ClickHouse from PATH: $found"
    write_wrapper "$1/bin/clickhouse-server" "'$found'" ''
}

# --- clickhouse-start ---

clickhouse_start() {
    [ $# -eq 1 ] || die "clickhouse-start needs a folder"
    local folder
    mkdir -p "$1/data/tmp"
    folder=$(cd "$1" && pwd)
    clickhouse_fetch
    if is_running "$folder/clickhouse.pid" clickhouse; then
        die "a server already runs in $folder (pid $(cat "$folder/clickhouse.pid")); stop it with clickhouse-stop"
    fi
    clickhouse_users >"$folder/users.xml"
    start_on_a_port "$folder" clickhouse clickhouse_start_on_port
    printf 'http://127.0.0.1:%s/weir\n' "$started_port"
}

clickhouse_config() {
    local folder=$1 port=$2 tcp_port=$3
    cat <<CONFIG
<?xml version="1.0"?>
<yandex>
    <logger><level>information</level><console>1</console></logger>
    <http_port>$port</http_port>
    <tcp_port>$tcp_port</tcp_port>
    <listen_host>127.0.0.1</listen_host>
    <path>$folder/data/</path>
    <tmp_path>$folder/data/tmp/</tmp_path>
    <mark_cache_size>16777216</mark_cache_size>
    <users_config>users.xml</users_config>
    <default_profile>default</default_profile>
    <default_database>default</default_database>
    <timezone>UTC</timezone>
</yandex>
CONFIG
}

clickhouse_users() {
    cat <<'USERS'
<?xml version="1.0"?>
<yandex>
    <profiles><default><max_threads>2</max_threads></default></profiles>
    <users>
        <default>
            <password></password>
            <networks><ip>127.0.0.1</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
        </default>
    </users>
    <quotas><default></default></quotas>
</yandex>
USERS
}

# Sets launched_pid.
clickhouse_start_on_port() {
    local folder=$1 port=$2
    clickhouse_config "$folder" "$port" "$(free_port)" >"$folder/config.xml"
    : >"$folder/clickhouse.log"
    launch "$folder/clickhouse.log" "$clickhouse_dir/bin/clickhouse-server" --config-file="$folder/config.xml"
    printf '%s\n' "$launched_pid" >"$folder/clickhouse.pid"
    is_up_within 120 "$launched_pid" answers_http "$folder" "$port" || {
        rm -f "$folder/clickhouse.pid"
        return 1
    }
}

# A process of another's may hold the port, so the server itself must say that it is ready, too.
answers_http() {
    grep -q 'Ready for connections' "$1/clickhouse.log" && (exec 8<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null
}

# --- clickhouse-stop ---

clickhouse_stop() {
    stop_server clickhouse-stop clickhouse clickhouse "$@"
}
