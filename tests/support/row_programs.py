"""Readers of Delta tables that are programs of their own, on the JVM: told a table's folder, they print its rows in lines of JSON.

KernelRows.java and spark_rows.py are the other ends. A program is started when it is first needed, since a JVM takes a second and Spark
ten, and ends with this process.
"""

import atexit
import decimal
import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SERVICES = pathlib.Path(os.environ.get("WEIR_SERVICES_DIR", ROOT / "target/services"))


def kernel_command() -> list[str]:
    folder = SERVICES / "delta-kernel"
    return ["java", "-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{folder}/classes:{folder}/libs/*", "KernelRows"]


def spark_command() -> list[str]:
    return [str(SERVICES / "spark/bin/python"), str(ROOT / "tests/support/spark_rows.py")]


COMMANDS: dict[str, Callable[[], list[str]]] = {"kernel": kernel_command, "spark": spark_command}
RUNNING: dict[str, subprocess.Popen] = {}


def read_rows(program: str, path: str, columns: list[str], types: dict[str, str]) -> Iterator[tuple]:
    """All live rows, with the columns in the order asked for; `types` are Delta's."""
    process = RUNNING.get(program) or start(program)
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    header = answer(program, process, path)
    positions = [header["columns"].index(name) for name in columns]
    converts = [convert_of(types[name]) for name in columns]
    count = 0
    while isinstance(row := answer(program, process, path), list):
        count += 1
        yield tuple(convert(row[position]) for convert, position in zip(converts, positions))
    if row["rows"] != count:
        raise ValueError(f"{program} has printed {count} rows of {path}, and says that there are {row['rows']}")


def start(program: str) -> subprocess.Popen:
    command = COMMANDS[program]()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
    RUNNING[program] = process
    atexit.register(stop, process)
    return process


def stop(process: subprocess.Popen) -> None:
    process.stdin.close()
    process.stdout.close()
    process.wait()


def answer(program: str, process: subprocess.Popen, path: str) -> dict | list:
    line = process.stdout.readline()
    if not line:
        raise ValueError(f"{program} has ended while it read {path}")
    value = json.loads(line)
    if isinstance(value, dict) and "error" in value:
        raise ValueError(f"{program} cannot read {path}: {value['error']}")
    return value


def convert_of(delta_type: str) -> Callable[[object], object]:
    if delta_type == "binary":
        return none_or(bytes.fromhex)
    if delta_type in ("float", "double"):
        return none_or(float)
    return none_or(decimal.Decimal) if delta_type.startswith("decimal") else lambda value: value


def none_or(convert: Callable) -> Callable[[object], object]:
    return lambda value: None if value is None else convert(value)
