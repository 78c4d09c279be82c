"""Advisory locks that are kept: pinged, and taken again once their connection is lost.

An advisory lock goes with its connection, which an administrator, a firewall, a restart or a failover may end while its
holder goes on. A thread of its own keeps each lock: it looks every few seconds whether the lock is still held, whatever
the event loop is busy with, and takes it again if it can.

Nobody learns of the loss of a lock before it has happened, so for an import the lock is not enough. Whoever takes a
workspace's lock writes a token of his own beside the workspace's name (`import_locks`), and each transaction of the
import that writes ends with a look at that token (`Claim.is_ours`, in `Warehouse.transaction`):

- Whoever takes over writes his token before he reads anything. That waits for transactions that have looked and not
  ended yet, for they share the row's lock. All later ones find the other token, and are taken back.
- While the token is the old one, nobody has taken over: an import that has lost its lock may go on, and take the lock
  again if it is free. A counter would not tell: a standby that becomes the primary may not know the last number, and
  would give it out again.
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

from dx_dagster.warehouse.connecting import cut_off, keepalives, set_up

_SECONDS_BETWEEN_LOOKS = 3.0
_ANSWER_SECONDS = 5.0
_TAKE = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_IS_HELD = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid())"
_CLAIM = """
    INSERT INTO import_locks (workspace, token, taken_by) VALUES (%s, %s, %s)
    ON CONFLICT (workspace) DO UPDATE SET token = EXCLUDED.token, taken_by = EXCLUDED.taken_by, taken_at = now()"""
_TOKEN = "SELECT token FROM import_locks WHERE workspace = %s"  # noqa: S105 - no secret

_log = logging.getLogger(__name__)


class Claim:
    """What marks a workspace as imported by us.

    Attributes:
        is_ours: SQL that fails with a division by zero once somebody else has claimed the workspace, and keeps
            everybody from doing so until the transaction ends.
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
    """An advisory lock on a connection of its own. What it does may take seconds: call it from a thread.

    Attributes:
        is_lost: whether somebody else has claimed the workspace meanwhile; then it is not taken again.
    """

    def __init__(self, url: str, name: str, claim: Claim | None = None, *, insists: bool = False) -> None:
        self._url, self._name, self._claim, self._insists = url, name, claim, insists
        self._connection: Connection[TupleRow] | None = None
        self._released = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"keeps the lock {name}", daemon=True)
        self.is_lost = False

    def take(self) -> bool:
        """Whether the lock was free. It is held from then on; one that `insists` goes on trying otherwise.

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
        """Gives up our own connection, and with it what it holds. Does nothing where nothing was taken."""
        self._released.set()
        if self._keeper.is_alive():
            self._keeper.join()

    def _keep(self) -> None:
        while not self._released.wait(_SECONDS_BETWEEN_LOOKS) and not self.is_lost:
            if self._connection is None or not self._is_held(self._connection):
                # The next look comes soon.
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
            # Once the lock is held, for then nobody can claim the workspace any more.
            self.is_lost = self._claim is not None and not self._claim.holds(connection)
            if is_free and not self.is_lost:
                self._connection = connection
                _log.warning("The lock %r is held again.", self._name)

    def _try(self, connection: Connection[TupleRow]) -> bool:
        row = connection.execute(_TAKE, [self._name]).fetchone()
        return bool(row and row[0])

    def _try_to_claim(self, connection: Connection[TupleRow]) -> bool:
        """Not where the last holder's transaction ends just now and takes its time over it."""
        if self._claim is not None:
            try:
                self._claim.make(connection)
            except QueryCanceled:
                return False
        return True

    @contextmanager
    def _connected(self) -> Iterator[Connection[TupleRow]]:
        """A new connection, closed again unless it has become the one that holds the lock."""
        connection = Connection.connect(
            self._url,
            autocommit=True,
            application_name="dx-dagster lock",
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
