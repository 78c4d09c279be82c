"""Addresses of pages: they begin with that of their repository, and change with its name."""

import polars as pl

from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import bitbucket as tables

_COLUMNS = ("id", "source_url", "synced_at")
_MOVED = f"""
    SELECT stored.id, stored.source_url AS old, incoming.source_url AS new
    FROM {{rows}} JOIN bitbucket_repositories stored USING (id)
    WHERE stored.source_url <> incoming.source_url AND {merge.is_not_older(merge.REPOSITORIES, "incoming", "stored")}"""  # noqa: S608
# By what stands behind the repository's address: it may have been renamed twice since some of these rows were written.
_FOLLOW = """
    UPDATE {table} t SET source_url = moved.new || substr(t.source_url, position('{behind}' IN t.source_url))
    FROM ({moved}) moved
    WHERE {belongs} AND position('{behind}' IN t.source_url) > 0
      AND NOT starts_with(t.source_url, moved.new || '{behind}')"""
_OF_REPOSITORY = "t.repository_id = moved.id"
_OF_PULL = "t.pull_id IN (SELECT p.id FROM bitbucket_pulls p WHERE p.repository_id = moved.id)"
# Nobody tells whether a commit from a fork is shown in the fork or in the repository that it is offered to. It is not
# shown in a fork if its address lies in the same workspace and is none of another repository there.
_OF_PULL_OR_FORK = """t.pull_id IN (
    SELECT p.id FROM bitbucket_pulls p
    WHERE p.repository_id = moved.id AND (p.from_fork IS NOT TRUE OR (
        starts_with(t.source_url, regexp_replace(moved.old, '[^/]*$', ''))
        AND NOT EXISTS (SELECT FROM bitbucket_repositories other
                        WHERE other.id <> moved.id AND starts_with(t.source_url, other.source_url || '/')))))"""
_TABLES = {
    "bitbucket_pulls": ("/pull-requests/", _OF_REPOSITORY),
    "bitbucket_pipelines": ("/pipelines/", _OF_REPOSITORY),
    "bitbucket_repository_default_branch_commits": ("/commits/", _OF_REPOSITORY),
    "bitbucket_pull_comments": ("/pull-requests/", _OF_PULL),
    "bitbucket_pull_commits": ("/commits/", _OF_PULL_OR_FORK),
}


async def follow_renames(transaction: Transaction, repositories: pl.DataFrame) -> None:
    """Before these repositories are merged: rewrites the addresses of all that belongs to one whose address changes."""
    bound = {"rows": merge.as_json(repositories.select(_COLUMNS))}
    moved = _MOVED.format(rows=merge.recordset(tables.repositories, _COLUMNS))
    if await transaction.row(moved, bound):
        for table, (behind, belongs) in _TABLES.items():
            statement = _FOLLOW.format(table=table, moved=moved, behind=behind, belongs=belongs)
            await transaction.execute(statement, bound)
