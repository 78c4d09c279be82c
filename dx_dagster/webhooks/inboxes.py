"""One run over the inboxes of all workspaces.

Starting a run takes seconds of CPU, and deliveries arrive all the time. So a run takes those of every workspace, some
workspaces at once, and lingers for the next ones. Each workspace has its own lock, client and transactions: a failure
postpones its own deliveries, and the run goes on with the others.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import anyio
from anyio.abc import TaskGroup

from dx_dagster.bitbucket import BitbucketClient, BitbucketError, RateLimited
from dx_dagster.connections.actions import pool_for_pipelines
from dx_dagster.importer.session import (
    BusyError,
    NotConnectedError,
    connection_in_service,
    locked,
    open_client,
    open_pool,
)
from dx_dagster.importer.workspace import Listener, NotImportedError, Workspace, open_workspace
from dx_dagster.settings import Settings, SettingsError
from dx_dagster.telemetry import json_logs
from dx_dagster.warehouse.connections.connections import ConnectionType
from dx_dagster.warehouse.connections.vault import VaultError
from dx_dagster.warehouse.database import LockLostError, Warehouse, WarehouseError
from dx_dagster.warehouse.webhooks import inbox
from dx_dagster.webhooks.drain import drain
from dx_dagster.webhooks.outcomes import Applied

_log = logging.getLogger(__name__)

AT_ONCE = 8  # workspaces
_MOST_DELIVERIES = 10_000
LONGEST_RUN_SECONDS = 600.0
# Then a workspace with deliveries without end gives its place to another one.
_LONGEST_TURN_SECONDS = 60.0
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_LOOKS_FOR_SYNCS = 2.0
_SECONDS_UNTIL_NEXT_TRY = 5.0
# A report is some forty events of Dagster, more than all else that a delivery costs; nothing goes on meanwhile.
_SECONDS_BETWEEN_REPORTS = 120.0
_SHARE_OF_REPORTS = 0.3


class Turn:
    """Decides how long a run over inboxes goes on, from times of one monotonic clock."""

    def __init__(self, now: float, linger: float) -> None:
        self._began = self._last = now
        self._linger = linger
        self._applied = 0

    def is_over(self, now: float) -> bool:
        """Whether the run has reached its longest duration, or its highest number of deliveries."""
        return now - self._began >= LONGEST_RUN_SECONDS or self._applied >= _MOST_DELIVERIES

    def applied(self, now: float, deliveries: int) -> None:
        """Notes that deliveries were applied now."""
        self._last = now
        self._applied += deliveries

    def has_lingered(self, now: float) -> bool:
        """Whether no delivery has been applied for `linger` seconds."""
        return now - self._last >= self._linger


@dataclass
class Refreshed:
    """What a run has done in one workspace.

    Attributes:
        applied: what became of its deliveries.
        requests: requests sent.
        failure: why its deliveries could not be applied at the last try.
        waits: why they were left for later, which is no failure.
        written: rows written and not reported yet.
    """

    applied: Applied = field(default_factory=Applied)
    requests: int = 0
    failure: str | None = None
    waits: str | None = None
    written: Counter[str] = field(default_factory=Counter)
    reported_at: float = -math.inf
    next_try: float = -math.inf


@dataclass(frozen=True)
class Surroundings:
    """What a run over inboxes needs of its caller.

    Attributes:
        listener: makes a workspace's listener.
        syncing: the workspaces, in lower case, that a sync imports or is about to; the run leaves them to it.
        build: brings the derived tables of a workspace up to date.
        report: reports rows written in a workspace.
        imports: whether a workspace is one of those that the caller imports.
    """

    listener: Callable[[str], Listener]
    syncing: Callable[[], Collection[str]]
    build: Callable[[Workspace], Awaitable[None]]
    report: Callable[[str, Counter[str]], Awaitable[None]]
    imports: Callable[[str], bool] = lambda _: True


class Inboxes:
    """Applies deliveries of all workspaces until none has arrived for a while, or the run is long enough.

    `linger`: seconds without a delivery after which it ends.

    Attributes:
        workspaces: what was done, by workspace.
    """

    def __init__(
        self, settings: Settings, warehouse: Warehouse, run: str, surroundings: Surroundings, *, linger: float
    ) -> None:
        self.workspaces: dict[str, Refreshed] = {}
        self._settings, self._warehouse, self._run, self._surroundings = settings, warehouse, run, surroundings
        self._turn = Turn(time.monotonic(), linger)
        self._at_work: set[str] = set()
        self._syncing: Collection[str] = ()
        self._looked_for_syncs = self._next_report = -math.inf
        self._broken: Exception | None = None

    async def drain(self) -> None:
        """Applies deliveries, reports what was written, and prunes deliveries that were applied long ago.

        Raises:
            WarehouseError: the database does not answer.
        """
        async with anyio.create_task_group() as group:
            try:
                await self._look_until_over(group)
            except WarehouseError as error:  # not out of the group, which would wrap it
                self._break(group, error)
        if self._broken is not None:
            raise self._broken
        for name in self.workspaces:
            await self._report(name)
        await inbox.prune(self._warehouse, timedelta(days=self._settings.webhooks_keep_days))

    async def _look_until_over(self, group: TaskGroup) -> None:
        while not self._turn.is_over(time.monotonic()):
            await self._look(group)
            if not self._at_work and self._turn.has_lingered(time.monotonic()):
                return
            await anyio.sleep(_SECONDS_BETWEEN_LOOKS)

    async def _look(self, group: TaskGroup) -> None:
        """Takes up workspaces with due deliveries, and reports what was written some time ago."""
        if time.monotonic() - self._looked_for_syncs >= _SECONDS_BETWEEN_LOOKS_FOR_SYNCS:
            self._syncing, self._looked_for_syncs = self._surroundings.syncing(), time.monotonic()
        if len(self._at_work) < AT_ONCE:
            due = [name for name in await inbox.due(self._warehouse) if self._may_take(name)]
            for name in due[: AT_ONCE - len(self._at_work)]:
                self._at_work.add(name)
                group.start_soon(self._refresh, group, name)
        await self._report_one()

    def _may_take(self, name: str) -> bool:
        known = self.workspaces.get(name)
        is_resting = known is not None and time.monotonic() < known.next_try
        is_free = name not in self._at_work and name.lower() not in self._syncing and not is_resting
        return is_free and self._surroundings.imports(name)

    def _break(self, group: TaskGroup, error: Exception) -> None:
        """Ends the run: the error concerns every workspace."""
        self._broken = self._broken or error
        group.cancel_scope.cancel()

    async def _report_one(self) -> None:
        """Reports the workspace whose turn it is. However many there are, the run mostly applies deliveries."""
        now = time.monotonic()
        due = [
            (one.reported_at, name)
            for name, one in self.workspaces.items()
            if one.written.total() and now - one.reported_at >= _SECONDS_BETWEEN_REPORTS
        ]
        if due and now >= self._next_report:
            await self._report(min(due)[1])
            ended = time.monotonic()
            self._next_report = ended + (ended - now) * (1 / _SHARE_OF_REPORTS - 1)

    async def _report(self, name: str) -> None:
        one = self.workspaces[name]
        written, one.written = one.written, Counter()
        if written.total():
            one.reported_at = time.monotonic()
            with json_logs.about(workspace=name):
                await self._surroundings.report(name, written)

    async def _refresh(self, group: TaskGroup, name: str) -> None:
        """Applies the due deliveries of one workspace."""
        with json_logs.about(workspace=name):
            await self._refresh_one(group, name)

    async def _refresh_one(self, group: TaskGroup, name: str) -> None:
        one = self.workspaces.setdefault(name, Refreshed())
        said_before = one.failure or one.waits
        warehouse, listener = self._warehouse.apart(), self._surroundings.listener(name)
        warehouse.tell = listener.warning
        try:
            async with locked(warehouse, name, listener, wait=False):
                one.failure, one.waits = await self._apply(name, one, warehouse, listener)
        except BusyError:
            one.waits = "another process imports the workspace"
        except LockLostError as error:
            one.failure = str(error)
        except WarehouseError as error:
            self._break(group, error)
        except Exception as error:  # noqa: BLE001 - the other workspaces go on; the attempts of these deliveries count
            _log.exception("The deliveries of workspace %s could not be applied.", name)
            one.failure = f"{type(error).__name__}: {error}"
        finally:
            one.written += warehouse.written_so_far()
            self._at_work.discard(name)
        if said := one.failure or one.waits:
            one.next_try = time.monotonic() + _SECONDS_UNTIL_NEXT_TRY
            if said != said_before:
                listener.warning(said)

    async def _apply(
        self, name: str, one: Refreshed, warehouse: Warehouse, listener: Listener
    ) -> tuple[str | None, str | None]:
        """Applies within the lock; an error that concerns all deliveries of the workspace postpones them.

        Returns why they could not be applied, and why they wait where that is no failure.
        """
        began, taken = time.monotonic(), one.applied.taken

        def must_end() -> bool:
            now = time.monotonic()
            is_waited_for = name.lower() in self._syncing
            return is_waited_for or self._turn.is_over(now) or now - began >= _LONGEST_TURN_SECONDS

        try:
            async with self._clients(name, one, warehouse, listener) as (client, for_pipelines):
                await drain(
                    await open_workspace(name, client, warehouse, listener),
                    self._run,
                    one.applied,
                    for_pipelines=for_pipelines,
                    with_deployments=self._settings.deployments == "on",
                    must_end=must_end,
                    build=self._surroundings.build,
                )
        except RateLimited as error:
            await inbox.postpone(warehouse, name, str(error))
            return None, str(error)
        except (BitbucketError, NotConnectedError, NotImportedError, SettingsError, VaultError) as error:
            await inbox.postpone(warehouse, name, str(error))
            return str(error), None
        finally:
            if one.applied.taken > taken:
                self._turn.applied(time.monotonic(), one.applied.taken - taken)
        return None, None

    @asynccontextmanager
    async def _clients(
        self, name: str, one: Refreshed, warehouse: Warehouse, listener: Listener
    ) -> AsyncIterator[tuple[BitbucketClient, BitbucketClient]]:
        """The workspace's client, and the one for pipelines. They wait for no budget, which would take a place."""
        async with AsyncExitStack() as stack:

            async def opened(kind: ConnectionType) -> BitbucketClient:
                connection = await connection_in_service(warehouse, name, kind)
                pool = await open_pool(self._settings, warehouse, listener, connection)
                opening = open_client(self._settings, warehouse, pool, connection, wait=False)
                return await stack.enter_async_context(opening)

            client = await opened("bitbucket")
            kind = await pool_for_pipelines(warehouse, name)
            for_pipelines = client if kind == "bitbucket" else await opened(kind)
            try:
                yield client, for_pipelines
            finally:
                one.requests += sum(each.requests for each in {client, for_pipelines})
