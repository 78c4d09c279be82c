"""What the feeds of repositories told of pull requests, and which of these must be asked themselves all the same."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

import polars as pl

from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.schema import bitbucket as tables

UNTOLD_OPINION = """EXISTS (
            SELECT FROM bitbucket_pull_participants o
            WHERE o.pull_id = p.id AND (o.approved OR o.state = 'changes_requested') AND NOT EXISTS (
                SELECT FROM bitbucket_pull_activities a
                WHERE a.pull_id = p.id AND a.user_id = o.user_id
                  AND a.kind = CASE WHEN o.approved THEN 'approval' ELSE 'changes_requested' END))"""
"""Of a pull request `p`: whether somebody approves it or requests changes, and no stored entry says when."""

# A feed that holds the beginning of a pull request holds the rest. Its first entry is not made in the same moment.
BEGINNING_UNTOLD = """(
            p.created_at < feed.since AND NOT EXISTS (
                SELECT FROM bitbucket_pull_activities a
                WHERE a.pull_id = p.id AND a.kind = 'update' AND a.created_at >= feed.since
                  AND a.created_at < p.created_at + interval '1 minute'))"""
"""Of a pull request `p`: whether it is older than what `feed` (of sync_marks) tells."""


class Told(NamedTuple):
    """A pull request that an entry of a feed names; `known` says that older entries are stored already."""

    repository_id: str
    number: int
    known: bool


async def remember(transaction: Transaction, told_of: Mapping[str, Told]) -> None:
    """Gives marks to pull requests (by id) that are heard of and not stored, so that a killed import still fetches
    them; to all of them where the feed was read before.
    """
    await transaction.execute(
        """INSERT INTO pull_marks (pull_id, repository_id, number, opinion_unseen)
           SELECT heard.id, heard.repository, heard.number, p.id IS NULL
           FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::bool[]) AS heard (id, repository, number, known)
           LEFT JOIN bitbucket_pulls p USING (id)
           WHERE heard.known OR p.id IS NULL
           ON CONFLICT DO NOTHING""",
        [list(told_of), *([getattr(one, name) for one in told_of.values()] for name in Told._fields)],
    )


# Who approves for the second time has taken the first approval back, and it may have left the feed.
_FLAG_REPEATED_OPINIONS = """
    UPDATE pull_marks SET activity_stale = true
    WHERE pull_id IN (
        SELECT before.pull_id FROM {rows}
        JOIN bitbucket_pull_activities before USING (pull_id, user_id, kind)
        WHERE before.created_at < incoming.created_at
          AND NOT EXISTS (SELECT FROM bitbucket_pull_activities stored WHERE stored.id = incoming.id))"""

# What was said before something that the list showed had been taken back where the list did not show it.
_FLAG_UNSEEN_OPINIONS = f"""
    INSERT INTO pull_marks (pull_id, repository_id, number, opinion_unseen)
    SELECT DISTINCT p.id, p.repository_id, p.source_id, true
    FROM {{rows}} JOIN bitbucket_pulls p ON p.id = incoming.pull_id
    LEFT JOIN bitbucket_pull_participants o ON o.pull_id = incoming.pull_id AND o.user_id = incoming.user_id
    WHERE CASE incoming.kind WHEN 'approval' THEN o.approved ELSE o.state = 'changes_requested' END IS NOT TRUE
      AND NOT EXISTS (SELECT FROM bitbucket_pull_activities stored WHERE stored.id = incoming.id)
      AND NOT EXISTS (SELECT FROM bitbucket_pulls listed
                      WHERE listed.repository_id = p.repository_id AND listed.synced_at <= {merge.asked_at("p")}
                        AND listed.updated_at >= incoming.created_at)
    ON CONFLICT (pull_id) DO UPDATE SET opinion_unseen = true"""  # noqa: S608
_OPINION = ("id", "pull_id", "user_id", "kind", "created_at")


async def flag_opinions(transaction: Transaction, activities: pl.DataFrame, *, known: bool) -> None:
    """Before entries of a feed are merged: marks pull requests with an opinion that the feed may forget unnoticed.

    `known` says that older entries are stored already.
    """
    opinions = activities.filter(pl.col("kind").is_in(["approval", "changes_requested"])).select(_OPINION)
    if opinions.is_empty():
        return
    rows, bound = merge.recordset(tables.pull_activities, _OPINION), {"rows": merge.as_json(opinions)}
    if known:
        await transaction.execute(_FLAG_REPEATED_OPINIONS.format(rows=rows), bound)
    await transaction.execute(_FLAG_UNSEEN_OPINIONS.format(rows=rows), bound)


async def has_activities(warehouse: Warehouse, repository_id: str, before: datetime | None = None) -> bool:
    """Whether any entry of the repository's feed is stored that is older than `before`; None for any at all."""
    row = await warehouse.row(
        "SELECT EXISTS (SELECT FROM bitbucket_pull_activities a JOIN bitbucket_pulls p ON p.id = a.pull_id "
        "WHERE p.repository_id = %s AND p.deleted_at IS NULL "
        "AND a.created_at < COALESCE(%s::timestamptz, 'infinity')) AS found",
        [repository_id, before],
    )
    return bool(row.found)


