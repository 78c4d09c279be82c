"""`soak`: an installation under webhooks and scheduled syncs for a while, with accidents, compared with the truth."""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import psycopg
from cryptography.fernet import Fernet

from benchmarks.surroundings import Databases, databases
from dx_dagster.cli.ports import free_port
from dx_dagster.sandbox import Sandbox, WorldConfig, truth
from dx_dagster.sandbox.deliveries import SandboxDelivery, Watcher
from dx_dagster_tests.comparing import differences
from dx_dagster_tests.delivering import give_secret
from dx_dagster_tests.importer.test_changing_worlds import change
from dx_dagster_tests.stepped_clock import COMPILER, SteppedClock

_ATTEMPTS = 3
"""Bitbucket sends a delivery again twice where it gets no answer or a server error."""

_CLOCK_STEP = 60  # seconds
_COMMAND = (sys.executable, "-m", "dx_dagster.cli")


@dataclass
class Outcome:
    """What a soak showed.

    Attributes:
        sent, lost: deliveries; lost ones got no good answer three times, and only syncs tell what they said.
        lags: seconds from arrival to application, for each delivery.
        memory: MiB of all processes together, by seconds since the start.
        runs: Dagster's runs by job and status.
        differences: between rows and truth at the end, by table.
    """

    seconds: float
    changes: int = 0
    sent: int = 0
    lost: int = 0
    accidents: list[str] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    runs: Mapping[str, int] = field(default_factory=dict)
    differences: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        yield f"{self.seconds:.0f} s, {self.changes} changes, {self.sent} deliveries, {self.lost} of them lost"
        yield from self.accidents
        lags = sorted(self.lags)
        yield (
            f"lag: median {statistics.median(lags):.1f} s, 95th percentile {lags[len(lags) * 95 // 100]:.1f} s, "
            f"longest {lags[-1]:.1f} s"
        )
        quarter = self.seconds / 4
        for name, low, high in (("second", quarter, 2 * quarter), ("last", 3 * quarter, self.seconds)):
            found = [mebibytes for at, mebibytes in self.memory if low <= at < high]
            yield f"memory in the {name} quarter: median {statistics.median(found):.0f} MiB, most {max(found):.0f} MiB"
        yield f"runs: {', '.join(f'{what} {count}' for what, count in self.runs.items())}"
        yield f"differences at the end: {dict(self.differences) or 'none'}"


