"""What is kept about pull requests beside their own columns: participants, whole hashes, marks."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

import polars as pl

from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.imported import marks, review_times
from dx_dagster.warehouse.imported.marks import Repository
from dx_dagster.warehouse.schema import bitbucket as tables

# An approval or change request that is gone may be gone from the feed as well, and neither moves `updated_on` for sure:
# such a pull request's own activity is asked again. Where the repository's feed cannot be used or forgets, a new one is
# a reason, also one in the place of an equal one that was taken back.
_FLAG_CHANGED_OPINIONS = """
    INSERT INTO pull_marks (pull_id, repository_id, number, activity_stale)
    SELECT DISTINCT p.id, p.repository_id, p.source_id, true
    FROM {pulls} JOIN bitbucket_pulls p USING (id)
    LEFT JOIN sync_marks feed ON feed.repository_id = p.repository_id AND feed.kind = 'activity'
    JOIN (SELECT pull_id, o.state AS old_state, o.approved AS old_approved,
                 n.state AS new_state, n.approved AS new_approved,
                 o.participated_on AS old_date, n.participated_on AS new_date
          FROM (SELECT * FROM bitbucket_pull_participants WHERE pull_id = ANY(%(ids)s::uuid[])) o
          FULL JOIN (SELECT * FROM {participants}) n USING (pull_id, user_id)) opinion ON opinion.pull_id = p.id
    WHERE (old_approved AND new_approved IS NOT TRUE)
       OR (old_state IS NOT NULL AND new_state IS DISTINCT FROM old_state)
       OR ((feed.fallback IS NOT NULL OR p.created_at < feed.since)
           AND (new_state, new_approved, new_date)
               IS DISTINCT FROM (old_state, old_approved, old_date))
    ON CONFLICT (pull_id) DO UPDATE SET activity_stale = true"""

# An opinion that came after the last list is in this one, or was taken back in between.
_SETTLE_UNSEEN_OPINIONS = """
    UPDATE pull_marks m SET opinion_unseen = false, activity_stale = m.activity_stale OR EXISTS (
        SELECT FROM bitbucket_pull_activities a
        WHERE a.pull_id = m.pull_id AND a.kind IN ('approval', 'changes_requested') AND NOT EXISTS (
            SELECT FROM (SELECT * FROM {participants}) n
            WHERE n.pull_id = a.pull_id AND n.user_id = a.user_id
              AND CASE a.kind WHEN 'approval' THEN n.approved ELSE n.state = 'changes_requested' END))
    WHERE m.pull_id = ANY(%(ids)s::uuid[]) AND m.opinion_unseen"""

_DROP_ABSENT_PARTICIPANTS = """
    DELETE FROM bitbucket_pull_participants gone
    USING (SELECT incoming.* FROM {pulls} JOIN bitbucket_pulls stored USING (id) WHERE {pull_is_not_older}) p
    WHERE gone.pull_id = p.id AND {participant_is_not_older}
      AND NOT EXISTS (SELECT FROM (SELECT * FROM {participants}) n
                      WHERE n.pull_id = gone.pull_id AND n.user_id = gone.user_id)"""

# What is listed is there, whatever a 404 said before.
_RESTORE = """
    UPDATE bitbucket_pulls SET deleted_at = NULL WHERE id = ANY(%(ids)s::uuid[]) AND deleted_at IS NOT NULL"""

_OPINIONS = ("pull_id", "user_id", "state", "approved", "participated_on")


async def store(
    transaction: Transaction, pulls: pl.DataFrame, participants: pl.DataFrame, how: merge.Merge = merge.PULLS
) -> None:
    """Merges pull requests whose payload lists all their participants; who is no longer listed takes part no more."""
    if pulls.is_empty():
        return
    bound = {
        "pulls": merge.as_json(pulls.select("id", "updated_at", "synced_at")),
        "participants": merge.as_json(participants.select(_OPINIONS)),
        "ids": pulls["id"].to_list(),
    }
    rows = {
        "pulls": merge.recordset(tables.pulls, ("id", "updated_at", "synced_at"), "pulls"),
        "participants": merge.recordset(tables.pull_participants, _OPINIONS, "participants"),
    }
    await transaction.execute(_FLAG_CHANGED_OPINIONS.format(**rows), bound)
    await transaction.execute(_SETTLE_UNSEEN_OPINIONS.format(**rows), bound)
    await transaction.merge(how, pulls)
    await transaction.execute(_RESTORE, bound)
    rows |= {
        "pull_is_not_older": merge.is_not_older(how, "incoming", "stored"),
        "participant_is_not_older": merge.is_not_older(merge.PARTICIPANTS, "p", "gone"),
    }
    await transaction.execute(_DROP_ABSENT_PARTICIPANTS.format(**rows), bound)
    await transaction.merge(merge.PARTICIPANTS, participants)
    await review_times.derive(transaction, bound["ids"])


# One look into an index for each hash: LIKE with a pattern that comes from a table compares each with each, and a join
# may do so too, as long as the planner knows little of tables that were empty a minute ago.
_RESOLVE = """
    WITH whole AS MATERIALIZED (
        SELECT id, (SELECT c.sha FROM {commits}
                    WHERE c.sha {at_least} o.{column} AND c.sha {below} (o.{column} || 'g') AND {of_it} LIMIT 1) AS sha
        FROM {table} o WHERE o.repository_id = ANY(%(repositories)s::uuid[]) AND length(o.{column}) < 40)
    UPDATE {table} p SET {column} = whole.sha FROM whole WHERE p.id = whole.id AND whole.sha IS NOT NULL
    RETURNING p.id::text"""
_ON_BRANCH = {
    "commits": "bitbucket_repository_default_branch_commits c",
    "of_it": "c.repository_id = o.repository_id",
    "at_least": "~>=~",
    "below": "~<~",  # the order of its index
}
_OF_PULLS = {
    "commits": "bitbucket_pull_commits c",
    "of_it": "(SELECT k.repository_id FROM bitbucket_pulls k WHERE k.id = c.pull_id) = o.repository_id",
    "at_least": ">=",
    "below": "<",
}
_RESOLVE_MERGES = _RESOLVE.format(table="bitbucket_pulls", column="merge_commit_sha", **_ON_BRANCH)
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
    _RESOLVE.format(table="bitbucket_pipelines", column="commit_sha", **_ON_BRANCH),
    _RESOLVE.format(table="bitbucket_pipelines", column="commit_sha", **_OF_PULLS),
)
_RESOLVE_OTHERS = (
    _RESOLVE_SOURCES,
    _RESOLVE.format(table="bitbucket_pulls", column="source_commit_sha", **_ON_BRANCH),
    _RESOLVE_FAST_FORWARDS,
    *_RESOLVE_PIPELINES,
)


async def resolve_hashes(transaction: Transaction, repository_ids: Collection[str]) -> None:
    """Replaces the short hashes that pull requests and pipelines carry by those of commits that are stored."""
    if not repository_ids:
        return
    bound = {"repositories": list(repository_ids)}
    merged = await transaction.rows(_RESOLVE_MERGES, bound)
    for statement in _RESOLVE_OTHERS:
        await transaction.execute(statement, bound)
    await review_times.derive(transaction, [row.id for row in merged])


async def resolve_hashes_of_pipelines(transaction: Transaction, repository_ids: Collection[str]) -> None:
    """The same for pipelines alone."""
    for statement in _RESOLVE_PIPELINES if repository_ids else ():
        await transaction.execute(statement, {"repositories": list(repository_ids)})


async def with_short_hashes_of_pipelines(warehouse: Warehouse, workspace_id: str) -> set[str]:
    """Repositories whose pipelines carry short hashes: a killed import may not have looked for the whole ones."""
    rows = await warehouse.rows(
        """SELECT DISTINCT p.repository_id::text AS id
           FROM bitbucket_pipelines p JOIN bitbucket_repositories r ON r.id = p.repository_id
           WHERE r.workspace_id = %s AND length(p.commit_sha) < 40""",
        [workspace_id],
    )
    return {row.id for row in rows}


NO_PULLS = "0"
"""The fingerprint of a repository without pull requests."""


async def fingerprint(warehouse: Warehouse, repository_id: str) -> str:
    """What changes whenever the list of a repository's pull requests told something new."""
    row = await warehouse.row(
        """SELECT concat_ws(' ', count(*), max(updated_at), sum(comment_count), sum(task_count),
                            max(o.on), sum(o.opinions)) AS of_pulls
           FROM bitbucket_pulls p
           LEFT JOIN LATERAL (SELECT max(participated_on) AS on, count(state) + count(*) AS opinions
                              FROM bitbucket_pull_participants o WHERE o.pull_id = p.id) o ON true
           WHERE p.repository_id = %s""",
        [repository_id],
    )
    return str(row.of_pulls)


