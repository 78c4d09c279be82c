"""The warehouse: a pool of connections, transactions, and counts of the rows that they have written."""

import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from anyio import CancelScope, to_thread
from psycopg import AsyncConnection
from psycopg.errors import DivisionByZero
from psycopg.pq import TransactionStatus
from psycopg.rows import AsyncRowFactory, TupleRow, class_row, namedtuple_row
from psycopg.sql import SQL, Composed
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from dx_dagster.clock import Clock, monotonic
from dx_dagster.warehouse import blocking, merge, poolers, versions
from dx_dagster.warehouse.connecting import APPLICATION, connect_async, keepalives, set_up_async, why_unfit_async
from dx_dagster.warehouse.locks import Claim, Lock
from dx_dagster.warehouse.merge import Counts, Merge

if TYPE_CHECKING:
    import polars as pl

CONNECT_SECONDS = 10.0
_PART = 2000  # rows
Row = tuple[Any, ...]
Statement = str | SQL | Composed
Record = TypeVar("Record")
# SQLSTATE classes: connection exceptions, and those of a server that shuts down, crashes or starts.
_CONNECTION_LOST = ("08", "57P")
_PREFIX = re.compile(r"^(connection (is bad|failed)|consuming input failed): ")


class WarehouseError(Exception):
    """The database cannot be used; the message says why and what to do, without the password."""


class DatabaseGoneError(WarehouseError):
    """The database does not answer, or has closed a connection. Committed rows stay.

    Attributes:
        reason: what the server or the driver says, on one line.
    """

    def __init__(self, words: str) -> None:
        self.reason = _PREFIX.sub("", _first_line(words))
        super().__init__(
            f"The database at DX_DATABASE_URL does not answer: {self.reason}. Check that PostgreSQL runs and that "
            "DX_DATABASE_URL is right, then run the command again: what was stored stays."
        )


class DatabaseBusyError(WarehouseError):
    """The database answers, and no connection of the pool was free in time. Committed rows stay."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The database at DX_DATABASE_URL answers, but no connection to it was free within {seconds:g} s: it is "
            "overloaded, or statements of this process wait for those of others (see pg_stat_activity). Run the "
            "command again when it is less busy: what was stored stays."
        )


class LockLostError(WarehouseError):
    """This process has lost its lock, and another one imports the workspace. Nothing more is stored."""

    def __init__(self, workspace: str) -> None:
        super().__init__(
            f"The connection that held the lock of workspace {workspace} was lost, and another process imports the "
            "workspace now: this run stops and stores nothing more. Nothing need be done: the other run goes on where "
            "this one stopped."
        )


def is_gone(error: BaseException) -> bool:
    """Whether the error means a lost connection and not a failed statement."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(_CONNECTION_LOST)


