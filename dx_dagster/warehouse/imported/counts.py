"""How many rows there are."""

from sqlalchemy import Table

from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.schema.bitbucket import metadata

_OF_REPOSITORIES = "repository_id IN (SELECT id FROM bitbucket_repositories WHERE workspace_id = %(workspace)s)"
_OF_PULLS = f"pull_id IN (SELECT id FROM bitbucket_pulls WHERE {_OF_REPOSITORIES})"  # noqa: S608 - constants
# By the column that leads to the workspace.
_OF_WORKSPACE = {
    "workspace_id": "workspace_id = %(workspace)s",
    "repository_id": _OF_REPOSITORIES,
    "pull_id": _OF_PULLS,
    "id": "id = %(workspace)s",
}


async def rows(warehouse: Warehouse, table: Table, workspace_id: str) -> int:
    """Rows of one workspace."""
    condition = next(condition for column, condition in _OF_WORKSPACE.items() if column in table.columns)
    row = await warehouse.row(
        f"SELECT count(*) AS rows FROM {table.name} WHERE {condition}",  # noqa: S608 - constants
        {"workspace": workspace_id},
    )
    return int(row.rows)


async def all_rows(warehouse: Warehouse, table: Table) -> int:
    row = await warehouse.row(f"SELECT count(*) AS rows FROM {table.name}")  # noqa: S608 - names of our own tables
    return int(row.rows)


async def of_workspace(warehouse: Warehouse, slug: str) -> dict[str, int]:
    """Rows of one workspace in every table that holds Bitbucket's things."""
    row = await warehouse.row("SELECT id::text FROM bitbucket_workspaces WHERE slug = %s", [slug])
    imported = [table for name, table in sorted(metadata.tables.items()) if name.startswith("bitbucket_")]
    return {table.name: await rows(warehouse, table, row.id) if row else 0 for table in imported}
