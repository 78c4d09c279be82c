"""Advisory locks that are kept: checked every few seconds, and taken again after their connection is lost.

PostgreSQL releases an advisory lock with its connection, which an administrator, a firewall, a restart or a failover
may end while the holder goes on. A thread of its own keeps each lock, so that a busy event loop delays no check.

A holder learns of the loss only afterwards, so the lock alone does not protect an import. An import that takes a
workspace's lock also writes a token of its own into the workspace's row of `import_locks`. Each of its writing
transactions ends with a check of that token (`Claim.is_ours`, in `Warehouse.transaction`):

- An import that takes over writes its token before it reads anything. The write waits for transactions that have
  checked the token and not ended yet, for they share the row's lock. Later transactions of the old import find the new
  token and are rolled back.
- While the token is unchanged, no import has taken over: an import that has lost its lock goes on, and takes the lock
  again if it is free. A counter would not do: a standby that becomes the primary may not know the last number, and
  would issue it again.
"""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import psycopg
from psycopg import Connection, sql
from psycopg.errors import QueryCanceled
from psycopg.rows import TupleRow

from dx_dagster.warehouse.connecting import connect, cut_off, keepalives, set_up

_SECONDS_BETWEEN_CHECKS = 3.0
_ANSWER_SECONDS = 5.0
_TAKE = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_IS_HELD = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid())"
# The key as pg_locks shows it: its upper and its lower half.
_HOLDER = """
    SELECT a.application_name
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended(%s, 0)"""
_CLAIM = """
    INSERT INTO import_locks (workspace, token, taken_by) VALUES (%s, %s, %s)
    ON CONFLICT (workspace) DO UPDATE SET token = EXCLUDED.token, taken_by = EXCLUDED.taken_by, taken_at = now()"""
_TOKEN = "SELECT token FROM import_locks WHERE workspace = %s"  # noqa: S105 - no secret

_log = logging.getLogger(__name__)


class Claim:
    """The token that marks a workspace as imported by this process.

    Attributes:
        is_ours: SQL that fails with a division by zero once another process has claimed the workspace, and keeps
            other processes from claiming it until the transaction ends.
    """

    def __init__(self, workspace: str) -> None:
        self.workspace = workspace.lower()
        self._token = uuid4()
        self.is_ours = (
            sql.SQL(
                "SELECT 1 / count(*) FROM "
                "(SELECT FROM import_locks WHERE workspace = {} AND token = {} FOR SHARE) AS ours"
            )
            .format(self.workspace, self._token)
            .as_bytes()
        )

    def make(self, connection: Connection[TupleRow]) -> None:
        connection.execute(_CLAIM, [self.workspace, self._token, f"{os.getpid()}@{socket.gethostname()}"])

    def holds(self, connection: Connection[TupleRow]) -> bool:
        row = connection.execute(_TOKEN, [self.workspace]).fetchone()
        return row is not None and row[0] == self._token


class Lock:
    """An advisory lock on a connection of its own. Its methods may block for seconds: call them from a thread.

    Its connection is named after the `holder`, which `holder_of` shows to other processes.

    Attributes:
        is_lost: whether another process has claimed the workspace; then the lock is not taken again.
    """

    def __init__(
        self,
        url: str,
        name: str,
        claim: Claim | None = None,
        *,
        insists: bool = False,
        holder: str = "dx-dagster lock",
    ) -> None:
        self._url, self._name, self._claim, self._insists, self._holder = url, name, claim, insists, holder
        self._connection: Connection[TupleRow] | None = None
        self._released = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"keeps the lock {name}", daemon=True)
        self.is_lost = False

    def take(self) -> bool:
        """Takes the lock and returns whether it was free. A lock that `insists` goes on trying in its thread.

        Raises:
            psycopg.Error: the database does not answer.
        """
        with self._connected() as connection:
            if self._try(connection) and self._try_to_claim(connection):
                self._connection = connection
        is_held = self._connection is not None
        if is_held or self._insists:
            self._keeper.start()
        return is_held

    def release(self) -> None:
        """Closes the lock's connection, which releases the lock. Does nothing where it was not taken."""
        self._released.set()
        if self._keeper.is_alive():
            self._keeper.join()

    def _keep(self) -> None:
        while not self._released.wait(_SECONDS_BETWEEN_CHECKS) and not self.is_lost:
            if self._connection is None or not self._is_held(self._connection):
                # After an error, the next check tries again.
                with suppress(psycopg.Error, OSError):
                    self._take_again()
        self._close()

    def _is_held(self, connection: Connection[TupleRow]) -> bool:
        try:
            with cut_off(connection, _ANSWER_SECONDS):
                row = connection.execute(_IS_HELD).fetchone()
        except psycopg.Error:
            row = None
        if row and row[0]:
            return True
        _log.warning("The connection that held the lock %r is lost; the lock is taken again if it is free.", self._name)
        self._close()
        return False

    def _take_again(self) -> None:
        with self._connected() as connection:
            is_free = self._try(connection)
            # In this order: once the lock is held, no other process can claim the workspace any more.
            self.is_lost = self._claim is not None and not self._claim.holds(connection)
            if is_free and not self.is_lost:
                self._connection = connection
                _log.warning("The lock %r is held again.", self._name)

    def _try(self, connection: Connection[TupleRow]) -> bool:
        row = connection.execute(_TAKE, [self._name]).fetchone()
        return bool(row and row[0])

    def _try_to_claim(self, connection: Connection[TupleRow]) -> bool:
        """Claims the workspace; returns False where the last transaction of another holder takes too long to end."""
        if self._claim is not None:
            try:
                self._claim.make(connection)
            except QueryCanceled:
                return False
        return True

    @contextmanager
    def _connected(self) -> Iterator[Connection[TupleRow]]:
        """A new connection, closed at the end unless it holds the lock."""
        connection = Connection.connect(
            self._url,
            autocommit=True,
            application_name=self._holder,
            connect_timeout=int(_ANSWER_SECONDS),
            **keepalives(self._url),
        )
        try:
            with cut_off(connection, 3 * _ANSWER_SECONDS):
                set_up(connection, statement_timeout=_ANSWER_SECONDS)
                yield connection
        finally:
            if self._connection is not connection:
                connection.close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def holder_of(url: str, name: str) -> str | None:
    """The name of the connection that holds a lock; None where it is free.

    Raises:
        psycopg.Error: the database does not answer.
    """
    with connect(url, statement_timeout=_ANSWER_SECONDS, connect_timeout=int(_ANSWER_SECONDS)) as connection:
        row = connection.execute(_HOLDER, [name]).fetchone()
    return None if row is None else row[0] or "another session of the database"
