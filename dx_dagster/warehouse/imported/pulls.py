"""Pull requests with their participants, and the marks that say how far each is imported."""

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from psycopg.sql import SQL, Identifier

from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.imported import marks, review_times
from dx_dagster.warehouse.imported.marks import Repository
from dx_dagster.warehouse.schema import bitbucket as tables

if TYPE_CHECKING:
    import polars as pl

_VERSION = ("id", "updated_at", "synced_at")
_OPINION = ("pull_id", "user_id", "state", "approved", "participated_on")
_PULLS = merge.recordset(tables.pulls, _VERSION, "pulls")
_PARTICIPANTS = merge.recordset(tables.pull_participants, _OPINION, "participants")

# A withdrawn approval or change request may be gone from the feed as well, and may leave `updated_on` as it is: the
# pull request's own activity is stale then. Where the repository's feed cannot be used or forgets entries, so is one
# with a new opinion, even if that replaces an equal one.
_FLAG_CHANGED_OPINIONS = SQL("""
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
    ON CONFLICT (pull_id) DO UPDATE SET activity_stale = true""").format(pulls=_PULLS, participants=_PARTICIPANTS)

# An opinion that is newer than the last list is in this one, or was withdrawn in between.
_SETTLE_UNSEEN_OPINIONS = SQL("""
    UPDATE pull_marks m SET opinion_unseen = false, activity_stale = m.activity_stale OR EXISTS (
        SELECT FROM bitbucket_pull_activities a
        WHERE a.pull_id = m.pull_id AND a.kind IN ('approval', 'changes_requested') AND NOT EXISTS (
            SELECT FROM (SELECT * FROM {participants}) n
            WHERE n.pull_id = a.pull_id AND n.user_id = a.user_id
              AND CASE a.kind WHEN 'approval' THEN n.approved ELSE n.state = 'changes_requested' END))
    WHERE m.pull_id = ANY(%(ids)s::uuid[]) AND m.opinion_unseen""").format(participants=_PARTICIPANTS)

_DROP_ABSENT_PARTICIPANTS = SQL("""
    DELETE FROM bitbucket_pull_participants gone
    USING (SELECT incoming.* FROM {pulls} JOIN bitbucket_pulls stored USING (id) WHERE {pull_is_not_older}) p
    WHERE gone.pull_id = p.id AND {participant_is_not_older}
      AND NOT EXISTS (SELECT FROM (SELECT * FROM {participants}) n
                      WHERE n.pull_id = gone.pull_id AND n.user_id = gone.user_id)""")

# A pull request that is listed exists, whatever a 404 said before.
_RESTORE = """
    UPDATE bitbucket_pulls SET deleted_at = NULL WHERE id = ANY(%(ids)s::uuid[]) AND deleted_at IS NOT NULL"""


async def store(
    transaction: Transaction, pulls: "pl.DataFrame", participants: "pl.DataFrame", how: merge.Merge = merge.PULLS
) -> None:
    """Merges pull requests with all their participants. A participant who is no longer listed is deleted."""
    if pulls.is_empty():
        return
    bound = {
        "pulls": merge.as_json(pulls.select(_VERSION)),
        "participants": merge.as_json(participants.select(_OPINION)),
        "ids": pulls["id"].to_list(),
    }
    # Both compare the payload with the stored participants: before these change.
    await transaction.execute(_FLAG_CHANGED_OPINIONS, bound)
    await transaction.execute(_SETTLE_UNSEEN_OPINIONS, bound)
    await transaction.merge(how, pulls)
    await transaction.execute(_RESTORE, bound)
    await transaction.execute(_drop_absent_participants(how), bound)
    await transaction.merge(merge.PARTICIPANTS, participants)
    await review_times.derive(transaction, bound["ids"])


