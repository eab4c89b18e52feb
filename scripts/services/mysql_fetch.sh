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

is_debian() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null &&
        [ -r /etc/os-release ] && (. /etc/os-release && [ "${ID:-}" = debian ])
}

# --- from Debian sid, through an apt state of its own ---

mysql_from_sid() {
    local folder=$1 state=$services_dir/mysql.apt deb
    say "fetching MySQL from Debian sid"
    rm -rf "$state"
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    : >"$state/status"
    sid_source >"$state/sources.list"
    [ -s "$state/sources.list" ] ||
        die "no Debian mirror found in /etc/apt/sources.list or /etc/apt/sources.list.d; set WEIR_USE_PATH_MYSQL=1 to take mysqld from PATH"
    retry 4 own_apt "$state" update || die "apt-get update of sid failed"
    retry 4 own_apt "$state" install -y --download-only --no-install-recommends mysql-server-core mysql-client ||
        die "download of MySQL from sid failed"
    for deb in "$state"/cache/archives/*.deb; do
        case ${deb##*/} in
        perl* | libperl*) continue ;; # Only for scripts that nobody here calls.
        esac
        dpkg -x "$deb" "$folder"
    done
    rm -rf "$state"
    write_loader_wrappers "$folder"
}

own_apt() {
    local state=$1
    shift
    apt-get -qq \
        -o Dir::State="$state" -o Dir::State::Lists="$state/lists" -o Dir::State::status="$state/status" \
        -o Dir::Cache="$state/cache" -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3 \
        "$@" >&2
}

# One sources.list line for sid, on the mirror and with the signing key that the machine itself uses. That mirror is the
# entry whose suite is the release's own codename, which third-party repositories and the security mirror don't have.
sid_source() {
    local codename
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-sid}")
    {
        cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | one_line_entries || true
        cat_with_blank_lines /etc/apt/sources.list.d/*.sources | deb822_entries
    } | awk -v suite="$codename" '
        # Fields of an entry: options, uri, suites (comma separated), separated by tabs.
        { n = split($3, suites, ","); for (i = 1; i <= n; i++) if (suites[i] == suite) { print "deb " $1 " " $2 " sid main"; exit } }
    ' FS='\t'
}

# "deb [signed-by=K] URI SUITE main …" → "[signed-by=K]<tab>URI<tab>SUITE".
one_line_entries() {
    awk '$1 == "deb" {
        options = ""; field = 2
        if ($field ~ /^\[/) { while ($field !~ /\]$/) options = options $(field++) " "; options = options $(field++) }
        print options "\t" $field "\t" $(field + 1)
    }'
}

# Stanzas of deb822 files in the same three fields. A key given inline has indented lines, which are left out; apt's
# default keyring then applies.
deb822_entries() {
    awk '
        function flush() {
            if (types ~ /(^| )deb( |$)/ && enabled !~ /^(no|false|0)$/) {
                split(uris, uri, " "); gsub(/ +/, ",", suites)
                print (key ~ /^\// ? "[signed-by=" key "]" : "") "\t" uri[1] "\t" suites
            }
            types = uris = suites = key = enabled = ""
        }
        /^[ \t]*$/ { flush(); next }
        /^#/ || /^[ \t]/ { next }
        { name = tolower($1); value = $0; sub(/^[^:]*:[ \t]*/, "", value); sub(/[ \t]+$/, "", value) }
        name == "types:" { types = value }
        name == "uris:" { uris = value }
        name == "suites:" { suites = value }
        name == "signed-by:" { key = value }
        name == "enabled:" { enabled = value }
        END { flush() }
    '
}

cat_with_blank_lines() {
    local file
    for file in "$@"; do
        [ ! -r "$file" ] || { cat "$file" && echo; }
    done
}

# sid's libc is newer than the machine's, so its programs run through the loader and the libraries beside them.
write_loader_wrappers() {
    local folder=$1 loader libraries program
    loader=$(cd "$folder" && find usr/lib usr/lib64 -maxdepth 2 -name 'ld-linux*.so.*' 2>/dev/null | head -n 1)
    libraries=$(cd "$folder" && find usr/lib -maxdepth 2 -name 'libc.so.6' -printf '%h\n' | head -n 1)
    [ -n "$loader" ] && [ -n "$libraries" ] || die "the fetched packages hold no libc; is this an architecture MySQL is not built for?"
    write_wrapper "$folder/bin/mysqld" "\"\$folder/$loader\" --library-path \"\$folder/$libraries\" \"\$folder/usr/sbin/mysqld\"" \
        '--no-defaults --basedir="$folder/usr" --lc-messages-dir="$folder/usr/share/mysql" --character-sets-dir="$folder/usr/share/mysql/charsets" --plugin-dir="$folder/usr/lib/mysql/plugin"'
    for program in "${mysql_client_programs[@]}"; do
        write_wrapper "$folder/bin/$program" "\"\$folder/$loader\" --library-path \"\$folder/$libraries\" \"\$folder/usr/bin/$program\"" ''
    done
}

# write_wrapper FILE PROGRAM FLAGS: PROGRAM and FLAGS are shell text and may use $folder. exec keeps the pid.
write_wrapper() {
    cat >"$1" <<WRAPPER
#!/usr/bin/env bash
folder=\$(cd "\$(dirname "\$(readlink -f "\${BASH_SOURCE[0]}")")/.." && pwd)
exec $2 $3 "\$@"
WRAPPER
    chmod +x "$1"
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
