"""What `make bench-peers` runs: weir and others copy the same tables from the same server, and what each left wrong is counted.

    bench/side_by_side.py

1. seeding: `bench.sales` from nothing, by each in a process of its own; rows and sums of what it wrote are compared
2. values: one row with a value of every kind at its edge; columns that came out otherwise are named
3. following: rows are deleted, changed, and get other keys; each does what it does to follow, and rows that are missing, left over
   or different are counted

Of the others none reads the binlog: connectorx (with delta-rs) and sling copy everything again, dlt asks for rows whose `changed_at` is
newer and merges them by key. What they need is in an environment of its own (bench/peers.txt). A peer that fails at a table says so in
its cell. Prints one table and writes bench/out/peers.json.

Environment:
  BENCH_ROWS     rows to seed (default 1000000)
  BENCH_REPEATS  (default 3)
  BENCH_PEERS    the Python of the environment (default target/bench-peers/bin/python)
  WEIR_BIN       (default target/release/weir)
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable

from lake import Lake
from measure import Figure, Run, measure, repeat, say
from source import ROOT, Source

PYTHON = os.environ.get("BENCH_PEERS", str(ROOT / "target/bench-peers/bin/python"))
ROWS = int(os.environ.get("BENCH_ROWS", 1_000_000))
MOVED_ROWS = 10_000
OUT = ROOT / "bench/out/peers.json"

CONNECTORX = """
import sys
import connectorx
from deltalake import write_deltalake

url, folder, table, step = sys.argv[1:]
cut = {"partition_on": "id", "partition_num": 2} if step == "seed" else {}
rows = connectorx.read_sql(url, f"SELECT * FROM bench.{table}", protocol="binary", return_type="arrow", **cut)
write_deltalake(folder, rows, mode="overwrite", schema_mode="overwrite")
"""

DLT = """
import sys
import dlt
from dlt.sources.sql_database import sql_table

url, folder, table, step = sys.argv[1:]
follows = {"incremental": dlt.sources.incremental("changed_at"), "primary_key": "id"} if table == "moved" else {}
rows = sql_table(url.replace("mysql://", "mysql+pymysql://"), table=table, schema="bench", backend="connectorx",
                 backend_kwargs={"conn": url, "protocol": "binary"}, **follows)
disposition = {"disposition": "merge", "strategy": "upsert"} if follows else "replace"
pipeline = dlt.pipeline("bench_" + table, destination=dlt.destinations.filesystem(bucket_url=f"file://{folder}"), dataset_name="bench", pipelines_dir=folder + ".state")
pipeline.run(rows, table_format="delta", write_disposition=disposition)
"""

SLING = """
import os
import pathlib
import subprocess
import sys
import sling_linux_amd64

url, folder, table, step = sys.argv[1:]
program = pathlib.Path(sling_linux_amd64.__file__).parent / "bin/sling-linux-amd64"
program.chmod(0o755)
environment = {**os.environ, "SOURCE": url, "SLING_HOME_DIR": folder + ".state"}
subprocess.run([program, "run", "--src-conn", "SOURCE", "--src-stream", "bench." + table, "--tgt-object", f"file://{folder}/{table}.csv"],
               env=environment, check=True, stdout=sys.stderr)
"""

PEERS = {"connectorx": ("connectorx, delta-rs", CONNECTORX), "dlt": ("dlt (connectorx)", DLT), "sling": ("sling, to CSV", SLING)}

# A row of each kind of value at an edge, and what a reader has to find of it.
ODD_COLUMNS = "id INT PRIMARY KEY, big BIGINT UNSIGNED, exact DECIMAL(30,10), small TINYINT(1), span TIME(6), moment DATETIME(6), bytes VARBINARY(8), bits BIT(10), doc JSON, word VARCHAR(20), ratio FLOAT, year YEAR"
ODD_ROW = """1, 18446744073709551615, 12345678901234567890.0123456789, 2, '-12:34:56.000001', '2026-11-21 03:04:05.000006', X'00FF10', b'1000000001',
             '{"n": 9007199254740993}', 'Grüße 🚀', 0.1, 2155"""
# Reads in a process of its own, so that its memory does not count towards children that are measured later.
READ = """
import datetime, decimal, json, pathlib, struct, sys
sys.path.insert(0, sys.argv[1])
import lake_rows

def scan(folder):
    logs = sorted(pathlib.Path(folder).glob("**/_delta_log"))
    named = [log.parent for log in logs if not log.parent.name.startswith("_")]
    return f"delta_scan('{named[0]}')" if named else f"read_csv('{folder}/*.csv')"

