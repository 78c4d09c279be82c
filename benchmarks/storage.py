"""`storage`: what Dagster's runs and ticks add to the database in a day, and what upkeep leaves of it."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
from cryptography.fernet import Fernet
from psycopg.sql import SQL, Identifier

from benchmarks.reporting import Table
from benchmarks.surroundings import TOKEN, Server, databases, serving
from dx_dagster.cli.ports import free_port
from dx_dagster.sandbox import WorldConfig
from dx_dagster.warehouse import old_runs
from dx_dagster.warehouse.database import Warehouse

WORKSPACES = (1, 20, 200)
SYNCS_A_DAY = 25  # hourly ones, and the nightly reconcile
_KEPT_DAYS = 30  # DX_KEEP_RUNS_DAYS
_COMMAND = (sys.executable, "-m", "dx_dagster.cli")
_OF_RUNS = ("event_logs", "runs", "run_tags", "asset_check_executions", "asset_event_tags")
_DELETE_OTHERS = """
    DELETE FROM dagster.{} WHERE run_id IS NULL OR run_id NOT IN (
        SELECT run_id FROM dagster.runs WHERE pipeline_name = 'sync_workspace' AND status = 'SUCCESS')"""
_DELETE_THEIR_TAGS = "DELETE FROM dagster.asset_event_tags WHERE event_id NOT IN (SELECT id FROM dagster.event_logs)"
_CHANGED = 5  # pull requests
_SECONDS_BETWEEN_CHANGES = 20
_MB = 1_000_000
_DAY = 86_400


@dataclass
class Stored:
    """Bytes in Dagster's tables, with their indexes.

    Attributes:
        whole: for a sync that stores all results of checks, as one in a week does.
        idle: for a sync of a workspace in which nothing happened.
        busy: for one in which pull requests changed.
        steps: what upkeep removes of each sync after a day.
        ticks: of the ticks of schedules and sensors, in a day.
        left: what upkeep leaves for each workspace.
    """

    syncs: int
    whole: float
    idle: float
    busy: float
    steps: float
    ticks: float
    left: float

    def day(self, sync: float) -> float:
        """What the runs of one workspace add in a day, if each sync adds so much."""
        return SYNCS_A_DAY * sync + (self.whole - sync) / 7


def measure(minutes: float) -> list[Table]:
    """Runs an installation whose one workspace is synced every minute, and measures its tables.

    In the first half of the time nothing happens in the workspace.
    """
    with (
        databases() as place,
        place.fresh() as url,
        tempfile.TemporaryDirectory() as home,
        serving(WorldConfig(pull_requests=100), 0) as server,
    ):
        return [_table(_Installation(url, Path(home), server).measured(minutes / 2))]


class _Installation:
    def __init__(self, url: str, home: Path, server: Server) -> None:
        self._url, self._server = url, server
        given = {
            "DX_HOME": str(home / "home"),
            "DX_DATABASE_URL": url,
            "DX_SECRET_KEYS": Fernet.generate_key().decode(),
            "BITBUCKET_API_URL": server.url,
            "BITBUCKET_TOKEN": TOKEN,
            "DX_SYNC_CRON": "* * * * *",
            "DX_SYNC_EVERY": "30",
        }
        self._env = {**os.environ, **given}

    def measured(self, minutes: float) -> Stored:
        for command in ("connect", "sync"):  # the first sync is a larger one
            self._command(command)
        with psycopg.connect(self._url, autocommit=True) as connection:
            for table in (*_OF_RUNS, "job_ticks"):
                connection.execute(SQL("TRUNCATE dagster.{} CASCADE").format(Identifier(table)))
            empty, _ = self._sizes(connection)
            self._command("sync")
            whole, first = self._sizes(connection)
            self._up(minutes, changing=False)
            idle, second = self._sizes(connection)
            self._up(minutes, changing=True)
            busy, third = self._sizes(connection)
            asyncio.run(_remove_steps(self._url))
            kept, _ = self._sizes(connection)
            asyncio.run(_keep_up(self._url))
            left, _ = self._sizes(connection)
        if not first < second < third:
            raise RuntimeError("No sync has ended in that time. Let it run for more minutes.")
        return Stored(
            third - first,
            whole=_of_runs(whole, empty),
            idle=_of_runs(idle, whole) / (second - first),
            busy=_of_runs(busy, idle) / (third - second),
            steps=_of_runs(busy, kept) / third,
            ticks=(busy["job_ticks"] - empty["job_ticks"]) / (120 * minutes) * _DAY,
            left=_of_runs(left, empty),
        )

    def _command(self, command: str) -> None:
        subprocess.run([*_COMMAND, command, "acme"], env=self._env, check=True, stdout=subprocess.DEVNULL)

    def _up(self, minutes: float, *, changing: bool) -> None:
        ports = ("--ui-port", str(free_port()), "--api-port", str(free_port()))
        with subprocess.Popen([*_COMMAND, "up", *ports], env=self._env, stdout=subprocess.DEVNULL) as process:
            end = time.monotonic() + 60 * minutes
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, _SECONDS_BETWEEN_CHANGES))
                if changing:
                    self._server.change(_CHANGED)
            process.terminate()

    def _sizes(self, connection: psycopg.Connection[tuple[object, ...]]) -> tuple[Mapping[str, int], int]:
        """Sizes of tables without the room that deleted rows left; and the number of syncs."""
        for table in _OF_RUNS:  # of the others, and of a sync that the end has interrupted
            if table != "asset_event_tags":
                connection.execute(SQL(_DELETE_OTHERS).format(Identifier(table)))
        connection.execute(_DELETE_THEIR_TAGS)
        sizes: dict[str, int] = {}
        for table in (*_OF_RUNS, "job_ticks"):
            name = Identifier("dagster", table)
            connection.execute(SQL("VACUUM FULL {}").format(name))
            row = connection.execute("SELECT pg_total_relation_size(%s)", [f"dagster.{table}"]).fetchone()
            sizes[table] = int(str(row[0])) if row else 0
        [syncs] = connection.execute("SELECT count(*) FROM dagster.runs").fetchone() or [0]
        return sizes, int(str(syncs))


def _of_runs(sizes: Mapping[str, int], before: Mapping[str, int]) -> int:
    return sum(sizes[table] - before[table] for table in _OF_RUNS)


async def _remove_steps(url: str) -> None:
    async with Warehouse(url) as warehouse:
        await old_runs.remove_steps(warehouse, timedelta(0))


async def _keep_up(url: str) -> None:
    async with Warehouse(url) as warehouse:
        await old_runs.remove(warehouse, timedelta(0))


def _table(stored: Stored) -> Table:
    columns = [
        "workspaces",
        "MB a day, idle",
        "MB a day, busy",
        "of it after a day",
        f"busy, MB after {_KEPT_DAYS} days with upkeep",
        "busy, MB after a year without",
    ]
    rows = []
    for workspaces in WORKSPACES:
        idle, busy = (workspaces * stored.day(sync) for sync in (stored.idle, stored.busy))
        later = workspaces * stored.day(stored.busy - stored.steps)
        kept = busy + (_KEPT_DAYS - 1) * later + workspaces * stored.left + stored.ticks  # skipped ticks stay for a day
        amounts = (idle + stored.ticks, busy + stored.ticks, later, kept, 365 * busy + stored.ticks)
        rows.append([str(workspaces), *(f"{amount / _MB:,.0f}" for amount in amounts)])
    whole, idle, busy, left = (size / 1000 for size in (stored.whole, stored.idle, stored.busy, stored.left))
    title = (
        f"{stored.syncs} syncs: {idle:.0f} kB each when nothing changed, {busy:.0f} kB when {_CHANGED} pull requests "
        f"did, {whole:.0f} kB with all results of checks; {stored.steps / 1000:.0f} kB of it go after a day; "
        f"ticks: {stored.ticks / _MB:.0f} MB a day; upkeep leaves {left:.0f} kB for each workspace"
    )
    return Table(title, columns, rows)
