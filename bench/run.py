"""What `make bench` runs: weir beside the fastest that MySQL gives anybody, on this machine, in one sitting.

    bench/run.py [--help]

1. the floor of reading: SELECT over the binary protocol with 1 and 2 connections, packets thrown away (bench/floor)
2. seeding: `weir run --until-caught-up` on the same table, from nothing
3. the floor of streaming: `mysqlbinlog --raw` of a backlog of changes, and a dump thrown away (bench/floor); beside it capture alone,
   and the decoder by itself with the other readers written in Rust (bench/decode.py)
4. applying: `weir run --until-caught-up` of that backlog, onto a table seeded before
5. through Kafka, with counts in ClickHouse, beside the direct way: another such backlog by one process and by `weir capture` with
   one to three `weir apply`, CPU by process, freshness, and what the trace takes (bench/kafka.py)
6. deep reconcile of a table that is equal, and of one that differs, beside a checksum of every row by the server (bench/deep.py)
7. the table engine by itself, without MySQL, beside delta-rs MERGE and a table written once (bench/engine.py)

Each figure is taken BENCH_REPEATS times; min, median and max are shown. Seconds are wall clock from the start of the process
to its end, CPU and peak memory the kernel's account of that process alone. Before weir's figures count, DuckDB has to find the
tables equal to the source in rows and sums. Prints a table and writes bench/out/results.json.

Environment:
  BENCH_ROWS      rows to seed (default 5000000)
  BENCH_CHANGES   changes in the backlog (default 1000000)
  BENCH_HOT_ROWS  rows of the table that the backlog changes (default 1000000)
  BENCH_REPEATS   (default 3)
  BENCH_SPLIT_REPEATS       of `weir capture` with `weir apply` (default 1; 0: leave it out)
  BENCH_FRESH_SECONDS       of each measurement of freshness (default 20; 0: leave it out)
  BENCH_FRESH_RATES         changes a second (default 1000,20000)
  BENCH_FRESH_INTERVALS_MS  commit_interval_ms (default 200,1000)
  BENCH_DIR       keep the server's data here and use it again, instead of in a temporary folder
  BENCH_DEEP_ROWS rows of the table that deep reconcile compares (default 5000000)
  BENCH_ONLY      "seed", "apply", "decode" (3 alone), "kafka", "deep" or "engine": only that part
  BENCH_ENGINE_…  as bench/engine.py says
  BENCH_PEERS     the Python of an environment with bench/peers.txt: seed by others, too (bench/peers.py)
  WEIR_BIN, FLOOR_BIN  the programs (default target/release/weir, target/bench-floor/release/floor)
"""

import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from decode import bench_decode
from deep import bench_deep
from engine import bench_engine, print_engine
from kafka import bench_kafka, print_details
from lake import WEIR, Lake
from measure import REPEATS, Figure, Run, measure, repeat, say, say_run
from peers import PYTHON as PEERS
from peers import bench_peers
from source import ROOT, Source

MYSQL_BIN = pathlib.Path(os.environ.get("WEIR_SERVICES_DIR", ROOT / "target/services")) / "mysql/bin"
FLOOR = os.environ.get("FLOOR_BIN", str(ROOT / "target/bench-floor/release/floor"))
OUT = ROOT / "bench/out"

SEED_ROWS = int(os.environ.get("BENCH_ROWS", 5_000_000))
CHANGES = int(os.environ.get("BENCH_CHANGES", 1_000_000))
DEEP_ROWS = int(os.environ.get("BENCH_DEEP_ROWS", 5_000_000))
HOT_ROWS = int(os.environ.get("BENCH_HOT_ROWS", 1_000_000))


# --- beside the floor ---


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
    lake.remove()
    if PEERS:
        figures |= bench_peers(source, work, SEED_ROWS)
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
    backlog = source.write_backlog(CHANGES, HOT_ROWS)
    changes = backlog["changes"]
    figures = bench_stream(source, backlog, work)

    def apply(run: Callable[[], Run]) -> Run:
        shutil.rmtree(lake.folder, ignore_errors=True)
        shutil.copytree(seeded, lake.folder)
        return run()

    # By turns, so that a machine that changes its mind does so to both; the time without counts says nothing, since the end
    # waits for a trace that does not come.
    traced, untraced = [], []
    for ordinal in range(REPEATS):
        untraced.append(apply(lake.run_untraced))
        traced.append(apply(lake.run_weir))
        say_run("weir, applying", changes, traced[-1], ordinal, REPEATS)
    figures["apply"] = Figure("weir, applying", changes, traced)
    figures["apply_untraced"] = Figure("the same without counts", changes, untraced)
    lake.check()
    backlog["lake_mib"] = {"seeded": round(seeded_mib, 1), "applied": round(lake.size_mib(), 1)}
    return figures, backlog


def bench_stream(source: Source, backlog: dict, work: pathlib.Path) -> dict[str, Figure]:
    """The backlog's way out of the server and into Arrow, without a lake."""
    changes = backlog["changes"]
    floor = {
        "mysqlbinlog": repeat("mysqlbinlog --raw", changes, lambda: copy_binlog(source, backlog, work)),
        "dump": repeat("dump thrown away", changes, lambda: dump_binlog(source, backlog, work)),
    }
    return floor | bench_decode(source, backlog, work)


