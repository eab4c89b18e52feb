"""Reads whole tables with DuckDB.

    scan.py digest TABLE…            a line for each: a number of rows and a sum of hashes; equal for equal rows in any order
    scan.py time REPEATS TABLE…      a line for each: seconds that a scan of every column takes, again and again, taking turns

A table is a folder. weir's own columns are left out.
"""

import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/support"))
import lake_rows  # noqa: E402

COLUMNS = "id, buyer_id, article, price, ordered_at, changed_at, priority, mass_kg, remark, pieces, due_on, state"
DIGEST = f"COUNT(*), SUM(hash({COLUMNS})::HUGEINT)"
# Every column is decoded, and little is done with it.
EVERY_COLUMN = (
    "SUM(id), SUM(buyer_id), MAX(article), SUM(price), MAX(ordered_at), MAX(changed_at), SUM(priority), SUM(mass_kg), "
    "MAX(remark), SUM(pieces), MAX(due_on), MAX(state)"
)


def main() -> None:
    # DuckDB shows a bar on stdout where a query is slow.
    stdout = os.dup(1)
    os.dup2(2, 1)
    connection = lake_rows.connect_duckdb()

    def ask(expressions: str, table: str) -> str:
        # As text: some types would need packages of Python that nobody else does.
        columns = ", ".join(f"({part})::VARCHAR" for part in split(expressions))
        return " ".join(map(str, connection.execute(f"SELECT {columns} FROM delta_scan(?)", [table]).fetchone()))

    def answer(value: object) -> None:
        os.write(stdout, f"{json.dumps(value)}\n".encode())

    match sys.argv[1:]:
        case ["digest", *tables] if tables:
            for table in tables:
                answer(ask(DIGEST, table))
        case ["time", repeats, *tables] if tables:
            seconds: dict[str, list[float]] = {table: [] for table in tables}
            for _ in range(int(repeats)):
                for table in tables:
                    started = time.monotonic()
                    ask(EVERY_COLUMN, table)
                    seconds[table].append(time.monotonic() - started)
            for table in tables:
                answer(seconds[table])
        case _:
            raise SystemExit(__doc__)


def split(expressions: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth = [""], 0
    for character in expressions:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


if __name__ == "__main__":
    main()