async def counts(warehouse: Warehouse, repository_ids: Collection[str]) -> dict[str, int]:
    """Pull requests of each of these repositories."""
    rows = await warehouse.rows(
        "SELECT repository_id::text AS id, count(*) AS pulls FROM bitbucket_pulls "
        "WHERE repository_id = ANY(%s::uuid[]) GROUP BY repository_id",
        [list(repository_ids)],
    )
    return {row.id: row.pulls for row in rows}


class Marked(Protocol):
    """A pull request whose marks are to move."""

    @property
    def id(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def repository(self) -> Repository: ...


Change = Literal["activity_synced_to", "comments_synced_to", "commits_synced_for", "hashes_resolved_for"]


async def set_marks(
    transaction: Transaction, change: Change, marks: Sequence[tuple[Marked, datetime | str | None]]
) -> None:
    """Moves one mark of some pull requests, which ends a refusal; asking for its activity settles why it was stale."""
    fresh = ", refused_since = NULL" + (", activity_stale = false" if change == "activity_synced_to" else "")
    kind = "timestamptz" if change.endswith("_to") else "text"
    await transaction.execute(
        f"""INSERT INTO pull_marks (pull_id, repository_id, number, {change})
            SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::{kind}[])
            ON CONFLICT (pull_id) DO UPDATE SET {change} = EXCLUDED.{change}{fresh}""",  # noqa: S608 - one of our marks
        [
            [pull.id for pull, _ in marks],
            [pull.repository.id for pull, _ in marks],
            [pull.number for pull, _ in marks],
            [value for _, value in marks],
        ],
    )


RESTS = f"""(
    m.refused_since IS NOT NULL AND m.refused_for IS NOT DISTINCT FROM p.updated_at
    AND {marks.rests("m.refused_at", "m.refused_since")})"""
"""Of a pull request `p` with its marks `m`, in SQL: it was refused, has not changed since, and is asked again later."""


async def refused(transaction: Transaction, pull: Marked, updated_at: datetime | None) -> None:
    """Notes that Bitbucket refused something of the pull request, so that it is asked again with pauses that grow."""
    await transaction.execute(
        """INSERT INTO pull_marks AS m (pull_id, repository_id, number, refused_since, refused_at, refused_for)
           VALUES (%s, %s, %s, now(), now(), %s)
           ON CONFLICT (pull_id) DO UPDATE SET refused_since = COALESCE(m.refused_since, EXCLUDED.refused_since),
               refused_at = EXCLUDED.refused_at, refused_for = EXCLUDED.refused_for""",
        [pull.id, pull.repository.id, pull.number, updated_at],
    )


async def mark_deleted(transaction: Transaction, repository_id: str, number: int) -> None:
    """Records that Bitbucket no longer has the pull request; what was only heard of and never stored is forgotten."""
    await transaction.execute(
        "UPDATE bitbucket_pulls SET deleted_at = now() "
        "WHERE repository_id = %s AND source_id = %s AND deleted_at IS NULL",
        [repository_id, number],
    )
    await _forget_unstored(transaction, repository_id, [number])


async def _forget_unstored(transaction: Transaction, repository_id: str, numbers: Collection[int]) -> None:
    """Forgets what a feed told of pull requests that are not stored."""
    for table in ("bitbucket_pull_activities", "bitbucket_pull_comments", "pull_marks"):
        await transaction.execute(
            f"DELETE FROM {table} WHERE pull_id IN (SELECT m.pull_id FROM pull_marks m "  # noqa: S608 - our own tables
            "WHERE m.repository_id = %s AND m.number = ANY(%s) "
            "AND NOT EXISTS (SELECT FROM bitbucket_pulls p WHERE p.id = m.pull_id))",
            [repository_id, list(numbers)],
        )


async def leave_out(transaction: Transaction, repository_id: str, numbers: Collection[int]) -> set[int]:
    """Of pull requests that lie before the bound, those that are not stored; what was heard of them is forgotten."""
    if not numbers:
        return set()
    rows = await transaction.rows(
        "SELECT source_id FROM bitbucket_pulls WHERE repository_id = %s AND source_id = ANY(%s)",
        [repository_id, list(numbers)],
    )
    unstored = set(numbers) - {row.source_id for row in rows}
    await _forget_unstored(transaction, repository_id, unstored)
    return unstored


_ALWAYS_LISTED = 90
"""Open pull requests of a repository that every sync lists, on two pages together with what changed."""


async def open_horizon(warehouse: Warehouse, repository_id: str, listed_at: datetime | None) -> datetime | None:
    """From which last change on open pull requests are listed; None for all of them.

    An opinion need not move `updated_on`, so open ones are listed again. Where there are many, those that nothing
    touches are listed with pauses that grow with their age.
    """
    row = await warehouse.row(
        f"""SELECT updated_at, {marks.rests("%(listed_at)s::timestamptz", "updated_at")} AS rests
            FROM bitbucket_pulls WHERE repository_id = %(repository)s AND state = 'OPEN' AND deleted_at IS NULL
            ORDER BY updated_at DESC NULLS LAST, source_id DESC OFFSET %(always)s LIMIT 1""",  # noqa: S608 - ours
        {"repository": repository_id, "listed_at": listed_at, "always": _ALWAYS_LISTED},
    )
    horizon: datetime | None = row.updated_at if row and row.rests else None
    return horizon


async def that_count_comments(transaction: Transaction, pull_ids: Collection[str]) -> set[str]:
    """Those of the pull requests that have comments, as Bitbucket counts them."""
    if not pull_ids:
        return set()
    rows = await transaction.rows(
        "SELECT id::text FROM bitbucket_pulls WHERE id = ANY(%s::uuid[]) AND comment_count > 0", [list(pull_ids)]
    )
    return {row.id for row in rows}


async def mark_other_comments_deleted(
    transaction: Transaction, pull_ids: Collection[str], kept: Collection[str]
) -> None:
    """After complete listings: comments of these pull requests that they do not hold were deleted, text and all."""
    await transaction.execute(
        "UPDATE bitbucket_pull_comments SET deleted = true, content = '' "
        "WHERE pull_id = ANY(%s::uuid[]) AND NOT deleted AND NOT id = ANY(%s::uuid[])",
        [list(pull_ids), list(kept)],
    )


async def mark_other_commits_deleted(
    transaction: Transaction, pull_ids: Collection[str], kept: Collection[str]
) -> None:
    """After complete listings: commits that these pull requests no longer hold were pushed away."""
    await transaction.execute(
        "UPDATE bitbucket_pull_commits SET deleted = true "
        "WHERE pull_id = ANY(%s::uuid[]) AND NOT deleted AND NOT id = ANY(%s::uuid[])",
        [list(pull_ids), list(kept)],
    )


class CommitsMarked(NamedTuple):
    """The stored commits of a pull request, and the version that they are complete for."""

    hashes: set[str]
    synced_for: str | None


async def commits_marked(transaction: Transaction, pull_ids: Collection[str]) -> dict[str, CommitsMarked]:
    rows = await transaction.rows(
        """SELECT wanted.id::text AS id, array_remove(array_agg(c.sha), NULL) AS hashes,
                  min(m.commits_synced_for) AS synced_for
           FROM unnest(%s::uuid[]) AS wanted (id)
           LEFT JOIN pull_marks m ON m.pull_id = wanted.id
           LEFT JOIN bitbucket_pull_commits c ON c.pull_id = wanted.id AND NOT c.deleted
           GROUP BY wanted.id""",
        [list(pull_ids)],
    )
    return {row.id: CommitsMarked(set(row.hashes), row.synced_for) for row in rows}


async def set_hashes(transaction: Transaction, whole: Collection[tuple[str, str]]) -> None:
    """Puts whole hashes in the place of their beginnings, for (id of a pull request, hash)."""
    bound = {"pulls": [pull_id for pull_id, _ in whole], "hashes": [sha for _, sha in whole]}
    for column in ("merge_commit_sha", "source_commit_sha"):
        await transaction.execute(
            f"""UPDATE bitbucket_pulls p SET {column} = w.sha
                FROM unnest(%(pulls)s::uuid[], %(hashes)s::text[]) AS w (id, sha)
                WHERE p.id = w.id AND length(p.{column}) < 40 AND w.sha LIKE p.{column} || '%%'""",  # noqa: S608 - our own columns
            bound,
        )


async def hashes(transaction: Transaction, pull_id: str) -> str:
    """The hashes that a pull request holds now."""
    row = await transaction.row(
        "SELECT concat_ws(' ', merge_commit_sha, source_commit_sha) AS hashes FROM bitbucket_pulls WHERE id = %s",
        [pull_id],
    )
    return str(row.hashes)


class Heads(NamedTuple):
    """Where a pull request's branches stand or stood; hashes of 12 characters or whole ones."""

    id: str
    state: str
    target_branch: str | None
    source: str | None
    target: str | None
    merge: str | None
    from_fork: bool | None
    closes_source: bool | None


async def heads(warehouse: Warehouse, pull_ids: Collection[str]) -> dict[str, Heads]:
    """By the pull requests' ids."""
    rows = await warehouse.rows(
        """SELECT id::text, state, target_branch, source_commit_sha, target_commit_sha, merge_commit_sha, from_fork,
                  close_source_branch
           FROM bitbucket_pulls WHERE id = ANY(%s::uuid[])""",
        [list(pull_ids)],
    )
    return {row.id: Heads(*row) for row in rows}
