# Builds versitygw, a server that speaks S3, into target/services/versitygw, and starts and stops servers, each in a folder
# of its own: data/ (a bucket is a folder in it, an object a file), meta/, versitygw.pid, port, versitygw.log.

s3_dir=$services_dir/versitygw
s3_version=v1.8.0
s3_bucket=weir
# Of servers on loopback that live as long as a test.
s3_access_key=weir-test-key
s3_secret_key=weir-test-secret

# --- s3-fetch ---

s3_fetch() {
    with_lock versitygw s3_fetch_locked
}

s3_fetch_locked() {
    # The folder appears by a rename at the very end, so its presence means it is complete.
    if [ "$(cat "$s3_dir/version" 2>/dev/null)" = "$s3_version" ]; then
        return 0
    fi
    local building=$services_dir/versitygw.building
    rm -rf "$building"
    mkdir -p "$building/bin"
    if [ "${WEIR_USE_PATH_S3:-0}" = 1 ]; then
        s3_from_path "$building"
    else
        s3_from_source "$building"
    fi
    printf '%s\n' "$s3_version" >"$building/version"
    rm -rf "$s3_dir"
    mv "$building" "$s3_dir"
    say "versitygw is ready"
}

s3_from_source() {
    # Where Go's own installer puts it, for shells that have not been told.
    PATH=$PATH:/usr/local/go/bin
    command -v go >/dev/null ||
        die "the S3 server is built with Go, and there is no go on PATH (https://go.dev/doc/install; Debian's golang-go if it is
recent enough). Or put versitygw on PATH and set WEIR_USE_PATH_S3=1, or point WEIR_TEST_S3_URL at a running server."
    say "building versitygw $s3_version, which takes some minutes"
    # The Go that is there, and the user's own settings otherwise.
    GOTOOLCHAIN=local GOBIN="$1/bin" retry 3 go install "github.com/versity/versitygw/cmd/versitygw@$s3_version" >&2 ||
        die "versitygw could not be built with $(go version)"
}

s3_from_path() {
    local found
    found=$(command -v versitygw || true)
    [ -n "$found" ] || die "WEIR_USE_PATH_S3=1 is set and PATH has no versitygw. Install it, or point WEIR_TEST_S3_URL at a running server."
    say "taking versitygw from PATH: $found"
    ln -s "$found" "$1/bin/versitygw"
}

# --- s3-start ---

s3_start() {
    [ $# -eq 1 ] || die "s3-start needs a folder"
    local folder
    mkdir -p "$1/data/$s3_bucket" "$1/meta"
    folder=$(cd "$1" && pwd)
    s3_fetch
    if is_running "$folder/versitygw.pid" versitygw; then
        die "a server already runs in $folder (pid $(cat "$folder/versitygw.pid")); stop it with s3-stop"
    fi
    start_on_a_port "$folder" versitygw s3_start_on_port
    printf 'http://%s:%s@127.0.0.1:%s/%s\n' "$s3_access_key" "$s3_secret_key" "$started_port" "$s3_bucket"
}

# Sets launched_pid. What it knows of objects besides their bytes lies beside the data and not in extended attributes,
# which not every file system has; so data/ holds nothing but the objects.
s3_start_on_port() {
    local folder=$1 port=$2
    : >"$folder/versitygw.log"
    # The keys go by the environment, since everybody sees a command line.
    ROOT_ACCESS_KEY=$s3_access_key ROOT_SECRET_KEY=$s3_secret_key launch "$folder/versitygw.log" \
        "$s3_dir/bin/versitygw" --port "127.0.0.1:$port" --quiet --keep-alive posix --sidecar "$folder/meta" "$folder/data"
    printf '%s\n' "$launched_pid" >"$folder/versitygw.pid"
    is_up_within 60 "$launched_pid" s3_answers "$port" || {
        rm -f "$folder/versitygw.pid"
        return 1
    }
}

# A process of another's may hold the port, so the answer must be one of S3's.
s3_answers() {
    local answer
    { exec 8<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf 'GET / HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$1" >&8
    answer=$(timeout 2 cat <&8 | tr -d '\0') || true
    exec 8>&-
    [[ $answer == *'<Error>'*'</Error>'* ]]
}

# --- s3-stop ---

s3_stop() {
    stop_server s3-stop versitygw versitygw "$@"
}
