"""Connection poolers that give each transaction another connection to the server: the session's locks stay behind.

PgBouncer does so with `pool_mode = transaction` or `statement`; others have other names for it. A pooler in session
mode is as good as the server itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from psycopg import Connection
from psycopg.errors import ProtocolViolation
from psycopg.rows import TupleRow

from dx_dagster.warehouse.connecting import cut_off, keepalives

# Other clients of a busy pooler may come between two statements of ours, hence more than one round.
_ROUNDS = 10
_SECONDS = 10
_PID = "SELECT pg_backend_pid()"


@cache
def why_unfit(url: str) -> str | None:
    """Why no lock can be held through the address, in one sentence and how to mend it; asks once a process.

    Raises:
        psycopg.Error: the database does not answer.
    """
    with _connected(url) as one:
        # PostgreSQL tells its process as the connection begins. A pooler has none yet, and makes a number up.
        if one.info.backend_pid == _pid(one) or not _changes_servers(url, one):
            return None
    return (
        "The address in DX_DATABASE_URL leads to a connection pooler that gives each transaction another connection to "
        "PostgreSQL (pool_mode transaction or statement in PgBouncer): the locks that keep two imports of a workspace "
        "apart would be lost there. Name PostgreSQL itself, or a pool in session mode."
    )


def _changes_servers(url: str, one: Connection[TupleRow]) -> bool:
    """Whether a connection changes from one process of the server to another, or two connections share one.

    A pooler hands out the server's connections from either end of its list. From the one end, a transaction of another
    client gets what we have just used; from the other, we get another one each time, unless there is only one.
    """
    with _connected(url) as other:
        ours = {_pid(one)}
        for _ in range(_ROUNDS):
            ours.add(_pid(one))
            try:
                other.execute("BEGIN")
                its = _pid(other)
                other.execute("ROLLBACK")
            except ProtocolViolation:  # each statement by itself: there are no transactions
                return True
            if len(ours) > 1 or its in ours:
                return True
    return False


def _pid(connection: Connection[TupleRow]) -> int:
    row = connection.execute(_PID).fetchone()
    return int(row[0]) if row else 0


@contextmanager
def _connected(url: str) -> Iterator[Connection[TupleRow]]:
    with (
        Connection.connect(
            url,
            autocommit=True,
            prepare_threshold=None,  # what one connection has prepared, another one does not know
            application_name="dx-dagster",
            connect_timeout=_SECONDS,
            **keepalives(url),
        ) as connection,
        cut_off(connection, _SECONDS),
    ):
        yield connection
