"""Commits of default branches, and what they say about the commits of pull requests."""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import NamedTuple

from dx_dagster.frames.commits import CommitRow
from dx_dagster.warehouse.database import Transaction, Warehouse


async def known(warehouse: Warehouse, repository_id: str, hashes: Collection[str]) -> set[str]:
    """Which of these commits are stored."""
    rows = await warehouse.rows(
        "SELECT sha FROM bitbucket_repository_default_branch_commits WHERE repository_id = %s AND sha = ANY(%s)",
        [repository_id, list(hashes)],
    )
    return {row.sha for row in rows}


async def graph(
    warehouse: Warehouse, repository_id: str, add: Callable[[Iterator[tuple[str, list[str]]]], None]
) -> None:
    """Gives `add` every commit on the default branch with its parents, some thousand at a time."""
    async with warehouse.transaction(read_only=True) as transaction:
        # As one text, which the driver reads much faster than an array.
        parts = transaction.in_parts(
            """SELECT sha, array_to_string(parents, ' ')
               FROM bitbucket_repository_default_branch_commits WHERE repository_id = %s""",
            [repository_id],
        )
        async for rows in parts:
            add((sha, (parents or "").split()) for sha, parents in rows)


async def commits(warehouse: Warehouse, repository_id: str, hashes: Collection[str]) -> dict[str, CommitRow]:
    """Some commits of the default branch, by hash."""
    rows = await warehouse.fetch(
        CommitRow,
        """SELECT sha, author_id::text, created, message, source_url
           FROM bitbucket_repository_default_branch_commits WHERE repository_id = %s AND sha = ANY(%s)""",
        [repository_id, list(hashes)],
    )
    return {row.sha: row for row in rows}


async def unknown_parents(
    transaction: Transaction, repository_id: str, since: datetime | None, limit: int, gone: Collection[str] = ()
) -> list[str]:
    """Hashes of commits that are stored only as a parent of another commit, the newest children's first.

    Parents of commits that are older than `since`, and hashes that are `gone`, are left out.
    """
    rows = await transaction.rows(
        """SELECT parent
           FROM bitbucket_repository_default_branch_commits c CROSS JOIN unnest(c.parents) AS parent
           WHERE c.repository_id = %(repository)s
             AND (c.created < COALESCE(%(since)s::timestamptz, '-infinity')) IS NOT TRUE
             AND NOT EXISTS (SELECT FROM bitbucket_repository_default_branch_commits k
                             WHERE k.repository_id = c.repository_id AND k.sha = parent)
             AND NOT parent = ANY(%(gone)s)
           GROUP BY parent ORDER BY max(c.created) DESC NULLS LAST, parent LIMIT %(limit)s""",
        {"repository": repository_id, "since": since, "limit": limit, "gone": list(gone)},
    )
    return [row.parent for row in rows]


async def with_unresolved_merges(warehouse: Warehouse, workspace_id: str) -> set[str]:
    """Repositories with a merge into the default branch whose commit is not stored, nor was fetched by itself."""
    rows = await warehouse.rows(
        """SELECT DISTINCT p.repository_id::text AS id
           FROM bitbucket_pulls p
           JOIN bitbucket_repositories r ON r.id = p.repository_id AND r.default_branch = p.target_branch
           LEFT JOIN pull_marks m ON m.pull_id = p.id
           WHERE r.workspace_id = %s AND length(p.merge_commit_sha) < 40 AND m.hashes_resolved_for IS NULL""",
        [workspace_id],
    )
    return {row.id for row in rows}


