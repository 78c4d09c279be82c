"""How far a scheduled sync goes: it asks the most overdue repositories, and leaves the rest to the next sync.

So it never waits for a budget in its middle. What it leaves is more overdue then, and comes first.
"""

from collections.abc import Sequence
from typing import TypeVar

from dx_dagster.importer.report import Report, note
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.budgets import headroom
from dx_dagster.warehouse.imported.marks import Repository

OneRepository = TypeVar("OneRepository", bound=Repository)


async def requests_left(workspace: Workspace) -> int:
    """Requests that the budgets of the workspace's credentials have left in this window."""
    pool = workspace.client.pool
    ours = {credential.budget for credential in pool.usable}
    budgets = await headroom(workspace.warehouse, pool.ledger.window)
    return sum(one.left for name, one in budgets.items() if name in ours)


async def affordable(
    workspace: Workspace, report: Report, repositories: Sequence[OneRepository], each: int
) -> Sequence[OneRepository]:
    """The first of the repositories, as many as the requests left are enough for, with so many for `each`."""
    if not workspace.hurried:
        return repositories
    most = max(1, await requests_left(workspace) // each)
    if (left := len(repositories) - most) > 0:
        note(workspace, report, f"{left:,} repositories that are due are left to the next sync")
    return repositories[:most]
