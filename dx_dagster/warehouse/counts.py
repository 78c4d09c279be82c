"""Row counts of the imported and the derived tables."""

from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Identifier
from sqlalchemy import Table

from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.schema import measures, metadata, people, unified

_PARTS: dict[str, Composable] = {
    "repositories": SQL("(SELECT id FROM bitbucket_repositories WHERE workspace_id = %(workspace)s)"),
    "users": SQL("(SELECT id FROM bitbucket_users WHERE workspace_id = %(workspace)s)"),
}
_PARTS["pulls"] = SQL("(SELECT id FROM bitbucket_pulls WHERE repository_id IN {repositories})").format(**_PARTS)
_PARTS["people"] = SQL("(SELECT dx_user_id FROM identities WHERE source_id IN {users})").format(**_PARTS)
# By the column that leads to the workspace.
_OF_IMPORTED = {
    "workspace_id": "workspace_id = %(workspace)s",
    "repository_id": "repository_id IN {repositories}",
    "pull_id": "pull_id IN {pulls}",
    "id": "id = %(workspace)s",
}
# Teams belong to no workspace.
_OF_DERIVED = {
    unified.repos: "source_table_id IN {repositories}",
    unified.pull_requests: "source_table_repo_id IN {repositories}",
    unified.pull_request_reviews: "source_table_repo_id IN {repositories}",
    unified.pull_request_commits: "source_table_repo_id IN {repositories}",
    unified.pull_request_issues: "source_table_pull_id IN {pulls}",
    unified.pipeline_sources: "source_table_id IN {repositories}",
    unified.pipeline_runs: (
        "pipeline_source_id IN (SELECT id FROM pipeline_sources WHERE source_table_id IN {repositories})"
    ),
    unified.deployments: (
        "source_table_id IN (SELECT id FROM bitbucket_deployments WHERE repository_id IN {repositories})"
    ),
    unified.deployment_pull_requests: (
        "pull_request_id IN (SELECT id FROM pull_requests WHERE source_table_repo_id IN {repositories})"
    ),
    measures.pull_request_measures: "source_table_repo_id IN {repositories}",
    measures.weekly_measures: "(workspace_id = %(workspace)s OR scope = 'team')",
    people.identities: "source_id IN {users}",
    people.users: "id IN {people}",
    people.identifiers: "user_id IN {people}",
    people.teams: "true",
    people.team_hierarchies: "true",
}


@dataclass(frozen=True)
class Rows:
    """Rows of a table: of one workspace, and of all."""

    of_workspace: int
    of_all: int


async def rows(warehouse: Warehouse, table: Table, workspace_id: str) -> Rows:
    """Counts a table's rows, of the workspace and of all."""
    # Two statements: a filter over one pass would search a large workspace's pull requests for every row.
    return Rows(await _count(warehouse, table, workspace_id), await _count(warehouse, table))


async def _count(warehouse: Warehouse, table: Table, workspace_id: str | None = None) -> int:
    condition = SQL(_of_workspace(table) if workspace_id else "true").format(**_PARTS)
    statement = SQL("SELECT count(*) AS rows FROM {table} WHERE {condition}")
    row = await warehouse.row(
        statement.format(table=Identifier(table.name), condition=condition), {"workspace": workspace_id}
    )
    return int(row.rows)


async def estimated(warehouse: Warehouse) -> dict[str, int]:
    """Rows of each table as of its last ANALYZE, by PostgreSQL's own estimate: it reads no row."""
    rows = await warehouse.rows(
        "SELECT c.relname AS name, GREATEST(c.reltuples, 0)::bigint AS rows FROM pg_class c "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY(%s)",
        [[str(table.name) for table in _counted()]],
    )
    return {row.name: row.rows for row in rows}


def _counted() -> list[Table]:
    counted = [table for table in metadata.sorted_tables if table.name.startswith("bitbucket_") or table in _OF_DERIVED]
    return sorted(counted, key=lambda table: str(table.name))


async def of_workspace(warehouse: Warehouse, slug: str) -> dict[str, int]:
    """Rows of one workspace in each table of imported or derived rows."""
    row = await warehouse.row("SELECT id::text FROM bitbucket_workspaces WHERE slug = %s", [slug])
    if row is None:
        return {table.name: 0 for table in _counted()}
    return {table.name: await _count(warehouse, table, row.id) for table in _counted()}


def _of_workspace(table: Table) -> str:
    if table in _OF_DERIVED:
        return _OF_DERIVED[table]
    return next(condition for column, condition in _OF_IMPORTED.items() if column in table.columns)
