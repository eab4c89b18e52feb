"""Deep reconcile beside what the server alone takes to sum a checksum of every row.

`weir reconcile --deep` on a table that was just loaded, so that every row is read and hashed on both sides and all are equal;
and with rows that were changed behind the binlog's back, each of which has to be found. Beside it, on the same server:
COUNT(*) and SUM(CRC32(CONCAT_WS(…))), the check that people run by hand, whose 32 bits a row prove little, takes -0 for 0, and
knows nothing of the other side; and the same with SHA2, which is what asking the server for digests would take at least.
"""

import json
import pathlib
import time

from lake import Lake
from measure import Figure, Run, cpu_seconds, measure, repeat, say
from source import Source

TABLE = "bench.checked"
COLUMNS = "id, buyer_id, article, price, ordered_at, changed_at, priority, mass_kg, remark, pieces, due_on, state"
CHECKSUMS = {
    "crc32": f"SELECT COUNT(*), SUM(CRC32(CONCAT_WS('#', {COLUMNS}))) FROM {TABLE}",
    "sha2": f"SELECT COUNT(*), SUM(CONV(LEFT(SHA2(CONCAT_WS('#', {COLUMNS}), 256), 15), 16, 10)) FROM {TABLE}",
}
CHANGED_EVERY = 5_003


def bench_deep(source: Source, work: pathlib.Path, rows: int) -> dict[str, Figure]:
    source.query_none(f"CREATE TABLE IF NOT EXISTS {TABLE} LIKE bench.sales")
    source.fill(TABLE, rows, again=True)
    lake = Lake(work / "deep", source, TABLE)
    lake.start_from_nothing()
    say(f"loading {TABLE}: {lake.run_weir().seconds:.1f} s")
    lake.check()
    figures = {
        name: repeat(f"{name.upper()} of every row, by MySQL", rows, lambda sql=sql: checksum(source, sql)) for name, sql in CHECKSUMS.items()
    }
    figures["deep"] = repeat("weir reconcile --deep", rows, lambda: deep(source, lake, rows, 0))
    source.query_none(f"UPDATE {TABLE} SET state = 1 + (state + 1) MOD 5 WHERE id MOD {CHANGED_EVERY} = 0")
    changed = rows // CHANGED_EVERY
    figures["deep_different"] = repeat(f"the same, {changed:,} rows differ", rows, lambda: deep(source, lake, rows, changed))
    source.query_none(f"DROP TABLE {TABLE}")
    lake.remove()
    return figures


def checksum(source: Source, sql: str) -> Run:
    """The server's CPU is shown as the run's."""
    before, started = cpu_seconds(source.pid), time.monotonic()
    [count, *_] = source.query(sql)
    return Run(time.monotonic() - started, cpu_seconds(source.pid) - before, 0, str(count))


def deep(source: Source, lake: Lake, rows: int, different: int) -> Run:
    # Differences are told by exit code 3.
    command = ["sh", "-c", f'"$@"; test $? -eq {3 if different else 0}', "sh", *lake.command("reconcile", "--deep", "--format", "json")]
    run = measure(command, lake.log, beside={"mysqld": source.pid})
    [table] = json.loads(run.output)["tables"]
    found = table["deep"]
    counts = [found[name] for name in ("rows_source", "rows_table", "missing_count", "extra_count", "different_count", "in_flight_count")]
    if counts != [rows, rows, 0, 0, different, 0]:
        raise SystemExit(f"bench: deep reconcile found {found}")
    say(f"{run.seconds:.1f} s, {run.cpu_seconds:.1f} CPU-s and {run.beside['mysqld']:.1f} of mysqld, peak {run.peak_mib:.0f} MiB")
    return run
