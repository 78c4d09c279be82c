"""`workers`: two Celery workers that share nothing but PostgreSQL and the broker, while each of the three fails.

Every service has a home, a Dagster home and a working folder of its own.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import psycopg
from celery import Celery
from cryptography.fernet import Fernet
from kombu import Connection

from benchmarks.contestants import ROOT, CannotRunError
from benchmarks.surroundings import NO_LIMIT, Databases, databases
from dx_dagster.automation.celery_launcher import waiting_tasks
from dx_dagster.cli.ports import free_port
from dx_dagster.sandbox import Faults, RateLimit, Sandbox, WorldConfig, truth
from dx_dagster.sandbox.deliveries import SandboxDelivery, Watcher
from dx_dagster.webhooks.address import PATH
from dx_dagster_tests.comparing import differences

_SIGNING = "a secret of the benchmark"
_SENDERS = 16
_ATTEMPTS = 60  # Bitbucket gives up sooner; here each delivery is to arrive, so that it can be counted
_SLOTS = 3
_WORKERS = 2
_QUEUE = "dagster"
_REFRESH = "refresh_workspaces"
_CONNECTED = Path(__file__).with_name("connected.py")
_SERVER_ERROR = 500
_AT_WORK = ("STARTED", "CANCELING")
_UNFINISHED = ("QUEUED", "NOT_STARTED", "STARTING", *_AT_WORK)
_HAS_DAGSTER = "SELECT to_regclass('dagster.asset_keys') IS NOT NULL"
_APPLIED_SINCE = "SELECT FROM webhook_events WHERE received_at > %s AND applied_at IS NOT NULL LIMIT 1"
_PID = re.compile(r"Started process for run \(pid: (\d+)\)")
# Counts how often each delivery was applied, whatever the code believes.
_COUNTING = """
    CREATE TABLE applied_counts (delivery bigint);
    CREATE FUNCTION count_applied() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO applied_counts VALUES (NEW.id); RETURN NULL; END';
    CREATE TRIGGER count_applied AFTER UPDATE OF applied_at ON webhook_events
        FOR EACH ROW WHEN (OLD.applied_at IS NULL AND NEW.applied_at IS NOT NULL) EXECUTE FUNCTION count_applied()"""


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        noticed: for each accident, what was noticed, and after how many seconds.
        lags: seconds from arrival to application, for each delivery.
        wrong: by workspace, what differs from the truth.
    """

    workspaces: int
    noticed: list[str] = field(default_factory=list)
    sent: int = 0
    deliveries: Counter[str] = field(default_factory=Counter)
    lags: list[float] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)
    unfinished: list[str] = field(default_factory=list)
    wrong: dict[str, Mapping[str, str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether all is in the tables, each delivery was applied once, and no run is left."""
        return not self.wrong and not self.unfinished and set(self.deliveries) == {"applied once"}

    def lines(self) -> Iterator[str]:
        yield f"{self.workspaces} workspaces, {self.seconds:.0f} s, {self.sent} deliveries sent"
        yield from self.noticed
        yield f"deliveries: {', '.join(f'{count} {what}' for what, count in sorted(self.deliveries.items()))}"
        if lags := sorted(self.lags):
            middle, most = lags[len(lags) // 2], lags[len(lags) * 95 // 100]
            yield f"lag: median {middle:.1f} s, 95th percentile {most:.1f} s, longest {lags[-1]:.1f} s"
        yield f"runs: {', '.join(f'{what} {count}' for what, count in sorted(self.runs.items()))}"
        yield f"runs left unfinished: {', '.join(self.unfinished) or 'none'}"
        yield f"differences from the truth: {self.wrong or 'none'}"


class Broker(ABC):
    """A broker that starts empty each time."""

    scheme: str

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/"

    @abstractmethod
    def _start(self) -> "subprocess.Popen[bytes]":
        """Its process, without what an earlier one stored."""

    def start(self) -> None:
        self._process = self._start()
        with Connection(self.url, connect_timeout=1) as connection:
            connection.ensure_connection(max_retries=600, interval_start=0.05, interval_step=0, interval_max=0.05)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Redis(Broker):
    scheme = "redis"

    def _start(self) -> "subprocess.Popen[bytes]":
        program = shutil.which("redis-server")
        if program is None:
            raise CannotRunError("This needs a Redis server. On Debian and Ubuntu: apt-get install redis-server")
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


class RabbitMq(Broker):
    """A RabbitMQ node of its own. It allows 20 s until a task is acknowledged, instead of half an hour."""

    scheme = "amqp"
    # Debian's command in the path changes to the service's user where root starts it.
    _PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    _CONFIGURATION = "[{rabbit, [{consumer_timeout, 20000}, {channel_tick_interval, 1000}]}]."

    def _start(self) -> "subprocess.Popen[bytes]":
        program = shutil.which(self._PROGRAM) or shutil.which("rabbitmq-server")
        if program is None:
            raise CannotRunError("This needs RabbitMQ. On Debian and Ubuntu: apt-get install rabbitmq-server")
        home = self.folder / "rabbitmq"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        (home / "plugins").write_text("[].")
        (home / "advanced.config").write_text(self._CONFIGURATION)
        settings = {
            "HOME": str(home),
            "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_NODENAME": f"dx{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
        }
        # RabbitMQ would leave its port mapper behind.
        command = ["sh", "-c", 'epmd & exec "$0"', program]
        return subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, start_new_session=True
        )


BROKERS: Mapping[str, type[Broker]] = {"redis": Redis, "rabbitmq": RabbitMq}


class _Service:
    """One process of the installation, as on a machine of its own."""

    def __init__(self, name: str, environment: Mapping[str, str], folder: Path, *command: str) -> None:
        self.name, self._folder = name, folder / name
        self._environment = {**environment, "DX_HOME": str(self._folder / "home")}
        self._command = [sys.executable, "-m", "dx_dagster.cli", *command]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pids(self) -> set[int]:
        with suppress(psutil.NoSuchProcess):
            if self._process is not None:
                process = psutil.Process(self._process.pid)
                return {process.pid, *(one.pid for one in process.children(recursive=True))}
        return set()

    def kill(self) -> None:
        """Kills all its processes at once, as when its machine stops."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def end(self) -> float:
        """Ends it in good order, and returns the seconds that it takes."""
        began = time.monotonic()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        return time.monotonic() - began


class _Sender:
    """Sends deliveries of living worlds until it is told to stop; one that is not taken is sent again."""

    def __init__(self, sandbox: Sandbox, address: str, every: float) -> None:
        self._places = [(world, Watcher(world), deque[SandboxDelivery]()) for world in sandbox.worlds]
        self._address, self._pause = address, every / len(self._places)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops making changes. What was changed is sent."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        with ThreadPoolExecutor(_SENDERS) as pool:
            number = 0
            while not self._stopped.wait(self._pause):
                world, watcher, waiting = self._places[number % len(self._places)]
                number += 1
                while not waiting:
                    with world.lock:
                        world.step()
                        waiting.extend(watcher.deliveries())
                self._submit(pool, waiting.popleft())
            for _, _, waiting in self._places:
                for one in waiting:
                    self._submit(pool, one)

    def _submit(self, pool: ThreadPoolExecutor, delivery: SandboxDelivery) -> None:
        self.sent += 1
        pool.submit(self._send, delivery)

    def _send(self, delivery: SandboxDelivery) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            with suppress(OSError):
                if delivery.send(self._address, _SIGNING, attempt) < _SERVER_ERROR:
                    return
            time.sleep(1)


class _Deployment:
    def __init__(self, sandbox: Sandbox, place: Databases, url: str, broker: Broker, sync_every: float) -> None:
        self.sandbox, self.place, self.url = sandbox, place, url
        self.outcome = Outcome(len(sandbox.worlds))
        self.broker = broker
        self.api_port = free_port()
        others = {name: value for name, value in os.environ.items() if not name.startswith(("DX_", "DAGSTER_"))}
        self.settings = {
            "DX_DATABASE_URL": url,
            "DX_SECRET_KEYS": Fernet.generate_key().decode(),
            "DX_CELERY_BROKER": self.broker.url,
            "DX_CONCURRENT_RUNS": str(2 * _SLOTS),
            "DX_SYNC_CRON": "* * * * *",
            "DX_SYNC_EVERY": str(sync_every),
            "DX_SYNC_PACE": str(2 * _SLOTS),
            "BITBUCKET_API_URL": sandbox.url,
        }
        environment = {**others, **self.settings, "PYTHONPATH": str(ROOT)}
        commands = {
            "daemon": ("daemon",),
            "ui": ("ui", "--port", str(free_port())),
            "api": ("serve", "--port", str(self.api_port)),
            "worker-1": ("worker", "--concurrency", str(_SLOTS), "--name", "one@worker"),
            "worker-2": ("worker", "--concurrency", str(_SLOTS), "--name", "two@worker"),
        }
        folder = broker.folder
        self.services = {name: _Service(name, environment, folder, *command) for name, command in commands.items()}

    def prepare(self, folder: Path) -> None:
        """Connects and imports all workspaces."""
        given = {
            "settings": {**self.settings, "DX_HOME": str(folder / "prepared")},
            "secret": self.sandbox.token.secret,
            "signing": _SIGNING,
            "workspaces": [world.config.workspace for world in self.sandbox.worlds],
        }
        subprocess.run(
            [sys.executable, "-P", str(_CONNECTED)],
            cwd=ROOT,
            input=json.dumps(given),
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        with psycopg.connect(self.url) as connection:
            connection.execute(_COUNTING)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self.broker.start()
        try:
            for service in self.services.values():
                service.start()
            self._wait_until("the API answers", 120, self._is_ready)
            self._wait_until("Dagster has its tables", 120, lambda: self.rows(_HAS_DAGSTER)[0][0])
            yield
        finally:
            took = {name: service.end() for name, service in self.services.items()}
            self.broker.kill()
            self.say(f"ended in {', '.join(f'{seconds:.1f} s ({name})' for name, seconds in took.items())}")

    def say(self, what: str) -> None:
        self.outcome.noticed.append(what)
        print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)

    def _is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.api_port}/readyz").is_success
        return False

    @staticmethod
    def _wait_until(what: str, seconds: float, holds: Callable[[], Any]) -> float:
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > seconds:
                raise CannotRunError(f"After {seconds:.0f} s, it does not hold that {what}.")
            time.sleep(0.5)
        return time.monotonic() - began

    def rows(self, query: str, *parameters: object) -> list[Any]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def runs(self, statuses: Sequence[str], job: str = "%") -> set[str]:
        """Runs with one of the statuses, of jobs whose name is LIKE `job`."""
        found = self.rows(
            "SELECT run_id FROM dagster.runs WHERE status = ANY(%s) AND pipeline_name LIKE %s", list(statuses), job
        )
        return {run for (run,) in found}

    def runs_in(self, service: _Service) -> set[str]:
        """Runs at work in its processes."""
        pids, found = service.pids(), set[str]()
        told = self.rows(
            "SELECT e.run_id, e.event FROM dagster.event_logs e JOIN dagster.runs r USING (run_id) "
            "WHERE r.status = 'STARTED' AND e.event LIKE '%%Started process for run%%'"
        )
        for run, event in told:
            match = _PID.search(event)
            if match and int(match[1]) in pids:
                found.add(run)
        return found

    def how_ended(self, runs: set[str]) -> str:
        found = self.rows(
            "SELECT pipeline_name, status FROM dagster.runs WHERE run_id = ANY(%s) ORDER BY 1", list(runs)
        )
        counted = Counter(f"{job} {status.lower()}" for job, status in found)
        return ", ".join(f"{count} {what}" for what, count in counted.items())

    def watch(
        self, what: str, runs: set[str], statuses: Sequence[str], seconds: float, began: float | None = None
    ) -> None:
        """Waits until none of the runs has one of these statuses any more."""
        if not runs:
            self.say(f"{what}: none")
            return
        began, ends = time.monotonic() if began is None else began, dict[str, float]()
        while len(ends) < len(runs) and time.monotonic() - began < seconds:
            with suppress(psycopg.OperationalError):
                for run in runs - self.runs(statuses) - ends.keys():
                    ends[run] = time.monotonic() - began
            time.sleep(0.5)
        times = f"{min(ends.values()):.0f} to {max(ends.values()):.0f} s" if ends else "never"
        left = f", {len(runs) - len(ends)} not within {seconds:.0f} s" if len(ends) < len(runs) else ""
        self.say(f"{what}: {len(runs)} runs, noticed after {times}{left} ({self.how_ended(runs)})")

    def kill_a_worker(self) -> None:
        worker = self.services["worker-1"]
        self._wait_until("a run is at work in worker 1", 600, lambda: self.runs_in(worker))
        lost = self.runs_in(worker)
        worker.kill()
        self.watch("worker killed with its machine", lost, _AT_WORK, 240)
        worker.start()

    def kill_a_process(self) -> None:
        """Kills the process of one run, as the kernel does when memory ends."""
        worker = self.services["worker-2"]
        self._wait_until("a run is at work in worker 2", 600, lambda: self.runs_in(worker))
        [run, *_] = self.runs_in(worker)
        self._kill_process_of(run)
        self.watch("process of a run killed", {run}, _AT_WORK, 240)

    def _kill_process_of(self, run: str) -> None:
        [(event,), *_] = self.rows(
            "SELECT event FROM dagster.event_logs WHERE run_id = %s AND event LIKE '%%Started process for run%%'", run
        )
        if match := _PID.search(event):
            with suppress(ProcessLookupError):
                os.kill(int(match[1]), signal.SIGKILL)

    def empty_the_broker(self) -> None:
        """The broker is killed while it holds the run that is to apply deliveries, and starts empty."""
        with Connection(self.broker.url) as connection:
            Celery(broker=self.broker.url).control.cancel_consumer(_QUEUE, reply=True, connection=connection)
        self._wait_until("the broker holds the only refresh", 200, self._is_refresh_queued)
        self._wait_until("it is sent", 60, self._queued)
        queued, at_work = self.runs(["STARTING"]), self.runs(_AT_WORK)
        self.broker.kill()
        time.sleep(3)
        self.broker.start()
        began, restarted = time.monotonic(), self.rows("SELECT now()")[0][0]
        before = {run for (run,) in self.rows("SELECT run_id FROM dagster.runs")}
        back = self._wait_until("both workers are back", 120, lambda: self._consuming() == _WORKERS)
        self.say(f"broker restarted empty: the workers are back after {back:.0f} s")
        self._wait_until("a new run begins", 240, lambda: self.runs(["STARTED", "SUCCESS"]) - before)
        self.say(f"broker restarted empty: the first new run begins after {time.monotonic() - began:.0f} s")
        self.watch("broker restarted empty, runs in it", queued, ["STARTING"], 300, began)
        self._wait_until("deliveries are applied", 240, lambda: self.rows(_APPLIED_SINCE, restarted))
        self.say(f"broker restarted empty: deliveries are applied again after {time.monotonic() - began:.0f} s")
        self.watch("broker restarted empty, runs at work", at_work, _AT_WORK, 240)

    def _is_refresh_queued(self) -> bool:
        """Ends refreshes at work, which would go on for ten minutes: no other one would be launched."""
        at_work = self.runs(_AT_WORK, _REFRESH)
        for run in at_work:
            self._kill_process_of(run)
        return not at_work and bool(self.runs(["STARTING"], _REFRESH))

    def _queued(self) -> int:
        with Connection(self.broker.url) as connection:
            return waiting_tasks(connection, _QUEUE)

    def _consuming(self) -> int:
        """Tells the workers to take runs again, and returns how many answer."""
        with Connection(self.broker.url) as connection:
            return len(Celery(broker=self.broker.url).control.add_consumer(_QUEUE, reply=True, connection=connection))

    def restart_the_database(self) -> None:
        self._wait_until("two runs are at work", 600, lambda: len(self.runs(_AT_WORK)) > 1)
        at_work = self.runs(_AT_WORK)
        began = time.monotonic()
        self.place.restart()
        took = time.monotonic() - began
        self._wait_until("the API answers", 120, self._is_ready)
        self.say(f"database restarted in {took:.1f} s: the API is ready after {time.monotonic() - began:.1f} s")
        self.watch("database restarted, runs at work", at_work, _AT_WORK, 300)

    def end_a_worker(self) -> None:
        """Ends a worker in good order, as for a new release."""
        worker = self.services["worker-2"]
        self._wait_until("a run is at work in worker 2", 600, lambda: self.runs_in(worker))
        at_work = self.runs_in(worker)
        thread = threading.Thread(target=worker.end)
        thread.start()
        self.watch("worker ended by SIGTERM", at_work, _AT_WORK, 240)
        thread.join()
        worker.start()

    def settle(self) -> None:
        """Waits until all deliveries are applied, and syncs each workspace once more: not all changes are delivered."""
        self._wait_until(
            "all deliveries are applied",
            900,
            lambda: not self.rows("SELECT FROM webhook_events WHERE applied_at IS NULL AND set_aside_at IS NULL"),
        )
        self.say("all deliveries are applied")
        with psycopg.connect(self.url) as connection:
            asked = connection.execute(
                "UPDATE connections SET sync_asked_at = now(), last_synced_at = now() RETURNING sync_asked_at"
            ).fetchone()
        self._wait_until(
            "each workspace was asked for a sync that began",
            1200,
            lambda: not self.rows("SELECT FROM connections WHERE sync_asked_at IS NOT NULL"),
        )
        # Scheduled syncs go on.
        left = self.runs(_UNFINISHED)
        with suppress(CannotRunError):
            self._wait_until("these have ended", 600, lambda: not left & self.runs(_UNFINISHED))
        self.outcome.unfinished = sorted(left & self.runs(_UNFINISHED))
        self.say(f"a last sync of each workspace has ended, asked for at {asked[0]:%H:%M:%S}" if asked else "")

    def look(self) -> None:
        found = self.rows(
            "SELECT CASE WHEN e.applied_at IS NULL THEN 'not applied' WHEN c.times = 1 THEN 'applied once' "
            "ELSE 'applied ' || COALESCE(c.times, 0) || ' times' END, "
            "COALESCE(extract(epoch FROM applied_at - received_at), 'infinity')::float8 "
            "FROM webhook_events e LEFT JOIN (SELECT delivery, count(*) AS times FROM applied_counts GROUP BY 1) c "
            "ON c.delivery = e.id"
        )
        outcome = self.outcome
        outcome.deliveries = Counter(what for what, _ in found)
        if len(found) != outcome.sent:
            outcome.deliveries["lost or stored twice"] = abs(outcome.sent - len(found))
        outcome.lags = [lag for _, lag in found]
        runs = self.rows("SELECT pipeline_name, status FROM dagster.runs")
        outcome.runs = Counter(f"{job} {status.lower()}" for job, status in runs)
        everything: dict[str, list[Any]] = {}
        for world in self.sandbox.worlds:
            for table, theirs in truth(world).items():
                everything.setdefault(table, []).extend(theirs)
        if wrong := differences(self.url, everything):
            outcome.wrong["all"] = wrong


def measure(workspaces: int, every: float, sync_every: float, broker: type[Broker] = Redis) -> Outcome:
    """Kills, empties and restarts each part once, while deliveries and syncs go on."""
    configs = [WorldConfig(f"team-{number}", number, 2, 8, 4, forbidden_repositories=0) for number in range(workspaces)]
    sandbox = Sandbox(configs[0], also=configs[1:], limits=RateLimit(NO_LIMIT), faults=Faults(latency=0.1))
    with ExitStack() as stack:
        place = stack.enter_context(databases())
        url = stack.enter_context(place.fresh())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dx-dagster-workers-")))
        stack.enter_context(sandbox)
        deployment = _Deployment(sandbox, place, url, broker(folder), sync_every)
        try:
            deployment.prepare(folder)
            began = time.monotonic()
            with deployment.at_work():
                with _Sender(sandbox, f"http://127.0.0.1:{deployment.api_port}{PATH}", every) as sender:
                    deployment.kill_a_worker()
                    deployment.kill_a_process()
                    deployment.empty_the_broker()
                    deployment.restart_the_database()
                    deployment.end_a_worker()
                    sender.stop()
                    deployment.outcome.sent = sender.sent
                deployment.settle()
                deployment.look()
            deployment.outcome.seconds = time.monotonic() - began
        finally:
            if kept := os.environ.get("DX_BENCH_LOGS"):
                shutil.copytree(folder, kept, dirs_exist_ok=True)
    return deployment.outcome
