"""`soak`: workspaces that live under webhooks, syncs and faults: what that takes, and whether the rows are true."""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import httpx
import psutil
import psycopg
from cryptography.fernet import Fernet

from benchmarks.contestants import CannotRunError
from benchmarks.reporting import Table
from benchmarks.surroundings import NO_LIMIT, Databases, databases
from dx_dagster.cli.ports import free_port
from dx_dagster.sandbox import Faults, RateLimit, Sandbox, World, WorldConfig, truth
from dx_dagster.sandbox.deliveries import SandboxDelivery, Watcher
from dx_dagster.webhooks.address import PATH
from dx_dagster_tests.comparing import differences
from dx_dagster_tests.importer.test_changing_worlds import change
from dx_dagster_tests.stepped_clock import COMPILER, SteppedClock

_ATTEMPTS = 3
"""Bitbucket sends a delivery again twice where it gets no answer or a server error."""

_PAUSE = 2.0  # seconds before the next attempt
_SENDERS = 16
_PULL_REQUESTS = 60  # of each workspace at the beginning
_SAMPLED_EVERY = 5.0  # seconds
_CLOCK_STEP = 60  # seconds
_SERVER_ERROR = 500
_FAULTS = {"errors": 0.01, "resets": 0.005, "truncated": 0.002, "throttles": 0.002}  # chances of each request
_SIGNING = "a secret of the soak"
_COMMAND = (sys.executable, "-m", "dx_dagster.cli")
_CONNECTED = Path(__file__).with_name("connected.py")
_WAITING = "SELECT count(*) FROM webhook_events WHERE applied_at IS NULL AND set_aside_at IS NULL"
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
_LAGS = "SELECT extract(epoch FROM applied_at - received_at) FROM webhook_events WHERE applied_at IS NOT NULL"
_RUNS = "SELECT pipeline_name || ' ' || lower(status), count(*) FROM dagster.runs GROUP BY 1 ORDER BY 1"
# By what their command lines contain, the first that fits.
_PROCESSES = {
    "runs": "multiprocessing",
    "writers of logs": "log_writer.py",
    "code server": "api grpc",
    "UI": "dx_dagster.cli ui",
    "daemon": "dx_dagster.cli daemon",
    "API": "dx_dagster.cli serve",
    "up": "dx_dagster.cli up",
}


@dataclass(frozen=True)
class Load:
    """So many workspaces for so many minutes.

    Attributes:
        every: seconds between two changes of one workspace.
        sync_every: seconds between two scheduled syncs of one workspace.
    """

    workspaces: int
    minutes: float
    every: float
    sync_every: float


@dataclass(frozen=True)
class _Sample:
    at: float
    mebibytes: float
    sockets: float


