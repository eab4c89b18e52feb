"""What goes through Kafka, with counts in ClickHouse, beside the direct way in the same sitting. bench/run.py calls it.

1. a backlog that waits: `weir run --until-caught-up` direct, and through topics of 4 partitions and of 1; who spends the CPU; what the
   trace takes
2. the same backlog by `weir capture --until-caught-up` with one, two and three `weir apply` beside it
3. freshness (bench/freshness.py)

Each run has a source name of its own, since topics cannot be put back; all lakes are seeded before the backlog is written.
"""

import http.client
import os
import pathlib
import statistics
import subprocess
import urllib.parse

import freshness
from lake import DIRECT, Lake
from measure import REPEATS, Figure, Run, cpu_of_all, say, say_run
from source import SERVICES, Source, start_service

SPLIT_REPEATS = int(os.environ.get("BENCH_SPLIT_REPEATS", 1))
APPLIES = (1, 2, 3)
PARTITIONS = (4, 1)
TABLE = "bench.hot"


class Servers:
    """A broker and a ClickHouse of our own."""

    def __init__(self, work: pathlib.Path, source: Source) -> None:
        self.kafka, self.clickhouse = work / "kafka", work / "clickhouse"
        try:
            self.brokers = start_service("kafka-start", self.kafka)
            self.trace_url = start_service("clickhouse-start", self.clickhouse).rpartition("/")[0]
        except BaseException:
            self.stop()
            raise
        self.pids = {
            "mysqld": source.pid,
            "Kafka": int((self.kafka / "kafka.pid").read_text()),
            "ClickHouse": int((self.clickhouse / "clickhouse.pid").read_text()),
        }

    def stop(self) -> None:
        subprocess.run([SERVICES, "kafka-stop", self.kafka, "--kill"], check=True)
        subprocess.run([SERVICES, "clickhouse-stop", self.clickhouse, "--kill"], check=True)

    def sections(self, name: str, partitions: int) -> str:
        return (
            f'[transport]\nkind = "kafka"\nbrokers = "{self.brokers}"\npartitions = {partitions}\n'
            f'[trace]\nkind = "clickhouse"\nurl = "{self.trace_url}/{database_of(name)}"\n'
        )

    def trace_size(self, name: str) -> dict[str, int]:
        sql = f"SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = '{database_of(name)}'"
        connection = http.client.HTTPConnection(self.trace_url.removeprefix("http://"), timeout=30)
        connection.request("GET", "/?" + urllib.parse.urlencode({"query": sql}))
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"bench: ClickHouse answers {answer.status}: {text}")
        rows, size = text.split()
        return {"rows": int(rows), "bytes": int(size)}


def database_of(name: str) -> str:
    return f"weir_{name.replace('-', '_')}"


def bench_kafka(source: Source, work: pathlib.Path, changes: int, rows: int) -> tuple[dict[str, Figure], dict]:
    source.fill(TABLE, rows, again=True)
    servers = Servers(work, source)
    try:
        ways = [Way(source, work, servers, partitions) for partitions in (None, *PARTITIONS)]
        splits = [Split(source, work, servers, applies) for applies in (APPLIES if SPLIT_REPEATS else ())]
        for lake in [lake for half in (*ways, *splits) for lake in half.lakes]:
            seed(lake)
        backlog = source.write_backlog(changes, rows)
        # By turns, so that what changes on the machine meanwhile meets all of them.
        for ordinal in range(REPEATS):
            for way in ways:
                way.run(ordinal, backlog["changes"])
        for ordinal in range(SPLIT_REPEATS):
            for split in splits:
                split.run(ordinal, backlog["changes"])
        figures = {half.key: Figure(half.title, backlog["changes"], half.runs) for half in (*ways, *splits)}
        details = {
            "backlog": {name: backlog[name] for name in ("changes", "transactions", "bytes")},
            "cpu_seconds": {way.key: way.cpu() for way in ways},
            "trace_per_million_changes": {way.key: way.trace(backlog["changes"]) for way in ways},
            "capture_and_apply": {split.key: split.processes for split in splits},
            "freshness": bench_freshness(source, work, servers, rows) if freshness.SECONDS > 0 else [],
        }
        return figures, details
    finally:
        servers.stop()


