"""The table engine by itself: what a commit costs by the size of the table, upserts a second, upkeep, restarts, and what others make
of the same rows. benches/engine does the work, a process for each phase; there is no MySQL in it.

Beside it, in the same sitting: delta-rs MERGE with the same batches on the same rows, and DuckDB's full scan of the table after all
those commits against the same rows written once by delta-rs. Figures count only if the tables are equal by a digest of every row.

Environment:
  BENCH_ENGINE_ROWS         sizes of tables, the smallest first (default 1000000,10000000; the target is 1000000,50000000)
  BENCH_ENGINE_SAMPLES      commits timed on each (default 20)
  BENCH_ENGINE_COMMIT_ROWS  random updates in each of them (default 10000)
  BENCH_ENGINE_COMMITS      commits in a row on the smallest, with upkeep (default 2000; 0: leave it out)
  BENCH_ENGINE_CHANGES      backlog applied to the smallest (default 1000000)
  BENCH_ENGINE_MERGE_ROWS   sizes of tables that delta-rs merges into (default 1000000,10000000; empty: leave it out)
  BENCH_ENGINE_MERGES       batches that it merges (default 3)
  BENCH_ENGINE_SCANS        repeats of each scan (default 5)
  ENGINE_BIN                the program (default: the one that target/bench-engine.json names)
"""

import json
import os
import pathlib
import shutil
import statistics
import sys

from measure import Run, measure, say

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD_MESSAGES = ROOT / "target/bench-engine.json"


def sizes(name: str, default: str) -> list[int]:
    return sorted({int(size) for size in os.environ.get(name, default).split(",") if size})


ROWS = sizes("BENCH_ENGINE_ROWS", "1000000,10000000")
MERGE_ROWS = sizes("BENCH_ENGINE_MERGE_ROWS", "1000000,10000000")
SAMPLES = int(os.environ.get("BENCH_ENGINE_SAMPLES", 20))
COMMIT_ROWS = int(os.environ.get("BENCH_ENGINE_COMMIT_ROWS", 10_000))
COMMITS = int(os.environ.get("BENCH_ENGINE_COMMITS", 2_000))
CHANGES = int(os.environ.get("BENCH_ENGINE_CHANGES", 1_000_000))
MERGES = int(os.environ.get("BENCH_ENGINE_MERGES", 3))
SCANS = int(os.environ.get("BENCH_ENGINE_SCANS", 5))
# Commits at either end of a long row that are compared.
ENDS = 100
# What is asked of the engine: (name of a ratio, whether it may be at most or must be at least that).
TARGETS = {
    "commit_ms_large/small": ("<=", 1.5),
    "commit_bytes_large/small": ("<=", 1.5),
    "steady_ms_last/first": ("<=", 1.3),
    "upserts_per_cpu_second/200000": (">=", 1.0),
    "merge/commit_seconds": (">=", 50.0),
    "merge/commit_bytes": (">=", 50.0),
    "scan_weir/written_once": ("<=", 1.3),
}