@dataclass
class Outcome:
    """The outcome of a soak.

    Attributes:
        sent, lost: deliveries; lost ones got no good answer three times, and only syncs tell what they said.
        lags: seconds from arrival to application, for each delivery.
        samples: of the largest process of each kind.
        connections: of the database, by seconds since the start.
        runs: Dagster's runs by job and status.
        differences: between rows and truth at the end, by table.
    """

    load: Load
    changes: int = 0
    sent: int = 0
    lost: int = 0
    accidents: list[str] = field(default_factory=list)
    lags: Sequence[float] = ()
    samples: dict[str, list[_Sample]] = field(default_factory=lambda: defaultdict(list))
    connections: list[tuple[float, float]] = field(default_factory=list)
    runs: Mapping[str, int] = field(default_factory=dict)
    differences: Mapping[str, str] = field(default_factory=dict)

    def tables(self) -> list[Table]:
        return [self._of_processes(), self._of_deliveries(), self._of_runs()]

    def _of_processes(self) -> Table:
        rows = []
        for name, samples in self.samples.items():
            memory = [(one.at, one.mebibytes) for one in samples]
            rows.append([name, *self._quarters(memory), *self._quarters([(one.at, one.sockets) for one in samples])])
        rows.append(["connections of the database", "", "", *self._quarters(self.connections)])
        columns = [
            "process",
            *(f"{what}, {part} quarter" for what in ("MiB", "sockets") for part in ("second", "last")),
        ]
        load = self.load
        title = f"{load.workspaces} workspaces, {load.minutes:g} minutes, a change every {load.every:g} s in each"
        return Table(title, columns, rows)

    def _quarters(self, found: Sequence[tuple[float, float]]) -> Iterator[str]:
        """Median and most in the second quarter of the time and in the last: the first one warms up."""
        quarter = self.load.minutes * 60 / 4
        for low, high in ((quarter, 2 * quarter), (3 * quarter, 4 * quarter)):
            values = [value for at, value in found if low <= at < high]
            yield f"{statistics.median(values):,.0f} / {max(values):,.0f}" if values else ""

    def _of_deliveries(self) -> Table:
        lags = sorted(self.lags)
        shown = (statistics.median(lags), lags[len(lags) * 95 // 100], lags[-1]) if lags else ()
        columns = ["changes", "deliveries", "lost", "median s", "p95 s", "longest s", "tables that differ at the end"]
        counts = (self.changes, self.sent, self.lost)
        seconds = [f"{lag:.1f}" for lag in shown] or [""] * 3
        rows = [[*(f"{count:,}" for count in counts), *seconds, ", ".join(self.differences) or "none"]]
        return Table("; ".join(self.accidents) or "No accident", columns, rows)

    def _of_runs(self) -> Table:
        rows = [[name, f"{count:,}"] for name, count in self.runs.items()]
        return Table("Dagster's runs", ["job and status", "runs"], rows)


class _Soak:
    def __init__(self, load: Load, sandbox: Sandbox, place: Databases, url: str, home: Path) -> None:
        self.outcome = Outcome(load)
        self._load, self._sandbox, self._place, self._url = load, sandbox, place, url
        self._ui_port, self._api_port = free_port(), free_port()
        self._clock = SteppedClock(home) if COMPILER else None
        self._chances = random.Random(5)  # noqa: S311
        self._own = {
            "DX_HOME": str(home),
            "DX_DATABASE_URL": url,
            "DX_SECRET_KEYS": Fernet.generate_key().decode(),
            "BITBUCKET_API_URL": sandbox.url,
            "DX_SYNC_CRON": "* * * * *",
            "DX_SYNC_EVERY": str(load.sync_every),
        }
        self._env = {**os.environ, **self._own}

    def connect(self) -> None:
        """Connects and imports all workspaces."""
        given = {
            "settings": self._own,
            "secret": self._sandbox.token.secret,
            "signing": _SIGNING,
            "workspaces": self._workspaces(),
        }
        subprocess.run([sys.executable, str(_CONNECTED)], env=self._env, input=json.dumps(given), text=True, check=True)

    def _workspaces(self) -> list[str]:
        return [world.config.workspace for world in self._sandbox.worlds]

    @contextmanager
    def up(self) -> Iterator[psutil.Process]:
        """`dx-dagster up` under a clock that can be stepped, where there is a C compiler."""
        command = [*_COMMAND, "up", "--ui-port", str(self._ui_port), "--api-port", str(self._api_port)]
        env = {**self._env, **(self._clock.environment if self._clock else {})}
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=sys.stderr) as process:
            try:
                self._wait_until_ready(process)
                yield psutil.Process(process.pid)
            finally:
                process.terminate()

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]") -> None:
        while process.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{self._api_port}/readyz").is_success:
                    return
            time.sleep(0.5)
        raise CannotRunError("dx-dagster up ended before it was ready; what it wrote stands above.")

    def live(self, process: psutil.Process) -> None:
        """Makes changes, deliveries, faults and accidents until the time is over."""
        began, seconds = time.monotonic(), self._load.minutes * 60
        accidents = [(0.35, self._restart_postgresql), (0.6, self._step_clock)]
        worlds = cycle([(world, Watcher(world)) for world in self._sandbox.worlds])
        sampling = threading.Thread(target=self._sample, args=[process, began + seconds])
        for fault, chance in _FAULTS.items():
            setattr(self._sandbox.faults, fault, chance)
        sampling.start()
        with ThreadPoolExecutor(_SENDERS) as pool:
            while (now := time.monotonic() - began) < seconds:
                if accidents and now > accidents[0][0] * seconds:
                    pool.submit(accidents.pop(0)[1], now)
                self._change(*next(worlds), pool)
                due = self.outcome.changes * self._load.every / self._load.workspaces
                time.sleep(max(0.0, due - (time.monotonic() - began)))
        sampling.join()
        for fault in _FAULTS:
            setattr(self._sandbox.faults, fault, 0.0)

    def _change(self, world: World, watcher: Watcher, pool: ThreadPoolExecutor) -> None:
        change(world, self._chances)
        self.outcome.changes += 1
        for one in watcher.deliveries():
            self.outcome.sent += 1
            pool.submit(self._send, one)

    def _send(self, delivery: SandboxDelivery) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            with suppress(OSError):
                if delivery.send(f"http://127.0.0.1:{self._api_port}{PATH}", _SIGNING, attempt) < _SERVER_ERROR:
                    return
            time.sleep(_PAUSE)
        self.outcome.lost += 1

    def _sample(self, process: psutil.Process, end: float) -> None:
        began = time.monotonic()
        while (now := time.monotonic()) < end:
            found: dict[str, list[tuple[float, int]]] = defaultdict(list)
            for one in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    found[_kind(one)].append((one.memory_info().rss / 2**20, len(one.net_connections("all"))))
            for name, each in found.items():
                mebibytes, sockets = (max(values) for values in zip(*each, strict=True))
                self.outcome.samples[name].append(_Sample(now - began, mebibytes, sockets))
            with suppress(psycopg.Error):
                self.outcome.connections.append((now - began, self._count(_CONNECTIONS)))
            time.sleep(_SAMPLED_EVERY)

    def _restart_postgresql(self, at: float) -> None:
        began = time.monotonic()
        self._place.restart()
        self.outcome.accidents.append(f"PostgreSQL restarted after {at:.0f} s, in {time.monotonic() - began:.1f} s")

    def _step_clock(self, at: float) -> None:
        if self._clock is not None:
            self._clock.step(_CLOCK_STEP)
            self.outcome.accidents.append(f"the clock of all processes stepped by {_CLOCK_STEP} s after {at:.0f} s")
        else:
            self.outcome.accidents.append("no clock was stepped: there is no C compiler")

    def wait_until_applied(self, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._count(_WAITING):
            time.sleep(1)

    def _count(self, query: str) -> int:
        with psycopg.connect(self._url, connect_timeout=5) as connection:
            [count] = connection.execute(query.encode()).fetchone() or [0]
        return int(count)

    def compare(self) -> None:
        """Syncs each workspace once more, for what lost deliveries said and what none says; then compares all rows."""
        for workspace in self._workspaces():
            subprocess.run([*_COMMAND, "sync", workspace], env=self._env, check=True, capture_output=True)
        with psycopg.connect(self._url) as connection:
            self.outcome.lags = [float(seconds) for (seconds,) in connection.execute(_LAGS)]
            self.outcome.runs = dict(connection.execute(_RUNS).fetchall())
        true: dict[str, list[Mapping[str, object]]] = defaultdict(list)
        for world in self._sandbox.worlds:
            for table, rows in truth(world).items():
                true[table] += rows
        self.outcome.differences = differences(self._url, true)


def _kind(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    return next((name for name, part in _PROCESSES.items() if part in line), "others")


def soak(load: Load) -> Outcome:
    """Runs an installation whose workspaces live, with faults of Bitbucket, a restart and a step of the clock."""
    configs = [
        WorldConfig(f"team-{number}", number, 4, _PULL_REQUESTS, 6, forbidden_repositories=0)
        for number in range(load.workspaces)
    ]
    sandbox = Sandbox(configs[0], also=configs[1:], limits=RateLimit(NO_LIMIT), faults=Faults(seed=5))
    with (
        databases() as place,
        place.fresh() as url,
        tempfile.TemporaryDirectory(prefix="dx-dagster-soak-") as folder,
        sandbox,
    ):
        for world in sandbox.worlds:
            world.follows_clock = True
        run = _Soak(load, sandbox, place, url, Path(folder))
        run.connect()
        with run.up() as process:
            run.live(process)
            run.wait_until_applied()
        run.compare()
        return run.outcome
