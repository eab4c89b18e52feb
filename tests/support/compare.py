"""Compares MySQL's tables with weir's Delta tables, row for row and value for value, through an independent reader.

    compare.py --url mysql://root@127.0.0.1:3306 --database w --warehouse /tmp/lake --reader duckdb

Also holds each column's Delta type against the column type table of INTERFACE, and weir's own columns against their rules.
`--mode soft` wants the flag of soft deletes in every row, and compares the rows that are not marked; `--mode append` folds the
changes of each key to the one of the greatest order, and wants every change of the stream there once.
Prints a JSON summary, with the first differences and without the equal tables if there are some; exit 0 if all is equal, 1 if not, 2 for wrong usage. The source must be
quiet and the lake caught up with it.
"""

import argparse
import decimal
import json
import re
import struct
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import lake_rows
import source_rows
from source_rows import SourceColumn, SourceTable
from workload import connect

SHOWN_MAX = 10
ORDER_COLUMNS = {"_weir_ts_ms": "long", "_weir_seq": "long"}
OWN_COLUMNS = {
    "upsert": ORDER_COLUMNS,
    "soft": {**ORDER_COLUMNS, "_weir_deleted": "boolean"},
    "append": {**ORDER_COLUMNS, "_weir_op": "string", "_weir_id": "string"},
}
# A column that a table is partitioned by, made of the rest of the name.
DAY_PREFIX = "day_of_"
MICROSECONDS_OF_DAY = 86_400_000_000


@dataclass
class Report:
    """What was found of one table."""

    table: str
    rows_source: int = 0
    rows_lake: int = 0
    counts: Counter = field(default_factory=Counter)
    # Rows that are marked as deleted, by `deleted`; rows of a log by operation.
    kinds: Counter = field(default_factory=Counter)
    shown: list[dict] = field(default_factory=list)

    def add(self, kind: str, **facts: object) -> None:
        self.counts[kind] += 1
        if len(self.shown) < SHOWN_MAX:
            self.shown.append({"kind": kind, **{name: shown_value(value) for name, value in facts.items()}})

    def to_json(self) -> dict:
        return {
            "table": self.table,
            "equal": not self.counts,
            "rows_source": self.rows_source,
            "rows_lake": self.rows_lake,
            "kinds": dict(self.kinds),
            "differences": dict(self.counts),
            "first_differences": self.shown,
        }


def shown_value(value: object) -> object:
    if isinstance(value, (str, bytes)) and len(value) > 200:
        value = value[:200] + (b"..." if isinstance(value, bytes) else "...")
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, tuple):
        return [shown_value(part) for part in value]
    return value if value is None or isinstance(value, (int, str, bool)) else str(value)


# --- equality of values ---


def equal_values(column: SourceColumn, expected: object, found: object) -> bool:
    if expected is None or found is None:
        return expected is found
    if column.delta_type in ("float", "double"):
        # Bits, since -0.0 == 0.0.
        return struct.pack("<d", expected) == struct.pack("<d", float(found))
    if column.is_json and expected != found:
        return equal_json(parse_json(expected), parse_json(found))
    if isinstance(expected, decimal.Decimal) or isinstance(found, decimal.Decimal):
        return not isinstance(found, (str, bytes, float)) and expected == found
    return type(expected) is type(found) and expected == found


class JsonNumber(str):
    """A JSON number as written: 1.10 and 1.1, 1e2 and 100.0 are equal, 2**64-1 and its double are not."""


def parse_json(text: object) -> object:
    if not isinstance(text, str):
        return ("not text", text)
    try:
        return json.loads(text, parse_float=JsonNumber, parse_int=JsonNumber, parse_constant=JsonNumber, object_pairs_hook=members)
    except ValueError:
        return ("not JSON", text)


def members(pairs: list[tuple[str, object]]) -> object:
    as_dict = dict(pairs)
    # A doubled member must not vanish in a dict.
    return as_dict if len(as_dict) == len(pairs) else ("doubled members", pairs)


def equal_json(expected: object, found: object) -> bool:
    if isinstance(expected, JsonNumber) and isinstance(found, JsonNumber):
        return equal_json_numbers(expected, found)
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(equal_json(value, found[name]) for name, value in expected.items())
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(equal_json, expected, found))
    return type(expected) is type(found) and expected == found


def equal_json_numbers(expected: JsonNumber, found: JsonNumber) -> bool:
    one, other = decimal.Decimal(expected), decimal.Decimal(found)
    if one == other:
        return one.is_signed() == other.is_signed() or one != 0
    # Two ways to write one double. Whole numbers and decimals of more digits than a double has must be equal as they are.
    is_double = all(set(text) & set(".eE") and len(decimal.Decimal(text).normalize().as_tuple().digits) <= 17 for text in (expected, found))
    return is_double and float(expected) == float(found)


# --- comparing a table ---


class Allowed(NamedTuple):
    """What the columns of the lake may have of what the source's were before."""

    extra_columns: bool
    wider_types: bool


