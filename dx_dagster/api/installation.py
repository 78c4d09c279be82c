"""Settings and warehouse, as the routes use them."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import anyio
from starlette.requests import HTTPConnection

from dx_dagster.settings import Settings
from dx_dagster.warehouse.database import Warehouse


@dataclass(eq=False)
class ServedInstallation:
    """Opens the warehouse with the first request that needs it: the application starts without its database."""

    settings: Settings
    url: str
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _opening: anyio.Lock = field(default_factory=anyio.Lock)
    _warehouse: Warehouse | None = None

    async def warehouse(self) -> Warehouse:
        """The open warehouse.

        Raises:
            WarehouseError: the database does not answer.
        """
        async with self._opening:
            if self._warehouse is None:
                self._warehouse = await self._stack.enter_async_context(Warehouse(self.url))
            return self._warehouse

    async def close(self) -> None:
        await self._stack.aclose()


def installation(request: HTTPConnection) -> ServedInstallation:
    """The installation that the application serves."""
    served: ServedInstallation = request.app.state.installation
    return served
