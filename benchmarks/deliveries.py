"""`deliveries`: how fast deliveries of many workspaces are in the tables, and what CPU each takes."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import psutil
import psycopg
from cryptography.fernet import Fernet

from benchmarks.contestants import CannotRunError
from benchmarks.reporting import Table
from benchmarks.surroundings import NO_LIMIT, Databases, databases
from dx_dagster.cli.ports import free_port
from dx_dagster.sandbox import RateLimit, Sandbox, World, WorldConfig
from dx_dagster.sandbox.deliveries import SandboxDelivery, Watcher
from dx_dagster.webhooks.address import PATH

_SIGNING = "a secret of the benchmark"
_SENDERS = 16
_SOON = 20.0  # seconds in which a delivery is to be in the tables
_WARM_UP = 20.0
_CONNECTED = Path(__file__).with_name("connected.py")
_LAGS = """
    SELECT COALESCE(extract(epoch FROM applied_at - received_at), 'infinity')::float8 FROM webhook_events
    WHERE received_at >= %s ORDER BY 1"""
_APPLIED = "SELECT count(*) FROM webhook_events WHERE applied_at BETWEEN %s AND %s"
_RUNS = """
    SELECT count(*) FROM dagster.runs
    WHERE pipeline_name LIKE 'refresh_workspace%%' AND create_timestamp >= %s AT TIME ZONE 'UTC'"""


@dataclass(frozen=True)
class Load:
    """So many workspaces for so many minutes, each with a delivery `every` so many seconds."""

    workspaces: int
    minutes: float
    every: float


@dataclass(frozen=True)
class Figures:
    """Of one checkout; CPU is that of all its processes in the time of sending, idle work included.

    Attributes:
        applied: deliveries applied in that time.
    """

    sent: int
    applied: int
    lags: Sequence[float]
    runs: int
    cpu: float
    database_cpu: float

    def row(self, name: str) -> list[str]:
        soon = sum(lag <= _SOON for lag in self.lags)
        middle, most = (self.lags[int(len(self.lags) * part)] for part in (0.5, 0.95))
        return [
            name,
            f"{self.sent:,}",
            f"{100 * soon / self.sent:.1f} %",
            _seconds(middle),
            _seconds(most),
            f"{self.runs:,}",
            f"{self.applied:,}",
            f"{self.cpu / max(1, self.applied):.2f}",
            f"{self.database_cpu / max(1, self.applied):.2f}",
        ]


def _seconds(lag: float) -> str:
    """One that was not applied when the measurement ended has no time."""
    return f"{lag:.1f}" if math.isfinite(lag) else f"over {_SOON:.0f}"


class _Sender:
    """Sends one delivery of each workspace every so many seconds."""

    def __init__(self, worlds: Sequence[World], every: float) -> None:
        self._every = every
        self._places = [(world, Watcher(world), deque[SandboxDelivery]()) for world in worlds]
        self.sent = 0

    def send(self, address: str, seconds: float) -> None:
        began = time.monotonic()
        with ThreadPoolExecutor(_SENDERS) as pool:
            while (now := time.monotonic() - began) < seconds:
                if now < self.sent * self._every / len(self._places):
                    time.sleep(0.02)
                    continue
                world, watcher, waiting = self._places[self.sent % len(self._places)]
                while not waiting:
                    with world.lock:
                        world.step()
                        waiting.extend(watcher.deliveries())
                pool.submit(waiting.popleft().send, address, _SIGNING)
                self.sent += 1


def measure(trees: Sequence[Path], load: Load) -> list[Table]:
    """One row for each checkout: `dx-dagster up` with this many workspaces, which all live."""
    rows = []
    for tree in trees:
        numbers = range(load.workspaces)
        configs = [WorldConfig(f"team-{number}", number, 3, 20, 5, forbidden_repositories=0) for number in numbers]
        sandbox = Sandbox(configs[0], also=configs[1:], limits=RateLimit(NO_LIMIT))
        with databases() as place, place.fresh() as url, sandbox:
            figures = _of(tree.resolve(), place, url, sandbox, load)
        rows.append(figures.row("this one" if tree.resolve() == Path.cwd() else tree.resolve().name))
    columns = ["checkout", "deliveries", f"within {_SOON:.0f} s", "median s", "p95 s", "runs", "applied", "CPU s each"]
    title = f"{load.workspaces} workspaces with a delivery every {load.every:g} s each, {load.minutes:g} minutes"
    return [Table(title, [*columns, "PostgreSQL's"], rows)]


def _of(tree: Path, place: Databases, url: str, sandbox: Sandbox, load: Load) -> Figures:
    with tempfile.TemporaryDirectory(prefix="dx-dagster-bench-") as home:
        env = _environment(url, sandbox, home)
        given = {
            "settings": {name: env[name] for name in env if name.startswith(("DX_", "BITBUCKET_"))},
            "secret": sandbox.token.secret,
            "signing": _SIGNING,
            "workspaces": [world.config.workspace for world in sandbox.worlds],
        }
        env = {**os.environ, **env, "PYTHONPATH": str(tree)}
        subprocess.run([sys.executable, "-P", str(_CONNECTED)], env=env, input=json.dumps(given), text=True, check=True)
        with _up(tree, env) as (process, port):
            sender = _Sender(sandbox.worlds, load.every)
            sender.send(address := f"http://127.0.0.1:{port}{PATH}", _WARM_UP)
            sender.sent, began = 0, _now(url)
            before = _cpu(process), _cpu(server := place.process())
            sender.send(address, load.minutes * 60)
            ended, cpu, database_cpu = _now(url), _cpu(process) - before[0], _cpu(server) - before[1]
            time.sleep(_SOON)
            with psycopg.connect(url) as connection:
                lags = [float(lag) for (lag,) in connection.execute(_LAGS, [began])]
                applied = int(next(connection.execute(_APPLIED, [began, ended]))[0])
                runs = int(next(connection.execute(_RUNS, [began]))[0])
    return Figures(sender.sent, applied, lags, runs, cpu, database_cpu)


def _environment(url: str, sandbox: Sandbox, home: str) -> dict[str, str]:
    return {
        "DX_HOME": home,
        "DX_DATABASE_URL": url,
        "DX_SECRET_KEYS": Fernet.generate_key().decode(),
        "BITBUCKET_API_URL": sandbox.url,
        "DX_SYNC_EVERY": "1000000",
    }


def _now(url: str) -> datetime:
    with psycopg.connect(url) as connection:
        moment: datetime = next(connection.execute("SELECT now()"))[0]
    return moment


def _cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and its descendants, those included that have ended."""
    seconds = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


@contextmanager
def _up(tree: Path, env: dict[str, str]) -> Iterator[tuple[psutil.Process, int]]:
    port = free_port()
    command = [sys.executable, "-m", "dx_dagster.cli", "up", "--ui-port", str(free_port()), "--api-port", str(port)]
    with subprocess.Popen(command, env=env, cwd=tree, stdout=subprocess.DEVNULL, stderr=sys.stderr) as process:
        try:
            deadline = time.monotonic() + 180
            while not _is_ready(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CannotRunError(f"`dx-dagster up` of {tree} did not get ready; what it wrote stands above.")
                time.sleep(0.5)
            yield psutil.Process(process.pid), port
        finally:
            process.terminate()


def _is_ready(port: int) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
    return False
