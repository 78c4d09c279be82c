"""Creates and upgrades the tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import cast

from alembic import command
from alembic.config import Config
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from psycopg import Connection as DriverConnection
from psycopg.errors import DeadlockDetected, LockNotAvailable
from psycopg.rows import TupleRow
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from dx_dagster.warehouse import connecting, poolers
from dx_dagster.warehouse.blocking import telling_who_blocks
from dx_dagster.warehouse.database import WarehouseError
from dx_dagster.warehouse.migrations.live_schema import differences
from dx_dagster.warehouse.versions import STORED, is_ahead, known, needed, waiting, why_unfit, works_from

_NOTE_OLDEST = """
    UPDATE dx_schema_version SET works_from = :version, works_from_of = version_num
    WHERE (works_from, works_from_of) IS DISTINCT FROM (:version, version_num)"""
# Sessions that a process holds for as long as it uses the tables: `connecting.APPLICATION`, which once had no version.
_OLDER = r"""
    SELECT pid, host(client_addr) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name ~ '^dx-dagster( \d+)?( webhooks)?$'
      AND coalesce(substring(application_name FROM '\d+'), '') < :version
    ORDER BY pid"""
# Services work meanwhile: what they do next would wait behind a statement that waits for a lock.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '10s'"
_SENTENCES = 10  # more differences than that are not mended by hand
# Any number that nothing else in the database locks; the letters of "dx-dagst".
_MIGRATION_LOCK = 0x64782D6461677374


def _configuration(connection: Connection | None = None) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(files(__package__)))
    configuration.attributes["connection"] = connection
    return configuration


def _connect(url: str) -> Connection:
    scheme_less = url.split("://", 1)[1]
    engine = create_engine(
        f"postgresql+psycopg://{scheme_less}",
        poolclass=NullPool,
        connect_args={"application_name": "dx-dagster migrations"},
    )
    # Before SQLAlchemy's own listener, which queries the default schema.
    event.listen(engine, "connect", lambda connection, _: connecting.set_up(connection), insert=True)
    return engine.connect()


@contextmanager
def alone(url: str) -> Iterator[Connection]:
    """A connection that holds the migration lock: no other process creates or upgrades tables.

    Raises:
        WarehouseError: the database cannot be used by any release.
    """
    with _connect(url) as connection:
        driver = _driver(connection)
        if unfit := connecting.why_unfit(driver) or poolers.why_unfit(url):
            raise WarehouseError(unfit)
        with telling_who_blocks(url, driver.info.backend_pid):
            connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            connection.commit()
            yield connection


def server_version(connection: Connection) -> int:
    """PostgreSQL's version as libpq writes it: 180001 is 18.1."""
    return _driver(connection).info.server_version


def _driver(connection: Connection) -> DriverConnection[TupleRow]:
    return cast("DriverConnection[TupleRow]", connection.connection.driver_connection)


def upgrade(url: str, *, after: bool = False) -> str:
    """Upgrades the tables, and returns their version. Several processes may call it, and again.

    `after`: also by the migrations that wait, unless a process of an older release is connected. A new database has
    them from the start.

    Raises:
        WarehouseError: a newer release has upgraded the tables to a version that this one does not know, they differ
            from the declared tables, or they are in use.
    """
    with alone(url) as connection:
        version = upgrade_over(connection)
        if after and waiting(version):
            version = _finish(connection)
        return version


def upgrade_over(connection: Connection) -> str:
    """`upgrade` over a connection of `alone`; returns the version of the tables."""
    # Not IF NOT EXISTS, which requires the right to create a schema even where it exists.
    if connection.execute(text("SELECT to_regnamespace('dagster')")).scalar_one() is None:
        connection.execute(text("CREATE SCHEMA dagster"))
    stored = _stored(connection)
    if stored is not None and is_ahead(*stored):
        return stored[0]  # this release works on the tables of the newer one too
    version = known()[-1] if stored is None else stored[0]
    if stored is None or why_unfit(version) is not None:
        version = known()[-1] if stored is None else needed()
        _upgrade(connection, version)
    return _end(connection, version)


def _finish(connection: Connection) -> str:
    """Runs the migrations that wait, and returns the new version."""
    version = known()[-1]
    _require_no_older(connection, version)
    connection.execute(text(_LOCK_TIMEOUT))
    try:
        _upgrade(connection, version)
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
            raise
        raise WarehouseError(
            "The tables at DX_DATABASE_URL are in use, so the last migrations wait. Run dx-dagster migrate --after "
            "again when that has ended."
        ) from None
    _require_no_older(connection, version)  # one may have begun meanwhile
    return _end(connection, version)


def _require_no_older(connection: Connection, version: str) -> None:
    if older := connection.execute(text(_OLDER), {"version": version}).fetchall():
        those = ", ".join(f"process {pid} of the server{f', from {host}' if host else ''}" for pid, host in older)
        raise WarehouseError(
            f"A process of an older release still works on the tables at DX_DATABASE_URL ({those}), so the last "
            "migrations wait. Restart it with this release, then run dx-dagster migrate --after."
        )


def _end(connection: Connection, version: str) -> str:
    connection.execute(text(_NOTE_OLDEST), {"version": works_from(version)})
    connection.commit()
    _compare(connection, version)
    return version


def _upgrade(connection: Connection, version: str) -> None:
    try:
        command.upgrade(_configuration(connection), version)
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise
        raise WarehouseError(why_unfit(str(error.__cause__.argument))) from None


def _stored(connection: Connection) -> tuple[str, str | None] | None:
    """The version of the tables, and the oldest one whose release works on them."""
    there = connection.execute(text("SELECT to_regclass('public.dx_schema_version')")).scalar_one()
    row = connection.execute(text(STORED)).fetchone() if there else None
    return None if row is None else (row[0], row[1])


def faults(url: str) -> list[str]:
    """How the tables differ from the declared ones, as sentences. It waits for no upgrade."""
    with _connect(url) as connection:
        stored = _stored(connection)
        return differences(connection, may_be_loose=stored is not None and bool(waiting(stored[0])))


def _compare(connection: Connection, version: str) -> None:
    found = differences(connection, may_be_loose=bool(waiting(version)))
    connection.commit()
    if found:
        more = f" There are {len(found) - _SENTENCES} more differences." if len(found) > _SENTENCES else ""
        raise WarehouseError(
            "The tables at DX_DATABASE_URL are at the newest version, but not as dx-dagster needs them. "
            f"{' '.join(found[:_SENTENCES])}{more}"
        )


def has_dagster(connection: Connection) -> bool:
    """Whether the tables of Dagster's storages exist: runs, events, schedules."""
    tables = ", ".join(f"to_regclass('dagster.{table}')" for table in ("runs", "event_logs", "jobs"))
    return bool(connection.execute(text(f"SELECT num_nulls({tables})")).scalar_one() == 0)
