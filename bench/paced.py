"""Updates random rows of bench.hot at a steady rate, and notes when each transaction was committed.

    paced.py PORT ROWS RATE BATCH SECONDS WRITER WRITERS STARTS_AT

RATE row changes a second for so many SECONDS from STARTS_AT (seconds since the epoch) on, BATCH keys a transaction, of the keys
1 to ROWS. Each of several WRITERS has keys of its own, and RATE is this one's. One that falls behind hurries until it is on time
again. Prints JSON: {"rows": …, "commits": [[before, after], …]}, the wall clock in ms around each COMMIT.
"""

import json
import random
import sys
import time

import pymysql


def main() -> None:
    if len(sys.argv) != 9:
        raise SystemExit(__doc__)
    port, rows, rate, batch = (int(argument) for argument in sys.argv[1:5])
    seconds, writer, writers, starts_at = float(sys.argv[5]), int(sys.argv[6]), int(sys.argv[7]), float(sys.argv[8])
    connection = pymysql.connect(
        host="127.0.0.1",
        port=port,
        user="root",
        database="bench",
        init_command="SET SESSION time_zone = '+00:00', transaction_isolation = 'READ-COMMITTED'",
    )
    cursor = connection.cursor()
    chance = random.Random(3000 + writer)
    commits, done = [], 0
    time.sleep(max(0.0, starts_at - time.time()))
    started = time.monotonic()
    while (due := done / rate) < seconds:
        if (early := due - (time.monotonic() - started)) > 0:
            time.sleep(early)
        elif time.monotonic() - started >= seconds:
            break
        keys = sorted(chance.randrange(rows // writers) * writers + writer + 1 for _ in range(batch))
        # Some keys are gone, so the rows that were changed are what counts.
        done += cursor.execute(
            f"UPDATE hot SET price = price + 0.01, pieces = COALESCE(pieces, 0) + 1 WHERE id IN ({','.join(map(str, keys))})"
        )
        before = time.time() * 1000
        connection.commit()
        commits.append((before, time.time() * 1000))
    print(json.dumps({"rows": done, "commits": commits}))


if __name__ == "__main__":
    main()
