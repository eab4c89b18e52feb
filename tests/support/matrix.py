"""Every kind of column, nullable, not null and as a key, by each way that a row can come and with each row image.

    matrix.py --url mysql://root@127.0.0.1:3306 --database matrix --block 0 --images "" --create
    matrix.py --url mysql://root@127.0.0.1:3306 --database matrix --block 1 --images FULL,MINIMAL,NOBLOB

`--create` makes the tables; what a block writes stays, apart from the rows of blocks before and after it, so that whoever compares the
tables when a block is through compares each of its values. A block without images is for a load: only inserts, in no image at all.
`--apart DATABASE` writes a table for each kind, a row a transaction, for a reader that stumbles over some kinds.

Prints JSON: `cases`, the number of distinct (kind, role, image, value, operation) that were written and are there afterwards;
`kinds`; `keys`, those that may be one; `cdc`, what mysql_cdc can read of the tables apart.
"""

import argparse
import json
import sys
from collections import Counter

import pymysql
from matrix_kinds import Kind, kinds
from shapes import lacks_of
from workload import connect

ER_DUP_ENTRY = 1062
# Rows of a block that have one image lie within so many ids.
IDS_OF_IMAGE = 1000
# Parts of them.
INSERTED, UPDATED, DELETED, DEFAULTED = 0, 200, 400, 600
# Updates that set a row's columns, each a third of them, so that images leave out the others.
PHASES = 3
# Groups of a key that have one image.
GROUPS_OF_IMAGE = 10
NULL = "NULL"


