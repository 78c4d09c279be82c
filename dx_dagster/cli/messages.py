"""Messages for errors: one paragraph, or None for an internal error, which keeps its traceback."""

import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from dx_dagster.cli.errors import CommandError

# By PostgreSQL's name of the error, which both drivers use: the fault of the database, and its remedy.
_REFUSALS = {
    "InsufficientPrivilege": (
        "denies its user a required privilege",
        "Make the user its owner (ALTER DATABASE … OWNER TO …), or allow it the schema dagster and tables in public.",
    ),
    "InvalidSchemaName": (
        "has no schema public that its user may use",
        "Create it (CREATE SCHEMA public), or allow the user to use it (GRANT ALL ON SCHEMA public TO …).",
    ),
    "ReadOnlySqlTransaction": (
        "is read-only",
        "Use the address of the primary server. Some services make a primary read-only when its disk is full.",
    ),
    "DuplicateTable": ("contains tables of another program", "Give dx-dagster a database of its own."),
}


def message(error: Exception) -> str | None:
    """The message for the error; None if it is an internal error."""
    return _of_ours(error) or _about_database(error) or _about_home(error) or _about_room(error)


def _of_ours(error: Exception) -> str | None:
    from dx_dagster.settings import SettingsError

    if isinstance(error, CommandError | SettingsError):
        return str(error)
    warehouse = sys.modules.get("dx_dagster.warehouse.database")
    return str(error) if warehouse is not None and isinstance(error, warehouse.WarehouseError) else None


def _about_database(error: BaseException) -> str | None:
    """The message for an error of psycopg, or of psycopg2 wrapped by SQLAlchemy or dagster-postgres."""
    for one in _chain(error):
        cause = getattr(one, "orig", one)
        for name in ("psycopg", "psycopg2"):
            driver = sys.modules.get(name)  # a driver that is not imported cannot have failed
            if driver is None or not isinstance(cause, driver.Error):
                continue
            words = " ".join(str(cause).split())
            if isinstance(cause, driver.ProgrammingError) and "connection option" in words:
                return f"DX_DATABASE_URL cannot be read: {words}"
            if _is_gone(driver, cause):
                from dx_dagster.warehouse.database import DatabaseGoneError

                return str(DatabaseGoneError(str(cause)))
            if refusal := _REFUSALS.get(type(cause).__name__):
                wrong, mend = refusal
                return f"The database at DX_DATABASE_URL {wrong}: {cause.diag.message_primary or words}. {mend}"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, latest first: clean-up in Dagster and SQLAlchemy adds further errors."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _is_gone(driver: ModuleType, error: Any) -> bool:
    """Whether the connection is gone. psycopg2 raises a bare DatabaseError if it breaks within a statement."""
    kinds = (driver.OperationalError, driver.InterfaceError)
    return isinstance(error, kinds) or (type(error) is driver.DatabaseError and not getattr(error, "pgcode", None))


def _about_home(error: Exception) -> str | None:
    """The message for a folder or file of the installation that cannot be created, read or written."""
    from dx_dagster.settings import Settings

    if not isinstance(error, OSError) or not isinstance(error.filename, str):
        return None
    home, path = Settings.read().home, Path(error.filename)
    if home != path and home not in path.parents and path not in home.parents:
        return None
    return f"DX_HOME={home} cannot be used: {error.strerror}: {path}. Set DX_HOME to a writable folder."


def _about_room(error: Exception) -> str | None:
    """The message for a full disk under the output, which is a file without a name here."""
    if not isinstance(error, OSError) or error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return None
    return f"The output could not be written: {error.strerror}. Make room, then run the command again."
