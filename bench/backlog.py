"""Writes a backlog of changes on bench.hot into the binlog: 60 % updates, 25 % inserts, 15 % deletes.

    backlog.py PORT CHANGES ROWS

ROWS is what bench.hot holds, with the keys 1 to ROWS. Updates are skewed: some rows change very often. Most changes come in
transactions of 100 rows, one statement for each kind; one change in twenty is a transaction of its own. Two writers side by
side, one for odd keys and one for even ones. Prints JSON: the counts, where the backlog begins and ends, its files, its bytes.
"""

import json
import multiprocessing
import random
import sys
import time
from collections import Counter

import numpy
import pymysql

WRITERS = 2
BATCH = {"updated": 60, "inserted": 25, "deleted": 15}
SINGLE_SHARE = 0.05
COLUMNS = "id, buyer_id, article, price, ordered_at, changed_at, priority, mass_kg, remark, pieces, due_on, state"


def connect(port: int) -> pymysql.Connection:
    return pymysql.connect(
        host="127.0.0.1",
        port=port,
        user="root",
        database="bench",
        autocommit=True,
        init_command="SET SESSION time_zone = '+00:00', transaction_isolation = 'READ-COMMITTED'",
    )


class Writer:
    """The keys of one parity. A slot is a key's ordinal among them: key = slot * WRITERS + writer + 1."""

    def __init__(self, port: int, writer: int, rows: int) -> None:
        self.cursor = connect(port).cursor()
        self.writer = writer
        self.slots = (rows - writer + WRITERS - 1) // WRITERS
        self.random = random.Random(1000 + writer)
        self.numpy_random = numpy.random.default_rng(2000 + writer)
        self.is_alive = bytearray(b"\1" * self.slots)
        # Popular rows lie scattered over the table.
        self.popular = self.numpy_random.permutation(self.slots)
        self.done: Counter[str] = Counter()

    def write(self, changes: int) -> Counter:
        # A transaction of its own is one change, a batch a hundred; so many of the former make their share of changes.
        single_probability = SINGLE_SHARE / (SINGLE_SHARE + (1 - SINGLE_SHARE) / sum(BATCH.values()))
        while self.changes() < changes:
            if self.random.random() < single_probability:
                [kind] = self.random.choices(list(BATCH), list(BATCH.values()))
                self.send({kind: 1})
            else:
                self.send(BATCH)
        return self.done

    def changes(self) -> int:
        return sum(self.done[kind] for kind in BATCH)

    def send(self, counts: dict[str, int]) -> None:
        statements = [(kind, sql) for kind, count in counts.items() if (sql := getattr(self, kind)(count))]
        if len(statements) > 1:
            self.cursor.execute("BEGIN")
        for kind, sql in statements:
            self.done[kind] += self.cursor.execute(sql)
        if len(statements) > 1:
            self.cursor.execute("COMMIT")
        self.done["transactions"] += 1

    def updated(self, count: int) -> str:
        chosen: set[int] = set()
        while len(chosen) < count:
            ranks = self.numpy_random.zipf(1.2, count * 2) % self.slots
            # The most popular rows are soon all in the set; the rest is spread evenly.
            evenly = self.numpy_random.integers(0, self.slots, count // 4 + 1)
            chosen.update(int(slot) for slot in (*self.popular[ranks], *evenly) if self.is_alive[slot])
        keys = ",".join(str(self.key(slot)) for slot in self.random.sample(sorted(chosen), count))
        turn = self.done["transactions"]
        return (
            f"UPDATE hot SET price = price + 0.01, pieces = COALESCE(pieces, 0) + 1, state = 1 + {turn} MOD 5, "
            f"changed_at = TIMESTAMP '2026-02-01 00:00:00' + INTERVAL {turn % 80000} SECOND WHERE id IN ({keys})"
        )

    def inserted(self, count: int) -> str:
        first = len(self.is_alive)
        self.is_alive.extend(b"\1" * count)
        return f"INSERT INTO hot ({COLUMNS}) VALUES " + ",".join(self.row(slot) for slot in range(first, first + count))

    def deleted(self, count: int) -> str:
        chosen: set[int] = set()
        while len(chosen) < count:
            slot = self.random.randrange(len(self.is_alive))
            if self.is_alive[slot]:
                self.is_alive[slot] = 0
                chosen.add(slot)
        return f"DELETE FROM hot WHERE id IN ({','.join(str(self.key(slot)) for slot in chosen)})"

    def key(self, slot: int) -> int:
        return slot * WRITERS + self.writer + 1

    def row(self, slot: int) -> str:
        noise = self.random.getrandbits(32)
        due_on = "NULL" if slot % 13 == 0 else f"'2026-03-{1 + noise % 28:02}'"
        remark = f"Grüße 東京 🚀 {noise:040x}" if slot % 5 == 0 else f"remark: {noise * 0x9E3779B97F4A7C15:064x}"
        return (
            f"({self.key(slot)},{noise % 600000},'ART-{noise:08X}-{noise % 89}',{noise % 9000000 / 100:.2f},"
            f"'2026-01-{1 + noise % 28:02} 12:00:{noise % 60:02}.{noise % 1000:03}','2026-01-31 12:00:00',{noise % 200 - 100},"
            f"{noise / 2048 * 1.3!r},'{remark}',{'NULL' if slot % 8 == 0 else noise % 5000},"
            f"{due_on},{1 + noise % 5})"
        )


def write_share(port: int, writer: int, rows: int, changes: int) -> Counter:
    return Writer(port, writer, rows).write(changes)


def binlog_end(cursor: pymysql.cursors.Cursor) -> dict:
    cursor.execute("SHOW BINARY LOG STATUS")
    file, position, _, _, gtids = cursor.fetchone()
    return {"file": file, "position": position, "gtids": gtids.replace("\n", "")}


def main() -> None:
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    port, changes, rows = map(int, sys.argv[1:])
    cursor = connect(port).cursor()
    # Files of its own, so that their bytes are the backlog's.
    cursor.execute("FLUSH BINARY LOGS")
    start, started = binlog_end(cursor), time.monotonic()
    shares = [(port, writer, rows, changes // WRITERS + (changes % WRITERS > writer)) for writer in range(WRITERS)]
    with multiprocessing.Pool(WRITERS) as pool:
        total = sum(pool.starmap(write_share, shares, chunksize=1), Counter())
    end = binlog_end(cursor)
    cursor.execute("FLUSH BINARY LOGS")
    cursor.execute("SHOW BINARY LOGS")
    files = {name: size for name, size, *_ in cursor.fetchall() if start["file"] <= name <= end["file"]}
    summary = {
        "changes": sum(total[kind] for kind in BATCH),
        **total,
        "write_seconds": round(time.monotonic() - started, 1),
        "start": start,
        "end": end,
        "files": list(files),
        "bytes": sum(files.values()),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
