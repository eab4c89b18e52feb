"""What `make bench` runs: weir beside the fastest that MySQL gives anybody, on this machine, in one sitting.

    bench/run.py [--help]

1. the floor of reading: SELECT over the binary protocol with 1 and 2 connections, packets thrown away (bench/floor)
2. seeding: `weir run --until-caught-up` on the same table, from nothing
3. the floor of streaming: `mysqlbinlog --raw` of a backlog of changes, and a dump thrown away (bench/floor)
4. applying: `weir run --until-caught-up` of that backlog, onto a table seeded before

Each figure is taken BENCH_REPEATS times; min, median and max are shown. Seconds are wall clock from the start of the process
to its end, CPU and peak memory the kernel's account of that process alone. Before weir's figures count, DuckDB has to find the
tables equal to the source in rows and sums. Prints a table and writes bench/out/results.json.

Environment:
  BENCH_ROWS      rows to seed (default 2000000)
  BENCH_CHANGES   changes in the backlog (default 1000000)
  BENCH_HOT_ROWS  rows of the table that the backlog changes (default 1000000)
  BENCH_REPEATS   (default 3)
  BENCH_DIR       keep the server's data here and use it again, instead of in a temporary folder
  BENCH_ONLY      "seed" or "apply": only that half
  WEIR_BIN, FLOOR_BIN  the programs (default target/release/weir, target/bench-floor/release/floor)
"""

import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import pymysql

ROOT = pathlib.Path(__file__).resolve().parent.parent
SERVICES = ROOT / "scripts/services.sh"
MYSQL_BIN = pathlib.Path(os.environ.get("WEIR_SERVICES_DIR", ROOT / "target/services")) / "mysql/bin"
WEIR = os.environ.get("WEIR_BIN", str(ROOT / "target/release/weir"))
FLOOR = os.environ.get("FLOOR_BIN", str(ROOT / "target/bench-floor/release/floor"))
OUT = ROOT / "bench/out"

SEED_ROWS = int(os.environ.get("BENCH_ROWS", 2_000_000))
CHANGES = int(os.environ.get("BENCH_CHANGES", 1_000_000))
HOT_ROWS = int(os.environ.get("BENCH_HOT_ROWS", 1_000_000))
REPEATS = int(os.environ.get("BENCH_REPEATS", 3))
FILL_STEP_ROWS = 100_000
# A server that has the tables in memory, so that its disk is not what is measured.
MYSQL_FLAGS = ["--innodb-buffer-pool-size=1G", "--innodb-redo-log-capacity=1G", "--max-binlog-size=1G"]


# --- measuring a process ---


@dataclass
class Run:
    seconds: float
    cpu_seconds: float
    peak_mib: float
    output: str


def measure(command: list[str], log: pathlib.Path, cwd: pathlib.Path | None = None) -> Run:
    """Runs a command to its end. This script imports little, since a child's peak begins with its parent's size at the fork."""
    with tempfile.TemporaryFile() as stdout, open(log, "ab") as stderr:
        started = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        output = stdout.read().decode()
    if process.returncode != 0:
        tail = log.read_text(errors="replace").splitlines()[-15:]
        raise SystemExit(f"bench: {' '.join(command[:4])} … ended with {process.returncode}\n" + "\n".join(tail))
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


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
        say(f"{name}: run {ordinal + 1} of {REPEATS}: {runs[-1].seconds:.2f} s, {rows / runs[-1].seconds:,.0f} rows/s")
    return Figure(name, rows, runs)


# --- the source ---


