"""Dagster's resources: the warehouse, the pool of credentials, and the client that draws on it.

A run keeps one event loop, one database pool and one client for all its steps. The warehouse owns them: every step
needs it, and it is closed last.
"""

import asyncio
import gc
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Any, TypeVar

import dagster as dg
from pydantic import PrivateAttr

from dx_dagster.bitbucket import BitbucketClient, CredentialPool
from dx_dagster.connections.actions import pool_for_pipelines
from dx_dagster.importer.session import locked, open_client, open_pool
from dx_dagster.importer.workspace import Listener
from dx_dagster.settings import Settings
from dx_dagster.warehouse import runs
from dx_dagster.warehouse.connections.connections import ConnectionType
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.embedded import database_url

Result = TypeVar("Result")

PATIENCE = 300.0  # a statement over all that a large repository has may take a minute on a busy database


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Spares an import the garbage collector: a page of JSON is a thousand objects that no cycle holds.

    It took a third of the CPU time, mostly to look again and again through all that Dagster has loaded.
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
    """Lets SIGINT and SIGTERM cancel the task; yields those that came.

    Dagster's own handlers raise an exception wherever the program is just then. In an event loop that may be a task
    that nobody waits for, and the signal would be lost.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def cancel(number: int) -> None:
        came.append(number)
        task.cancel()

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}  # not where it is ignored
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


class WarehouseResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The PostgreSQL database that `DX_DATABASE_URL` names, or the embedded one."""

    _runner: asyncio.Runner | None = PrivateAttr(default=None)
    _stack: AsyncExitStack | None = PrivateAttr(default=None)
    _warehouse: Warehouse | None = PrivateAttr(default=None)
    _opened: dict[str, Any] = PrivateAttr(default_factory=dict)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["WarehouseResource"]:
        with seldom_collecting(), asyncio.Runner() as runner:
            self._runner, self._stack = runner, AsyncExitStack()
            try:
                self._warehouse = self.enter("warehouse", Warehouse(database_url(Settings.read()), patience=PATIENCE))
                if context.run is not None:
                    self.enter("at work", runs.at_work(self._warehouse, context.run.run_id))
                yield self
            finally:
                runner.run(self._stack.aclose())

    @property
    def connected(self) -> Warehouse:
        if self._warehouse is None:
            raise RuntimeError("the warehouse is open only while a run uses it")
        return self._warehouse

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs asynchronous work on the run's event loop."""
        if self._runner is None:
            work.close()
            raise RuntimeError("the warehouse is open only while a run uses it")
        loop = self._runner.get_loop()
        task = loop.create_task(work)
        with _cancelled_by_signals(loop, task) as signals:
            try:
                return self._runner.run(_outcome(task))
            except BaseException:
                # What was torn away from the loop would go on over a client and a database that are being closed.
                task.cancel()
                self._runner.run(asyncio.wait([task]))
                if signals:
                    raise dg.DagsterExecutionInterruptedError from None
                raise

    def enter(self, name: str, opening: AbstractAsyncContextManager[Result]) -> Result:
        """Opens something once a run; it is closed before the warehouse is."""
        if name not in self._opened and self._stack is not None:
            self._opened[name] = self.run(self._stack.enter_async_context(opening))
        found: Result = self._opened[name]
        return found


class CredentialPoolResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The enabled credentials of a workspace's connection, sharing its requests."""

    def open(
        self, warehouse: WarehouseResource, workspace: str, listener: Listener, kind: ConnectionType
    ) -> CredentialPool:
        return warehouse.run(open_pool(Settings.read(), warehouse.connected, listener, workspace, kind))


class BitbucketResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The client of Bitbucket's API; one for each pool of a workspace, which nobody else imports meanwhile.

    Where another process imports the workspace, a run waits for it to end, or fails at once: `wait`.
    """

    wait: bool = True
    _clients: dict[str, BitbucketClient] = PrivateAttr(default_factory=dict)

    def open(
        self,
        warehouse: WarehouseResource,
        pool: CredentialPoolResource,
        workspace: str,
        listener: Listener,
        *,
        for_pipelines: bool = False,
    ) -> BitbucketClient:
        """The client; for pipelines, one with credentials of their own where there are some."""
        warehouse.enter(f"lock {workspace}", locked(warehouse.connected, workspace, listener, wait=self.wait))
        kind: ConnectionType = "bitbucket"
        if for_pipelines:
            kind = warehouse.run(pool_for_pipelines(warehouse.connected, workspace))
        name = f"client {workspace} {kind}"
        if name not in self._clients:
            credentials = pool.open(warehouse, workspace, listener, kind)
            client = open_client(Settings.read(), warehouse.connected, credentials, workspace, kind)
            self._clients[name] = warehouse.enter(name, client)
        return self._clients[name]