# `moved`: the target got a commit after the last push to or edit of the pull request. Only such merges distinguish the
# target's head at the merge from its head before.
_TARGETS_TOLD = """
    WITH merges AS (
        SELECT p.id, p.repository_id, p.created_at, p.target_commit_sha AS told, c.created AS merged_at,
               cardinality(c.parents) = 2 AND starts_with(c.parents[2], left(p.source_commit_sha, 12)) AS proper,
               c.parents[1] AS target
        FROM bitbucket_pulls p
        JOIN bitbucket_repositories r ON r.id = p.repository_id AND r.default_branch = p.target_branch
        JOIN bitbucket_repository_default_branch_commits c
          ON c.repository_id = p.repository_id AND c.sha = p.merge_commit_sha
        WHERE r.workspace_id = %s AND p.state = 'MERGED' AND p.target_commit_sha IS NOT NULL
        ORDER BY p.updated_at DESC LIMIT 5000)
    SELECT count(*) FILTER (WHERE proper AND frozen AND moved) AS frozen,
           count(*) FILTER (WHERE proper AND NOT frozen) AS otherwise,
           count(*) FILTER (WHERE proper AND d.created < merged_at) AS before,
           count(*) FILTER (WHERE proper AND d.created > merged_at) AS after
    FROM merges m
    LEFT JOIN bitbucket_repository_default_branch_commits t ON t.repository_id = m.repository_id AND t.sha = m.target
    LEFT JOIN LATERAL (
        SELECT d.created FROM bitbucket_repository_default_branch_commits d
        WHERE d.repository_id = m.repository_id AND d.sha ~>=~ m.told AND d.sha ~<~ (m.told || 'g') LIMIT 1) d ON true
    CROSS JOIN LATERAL (
        SELECT starts_with(m.target, m.told) AS frozen,
               t.created > GREATEST(m.created_at, (
                   SELECT max(a.created_at) FROM bitbucket_pull_activities a
                   WHERE a.pull_id = m.id AND a.kind = 'update' AND a.state = 'OPEN')) AS moved) seen"""
_ENOUGH = 10
_RARE = 20  # one date in so many may come from a wrong clock


class Targets(NamedTuple):
    """What the target's head of a closed pull request means, which Bitbucket does not document.

    Attributes:
        frozen: it is the head that the pull request was merged into.
        past: it is that head or an earlier one, not today's.
    """

    frozen: bool
    past: bool


async def targets(warehouse: Warehouse, workspace_id: str) -> Targets:
    """Derives `Targets` from the workspace's latest merges; a workspace with few merges shows neither."""
    row = await warehouse.row(_TARGETS_TOLD, [workspace_id])
    return Targets(
        row.frozen >= _ENOUGH and not row.otherwise, row.before >= _ENOUGH and row.after * _RARE < row.before
    )


# After a push that only adds commits, the old head is a parent of one of them; otherwise history was rewritten.
_REWRITTEN = """
    SELECT NOT EXISTS (SELECT FROM bitbucket_repository_default_branch_commits
                       WHERE repository_id = %(repository)s AND %(old_head)s = ANY(parents)) AS rewritten"""
_UNREACHABLE = """
    WITH RECURSIVE reachable (sha, parents) AS (
        SELECT sha, parents FROM bitbucket_repository_default_branch_commits
        WHERE repository_id = %(repository)s AND sha = %(head)s
        UNION
        SELECT c.sha, c.parents FROM reachable r
        JOIN bitbucket_repository_default_branch_commits c
          ON c.repository_id = %(repository)s AND c.sha = ANY(r.parents))
    SELECT sha, (SELECT count(*) FROM bitbucket_repository_default_branch_commits
                 WHERE repository_id = %(repository)s) AS stored
    FROM bitbucket_repository_default_branch_commits
    WHERE repository_id = %(repository)s AND sha NOT IN (SELECT sha FROM reachable)
    ORDER BY created DESC NULLS LAST"""


_ASK_OPEN_PULLS = """
    UPDATE pull_marks m SET commits_synced_for = NULL
    FROM bitbucket_pulls p
    JOIN bitbucket_repositories r ON r.id = p.repository_id AND r.default_branch = p.target_branch
    WHERE m.pull_id = p.id AND p.repository_id = %(repository)s AND p.state = 'OPEN'"""


