"""One import, measured."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks import contestants
from benchmarks.contestants import OURS, TABLES, Contestant
from benchmarks.surroundings import Databases, Server
from dx_dagster.sandbox import truth
from dx_dagster_tests.comparing import count_differences

_LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass
class Measured:
    """The cost of one process.

    Attributes:
        requests: as counted by the sandbox.
        wall, cpu: seconds; `cpu` is user and system of the process and its children, start-up included.
        peak: MiB of the largest process.
        server_cpu: CPU seconds of the sandbox meanwhile.
        rows: by table.
        written: rows inserted or updated; only ours tells.
        wrong: rows that are not as the truth has them, too many or missing; None when not looked at.
    """

    name: str
    requests: int
    wall: float
    cpu: float
    peak: float
    server_cpu: float
    rows: dict[str, int]
    written: int | None = None
    wrong: int | None = None

    @property
    def all_rows(self) -> int:
        return sum(self.rows.values())


class Run:
    """One contestant with a database and a home of its own; may be measured several times."""

    def __init__(self, contestant: Contestant, server: Server, database_url: str, env: Mapping[str, str]) -> None:
        self.contestant, self.server, self.database_url, self.env = contestant, server, database_url, env

    def measure(self, name: str | None = None) -> Measured:
        server = self.server
        server.requests()
        before = server.cpu()
        with tempfile.NamedTemporaryFile("r", suffix=".json") as report:
            launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), report.name]
            output = contestants.checked(self.contestant.command, self.env, lambda command: launcher + command)
            prices = json.load(report)
        return Measured(
            name or self.contestant.name,
            server.requests(),
            **prices,
            server_cpu=server.cpu() - before,
            rows=self._rows(),
            written=_written(output) if self.contestant is OURS else None,
        )

    def wrong(self) -> int:
        """The number of rows that differ from the truth now; for ours only."""
        found = count_differences(self.database_url, truth(self.server.twin))
        return sum(found.values())

    def _rows(self) -> dict[str, int]:
        with psycopg.connect(self.database_url) as connection:
            counts = {}
            for table, place in self.contestant.tables.items():
                row = connection.execute(f"SELECT count(*) FROM {place}".encode()).fetchone()  # noqa: S608
                counts[table] = int(row[0]) if row else 0
            return counts


@contextmanager
def prepared(
    contestant: Contestant, server: Server, databases: Databases, settings: Mapping[str, str] | None = None
) -> Iterator[Run]:
    """A run in an empty database. Ours is connected first, outside the measurement."""
    with databases.fresh() as url, contestants.environment(server.url, url) as env:
        if contestant.prepare:
            contestants.checked(contestant.prepare, env)
        yield Run(contestant, server, url, {**env, **(settings or {})})


def _written(output: str) -> int:
    tables = json.loads(output)["tables"]
    return sum(counts["inserted"] + counts["updated"] for counts in tables.values())


def true_rows(server: Server) -> dict[str, int]:
    """The number of rows of the truth, by table."""
    found: Mapping[str, Sequence[object]] = truth(server.twin)
    return {table: len(found[table]) for table in TABLES}
