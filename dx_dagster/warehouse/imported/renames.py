"""Addresses of pages: each begins with its repository's address, and changes with the repository's name."""

from typing import TYPE_CHECKING

from psycopg.sql import SQL, Identifier

from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import bitbucket as tables

if TYPE_CHECKING:
    import polars as pl

_COLUMNS = ("id", "source_url", "synced_at")
_RENAMED = SQL("""
    SELECT stored.id, stored.source_url AS old, incoming.source_url AS new
    FROM {rows} JOIN bitbucket_repositories stored USING (id)
    WHERE stored.source_url <> incoming.source_url AND {is_not_older}""").format(
    rows=merge.recordset(tables.repositories, _COLUMNS),
    is_not_older=merge.is_not_older(merge.REPOSITORIES, "incoming", "stored"),
)
# Keeps what follows the repository's address: it may have been renamed twice since some of these rows were written.
_FOLLOW = SQL("""
    UPDATE {table} t SET source_url = moved.new || substr(t.source_url, position({page} IN t.source_url))
    FROM ({renamed}) moved
    WHERE {belongs} AND position({page} IN t.source_url) > 0
      AND NOT starts_with(t.source_url, moved.new || {page})""")
_OF_REPOSITORY = SQL("t.repository_id = moved.id")
_OF_PULL = SQL("t.pull_id IN (SELECT p.id FROM bitbucket_pulls p WHERE p.repository_id = moved.id)")
# The address of a commit may be in a fork or in the repository that the pull request is for. It is not in a fork if it
# lies in the same workspace and in no other repository there. One that has taken the old name had it later.
_OF_PULL_OR_FORK = SQL("""t.pull_id IN (
    SELECT p.id FROM bitbucket_pulls p
    WHERE p.repository_id = moved.id AND (p.from_fork IS NOT TRUE OR starts_with(t.source_url, moved.old || '/') OR (
        starts_with(t.source_url, regexp_replace(moved.old, '[^/]*$', ''))
        AND NOT EXISTS (SELECT FROM bitbucket_repositories other
                        WHERE other.id <> moved.id AND starts_with(t.source_url, other.source_url || '/')))))""")
_TABLES = {
    "bitbucket_pulls": ("/pull-requests/", _OF_REPOSITORY),
    "bitbucket_pipelines": ("/pipelines/", _OF_REPOSITORY),
    "bitbucket_deployments": ("/addon/pipelines/", _OF_REPOSITORY),
    "bitbucket_repository_default_branch_commits": ("/commits/", _OF_REPOSITORY),
    "bitbucket_pull_comments": ("/pull-requests/", _OF_PULL),
    "bitbucket_pull_commits": ("/commits/", _OF_PULL_OR_FORK),
}
# Commits that a killed sync has kept, with their old addresses: the sync that continues it fetches them again.
_FORGET_KEPT = SQL("DELETE FROM sync_session_commits t USING ({renamed}) moved WHERE {belongs}").format(
    renamed=_RENAMED, belongs=_OF_REPOSITORY
)


async def follow_renames(transaction: Transaction, repositories: "pl.DataFrame") -> None:
    """Rewrites the addresses of everything in a repository whose address changes.

    Call it before the repositories are merged: it compares their addresses with the stored ones.
    """
    bound = {"rows": merge.as_json(repositories.select(_COLUMNS))}
    if await transaction.row(_RENAMED, bound):
        for table, (page, belongs) in _TABLES.items():
            statement = _FOLLOW.format(table=Identifier(table), renamed=_RENAMED, page=page, belongs=belongs)
            await transaction.execute(statement, bound)
        await transaction.execute(_FORGET_KEPT, bound)
