"""The pool of connections: interrupted while it opens, and used up."""

import asyncio
from contextlib import suppress

import pytest

from dx_dagster.warehouse.database import DatabaseBusyError, Warehouse


def test_an_interrupted_opening_leaves_nothing_that_keeps_a_command_from_ending(database_url):
    def workers() -> list[str]:
        return [name for one in asyncio.all_tasks() if "worker" in (name := one.get_name())]

    async def work() -> None:
        opening = asyncio.create_task(Warehouse(database_url).__aenter__())
        while not workers():  # noqa: ASYNC110 - the pool tells nobody of its workers
            await asyncio.sleep(0)
        opening.cancel()  # as Ctrl-C does
        with suppress(asyncio.CancelledError):
            await opening
        assert workers() == []

    asyncio.run(work())


def test_a_busy_database_is_said_to_be_busy(database_url):
    async def work() -> None:
        async with Warehouse(database_url, connections=1, patience=0.2) as warehouse:
            async with warehouse.transaction(read_only=True):
                with pytest.raises(DatabaseBusyError, match=r"answers, .* within 0\.2 s: .* pg_stat_activity"):
                    await warehouse.rows("SELECT 1")
            assert await warehouse.rows("SELECT 1")

    asyncio.run(work())
