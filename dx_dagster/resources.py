"""Dagster's resources: the warehouse, the pool of credentials, and the client that draws on it.

A run keeps one event loop, one database pool and one client for all its steps. The warehouse owns them, and it is
closed last.

Dagster opens a nested resource once more for each resource that holds it, unless it is configured at launch: then all
share the run's one. So `resources` are (`test_resources.py`).
"""

import asyncio
import gc
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Any, TypeVar

import dagster as dg
from pydantic import PrivateAttr

from dx_dagster.bitbucket import BitbucketClient, CredentialPool
from dx_dagster.connections.actions import pool_for_pipelines
from dx_dagster.importer.session import connection_in_service, locked, open_client, open_pool
from dx_dagster.importer.workspace import Listener
from dx_dagster.settings import Settings
from dx_dagster.telemetry import json_logs
from dx_dagster.warehouse import runs
from dx_dagster.warehouse.connections.connections import ConnectionType, StoredConnection
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.embedded import database_url
from dx_dagster.warehouse.imported.sessions import Session, in_session

Result = TypeVar("Result")

_CLOSED = "the warehouse is open only while a run uses it"


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Makes garbage collection rare during an import: a page of JSON is a thousand objects without cycles.

    It took a third of the CPU time, mostly for the permanent objects that Dagster has loaded.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def _cancelled_by_signals(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> Iterator[list[int]]:
    """Makes SIGINT and SIGTERM cancel the task; yields the list of received signals.

    Dagster's own handlers raise an exception in the code that is running. In an event loop that may be a task whose
    result is never awaited, and the signal would be lost.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def cancel(number: int) -> None:
        came.append(number)
        task.cancel()

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {
        number: handler for number, handler in handlers.items() if callable(handler)
    }  # not if the signal is ignored
    for number in before:
        loop.add_signal_handler(number, cancel, number)
    try:
        yield came
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def _outcome(task: asyncio.Task[Result]) -> Result:
    return await task


def _subject(context: dg.InitResourceContext) -> tuple[str | None, str | None]:
    """The run, and the workspace that it is for."""
    run = context.run
    return (None, None) if run is None else (run.run_id, run.tags.get("dagster/partition"))


class WarehouseResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The PostgreSQL database that the settings name, or the embedded one.

    A statement may take `patience` seconds: on a busy database, one over a large repository takes a minute.
    """

    patience: float = 300.0
    _runner: asyncio.Runner | None = PrivateAttr(default=None)
    _stack: AsyncExitStack | None = PrivateAttr(default=None)
    _warehouse: Warehouse | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["WarehouseResource"]:
        with seldom_collecting(), asyncio.Runner() as runner, json_logs.about(*_subject(context)):
            self._runner, self._stack = runner, AsyncExitStack()
            try:
                self._warehouse = self.enter(Warehouse(database_url(self.settings()), patience=self.patience))
                if context.run is not None:
                    self.enter(runs.at_work(self._warehouse, context.run.run_id))
                yield self
            finally:
                runner.run(self._stack.aclose())

    def settings(self) -> Settings:
        """The settings of the run. They are not configuration: Dagster would store and show it."""
        return Settings.read()

    @property
    def connected(self) -> Warehouse:
        if self._warehouse is None:
            raise RuntimeError(_CLOSED)
        return self._warehouse

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs asynchronous work on the run's event loop."""
        if self._runner is None:
            work.close()
            raise RuntimeError(_CLOSED)
        loop = self._runner.get_loop()
        task = loop.create_task(work)
        with _cancelled_by_signals(loop, task) as signals:
            try:
                return self._runner.run(_outcome(task))
            except BaseException:
                # The task would otherwise continue on a client and a database that are being closed.
                task.cancel()
                self._runner.run(asyncio.wait([task]))
                if signals:
                    raise dg.DagsterExecutionInterruptedError from None
                raise

    def enter(self, opening: AbstractAsyncContextManager[Result]) -> Result:
        """Opens something for the rest of the run; it is closed before the warehouse is."""
        if self._stack is None:
            raise RuntimeError(_CLOSED)
        return self.run(self._stack.enter_async_context(opening))


class CredentialPoolResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The enabled credentials of a workspace's connection, sharing its requests."""

    warehouse: dg.ResourceDependency[WarehouseResource]

    def open(self, connection: StoredConnection, listener: Listener) -> CredentialPool:
        return self.warehouse.run(open_pool(self.warehouse.settings(), self.warehouse.connected, listener, connection))


class BitbucketResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The client of Bitbucket's API; one for each connection of a workspace.

    The run that opens one locks the workspace. While another process holds the lock, or the budgets are used up, it
    waits, or fails at once where `wait` is off.
    """

    warehouse: dg.ResourceDependency[WarehouseResource]
    credential_pool: dg.ResourceDependency[CredentialPoolResource]
    wait: bool = True
    _locked: set[str] = PrivateAttr(default_factory=set)
    _sessions: dict[str, Session] = PrivateAttr(default_factory=dict)
    _clients: dict[tuple[str, ConnectionType], BitbucketClient] = PrivateAttr(default_factory=dict)

    def open_import(self, workspace: str, listener: Listener, *, for_pipelines: bool = False) -> BitbucketClient:
        """Locks the workspace for this run, and returns its client.

        For pipelines, the client uses the connection `bitbucket_pipelines` where that has a credential.
        """
        warehouse = self.warehouse.connected
        warehouse.tell = listener.warning
        if workspace not in self._locked:
            self.warehouse.enter(locked(warehouse, workspace, listener, wait=self.wait))
            self._locked.add(workspace)
        kind: ConnectionType = "bitbucket"
        if for_pipelines:
            kind = self.warehouse.run(pool_for_pipelines(warehouse, workspace))
        if (workspace, kind) not in self._clients:
            connection = self.warehouse.run(connection_in_service(warehouse, workspace, kind))
            pool = self.credential_pool.open(connection, listener)
            client = open_client(self.warehouse.settings(), warehouse, pool, connection, wait=self.wait)
            self._clients[workspace, kind] = self.warehouse.enter(client)
        return self._clients[workspace, kind]

    def in_session(self, workspace: str, *, afresh: bool) -> Session:
        """The session of this run, which is a sync of the workspace; the first call decides whether it is `afresh`."""
        if workspace not in self._sessions:
            opening = in_session(self.warehouse.connected, workspace, afresh=afresh)
            self._sessions[workspace] = self.warehouse.enter(opening)
        return self._sessions[workspace]


def resources(read: Callable[[], Settings]) -> dict[str, object]:
    """The resources, by the names of the contract."""

    class PlacedWarehouseResource(WarehouseResource):
        __doc__ = WarehouseResource.__doc__

        def settings(self) -> Settings:
            return read()

    of_the_placement: type[WarehouseResource] = PlacedWarehouseResource
    warehouse = of_the_placement.configure_at_launch()
    credential_pool = CredentialPoolResource.configure_at_launch(warehouse=warehouse)
    return {
        "warehouse": warehouse,
        "credential_pool": credential_pool,
        "bitbucket": BitbucketResource(warehouse=warehouse, credential_pool=credential_pool),
    }
