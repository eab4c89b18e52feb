"""Reads a Delta table through somebody else's reader, into the values that source_rows.py gives for MySQL."""

import contextlib
import functools
import json
import os
import pathlib
from collections.abc import Iterator

import deltalake
import pyarrow
import pyarrow.ipc
import row_programs

READERS = ("duckdb", "deltalake", "polars", "chdb", *row_programs.COMMANDS)


def table_path(warehouse: str, database: str, table: str) -> str:
    return os.path.join(warehouse, escape(database), escape(table))


def escape(name: str) -> str:
    """A name as weir writes it in paths: each byte outside [A-Za-z0-9_-] as _xHH, a literal _x as _x5fx."""
    return "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "_-") else f"_x{byte:02x}"
        for byte in name.replace("_x", "\0").encode()
    ).replace("_x00", "_x5fx")


def exists(path: str) -> bool:
    if path.startswith("s3://"):
        return deltalake.DeltaTable.is_deltatable(path)
    return os.path.isdir(os.path.join(path, "_delta_log"))


def column_types(path: str) -> dict[str, str]:
    """The Delta type of each column, by name, from the table's schemaString."""
    fields = json.loads(deltalake.DeltaTable(path).schema().to_json())["fields"]
    return {field["name"]: field["type"] if isinstance(field["type"], str) else json.dumps(field["type"]) for field in fields}


def partition_columns(path: str) -> list[str]:
    return deltalake.DeltaTable(path).metadata().partition_columns


def read_rows(reader: str, path: str, columns: list[str]) -> Iterator[tuple]:
    """All live rows, with the columns in the order asked for."""
    if reader in row_programs.COMMANDS:
        yield from row_programs.read_rows(reader, path, columns, column_types(path))
        return
    readers = {"duckdb": read_with_duckdb, "deltalake": read_with_deltalake, "polars": read_with_polars, "chdb": read_with_chdb}
    table = readers[reader](path)
    for batch in table.select(columns).to_batches(max_chunksize=20_000):
        yield from zip(*(plain_values(column) for column in batch.columns))


def plain_values(column: pyarrow.Array) -> list:
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        return plain_values(column.dictionary_decode())
    if pyarrow.types.is_timestamp(kind):
        return column.cast(pyarrow.timestamp("us", kind.tz)).cast(pyarrow.int64()).to_pylist()
    if pyarrow.types.is_date(kind):
        return column.cast(pyarrow.date32()).cast(pyarrow.int32()).to_pylist()
    return column.to_pylist()


def read_with_duckdb(path: str) -> pyarrow.Table:
    return connect_duckdb().execute("SELECT * FROM delta_scan(?)", [path]).to_arrow_table()


@functools.cache
def connect_duckdb():
    """The connection, with the delta extension, taken from its Python package and not from the network."""
    import duckdb
    import duckdb_extension_delta

    folder = pathlib.Path(duckdb_extension_delta.__file__).parent
    [extension] = folder.glob(f"extensions/v{duckdb.__version__}/delta.duckdb_extension")
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "threads": "2"})
    connection.execute(f"LOAD '{extension}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def read_with_deltalake(path: str) -> pyarrow.Table:
    builder = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(path))
    return pyarrow.table(builder.execute("SELECT * FROM t").read_all())


def read_with_polars(path: str) -> pyarrow.Table:
    import polars

    return polars.scan_delta(path).collect().to_arrow()


def read_with_chdb(path: str) -> pyarrow.Table:
    import chdb

    # Counting without reading the rows would count the dead ones, too.
    settings = "optimize_trivial_count_query = 0, output_format_arrow_string_as_string = 0"
    # The engine reads files below the folder that it is started in.
    with contextlib.chdir("/"):
        answer = chdb.query(f"SELECT * FROM deltaLakeLocal('{os.path.abspath(path)}') SETTINGS {settings}", "ArrowStream")
    with pyarrow.ipc.open_stream(answer.bytes()) as stream:
        rows = stream.read_all()
    # The engine has one type for text and bytes.
    for name, kind in column_types(path).items():
        if kind == "string":
            rows = rows.set_column(rows.schema.get_field_index(name), name, rows[name].cast(pyarrow.string()))
    return rows


def print_query(path: str, expressions: str) -> None:
    """Prints what DuckDB answers to `SELECT expressions` over a table, with blanks between."""
    # Once a query takes two seconds, a progress bar goes to stdout, even with the bar turned off: the delta extension asks
    # through a connection of its own.
    stdout = os.dup(1)
    os.dup2(2, 1)
    answer = connect_duckdb().execute(f"SELECT {expressions} FROM delta_scan(?)", [path]).fetchone()
    os.dup2(stdout, 1)
    print(*answer)
