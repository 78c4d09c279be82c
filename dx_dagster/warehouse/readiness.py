"""Whether the database is ready: at the newest version, and open to changes. One connection tells both."""

from typing import Any

from psycopg import Connection
from psycopg.errors import UndefinedTable

from dx_dagster.warehouse import versions

_WRITE = f"""
    UPDATE {versions.VERSION_TABLE} SET version_num = version_num
    WHERE version_num IN (SELECT version_num FROM {versions.VERSION_TABLE} FOR UPDATE SKIP LOCKED)""".encode()  # noqa: S608


def is_current(connection: Connection[Any]) -> bool:
    """Whether the tables are at the newest version."""
    try:
        row = connection.execute(versions.STORED).fetchone()
    except UndefinedTable:
        return False
    return row is not None and row[0] == versions.known()[-1]


def try_write(connection: Connection[Any]) -> None:
    """Writes what is there and takes it back, once there are tables.

    Raises:
        psycopg.Error: the database takes no changes.
    """
    with connection.transaction(force_rollback=True):
        # Whoever upgrades the tables holds the row: he writes as well, and is not waited for.
        connection.execute(_WRITE)