def is_span(value):
    micros = -((12 * 60 + 34) * 60 + 56) * 1_000_000 - 1
    return value in (micros, datetime.timedelta(microseconds=micros)) or str(value) == "-12:34:56.000001"

RIGHT = {
    "big": lambda v: not isinstance(v, float) and int(v) == 2**64 - 1,
    "exact": lambda v: not isinstance(v, float) and decimal.Decimal(str(v)) == decimal.Decimal("12345678901234567890.0123456789"),
    "small": lambda v: not isinstance(v, bool) and int(v) == 2,
    "span": is_span,
    "moment": lambda v: str(v).startswith("2026-11-21 03:04:05.000006"),
    "bytes": lambda v: bytes(v) == b"\\x00\\xff\\x10",
    "bits": lambda v: int.from_bytes(v, "big") == 513 if isinstance(v, bytes) else int(v) == 513,
    "doc": lambda v: json.loads(v) == {"n": 9007199254740993},
    "word": lambda v: v == "Gr\\u00fc\\u00dfe \\U0001f680",
    "ratio": lambda v: struct.pack("f", float(v)) == struct.pack("f", 0.1),
    "year": lambda v: int(v) == 2155,
}
connection, folder, what = lake_rows.connect_duckdb(), sys.argv[2], sys.argv[3]
if what == "odd":
    wrong = []
    for column, is_right in RIGHT.items():
        try:
            [value] = connection.execute(f'SELECT "{column}" FROM {scan(folder)} WHERE id = 1').fetchone()
            wrong += [] if is_right(value) else [column]
        except Exception:
            wrong.append(column)
    answer = wrong
else:
    answer = connection.execute(f"SELECT {what} FROM {scan(folder)}").fetchall()
