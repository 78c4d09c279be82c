"""Takes credentials that are removed or disabled during a run out of its pool."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg

from dx_dagster.bitbucket import CredentialPool
from dx_dagster.warehouse.connections import credentials
from dx_dagster.warehouse.database import Warehouse, WarehouseError

EVERY = 2.0  # seconds; no request leaves with a credential later than 5 s after its removal

_log = logging.getLogger(__name__)


@asynccontextmanager
async def following(
    warehouse: Warehouse, pool: CredentialPool, connection_id: int, every: float = EVERY
) -> AsyncIterator[None]:
    """Takes each credential out of the pool when it is removed, is disabled or expires.

    A credential that is added meanwhile is used from the next run on.
    """
    # A task, not a task group: a run of Dagster enters and leaves in different tasks.
    over = asyncio.Event()
    watching = asyncio.create_task(_watch(warehouse, pool, connection_id, every, over))
    try:
        yield
    finally:
        # A transaction is shielded, and a cancellation that comes within one is lost: hence the event.
        over.set()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def _watch(
    warehouse: Warehouse, pool: CredentialPool, connection_id: int, every: float, over: asyncio.Event
) -> None:
    while not over.is_set():
        try:
            usable = await credentials.usable_ids(warehouse, connection_id)
        except (psycopg.OperationalError, WarehouseError) as error:
            _log.warning("cannot check whether credentials were removed: %s", error)
        else:
            for credential in pool.usable:
                if credential.id not in usable:
                    await pool.take_out(credential, "it was removed, disabled or expired")
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), every)