class Matrix:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.connection = connect(arguments.url)
        self.cursor = self.connection.cursor()
        self.cursor.execute("SELECT VERSION()")
        version = self.cursor.fetchone()[0]
        self.is_mariadb = "MariaDB" in version
        lacks = lacks_of(version) | (frozenset({"gb18030"}) if self.is_mariadb else frozenset())
        self.kinds = kinds(lacks)
        self.groups = {kind.group: [k for k in self.kinds if k.group == kind.group] for kind in self.kinds}
        self.cases: Counter[tuple] = Counter()
        self.execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES', time_zone = '+00:00'")
        # TIMESTAMP columns without values of their own.
        self.execute("SET SESSION explicit_defaults_for_timestamp = ON")
        self.execute(f"CREATE DATABASE IF NOT EXISTS `{arguments.database}` DEFAULT CHARSET utf8mb4")
        self.execute(f"USE `{arguments.database}`")
        self.keys = {kind.name: self.values_of_key(kind) for kind in self.kinds if kind.may_be_key}

    def execute(self, sql: str) -> None:
        try:
            self.cursor.execute(sql)
        except pymysql.MySQLError as error:
            raise SystemExit(f"{error}: {sql[:600]}") from error

    def values_of_key(self, kind: Kind) -> list[str]:
        """Those of its values that the server holds for different ones."""
        self.execute("SET SESSION sql_log_bin = 0")
        self.execute(f"CREATE TEMPORARY TABLE `seen` (k {kind.sql} NOT NULL PRIMARY KEY)")
        found = []
        for value in kind.values:
            try:
                self.cursor.execute(f"INSERT INTO `seen` VALUES ({value})")
                found.append(value)
            except pymysql.IntegrityError as error:
                if error.args[0] != ER_DUP_ENTRY:
                    raise
            except pymysql.MySQLError as error:
                raise SystemExit(f"{kind.name}: {error}: {value[:200]}") from error
        self.execute("DROP TEMPORARY TABLE `seen`")
        self.execute("SET SESSION sql_log_bin = 1")
        return found

    # --- tables ---

    def create(self) -> None:
        for group, members in self.groups.items():
            nullable = ", ".join(f"`{kind.name}` {kind.sql} NULL{default_of(kind)}" for kind in members)
            not_null = ", ".join(f"`{kind.name}` {kind.sql} NOT NULL" for kind in members)
            self.execute(f"CREATE TABLE `v_{group}_nullable` (id INT PRIMARY KEY, {nullable}) ROW_FORMAT=DYNAMIC")
            # The key is the last column: its place in an image is not its place in the key.
            self.execute(f"CREATE TABLE `v_{group}_required` ({not_null}, id INT PRIMARY KEY) ROW_FORMAT=DYNAMIC")
        for name in self.keys:
            sql = next(kind.sql for kind in self.kinds if kind.name == name)
            rest = "n INT NOT NULL, note VARCHAR(20) NULL DEFAULT 'untold', big TEXT NULL"
            self.execute(f"CREATE TABLE `k_{name}` ({rest}, k {sql} NOT NULL, g SMALLINT NOT NULL, PRIMARY KEY (k, g))")
            self.execute(f"CREATE TABLE `u_{name}` (k {sql} NOT NULL PRIMARY KEY, {rest})")

    # --- a block of changes ---

    def write(self, image: str, ordinal: int, images: int) -> None:
        if image:
            self.execute(f"SET SESSION binlog_row_image = {image}")
        place = self.arguments.block * 10 + ordinal
        for group, members in self.groups.items():
            for role in ("nullable", "required"):
                self.execute("BEGIN")
                self.write_values(f"v_{group}_{role}", members, role, image, place * IDS_OF_IMAGE)
                self.execute("COMMIT")
        for name, values in self.keys.items():
            self.execute("BEGIN")
            self.write_keys(name, values, image, place * GROUPS_OF_IMAGE)
            self.write_single_keys(name, values, image, ordinal, images)
            self.execute("COMMIT")

    def write_values(self, table: str, members: list[Kind], role: str, image: str, base: int) -> None:
        columns = {kind.name: [*kind.all_values(), *([NULL] if role == "nullable" else [])] for kind in members}
        rows = max(map(len, columns.values()))
        names = list(columns)

        def values(row: int) -> str:
            return ", ".join(column[row % len(column)] for column in columns.values())

        def insert(part: int, step: int) -> None:
            for row in range(rows):
                self.execute(f"INSERT INTO `{table}` (id, `{'`, `'.join(names)}`) VALUES ({base + part + row}, {values(row + step)})")

        insert(INSERTED, 0)
        for kind in members:
            self.count(kind.name, role, image, columns[kind.name], "insert")
        if not image:
            return
        insert(UPDATED, 1)
        insert(DELETED, 2)
        self.execute(f"DELETE FROM `{table}` WHERE id BETWEEN {base + DELETED} AND {base + DELETED + rows}")
        for phase in range(PHASES):
            changed = names[phase::PHASES]
            for row in range(rows):
                sets = ", ".join(f"`{name}` = {columns[name][(row + 2) % len(columns[name])]}" for name in changed)
                if sets:
                    self.execute(f"UPDATE `{table}` SET {sets} WHERE id = {base + UPDATED + row}")
        for kind in members:
            self.count(kind.name, role, image, columns[kind.name], "update")
        if role == "nullable":
            self.execute(f"INSERT INTO `{table}` (id) VALUES ({base + DEFAULTED}), ({base + DEFAULTED + 1})")
            self.execute(f"UPDATE `{table}` SET `{names[0]}` = NULL WHERE id = {base + DEFAULTED}")
            for kind in members:
                self.count(kind.name, role, image, ["default"], "insert")

    def write_keys(self, name: str, values: list[str], image: str, group: int) -> None:
        table = f"k_{name}"

        def insert(group: int, chosen: list[str]) -> None:
            rows = ", ".join(f"({number}, 'new', 'text', {value}, {group})" for number, value in enumerate(chosen))
            self.execute(f"INSERT INTO `{table}` (n, note, big, k, g) VALUES {rows}")

        insert(group, values)
        self.count(name, "key", image, values, "insert")
        if not image:
            return
        insert(group + 1, values)
        self.execute(f"UPDATE `{table}` SET note = 'changed' WHERE g = {group + 1}")
        self.count(name, "key", image, values, "update")
        # The greatest first, so that each finds its new key free.
        insert(group + 2, values[:-1])
        for number in reversed(range(len(values) - 1)):
            self.execute(f"UPDATE `{table}` SET k = {values[number + 1]} WHERE g = {group + 2} AND n = {number}")
        self.count(name, "key", image, values[1:], "move")
        insert(group + 3, values)
        self.execute(f"DELETE FROM `{table}` WHERE g = {group + 3}")
        self.count(name, "key", image, values, "delete")
        # What an image leaves out of these is asked for by the key.
        rows = ", ".join(f"({number}, {value}, {group + 4})" for number, value in enumerate(values))
        self.execute(f"INSERT INTO `{table}` (n, k, g) VALUES {rows}")
        self.count(name, "key", image, values, "insert in part")
        insert(group + 5, values)
        self.execute(f"UPDATE `{table}` SET g = {group + 6} WHERE g = {group + 5}")
        self.count(name, "key", image, values, "move in part")

    def write_single_keys(self, name: str, values: list[str], image: str, ordinal: int, images: int) -> None:
        """A key of one column: each image has a share of its values, which are loaded first, updated and deleted, and inserted again."""
        table = f"u_{name}"
        mine = [number for number in range(len(values)) if number % max(images, 1) == ordinal]
        if not mine:
            return
        rows = ", ".join(f"({values[number]}, {number}, 'text')" for number in mine)
        share = ", ".join(map(str, mine))
        if image:
            self.execute(f"UPDATE `{table}` SET note = 'changed' WHERE n IN ({share})")
            self.execute(f"DELETE FROM `{table}` WHERE n IN ({share})")
        self.execute(f"INSERT INTO `{table}` (k, n, big) VALUES {rows}")
        if image:
            self.execute(f"UPDATE `{table}` SET big = 'changed' WHERE n IN ({share}) AND n % 2 = 0")
        self.count(name, "single key", image, [values[number] for number in mine], "insert")

    def count(self, kind: str, role: str, image: str, values: list[str], operation: str) -> None:
        self.cases.update((kind, role, image, value, operation) for value in values)

    # --- tables apart ---

    def write_apart(self, database: str) -> dict[str, list[str]]:
        self.execute(f"CREATE DATABASE `{database}` DEFAULT CHARSET utf8mb4")
        self.execute(f"USE `{database}`")
        for kind in self.kinds:
            self.execute(f"CREATE TABLE `{kind.name}` (id INT PRIMARY KEY, v {kind.sql} NULL, w {kind.sql} NOT NULL)")
            values = kind.all_values()
            for row, value in enumerate(values):
                self.execute(f"INSERT INTO `{kind.name}` VALUES ({row}, {value}, {value})")
            self.execute(f"UPDATE `{kind.name}` SET v = NULL WHERE id = 0")
            for row, value in enumerate(values):
                self.execute(f"UPDATE `{kind.name}` SET v = {value}, id = {1000 + row} WHERE id = {len(values) - 1 - row}")
            for row in range(0, len(values), 2):
                self.execute(f"DELETE FROM `{kind.name}` WHERE id = {1000 + row}")
        reads: dict[str, list[str]] = {}
        for kind in self.kinds:
            reads.setdefault(kind.cdc, []).append(kind.name)
        return reads


def default_of(kind: Kind) -> str:
    """MySQL takes literals for defaults of the types that it takes for keys."""
    return f" DEFAULT {kind.values[0]}" if kind.may_be_key else ""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="mysql://user:password@host:port")
    parser.add_argument("--database", required=True)
    parser.add_argument("--block", type=int, default=0, help="whose rows are written, 0 to 9")
    parser.add_argument("--images", default="", help="row images, with commas between")
    parser.add_argument("--create", action="store_true", help="make the tables first")
    parser.add_argument("--apart", help="write the tables of this database instead")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    matrix = Matrix(arguments)
    summary = {"kinds": len(matrix.kinds), "keys": len(matrix.keys)}
    if arguments.apart:
        summary["cdc"] = matrix.write_apart(arguments.apart)
    else:
        if arguments.create:
            matrix.create()
        images = arguments.images.split(",")
        for ordinal, image in enumerate(images):
            matrix.write(image, ordinal, len(images))
        summary["cases"] = len(matrix.cases)
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
