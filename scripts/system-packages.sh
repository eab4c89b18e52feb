#!/usr/bin/env bash
# Installs the Debian packages that building and testing need, and only those that are missing. Says how to get Rust.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: scripts/system-packages.sh [--check] [--with-jdk]

Installs missing Debian packages (as root, or through sudo) and looks for the Rust toolchain.
With --check it installs nothing, and fails if something is missing. --with-jdk: a Java compiler, too, for make test-all.
USAGE
}

# Alternatives are separated by |, the one that the release has is taken.
packages=(
    gcc g++ make cmake pkg-config libssl-dev libcurl4-openssl-dev # C libraries that crates build or link.
    ca-certificates git perl-base util-linux procps coreutils "gawk|mawk" diffutils # What the scripts call.
    python3 python3-venv                                          # The readers, the workload and the comparison.
    "libaio1|libaio1t64" "libnuma1"                               # MySQL servers that don't bring their own.
)
# What Kafka runs on and is fetched with. A Java or Maven that is on PATH already need not be a package.
command -v java >/dev/null || packages+=("openjdk-17-jre-headless|openjdk-21-jre-headless|default-jre-headless")
command -v mvn >/dev/null || packages+=(maven)

say() { printf 'system-packages: %s\n' "$*" >&2; }

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# The name of a package this release has, out of "a|b".
available_of() {
    local name
    for name in ${1//|/ }; do
        if apt-cache show --no-all-versions "$name" >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    echo "${1%%|*}"
}

# Prints each entry of the list of which no alternative is installed.
missing_packages() {
    local entry name
    for entry in "${packages[@]}"; do
        for name in ${entry//|/ }; do
            if is_installed "$name"; then
                continue 2
            fi
        done
        echo "$entry"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "error: this needs root, and there is no sudo. Run as root: $*"
        return 1
    fi
}

install_packages() {
    local missing wanted=() entry
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$only_check" = 1 ]; then
        say "error: missing: ${missing[*]}"
        return 1
    fi
    say "installing ${missing[*]}"
    as_root apt-get -qq -o Acquire::Retries=3 update >&2
    for entry in "${missing[@]}"; do wanted+=("$(available_of "$entry")"); done
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 \
        install -y --no-install-recommends "${wanted[@]}" >&2
}

look_for_rust() {
    local needed found
    needed=$(sed -nE 's/^rust-version = "([0-9.]+)"$/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml" | head -n 1)
    if ! command -v cargo >/dev/null; then
        say "error: there is no cargo on PATH. Install Rust ${needed:-stable} or later as https://rustup.rs says (its
default answers are right), open a new shell, and run this again."
        return 1
    fi
    found=$(cargo --version | awk '{ print $2 }')
    if [ -n "$needed" ] && [ "$(printf '%s\n%s\n' "$needed" "${found%%-*}" | sort -V | head -n 1)" != "$needed" ]; then
        say "error: cargo is $found, but $needed or later is needed. Run: rustup update stable"
        return 1
    fi
}

# Only a test's server is built with it, so nothing here fails without it. Debian's may be too old, so it is not installed.
look_for_go() {
    command -v go >/dev/null || [ "${WEIR_USE_PATH_S3:-0}" = 1 ] ||
        say "note: there is no go on PATH, which the tests' S3 server is built with. Install it as https://go.dev/doc/install
says, or put versitygw on PATH and set WEIR_USE_PATH_S3=1. weir itself does not need it."
}

main() {
    only_check=0
    local option
    for option in "$@"; do
        case $option in
        --check) only_check=1 ;;
        --with-jdk) command -v javac >/dev/null || packages+=("openjdk-17-jdk-headless|openjdk-21-jdk-headless|default-jdk-headless") ;;
        *)
            usage >&2
            exit 2
            ;;
        esac
    done
    if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
        install_packages
    else
        say "this is not Debian, so nothing is installed. Needed: a C and C++ compiler, make, cmake, pkg-config, OpenSSL's and
libcurl's headers, python3 with venv, perl, Java 17 or later, Maven, Go, MySQL 8.0 or later on PATH (or WEIR_TEST_MYSQL_URL), and
ClickHouse on PATH (or WEIR_TEST_CLICKHOUSE_URL), MariaDB 10.5 or later on PATH, and the libraries libaio and libnuma."
    fi
    look_for_go
    look_for_rust
}

main "$@"
