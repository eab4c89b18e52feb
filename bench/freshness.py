"""How long after its commit in MySQL a change can be read in the lake's table.

Paced writers note when each transaction was committed (bench/paced.py), a thread notes when each version of the table appeared. Of a
version, `commitInfo.weir.state.greatest` says up to which order, so which commit time at the source, each bucket holds its changes: a
transaction can be read for certain with the first version in which every bucket has a change that is no older than the end of its
COMMIT. That is never too early, and too late by what lies between the transaction and the next in the slowest bucket.
"""

import json
import math
import os
import pathlib
import subprocess
import sys
import threading
import time
from bisect import bisect_left

from lake import Lake
from measure import Process, cpu_of_all, say
from source import ROOT, Source

SECONDS = float(os.environ.get("BENCH_FRESH_SECONDS", 20))
RATES = [int(rate) for rate in os.environ.get("BENCH_FRESH_RATES", "1000,20000").split(",")]
INTERVALS_MS = [int(interval) for interval in os.environ.get("BENCH_FRESH_INTERVALS_MS", "200,1000").split(",")]
LOOKED_AT_EVERY_S = 0.002
CATCHES_UP_WITHIN_S = 120
# Writers have started and connected by then, and begin together.
STARTS_WITHIN_S = 1
# Larger transactions above a rate; and what one writer holds with ease, even where processors are scarce.
BATCH, LARGE_BATCH, LARGE_ABOVE_RATE = 10, 100, 5_000
WRITER_TRANSACTIONS_PER_SECOND = 50
# The last transactions have nothing behind them that would show that they are in.
LAST_TRANSACTIONS = 20


def measure_freshness(lake: Lake, rows: int, pids: dict[str, int]) -> list[dict]:
    """At every rate, with `weir run` on a lake that is seeded; ends with the lake caught up. `pids` are the servers'."""
    service = lake.start("run")
    watch = LogWatch(lake.table_folder() / "_delta_log")
    try:
        # Until it is there, and has something behind it.
        _, commits = write_for(lake.source, rows, RATES[0], 1)
        watch.wait_for(commits[-LAST_TRANSACTIONS], service)
        measured = [at_rate(lake, rows, rate, watch, service, pids) for rate in RATES]
        service.terminate()
        service.wait()
    finally:
        watch.end()
        service.kill()
    lake.run_weir()
    return measured


def at_rate(lake: Lake, rows: int, rate: int, watch: "LogWatch", service: Process, pids: dict[str, int]) -> dict:
    pids = {"weir": service.pid, **pids}
    before, began = cpu_of_all(pids), time.time()
    first_version = watch.newest()
    written, commits = write_for(lake.source, rows, rate, SECONDS)
    watch.wait_for(commits[-LAST_TRANSACTIONS], service)
    took = time.time() - began
    cores = {name: round((seconds - before[name]) / took, 2) for name, seconds in cpu_of_all(pids).items()}
    seen = watch.after(first_version)
    delays, unseen = delays_of(commits, seen)
    result = {
        "rate_asked": rate,
        "rate_reached": round(written / (commits[-1] - commits[0]) * 1000),
        "transactions": len(delays),
        "not_seen": unseen,
        "versions": len(seen),
        "p50_ms": round(percentile(delays, 50)),
        "p99_ms": round(percentile(delays, 99)),
        "max_ms": round(delays[-1]),
        "cores": cores,
    }
    say(f"{lake.name}, {lake.commit_interval_ms} ms: " + ", ".join(f"{name} {value}" for name, value in result.items()))
    return result


def write_for(source: Source, rows: int, rate: int, seconds: float) -> tuple[int, list[float]]:
    """Writes at a rate, in processes of their own; gives how many rows, and when each COMMIT ended in ms."""
    batch = LARGE_BATCH if rate > LARGE_ABOVE_RATE else BATCH
    writers = math.ceil(rate / batch / WRITER_TRANSACTIONS_PER_SECOND)
    starts_at = time.time() + STARTS_WITHIN_S
    arguments = [source.port, rows, rate // writers, batch, seconds]
    processes = [
        subprocess.Popen(
            [sys.executable, ROOT / "bench/paced.py", *map(str, arguments), str(writer), str(writers), str(starts_at)],
            stdout=subprocess.PIPE,
        )
        for writer in range(writers)
    ]
    printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("bench: a paced writer failed")
    done = [json.loads(text) for text in printed]
    commits = sorted(after for share in done for _, after in share["commits"])
    if len(commits) <= LAST_TRANSACTIONS:
        raise SystemExit(f"bench: {rate} changes a second for {seconds} s are too few to say anything")
    return sum(share["rows"] for share in done), commits


def delays_of(commits: list[float], versions: list[tuple[float, float]]) -> tuple[list[float], int]:
    """Ascending, in ms, and how many transactions are newer than what the last version shows. `versions` are (held, appeared)."""
    held = [version[0] for version in versions]
    delays, unseen = [], 0
    for commit in commits:
        at = bisect_left(held, commit)
        if at == len(held):
            unseen += 1
        else:
            delays.append(versions[at][1] - commit)
    return sorted(delays), unseen


def percentile(ascending: list[float], percent: float) -> float:
    """By nearest rank."""
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


class LogWatch:
    """Notes when each version of a table appears."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.next = max((int(file.stem) for file in folder.glob("*.json") if file.stem.isdigit()), default=-1) + 1
        self.appeared: dict[int, float] = {}
        self.held: dict[int, float | None] = {}
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.look_repeatedly, daemon=True)
        self.thread.start()

    def look_repeatedly(self) -> None:
        while not self.ending.wait(LOOKED_AT_EVERY_S):
            while os.path.exists(self.file(self.next)):
                self.appeared[self.next] = time.time() * 1000
                self.next += 1

    def file(self, version: int) -> str:
        return f"{self.folder}/{version:020}.json"

    def newest(self) -> int:
        return self.next - 1

    def held_ms(self, version: int) -> float | None:
        """Up to which commit time every bucket holds its changes; none if the commit is not weir's."""
        if version not in self.held:
            self.held[version] = held_ms_of(pathlib.Path(self.file(version)).read_text())
        return self.held[version]

    def after(self, version: int) -> list[tuple[float, float]]:
        """What is held, and when it appeared, of all newer versions."""
        versions = range(version + 1, self.newest() + 1)
        return [(held, self.appeared[version]) for version in versions if (held := self.held_ms(version)) is not None]

    def wait_for(self, commit_ms: float, service: Process) -> None:
        """Until a version holds what was committed at a time."""
        end = time.monotonic() + CATCHES_UP_WITHIN_S
        while (self.held_ms(self.newest()) or 0) < commit_ms:
            if service.has_ended():
                service.wait()
                raise SystemExit(service.failure("ended while changes were written"))
            if time.monotonic() > end:
                raise SystemExit(service.failure(f"has not caught up within {CATCHES_UP_WITHIN_S} s"))
            time.sleep(0.05)

    def end(self) -> None:
        self.ending.set()
        self.thread.join()


def held_ms_of(commit: str) -> float | None:
    for line in commit.splitlines():
        info = json.loads(line).get("commitInfo") if "commitInfo" in line else None
        if info and "weir" in info:
            greatest = info["weir"]["state"]["greatest"]
            return min((ts_ms for ts_ms, _ in greatest), default=-math.inf)
    return None
