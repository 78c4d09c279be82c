"""Work that is repeated in the background while something else goes on."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import psycopg

from dx_dagster.warehouse.database import WarehouseError

_log = logging.getLogger(__name__)


@asynccontextmanager
async def repeated(every: float, work: Callable[[], Awaitable[None]], failure: str) -> AsyncIterator[None]:
    """Does `work` every so many seconds until the end of the block, which waits for work under way.

    A database that does not answer is logged after `failure`: the next time it may.
    """
    # A task, not a task group: a run of Dagster enters and leaves in different tasks.
    over = asyncio.Event()
    repeating = asyncio.create_task(_repeat(every, work, failure, over))
    try:
        yield
    finally:
        over.set()
        await repeating


async def _repeat(every: float, work: Callable[[], Awaitable[None]], failure: str, over: asyncio.Event) -> None:
    while not over.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), every)
            return
        try:
            await work()
        except (psycopg.OperationalError, WarehouseError) as error:
            _log.warning("%s: %s", failure, error)