@cache
def _drop_absent_participants(how: merge.Merge) -> str:
    statement = _DROP_ABSENT_PARTICIPANTS.format(
        pulls=_PULLS,
        participants=_PARTICIPANTS,
        pull_is_not_older=merge.is_not_older(how, "incoming", "stored"),
        participant_is_not_older=merge.is_not_older(merge.PARTICIPANTS, "p", "gone"),
    )
    return statement.as_string()


NO_PULLS = "0"
"""The fingerprint of a repository without pull requests."""


async def fingerprint(warehouse: Warehouse, repository_id: str) -> str:
    """A text that changes whenever the list of a repository's pull requests brings something new."""
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
    """Number of pull requests in each of these repositories."""
    rows = await warehouse.rows(
        "SELECT repository_id::text AS id, count(*) AS pulls FROM bitbucket_pulls "
        "WHERE repository_id = ANY(%s::uuid[]) GROUP BY repository_id",
        [list(repository_ids)],
    )
    return {row.id: row.pulls for row in rows}


async def updated(warehouse: Warehouse, repository_id: str, numbers: Collection[int]) -> dict[int, datetime | None]:
    """When each stored pull request with one of these numbers last changed."""
    rows = await warehouse.rows(
        "SELECT source_id, updated_at FROM bitbucket_pulls WHERE repository_id = %s AND source_id = ANY(%s)",
        [repository_id, list(numbers)],
    )
    return {row.source_id: row.updated_at for row in rows}