def seed(lake: Lake) -> None:
    lake.start_from_nothing()
    say(f"seeding {TABLE} of {lake.name}: {lake.run_weir().seconds:.1f} s")


# --- the backlog, by one process ---


class Way:
    """One transport and its lakes, one for each repeat."""

    def __init__(self, source: Source, work: pathlib.Path, servers: Servers, partitions: int | None) -> None:
        self.servers, self.is_direct = servers, partitions is None
        self.key = "apply_direct" if partitions is None else f"apply_kafka_{partitions}"
        self.title = "weir run, direct" if partitions is None else f"weir run, Kafka, {partitions} part."
        self.runs: list[Run] = []
        self.grown: list[dict[str, int]] = []
        names = [f"{self.key.replace('_', '-')}-{ordinal}" for ordinal in range(REPEATS)]
        sections = [DIRECT if partitions is None else servers.sections(name, partitions) for name in names]
        self.lakes = [Lake(work / name, source, TABLE, name, section) for name, section in zip(names, sections)]

    def run(self, ordinal: int, changes: int) -> None:
        lake = self.lakes[ordinal]
        before = self.trace_size(lake)
        run = lake.run_weir(self.servers.pids, threads=True)
        say_run(self.title, changes, run, ordinal, REPEATS)
        after = self.trace_size(lake)
        self.runs.append(run)
        self.grown.append({name: size - before[name] for name, size in after.items()})
        lake.check()
        lake.remove()

    def trace_size(self, lake: Lake) -> dict[str, int]:
        if self.is_direct:
            return {"bytes": sum(file.stat().st_size for file in (lake.folder / "state").glob("trace.sqlite*"))}
        return self.servers.trace_size(lake.name)

    def cpu(self) -> dict:
        """Medians of the runs."""
        beside = {name: median(run.beside[name] for run in self.runs) for name in self.servers.pids}
        kinds = {kind for run in self.runs for kind in run.threads}
        threads = {kind: median(run.threads.get(kind, 0.0) for run in self.runs) for kind in sorted(kinds)}
        return {"weir": median(run.cpu_seconds for run in self.runs), **beside, "threads_of_weir": threads}

    def trace(self, changes: int) -> dict[str, float]:
        millions = changes / 1e6
        sizes = {name: median(grown[name] / millions for grown in self.grown) for name in self.grown[0]}
        server = {} if self.is_direct else {"clickhouse_cpu_seconds": median(run.beside["ClickHouse"] / millions for run in self.runs)}
        return {**sizes, **server}


def median(values) -> float:
    return round(statistics.median(values), 3)


# --- the backlog, by capture and several applies ---