class Engine:
    """benches/engine on tables in a folder of their own."""

    def __init__(self, work: pathlib.Path) -> None:
        self.program, self.work, self.log = program(), work, work / "engine.log"

    def folder(self, rows: int) -> pathlib.Path:
        return self.work / f"rows-{rows}"

    def table(self, rows: int) -> pathlib.Path:
        return self.folder(rows) / "lake/bench/hot"

    def phase(self, name: str, table_rows: int, /, **arguments: object) -> tuple[list[dict], dict]:
        """Lines of its commits, and what it sums up, with the kernel's account of the process."""
        options = [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
        run = measure([self.program, name, str(self.folder(table_rows)), *options], self.log)
        lines = [json.loads(line) for line in run.output.splitlines()]
        return lines[:-1], {**lines[-1], "process_seconds": run.seconds, "process_cpu_seconds": run.cpu_seconds}

    def python(self, script: str, *arguments: object) -> Run:
        """In a process of its own: what it imports must not count towards children that are measured later."""
        return measure([sys.executable, str(ROOT / "bench" / script), *map(str, arguments)], self.log)

    def must_be_equal(self, rows: int, other: pathlib.Path) -> None:
        ours, theirs = self.python("scan.py", "digest", self.table(rows), other).output.splitlines()
        if ours != theirs:
            raise SystemExit(f"bench: the tables are not equal: {ours} in weir's, {theirs} in delta-rs's")
        say(f"engine: equal by digest: {ours}")


def program() -> str:
    """The benchmark's binary, whose name cargo makes up: from what it said while it built it."""
    if chosen := os.environ.get("ENGINE_BIN"):
        return chosen
    if BUILD_MESSAGES.exists():
        for line in BUILD_MESSAGES.read_text().splitlines():
            message = json.loads(line)
            if message.get("executable") and message["target"]["name"] == "engine":
                return message["executable"]
    raise SystemExit("bench: benches/engine has not been built; run make bench")


def bench_engine(work: pathlib.Path) -> dict:
    engine = Engine(work)
    small, results = ROWS[0], {"tables": {}, "merge": {}}
    for rows in sorted({*ROWS, *MERGE_ROWS}):
        results["tables"][rows] = bench_table(engine, rows, results["merge"])
        if rows != small:
            shutil.rmtree(engine.folder(rows))
    results["apply"] = bench_apply(engine, small)
    if COMMITS:
        results["steady"] = bench_steady(engine, small)
    results["restart"] = restart(engine, small)
    results["scan"] = bench_scan(engine, small)
    results["ratios"] = ratios_of(results)
    shutil.rmtree(engine.folder(small))
    return results


# --- one size of table ---


def bench_table(engine: Engine, rows: int, merges: dict) -> dict:
    _, seed = engine.phase("seed", rows, rows=rows)
    say(f"engine: seeded {rows:,} rows in {seed['seconds']:.1f} s, {seed['file_bytes'] / 2**20:,.0f} MiB")
    table = {"seed": seed, "restart": restart(engine, rows)}
    exported = engine.work / f"batches-{rows}"
    copied = engine.work / f"merged-{rows}"
    if rows in MERGE_ROWS:
        copied.mkdir()
        engine.python("delta_rs.py", "copy", engine.table(rows), copied)
    exported.mkdir()
    lines, summary = engine.phase("update", rows, commits=SAMPLES, rows=COMMIT_ROWS, export=exported)
    table["commits"] = summary | {name: median(line[name] for line in lines) for name in ("ms", "bytes")}
    # The kernel counts in steps of 10 ms, which only a sum evens out.
    table["commits"]["cpu_ms"] = statistics.fmean(line["cpu_ms"] for line in lines)
    say(f"engine: {rows:,} rows: a commit of {COMMIT_ROWS:,} updates {table['commits']['ms']:.1f} ms, {table['commits']['bytes']:,.0f} bytes")
    if rows in MERGE_ROWS:
        merges[rows] = bench_merge(engine, rows, copied, sorted(exported.iterdir()), lines)
        shutil.rmtree(copied)
    shutil.rmtree(exported)
    return table


def bench_merge(engine: Engine, rows: int, copied: pathlib.Path, batches: list[pathlib.Path], commits: list[dict]) -> dict:
    """MERGE of the first batches, against weir's commits of them; the others then make the tables equal, for the digest."""
    run = engine.python("delta_rs.py", "merge", copied, *batches[:MERGES])
    merges = [json.loads(line) for line in run.output.splitlines()]
    if MERGES < len(batches):
        engine.python("delta_rs.py", "catch-up", copied, *batches[MERGES:])
    engine.must_be_equal(rows, copied)
    merged, committed = merges[:MERGES], commits[:MERGES]
    result = {
        "batches": len(merged),
        "seconds": median(merge["seconds"] for merge in merged),
        "cpu_seconds": median(merge["cpu_seconds"] for merge in merged),
        "bytes": median(merge["bytes"] for merge in merged),
        "peak_mib": run.peak_mib,
        "weir_seconds": median(commit["ms"] / 1e3 for commit in committed),
        "weir_cpu_seconds": statistics.fmean(commit["cpu_ms"] for commit in commits) / 1e3,
        "weir_bytes": median(commit["bytes"] for commit in committed),
    }
    say(f"engine: {rows:,} rows: delta-rs MERGE {result['seconds']:.2f} s, {result['bytes'] / 2**20:,.0f} MiB")
    return result


def restart(engine: Engine, rows: int) -> dict:
    """Opening with what earlier processes left on local disk, and without."""
    _, kept = engine.phase("open", rows)
    shutil.rmtree(engine.folder(rows) / "state", ignore_errors=True)
    _, rebuilt = engine.phase("open", rows)
    say(f"engine: {rows:,} rows: opened in {kept['seconds']:.2f} s, without local caches in {rebuilt['seconds']:.2f} s")
    return {"kept": kept, "rebuilt": rebuilt, "rebuilt_rows_per_second": rebuilt["rows"] / rebuilt["seconds"]}


# --- on the smallest ---


def bench_apply(engine: Engine, rows: int) -> dict:
    _, applied = engine.phase("apply", rows, changes=CHANGES)
    applied["upserts_per_second"] = applied["changes"] / applied["seconds"]
    applied["upserts_per_cpu_second"] = applied["changes"] / applied["cpu_seconds"]
    say(f"engine: {CHANGES:,} upserts: {applied['upserts_per_second']:,.0f}/s, {applied['upserts_per_cpu_second']:,.0f} a CPU second")
    return applied


def bench_steady(engine: Engine, rows: int) -> dict:
    lines, summary = engine.phase("update", rows, commits=COMMITS, rows=COMMIT_ROWS)
    ends = min(ENDS, len(lines) // 2 or 1)

    def end(part: list[dict]) -> dict:
        return {
            "ms": median(line["ms"] for line in part),
            "ms_with_upkeep": statistics.fmean(line["ms"] + line["upkeep_ms"] for line in part),
            "bytes": median(line["bytes"] for line in part),
        }

    objects = [path.stat().st_size for path in engine.table(rows).rglob("*") if path.is_file()]
    steady = {
        "commits": COMMITS,
        "first": end(lines[:ends]),
        "last": end(lines[-ends:]),
        "ends": ends,
        "files": summary["files"],
        "objects": len(objects),
        "object_bytes": sum(objects),
        "log_objects": len(list((engine.table(rows) / "_delta_log").iterdir())),
        "peak_mib": summary["peak_mib"],
    }
    say(f"engine: {COMMITS:,} commits: first {steady['first']['ms']:.1f} ms, last {steady['last']['ms']:.1f} ms, {steady['files']:,} files")
    return steady


def bench_scan(engine: Engine, rows: int) -> dict:
    once = engine.work / "written-once"
    once.mkdir()
    engine.python("delta_rs.py", "copy", engine.table(rows), once)
    engine.must_be_equal(rows, once)
    run = engine.python("scan.py", "time", SCANS, engine.table(rows), once)
    ours, theirs = (json.loads(line) for line in run.output.splitlines())
    shutil.rmtree(once)
    return {"weir_seconds": median(ours), "written_once_seconds": median(theirs), "repeats": SCANS}


def median(values) -> float:
    return statistics.median(list(values))


# --- the result ---


def ratios_of(results: dict) -> dict[str, float]:
    small, large = (results["tables"][rows]["commits"] for rows in (ROWS[0], ROWS[-1]))
    ratios = {
        "commit_ms_large/small": large["ms"] / small["ms"],
        "commit_bytes_large/small": large["bytes"] / small["bytes"],
        "upserts_per_cpu_second/200000": results["apply"]["upserts_per_cpu_second"] / 200_000,
        "scan_weir/written_once": results["scan"]["weir_seconds"] / results["scan"]["written_once_seconds"],
    }
    if "steady" in results:
        ratios["steady_ms_last/first"] = results["steady"]["last"]["ms"] / results["steady"]["first"]["ms"]
    if results["merge"]:
        merge = results["merge"][max(results["merge"])]
        ratios["merge/commit_seconds"] = merge["seconds"] / merge["weir_seconds"]
        ratios["merge/commit_bytes"] = merge["bytes"] / merge["weir_bytes"]
    return {name: round(ratio, 3) for name, ratio in ratios.items()}


def print_engine(results: dict) -> None:
    print(f"\n{'engine: table':>14}{'seed rows/s':>13}{'commit ms':>11}{'CPU ms':>8}{'KiB':>8}{'open s':>8}{'rebuild s':>11}{'peak MiB':>10}")
    for rows, table in results["tables"].items():
        commits, restarts = table["commits"], table["restart"]
        print(
            f"{rows:14,}{rows / table['seed']['seconds']:13,.0f}{commits['ms']:11.1f}{commits['cpu_ms']:8.0f}{commits['bytes'] / 1024:8,.0f}"
            f"{restarts['kept']['seconds']:8.2f}{restarts['rebuilt']['seconds']:11.2f}{restarts['rebuilt']['peak_mib']:10,.0f}"
        )
    for rows, merge in results["merge"].items():
        print(
            f"delta-rs MERGE on {rows:,} rows: {merge['seconds']:.2f} s, {merge['cpu_seconds']:.2f} CPU-s, {merge['bytes'] / 2**20:,.1f} MiB a batch; "
            f"weir {merge['weir_seconds']:.3f} s, {merge['weir_cpu_seconds']:.3f} CPU-s, {merge['weir_bytes'] / 2**20:,.1f} MiB"
        )
    apply = results["apply"]
    print(f"upserts: {apply['upserts_per_second']:,.0f}/s, {apply['upserts_per_cpu_second']:,.0f} a CPU second, in {apply['commits']} commits")
    if steady := results.get("steady"):
        print(
            f"{steady['commits']:,} commits: first {steady['ends']} {steady['first']['ms']:.1f} ms ({steady['first']['ms_with_upkeep']:.1f} with upkeep), "
            f"last {steady['last']['ms']:.1f} ms ({steady['last']['ms_with_upkeep']:.1f}); then {steady['files']:,} files, "
            f"{steady['objects']:,} objects of {steady['object_bytes'] / 2**20:,.0f} MiB, {steady['log_objects']:,} in the log"
        )
    restarts, scan = results["restart"], results["scan"]
    print(
        f"restart then: {restarts['kept']['seconds']:.2f} s, without local caches {restarts['rebuilt']['seconds']:.2f} s "
        f"({restarts['rebuilt_rows_per_second']:,.0f} rows/s, {restarts['rebuilt']['peak_mib']:,.0f} MiB)"
    )
    print(f"DuckDB's full scan: {scan['weir_seconds']:.2f} s; of the rows written once {scan['written_once_seconds']:.2f} s")
    for name, ratio in results["ratios"].items():
        relation, bound = TARGETS[name]
        is_met = ratio <= bound if relation == "<=" else ratio >= bound
        print(f"{name}: {ratio:.2f} ({relation} {bound:g}: {'met' if is_met else 'NOT met'})")
