"""The surroundings of each import: a sandbox in its own process, and an embedded PostgreSQL."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import psutil
import psycopg

from dx_dagster.sandbox import World, WorldConfig
from dx_dagster.warehouse.embedded import EmbeddedServer

TOKEN = "ATCTT3-sandbox-of-the-benchmark"  # noqa: S105 - opens nothing but the made-up world on loopback
NO_LIMIT = 1_000_000_000
"""Requests an hour, the same for all and never reached: waiting for a budget is not measured."""


@dataclass
class Server:
    """The sandbox's process, and a twin of its world that makes the same events."""

    url: str
    twin: World
    process: psutil.Process

    def count(self) -> int:
        """Requests since `requests` was last called."""
        count: int = httpx.get(self._door("requests")).raise_for_status().json()["count"]
        return count

    def requests(self) -> int:
        """Requests since the last call."""
        count = self.count()
        httpx.post(self._door("requests/reset")).raise_for_status()
        return count

    def cpu(self) -> float:
        """CPU seconds that the server has used so far."""
        times = self.process.cpu_times()
        return times.user + times.system

    def change(self, pull_requests: int) -> int:
        """Makes random events until this many pull requests have changed or were opened; returns their number."""
        before, events = self._versions(), 0
        changed: set[tuple[str, int, int]] = set()
        while len({key[:2] for key in changed}) < pull_requests:
            self.twin.step()
            events += 1
            changed = self._versions() - before
        httpx.post(self._door("step"), params={"n": events}, timeout=60).raise_for_status()
        return events

    def _versions(self) -> set[tuple[str, int, int]]:
        return {(pull.repository.uuid, pull.number, pull.version) for pull in self.twin.pull_requests}

    def _door(self, name: str) -> str:
        return f"{self.url.removesuffix('/2.0')}/_sandbox/{name}"


@contextmanager
def serving(config: WorldConfig, latency: float, serves: int | None = None) -> Iterator[Server]:
    """A sandbox; `latency` is in seconds for each answer. It answers `serves` requests at once, and the others wait."""
    sizes = {"pull-requests": config.pull_requests, "repositories": config.repositories, "members": config.members}
    knobs = {**sizes, "seed": config.seed, "latency": latency, "hourly-limit": NO_LIMIT}
    if serves is not None:
        knobs["serves"] = serves
    command = [sys.executable, "-m", "dx_dagster.sandbox", *(f"--{name}={value}" for name, value in knobs.items())]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "SANDBOX_TOKEN": TOKEN}
    ) as process:
        twin = World(config)
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise RuntimeError("The sandbox ended before it was ready; what it wrote stands above.")
            yield Server(json.loads(line)["url"], twin, psutil.Process(process.pid))
        finally:
            process.terminate()


class Databases:
    """Makes empty databases."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server, self._numbers = server, count()

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """The address of a new database, which is dropped at the end."""
        name = f"bench_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        try:
            yield self._server.url.replace("/postgres?", f"/{name}?")
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def copy(self, url: str) -> Iterator[str]:
        """The address of a copy of a database, which nobody may be connected to meanwhile."""
        name = f"bench_{next(self._numbers)}"
        original = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        self._execute(f"CREATE DATABASE {name} TEMPLATE {original}")
        try:
            yield self._server.url.replace("/postgres?", f"/{name}?")
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def process(self) -> psutil.Process:
        """The server's first process, whose children serve the connections."""
        return psutil.Process(int((self._server.folder / "postmaster.pid").read_text().split()[0]))

    def restart(self) -> None:
        """Stops and starts the server, as after an upgrade; it closes every connection."""
        self._server.leave()
        self._server.join()


@contextmanager
def databases() -> Iterator[Databases]:
    """With the embedded server's ordinary settings, fsync included."""
    folder = Path(tempfile.mkdtemp(prefix="dx-dagster-bench-"))
    server = EmbeddedServer(folder / "postgres")
    server.join()
    try:
        yield Databases(server)
    finally:
        server.leave()
        shutil.rmtree(folder)
