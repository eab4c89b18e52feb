"""Seeding by others: what reads the same table from the same server into a Delta table, in an environment of its own.

    python3 -m venv FOLDER && FOLDER/bin/pip install -r bench/peers.txt
    BENCH_PEERS=FOLDER/bin/python BENCH_ONLY=seed bench/run.py

`connectorx` reads in two partitions into Arrow, delta-rs writes that; `dlt` does the same with a pipeline around it (its sql_database
source, backend connectorx). Both copy and know nothing of changes. Each runs as a process of its own; what of its rows DuckDB
finds other than the source has them is said.
"""

import os
import pathlib
import shutil
from decimal import Decimal

from lake import sums_of
from measure import Figure, Run, measure, repeat, say
from source import Source

PYTHON = os.environ.get("BENCH_PEERS", "")

CONNECTORX = """
import sys
import connectorx
from deltalake import write_deltalake

url, folder = sys.argv[1:]
rows = connectorx.read_sql(url, "SELECT * FROM bench.sales", protocol="binary", partition_on="id", partition_num=2, return_type="arrow")
write_deltalake(folder, rows)
"""

DLT = """
import sys
import dlt
from dlt.sources.sql_database import sql_table

url, folder = sys.argv[1:]
rows = sql_table(url.replace("mysql://", "mysql+pymysql://"), table="sales", schema="bench", backend="connectorx", backend_kwargs={"conn": url, "protocol": "binary"})
pipeline = dlt.pipeline("bench", destination=dlt.destinations.filesystem(bucket_url=f"file://{folder}"), dataset_name="bench", pipelines_dir=folder + ".state")
pipeline.run(rows, table_format="delta", write_disposition="replace")
"""

PEERS = {"connectorx": ("connectorx, delta-rs", CONNECTORX), "dlt": ("dlt (connectorx)", DLT)}


def bench_peers(source: Source, work: pathlib.Path, rows: int) -> dict[str, Figure]:
    url = f"mysql://root@127.0.0.1:{source.port}/bench"
    figures = {}
    for name, (title, program) in PEERS.items():
        folder = work / name

        def copy(program: str = program, folder: pathlib.Path = folder) -> Run:
            for leftover in (folder, folder.with_name(folder.name + ".state")):
                shutil.rmtree(leftover, ignore_errors=True)
            folder.mkdir(parents=True)
            return measure([PYTHON, "-c", program, url, str(folder)], work / f"{name}.log")

        figures[name] = repeat(title, rows, copy)
        [table] = [found.parent for found in folder.glob("**/_delta_log")]
        expected, found = sums_of(source, "bench.sales", table)
        is_equal = [Decimal(value) for value in found] == [Decimal(value) for value in expected]
        say(f"{title}: " + ("equal to the source in rows and sums" if is_equal else f"{found} for {expected}"))
        shutil.rmtree(folder, ignore_errors=True)
    return figures
