"""What another engine does to a lake table: deltalake merges its files, or changes its rows.

    foreign.py --path FOLDER                                merges files
    foreign.py --path FOLDER --delete PREDICATE             deletes rows
    foreign.py --path FOLDER --update COLUMN=SQL --where P  changes a column
    foreign.py --path FOLDER --double PREDICATE             appends a copy of each row
    foreign.py --path FOLDER --null-key COLUMN              appends a row that has nothing but NULLs there

With --when-told it says `read` once it has the table's present version, and goes on from that when a line comes. Exit 3: it
lost against the table's writer.
"""

import argparse
import sys
from collections.abc import Callable

import deltalake
import pyarrow


def rows(table: deltalake.DeltaTable, predicate: str) -> pyarrow.Table:
    builder = deltalake.QueryBuilder().register("t", table)
    return pyarrow.table(builder.execute(f"SELECT * FROM t WHERE {predicate}"))


def append(table: deltalake.DeltaTable, added: pyarrow.Table) -> None:
    assert added.num_rows > 0, "no row to append"
    deltalake.write_deltalake(table, added, mode="append")


def change(arguments: argparse.Namespace) -> Callable[[deltalake.DeltaTable], object]:
    if arguments.delete:
        return lambda table: table.delete(arguments.delete)
    if arguments.update:
        column, _, value = arguments.update.partition("=")
        return lambda table: table.update(updates={column: value}, predicate=arguments.where)
    if arguments.double:
        return lambda table: append(table, rows(table, arguments.double))
    if arguments.null_key:
        return lambda table: append(table, nulls(rows(table, "TRUE LIMIT 1"), arguments.null_key))
    return lambda table: table.optimize.compact()


def nulls(added: pyarrow.Table, column: str) -> pyarrow.Table:
    at = added.schema.get_field_index(column)
    field = added.schema.field(at)
    return added.set_column(at, field, pyarrow.nulls(added.num_rows, field.type))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", required=True, help="the table's folder")
    parser.add_argument("--attempts", type=int, default=20, help="attempts that lose against the table's writer")
    parser.add_argument("--when-told", action="store_true")
    parser.add_argument("--delete", metavar="PREDICATE")
    parser.add_argument("--update", metavar="COLUMN=SQL")
    parser.add_argument("--where", metavar="PREDICATE")
    parser.add_argument("--double", metavar="PREDICATE")
    parser.add_argument("--null-key", metavar="COLUMN")
    arguments = parser.parse_args()
    run = change(arguments)
    for attempt in range(arguments.attempts):
        try:
            table = deltalake.DeltaTable(arguments.path)
            if arguments.when_told:
                print("read", flush=True)
                input()
            print(run(table))
            return
        except deltalake.exceptions.CommitFailedError as lost:
            if attempt + 1 == arguments.attempts:
                print(lost, file=sys.stderr)
                sys.exit(3)


main()
