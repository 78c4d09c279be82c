"""Stores how many requests a client has sent, by credential and status, while it is open."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg

from dx_dagster.bitbucket import BitbucketClient
from dx_dagster.warehouse import request_counts
from dx_dagster.warehouse.database import Warehouse, WarehouseError

_SECONDS_BETWEEN = 15.0

_log = logging.getLogger(__name__)


@asynccontextmanager
async def counting(warehouse: Warehouse, client: BitbucketClient) -> AsyncIterator[None]:
    """Stores the counts every few seconds, and at the end. What a killed process sent last is not counted."""
    # A task, not a task group: a run of Dagster enters and leaves in different tasks.
    over = asyncio.Event()
    storing = asyncio.create_task(_store(warehouse, client.answers, over))
    try:
        yield
    finally:
        over.set()
        await storing


async def _store(warehouse: Warehouse, answers: Counter[tuple[int, str]], over: asyncio.Event) -> None:
    stored: Counter[tuple[int, str]] = Counter()
    while not over.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _SECONDS_BETWEEN)
        seen = Counter(answers)
        try:
            await request_counts.add(warehouse, seen - stored)
        except (psycopg.OperationalError, WarehouseError) as error:
            _log.warning("cannot store the number of requests: %s", error)
        else:
            stored = seen