class Split:
    """`weir capture` beside so many `weir apply`, and its lakes, one for each repeat."""

    def __init__(self, source: Source, work: pathlib.Path, servers: Servers, applies: int) -> None:
        self.servers, self.applies = servers, applies
        self.key = f"capture_apply_{applies}"
        self.title = f"weir capture, {applies} weir apply"
        self.runs: list[Run] = []
        # Of each repeat, what each process took; the figure has their sum and the largest peak.
        self.processes: list[list[dict]] = []
        names = [f"{self.key.replace('_', '-')}-{ordinal}" for ordinal in range(SPLIT_REPEATS)]
        self.lakes = [Lake(work / name, source, TABLE, name, servers.sections(name, PARTITIONS[0])) for name in names]

    def run(self, ordinal: int, changes: int) -> None:
        lake = self.lakes[ordinal]
        before = cpu_of_all(self.servers.pids)
        applies = [lake.start("apply", log=f"apply-{number}") for number in range(1, self.applies + 1)]
        capture = lake.start("capture", "--until-caught-up", log="capture")
        try:
            captured = capture.wait()
            beside = {name: seconds - before[name] for name, seconds in cpu_of_all(self.servers.pids).items()}
            for process in applies:
                process.terminate()
            applied = [process.wait() for process in applies]
        finally:
            for process in (capture, *applies):
                process.kill()
        every = {"capture": captured} | {f"apply {number}": run for number, run in enumerate(applied, 1)}
        # From the start of the first process.
        seconds = captured.seconds + capture.started - applies[0].started
        cpu = sum(run.cpu_seconds for run in every.values())
        run = Run(seconds, cpu, max(run.peak_mib for run in every.values()), "", beside)
        say_run(self.title, changes, run, ordinal, SPLIT_REPEATS)
        self.runs.append(run)
        self.processes.append(
            [{"process": name, "cpu_seconds": round(run.cpu_seconds, 2), "peak_mib": round(run.peak_mib)} for name, run in every.items()]
        )
        lake.check()
        lake.remove()


# --- freshness ---


def bench_freshness(source: Source, work: pathlib.Path, servers: Servers, rows: int) -> list[dict]:
    measured = []
    for interval_ms in freshness.INTERVALS_MS:
        for kind in ("direct", "kafka"):
            name = f"fresh-{kind}-{interval_ms}"
            sections = DIRECT if kind == "direct" else servers.sections(name, PARTITIONS[0])
            lake = Lake(work / name, source, TABLE, name, sections)
            lake.commit_interval_ms = interval_ms
            seed(lake)
            results = freshness.measure_freshness(lake, rows, servers.pids)
            measured += [{"transport": kind, "commit_interval_ms": interval_ms, **result} for result in results]
            lake.check()
            lake.remove()
    return measured


# --- printing ---


def print_details(details: dict) -> None:
    servers = ["weir", "mysqld", "Kafka", "ClickHouse"]
    print("\nCPU seconds for the backlog (median)" + "".join(f"{name:>12}" for name in servers))
    for key, cpu in details["cpu_seconds"].items():
        print(f"{key:36}" + "".join(f"{cpu[name]:12.2f}" for name in servers))
        threads = sorted(cpu["threads_of_weir"].items(), key=lambda thread: -thread[1])
        print("  weir's threads: " + ", ".join(f"{kind} {seconds:.2f}" for kind, seconds in threads if seconds >= 0.005))
    print(f"\n{'the trace, per million changes':30}{'rows':>10}{'KiB':>10}{'ClickHouse CPU-s':>18}")
    for key, trace in details["trace_per_million_changes"].items():
        rows = f"{trace['rows']:,.0f}" if "rows" in trace else ""
        cpu = f"{trace['clickhouse_cpu_seconds']:.2f}" if "clickhouse_cpu_seconds" in trace else ""
        print(f"{key:30}{rows:>10}{trace['bytes'] / 1024:10,.0f}{cpu:>18}")
    for key, repeats in details["capture_and_apply"].items():
        shares = ", ".join(f"{share['process']} {share['cpu_seconds']:.2f} CPU-s {share['peak_mib']} MiB" for share in repeats[-1])
        print(f"{'' if key != 'capture_apply_1' else chr(10)}{key}: {shares}")
    if details["freshness"]:
        print(f"\n{'freshness':10}{'commit every':>14}{'changes/s':>20}{'transactions':>14}{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}")
    for fresh in details["freshness"]:
        rates = f"{fresh['rate_reached']:,} of {fresh['rate_asked']:,}"
        print(
            f"{fresh['transport']:10}{fresh['commit_interval_ms']:>11} ms{rates:>20}{fresh['transactions']:14,}"
            f"{fresh['p50_ms']:8}{fresh['p99_ms']:8}{fresh['max_ms']:8}"
        )