class _Soak:
    def __init__(self, sandbox: Sandbox, place: Databases, url: str, home: Path, seconds: float) -> None:
        sandbox.world.follows_clock = True
        self.sandbox, self.place, self.url, self.home = sandbox, place, url, home
        self.outcome = Outcome(seconds)
        self.api_port, self.ui_port = free_port(), free_port()
        self.clock = SteppedClock(home) if COMPILER else None
        self._chances = random.Random(5)  # noqa: S311
        self._watcher = Watcher(sandbox.world)
        self._secret = "a secret of the soak"  # noqa: S105
        self.environment = {
            "DX_HOME": str(home),
            "DX_DATABASE_URL": url,
            "DX_SECRET_KEYS": Fernet.generate_key().decode(),
            "BITBUCKET_API_URL": sandbox.url,
            "BITBUCKET_TOKEN": sandbox.token.secret,
            "DX_SYNC_CRON": "* * * * *",
            "DX_SYNC_EVERY": "60",
            "DX_BUDGET_WINDOW": "60",
        }

    def command(self, *arguments: str) -> None:
        subprocess.run(
            [*_COMMAND, *arguments], env={**os.environ, **self.environment}, check=True, stdout=subprocess.DEVNULL
        )

    def give_secret(self) -> None:
        from dx_dagster.settings import Settings  # noqa: PLC0415

        give_secret(Settings.model_validate(self.environment), self.sandbox.world.config.workspace, self._secret)

    @contextmanager
    def up(self) -> Iterator[psutil.Process]:
        """`dx-dagster up` under a clock that can be stepped, where there is a C compiler."""
        command = [*_COMMAND, "up", "--ui-port", str(self.ui_port), "--api-port", str(self.api_port)]
        env = {**os.environ, **self.environment, **(self.clock.environment if self.clock else {})}
        with subprocess.Popen(command, env=env, stdout=sys.stderr) as process:
            try:
                self._wait_until_ready(process)
                yield psutil.Process(process.pid)
            finally:
                process.terminate()

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]") -> None:
        while process.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{self.api_port}/readyz").is_success:
                    return
            time.sleep(0.5)
        raise RuntimeError("dx-dagster up ended before it was ready; what it wrote stands above.")

    def live(self, process: psutil.Process) -> None:
        """Changes, deliveries and accidents until the time is over."""
        began = time.monotonic()
        accidents = [(0.35, self._restart_postgresql), (0.6, self._step_clock)]
        at_work: list[threading.Thread] = []
        while (now := time.monotonic() - began) < self.outcome.seconds:
            if accidents and now > accidents[0][0] * self.outcome.seconds:
                thread = threading.Thread(target=accidents.pop(0)[1], args=[now])
                thread.start()
                at_work.append(thread)
            change(self.sandbox.world, self._chances)
            self.outcome.changes += 1
            for one in self._watcher.deliveries():
                thread = threading.Thread(target=self._send, args=[one])
                thread.start()
                at_work.append(thread)
            self.outcome.memory.append((now, _memory(process)))
            time.sleep(max(0.0, 2 - (time.monotonic() - began - now)))
        for thread in at_work:
            thread.join()

    def _send(self, delivery: SandboxDelivery) -> None:
        self.outcome.sent += 1
        address = f"http://127.0.0.1:{self.api_port}/webhooks/bitbucket"
        for attempt in range(1, _ATTEMPTS + 1):
            with suppress(OSError, httpx.HTTPError):
                if delivery.send(address, self._secret, attempt) < 500:  # noqa: PLR2004 - a server error
                    return
            time.sleep(2)
        self.outcome.lost += 1

    def _restart_postgresql(self, at: float) -> None:
        began = time.monotonic()
        self.place.restart()
        self.outcome.accidents.append(f"PostgreSQL restarted after {at:.0f} s, in {time.monotonic() - began:.1f} s")

    def _step_clock(self, at: float) -> None:
        if self.clock is not None:
            self.clock.step(_CLOCK_STEP)
            self.outcome.accidents.append(f"the clock of all processes stepped by {_CLOCK_STEP} s after {at:.0f} s")
        else:
            self.outcome.accidents.append("no clock was stepped: there is no C compiler")

    def wait_until_applied(self, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._waiting():
            time.sleep(1)

    def _waiting(self) -> int:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM webhook_events WHERE applied_at IS NULL AND set_aside_at IS NULL"
            ).fetchone()
        return int(row[0]) if row else 0

    def look(self) -> None:
        with psycopg.connect(self.url) as connection:
            self.outcome.lags = [
                float(seconds)
                for (seconds,) in connection.execute(
                    "SELECT extract(epoch FROM applied_at - received_at) FROM webhook_events "
                    "WHERE applied_at IS NOT NULL"
                )
            ]
            self.outcome.runs = {
                f"{job} {status.lower()}": count
                for job, status, count in connection.execute(
                    "SELECT pipeline_name, status, count(*) FROM dagster.runs GROUP BY 1, 2 ORDER BY 1, 2"
                )
            }
        self.outcome.differences = differences(self.url, truth(self.sandbox.world))


def soak(minutes: float, config: WorldConfig) -> Outcome:
    """A change every two seconds, a sync due each minute, a restart of PostgreSQL and a step of the clock."""
    with (
        databases() as place,
        place.fresh() as url,
        tempfile.TemporaryDirectory(prefix="dx-dagster-soak-") as folder,
        Sandbox(config) as sandbox,
    ):
        run = _Soak(sandbox, place, url, Path(folder), minutes * 60)
        run.command("migrate")
        run.command("connect", config.workspace)
        run.command("sync", config.workspace)
        run.give_secret()
        with run.up() as process:
            run.live(process)
            run.wait_until_applied()
        # What a lost delivery said, and what no delivery says.
        run.command("sync", config.workspace)
        run.look()
        return run.outcome


def _memory(process: psutil.Process) -> float:
    total = 0
    with suppress(psutil.Error):
        for one in _family(process):
            with suppress(psutil.Error):
                total += one.memory_info().rss
    return total / 1024**2


def _family(process: psutil.Process) -> Sequence[psutil.Process]:
    return [process, *process.children(recursive=True)]
