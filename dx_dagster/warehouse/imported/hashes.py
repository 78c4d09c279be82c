"""Abbreviated hashes: pull requests, pipelines and deployments may carry 12 characters, commits whole ones of 40."""

from collections.abc import Collection

from psycopg.sql import SQL, Composed, Identifier

from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.imported import review_times

# One look into an index for each hash: LIKE with a pattern from a table compares each row with each, and so may a join,
# while the planner has no statistics of tables that were empty a minute ago.
_RESOLVE = SQL("""
    WITH whole AS MATERIALIZED (
        SELECT id, ({commit}) AS sha
        FROM {table} o WHERE o.repository_id = ANY(%(repositories)s::uuid[]) AND length(o.{column}) < 40)
    UPDATE {table} p SET {column} = whole.sha FROM whole WHERE p.id = whole.id AND whole.sha IS NOT NULL
    RETURNING p.id::text""")
# The operators of text_pattern_ops, as in the index.
_ON_BRANCH = SQL("""
    SELECT c.sha FROM bitbucket_repository_default_branch_commits c
    WHERE c.sha ~>=~ o.{column} AND c.sha ~<~ (o.{column} || 'g') AND c.repository_id = o.repository_id LIMIT 1""")
_OF_PULLS = SQL("""
    SELECT c.sha FROM bitbucket_pull_commits c
    WHERE c.sha >= o.{column} AND c.sha < (o.{column} || 'g')
      AND (SELECT k.repository_id FROM bitbucket_pulls k WHERE k.id = c.pull_id) = o.repository_id LIMIT 1""")


def _resolve(table: str, column: str, commit: SQL) -> Composed:
    name = Identifier(column)
    return _RESOLVE.format(table=Identifier(table), column=name, commit=commit.format(column=name))


_RESOLVE_MERGES = _resolve("bitbucket_pulls", "merge_commit_sha", _ON_BRANCH)
_RESOLVE_SOURCES = """
    UPDATE bitbucket_pulls p SET source_commit_sha = c.sha
    FROM (SELECT pull_id AS id, sha FROM bitbucket_pull_commits) c
    WHERE p.repository_id = ANY(%(repositories)s::uuid[]) AND length(p.source_commit_sha) < 40
      AND c.id = p.id AND c.sha LIKE p.source_commit_sha || '%%'"""
_RESOLVE_FAST_FORWARDS = """
    UPDATE bitbucket_pulls SET merge_commit_sha = source_commit_sha
    WHERE repository_id = ANY(%(repositories)s::uuid[]) AND length(merge_commit_sha) < 40
      AND length(source_commit_sha) = 40 AND source_commit_sha LIKE merge_commit_sha || '%%'"""
_RESOLVE_PIPELINES = (
    _resolve("bitbucket_pipelines", "commit_sha", _ON_BRANCH),
    _resolve("bitbucket_pipelines", "commit_sha", _OF_PULLS),
)
_RESOLVE_DEPLOYMENTS = (
    _resolve("bitbucket_deployments", "commit_sha", _ON_BRANCH),
    _resolve("bitbucket_deployments", "commit_sha", _OF_PULLS),
)
_RESOLVE_OTHERS = (
    _RESOLVE_SOURCES,
    _resolve("bitbucket_pulls", "source_commit_sha", _ON_BRANCH),
    _RESOLVE_FAST_FORWARDS,
    *_RESOLVE_PIPELINES,
    *_RESOLVE_DEPLOYMENTS,
)


async def resolve(transaction: Transaction, repository_ids: Collection[str]) -> None:
    """Replaces abbreviated hashes of pull requests, pipelines and deployments by whole hashes of stored commits."""
    if not repository_ids:
        return
    bound = {"repositories": list(repository_ids)}
    merged = await transaction.rows(_RESOLVE_MERGES, bound)
    for statement in _RESOLVE_OTHERS:
        await transaction.execute(statement, bound)
    await review_times.derive(transaction, [row.id for row in merged])


async def resolve_pipelines(transaction: Transaction, repository_ids: Collection[str]) -> None:
    """`resolve` for pipelines alone."""
    for statement in _RESOLVE_PIPELINES if repository_ids else ():
        await transaction.execute(statement, {"repositories": list(repository_ids)})


async def resolve_deployments(transaction: Transaction, repository_ids: Collection[str]) -> None:
    """`resolve` for deployments alone."""
    for statement in _RESOLVE_DEPLOYMENTS if repository_ids else ():
        await transaction.execute(statement, {"repositories": list(repository_ids)})


async def repositories_with_short_runs(warehouse: Warehouse, workspace_id: str) -> set[str]:
    """Repositories whose pipelines or deployments have abbreviated hashes: a killed import may not resolve them."""
    rows = await warehouse.rows(
        """SELECT r.id::text AS id FROM bitbucket_repositories r
           WHERE r.workspace_id = %s
             AND (EXISTS (SELECT FROM bitbucket_pipelines p
                          WHERE p.repository_id = r.id AND length(p.commit_sha) < 40)
                  OR EXISTS (SELECT FROM bitbucket_deployments d
                             WHERE d.repository_id = r.id AND length(d.commit_sha) < 40))""",
        [workspace_id],
    )
    return {row.id for row in rows}


async def complete(transaction: Transaction, whole: Collection[tuple[str, str]]) -> None:
    """Replaces abbreviated hashes of pull requests by whole ones, given as (id of the pull request, hash)."""
    bound = {"pulls": [pull_id for pull_id, _ in whole], "hashes": [sha for _, sha in whole]}
    for column in ("merge_commit_sha", "source_commit_sha"):
        await transaction.execute(
            SQL("""
                UPDATE bitbucket_pulls p SET {column} = w.sha
                FROM unnest(%(pulls)s::uuid[], %(hashes)s::text[]) AS w (id, sha)
                WHERE p.id = w.id AND length(p.{column}) < 40 AND w.sha LIKE p.{column} || '%%'""").format(
                column=Identifier(column)
            ),
            bound,
        )


async def of_pulls(transaction: Transaction, pull_ids: Collection[str]) -> dict[str, str]:
    """The hashes that pull requests have now."""
    rows = await transaction.rows(
        """SELECT id::text, concat_ws(' ', merge_commit_sha, source_commit_sha) AS hashes
           FROM bitbucket_pulls WHERE id = ANY(%s::uuid[])""",
        [list(pull_ids)],
    )
    return {row.id: row.hashes for row in rows}