class Source:
    """A MySQL server of our own, with the tables filled."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        started = subprocess.run(
            [SERVICES, "mysql-start", folder, *MYSQL_FLAGS],
            env={**os.environ, "WEIR_SERVICE_OWNER_PID": str(os.getpid())},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(started.stdout.strip().rsplit(":", 1)[1])
        self.address = f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        subprocess.run([SERVICES, "mysql-stop", self.folder], check=True)

    def connect(self) -> pymysql.Connection:
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", autocommit=True, init_command="SET SESSION time_zone = '+00:00', sql_log_bin = 0"
        )

    def query(self, sql: str) -> tuple:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()

    def make_tables(self) -> None:
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements_of(ROOT / "bench/data.sql"):
                cursor.execute(statement)

    def fill(self, table: str, rows: int, again: bool) -> None:
        """Fills a table unless it holds what it should; `again` for one that was changed since."""
        [count] = self.query(f"SELECT COUNT(*) FROM {table}")
        if count == rows and not again:
            return
        say(f"filling {table} with {rows:,} rows")
        [insert] = statements_of(ROOT / "bench/rows.sql")
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE TABLE {table}")
            for first in range(1, rows + 1, FILL_STEP_ROWS):
                cursor.execute("SET @first = %s, @last = %s", (first, min(first + FILL_STEP_ROWS - 1, rows)))
                cursor.execute(insert.replace("{table}", table))
            cursor.execute(f"ANALYZE TABLE {table}")


def statements_of(file: pathlib.Path) -> list[str]:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";\n") if statement.strip()]


# --- weir ---


class Lake:
    """A warehouse of weir for one table of the source."""

    def __init__(self, folder: pathlib.Path, source: Source, table: str) -> None:
        self.folder, self.source, self.table = folder, source, table
        self.log = folder.parent / f"{folder.name}.log"

    def run_weir(self) -> Run:
        config = self.folder / "weir.toml"
        config.write_text(
            f'[source]\nname = "bench"\nurl = "mysql://root@{self.source.address}"\ntables = ["{self.table}"]\n'
            f'[warehouse]\nurl = "file://{self.folder}/lake"\n'
            '[transport]\nkind = "direct"\n[trace]\nkind = "sqlite"\n'
            f'[apply]\nstate_dir = "{self.folder}/state"\n[http]\nlisten = "127.0.0.1:0"\n'
        )
        return measure([WEIR, "--config", str(config), "run", "--until-caught-up"], self.log)

    def start_from_nothing(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def check(self) -> None:
        """Rows and sums, as DuckDB sees them, against the source's."""
        sums = "COUNT(*), SUM(id), SUM(price), COALESCE(SUM(pieces), 0)"
        expected = [str(value) for value in self.source.query(f"SELECT {sums} FROM {self.table}")]
        # In a process of its own: DuckDB's memory must not count towards children that are measured later.
        reader = "import sys; sys.path.insert(0, sys.argv[1]); import lake_rows; lake_rows.print_query(sys.argv[2], sys.argv[3])"
        command = [sys.executable, "-c", reader, ROOT / "tests/support", self.folder / "lake" / self.table.replace(".", "/"), sums]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        if found != expected:
            raise SystemExit(f"bench: {self.table} differs in ({sums}): {expected} in MySQL, {found} in the lake")
        say(f"{self.table} is equal to the source: {expected[0]} rows")

    def size_mib(self) -> float:
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) / 2**20


# --- the two halves ---


def bench_seed(source: Source, work: pathlib.Path) -> dict[str, Figure]:
    source.fill("bench.sales", SEED_ROWS, again=False)
    log = work / "floor.log"
    sql = "SELECT * FROM bench.sales WHERE id BETWEEN {first} AND {last}"

    def select(connections: int) -> Run:
        run = measure([FLOOR, "select", source.address, str(connections), "1", str(SEED_ROWS), sql], log)
        if json.loads(run.output)["rows"] != SEED_ROWS:
            raise SystemExit(f"bench: the floor received {run.output.strip()}, not {SEED_ROWS} rows")
        return run

    select(2)  # Brings the table into the server's memory.
    figures = {
        f"select_{count}": repeat(f"SELECT thrown away, {count} conn.", SEED_ROWS, lambda count=count: select(count)) for count in (1, 2)
    }
    lake = Lake(work / "seed", source, "bench.sales")

    def seed() -> Run:
        lake.start_from_nothing()
        return lake.run_weir()

    figures["seed"] = repeat("weir, seeding", SEED_ROWS, seed)
    lake.check()
    shutil.rmtree(lake.folder)
    return figures