class Transaction:
    """One transaction: its statements take effect together or not at all."""

    def __init__(self, connection: AsyncConnection[TupleRow], merged: Container[Row]) -> None:
        self._connection = connection
        self._merged_before = merged
        self.merged: set[Row] = set()
        self.written: dict[str, Counts] = defaultdict(Counts)

    async def merge(self, how: Merge, frame: "pl.DataFrame") -> Counts:
        """Merges the frame's rows into their table; see `dx_dagster.warehouse.merge`."""
        counts = await merge.merge(self._connection, how, frame)
        self.written[how.table.name] += counts
        return counts

    def count(self, table: str, *, inserted: int = 0, updated: int = 0) -> None:
        """Counts rows that a statement other than `merge` has written."""
        self.written[table] += Counts(inserted, updated)

    def not_merged_before(self, rows: Iterable[Row]) -> list[Row]:
        """Which of these rows the process has not merged before with the same values; call it before merging them."""
        new = [row for row in rows if row not in self._merged_before]
        self.merged.update(new)
        return new

    async def execute(self, statement: Statement, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> int:
        """Runs a statement and returns the number of affected rows."""
        cursor = await self._connection.execute(statement, parameters or None)
        return cursor.rowcount

    async def rows(self, statement: Statement, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> list[Any]:
        """Rows as named tuples."""
        async with self._connection.cursor(row_factory=namedtuple_row) as cursor:
            await cursor.execute(statement, parameters or None)
            return await cursor.fetchall()

    async def in_parts(
        self, statement: Statement, parameters: Mapping[str, Any] | Sequence[Any] = ()
    ) -> AsyncIterator[list[Row]]:
        """The rows of a long result, some thousand at a time: the driver would hold all of them."""
        async with self._connection.cursor("parts") as cursor:
            await cursor.execute(statement, parameters or None)
            while rows := await cursor.fetchmany(_PART):
                yield rows

    async def row(self, statement: Statement, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> Any:
        """The first row as a named tuple, or None."""
        found = await self.rows(statement, parameters)
        return found[0] if found else None

    async def fetch(
        self, row_type: type[Record], statement: Statement, parameters: Mapping[str, Any] | Sequence[Any] = ()
    ) -> list[Record]:
        """Rows as instances of a class whose fields have the columns' names."""
        async with self._connection.cursor(row_factory=class_row(row_type)) as cursor:
            await cursor.execute(statement, parameters or None)
            return await cursor.fetchall()


class Warehouse:
    """The database of one installation. Enter it to connect.

    `patience`: seconds that a transaction waits for a connection of the pool.

    Attributes:
        written: rows inserted and updated by committed transactions, by table.
        clock: the database's.
        tell: called with a sentence about the session whose lock a transaction has waited for some seconds.

    Raises:
        WarehouseError: on entering, when there is no answer or no access, or the tables are at another version.
    """

    def __init__(self, url: str, *, connections: int = 4, patience: float = CONNECT_SECONDS) -> None:
        self._url = url
        self._pool = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=connections,
            open=False,
            timeout=patience,
            configure=_set_up,
            kwargs={"application_name": APPLICATION, "connect_timeout": int(CONNECT_SECONDS)} | keepalives(url),
        )
        self._claims: dict[Claim, Lock] = {}
        self.written: dict[str, Counts] = defaultdict(Counts)
        self.clock = Clock()
        self.tell: Callable[[str], None] = blocking.warn
        self._merged: set[Row] = set()

    async def __aenter__(self) -> Self:
        await _try_to_connect(self._url)
        try:
            await self._open()
        except BaseException:
            # A worker of the pool that is cancelled while it connects forgets it, and would keep a loop from ending.
            with CancelScope(shield=True):
                await self._pool.close()
            raise
        return self

    async def _open(self) -> None:
        try:
            await self._pool.open(wait=True, timeout=CONNECT_SECONDS)
        except PoolTimeout:
            raise DatabaseBusyError(CONNECT_SECONDS) from None
        async with self.transaction() as transaction:
            await self.set_clock(transaction)

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self, *, read_only: bool = False, fenced: bool = True) -> AsyncIterator[Transaction]:
        """A transaction. Within `importing` it is committed only while no other process imports the workspace.

        `fenced`: False commits it in any case, where its rows are true whichever process imports.

        Raises:
            LockLostError: another process does; nothing is stored.
        """
        claims = {} if read_only or not fenced else dict(self._claims)
        if lost := next((claim for claim, lock in claims.items() if lock.is_lost), None):
            raise LockLostError(lost.workspace)
        # A cancelled run still finishes the transaction: transactions are short.
        with CancelScope(shield=True):
            async with self._connection(read_only=read_only) as connection:
                transaction = Transaction(connection, self._merged)
                with blocking.watching(self._url, connection.info.backend_pid, "A transaction", self.tell):
                    yield transaction
                    if claims and connection.info.transaction_status == TransactionStatus.INTRANS:
                        await _commit(connection, claims)
        self._merged |= transaction.merged
        for table, counts in transaction.written.items():
            self.written[table] += counts

    @asynccontextmanager
    async def _connection(
        self, *, read_only: bool = False, autocommit: bool = False
    ) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """A connection of the pool.

        Raises:
            DatabaseGoneError: the database has closed it, or accepts none.
            DatabaseBusyError: none was free within the patience.
        """
        patience = self._pool.timeout
        deadline = time.monotonic() + patience
        while True:
            try:
                connection = await self._pool.getconn(min(patience, CONNECT_SECONDS))
                break
            except PoolTimeout:
                # The pool does not distinguish a database that is busy from one that is gone.
                await _try_to_connect(self._url)
                if time.monotonic() > deadline:
                    raise DatabaseBusyError(patience) from None
        try:
            if autocommit != connection.autocommit:
                await connection.set_autocommit(autocommit)
            if not autocommit and read_only is not connection.read_only:
                await connection.set_read_only(read_only)
            async with connection:
                yield connection
        except psycopg.Error as error:
            if is_gone(error):
                raise DatabaseGoneError(str(error)) from error
            raise
        finally:
            await self._pool.putconn(connection)

    def apart(self) -> "Warehouse":
        """The same database over the same pool, for one of several imports in this process.

        Its locks and its counts are its own: a lock that another import loses does not stop this one.
        """
        other = copy(self)
        other._claims, other._merged, other.written = {}, set(), defaultdict(Counts)  # noqa: SLF001 - of this class
        return other

    async def set_clock(self, transaction: Transaction) -> None:
        """Sets `clock` by the database's clock."""
        asked = monotonic()
        row = await transaction.row("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
        self.clock.set(row.now, asked, monotonic())

    def written_so_far(self) -> Counter[str]:
        """Rows written by committed transactions; see `as_written`."""
        return as_written(self.written)

    @asynccontextmanager
    async def lock(self, name: str, *, insists: bool = False) -> AsyncIterator[bool]:
        """Holds the advisory lock `name` over a connection of its own; yields whether it was free.

        PostgreSQL releases the lock with the connection, so a killed process holds nothing. A lost lock is taken again
        as soon as it is free; with `insists`, also one that was not free.

        Raises:
            WarehouseError: the database does not answer, or no lock can be held through the address.
        """
        async with self._taken(Lock(self._url, name, insists=insists)) as is_free:
            yield is_free

    @asynccontextmanager
    async def importing(self, workspace: str) -> AsyncIterator[bool]:
        """Holds the workspace's import lock; yields whether it was free.

        Within the block, no transaction commits once another process has taken over: `dx_dagster.warehouse.locks`.
        """
        claim = Claim(workspace)
        lock = Lock(self._url, f"dx-dagster import {claim.workspace}", claim)
        async with self._taken(lock) as is_free:
            if is_free:
                self._claims[claim] = lock
            try:
                yield is_free
            finally:
                self._claims.pop(claim, None)

    @asynccontextmanager
    async def _taken(self, lock: Lock) -> AsyncIterator[bool]:
        try:
            if reason := await to_thread.run_sync(poolers.why_unfit, self._url):
                raise WarehouseError(reason)
            with CancelScope(shield=True):  # or a lock could be taken and never released
                is_free = await to_thread.run_sync(lock.take)
        except psycopg.OperationalError as error:
            raise DatabaseGoneError(str(error)) from error
        try:
            yield is_free
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(lock.release)

    async def rows(self, statement: Statement, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> list[Any]:
        """The rows of a read-only statement as named tuples."""
        return await self._read(namedtuple_row, statement, parameters)

    async def row(self, statement: Statement, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> Any:
        """The first row of a read-only statement, or None."""
        found = await self.rows(statement, parameters)
        return found[0] if found else None

    async def fetch(
        self, row_type: type[Record], statement: Statement, parameters: Mapping[str, Any] | Sequence[Any] = ()
    ) -> list[Record]:
        """The rows of a read-only statement as instances of a class whose fields have the columns' names."""
        return await self._read(class_row(row_type), statement, parameters)

    async def _read(
        self,
        row_factory: AsyncRowFactory[Record],
        statement: Statement,
        parameters: Mapping[str, Any] | Sequence[Any],
    ) -> list[Record]:
        """Runs a read-only statement without BEGIN and COMMIT, which take longer than most of them."""
        found: list[Record] = []
        with CancelScope(shield=True):
            async with self._connection(autocommit=True) as connection:
                with blocking.watching(self._url, connection.info.backend_pid, "A transaction", self.tell):
                    async with connection.cursor(row_factory=row_factory) as cursor:
                        await cursor.execute(statement, parameters or None)
                        found = await cursor.fetchall()
        return found

    async def fetch_one(
        self, row_type: type[Record], statement: Statement, parameters: Mapping[str, Any] | Sequence[Any] = ()
    ) -> Record | None:
        """The first of these rows, or None."""
        found = await self.fetch(row_type, statement, parameters)
        return found[0] if found else None


async def _set_up(connection: AsyncConnection[Any]) -> None:
    """Sets a connection of the pool up: outside a transaction that may write, no statement may.

    The version is checked with each, since the tables may have been upgraded while this process had no session. From
    here on, an upgrade sees this one by its name.
    """
    await set_up_async(connection)
    await connection.set_autocommit(True)
    await _check_version(connection)
    await connection.execute("SET default_transaction_read_only = on")


async def _commit(connection: AsyncConnection[TupleRow], claims: Iterable[Claim]) -> None:
    """Commits if this process still holds all claims.

    One message has both: a connection that is cut between them would leave the claim's row locked, and the process that
    takes over would wait until the server notices.
    """
    for_all = b"; ".join([*(claim.is_ours for claim in claims), b"COMMIT"])
    try:
        await connection.execute(for_all, prepare=False)
    except DivisionByZero:
        raise LockLostError(", ".join(claim.workspace for claim in claims)) from None


async def _try_to_connect(url: str) -> None:
    """Connects once without the pool, which retries final errors and does not name their cause."""
    try:
        connection = await connect_async(url, connect_timeout=int(CONNECT_SECONDS))
        async with connection:
            if unfit := await why_unfit_async(connection):
                raise WarehouseError(unfit)
            await _check_version(connection)
    except psycopg.ProgrammingError as error:
        raise WarehouseError(f"DX_DATABASE_URL cannot be read: {_first_line(str(error))}.") from None
    except psycopg.OperationalError as error:
        raise DatabaseGoneError(str(error)) from None


async def _check_version(connection: AsyncConnection[TupleRow]) -> None:
    """Checks the version of the tables: over a newer schema, an old process would fail or store unused rows.

    Raises:
        WarehouseError: the tables are at a version that this release cannot work on.
    """
    try:
        cursor = await connection.execute(versions.STORED)
    except psycopg.ProgrammingError:
        return  # no tables, or none that this role may read: the statements that need them fail
    row = await cursor.fetchone()
    if row is not None and (reason := versions.why_unfit(*row)) is not None:
        raise WarehouseError(reason)


def _first_line(words: str) -> str:
    return (words.strip().splitlines() or ["no reason given"])[0].rstrip(".")


def as_written(written: Mapping[str, Counts]) -> Counter[str]:
    """Numbers of rows by `TABLE/inserted` and `TABLE/updated`."""
    return Counter(
        {
            f"{table}/{what}": rows
            for table, counts in written.items()
            for what, rows in (("inserted", counts.inserted), ("updated", counts.updated))
        }
    )
