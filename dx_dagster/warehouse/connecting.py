"""Connections with the same settings, whatever the role, the database, the server and the address prescribe.

An administrator may choose settings for interactive queries: a timeout for idle sessions, German dates, transactions
that are serializable or read-only. The statements of dx-dagster need the settings below. One statement sets them all:
as a parameter of the connection they would replace the `options` of the address and of PGOPTIONS. Dagster opens its own
connections, and gets them as such a parameter, after those.
"""

import os
import socket
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from psycopg import AsyncConnection, Connection, ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import QueryCanceled
from psycopg.pq import Conninfo
from psycopg.rows import TupleRow

from dx_dagster.warehouse.versions import known

APPLICATION = f"dx-dagster {known()[-1]}"
"""Names the sessions of this release: a migration that takes something away waits for those of older ones."""
Result = TypeVar("Result")

_SETTINGS = {
    # First, or it may cancel the statement that sets the others. It may still cancel itself: see `_ATTEMPTS`.
    "statement_timeout": "0",
    # PostgreSQL's default is "$user", public: with a role called dagster, tables would be made in Dagster's schema.
    "search_path": "public",
    "client_encoding": "UTF8",
    "DateStyle": "ISO,MDY",
    "IntervalStyle": "postgres",
    # In another zone, the first hours of the year 1 are before Python's earliest datetime.
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "lock_timeout": "0",
    # An advisory lock is released with its connection, which is idle for as long as the lock is needed.
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # The server releases the locks of an unreachable client once it notices: without keepalives, after two hours.
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
}
# The same for the client, with libpq's names and units.
_KEEPALIVES = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# The PostgreSQL version, as libpq writes it, that introduced a setting. An older server refuses it.
_SINCE = {"tcp_user_timeout": 120000, "idle_session_timeout": 140000, "transaction_timeout": 170000}
# libpq sends these with each connection, and the server applies them after the options.
_SETTINGS_OF_LIBPQ = {"PGTZ", "PGDATESTYLE", "PGCLIENTENCODING"}
# A statement timeout of a millisecond, as an administrator or PGOPTIONS may set it, ends 2 of 100 shortest statements
# on a quiet machine.
_ATTEMPTS = 100
_FIT = "SELECT pg_is_in_recovery(), current_setting('server_encoding')"


def connect(url: str, *, statement_timeout: float = 0, **parameters: Any) -> Connection[TupleRow]:
    """A connection in autocommit mode; `statement_timeout` in seconds, 0 for none."""
    connection = Connection.connect(url, autocommit=True, **keepalives(url) | parameters)
    try:
        set_up(connection, statement_timeout=statement_timeout)
    except BaseException:
        connection.close()
        raise
    return connection


async def connect_async(url: str, **parameters: Any) -> AsyncConnection[TupleRow]:
    """`connect` for asyncio."""
    connection = await AsyncConnection.connect(url, autocommit=True, **keepalives(url) | parameters)
    try:
        await set_up_async(connection)
    except BaseException:
        await connection.close()
        raise
    return connection


def keepalives(url: str) -> dict[str, Any]:
    """Parameters that detect a dead connection within half a minute, except those that the address sets itself."""
    named: Container[str] = ()
    with suppress(ProgrammingError):  # connecting says what is wrong with the address
        named = conninfo_to_dict(url)
    return {name: value for name, value in _KEEPALIVES.items() if name not in named}


@contextmanager
def cut_off(connection: Connection[Any], seconds: float) -> Iterator[None]:
    """Ends the connection if the block takes longer: a server that hangs does not apply its own timeouts."""
    timer = threading.Timer(seconds, _shut, [connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(connection: Connection[Any]) -> None:
    """Shuts the socket down, which wakes a thread that waits for it; closing it would let the thread wait for ever."""
    with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as its:
        its.shutdown(socket.SHUT_RDWR)


def set_up(connection: Connection[Any], *, statement_timeout: float = 0) -> None:
    autocommit = connection.autocommit
    connection.autocommit = True  # in a transaction, a rollback would take it back
    statement = _statement(connection.info.server_version, statement_timeout)
    in_time(lambda: connection.execute(statement))
    connection.autocommit = autocommit


async def set_up_async(connection: AsyncConnection[Any], *, statement_timeout: float = 0) -> None:
    autocommit = connection.autocommit
    await connection.set_autocommit(True)
    statement = _statement(connection.info.server_version, statement_timeout)
    for _ in range(_ATTEMPTS - 1):
        with suppress(QueryCanceled):
            await connection.execute(statement)
            break
    else:
        await connection.execute(statement)
    await connection.set_autocommit(autocommit)


def in_time(work: Callable[[], Result]) -> Result:
    """Does work of few short statements where the statement timeout may still be anything: again until it is in time.

    Raises:
        QueryCanceled: it never was.
    """
    for _ in range(_ATTEMPTS - 1):
        with suppress(QueryCanceled):
            return work()
    return work()


def options(server_version: int, **others: str) -> str:
    """The settings as the connection parameter `options`, which libpq and the server split at blanks."""
    known = _known_to(server_version) | others
    return " ".join(f"-c{name}={value.replace(' ', chr(92) + ' ')}" for name, value in known.items())


def forget_environment(*, but_for_address: bool = False) -> None:
    """Removes libpq's variables from the environment of this process and of its children.

    `but_for_address` removes only those that change settings; others, such as PGPASSWORD, complete an address.
    """
    names = _SETTINGS_OF_LIBPQ
    if not but_for_address:
        names = names | {option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar}
    for name in names:
        os.environ.pop(name, None)


def why_unfit(connection: Connection[Any]) -> str | None:
    """Why the database cannot be used with any settings, and what to do about it; None where it can be used."""
    return _why_unfit(connection.execute(_FIT).fetchone())


async def why_unfit_async(connection: AsyncConnection[Any]) -> str | None:
    return _why_unfit(await (await connection.execute(_FIT)).fetchone())


def _why_unfit(row: TupleRow | None) -> str | None:
    is_standby, encoding = row or (False, None)
    if encoding != "UTF8":
        return (
            f"The database at DX_DATABASE_URL has the encoding {encoding}, which cannot hold everything that Bitbucket "
            "sends. Make one with UTF8 (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0) and name it there."
        )
    if is_standby:
        return (
            "The database at DX_DATABASE_URL is on a standby server, which takes no changes. Name the primary server."
        )
    return None


def _known_to(server_version: int) -> dict[str, str]:
    return {name: value for name, value in _SETTINGS.items() if server_version >= _SINCE.get(name, 0)}


def _statement(server_version: int, statement_timeout: float) -> bytes:
    statements = [f"SET {name} TO '{value}'" for name, value in _known_to(server_version).items()]
    if statement_timeout:
        statements.append(f"SET statement_timeout TO {round(statement_timeout * 1000)}")
    return "; ".join(statements).encode()
