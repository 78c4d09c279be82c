"""Connection poolers in transaction mode: each transaction gets another server connection, so no session keeps a lock.

PgBouncer calls it `pool_mode = transaction` or `statement`. A pooler in session mode works like the server itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from psycopg import Connection
from psycopg.errors import ProtocolViolation
from psycopg.rows import TupleRow

from dx_dagster.warehouse.connecting import APPLICATION, cut_off, in_time, keepalives

# Other clients of a busy pooler may get a connection between two statements, hence more than one round.
_ROUNDS = 10
_SECONDS = 10
_PID = "SELECT pg_backend_pid()"


@cache
def why_unfit(url: str) -> str | None:
    """Why no session lock can be held through the address, and what to do about it; checked once a process.

    Raises:
        psycopg.Error: the database does not answer.
    """
    # The settings of a session are not set here: through a pooler they would be set for other clients too.
    if not in_time(lambda: _is_transaction_pooler(url)):
        return None
    return (
        "The address in DX_DATABASE_URL leads to a connection pooler that gives each transaction another connection to "
        "PostgreSQL (pool_mode transaction or statement in PgBouncer): the locks that keep two imports of a workspace "
        "apart would be lost there. Name PostgreSQL itself, or a pool in session mode."
    )


def _is_transaction_pooler(url: str) -> bool:
    with _connected(url) as one:
        # PostgreSQL sends its process id as the connection begins. A pooler has no server connection yet: it sends
        # another number.
        return one.info.backend_pid != _pid(one) and _changes_servers(url, one)


def _changes_servers(url: str, one: Connection[TupleRow]) -> bool:
    """Whether a connection changes from one process of the server to another, or two connections share one.

    A pooler takes server connections from either end of its list. From one end, the transaction of another client gets
    the connection that was just used; from the other, each transaction gets another one, unless there is only one.
    """
    with _connected(url) as other:
        ours = {_pid(one)}
        for _ in range(_ROUNDS):
            ours.add(_pid(one))
            try:
                other.execute("BEGIN")
                its = _pid(other)
                other.execute("ROLLBACK")
            except ProtocolViolation:  # statement mode has no transactions
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
            prepare_threshold=None,  # another server connection does not have the prepared statement
            application_name=APPLICATION,
            connect_timeout=_SECONDS,
            **keepalives(url),
        ) as connection,
        cut_off(connection, _SECONDS),
    ):
        yield connection
