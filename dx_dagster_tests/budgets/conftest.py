"""An open warehouse for the tests of budgets."""

from collections.abc import AsyncIterator

import pytest

from dx_dagster.warehouse.database import Warehouse


@pytest.fixture
async def warehouse(database_url: str) -> AsyncIterator[Warehouse]:
    async with Warehouse(database_url) as warehouse:
        yield warehouse
