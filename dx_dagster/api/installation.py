"""What the routes work with: settings, the warehouse, and what else is to happen when a workspace is connected."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import anyio
from starlette.requests import HTTPConnection

from dx_dagster.settings import Settings
from dx_dagster.warehouse.database import Warehouse

OnConnected = Callable[[str], None]
"""Called in a thread with the slug of a workspace that was just connected."""


@dataclass(eq=False)
class Installation:
    """The warehouse is opened by the first request that needs it: the application starts without its database."""

    settings: Settings
    url: str
    on_connected: OnConnected | None = None
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

    async def connected(self, workspace: str) -> None:
        if self.on_connected is not None:
            await anyio.to_thread.run_sync(self.on_connected, workspace)

    async def close(self) -> None:
        await self._stack.aclose()


def installation(request: HTTPConnection) -> Installation:
    """The installation that the application was made for."""
    found: Installation = request.app.state.installation
    return found
