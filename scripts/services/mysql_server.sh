# Starts and stops MySQL servers, each in a folder of its own: data/, mysqld.pid, port, mysqld.log.

template_dir=$services_dir/mysql-template

# Small, fast and honest about crashes of mysqld itself: what it acknowledged survives kill -9, not a power cut.
# The binlog settings are those that weir asks for. performance_schema stays on, as on a real server, but is kept small:
# at its defaults it takes 100 MB more.
mysqld_flags() {
    local folder=$1 port=$2
    [ "$(id -u)" != 0 ] || echo --user=root
    printf '%s\n' \
        --datadir="$folder/data" --port="$port" --bind-address=127.0.0.1 --mysqlx=OFF --secure-file-priv= \
        --pid-file="$folder/mysqld.pid" --log-error="$folder/mysqld.log" --socket=mysqld.sock \
        --skip-name-resolve --default-time-zone=+00:00 --max-connections=100 --max-allowed-packet=1G \
        --server-id=1 --log-bin=binlog --binlog-format=ROW --binlog-row-image=FULL --binlog-row-metadata=FULL \
        --gtid-mode=ON --enforce-gtid-consistency=ON \
        --innodb-buffer-pool-size=96M --innodb-redo-log-capacity=64M --innodb-use-native-aio=OFF \
        --innodb-log-writer-threads=OFF --innodb-flush-log-at-trx-commit=2 --sync-binlog=0 --innodb-doublewrite=OFF \
        --table-open-cache=400 --table-definition-cache=400 --performance-schema-digests-size=100 \
        --performance-schema-error-size=0 --performance-schema-max-memory-classes=0 \
        --performance-schema-max-thread-instances=150 --performance-schema-events-waits-history-long-size=0 \
        --performance-schema-events-stages-history-long-size=0 --performance-schema-events-statements-history-long-size=0 \
        --performance-schema-events-transactions-history-long-size=0
}

# --- mysql-start ---

mysql_start() {
    [ $# -ge 1 ] || die "mysql-start needs a folder"
    local folder
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
    shift
    mysql_fetch
    if is_running "$folder/mysqld.pid" mysqld; then
        die "a server already runs in $folder (pid $(cat "$folder/mysqld.pid")); stop it with mysql-stop"
    fi
    [ -d "$folder/data" ] || copy_template "$folder"
    start_on_a_port "$folder" mysqld start_on_port "$@"
    printf 'mysql://root@127.0.0.1:%s\n' "$started_port"
}

# Sets launched_pid.
start_on_port() {
    local folder=$1 port=$2 flags
    shift 2
    mapfile -t flags < <(mysqld_flags "$folder" "$port")
    rm -f "$folder/mysqld.pid"
    : >"$folder/mysqld.log"
    launch "$folder/mysqld.log" "$mysql_dir/bin/mysqld" "${flags[@]}" "$@"
    is_up_within 120 "$launched_pid" mysqld_is_ready "$folder" &&
        "$mysql_dir/bin/mysqladmin" --no-defaults --host=127.0.0.1 --port="$port" --user=root --connect-timeout=10 ping >/dev/null 2>&1
}

mysqld_is_ready() {
    [ -s "$1/mysqld.pid" ] && grep -q 'ready for connections. Version' "$1/mysqld.log"
}

# --- the template: a data folder made once and copied, since --initialize takes seconds ---

copy_template() {
    local folder=$1
    with_lock mysql-template make_template
    rm -rf "$folder/data.copying"
    cp -a --reflink=auto "$template_dir/data" "$folder/data.copying"
    mv "$folder/data.copying" "$folder/data"
}

make_template() {
    local building=$template_dir.building flags
    # A template of another MySQL version would have to be upgraded at every start.
    if cmp -s "$mysql_dir/version" "$template_dir/version"; then
        return 0
    fi
    say "initialising a data folder to copy from"
    rm -rf "$building" "$template_dir"
    mkdir -p "$building"
    mapfile -t flags < <(mysqld_flags "$building" 0)
    # Small files make the copies fast; a server grows its redo log by itself.
    flags+=(--innodb-redo-log-capacity=8M --skip-log-bin)
    "$mysql_dir/bin/mysqld" "${flags[@]}" --initialize-insecure 9>&- || {
        tail -n 20 "$building/mysqld.log" >&2
        die "mysqld --initialize-insecure failed"
    }
    first_start "$building" "${flags[@]}"
    # auto.cnf holds the server's uuid, which must not be shared.
    rm -f "$building"/data/auto.cnf "$building"/data/mysqld.sock*
    cp "$mysql_dir/version" "$building/version"
    mv "$building" "$template_dir"
}

# The first start makes certificates and fills caches; do it here, once. root is also let in over TCP without a name
# lookup, which `--initialize-insecure` doesn't provide for.
first_start() {
    local building=$1
    shift
    cat >"$building/users.sql" <<'SQL'
CREATE USER IF NOT EXISTS 'root'@'127.0.0.1';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;
SHUTDOWN;
SQL
    timeout 120 "$mysql_dir/bin/mysqld" "$@" --skip-networking --init-file="$building/users.sql" 9>&- ||
        die "the first start of the template failed; its log is $building/mysqld.log"
    rm -f "$building/users.sql"
}

# --- mysql-stop ---

mysql_stop() {
    stop_server mysql-stop mysqld mysqld "$@"
}