def compare_table(connection, table: SourceTable, path: str, reader: str, mode: str | None, allowed: Allowed) -> Report:
    report = Report(f"{table.database}.{table.name}")
    if not lake_rows.exists(path):
        report.add("table missing", path=path)
        return report
    delta_types = lake_rows.column_types(path)
    mode = mode or mode_of(delta_types)
    partitions = lake_rows.partition_columns(path)
    compare_types(report, table, delta_types, mode, partitions, allowed)
    columns = [column for column in table.columns if column.name in delta_types]
    if any(name not in delta_types for name in table.key):
        return report
    key_at = [index for index, column in enumerate(columns) if column.name in table.key]
    made = [name for name in partitions if name.startswith(DAY_PREFIX)]
    lake = read_lake(report, path, reader, mode, columns, key_at, made)
    positions = [index for index, column in enumerate(table.columns) if column.name in delta_types]
    source = (tuple(row[index] for index in positions) for row in source_rows.read_rows(connection, table))
    if key_at:
        compare_by_key(report, columns, key_at, source, lake)
    else:
        compare_as_bags(report, columns, source, lake)
    return report


def mode_of(delta_types: dict[str, str]) -> str:
    if "_weir_op" in delta_types:
        return "append"
    return "soft" if "_weir_deleted" in delta_types else "upsert"


def compare_types(
    report: Report, table: SourceTable, delta_types: dict[str, str], mode: str, partitions: list[str], allowed: Allowed
) -> None:
    for column in table.columns:
        found = delta_types.get(column.name)
        if found is None:
            report.add("column missing", column=column.name)
        elif found != column.delta_type and not (allowed.wider_types and is_wider(found, column.delta_type)):
            report.add("column type", column=column.name, mysql=column.data_type, expected=column.delta_type, found=found)
    for name, expected in OWN_COLUMNS[mode].items():
        if delta_types.get(name) != expected:
            report.add("column type", column=name, expected=expected, found=delta_types.get(name))
    known = {column.name for column in table.columns} | OWN_COLUMNS[mode].keys() | set(partitions)
    for name in delta_types.keys() - known:
        if not allowed.extra_columns:
            report.add("column extra", column=name)


def is_wider(found: str, expected: str) -> bool:
    """Whether a column of the lake takes every value of a narrower one."""
    if (expected, found) in {("integer", "long"), ("float", "double")}:
        return True
    decimals = [re.fullmatch(r"decimal\((\d+), ?(\d+)\)", ty) for ty in (expected, found)]
    if not all(decimals):
        return False
    (precision, scale), (found_precision, found_scale) = ([int(digits) for digits in ty.groups()] for ty in decimals)
    return found_scale >= scale and found_precision - found_scale >= precision - scale


def read_lake(report: Report, path: str, reader: str, mode: str, columns: list[SourceColumn], key_at: list[int], made: list[str]):
    """Rows of the lake that stand for rows of the source, without weir's own columns, which are checked on the way."""
    own, names = list(OWN_COLUMNS[mode]), [column.name for column in columns]
    rows = lake_rows.read_rows(reader, path, [*made, *own, *names])
    if made:
        rows = partitioned_by_day(report, made, names, rows)
    split = ((dict(zip(own, row)), row[len(own) :]) for row in rows)
    live = {"upsert": unmarked, "soft": unmarked, "append": folded if key_at else summed}[mode]
    for values in live(report, split, key_at):
        report.rows_lake += 1
        yield values


def partitioned_by_day(report: Report, made: list[str], names: list[str], rows):
    """The rows without the columns that are made of others, which are checked on the way."""
    for row in rows:
        values = dict(zip(names, row[-len(names) :]))
        for name, found in zip(made, row):
            of = values[name.removeprefix(DAY_PREFIX)]
            expected = None if of is None else of // MICROSECONDS_OF_DAY
            if found != expected:
                report.add("partition", column=name, expected=expected, found=found)
        yield row[len(made) :]


def unmarked(report: Report, rows, key_at: list[int]):
    """Rows that are not marked as deleted. A key has one row, marked or not."""
    marked, live = set(), set()
    for facts, values in rows:
        for name, value in facts.items():
            if value is None:
                report.add("own column null", column=name, row=values[:4])
        key = tuple(values[index] for index in key_at)
        if facts.get("_weir_deleted"):
            report.kinds["deleted"] += 1
            if key in marked or key in live:
                report.add("key doubled in the lake", key=key)
            marked.add(key)
            continue
        if key in marked:
            report.add("key doubled in the lake", key=key)
        if "_weir_deleted" in facts:
            live.add(key)
        yield values


def changes(report: Report, rows):
    """The rows of a log, each of which must be a change that is there once."""
    ids, orders = set(), set()
    for facts, values in rows:
        op, order = facts["_weir_op"], (facts["_weir_ts_ms"], facts["_weir_seq"])
        report.kinds[str(op)] += 1
        if None in order or op not in ("r", "c", "u", "d") or (facts["_weir_id"] is None) != (op == "r"):
            report.add("own column wrong", facts=str(facts), row=values[:4])
            continue
        # Rows of a chunk share an order and have no id.
        if op != "r":
            if facts["_weir_id"] in ids or order in orders:
                report.add("change doubled in the lake", facts=str(facts))
            ids.add(facts["_weir_id"])
            orders.add(order)
        yield op, order, values