class PullToMark(Protocol):
    """A pull request whose marks are updated."""

    @property
    def id(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def repository(self) -> Repository: ...


_SET_MARK = SQL("""
    INSERT INTO pull_marks (pull_id, repository_id, number, {change})
    SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::{type}[])
    ON CONFLICT (pull_id) DO UPDATE SET {change} = EXCLUDED.{change}, refused_since = NULL{settled}""")


@cache
def _set_mark(change: str) -> str:
    statement = _SET_MARK.format(
        change=Identifier(change),
        type=SQL("timestamptz") if change.endswith("_to") else SQL("text"),
        settled=SQL(", activity_stale = false") if change == "activity_synced_to" else SQL(""),
    )
    return statement.as_string()


Change = Literal["activity_synced_to", "comments_synced_to", "commits_synced_for", "hashes_resolved_for"]


async def set_marks(
    transaction: Transaction, change: Change, marks: Sequence[tuple[PullToMark, datetime | str | None]]
) -> None:
    """Sets one mark of some pull requests, and ends a pause after a refusal."""
    await transaction.execute(
        _set_mark(change),
        [
            [pull.id for pull, _ in marks],
            [pull.repository.id for pull, _ in marks],
            [pull.number for pull, _ in marks],
            [value for _, value in marks],
        ],
    )


async def refused(transaction: Transaction, pull: PullToMark, updated_at: datetime | None) -> None:
    """Records that Bitbucket refused a request about the pull request: it is asked again, with pauses that grow."""
    await transaction.execute(
        """INSERT INTO pull_marks AS m (pull_id, repository_id, number, refused_since, refused_at, refused_for)
           VALUES (%s, %s, %s, now(), now(), %s)
           ON CONFLICT (pull_id) DO UPDATE SET refused_since = COALESCE(m.refused_since, EXCLUDED.refused_since),
               refused_at = EXCLUDED.refused_at, refused_for = EXCLUDED.refused_for""",
        [pull.id, pull.repository.id, pull.number, updated_at],
    )


async def mark_deleted(transaction: Transaction, repository_id: str, number: int) -> None:
    """Records that Bitbucket no longer has the pull request. Where it has no row, its marks and entries are deleted."""
    await transaction.execute(
        "UPDATE bitbucket_pulls SET deleted_at = now() "
        "WHERE repository_id = %s AND source_id = %s AND deleted_at IS NULL",
        [repository_id, number],
    )
    await _forget_unstored(transaction, repository_id, [number])


async def _forget_unstored(transaction: Transaction, repository_id: str, numbers: Collection[int]) -> None:
    """Deletes marks, entries and comments of pull requests that have no row: a feed named them."""
    # The marks come last: they tell which rows of the other tables these are.
    for table in ("bitbucket_pull_activities", "bitbucket_pull_comments", "pull_marks"):
        await transaction.execute(
            SQL("""
                DELETE FROM {table} WHERE pull_id IN (
                    SELECT m.pull_id FROM pull_marks m
                    WHERE m.repository_id = %s AND m.number = ANY(%s)
                      AND NOT EXISTS (SELECT FROM bitbucket_pulls p WHERE p.id = m.pull_id))""").format(
                table=Identifier(table)
            ),
            [repository_id, list(numbers)],
        )


async def leave_out(transaction: Transaction, repository_id: str, numbers: Collection[int]) -> set[int]:
    """Returns which of these pull requests, older than the bound, have no row. Their marks and entries are deleted."""
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
"""Open pull requests of a repository that every sync lists: two pages, together with what changed."""


_OPEN_HORIZON = SQL("""
    SELECT updated_at, {rests} AS rests
    FROM bitbucket_pulls WHERE repository_id = %(repository)s AND state = 'OPEN' AND deleted_at IS NULL
    ORDER BY updated_at DESC NULLS LAST, source_id DESC OFFSET %(always)s LIMIT 1""").format(
    rests=marks.rests("%(listed_at)s::timestamptz", "updated_at")
)


async def open_horizon(warehouse: Warehouse, repository_id: str, listed_at: datetime | None) -> datetime | None:
    """Open pull requests are listed again if they changed since this time; None for all of them.

    An opinion may leave `updated_on` as it is, so open pull requests are listed by every sync. Where there are many,
    unchanged ones are listed with pauses that grow with their age.
    """
    row = await warehouse.row(
        _OPEN_HORIZON,
        {"repository": repository_id, "listed_at": listed_at, "always": _ALWAYS_LISTED},
    )
    horizon: datetime | None = row.updated_at if row and row.rests else None
    return horizon


async def that_count_comments(transaction: Transaction, pull_ids: Collection[str]) -> set[str]:
    """Which of these pull requests have comments, by Bitbucket's own count."""
    if not pull_ids:
        return set()
    rows = await transaction.rows(
        "SELECT id::text FROM bitbucket_pulls WHERE id = ANY(%s::uuid[]) AND comment_count > 0", [list(pull_ids)]
    )
    return {row.id for row in rows}


async def mark_other_comments_deleted(
    transaction: Transaction, pull_ids: Collection[str], kept: Collection[str]
) -> None:
    """Marks comments of these pull requests as deleted, and clears their text, where complete listings lack them."""
    await transaction.execute(
        "UPDATE bitbucket_pull_comments SET deleted = true, content = '' "
        "WHERE pull_id = ANY(%s::uuid[]) AND NOT deleted AND NOT id = ANY(%s::uuid[])",
        [list(pull_ids), list(kept)],
    )


async def mark_other_commits_deleted(
    transaction: Transaction, pull_ids: Collection[str], kept: Collection[str]
) -> None:
    """Marks commits of these pull requests as deleted where complete listings lack them, after a force push."""
    await transaction.execute(
        "UPDATE bitbucket_pull_commits SET deleted = true "
        "WHERE pull_id = ANY(%s::uuid[]) AND NOT deleted AND NOT id = ANY(%s::uuid[])",
        [list(pull_ids), list(kept)],
    )


class CommitsMarked(NamedTuple):
    """The stored commits of a pull request, and the version for which they are complete."""

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


class Heads(NamedTuple):
    """The branches of a pull request; hashes are whole or have 12 characters."""

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
    rows = await warehouse.fetch(
        Heads,
        """SELECT id::text, state, target_branch, source_commit_sha AS source, target_commit_sha AS target,
                  merge_commit_sha AS merge, from_fork, close_source_branch AS closes_source
           FROM bitbucket_pulls WHERE id = ANY(%s::uuid[])""",
        [list(pull_ids)],
    )
    return {row.id: row for row in rows}
