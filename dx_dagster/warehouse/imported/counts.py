"""Row counts of the imported tables."""

from psycopg.sql import SQL, Identifier
from sqlalchemy import Table

from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.schema import metadata

_OF_REPOSITORIES = SQL("repository_id IN (SELECT id FROM bitbucket_repositories WHERE workspace_id = %(workspace)s)")
# By the column that leads to the workspace.
_OF_WORKSPACE = {
    "workspace_id": SQL("workspace_id = %(workspace)s"),
    "repository_id": _OF_REPOSITORIES,
    "pull_id": SQL("pull_id IN (SELECT id FROM bitbucket_pulls WHERE {of_repositories})").format(
        of_repositories=_OF_REPOSITORIES
    ),
    "id": SQL("id = %(workspace)s"),
}


async def rows(warehouse: Warehouse, table: Table, workspace_id: str) -> int:
    """Rows of one workspace."""
    condition = next(condition for column, condition in _OF_WORKSPACE.items() if column in table.columns)
    row = await warehouse.row(
        SQL("SELECT count(*) AS rows FROM {table} WHERE {condition}").format(
            table=Identifier(table.name), condition=condition
        ),
        {"workspace": workspace_id},
    )
    return int(row.rows)


async def all_rows(warehouse: Warehouse, table: Table) -> int:
    """Rows of all workspaces."""
    row = await warehouse.row(SQL("SELECT count(*) AS rows FROM {table}").format(table=Identifier(table.name)))
    return int(row.rows)


async def of_workspace(warehouse: Warehouse, slug: str) -> dict[str, int]:
    """Rows of one workspace in each table of imported rows."""
    row = await warehouse.row("SELECT id::text FROM bitbucket_workspaces WHERE slug = %s", [slug])
    imported = [table for name, table in sorted(metadata.tables.items()) if name.startswith("bitbucket_")]
    return {table.name: await rows(warehouse, table, row.id) if row else 0 for table in imported}
