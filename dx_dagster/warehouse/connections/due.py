"""The state of connected workspaces that decides which are synced next."""

from dataclasses import dataclass
from datetime import datetime

from dx_dagster.warehouse.database import Warehouse


@dataclass(frozen=True)
class Paced:
    """A connected workspace.

    Attributes:
        pulls: number of stored pull requests; listing 50 of them takes one request.
        failed_at: the time of its last sync, if that could read nothing.
    """

    workspace: str
    last_synced_at: datetime | None
    pulls: int
    failed_at: datetime | None = None


async def workspaces(warehouse: Warehouse) -> list[Paced]:
    """Every workspace with a connection in service."""
    return await warehouse.fetch(
        Paced,
        """SELECT c.workspace, c.last_synced_at, count(p.id) AS pulls, c.failed_at
           FROM connections c
           LEFT JOIN bitbucket_workspaces w ON w.slug = c.workspace
           LEFT JOIN bitbucket_repositories r ON r.workspace_id = w.id
           LEFT JOIN bitbucket_pulls p ON p.repository_id = r.id
           WHERE c.type = 'bitbucket' AND c.deleted_at IS NULL AND c.disabled_at IS NULL
           GROUP BY c.id""",
    )
