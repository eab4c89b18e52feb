"""Reads MySQL's tables exactly: what a value must be in the lake, and which Delta type its column must have.

Values come out in the form lake_rows.py gives too: integers for dates (days), times and timestamps (µs), Decimal, bytes,
str, bool, float. Zero and partial dates are None, weir's default.
"""

import dataclasses
import decimal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pymysql
import pymysql.cursors

Value = object
UNSIGNED_DELTA = {"tinyint": "short", "smallint": "integer", "mediumint": "integer", "int": "long", "bigint": "decimal(20,0)"}
SIGNED_DELTA = {"tinyint": "byte", "smallint": "short", "mediumint": "integer", "int": "integer", "bigint": "long"}
TEXT_TYPES = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set", "json"}
BYTES_TYPES = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
# Read as HEX: the client library knows no charset for some of them, or would parse them.
HEX_TYPES = {
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection",
    "geometrycollection", "vector",
}  # fmt: skip


@dataclass(frozen=True)
class SourceColumn:
    name: str
    data_type: str
    delta_type: str
    # What is selected, and what makes our form of it.
    expression: str
    convert: Callable[[Value], Value]
    is_json: bool = False
    is_key: bool = False


@dataclass(frozen=True)
class SourceTable:
    database: str
    name: str
    columns: tuple[SourceColumn, ...]
    # Empty: the table has no key, rows are told apart by all their values.
    key: tuple[str, ...]


def quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def table_names(connection: pymysql.Connection, database: str) -> list[str]:
    return [
        row[0]
        for row in query(
            connection,
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type = 'BASE TABLE' ORDER BY table_name",
            database,
        )
    ]


def describe(connection: pymysql.Connection, database: str, table: str) -> SourceTable:
    rows = query(
        connection,
        "SELECT column_name, data_type, column_type, numeric_precision, numeric_scale FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        database,
        table,
    )
    key = key_columns(connection, database, table)
    columns = (dataclasses.replace(source_column(*row), is_key=row[0] in key) for row in rows)
    return SourceTable(database, table, tuple(columns), key)


def key_columns(connection: pymysql.Connection, database: str, table: str) -> tuple[str, ...]:
    """The primary key, else the first unique key without nullable columns, prefixes and expressions."""
    indexes: dict[str, list[tuple]] = {}
    for name, column, nullable, prefix in query(
        connection,
        "SELECT index_name, column_name, nullable, sub_part FROM information_schema.statistics "
        "WHERE table_schema = %s AND table_name = %s AND non_unique = 0 ORDER BY index_name <> 'PRIMARY', index_name, seq_in_index",
        database,
        table,
    ):
        indexes.setdefault(name, []).append((column, nullable, prefix))
    for columns in indexes.values():
        if all(column and nullable != "YES" and prefix is None for column, nullable, prefix in columns):
            return tuple(column for column, _, _ in columns)
    return ()


def source_column(name: str, data_type: str, column_type: str, precision: int | None, scale: int | None) -> SourceColumn:
    quoted, unsigned = quote(name), "unsigned" in column_type

    def column(delta_type: str, expression: str = quoted, convert: Callable[[Value], Value] = lambda value: value) -> SourceColumn:
        return SourceColumn(name, data_type, delta_type, expression, none_or(convert), is_json=data_type == "json")

    if data_type in SIGNED_DELTA:
        return column((UNSIGNED_DELTA if unsigned else SIGNED_DELTA)[data_type], convert=int)
    if data_type == "decimal":
        # Above 38 digits Delta has no type, and the text must be MySQL's own.
        return column(f"decimal({precision},{scale})") if precision <= 38 else column("string", convert=lambda value: f"{value:f}")
    if data_type == "bit":
        return column("boolean", convert=lambda value: value != b"\0") if precision == 1 else column("binary")
    if data_type in ("float", "double"):
        # FLOAT as text shows six digits; as a double, it shows all there are.
        return column(data_type, f"{quoted} * 1e0", float)
    if data_type == "year":
        return column("short", convert=int)
    if data_type == "date":
        return column("date", f"DATEDIFF({quoted}, '1970-01-01')")
    if data_type in ("datetime", "timestamp"):
        return column("timestamp_ntz" if data_type == "datetime" else "timestamp", f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {quoted})")
    if data_type == "time":
        return column("long", f"CAST({quoted} AS CHAR)", microseconds_of_time)
    if data_type in TEXT_TYPES:
        return column("string")
    if data_type in BYTES_TYPES:
        return column("binary")
    if data_type in HEX_TYPES:
        return column("binary", f"HEX({quoted})", bytes.fromhex)
    raise ValueError(f"column {name}: no rule for {column_type}")


def none_or(convert: Callable[[Value], Value]) -> Callable[[Value], Value]:
    return lambda value: None if value is None else convert(value)


def microseconds_of_time(value: str) -> int:
    sign, digits = (-1, value[1:]) if value.startswith("-") else (1, value)
    hours, minutes, seconds = digits.split(":")
    return sign * ((int(hours) * 60 + int(minutes)) * 60_000_000 + int(decimal.Decimal(seconds) * 1_000_000))


def read_rows(connection: pymysql.Connection, table: SourceTable) -> Iterator[tuple]:
    """All rows, in the table's order of columns."""
    expressions = ", ".join(column.expression for column in table.columns)
    converts = [column.convert for column in table.columns]
    with connection.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute(f"SELECT {expressions} FROM {quote(table.database)}.{quote(table.name)}")
        for row in cursor:
            yield tuple(convert(value) for convert, value in zip(converts, row))


def query(connection: pymysql.Connection, sql: str, *parameters: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
