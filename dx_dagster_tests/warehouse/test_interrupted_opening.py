"""A warehouse that is opened and interrupted meanwhile."""

import asyncio
from contextlib import suppress

from dx_dagster.warehouse.database import Warehouse


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
