"""Whether the database is ready: at the newest version, and writable. One connection suffices for both checks."""

from typing import Any

from psycopg import Connection
from psycopg.errors import UndefinedTable

from dx_dagster.warehouse import versions

# An upgrade holds the row: it writes as well, and is not waited for.
_WRITE = """
    UPDATE dx_schema_version SET version_num = version_num
    WHERE version_num IN (SELECT version_num FROM dx_schema_version FOR UPDATE SKIP LOCKED)"""


def is_current(connection: Connection[Any]) -> bool:
    """Whether the tables are at the newest version, or at a later one that works with this release too."""
    try:
        row = connection.execute(versions.STORED).fetchone()
    except UndefinedTable:
        return False
    return row is not None and versions.why_unfit(*row) is None


def try_write(connection: Connection[Any]) -> None:
    """Writes the stored version again and rolls back.

    Raises:
        psycopg.Error: the database takes no changes.
    """
    with connection.transaction(force_rollback=True):
        connection.execute(_WRITE)
