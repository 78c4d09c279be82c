"""Settings and warehouse, as the routes use them, and the installation's command."""

import shlex
import sysconfig
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import anyio
from starlette.requests import HTTPConnection

from dx_dagster.insights.reports.running import AT_ONCE, Runner
from dx_dagster.settings import Settings
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.embedded import EmbeddedServer
from dx_dagster.warehouse.report_access import ReportAccess


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

    @cached_property
    def report_runner(self) -> Runner:
        """Runs the queries of reports, few at once whoever asks for them."""
        return Runner(anyio.CapacityLimiter(AT_ONCE))

    @cached_property
    def report_access(self) -> ReportAccess:
        """How reports reach the database."""
        return ReportAccess.of(self.settings, self.url)

    @property
    def is_named(self) -> bool:
        """Whether DX_DATABASE_URL names the database: it is not the embedded one."""
        return self.url != EmbeddedServer.of(self.settings.home).url

    async def close(self) -> None:
        await self._stack.aclose()


def installation(request: HTTPConnection) -> ServedInstallation:
    """The installation that the application serves."""
    served: ServedInstallation = request.app.state.installation
    return served


def command_line(settings: Settings) -> str:
    """The command `dx-dagster` of this installation, from any folder."""
    command = shlex.quote(str(Path(sysconfig.get_path("scripts")) / "dx-dagster"))
    return f"DX_HOME={shlex.quote(str(settings.home))} {command}"
