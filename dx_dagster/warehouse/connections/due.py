"""What decides which workspaces are synced next."""

from dataclasses import dataclass
from datetime import datetime

from dx_dagster.warehouse.database import Warehouse


@dataclass(frozen=True)
class Paced:
    """A connected workspace.

    Attributes:
        pulls: how many pull requests are stored, 50 of which are a request when all are listed.
        failed_at: when its last sync could read nothing, if it could not.
    """

    workspace: str
    last_synced_at: datetime | None
    pulls: int
    failed_at: datetime | None = None


async def workspaces(warehouse: Warehouse) -> list[Paced]:
    rows = await warehouse.rows(
        """SELECT c.workspace, c.last_synced_at, count(p.id) AS pulls, c.failed_at
           FROM connections c
           LEFT JOIN bitbucket_workspaces w ON w.slug = c.workspace
           LEFT JOIN bitbucket_repositories r ON r.workspace_id = w.id
           LEFT JOIN bitbucket_pulls p ON p.repository_id = r.id
           WHERE c.type = 'bitbucket' AND c.deleted_at IS NULL AND c.disabled_at IS NULL
           GROUP BY c.id"""
    )
    return [Paced(*row) for row in rows]
