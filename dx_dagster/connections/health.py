"""Health of a connection's credentials: state, expiry and remaining budget."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from dx_dagster.budgets import names
from dx_dagster.budgets.window import ASSUMED_LIMIT
from dx_dagster.clock import HOST
from dx_dagster.settings import Settings
from dx_dagster.warehouse.budgets import headroom
from dx_dagster.warehouse.connections import credentials
from dx_dagster.warehouse.connections.connections import StoredConnection
from dx_dagster.warehouse.connections.credentials import ShownCredential
from dx_dagster.warehouse.database import Warehouse

WITH_BUDGETS = ("bitbucket", "bitbucket_pipelines")
"""Types of connections whose requests count against a budget."""

WARNED_BEFORE_EXPIRY = timedelta(days=14)


@dataclass(frozen=True)
class Health:
    """A credential and the rest of its budget. All API tokens of an account share one budget.

    Attributes:
        left, limit: requests within the window; None before the first request.
        assumed: no answer has stated the limit yet.
        rests_until: earliest time of the next request, where it is not now.
    """

    credential: ShownCredential
    left: int | None = None
    limit: int | None = None
    assumed: bool = False
    rests_until: datetime | None = None

    @property
    def verdict(self) -> str:
        """`disabled`, `expired`, `expires soon`, `good`, or the code of its last failure."""
        it = self.credential
        if it.disabled_at:
            return "disabled"
        if it.expired:
            return "expired"
        if it.code:
            return it.code
        soon = it.expiration_date is not None and it.expiration_date <= _today() + WARNED_BEFORE_EXPIRY
        return "expires soon" if soon else "good"

    @property
    def works(self) -> bool:
        return self.verdict in {"good", "expires soon"}


def _today() -> date:
    return HOST.now().date()


async def health(settings: Settings, warehouse: Warehouse, connection: StoredConnection) -> list[Health]:
    budgets = await headroom(warehouse, settings.budget_window)
    found = []
    for one in await credentials.shown(warehouse, connection.id):
        name = names.name_of(one.type, one.id, one.username)
        budget = budgets.get(name) if connection.type != "jira_cloud" else None
        if budget is None:
            found.append(Health(one))
            continue
        found.append(Health(one, budget.left, budget.limit, budget.assumed, budget.rests_until))
    return found


async def hourly(settings: Settings, warehouse: Warehouse, connection: StoredConnection) -> tuple[int, int]:
    """Requests that the connection's usable credentials have left in this hour, and their limit."""
    budgets = {
        names.name_of(one.credential.type, one.credential.id, one.credential.username): one
        for one in await health(settings, warehouse, connection)
        if one.works
    }
    limits = [one.limit or ASSUMED_LIMIT for one in budgets.values()]
    lefts = [one.left if one.left is not None else ASSUMED_LIMIT for one in budgets.values()]
    return sum(lefts), sum(limits)
