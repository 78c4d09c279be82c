"""`dx-dagster daemon`."""

import os
import sys
import time
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dx_dagster.warehouse.locks import Lock

_SECONDS_TO_END = 20.0  # for the connection of a daemon that was killed


def daemon() -> None:
    """Runs Dagster's daemon, one for each database. `up` starts it.

    Example: dx-dagster daemon
    """
    from dx_dagster.cli import running
    from dx_dagster.cli.garbage_collection import collect_often
    from dx_dagster.cli.installation import Installation, packaged
    from dx_dagster.settings import Settings
    from dx_dagster.telemetry import json_logs
    from dx_dagster.warehouse.embedded import database_url
    from dx_dagster.warehouse.locks import Lock

    settings = Settings.read()
    if "DAGSTER_PG_URL" not in os.environ:  # otherwise `up` or `env` has set it
        Installation.open(settings, new=True).activate()
    url = database_url(settings)
    lock = Lock(url, running.DAEMON_LOCK, holder=running.daemon_name())
    _take(lock, url)
    [program] = entry_points(group="console_scripts", name="dagster-daemon")
    sys.argv = ["dagster-daemon", "run", "-w", str(packaged("workspace.yaml"))]
    if json_logs.are_on():
        sys.argv += ["--log-format", "json"]
    run = program.load()
    collect_often()
    run()


def _take(lock: "Lock", url: str) -> None:
    """Takes the lock. While the database does not answer, it waits: a daemon that ends would take `up` with it.

    Raises:
        CommandError: another daemon works on the database.
    """
    import psycopg

    from dx_dagster.cli import running
    from dx_dagster.warehouse.database import DatabaseGoneError
    from dx_dagster.warehouse.locks import holder_of

    deadline = time.monotonic() + _SECONDS_TO_END
    while True:
        try:
            if lock.take():
                return
            holder = holder_of(url, running.DAEMON_LOCK)
        except psycopg.OperationalError as error:
            print(DatabaseGoneError(str(error)), file=sys.stderr, flush=True)
            time.sleep(5)
            continue
        if holder and time.monotonic() > deadline:
            raise running.second_daemon(holder)
        time.sleep(1)
