"""Which installations run on this machine, and where a command may make a new one.

One `up` or `demo` runs on a home, and one Dagster daemon on a database: two daemons start every scheduled run twice.
The kernel releases the lock of a home, and PostgreSQL that of a database, when its process ends in any way.
"""

import json
import os
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path

from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.ports import LOOPBACK, api_url
from dx_dagster.clock import HOST
from dx_dagster.settings import DEFAULT_HOME, Settings, default_home, is_home, make_home
from dx_dagster.warehouse import lock_names

DAEMON_LOCK = lock_names.DAEMON
_FILE = "up.lock"
_ATTEMPTS, _PAUSE = 10, 0.05  # a look at the lock holds it for an instant
_SECONDS_TO_END = 10.0  # within which the daemon of an `up` that was killed ends
_LONGEST_NAME = 63  # bytes of a connection's name, which PostgreSQL cuts


@dataclass(frozen=True)
class RunningCommand:
    """An `up` or `demo` at work on a home."""

    pid: int
    command: str
    home: str
    ui_port: int | None
    api_port: int | None
    started_at: str
    database_port: int | None = None
    ui_host: str = LOOPBACK

    def __str__(self) -> str:
        return f"process {self.pid}, dx-dagster {self.command}"


@contextmanager
def alone(
    settings: Settings,
    command: str,
    ui_port: int | None,
    api_port: int | None,
    database_port: int | None = None,
    *,
    ui_host: str = LOOPBACK,
) -> Iterator[None]:
    """Holds the home until the end of the block.

    Raises:
        CommandError: another `up` or `demo` holds it.
    """
    make_home(settings.home)
    handle = os.open(settings.home / _FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(handle, settings.home)
        started = HOST.now().isoformat(timespec="seconds")
        home, ports = str(settings.home), (ui_port, api_port)
        own = RunningCommand(os.getpid(), command, home, *ports, started, database_port, ui_host)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(own)).encode(), 0)
        yield
    finally:
        os.close(handle)


def _take(handle: int, home: Path) -> None:
    for _ in range(_ATTEMPTS):
        with suppress(BlockingIOError):
            flock(handle, LOCK_EX | LOCK_NB)
            return
        time.sleep(_PAUSE)
    require_idle(home)
    raise CommandError(f"Another process starts the installation in {home} at this moment. Nothing was started.")


def require_idle(home: Path) -> None:
    """Checks that no `up` or `demo` runs on the home.

    Raises:
        CommandError: one does.
    """
    if running := running_in(home):
        raise CommandError(
            f"The installation in {home} runs already ({running}). Nothing was started. To end that one: Ctrl-C in its "
            f"terminal, or kill {running.pid}. To run another beside it, set DX_HOME to another folder."
        )


def running_in(home: Path) -> RunningCommand | None:
    """The `up` or `demo` that holds the home."""
    try:
        handle = os.open(home / _FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        flock(handle, LOCK_SH | LOCK_NB)
    except BlockingIOError:
        with suppress(ValueError, TypeError):  # it is being written
            written = json.loads(os.pread(handle, 10_000, 0))
            # Another release may have written more.
            return RunningCommand(
                **{one.name: written[one.name] for one in fields(RunningCommand) if one.name in written}
            )
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


def name_api(settings: Settings) -> None:
    """Sets DX_API_URL for a run in this process to the API of the `up` on its home, unless a setting has an address."""
    running = None if settings.api_address else running_in(settings.home)
    if running is not None and running.api_port is not None:
        os.environ["DX_API_URL"] = api_url(running.api_port)


def running_elsewhere(home: Path) -> RunningCommand | None:
    """An `up` or `demo` of this user on another home of this machine."""
    import psutil

    for process in psutil.process_iter(["cmdline", "uids"]):
        command, owner = process.info["cmdline"] or (), process.info["uids"]
        if "dx_dagster.cli" not in command or owner is None or owner.real != os.getuid():
            continue
        with suppress(psutil.Error, OSError):
            # The services have the home of their supervisor in the environment; the supervisor itself may not.
            found = process.environ().get("DX_HOME")
            if found and Path(found) != home and (running := running_in(Path(found))):
                return running
    return None


def require_existing(settings: Settings) -> None:
    """Checks that there is an installation to work on. A database that DX_DATABASE_URL names is one.

    Raises:
        CommandError: there is none.
    """
    home = settings.home
    if settings.database_url is not None or (home / "postgres").exists():
        return
    _require_named_database(home)
    raise CommandError(f"There is no installation in {home}. {_others(home) or _WAYS}")


def require_intended(settings: Settings) -> None:
    """Checks that a new installation, which the command would make, is meant: none of this user runs elsewhere.

    Raises:
        CommandError: it is not meant.
    """
    home = settings.home
    if settings.database_url is not None or (home / "postgres").exists():
        return
    _require_named_database(home)
    if os.environ.get("DX_HOME"):
        return
    if running := running_elsewhere(home):
        raise CommandError(
            f"There is no installation in {home}, and one runs in {running.home} ({running}). To use that one: export "
            f"DX_HOME={shlex.quote(running.home)}. To make another: export DX_HOME={shlex.quote(str(home))}."
        )


_WAYS = (
    "To make one: dx-dagster connect WORKSPACE, or dx-dagster up. To use another: set DX_HOME to its folder, or "
    "DX_DATABASE_URL to its database."
)


def _require_named_database(home: Path) -> None:
    if (home / "dagster").exists():
        raise CommandError(
            f"The installation in {home} has no embedded database: it was used with another one. Set DX_DATABASE_URL "
            "to the address of that database. For a new installation, set DX_HOME to a new folder."
        )


def _others(home: Path) -> str | None:
    """How to use the installation that is probably meant."""
    if running := running_elsewhere(home):
        return f"One runs in {running.home} ({running}). To use it: export DX_HOME={shlex.quote(running.home)}"
    demo = default_home(DEFAULT_HOME / "demo")
    if demo != home and is_home(demo):
        return f"That of the demo is in {demo}. To use it: export DX_HOME={shlex.quote(str(demo))}"
    return None


def daemon_name() -> str:
    """The name of this process for the lock of the daemon."""
    return f"process {os.getpid()} on {socket.gethostname()}"[:_LONGEST_NAME]


def require_no_daemon(url: str) -> None:
    """Checks that no Dagster daemon works on the database; waits for one that is ending.

    Raises:
        CommandError: one does.
    """
    from dx_dagster.warehouse.locks import holder_of

    deadline = time.monotonic() + _SECONDS_TO_END
    while holder := holder_of(url, DAEMON_LOCK):
        if time.monotonic() > deadline:
            raise second_daemon(holder)
        time.sleep(1)


def second_daemon(holder: str) -> CommandError:
    return CommandError(
        f"A Dagster daemon works on this database already ({holder}). A second one would start every scheduled run "
        "twice, so nothing was started. End the other dx-dagster, or run dx-dagster serve, which has no daemon."
    )