def bench_apply(source: Source, work: pathlib.Path) -> tuple[dict[str, Figure], dict]:
    source.fill("bench.hot", HOT_ROWS, again=True)
    lake = Lake(work / "hot", source, "bench.hot")
    lake.start_from_nothing()
    say(f"seeding bench.hot: {lake.run_weir().seconds:.1f} s")
    lake.check()
    seeded_mib = lake.size_mib()
    # A copy to begin each run from; the lake itself stays where it is, as its state may name the place.
    seeded = work / "hot.seeded"
    lake.folder.rename(seeded)
    say(f"writing a backlog of {CHANGES:,} changes")
    written = subprocess.run(
        [sys.executable, ROOT / "bench/backlog.py", str(source.port), str(CHANGES), str(HOT_ROWS)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    backlog = json.loads(written.stdout)
    changes = backlog["changes"]
    say(f"{changes:,} changes in {backlog['transactions']:,} transactions, {backlog['bytes'] / 2**20:.0f} MiB")
    figures = {
        "mysqlbinlog": repeat("mysqlbinlog --raw", changes, lambda: copy_binlog(source, backlog, work)),
        "dump": repeat("dump thrown away", changes, lambda: dump_binlog(source, backlog, work)),
    }

    def apply() -> Run:
        shutil.rmtree(lake.folder, ignore_errors=True)
        shutil.copytree(seeded, lake.folder)
        return lake.run_weir()

    figures["apply"] = repeat("weir, applying", changes, apply)
    lake.check()
    backlog["lake_mib"] = {"seeded": round(seeded_mib, 1), "applied": round(lake.size_mib(), 1)}
    return figures, backlog


def copy_binlog(source: Source, backlog: dict, work: pathlib.Path) -> Run:
    folder = work / "raw"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [str(MYSQL_BIN / "mysqlbinlog"), "--no-defaults", "--read-from-remote-server", "--raw", "--host=127.0.0.1"]
    command += [f"--port={source.port}", "--user=root", *backlog["files"]]
    run = measure(command, work / "mysqlbinlog.log", cwd=folder)
    shutil.rmtree(folder)
    return run


def dump_binlog(source: Source, backlog: dict, work: pathlib.Path) -> Run:
    return measure([FLOOR, "binlog", source.address, backlog["start"]["file"], "4"], work / "floor.log")


# --- the result ---


def write_results(figures: dict[str, Figure], ratios: dict[str, float], backlog: dict | None) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    results = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cpus": os.cpu_count(), "processor": processor(), "system": platform.platform()},
        "commit": subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip(),
        "repeats": REPEATS,
        "figures": {name: figure.to_json() for name, figure in figures.items()},
        "ratios": ratios,
        "backlog": backlog,
    }
    (OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def ratios_of(figures: dict[str, Figure]) -> dict[str, float]:
    """weir's median rows a second as a share of each floor's."""
    pairs = [("seed", "select_1"), ("seed", "select_2"), ("apply", "mysqlbinlog"), ("apply", "dump")]
    return {
        f"{ours}/{floor}": round(figures[ours].rows_per_second()["median"] / figures[floor].rows_per_second()["median"], 3)
        for ours, floor in pairs
        if ours in figures and floor in figures
    }


def print_table(figures: dict[str, Figure], ratios: dict[str, float]) -> None:
    print(f"\n{'':26} {'rows':>10} {'thousand rows/s':>24} {'CPU-s per M rows':>17} {'peak MiB':>9}")
    print(f"{'':26} {'':>10} {'min':>8}{'median':>8}{'max':>8} {'median':>17} {'max':>9}")
    for figure in figures.values():
        shown = figure.to_json()
        speed = "".join(f"{shown['rows_per_second'][part] / 1000:8,.0f}" for part in ("min", "median", "max"))
        cpu = shown["cpu_seconds_per_million_rows"]["median"]
        print(f"{figure.name:26} {figure.rows:10,} {speed} {cpu:17.2f} {shown['peak_mib']['max']:9.0f}")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    print(f"\nwritten to {(OUT / 'results.json').relative_to(ROOT)}")


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> None:
    if len(sys.argv) > 1:
        print(__doc__)
        raise SystemExit(0 if sys.argv[1] in ("-h", "--help") else 2)
    for program in (WEIR, FLOOR):
        if not os.access(program, os.X_OK):
            raise SystemExit(f"bench: there is no {program}; run make bench")
    only = os.environ.get("BENCH_ONLY", "")
    kept = os.environ.get("BENCH_DIR")
    work = pathlib.Path(tempfile.mkdtemp(prefix="weir-bench-"))
    source = Source(pathlib.Path(kept).resolve() if kept else work / "mysql")
    try:
        source.make_tables()
        figures: dict[str, Figure] = {}
        backlog = None
        if only in ("", "seed"):
            figures |= bench_seed(source, work)
        if only in ("", "apply"):
            applied, backlog = bench_apply(source, work)
            figures |= applied
        ratios = ratios_of(figures)
        write_results(figures, ratios, backlog)
        print_table(figures, ratios)
    finally:
        source.stop()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
