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

# start_on_a_port FOLDER PROGRAM START [ARGUMENT…]: calls START FOLDER PORT ARGUMENT… with the port that the server of FOLDER had
# before, so that the url clients hold stays right, or with a free one; and with others while the port is taken. Sets
# started_port. PROGRAM names the log and the pid file in FOLDER.
start_on_a_port() {
    local folder=$1 program=$2 start=$3 attempt
    shift 3
    started_port=$(cat "$folder/port" 2>/dev/null || free_port)
    for attempt in 1 2 3 4 5; do
        if "$start" "$folder" "$started_port" "$@"; then
            printf '%s\n' "$started_port" >"$folder/port"
            stop_with_owner "$launched_pid"
            return 0
        fi
        grep -qi 'address already in use' "$folder/$program.log" || break
        say "port $started_port is taken, trying another (attempt $attempt)"
        started_port=$(free_port)
    done
    tail -n 20 "$folder/$program.log" >&2 || true
    die "$program did not start; its log is $folder/$program.log"
}

# stop_server COMMAND WORD PROGRAM FOLDER [--kill]: stops the server of FOLDER, in whose command line WORD stands. COMMAND is what
# the user called.
stop_server() {
    local command=$1 word=$2 program=$3
    shift 3
    [ $# -eq 1 ] || [ "$#/${2:-}" = 2/--kill ] || die "$command needs a folder, and takes --kill after it"
    local pid_file=$1/$program.pid
    if is_running "$pid_file" "$word"; then
        if [ "${2:-}" = --kill ]; then
            kill_pid "$(cat "$pid_file")"
        else
            stop_pid "$(cat "$pid_file")"
        fi
    fi
    rm -f "$pid_file"
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
