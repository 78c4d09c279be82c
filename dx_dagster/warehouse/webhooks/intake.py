"""The intake of the inbox: stores many deliveries with one commit, over a connection that stays open.

The receiver answers a delivery after its commit. Deliveries that arrive during a commit share the next one, so that the
disk's latency bounds the response time and not the throughput.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, namedtuple_row

from dx_dagster.clock import monotonic
from dx_dagster.warehouse import blocking
from dx_dagster.warehouse.connecting import APPLICATION, set_up_async
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.webhooks import belief
from dx_dagster.warehouse.webhooks.secrets import SENDERS, Sender, sender

# Bitbucket waits 10 seconds for an answer.
_STATEMENT_SECONDS = 3.0
_SECONDS_TO_LOOK_WHO_BLOCKS = 2.0
_CONNECT_SECONDS = 2
_DELIVERIES_A_COMMIT = 200
_MOST_WAITING_BYTES = 64 * 1024 * 1024
# A delivery of an unknown sender reads the senders again: once for all that wait, and for a third of the time at most.
_PAUSE_AFTER_LOOK = 2.0
_LONGEST_PAUSE_SECONDS = 0.25
_SECONDS_KNOWN = 5.0
_SECONDS_UNKNOWN = 1.0
_SECONDS_BETWEEN_REJECTIONS = 10.0
_MOST_UNKNOWN = 1000


Work = Callable[[AsyncConnection[TupleRow]], Awaitable[None]]


class InboxUnavailableError(Exception):
    """The database stores nothing at the moment; the sender should deliver again."""


@dataclass(frozen=True)
class Delivery:
    """A delivery whose signature was verified; the comments of `webhook_events` describe its fields.

    `received_at` is a time of the host's monotonic clock. It is stored as a time of the database's clock.
    """

    connection_id: int
    workspace: str
    request_uuid: str
    hook_uuid: str | None
    attempt_number: int | None
    event_key: str
    repository_source_id: str | None
    pull_number: int | None
    headers: dict[str, str]
    body: str
    received_at: float


_COLUMNS = tuple(Delivery.__dataclass_fields__)  # in the order of the parameters
# In the binary format, which needs no escaping: escaping takes half of the time that a delivery needs.
_INSERT = """
    INSERT INTO webhook_events (connection_id, workspace, request_uuid, hook_uuid, attempt_number, event_key,
                                repository_source_id, pull_number, headers, body, received_at, next_attempt_at)
    SELECT connection_id, workspace, request_uuid, hook_uuid, attempt_number, event_key,
           repository_source_id, pull_number, headers::jsonb, body,
           now() - make_interval(secs => age), now() - make_interval(secs => age)
    FROM unnest(%b::int[], %b::text[], %b::text[], %b::text[], %b::int[], %b::text[],
                %b::text[], %b::bigint[], %b::text[], %b::text[], %b::float8[])
         AS new (connection_id, workspace, request_uuid, hook_uuid, attempt_number, event_key,
                 repository_source_id, pull_number, headers, body, age)
    ON CONFLICT (connection_id, request_uuid) DO NOTHING"""


@dataclass(frozen=True)
class Senders:
    """The connections that may deliver, by the names in deliveries.

    Attributes:
        looked_at: time of the event loop at which this was read.
    """

    by_name: dict[str, Sender]
    by_hook: dict[str, Sender]
    looked_at: float

    def find(self, names: Sequence[str], hook_uuid: str | None) -> Sender | None:
        """The sender with one of the names; the hook's sender where the payload has no name."""
        for name in names:
            if found := self.by_name.get(name.lower()):
                return found
        return self.by_hook.get(hook_uuid) if hook_uuid and not names else None


