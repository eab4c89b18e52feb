# What the servers of scripts/services share: ports, starting in the background, and stopping by pid.

# The system's choice. Somebody may take it before the server does, which the callers answer with another try.
free_port() {
    if command -v perl >/dev/null; then
        perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport'
    else
        python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
    fi
}

# launch LOG COMMAND…: in the background, its output appended to LOG; sets launched_pid.
# Its own session, so that a Ctrl-C in the caller's terminal leaves stopping to the caller. No descriptor of ours stays
# open in it: a caller that reads our stdout must see its end, and locks must be let go.
launch() {
    local log=$1
    shift
    setsid "$@" </dev/null >>"$log" 2>&1 9>&- &
    launched_pid=$!
    disown "$launched_pid"
}

# is_up_within SECONDS PID CHECK…: whether CHECK succeeds before the process ends or the time is over; over time, it is stopped.
is_up_within() {
    local seconds=$1 pid=$2 waited_ms
    shift 2
    for ((waited_ms = 0; waited_ms < seconds * 1000; waited_ms += 50)); do
        kill -0 "$pid" 2>/dev/null || return 1
        ! "$@" || return 0
        sleep 0.05
    done
    say "the server did not answer within $seconds s"
    stop_pid "$pid"
    return 1
}

# is_running PID_FILE WORD: the file may be left over from a killed server and its number reused, so the command line, in
# which WORD must stand, is looked at too.
is_running() {
    local pid
    pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && grep -qs -- "$2" "/proc/$pid/cmdline"
}

# Stops the process soon after its owner, if there is one, is gone, however that ended; a killed test leaves nothing behind.
stop_with_owner() {
    [ -n "${WEIR_SERVICE_OWNER_PID:-}" ] || return 0
    setsid bash -c '
        . "$1/server.sh"
        while kill -0 "$2" 2>/dev/null; do
            kill -0 "$3" 2>/dev/null || exit 0
            sleep 1
        done
        stop_pid "$3"
    ' _ "$repo_root/scripts/services" "$WEIR_SERVICE_OWNER_PID" "$1" </dev/null >/dev/null 2>&1 9>&- &
    disown $!
}

stop_pid() {
    local pid=$1 waited_ms
    kill -TERM "$pid" 2>/dev/null || return 0
    for ((waited_ms = 0; waited_ms < 30000; waited_ms += 50)); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.05
    done
    kill_pid "$pid"
}

kill_pid() {
    local pid=$1
    kill -KILL "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}
