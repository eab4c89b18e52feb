"""Random but repeatable changes on MySQL, for tests that compare tables afterwards.

    workload.py --url mysql://root@127.0.0.1:3306 --database w --seed 7 --phase create --rows 20000
    workload.py --url mysql://root@127.0.0.1:3306 --database w --seed 8 --phase live --changes 100000 --workers 2

`create` makes the database, its tables (shapes.py) and their rows. `live` changes them: inserts, updates, deletes, REPLACE,
ON DUPLICATE KEY UPDATE, changed and swapped keys, transactions of 1 to 5,000 rows, rollbacks and savepoints. Each worker
owns the rows whose number is its own modulo the number of workers, so what it does follows from the seed alone, given the
rows it finds; only the order between workers is the machine's. With `--images` transactions differ in what their row images
leave out, documents are changed in part, and some inserts leave columns to their defaults. Progress and the seed go to stderr, a JSON summary to stdout.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field

import pymysql
from owned_rows import Numbers, OwnedRows
from shapes import WORDS, Column, Shape, lacks_of, late_shape, nullable, shapes, words

# Rows in one statement; a transaction of 5,000 has several.
STATEMENT_ROWS_MAX = 1000
# Rows of a shape with a pool of values are large.
POOLED_STATEMENT_ROWS_MAX = 60
# Deadlocks and lock waits between workers: the transaction is sent again as it was.
RETRIES_MAX = 20
ROW_IMAGES = ["FULL", "MINIMAL", "MINIMAL", "NOBLOB"]
ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK = 1205, 1213


def connect(url: str, database: str | None = None) -> pymysql.Connection:
    parts = urllib.parse.urlsplit(url)
    connection = pymysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=urllib.parse.unquote(parts.username or "root"),
        password=urllib.parse.unquote(parts.password or ""),
        database=database,
        charset="utf8mb4",
        autocommit=True,
        max_allowed_packet=1 << 30,
        init_command="SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_TRANS_TABLES'",
    )
    with connection.cursor() as cursor:
        # Row format makes READ COMMITTED safe, and it takes far fewer gap locks, so workers seldom deadlock.
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    return connection


@dataclass
class Transaction:
    """Statements, each with what it counts as. Sent as it stands, also a second time after a deadlock."""

    statements: list[tuple[str, str]] = field(default_factory=list)
    ends_with: str = "COMMIT"
    compressed: bool = False
    # binlog_row_image and binlog_row_value_options.
    row_image: tuple[str, str] = ("FULL", "")

    def add(self, kind: str, sql: str) -> None:
        self.statements.append((kind, sql))


class Worker:
    def __init__(self, arguments: argparse.Namespace, ordinal: int) -> None:
        self.arguments = arguments
        self.ordinal = ordinal
        self.rng = random.Random(f"{arguments.seed}/{ordinal}/{arguments.workers}")
        self.connection = connect(arguments.url, arguments.database)
        self.cursor = self.connection.cursor()
        self.compression_is_on = False
        self.row_image = ("FULL", "")
        self.counts: Counter[str] = Counter()
        self.tables = [self.own(shape) for shape in selected_shapes(arguments) if shape.weight > 0]
        self.changes_goal = share(arguments.changes, ordinal, arguments.workers) if arguments.changes is not None else None

    def own(self, shape: Shape) -> OwnedRows:
        self.cursor.execute(f"SELECT number FROM `{shape.name}` ORDER BY number")
        numbers = [row[0] for row in self.cursor.fetchall()]
        mine = [number for number in numbers if number % self.arguments.workers == self.ordinal]
        # Numbers below the highest that exist no longer were deleted by an earlier phase.
        workers, ordinal = self.arguments.workers, self.ordinal
        top = max(numbers, default=-1) // workers + 1
        present = set(mine)
        dead = [number for number in range(ordinal, top * workers, workers) if number not in present]
        return OwnedRows(shape, ordinal, workers, Numbers(mine), Numbers(dead), top * workers + ordinal, list(shape.columns))

    # --- running ---

    def run(self) -> dict:
        started = time.monotonic()
        ddl = DdlInTheMiddle(self) if self.arguments.ddl and self.ordinal == 0 else None
        while not self.is_done():
            if ddl:
                ddl.maybe()
            self.send(self.plan())
            self.keep_to_rate(started)
        if ddl:
            ddl.finish()
        self.check_own_rows()
        self.connection.close()
        return dict(self.counts)

    def check_own_rows(self) -> None:
        """A worker that is wrong about its rows would change fewer of them than the summary says."""
        for table in self.tables:
            self.cursor.execute(f"SELECT number FROM `{table.shape.name}` WHERE number % {table.workers} = {table.worker}")
            if {row[0] for row in self.cursor.fetchall()} != set(table.alive.items):
                raise AssertionError(f"worker {self.ordinal} lost track of its rows in {table.shape.name}")

    def keep_to_rate(self, started: float) -> None:
        if not self.arguments.rate:
            return
        due = started + self.counts["changes"] * self.arguments.workers / self.arguments.rate
        # In short naps, to see the stop file soon.
        while time.monotonic() < due and not self.is_done():
            time.sleep(min(0.1, max(0.0, due - time.monotonic())))

    def is_done(self) -> bool:
        if self.arguments.until_file and os.path.exists(self.arguments.until_file):
            return True
        return self.changes_goal is not None and self.counts["changes"] >= self.changes_goal

    def send(self, transaction: Transaction) -> None:
        if transaction.compressed != self.compression_is_on:
            self.cursor.execute(f"SET SESSION binlog_transaction_compression = {'ON' if transaction.compressed else 'OFF'}")
            self.compression_is_on = transaction.compressed
        if transaction.row_image != self.row_image:
            image, value_options = transaction.row_image
            self.cursor.execute(f"SET SESSION binlog_row_image = {image}, SESSION binlog_row_value_options = '{value_options}'")
            self.row_image = transaction.row_image
        for attempt in range(RETRIES_MAX):
            counts: Counter[str] = Counter()
            try:
                self.connection.begin()
                for kind, sql in transaction.statements:
                    affected = self.cursor.execute(sql)
                    counts[f"statements_{kind}"] += 1
                    if kind not in ("savepoint", "undone"):
                        counts[f"rows_{kind}"] += affected
                        counts["changes"] += affected
                self.cursor.execute(transaction.ends_with)
                break
            except pymysql.err.OperationalError as error:
                if error.args[0] not in (ER_LOCK_DEADLOCK, ER_LOCK_WAIT_TIMEOUT) or attempt + 1 == RETRIES_MAX:
                    raise
                self.connection.rollback()
                self.counts["retried"] += 1
        if transaction.ends_with == "COMMIT":
            self.counts += counts
            self.counts["transactions"] += 1
            self.counts["transactions_compressed"] += int(transaction.compressed)
        else:
            self.counts["transactions_rolled_back"] += 1

    # --- planning ---

    def plan(self) -> Transaction:
        rng = self.rng
        transaction = Transaction(compressed=rng.random() < self.arguments.compression)
        if self.arguments.images:
            transaction.row_image = (rng.choice(ROW_IMAGES), rng.choice(["", "PARTIAL_JSON"]))
        size = self.transaction_rows()
        for table in self.tables:
            table.undo.clear()
        while size > 0:
            table = rng.choices(self.tables, [table.shape.weight for table in self.tables])[0]
            rows = min(size, rng.randint(1, size) if size > 1 and rng.random() < 0.5 else size)
            self.plan_statement(transaction, table, rows)
            size -= rows
        if rng.random() < 0.05:
            self.plan_savepoint(transaction)
        if rng.random() < 0.03:
            transaction.ends_with = "ROLLBACK"
            for table in self.tables:
                table.roll_back_to(0)
        return transaction

    def transaction_rows(self) -> int:
        size = self.rng.random()
        if size < 0.40:
            return 1
        if size < 0.75:
            return self.rng.randint(2, 60)
        if size < 0.94:
            return self.rng.randint(60, 500)
        if size < 0.993:
            return self.rng.randint(500, 2000)
        return self.rng.randint(2000, 5000)

    def plan_savepoint(self, transaction: Transaction) -> None:
        """A few statements that never happened, in the middle of a transaction that did."""
        marks = [len(table.undo) for table in self.tables]
        inner = Transaction()
        for table in self.rng.sample(self.tables, min(2, len(self.tables))):
            self.plan_statement(inner, table, self.rng.randint(1, 20))
        for table, mark in zip(self.tables, marks):
            table.roll_back_to(mark)
        transaction.add("savepoint", "SAVEPOINT s")
        for _, sql in inner.statements:
            transaction.add("undone", sql)
        transaction.add("savepoint", "ROLLBACK TO SAVEPOINT s")
        # Without a change after it, the server would have nothing to keep of the group's second half.
        self.plan_statement(transaction, self.rng.choice(self.tables), 3)

    def plan_statement(self, transaction: Transaction, table: OwnedRows, rows: int) -> None:
        rng = self.rng
        rows_max = POOLED_STATEMENT_ROWS_MAX if table.shape.value_pool else STATEMENT_ROWS_MAX
        kind = rng.random()
        while rows > 0:
            count = min(rows, rows_max)
            rows -= count
            if not table.shape.grows or len(table.alive) == 0 and table.shape.rows_max == 0:
                self.update(transaction, table, count)
            elif kind < 0.40:
                self.update(transaction, table, count)
            elif kind < 0.62:
                self.insert(transaction, table, count)
            elif kind < 0.76:
                self.delete(transaction, table, count)
            elif kind < 0.83:
                self.replace(transaction, table, count)
            elif kind < 0.90:
                self.insert_or_update(transaction, table, count)
            elif kind < 0.96:
                self.change_keys(transaction, table, min(count, 25))
            else:
                self.swap_keys(transaction, table)

    def update(self, transaction: Transaction, table: OwnedRows, count: int) -> None:
        numbers = table.alive.choose(self.rng, count)
        if not numbers:
            return
        verb, assignments = "UPDATE", table.assignments(self.rng)
        if self.arguments.images and self.rng.random() < 0.4:
            assignments = table.document_assignments(self.rng) or assignments
        if table.shape.value_pool and self.rng.random() < 0.1:
            # An ENUM's index 0, the empty error value, which strict mode lets in only through IGNORE.
            verb, assignments = "UPDATE IGNORE", "`c_enum` = 'no such member'"
        if table.shape.folds_case and self.rng.random() < 0.1:
            # The key changes its bytes, but stays equal to itself under its collation.
            assignments = f"`{table.shape.key_columns[0]}` = {self.rng.choice(['UPPER', 'LOWER'])}(`{table.shape.key_columns[0]}`)"
        transaction.add("update", f"{verb} `{table.shape.name}` SET {assignments} WHERE {table.shape.key_in(numbers)}")

    def insert(self, transaction: Transaction, table: OwnedRows, count: int) -> None:
        numbers = self.new_numbers(table, count)
        if numbers:
            transaction.add("insert", table.insert_into("INSERT", self.rng, numbers, self.arguments.images))

    def new_numbers(self, table: OwnedRows, count: int) -> list[int]:
        numbers = []
        for _ in range(min(count, table.shape.rows_max - len(table.alive))):
            number = table.fresh(self.rng)
            table.bring_to_life(number)
            numbers.append(number)
        return numbers

    def delete(self, transaction: Transaction, table: OwnedRows, count: int) -> None:
        # Tables shall not run empty by chance.
        numbers = table.alive.choose(self.rng, min(count, len(table.alive) // 2))
        if not numbers:
            return
        for number in list(numbers):
            table.kill(number)
        transaction.add("delete", f"DELETE FROM `{table.shape.name}` WHERE {table.shape.key_in(numbers)}")

    def replace(self, transaction: Transaction, table: OwnedRows, count: int) -> None:
        numbers = list(table.alive.choose(self.rng, count // 2)) + self.new_numbers(table, count - count // 2)
        if numbers:
            transaction.add("replace", table.insert_into("REPLACE", self.rng, numbers, self.arguments.images))

    def insert_or_update(self, transaction: Transaction, table: OwnedRows, count: int) -> None:
        numbers = list(table.alive.choose(self.rng, count // 2)) + self.new_numbers(table, count - count // 2)
        if numbers:
            insert = table.insert_into("INSERT", self.rng, numbers)
            changed = self.rng.choice(table.columns).name
            transaction.add("upsert", f"{insert} ON DUPLICATE KEY UPDATE `{changed}` = VALUES(`{changed}`)")

    def change_keys(self, transaction: Transaction, table: OwnedRows, count: int) -> None:
        for number in list(table.alive.choose(self.rng, count)):
            target = table.fresh(self.rng)
            table.kill(number)
            table.bring_to_life(target)
            transaction.add(
                "key_change", f"UPDATE `{table.shape.name}` SET {table.key_assignments(target)} WHERE {table.shape.key_is(number)}"
            )

    def swap_keys(self, transaction: Transaction, table: OwnedRows) -> None:
        if len(table.alive) < 2:
            return
        one, other = self.rng.sample(table.alive.items, 2)
        spare = table.fresh(self.rng)
        for source, target in [(one, spare), (other, one), (spare, other)]:
            transaction.add(
                "key_swap", f"UPDATE `{table.shape.name}` SET {table.key_assignments(target)} WHERE {table.shape.key_is(source)}"
            )


class DdlInTheMiddle:
    """Adds columns to two tables and creates one, while the first worker goes on changing rows."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        worker.cursor.execute(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 't\\_late\\_%'"
        )
        self.ordinal = worker.cursor.fetchone()[0] + 1
        goal = worker.changes_goal
        # In changes of this worker. Without a goal, early enough for a test that runs for seconds.
        self.steps = [
            (goal * 3 // 10 if goal else 2_000, self.add_columns),
            (goal * 6 // 10 if goal else 4_000, self.create_table),
        ]

    def maybe(self) -> None:
        while self.steps and self.worker.counts["changes"] >= self.steps[0][0]:
            self.steps.pop(0)[1]()

    def finish(self) -> None:
        while self.steps:
            self.steps.pop(0)[1]()

    def add_columns(self) -> None:
        wanted = {"t_int": "", "t_composite": " AFTER `number`"}
        for table in self.worker.tables:
            if table.shape.name in wanted:
                column = Column(f"added_{self.ordinal}", "VARCHAR(80) NULL", nullable(0.2, words(WORDS, 80)))
                self.execute(f"ALTER TABLE `{table.shape.name}` ADD COLUMN `{column.name}` {column.definition}{wanted[table.shape.name]}")
                table.columns.append(column)

    def create_table(self) -> None:
        shape = late_shape(self.ordinal)
        self.execute(shape.create())
        self.worker.tables.append(OwnedRows(shape, 0, 1, Numbers([]), Numbers([]), 0, list(shape.columns)))
        rows = Transaction()
        self.worker.insert(rows, self.worker.tables[-1], 200)
        self.worker.send(rows)

    def execute(self, sql: str) -> None:
        self.worker.cursor.execute(sql)
        self.worker.counts["ddl"] += 1


# --- phases ---


def create(arguments: argparse.Namespace) -> dict:
    connection = connect(arguments.url)
    cursor = connection.cursor()
    cursor.execute(f"CREATE DATABASE IF NOT EXISTS `{arguments.database}` DEFAULT CHARSET utf8mb4")
    connection.select_db(arguments.database)
    rng = random.Random(f"{arguments.seed}/create")
    chosen = selected_shapes(arguments)
    weights = sum(shape.weight for shape in chosen) or 1
    rows_total = 0
    for shape in chosen:
        cursor.execute(shape.create())
        rows = min(shape.rows_max, int(arguments.rows * shape.weight / weights))
        table = OwnedRows(shape, 0, 1, Numbers([]), Numbers([]), 0, list(shape.columns))
        step = POOLED_STATEMENT_ROWS_MAX if shape.value_pool else STATEMENT_ROWS_MAX
        for start in range(0, rows, step):
            numbers = list(range(start, min(start + step, rows)))
            cursor.execute(table.insert_into("INSERT", rng, numbers))
        rows_total += rows
    connection.close()
    return {"tables": len(chosen), "rows": rows_total}


def live(arguments: argparse.Namespace) -> dict:
    if arguments.changes is None and not arguments.until_file:
        raise SystemExit("live needs --changes or --until-file")
    with multiprocessing.Pool(arguments.workers) as pool:
        counts = pool.starmap(run_worker, [(arguments, ordinal) for ordinal in range(arguments.workers)], chunksize=1)
    total: Counter[str] = Counter()
    for worker_counts in counts:
        total.update(worker_counts)
    return dict(sorted(total.items()))


def run_worker(arguments: argparse.Namespace, ordinal: int) -> dict:
    return Worker(arguments, ordinal).run()


def lacks(connection: pymysql.Connection) -> frozenset[str]:
    """What the server's tables cannot have."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT VERSION()")
        return lacks_of(cursor.fetchone()[0])


def selected_shapes(arguments: argparse.Namespace) -> list[Shape]:
    known = shapes(arguments.lacks)
    if not arguments.tables:
        return known
    names = arguments.tables.split(",")
    unknown = set(names) - {shape.name for shape in known}
    if unknown:
        raise SystemExit(f"no such tables: {', '.join(sorted(unknown))}; there are {', '.join(shape.name for shape in known)}")
    return [shape for shape in known if shape.name in names]


def share(total: int, ordinal: int, workers: int) -> int:
    return total // workers + (1 if ordinal < total % workers else 0)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="mysql://user:password@host:port")
    parser.add_argument("--database", required=True)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--phase", choices=["create", "live", "both"], default="both")
    parser.add_argument("--rows", type=int, default=20_000, help="create: rows over all tables (default 20000)")
    parser.add_argument("--changes", type=int, default=None, help="live: changed rows over all workers")
    parser.add_argument("--until-file", help="live: go on until this file exists")
    parser.add_argument("--workers", type=int, default=1, help="live: concurrent connections (default 1)")
    parser.add_argument("--rate", type=int, default=0, help="live: at most so many changes a second (default: no cap)")
    parser.add_argument("--compression", type=float, default=0.1, help="live: share of compressed transactions (default 0.1)")
    parser.add_argument("--ddl", action="store_true", help="live: add columns and create a table in the middle")
    parser.add_argument("--images", action="store_true", help="live: log with other row images and partial JSON, a transaction at a time")
    parser.add_argument("--tables", default="", help="names of shapes.py, with commas between (default: all)")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(2**32)
    return arguments


def main() -> None:
    arguments = parse_arguments()
    arguments.lacks = lacks(connect(arguments.url))
    print(f"workload: seed {arguments.seed}", file=sys.stderr)
    summary: dict = {"seed": arguments.seed, "database": arguments.database, "workers": arguments.workers}
    for name, phase in [("create", create), ("live", live)]:
        if arguments.phase in (name, "both"):
            started = time.monotonic()
            summary[name] = phase(arguments)
            summary[name]["seconds"] = round(time.monotonic() - started, 3)
    if "live" in summary:
        summary["live"]["changes_per_second"] = round(summary["live"].get("changes", 0) / summary["live"]["seconds"])
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
