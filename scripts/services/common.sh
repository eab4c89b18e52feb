# Shared by the files of scripts/services: where things lie, how to speak, retry and lock.
# Sourced by scripts/services.sh, never run by itself.

repo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
services_dir=${WEIR_SERVICES_DIR:-$repo_root/target/services}

# Progress goes to stderr, so that stdout carries results only.
say() { printf 'services: %s\n' "$*" >&2; }

die() {
    printf 'services: error: %s\n' "$*" >&2
    exit 1
}

# retry ATTEMPTS COMMAND…: for commands that talk to the network.
retry() {
    local attempts=$1 attempt
    shift
    for ((attempt = 1; attempt <= attempts; attempt++)); do
        "$@" && return 0
        if ((attempt < attempts)); then
            say "attempt $attempt of $attempts failed: $1; trying again in $((attempt * 3)) s"
            sleep $((attempt * 3))
        fi
    done
    return 1
}

# with_lock NAME FUNCTION…: one process at a time. The subshell gives up the lock on every way out.
# Long-lived children must close descriptor 9, or the lock would live as long as they do.
with_lock() {
    local name=$1
    shift
    mkdir -p "$services_dir"
    (
        flock 9
        "$@"
    ) 9>"$services_dir/.lock-$name"
}