def folded(report: Report, rows, key_at: list[int]):
    """What the changes of each key come to: the one of the greatest order, unless it is a delete."""
    newest: dict[tuple, tuple] = {}
    for op, order, values in changes(report, rows):
        key = tuple(values[index] for index in key_at)
        if key not in newest or newest[key][0] < order:
            newest[key] = (order, op, values)
        elif newest[key][0] == order:
            report.add("row doubled in the lake", key=key)
    return (values for _, op, values in newest.values() if op != "d")


def summed(report: Report, rows, _key_at: list[int]):
    """Without a key: the rows of the last load, which have one order, and what was inserted and not deleted since. Updates have no
    image before them, so a log with some since then cannot be summed."""
    log = list(changes(report, rows))
    loaded = max((order for op, order, _ in log if op == "r"), default=None)
    bag: Counter = Counter()
    for op, order, values in log:
        if op == "r":
            bag[values] += order == loaded
        elif loaded is None or order > loaded:
            if op == "u":
                report.add("update in a table without a key", row=values[:4])
            bag[values] += -1 if op == "d" else 1
    for values, count in bag.items():
        if count < 0:
            report.add("more deletes than rows", row=values[:4])
        yield from [values] * count


def compare_by_key(report: Report, columns: list[SourceColumn], key_at: list[int], source, lake) -> None:
    by_key: dict[tuple, tuple] = {}
    for row in lake:
        key = tuple(row[index] for index in key_at)
        if key in by_key:
            report.add("key doubled in the lake", key=key)
        by_key[key] = row
    for expected in source:
        report.rows_source += 1
        key = tuple(expected[index] for index in key_at)
        found = by_key.pop(key, None)
        if found is None:
            report.add("row missing", key=key)
        elif found != expected or any(isinstance(value, float) for value in expected):
            compare_row(report, columns, key, expected, found)
    for key in by_key:
        report.add("row extra", key=key)


def compare_row(report: Report, columns: list[SourceColumn], key: tuple, expected: tuple, found: tuple) -> None:
    for column, expected_value, found_value in zip(columns, expected, found):
        if not equal_values(column, expected_value, found_value):
            report.add("value", key=key, column=column.name, expected=expected_value, found=found_value)


def compare_as_bags(report: Report, columns: list[SourceColumn], source, lake) -> None:
    """Tables without a key: equal rows must occur equally often."""

    def canonical(row: tuple) -> tuple:
        return tuple(repr(parse_json(value)) if column.is_json and value is not None else value for column, value in zip(columns, row))

    counts: Counter = Counter()
    for row in source:
        report.rows_source += 1
        counts[canonical(row)] += 1
    for row in lake:
        counts[canonical(row)] -= 1
    for row, count in counts.items():
        for _ in range(abs(count)):
            report.add("row missing" if count > 0 else "row extra", row=row[:6])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="mysql://user:password@host:port")
    parser.add_argument("--database", required=True, help="one, or several with commas between")
    parser.add_argument("--warehouse", required=True, help="a folder, or for deltalake an s3:// url; a table is WAREHOUSE/database/table")
    parser.add_argument("--tables", default="", help="names with commas between (default: all of each database)")
    parser.add_argument("--except-tables", default="", help="names with commas between")
    parser.add_argument("--reader", choices=lake_rows.READERS, default="duckdb")
    parser.add_argument("--mode", choices=OWN_COLUMNS, help="what a row of the lake stands for (default: as its columns say)")
    parser.add_argument("--extra-columns-allowed", action="store_true", help="for dropped and renamed columns, which stay in the lake")
    parser.add_argument("--wider-types-allowed", action="store_true", help="for columns that became narrower, which keep their type in the lake")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    connection = connect(arguments.url)
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # Only servers that can generate a primary key know it.
        if cursor.execute("SHOW VARIABLES LIKE 'show_gipk_in_create_table_and_information_schema'"):
            cursor.execute("SET SESSION show_gipk_in_create_table_and_information_schema = ON")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    left_out = set(arguments.except_tables.split(","))
    names = arguments.tables.split(",") if arguments.tables else None
    reports = [
        compare_table(
            connection,
            source_rows.describe(connection, database, name),
            lake_rows.table_path(arguments.warehouse, database, name),
            arguments.reader,
            arguments.mode,
            Allowed(arguments.extra_columns_allowed, arguments.wider_types_allowed),
        )
        for database in arguments.database.split(",")
        for name in names or source_rows.table_names(connection, database)
        if name not in left_out
    ]
    equal = bool(reports) and not any(report.counts for report in reports)
    # Of many tables, those that are equal would hide the others.
    shown = [report.to_json() for report in reports if equal or report.counts]
    print(json.dumps({"equal": equal, "reader": arguments.reader, "tables": shown}, indent=1, ensure_ascii=False))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
