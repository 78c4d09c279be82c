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
_MB = 1_000_000
_DAY = 86_400


@dataclass
class Stored:
    """Bytes in Dagster's tables, with their indexes.

    Attributes:
        sync: for each sync of a workspace in which nothing happened.
        ticks: of the ticks of schedules and sensors, in a day.
        left: what upkeep leaves for each workspace.
    """

    syncs: int
    sync: float
    ticks: float
    left: float


def measure(minutes: float) -> list[Table]:
    """Runs an installation whose one workspace is synced every minute, and measures its tables."""
    with databases() as place, place.fresh() as url, tempfile.TemporaryDirectory() as home:
        with serving(WorldConfig(pull_requests=100), 0) as server:
            empty = _run(url, Path(home), server, minutes)
        return [_table(_stored(url, 60 * minutes, empty))]


def _run(url: str, home: Path, server: Server, minutes: float) -> Mapping[str, int]:
    """Returns the sizes of the tables before the first of the runs."""
    given = {
        "DX_HOME": str(home / "home"),
        "DX_DATABASE_URL": url,
        "DX_SECRET_KEYS": Fernet.generate_key().decode(),
        "BITBUCKET_API_URL": server.url,
        "BITBUCKET_TOKEN": TOKEN,
        "DX_SYNC_CRON": "* * * * *",
        "DX_SYNC_EVERY": "30",
    }
    env = {**os.environ, **given}
    for command in (("connect", "acme"), ("sync", "acme")):  # the first sync is a larger one
        subprocess.run([*_COMMAND, *command], env=env, check=True, stdout=subprocess.DEVNULL)
    with psycopg.connect(url, autocommit=True) as connection:
        for table in (*_OF_RUNS, "job_ticks"):
            connection.execute(SQL("TRUNCATE dagster.{} CASCADE").format(Identifier(table)))
        empty = _sizes(connection)
    ports = ("--ui-port", str(free_port()), "--api-port", str(free_port()))
    with subprocess.Popen([*_COMMAND, "up", *ports], env=env, stdout=subprocess.DEVNULL) as process:
        time.sleep(60 * minutes)
        process.terminate()
    return empty


def _stored(url: str, seconds: float, empty: Mapping[str, int]) -> Stored:
    with psycopg.connect(url, autocommit=True) as connection:
        for table in _OF_RUNS:  # of the others, and of a sync that the end has interrupted
            if table != "asset_event_tags":
                connection.execute(SQL(_DELETE_OTHERS).format(Identifier(table)))
        connection.execute(
            "DELETE FROM dagster.asset_event_tags WHERE event_id NOT IN (SELECT id FROM dagster.event_logs)"
        )
        [syncs] = connection.execute("SELECT count(*) FROM dagster.runs").fetchone() or [0]
        if not syncs:
            raise RuntimeError("No sync has ended in that time. Let it run for more minutes.")
        before = _sizes(connection)
        asyncio.run(_keep_up(url))
        after = _sizes(connection)
    of_runs, left = (sum(sizes[table] - empty[table] for table in _OF_RUNS) for sizes in (before, after))
    return Stored(syncs, of_runs / syncs, (before["job_ticks"] - empty["job_ticks"]) / seconds * _DAY, left)


async def _keep_up(url: str) -> None:
    async with Warehouse(url) as warehouse:
        await old_runs.remove(warehouse, timedelta(0))


def _sizes(connection: psycopg.Connection[tuple[object, ...]]) -> Mapping[str, int]:
    """Without the room that deleted rows left."""
    sizes: dict[str, int] = {}
    for table in (*_OF_RUNS, "job_ticks"):
        name = Identifier("dagster", table)
        connection.execute(SQL("VACUUM FULL {}").format(name))
        row = connection.execute("SELECT pg_total_relation_size(%s)", [f"dagster.{table}"]).fetchone()
        sizes[table] = int(str(row[0])) if row else 0
    return sizes


def _table(stored: Stored) -> Table:
    columns = ["workspaces", "MB a day", f"MB after {_KEPT_DAYS} days with upkeep", "MB after a year without"]
    rows = []
    for workspaces in WORKSPACES:
        runs = workspaces * SYNCS_A_DAY * stored.sync
        kept = _KEPT_DAYS * runs + workspaces * stored.left + stored.ticks  # skipped ticks are kept for a day
        amounts = (runs + stored.ticks, kept, 365 * runs + stored.ticks)
        rows.append([str(workspaces), *(f"{amount / _MB:,.0f}" for amount in amounts)])
    title = (
        f"{stored.syncs} syncs: {stored.sync / 1000:.0f} kB each; ticks: {stored.ticks / _MB:.0f} MB a day; "
        f"upkeep leaves {stored.left / 1000:.0f} kB for each workspace"
    )
    return Table(title, columns, rows)