@dataclass(eq=False)
class _Waiting:
    delivery: Delivery
    stored: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Intake:
    """Stores deliveries in the inbox. Each receiving process has one; close it at the end."""

    def __init__(self, url: str, vault: Vault, address: str | None = None) -> None:
        self._url = url
        self._address = address
        self._uptime: int | None = None
        self._beating: asyncio.Task[None] | None = None
        self._losses = 0
        self._rejected: dict[int, float] = {}
        self._vault = vault
        self._connection: AsyncConnection[TupleRow] | None = None
        self._turn = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._committing: asyncio.Task[None] | None = None
        self._senders: Senders | None = None
        self._look_again_at = -inf
        self._opened: dict[int, tuple[Any, Sender]] = {}
        self._unknown: dict[str, float] = {}

    def is_unknown(self, name: str) -> bool:
        """Whether no connection had this name a second ago: many unknown senders must not cause a query each."""
        return asyncio.get_running_loop().time() - self._unknown.get(name.lower(), -inf) < _SECONDS_UNKNOWN

    def remember_unknown(self, name: str) -> None:
        if len(self._unknown) >= _MOST_UNKNOWN:
            self._unknown.clear()
        self._unknown[name.lower()] = asyncio.get_running_loop().time()

    async def store(self, delivery: Delivery) -> None:
        """Returns once the delivery is committed, by this call or by an earlier one.

        Raises:
            InboxUnavailableError: the commit has failed, or its outcome is unknown.
        """
        if self._waiting_bytes + len(delivery.body) > _MOST_WAITING_BYTES:
            raise InboxUnavailableError("too many deliveries wait for the database")
        waiting = _Waiting(delivery)
        self._waiting.append(waiting)
        self._waiting_bytes += len(delivery.body)
        if self._committing is None or self._committing.done():
            # A task of its own: a client that disconnects must not cancel the commit of other deliveries.
            self._committing = asyncio.create_task(self._commit_all())
        await waiting.stored

    def start_beating(self) -> None:
        """Notes every few seconds, until `close`, that deliveries can be stored; so a gap in it is known.

        The first beat comes once the server listens.
        """
        self._beating = asyncio.create_task(self._beat_on())

    def knows(self, hook_uuid: str | None) -> bool:
        """Whether this is a workspace's hook, as a sync last saw it."""
        known = self._senders.by_name.values() if self._senders and hook_uuid else ()
        return any(one.hook == hook_uuid for one in known)

    def lost(self) -> None:
        """Notes that a delivery was not stored: the receiver counts as down until the next beat."""
        self._losses += 1
        self._uptime = None

    async def rejected(self, sender: Sender) -> None:
        """Records that a delivery of the sender was refused for its signature; its hook may have another secret.

        Raises:
            InboxUnavailableError: that could not be recorded.
        """
        now = asyncio.get_running_loop().time()
        if now - self._rejected.get(sender.connection_id, -inf) < _SECONDS_BETWEEN_REJECTIONS:
            return
        await self._rows(belief.REJECTED, [sender.connection_id])
        self._rejected[sender.connection_id] = now

    async def _beat_on(self) -> None:
        await asyncio.sleep(belief.SECONDS_TO_FIRST_BEAT)
        while True:
            try:
                await self._beat()
            except InboxUnavailableError:
                self.lost()
            await asyncio.sleep(belief.SECONDS_BETWEEN_BEATS)

    async def _beat(self) -> None:
        before = self._losses  # a delivery may be lost while the statement runs: then its interval must not go on
        beaten = [] if self._uptime is None else await self._rows(belief.BEAT, [self._uptime])
        if not beaten:
            before = self._losses
            beaten = await self._rows(belief.BEGIN, [self._address])
        self._uptime = beaten[0].id if before == self._losses else None

    async def senders(self, *, newer_than: float | None = None) -> Senders:
        """The senders, at most a few seconds old, or read after `newer_than` (a time of the event loop).

        Raises:
            InboxUnavailableError: they cannot be read.
        """
        loop = asyncio.get_running_loop()
        while True:
            known = self._senders
            oldest = loop.time() - _SECONDS_KNOWN if newer_than is None else newer_than
            if known is not None and known.looked_at >= oldest:
                return known
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
                self._looking.add_done_callback(_forget_error)
            # A caller that is cancelled must not cancel the query that others wait for.
            await asyncio.shield(self._looking)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._look_again_at - loop.time())
        looked_at = loop.time()
        found = [self._sender(row) for row in await self._rows(SENDERS)]
        self._opened = {one.connection_id: self._opened[one.connection_id] for one in found}
        by_name = {one.source_id.lower(): one for one in found if one.source_id}
        by_name |= {one.workspace.lower(): one for one in found}
        self._senders = Senders(by_name, {hook: one for one in found for hook in one.hooks}, looked_at)
        seconds = loop.time() - looked_at
        self._look_again_at = loop.time() + min(_PAUSE_AFTER_LOOK * seconds, _LONGEST_PAUSE_SECONDS)

    def _sender(self, row: Any) -> Sender:
        """The sender of a row. Its secrets are decrypted only where the row has changed since the last look."""
        known = self._opened.get(row.id)
        if known is None or known[0] != row:
            known = self._opened[row.id] = (row, sender(self._vault, row))
        return known[1]

    async def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        for task in (self._beating, self._committing, self._looking):
            if task is not None:
                with suppress(asyncio.CancelledError, InboxUnavailableError):
                    await task
        if self._uptime is not None:
            with suppress(InboxUnavailableError):
                await self._rows(belief.END, [self._uptime])
        await self._hang_up()

    async def _commit_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_DELIVERIES_A_COMMIT], self._waiting[_DELIVERIES_A_COMMIT:]
            await self._commit(batch)
            self._waiting_bytes -= sum(len(one.delivery.body) for one in batch)

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        """Stores the batch and wakes the waiting calls. After a data error, each delivery is stored by itself."""
        failure: InboxUnavailableError | None = None
        try:
            await self._execute([one.delivery for one in batch])
        except psycopg.DataError as error:
            if len(batch) > 1:
                for one in batch:
                    await self._commit([one])
                return
            failure = InboxUnavailableError(_first_line(error))
        except (psycopg.Error, TimeoutError, OSError) as error:
            failure = InboxUnavailableError(_first_line(error))
        for one in batch:
            if one.stored.done():
                continue  # the client has disconnected
            if failure is None:
                one.stored.set_result(None)
            else:
                one.stored.set_exception(failure)

    async def _execute(self, deliveries: Sequence[Delivery]) -> None:
        columns = [[getattr(one, name) for one in deliveries] for name in _COLUMNS]
        columns[_COLUMNS.index("headers")] = [json.dumps(one.headers) for one in deliveries]

        async def insert(connection: AsyncConnection[TupleRow]) -> None:
            now = monotonic()
            columns[_COLUMNS.index("received_at")] = [now - one.received_at for one in deliveries]
            await connection.execute(_INSERT, columns)

        await self._on_connection(insert)

    async def _rows(self, statement: str, bound: Sequence[object] | None = None) -> list[Any]:
        rows: list[Any] = []

        async def work(connection: AsyncConnection[TupleRow]) -> None:
            async with connection.cursor(row_factory=namedtuple_row) as cursor:
                await cursor.execute(statement.encode(), bound)
                rows.extend(await cursor.fetchall() if cursor.description else ())

        try:
            await self._on_connection(work)
        except (psycopg.Error, TimeoutError, OSError) as error:
            raise InboxUnavailableError(_first_line(error)) from None
        return rows

    async def _on_connection(self, work: Work) -> None:
        """Does the work, and again over a new connection where the old one turns out to be dead."""
        async with self._turn:
            was_open = self._connection is not None
            try:
                await self._try(work)
            except psycopg.OperationalError:
                if not was_open:
                    raise
                await self._try(work)

    async def _try(self, work: Work) -> None:
        if self._connection is None:
            self._connection = await self._connect()
        try:
            async with _cut_off_after(_STATEMENT_SECONDS, self._connection):
                with blocking.watching(
                    self._url,
                    self._connection.info.backend_pid,
                    "The webhook receiver",
                    blocking.warn,
                    look_every=_SECONDS_TO_LOOK_WHO_BLOCKS,
                ):
                    await work(self._connection)
        except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError):
            await self._hang_up()
            raise

    async def _connect(self) -> AsyncConnection[TupleRow]:
        connection = await AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name=f"{APPLICATION} webhooks"
        )
        try:
            async with _cut_off_after(_STATEMENT_SECONDS, connection):
                await set_up_async(connection, statement_timeout=_STATEMENT_SECONDS)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error, OSError):
                await connection.close()


@asynccontextmanager
async def _cut_off_after(seconds: float, connection: AsyncConnection[TupleRow]) -> AsyncIterator[None]:
    """Shuts the socket down after so long. Cancelling would not help: psycopg waits for a server that hangs.

    Raises:
        TimeoutError: the time has passed.
    """
    is_cut = False

    def cut() -> None:
        nonlocal is_cut
        is_cut = True
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as end:
            end.shutdown(socket.SHUT_RDWR)

    timer = asyncio.get_running_loop().call_later(seconds, cut)
    try:
        yield
    except psycopg.Error:
        if is_cut:
            raise TimeoutError(f"the database did not answer within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()


def _forget_error(task: "asyncio.Task[None]") -> None:
    """Retrieves the error of a task that no caller may await any more, or asyncio would log it."""
    if not task.cancelled():
        task.exception()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