def bench_stream_alone(source: Source, work: pathlib.Path) -> tuple[dict[str, Figure], dict]:
    source.fill("bench.hot", HOT_ROWS, again=True)
    backlog = source.write_backlog(CHANGES, HOT_ROWS)
    return bench_stream(source, backlog, work), backlog


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


def write_results(figures: dict[str, Figure], ratios: dict[str, float], backlog: dict | None, kafka: dict | None, engine: dict | None) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    results = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cpus": os.cpu_count(), "processor": processor(), "system": platform.platform()},
        "commit": subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip(),
        "repeats": REPEATS,
        "figures": {name: figure.to_json() for name, figure in figures.items()},
        "ratios": ratios,
        "backlog": backlog,
        "kafka": kafka,
        "engine": engine,
    }
    (OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def ratios_of(figures: dict[str, Figure]) -> dict[str, float]:
    """weir's median rows a second as a share of each floor's, and through Kafka as a share of direct."""
    pairs = [("seed", "select_1"), ("seed", "select_2"), ("seed", "connectorx"), ("seed", "dlt"), ("apply", "mysqlbinlog"), ("apply", "dump")]
    pairs += [("decode_weir", "decode_mysql_cdc"), ("decode_weir", "decode_mysql_common"), ("capture", "mysqlbinlog"), ("capture", "dump")]
    pairs += [("deep", "crc32"), ("deep", "sha2")]
    pairs += [(name, "apply_direct") for name in figures if name.startswith(("apply_kafka", "capture_apply"))]
    ratios = {
        f"{ours}/{floor}": round(figures[ours].rows_per_second()["median"] / figures[floor].rows_per_second()["median"], 3)
        for ours, floor in pairs
        if ours in figures and floor in figures
    }
    if "apply_untraced" in figures:
        cpu = {name: figures[name].spread(lambda run: run.cpu_seconds)["median"] for name in ("apply", "apply_untraced")}
        ratios["apply, CPU with counts/without"] = round(cpu["apply"] / cpu["apply_untraced"], 3)
    return ratios


def print_table(figures: dict[str, Figure], ratios: dict[str, float], kafka: dict | None, engine: dict | None) -> None:
    if figures:
        print_figures(figures, ratios)
    if kafka:
        print_details(kafka)
    if engine:
        print_engine(engine)
    print(f"\nwritten to {(OUT / 'results.json').relative_to(ROOT)}")


def print_figures(figures: dict[str, Figure], ratios: dict[str, float]) -> None:
    print(f"\n{'':26} {'rows':>10} {'thousand rows/s':>24} {'CPU-s per M rows':>17} {'peak MiB':>9}")
    print(f"{'':26} {'':>10} {'min':>8}{'median':>8}{'max':>8} {'median':>17} {'max':>9}")
    for figure in figures.values():
        shown = figure.to_json()
        speed = "".join(f"{shown['rows_per_second'][part] / 1000:8,.0f}" for part in ("min", "median", "max"))
        cpu = shown["cpu_seconds_per_million_rows"]["median"]
        print(f"{figure.name:26} {figure.rows:10,} {speed} {cpu:17.2f} {shown['peak_mib']['max']:9.0f}")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> None:
    if len(sys.argv) > 1:
        print(__doc__)
        raise SystemExit(0 if sys.argv[1] in ("-h", "--help") else 2)
    only = os.environ.get("BENCH_ONLY", "")
    programs = {"kafka": [WEIR], "deep": [WEIR], "engine": [], "decode": [FLOOR]}.get(only, [WEIR, FLOOR])
    for program in programs:
        if not os.access(program, os.X_OK):
            raise SystemExit(f"bench: there is no {program}; run make bench")
    work = pathlib.Path(tempfile.mkdtemp(prefix="weir-bench-"))
    try:
        figures, backlog, kafka = bench_service(work, only) if only != "engine" else ({}, None, None)
        engine = bench_engine(work) if only in ("", "engine") else None
        ratios = ratios_of(figures)
        write_results(figures, ratios, backlog, kafka, engine)
        print_table(figures, ratios, kafka, engine)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def bench_service(work: pathlib.Path, only: str) -> tuple[dict[str, Figure], dict | None, dict | None]:
    """What needs a MySQL server: figures, the backlog, what was measured through Kafka."""
    kept = os.environ.get("BENCH_DIR")
    source = Source(pathlib.Path(kept).resolve() if kept else work / "mysql")
    try:
        source.make_tables()
        figures: dict[str, Figure] = {}
        backlog = kafka = None
        if only in ("", "seed"):
            figures |= bench_seed(source, work)
        if only in ("", "apply"):
            applied, backlog = bench_apply(source, work)
            figures |= applied
        if only == "decode":
            figures, backlog = bench_stream_alone(source, work)
        if only in ("", "kafka"):
            carried, kafka = bench_kafka(source, work, CHANGES, HOT_ROWS)
            figures |= carried
        if only in ("", "deep"):
            figures |= bench_deep(source, work, DEEP_ROWS)
        return figures, backlog, kafka
    finally:
        source.stop()


if __name__ == "__main__":
    main()
