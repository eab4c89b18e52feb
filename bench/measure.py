"""How the benchmark measures: one process to its end, what other processes spent meanwhile, and several such runs as a figure.

It imports little, as does everything that bench/run.py imports: a child's peak begins with its parent's size at the fork.
"""

import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

REPEATS = int(os.environ.get("BENCH_REPEATS", 3))
THREADS_SEEN_EVERY_S = 0.05
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass
class Run:
    seconds: float
    cpu_seconds: float
    peak_mib: float
    output: str
    # CPU seconds of other processes during the run, by the name that the caller gave.
    beside: dict[str, float] = field(default_factory=dict)
    # CPU seconds of the process's own threads, by kind, as last seen of each.
    threads: dict[str, float] = field(default_factory=dict)


class Process:
    """A program under way; its log is appended to a file."""

    def __init__(self, command: list[str], log: pathlib.Path, cwd: pathlib.Path | None = None) -> None:
        self.command, self.log = command, log
        self.stdout = tempfile.TemporaryFile()
        with open(log, "ab") as stderr:
            self.started = time.monotonic()
            self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.stdout, stderr=stderr, cwd=cwd)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def has_ended(self) -> bool:
        """By itself. Leaves its end to `wait`, unlike `Popen.poll`, which would take the kernel's account with it."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def terminate(self) -> None:
        """SIGTERM to a service, which must not have ended by itself."""
        if self.has_ended():
            self.wait()
            raise SystemExit(self.failure("ended by itself"))
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, code: int = 0) -> Run:
        """Waits for its end, which must be a good one, or the one that is expected."""
        _, status, usage = os.wait4(self.pid, 0)
        seconds = time.monotonic() - self.started
        self.popen.returncode = os.waitstatus_to_exitcode(status)
        with self.stdout:
            self.stdout.seek(0)
            output = self.stdout.read().decode()
        if self.popen.returncode != code:
            raise SystemExit(self.failure(f"ended with {self.popen.returncode}"))
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)

    def failure(self, what: str) -> str:
        tail = self.log.read_text(errors="replace").splitlines()[-15:]
        return f"bench: {' '.join(self.command)} {what}\n" + "\n".join(tail)

    def kill(self) -> None:
        """For the way out after a failure; nothing if it has ended."""
        if self.popen.returncode is None:
            self.popen.kill()
            self.popen.wait()


def measure(
    command: list[str],
    log: pathlib.Path,
    cwd: pathlib.Path | None = None,
    beside: dict[str, int] | None = None,
    threads: bool = False,
    code: int = 0,
) -> Run:
    """Runs a command to its end. `beside` names the pids whose CPU is to be accounted for meanwhile."""
    before = cpu_of_all(beside or {})
    process = Process(command, log, cwd)
    watch = ThreadWatch(process.pid) if threads else None
    run = process.wait(code)
    run.beside = {name: seconds - before[name] for name, seconds in cpu_of_all(beside or {}).items()}
    run.threads = watch.end() if watch else {}
    return run


# --- CPU, as the kernel accounts for it ---


def cpu_of_all(pids: dict[str, int]) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in pids.items()}


def cpu_seconds(pid: int) -> float:
    """User and system time of a living process, in steps of 10 ms, without that of its children."""
    # The name in the second field may hold blanks.
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


class ThreadWatch:
    """Looks at a process's threads again and again, since what a thread has used can't be read once it has ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.seen: dict[str, tuple[str, int]] = {}
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.look_repeatedly, daemon=True)
        self.thread.start()

    def look_repeatedly(self) -> None:
        while not self.ending.wait(THREADS_SEEN_EVERY_S):
            self.look()

    def look(self) -> None:
        try:
            threads = os.listdir(f"/proc/{self.pid}/task")
        except OSError:
            return
        for thread in threads:
            folder = f"/proc/{self.pid}/task/{thread}"
            try:
                with open(f"{folder}/comm") as name, open(f"{folder}/schedstat") as used:
                    self.seen[thread] = (name.read().strip(), int(used.read().split()[0]))
            except (OSError, IndexError):
                continue  # It has ended meanwhile.

    def end(self) -> dict[str, float]:
        self.ending.set()
        self.thread.join()
        total: Counter[str] = Counter()
        for name, nanoseconds in self.seen.values():
            total[kind_of(name)] += nanoseconds / 1e9
        return dict(total)


def kind_of(thread: str) -> str:
    """Threads of one kind differ in a number, and librdkafka's in their broker."""
    return "rdk" if thread.startswith("rdk:") else re.sub(r"[-_ ]?\d+$", "", thread)


# --- figures ---


@dataclass
class Figure:
    """One line of the result: several runs over so many rows."""

    name: str
    rows: int
    runs: list[Run]

    def spread(self, of: Callable[[Run], float]) -> dict[str, float]:
        values = sorted(of(run) for run in self.runs)
        return {"min": values[0], "median": statistics.median(values), "max": values[-1]}

    def rows_per_second(self) -> dict[str, float]:
        return self.spread(lambda run: self.rows / run.seconds)

    def to_json(self) -> dict:
        return {
            "rows": self.rows,
            "seconds": self.spread(lambda run: run.seconds),
            "rows_per_second": self.rows_per_second(),
            "cpu_seconds_per_million_rows": self.spread(lambda run: run.cpu_seconds / self.rows * 1e6),
            "peak_mib": self.spread(lambda run: run.peak_mib),
        }


def repeat(name: str, rows: int, run: Callable[[], Run]) -> Figure:
    runs = []
    for ordinal in range(REPEATS):
        runs.append(run())
        say_run(name, rows, runs[-1], ordinal, REPEATS)
    return Figure(name, rows, runs)


def say_run(name: str, rows: int, run: Run, ordinal: int, repeats: int) -> None:
    say(f"{name}: run {ordinal + 1} of {repeats}: {run.seconds:.2f} s, {rows / run.seconds:,.0f} rows/s")


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
