"""What delta-rs does with the rows that weir has: writes them once, and merges the same batches by MERGE.

    delta_rs.py copy FROM TO        the live rows of a table of weir, without weir's own columns, as a new table
    delta_rs.py merge TABLE FILE…   one MERGE for each file of rows (Arrow IPC), on the key `id`; new rows are inserted
    delta_rs.py catch-up TABLE FILE…   one MERGE for all files together; of each key the last row counts

Prints a line of JSON for each table or batch: seconds, CPU seconds, bytes written. A process of its own, so that its memory and its
imports are not the measuring program's.
"""

import json
import pathlib
import sys
import time
from collections.abc import Iterator

import deltalake
import pyarrow
import pyarrow.ipc

COLUMNS = "id, buyer_id, article, price, ordered_at, changed_at, priority, mass_kg, remark, pieces, due_on, state"


class Clock:
    """Seconds, CPU seconds and new bytes in a folder, from its making on."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.before = files_of(folder)
        self.cpu = time.process_time()
        self.at = time.monotonic()

    def spent(self) -> dict:
        seconds, cpu_seconds = time.monotonic() - self.at, time.process_time() - self.cpu
        written = sum(size for path, size in files_of(self.folder).items() if path not in self.before)
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "bytes": written}


def files_of(folder: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def copy(source: str, target: str) -> None:
    clock = Clock(pathlib.Path(target))
    rows = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(source)).execute(f"SELECT {COLUMNS} FROM t")
    deltalake.write_deltalake(target, rows)
    print(json.dumps(clock.spent()))


def merge(target: str, batches: Iterator[pyarrow.Table]) -> None:
    table = deltalake.DeltaTable(target)
    for batch in batches:
        clock = Clock(pathlib.Path(target))
        merging = table.merge(source=batch, predicate="t.id = s.id", source_alias="s", target_alias="t")
        merging.when_matched_update_all().when_not_matched_insert_all().execute()
        print(json.dumps({"rows": batch.num_rows, **clock.spent()}), flush=True)


def rows_of(file: str) -> pyarrow.Table:
    with pyarrow.ipc.open_file(file) as reader:
        return reader.read_all()


def together(files: list[str]) -> pyarrow.Table:
    rows = pyarrow.concat_tables(map(rows_of, files))
    last = {key: place for place, key in enumerate(rows["id"].to_pylist())}
    return rows.take(list(last.values()))


def main() -> None:
    match sys.argv[1:]:
        case ["copy", source, target]:
            copy(source, target)
        case ["merge", target, *files] if files:
            merge(target, map(rows_of, files))
        case ["catch-up", target, *files] if files:
            merge(target, iter([together(files)]))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
