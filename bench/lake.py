"""A weir with a warehouse and a configuration of its own, and the check of what it wrote."""

import os
import pathlib
import shutil
import subprocess
import sys

from measure import Process, Run, measure, say
from source import ROOT, Source

WEIR = os.environ.get("WEIR_BIN", str(ROOT / "target/release/weir"))
DIRECT = '[transport]\nkind = "direct"\n[trace]\nkind = "sqlite"\n'
# The discard port: nobody listens.
NOWHERE = '[transport]\nkind = "direct"\n[trace]\nkind = "clickhouse"\nurl = "http://127.0.0.1:9/weir"\n'


SUMS = "COUNT(*), SUM(id), SUM(price), COALESCE(SUM(pieces), 0)"


def sums_of(source: Source, table: str, folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """Rows and sums of a table at the source, and of the Delta table in a folder as DuckDB sees it."""
    expected = [str(value) for value in source.query(f"SELECT {SUMS} FROM {table}")]
    # In a process of its own: DuckDB's memory must not count towards children that are measured later.
    reader = "import sys; sys.path.insert(0, sys.argv[1]); import lake_rows; lake_rows.print_query(sys.argv[2], sys.argv[3])"
    command = [sys.executable, "-c", reader, ROOT / "tests/support", folder, SUMS]
    return expected, subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


class Lake:
    """A warehouse of weir for one table of the source. `sections` are the configuration's on transport and trace."""

    def __init__(self, folder: pathlib.Path, source: Source, table: str, name: str = "bench", sections: str = DIRECT) -> None:
        self.folder, self.source, self.table, self.name, self.sections = folder, source, table, name, sections
        self.commit_interval_ms: int | None = None
        self.log = folder.parent / f"{folder.name}.log"

    def start_from_nothing(self) -> None:
        """An empty folder, with the configuration: written once, as processes that start side by side read it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        interval = f"commit_interval_ms = {self.commit_interval_ms}\n" if self.commit_interval_ms else ""
        self.config().write_text(
            f'[source]\nname = "{self.name}"\nurl = "mysql://root@{self.source.address}"\ntables = ["{self.table}"]\n'
            f'[warehouse]\nurl = "file://{self.folder}/lake"\n'
            f"{self.sections}"
            f'[apply]\n{interval}state_dir = "{self.folder}/state"\n[http]\nlisten = "127.0.0.1:0"\n'
        )

    def config(self) -> pathlib.Path:
        return self.folder / "weir.toml"

    def command(self, *arguments: str) -> list[str]:
        return [WEIR, "--config", str(self.config()), *arguments]

    def run_weir(self, beside: dict[str, int] | None = None, threads: bool = False) -> Run:
        return measure(self.command("run", "--until-caught-up"), self.log, beside=beside, threads=threads)

    def run_untraced(self) -> Run:
        """The same with a trace that is not there: nothing is counted into it, and the end says so."""
        traced = self.config().read_text()
        assert DIRECT in traced
        self.config().write_text(traced.replace(DIRECT, NOWHERE))
        run = measure(self.command("run", "--until-caught-up"), self.log, code=1)
        self.config().write_text(traced)
        return run

    def start(self, *arguments: str, log: str = "") -> Process:
        """In the background; several at once have a log each."""
        return Process(self.command(*arguments), self.log.with_suffix(f".{log}.log") if log else self.log)

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def check(self) -> None:
        """Rows and sums, as DuckDB sees them, against the source's."""
        expected, found = sums_of(self.source, self.table, self.table_folder())
        if found != expected:
            raise SystemExit(f"bench: {self.table} of {self.name} differs in ({SUMS}): {expected} in MySQL, {found} in the lake")
        say(f"{self.table} of {self.name} is equal to the source: {expected[0]} rows")

    def table_folder(self) -> pathlib.Path:
        return self.folder / "lake" / self.table.replace(".", "/")

    def size_mib(self) -> float:
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) / 2**20
