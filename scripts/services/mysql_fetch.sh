# Gets a MySQL server and its client programs into target/services/mysql, without touching the machine's own packages.
# What callers use is bin/{mysqld,mysql,mysqlbinlog,mysqldump,mysqladmin}; version says where they came from.

mysql_dir=$services_dir/mysql
mysql_client_programs=(mysql mysqlbinlog mysqldump mysqladmin)

mysql_fetch() {
    with_lock mysql mysql_fetch_locked
}

mysql_fetch_locked() {
    # The folder appears by a rename at the very end, so its presence means it is complete.
    if [ -x "$mysql_dir/bin/mysqld" ]; then
        return 0
    fi
    local building=$services_dir/mysql.building
    rm -rf "$building"
    mkdir -p "$building/bin"
    if [ "${WEIR_USE_PATH_MYSQL:-0}" != 1 ] && is_debian; then
        mysql_from_sid "$building"
    else
        mysql_from_path "$building"
    fi
    # The wrappers find their folder by their own path, so they can be tried before the rename.
    "$building/bin/mysqld" --version | sed 's/.*  Ver /Ver /' >"$building/version"
    rm -rf "$mysql_dir"
    mv "$building" "$mysql_dir"
    say "MySQL is ready: $(cat "$mysql_dir/version")"
}

# --- from Debian sid ---

mysql_from_sid() {
    local folder=$1 program
    say "fetching MySQL from Debian sid"
    unpack_debian "$folder" sid mysql-server-core mysql-client
    # Only for scripts that nobody here calls.
    rm -rf "$folder"/usr/share/perl* "$folder"/usr/lib/*/perl*
    write_debian_wrapper "$folder/bin/mysqld" usr/sbin/mysqld \
        '--no-defaults --basedir="$folder/usr" --lc-messages-dir="$folder/usr/share/mysql" --character-sets-dir="$folder/usr/share/mysql/charsets" --plugin-dir="$folder/usr/lib/mysql/plugin"'
    for program in "${mysql_client_programs[@]}"; do
        write_debian_wrapper "$folder/bin/$program" "usr/bin/$program" ''
    done
}

# --- from PATH ---

mysql_from_path() {
    local folder=$1 program found major
    found=$(command -v mysqld || true)
    [ -n "$found" ] || die "no MySQL: this is not Debian (or WEIR_USE_PATH_MYSQL=1 is set) and PATH has no mysqld.
Install MySQL 8.0 or later, or point WEIR_TEST_MYSQL_URL at a running server."
    major=$("$found" --version | sed -nE 's/.* Ver ([0-9]+)\..*/\1/p')
    [ "${major:-0}" -ge 8 ] || die "$found is older than MySQL 8.0: $("$found" --version)"
    if "$found" --version | grep -qi mariadb; then die "$found is MariaDB; MySQL 8.0 or later is needed"; fi
    say "taking MySQL from PATH: $found"
    write_wrapper "$folder/bin/mysqld" "'$found'" '--no-defaults'
    for program in "${mysql_client_programs[@]}"; do
        found=$(command -v "$program" || true)
        [ -n "$found" ] || die "mysqld is on PATH, but $program is not; install MySQL's client programs too"
        write_wrapper "$folder/bin/$program" "'$found'" ''
    done
}
