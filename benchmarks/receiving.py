"""The receiver's throughput and latency, for deliveries that it stores and refuses."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import psutil
import psycopg
from cryptography.fernet import Fernet

from benchmarks.reporting import Table
from benchmarks.surroundings import databases
from dx_dagster.cli.ports import free_port
from dx_dagster.settings import Settings
from dx_dagster.warehouse import migrations
from dx_dagster.webhooks.address import PATH
from dx_dagster_tests.delivering import SECRET, give_secret, headers

_PADDING = "x" * 8000  # as large as the payload of a pull request
_OK = 200


@dataclass(frozen=True)
class Kind:
    """Deliveries that are answered alike."""

    name: str
    status: int
    body: Callable[[int], bytes]
    secret: str = SECRET


@dataclass(frozen=True)
class Figures:
    """Of one round; times in milliseconds."""

    rate: float
    median: float
    p99: float
    cpu: float


def _of(workspace: str) -> bytes:
    return json.dumps({"repository": {"full_name": f"{workspace}/widgets"}, "padding": _PADDING}).encode()


KINDS = (
    Kind("stored", 200, lambda _: _of("acme")),
    Kind("a workspace that is not connected", 404, lambda _: _of("nobody")),
    Kind("always another such workspace", 404, lambda number: _of(f"nobody-{number}")),
    Kind("wrong signature", 401, lambda _: _of("acme"), "wrong"),
    Kind("not JSON", 400, lambda _: b"spam=eggs" * 900),
)


@dataclass(frozen=True)
class Receiver:
    """A `dx-dagster serve` of one checkout."""

    name: str
    port: int
    process: psutil.Process

    def cpu(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    async def take(self, kind: Kind, connections: int, seconds: float) -> Figures:
        waits: list[float] = []
        numbers = count()

        async def send(until: float) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            while time.perf_counter() < until:
                body = kind.body(next(numbers))
                fields = headers(body, kind.secret, f"{kind.name} {time.perf_counter_ns()}") | {
                    "host": "localhost",
                    "content-length": str(len(body)),
                }
                lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
                started = time.perf_counter()
                writer.write("\r\n".join(lines).encode() + body)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
                waits.append(time.perf_counter() - started)
                if int(head.split()[1]) != kind.status:
                    raise RuntimeError(f"{kind.name}: {head!r} instead of {kind.status}")
            writer.close()

        before, started = self.cpu(), time.perf_counter()
        await asyncio.gather(*(send(started + seconds) for _ in range(connections)))
        rate = len(waits) / (time.perf_counter() - started)
        ordered = sorted(waits)
        median, p99 = (1000 * ordered[int(len(ordered) * part)] for part in (0.5, 0.99))
        return Figures(rate, median, p99, 1000 * (self.cpu() - before) / len(waits))


def measure(trees: Sequence[Path], connections: int, seconds: float, rounds: int) -> list[Table]:
    """A table for each kind of delivery; the checkouts take turns, in one database."""
    found: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    keys = Fernet.generate_key().decode()
    with databases() as place, place.fresh() as url, ExitStack() as stack:
        migrations.upgrade(url)
        give_secret(Settings.model_validate({"DX_DATABASE_URL": url, "DX_SECRET_KEYS": keys}), "acme", SECRET)
        receivers = [stack.enter_context(_serving(tree, url, keys)) for tree in trees]
        for one in receivers:
            asyncio.run(one.take(KINDS[0], connections, 1))
        for number in range(rounds):
            for kind in KINDS:
                for one in receivers if number % 2 == 0 else reversed(receivers):
                    with psycopg.connect(url) as connection:
                        connection.execute("TRUNCATE webhook_events")
                    found[kind.name, one.name].append(asyncio.run(one.take(kind, connections, seconds)))
    columns = ["deliveries", "checkout", "a second", "median ms", "p99 ms", "CPU ms each"]
    rows = [[kind, name, *_medians(figures)] for (kind, name), figures in found.items()]
    return [Table(f"Deliveries over {connections} connections", columns, rows)]


def _medians(found: Sequence[Figures]) -> list[str]:
    def middle(of: Callable[[Figures], float]) -> float:
        return statistics.median(of(one) for one in found)

    return [
        f"{middle(lambda one: one.rate):,.0f}",
        f"{middle(lambda one: one.median):.1f}",
        f"{middle(lambda one: one.p99):.1f}",
        f"{middle(lambda one: one.cpu):.2f}",
    ]


@contextmanager
def _serving(tree: Path, url: str, keys: str) -> Iterator[Receiver]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="dx-dagster-bench-") as home:
        ours = {"DX_HOME": home, "DX_DATABASE_URL": url, "DX_SECRET_KEYS": keys, "PYTHONPATH": str(tree)}
        command = [sys.executable, "-m", "dx_dagster.cli", "serve", "--port", str(port)]
        with (
            (Path(home) / "log").open("wb") as log,
            subprocess.Popen(command, env={**os.environ, **ours}, cwd=home, stdout=log, stderr=log) as process,
        ):
            while process.poll() is None:
                with suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == _OK:
                        break
                time.sleep(0.1)
            try:
                yield Receiver(tree.name, port, psutil.Process(process.pid))
            finally:
                process.terminate()