async def flag_unseen_activities(
    transaction: Transaction, repository_id: str, seen: Collection[str], oldest: datetime | None
) -> None:
    """After a walk through a repository's whole feed, down to `oldest`: where it did not hold a stored entry, the pull
    request's own activity must be asked. What is older than the feed's end is no news, unless its date is absurd.

    Without `oldest`, after a walk through the newest entries: where it did not hold one that is dated in the future.
    """
    absurd = (merge.lies_in_the_future if oldest is None else merge.is_absurd)("a.created_at")
    await transaction.execute(
        f"""UPDATE pull_marks SET activity_stale = true WHERE pull_id IN (
               SELECT a.pull_id FROM bitbucket_pull_activities a JOIN bitbucket_pulls p ON p.id = a.pull_id
               WHERE p.repository_id = %s AND p.deleted_at IS NULL
                 AND (a.created_at >= %s OR {absurd}) AND NOT a.id = ANY(%s::uuid[]))""",  # noqa: S608
        [repository_id, oldest, list(seen)],
    )


async def drop_other_activities(transaction: Transaction, pull_id: str, kept: Collection[str]) -> None:
    """After a complete listing: entries that it does not hold are gone."""
    await transaction.execute(
        "DELETE FROM bitbucket_pull_activities WHERE pull_id = %s AND NOT id = ANY(%s::uuid[])", [pull_id, list(kept)]
    )


async def flag_forgotten(transaction: Transaction, repository_id: str, known_to: datetime) -> None:
    """Before the mark of a walk that ended before `known_to`, up to which the feed was known: what changed since then
    must be asked. Where nothing did and the feed told all, the pull request's own mark says so from now on.
    """
    await transaction.execute(
        f"""INSERT INTO pull_marks (pull_id, repository_id, number, activity_synced_to, activity_stale)
            SELECT p.id, p.repository_id, p.source_id,
                   CASE WHEN p.updated_at < %(known_to)s AND NOT {BEGINNING_UNTOLD} THEN p.updated_at END,
                   p.updated_at >= %(known_to)s OR {UNTOLD_OPINION}
            FROM bitbucket_pulls p
            JOIN sync_marks feed ON feed.repository_id = p.repository_id AND feed.kind = 'activity'
            WHERE p.repository_id = %(repository)s
            ON CONFLICT (pull_id) DO UPDATE SET
                activity_synced_to = COALESCE(pull_marks.activity_synced_to, EXCLUDED.activity_synced_to),
                activity_stale = pull_marks.activity_stale OR EXCLUDED.activity_stale""",  # noqa: S608 - expressions of ours
        {"repository": repository_id, "known_to": known_to},
    )
