# Debian packages of any release, downloaded through an apt state of its own and unpacked into a folder; nothing that is
# installed changes. What comes out is complete down to libc, so it runs on other releases, too.

is_debian() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null &&
        [ -r /etc/os-release ] && (. /etc/os-release && [ "${ID:-}" = debian ])
}

# unpack_debian FOLDER SUITE PACKAGE…: the packages and all that they depend on.
unpack_debian() {
    local folder=$1 suite=$2 state=$1.apt deb
    shift 2
    rm -rf "$state"
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    : >"$state/status"
    debian_source "$suite" >"$state/sources.list"
    [ -s "$state/sources.list" ] ||
        die "no Debian mirror found in /etc/apt/sources.list or /etc/apt/sources.list.d; \`scripts/services.sh help\` says how to use servers of your own"
    retry 4 own_apt "$state" update || die "apt-get update of $suite failed"
    retry 4 own_apt "$state" install -y --download-only --no-install-recommends "$@" || die "download of $1 from $suite failed"
    for deb in "$state"/cache/archives/*.deb; do
        dpkg -x "$deb" "$folder"
    done
    rm -rf "$state"
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

# One sources.list line for a suite, on the mirror and with the signing key that the machine itself uses. That mirror is the
# entry whose suite is the release's own codename, which third-party repositories and the security mirror don't have.
debian_source() {
    local codename
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-sid}")
    {
        cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | one_line_entries || true
        cat_with_blank_lines /etc/apt/sources.list.d/*.sources | deb822_entries
    } | awk -v own="$codename" -v wanted="$1" '
        # Fields of an entry: options, uri, suites (comma separated), separated by tabs.
        { n = split($3, suites, ","); for (i = 1; i <= n; i++) if (suites[i] == own) { print "deb " $1 " " $2 " " wanted " main"; exit } }
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

# write_debian_wrapper FILE PROGRAM FLAGS [VARIABLES]: PROGRAM is a path in the folder that FILE's bin/ stands in. The packages'
# libc may be newer than the machine's, so programs run through the loader and the libraries beside them.
write_debian_wrapper() {
    local folder loader libraries
    folder=$(dirname "$(dirname "$1")")
    # Which of these folders there are depends on the release.
    loader=$(cd "$folder" && { find lib lib64 usr/lib usr/lib64 -maxdepth 2 -name 'ld-linux*.so.*' 2>/dev/null || true; } | head -n 1)
    libraries=$(cd "$folder" && { find lib usr/lib -maxdepth 2 \( -name libc.so.6 -o -name libstdc++.so.6 \) -printf '$folder/%h\n' 2>/dev/null || true; } | sort -u | paste -sd:)
    [ -n "$loader" ] && [ -n "$libraries" ] || die "the fetched packages hold no libc; is this an architecture that $2 is not built for?"
    write_wrapper "$1" "${4:-}\"\$folder/$loader\" --library-path \"$libraries\" \"\$folder/$2\"" "$3"
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
