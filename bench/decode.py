"""Decoding and capture by themselves, without a lake: what the decoder does beside the other readers written in Rust, and what capture
takes beside MySQL's own client.

On the binlog files of the backlog: `decode weir` (to Arrow, checksums verified), `decode mysql_cdc` and `decode mysql_common` (its
`rows()`), each reading the same files to their end. From the running server: `decode live` receives, verifies, decodes to Arrow, gives
every change its order and id and counts it, beside `mysqlbinlog --raw`, which copies bytes. All of it is one thread.
"""

import json
import os
import pathlib

from measure import Figure, Run, measure, repeat
from source import ROOT, Source

READERS = ("weir", "mysql_cdc", "mysql_common")
BUILT = ROOT / "target/bench-decode.json"


def program() -> str:
    """The benchmark's path, as cargo told it."""
    if named := os.environ.get("DECODE_BIN"):
        return named
    for line in BUILT.read_text().splitlines():
        told = json.loads(line)
        if told.get("reason") == "compiler-artifact" and told["target"]["name"] == "decode" and told.get("executable"):
            return told["executable"]
    raise SystemExit(f"bench: {BUILT} names no program; run make bench")


def bench_decode(source: Source, backlog: dict, work: pathlib.Path) -> dict[str, Figure]:
    decode, changes = program(), backlog["changes"]
    files = [str(source.folder / "data" / name) for name in backlog["files"]]
    counted: dict[str, int] = {}

    def run(name: str, *arguments: str) -> Run:
        run = measure([decode, *arguments], work / "decode.log")
        rows = json.loads(run.output)["rows"]
        if counted.setdefault(name, rows) != rows:
            raise SystemExit(f"bench: {name} found {rows} changes, and {counted[name]} before")
        return run

    # All of the files' row changes: those that were made before the backlog are in them, too.
    [rows] = {json.loads(run(reader, reader, *files).output)["rows"] for reader in READERS} or {0}
    figures = {f"decode_{reader}": repeat(f"decode, {reader}", rows, lambda reader=reader: run(reader, reader, *files)) for reader in READERS}
    url = f"mysql://root@{source.address}"
    figures["capture"] = repeat("capture, thrown away", changes, lambda: run("live", "live", url, backlog["start"]["gtids"], backlog["end"]["gtids"]))
    return figures
