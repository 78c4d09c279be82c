"""Stores how many requests a client has sent, by credential and status, while it is open."""

import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from dx_dagster.bitbucket import BitbucketClient
from dx_dagster.warehouse import request_counts
from dx_dagster.warehouse.database import Warehouse, WarehouseError
from dx_dagster.warehouse.repeating import repeated

_SECONDS_BETWEEN = 15.0
_FAILURE = "cannot store the number of requests"

_log = logging.getLogger(__name__)


@asynccontextmanager
async def counting(warehouse: Warehouse, client: BitbucketClient) -> AsyncIterator[None]:
    """Stores the counts every few seconds, and at the end. What a killed process sent last is not counted."""
    stored: Counter[tuple[int, str]] = Counter()

    async def store() -> None:
        new = Counter(client.answers) - stored
        await request_counts.add(warehouse, new)
        stored.update(new)

    try:
        async with repeated(_SECONDS_BETWEEN, store, _FAILURE):
            yield
    finally:
        try:
            await store()
        except (psycopg.OperationalError, WarehouseError) as error:
            _log.warning("%s: %s", _FAILURE, error)
