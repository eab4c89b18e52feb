"""Makes the table of docs/chaos.md from the runs that `make chaos` has noted, one JSON object a line.

    chaos_table.py target/chaos/results.jsonl docs/chaos.md

Fails if a run lost, doubled or stuck.
"""

import json
import sys
from collections import Counter
from pathlib import Path

HEAD = """# Faults that were made, and what came of them

Written by `make chaos`, from the runs that it noted in `target/chaos/results.jsonl`; run it again to see for yourself. Random changes are written to a real MySQL
all the while. After the faults of each round the lake is compared with the source, value for value, by an independent reader (DuckDB), and the counts of all hops
have to add up, without a single duplicate. *Lost*: rows that are missing, values that differ, counts that do not add up. *Doubled*: rows that are there twice or should be gone,
changes applied twice. *Stuck*: a service that neither came back by itself nor said what to do. A point such as `log-put:before` is a place in the code, listed in `src/failpoint.rs`.

A kill here is of the process (SIGKILL): what the system has taken over is kept. That what is acknowledged also survives a power cut is not tested by these runs.

"""


def main() -> int:
    results, page = map(Path, sys.argv[1:])
    runs, sums = Counter(), {}
    for line in results.read_text().splitlines():
        run = json.loads(line)
        kind = (run["fault"], run["outcome"])
        runs[kind] += 1
        before = sums.get(kind, (0, 0, 0))
        sums[kind] = tuple(count + run[name] for count, name in zip(before, ("lost", "doubled", "stuck")))
    rows = ["| fault | outcome | runs | lost | doubled | stuck |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for kind in sorted(runs):
        rows.append("| " + " | ".join(map(str, (*kind, runs[kind], *sums[kind]))) + " |")
    totals = [sum(counts) for counts in zip(*sums.values())] or [0, 0, 0]
    rows.append("| " + " | ".join(map(str, ("**all**", "", sum(runs.values()), *totals))) + " |")
    kills = sum(count for (fault, _), count in runs.items() if fault.startswith("SIGKILL"))
    page.write_text(HEAD + f"{kills} kills of the service, {sum(runs.values())} runs.\n\n" + "\n".join(rows) + "\n")
    print(f"{page}: {kills} kills, {sum(runs.values())} runs, {totals[0]} lost, {totals[1]} doubled, {totals[2]} stuck")
    return 1 if any(totals) else 0


if __name__ == "__main__":
    sys.exit(main())
