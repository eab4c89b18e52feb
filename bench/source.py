"""The benchmark's source: a MySQL server of its own, its tables, and the backlog of changes."""

import json
import os
import pathlib
import subprocess
import sys

import pymysql
from measure import say

ROOT = pathlib.Path(__file__).resolve().parent.parent
SERVICES = ROOT / "scripts/services.sh"
FILL_STEP_ROWS = 100_000
# A server that has the tables in memory, so that its disk is not what is measured.
MYSQL_FLAGS = ["--innodb-buffer-pool-size=2G", "--innodb-redo-log-capacity=1G", "--max-binlog-size=1G"]


class Source:
    """A MySQL server of our own, with the tables filled."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.port = int(start_service("mysql-start", folder, *MYSQL_FLAGS).rsplit(":", 1)[1])
        self.address = f"127.0.0.1:{self.port}"
        self.pid = int((folder / "mysqld.pid").read_text())

    def stop(self) -> None:
        subprocess.run([SERVICES, "mysql-stop", self.folder], check=True)

    def connect(self) -> pymysql.Connection:
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", autocommit=True, init_command="SET SESSION time_zone = '+00:00', sql_log_bin = 0"
        )

    def query(self, sql: str) -> tuple:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()

    def query_none(self, sql: str) -> None:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql)

    def make_tables(self) -> None:
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements_of(ROOT / "bench/data.sql"):
                cursor.execute(statement)

    def fill(self, table: str, rows: int, again: bool) -> None:
        """Fills a table unless it holds what it should; `again` for one that was changed since."""
        [count] = self.query(f"SELECT COUNT(*) FROM {table}")
        if count == rows and not again:
            return
        say(f"filling {table} with {rows:,} rows")
        [insert] = statements_of(ROOT / "bench/rows.sql")
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE TABLE {table}")
            for first in range(1, rows + 1, FILL_STEP_ROWS):
                cursor.execute("SET @first = %s, @last = %s", (first, min(first + FILL_STEP_ROWS - 1, rows)))
                cursor.execute(insert.replace("{table}", table))
            cursor.execute(f"ANALYZE TABLE {table}")

    def write_backlog(self, changes: int, rows: int) -> dict:
        say(f"writing a backlog of {changes:,} changes")
        written = subprocess.run(
            [sys.executable, ROOT / "bench/backlog.py", str(self.port), str(changes), str(rows)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        backlog = json.loads(written.stdout)
        say(f"{backlog['changes']:,} changes in {backlog['transactions']:,} transactions, {backlog['bytes'] / 2**20:.0f} MiB")
        return backlog


def start_service(command: str, folder: pathlib.Path, *flags: str) -> str:
    """Starts a server that ends with this process at the latest; gives what the script prints."""
    started = subprocess.run(
        [SERVICES, command, folder, *flags],
        env={**os.environ, "WEIR_SERVICE_OWNER_PID": str(os.getpid())},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return started.stdout.strip()


def statements_of(file: pathlib.Path) -> list[str]:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";\n") if statement.strip()]