async def is_rewritten(transaction: Transaction, repository_id: str, old_head: str) -> bool:
    """Whether the branch no longer contains its old head, after a forced push."""
    row = await transaction.row(_REWRITTEN, {"repository": repository_id, "old_head": old_head})
    return bool(row.rewritten)


class Lost(NamedTuple):
    """Commits that the branch no longer reaches, newest first, and the number of all that are stored."""

    hashes: list[str]
    stored: int


async def unreachable(transaction: Transaction, repository_id: str, head: str) -> Lost:
    rows = await transaction.rows(_UNREACHABLE, {"repository": repository_id, "head": head})
    return Lost([row.sha for row in rows], rows[0].stored if rows else 0)


async def drop(transaction: Transaction, repository_id: str, hashes: Collection[str]) -> None:
    """Deletes commits that the branch has lost."""
    if hashes:
        await transaction.execute(
            "DELETE FROM bitbucket_repository_default_branch_commits WHERE repository_id = %s AND sha = ANY(%s)",
            [repository_id, list(hashes)],
        )
        # Commits that the branch has lost may belong to open pull requests into it again.
        await ask_open_pulls(transaction, repository_id)


async def ask_open_pulls(transaction: Transaction, repository_id: str) -> None:
    """Makes the commits of open pull requests into the default branch stale."""
    await transaction.execute(_ASK_OPEN_PULLS, {"repository": repository_id})


# After a walk with a bound, the branch may have parents that are not stored.
_CONTRADICTING = """
    SELECT DISTINCT p.id::text AS id
    FROM unnest(%(pulls)s::uuid[], %(hashes)s::text[], %(below)s::boolean[]) AS told (pull_id, sha, below)
    JOIN bitbucket_pulls p ON p.id = told.pull_id AND p.state = 'OPEN'
    JOIN bitbucket_repositories r ON r.id = p.repository_id AND r.default_branch = p.target_branch
    JOIN sync_marks m ON m.repository_id = r.id AND m.kind = 'commits' AND m.synced_to IS NOT NULL
                     AND (m.bound IS NULL OR NOT told.below)
    WHERE told.below <> EXISTS (
        SELECT FROM bitbucket_repository_default_branch_commits b
        WHERE b.repository_id = r.id AND b.sha ~>=~ told.sha AND b.sha ~<~ (told.sha || 'g'))"""


async def pulls_that_contradict(
    transaction: Transaction, beside: Collection[tuple[str, str]], below: Collection[tuple[str, str]]
) -> list[str]:
    """Ids of open pull requests into the default branch whose lists of commits contradict the stored branch.

    `beside`: (id of a pull request, hash of a commit) where the target should lack the commit. `below`: the same where
    the target should have it; a hash may be abbreviated.
    """
    rows = await transaction.rows(
        _CONTRADICTING,
        {
            "pulls": [pull_id for pull_id, _ in (*beside, *below)],
            "hashes": [sha for _, sha in (*beside, *below)],
            "below": [False] * len(beside) + [True] * len(below),
        },
    )
    return [row.id for row in rows]


async def mark_taken_commits_deleted(transaction: Transaction, pull_ids: Collection[str]) -> None:
    """Marks commits of open pull requests as deleted that are on their target, the default branch, by now."""
    if pull_ids:
        await transaction.execute(
            """UPDATE bitbucket_pull_commits c SET deleted = true
               FROM bitbucket_pulls p
               JOIN bitbucket_repositories r ON r.id = p.repository_id AND r.default_branch = p.target_branch
               JOIN bitbucket_repository_default_branch_commits b ON b.repository_id = r.id
               WHERE p.id = ANY(%s::uuid[]) AND p.state = 'OPEN' AND c.pull_id = p.id AND c.sha = b.sha
                 AND NOT c.deleted""",
            [list(pull_ids)],
        )