print("answer:" + json.dumps(answer, default=str))
"""


def read(folder: pathlib.Path, what: str) -> list:
    command = [sys.executable, "-c", READ, str(ROOT / "tests/support"), str(folder), what]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.rsplit("answer:", 1)[1])


def make_tables(source: Source) -> None:
    source.make_tables()
    source.fill("bench.sales", ROWS, again=False)
    for statement in [
        "DROP TABLE IF EXISTS bench.odd, bench.moved",
        f"CREATE TABLE bench.odd ({ODD_COLUMNS})",
        f"INSERT INTO bench.odd VALUES ({ODD_ROW})",
    ]:
        source.query_none(statement)
    for column in odd_columns():
        source.query_none(f"DROP TABLE IF EXISTS bench.odd_{column}")
        source.query_none(f"CREATE TABLE bench.odd_{column} (PRIMARY KEY (id)) AS SELECT id, {column} FROM bench.odd")
    fill_moved(source)


def odd_columns() -> list[str]:
    return [column.strip().split(" ")[0] for column in ODD_COLUMNS.split(", ")][1:]


def fill_moved(source: Source) -> None:
    """As it is before it changes. Its rows are of long ago, so that whoever looks for newer ones finds those that change."""
    source.query_none("DROP TABLE IF EXISTS bench.moved")
    source.query_none("CREATE TABLE bench.moved (id INT PRIMARY KEY, v INT NOT NULL, changed_at DATETIME NOT NULL)")
    source.query_none(
        "INSERT INTO bench.moved SELECT high.n * 1000 + low.n + 1, low.n, '2026-01-01' FROM bench.counter high JOIN bench.counter low "
        f"WHERE high.n < {MOVED_ROWS // 1000}"
    )


def move(source: Source) -> None:
    """A tenth of the rows goes, a twentieth gets another key, another twentieth another value. In the binlog, as it is to be followed."""
    with source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 1")
        cursor.execute("DELETE FROM bench.moved WHERE id % 10 = 0")
        cursor.execute(f"UPDATE bench.moved SET id = id + {MOVED_ROWS}, changed_at = NOW() WHERE id % 20 = 1")
        cursor.execute("UPDATE bench.moved SET v = v + 1000000, changed_at = NOW() WHERE id % 20 = 2")


def rows_of(source: Source) -> dict[int, int]:
    with source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, v FROM bench.moved")
        return dict(cursor.fetchall())


def what_is_wrong(expected: dict[int, int], found: list) -> str:
    """Of rows that were followed."""
    by_id: dict[int, list[int]] = {}
    for key, value in found:
        by_id.setdefault(int(key), []).append(int(value))
    missing = len(expected.keys() - by_id.keys())
    left_over = sum(len(values) if key not in expected else len(values) - 1 for key, values in by_id.items())
    different = sum(1 for key, values in by_id.items() if key in expected and expected[key] not in values)
    counts = [(missing, "missing"), (left_over, "left over"), (different, "different")]
    return ", ".join(f"{count} {what}" for count, what in counts if count) or "nothing"


class Copier:
    """Someone who copies tables: `step` is "seed" or "follow"."""

    def __init__(self, name: str, title: str, copy: Callable[[str, str], Run], folder: Callable[[str], pathlib.Path]) -> None:
        self.name, self.title, self.copy, self.folder = name, title, copy, folder

    def attempt(self, work: Callable[[], str]) -> str:
        try:
            return work()
        except (SystemExit, subprocess.CalledProcessError) as failure:
            last = str(failure).strip().splitlines()[-1:] or ["failed"]
            say(f"{self.title}: {failure}")
            return f"fails: {last[0].strip()[:80]}"


def peer(name: str, source: Source, work: pathlib.Path) -> Copier:
    title, program = PEERS[name]
    url = f"mysql://root@127.0.0.1:{source.port}/bench"

    def folder(table: str) -> pathlib.Path:
        return work / name / table

    def copy(table: str, step: str) -> Run:
        at = folder(table)
        if step == "seed":
            for leftover in (at, at.with_name(at.name + ".state")):
                shutil.rmtree(leftover, ignore_errors=True)
            at.mkdir(parents=True)
        return measure([PYTHON, "-c", program, url, str(at), table, step], work / f"{name}.log")

    return Copier(name, title, copy, folder)


def weir(source: Source, work: pathlib.Path) -> Copier:
    tables = ["sales", "odd", "moved", *(f"odd_{column}" for column in odd_columns())]
    lakes = {table: Lake(work / f"weir-{table}", source, f"bench.{table}") for table in tables}

    def copy(table: str, step: str) -> Run:
        if step == "seed":
            lakes[table].start_from_nothing()
        return lakes[table].run_weir()

    return Copier("weir", "weir", copy, lambda table: lakes[table].table_folder())


def measured(copier: Copier, source: Source) -> dict:
    figures: list[Figure] = []

    def seed() -> str:
        figures.append(repeat(copier.title, ROWS, lambda: copier.copy("sales", "seed")))
        sums = "COUNT(*), SUM(id), SUM(CAST(price AS DECIMAL(30,2))), COALESCE(SUM(pieces), 0)"
        expected = [float(value) for value in source.query(f"SELECT {sums} FROM bench.sales")]
        [found] = read(copier.folder("sales"), sums)
        return "equal" if [float(value) for value in found] == expected else f"{found} for {expected}"

    def values() -> str:
        try:
            copier.copy("odd", "seed")
            return ", ".join(read(copier.folder("odd"), "odd")) or "nothing"
        except SystemExit:
            # One column at a time, since one that fails takes the others with it.
            return ", ".join(filter(None, map(value, odd_columns()))) or "nothing"

    def value(column: str) -> str:
        try:
            copier.copy(f"odd_{column}", "seed")
        except SystemExit:
            return f"{column} (fails)"
        return column if column in read(copier.folder(f"odd_{column}"), "odd") else ""

    def follow() -> str:
        fill_moved(source)
        copier.copy("moved", "seed")
        move(source)
        copier.copy("moved", "follow")
        return what_is_wrong(rows_of(source), read(copier.folder("moved"), "id, v"))

    result = {"seeded": copier.attempt(seed), "values": copier.attempt(values), "followed": copier.attempt(follow)}
    return result | (figures[0].to_json() if figures else {})


def print_table(results: dict[str, dict]) -> None:
    header = ["", "rows/s", "CPU-s per M rows", "peak MiB", "seeded", "columns that came out wrong", "wrong after deletes, changed keys, updates"]
    lines = [header]
    for title, result in results.items():
        def median(name: str, digits: int = 0) -> str:
            return f"{result[name]['median']:,.{digits}f}" if name in result else "-"
        lines.append([title, median("rows_per_second"), median("cpu_seconds_per_million_rows", 2), median("peak_mib"), result["seeded"], result["values"], result["followed"]])
    for number, line in enumerate(lines):
        print("| " + " | ".join(line) + " |")
        if number == 0:
            print("| " + " | ".join("---" for _ in header) + " |")


def main() -> int:
    if not pathlib.Path(PYTHON).exists():
        raise SystemExit(f"bench: {PYTHON} is not there; `make bench-peers` makes the environment")
    work = pathlib.Path(tempfile.mkdtemp(prefix="weir-bench-peers-"))
    source = Source(work / "mysql")
    try:
        make_tables(source)
        copiers = [weir(source, work)] + [peer(name, source, work) for name in PEERS]
        results = {copier.title: measured(copier, source) for copier in copiers}
    finally:
        source.stop()
        shutil.rmtree(work, ignore_errors=True)
    print_table(results)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"rows": ROWS, "peers": results}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
