"""Activity feeds of repositories: which pull requests they name, and when their silence makes one stale."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from psycopg.sql import SQL

from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.imported.stale import BEGINNING_UNTOLD, UNTOLD_OPINION
from dx_dagster.warehouse.schema import bitbucket as tables

if TYPE_CHECKING:
    import polars as pl


class Told(NamedTuple):
    """A pull request that an entry of a feed names; `known` where older entries of the feed are stored already."""

    repository_id: str
    number: int
    known: bool


async def remember(transaction: Transaction, told_of: Mapping[str, Told]) -> None:
    """Gives marks to pull requests (by id) that have no row yet, so that a killed import still fetches them.

    Where the feed was read before, each of the pull requests gets marks.
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


_OPINION = ("id", "pull_id", "user_id", "kind", "created_at")
_OPINIONS = merge.recordset(tables.pull_activities, _OPINION)

# A second approval by the same user means that the first was withdrawn, and it may have left the feed.
_FLAG_REPEATED_OPINIONS = SQL("""
    UPDATE pull_marks SET activity_stale = true
    WHERE pull_id IN (
        SELECT before.pull_id FROM {opinions}
        JOIN bitbucket_pull_activities before USING (pull_id, user_id, kind)
        WHERE before.created_at < incoming.created_at
          AND NOT EXISTS (SELECT FROM bitbucket_pull_activities stored WHERE stored.id = incoming.id))""").format(
    opinions=_OPINIONS
)

# An opinion older than something that the list showed was withdrawn by then if the list did not show the opinion.
_FLAG_UNSEEN_OPINIONS = SQL("""
    INSERT INTO pull_marks (pull_id, repository_id, number, opinion_unseen)
    SELECT DISTINCT p.id, p.repository_id, p.source_id, true
    FROM {opinions} JOIN bitbucket_pulls p ON p.id = incoming.pull_id
    LEFT JOIN bitbucket_pull_participants o ON o.pull_id = incoming.pull_id AND o.user_id = incoming.user_id
    WHERE CASE incoming.kind WHEN 'approval' THEN o.approved ELSE o.state = 'changes_requested' END IS NOT TRUE
      AND NOT EXISTS (SELECT FROM bitbucket_pull_activities stored WHERE stored.id = incoming.id)
      AND NOT EXISTS (SELECT FROM bitbucket_pulls listed
                      WHERE listed.repository_id = p.repository_id AND listed.synced_at <= {asked_at}
                        AND listed.updated_at >= incoming.created_at)
    ON CONFLICT (pull_id) DO UPDATE SET opinion_unseen = true""").format(
    opinions=_OPINIONS, asked_at=merge.asked_at("p")
)


async def flag_opinions(transaction: Transaction, activities: "pl.DataFrame", *, known: bool) -> None:
    """Flags pull requests with an opinion that the feed may forget unnoticed. Call it before the entries are merged.

    `known`: older entries of the feed are stored already.
    """
    import polars as pl  # noqa: PLC0415 - a sync loads it with its first rows

    opinions = activities.filter(pl.col("kind").is_in(["approval", "changes_requested"])).select(_OPINION)
    if opinions.is_empty():
        return
    bound = {"rows": merge.as_json(opinions)}
    if known:
        await transaction.execute(_FLAG_REPEATED_OPINIONS, bound)
    await transaction.execute(_FLAG_UNSEEN_OPINIONS, bound)


async def has_activities(warehouse: Warehouse, repository_id: str, before: datetime | None = None) -> bool:
    """Whether an entry of the repository's feed older than `before` is stored; None for any entry."""
    row = await warehouse.row(
        "SELECT EXISTS (SELECT FROM bitbucket_pull_activities a JOIN bitbucket_pulls p ON p.id = a.pull_id "
        "WHERE p.repository_id = %s AND p.deleted_at IS NULL "
        "AND a.created_at < COALESCE(%s::timestamptz, 'infinity')) AS found",
        [repository_id, before],
    )
    return bool(row.found)


_FLAG_UNSEEN_ACTIVITIES = SQL("""
    UPDATE pull_marks SET activity_stale = true WHERE pull_id IN (
        SELECT a.pull_id FROM bitbucket_pull_activities a JOIN bitbucket_pulls p ON p.id = a.pull_id
        WHERE p.repository_id = %s AND p.deleted_at IS NULL
          AND (a.created_at >= %s OR {is_absurd}) AND NOT a.id = ANY(%s::uuid[]))""")


async def flag_unseen_activities(
    transaction: Transaction, repository_id: str, seen: Collection[str], oldest: datetime | None
) -> None:
    """Flags the pull requests of stored entries that a walk through the feed should have `seen`, and has not.

    `oldest`: date of the last entry of a walk through the whole feed. It should have seen every later entry, and those
    with an absurd date. None after a walk through the newest entries: it should have seen those dated in the future.
    """
    is_absurd = (merge.lies_in_the_future if oldest is None else merge.is_absurd)("a.created_at")
    await transaction.execute(_FLAG_UNSEEN_ACTIVITIES.format(is_absurd=is_absurd), [repository_id, oldest, list(seen)])


async def drop_other_activities(transaction: Transaction, pull_id: str, kept: Collection[str]) -> None:
    """Deletes the entries of a pull request that a complete listing does not hold."""
    await transaction.execute(
        "DELETE FROM bitbucket_pull_activities WHERE pull_id = %s AND NOT id = ANY(%s::uuid[])", [pull_id, list(kept)]
    )


_FLAG_FORGOTTEN = SQL("""
    INSERT INTO pull_marks (pull_id, repository_id, number, activity_synced_to, activity_stale)
    SELECT p.id, p.repository_id, p.source_id,
           CASE WHEN p.updated_at < %(known_to)s AND NOT {beginning_untold} THEN p.updated_at END,
           p.updated_at >= %(known_to)s OR {untold_opinion}
    FROM bitbucket_pulls p
    JOIN sync_marks feed ON feed.repository_id = p.repository_id AND feed.kind = 'activity'
    WHERE p.repository_id = %(repository)s
    ON CONFLICT (pull_id) DO UPDATE SET
        activity_synced_to = COALESCE(pull_marks.activity_synced_to, EXCLUDED.activity_synced_to),
        activity_stale = pull_marks.activity_stale OR EXCLUDED.activity_stale""").format(
    beginning_untold=BEGINNING_UNTOLD, untold_opinion=UNTOLD_OPINION
)


async def flag_forgotten(transaction: Transaction, repository_id: str, known_to: datetime) -> None:
    """Flags what changed since `known_to`, where the feed ends later than that: it has forgotten entries.

    A pull request that has not changed since, and that the feed told completely, gets a mark of its own instead. Call
    it before the walk's mark is stored: this reads the mark before it.
    """
    await transaction.execute(_FLAG_FORGOTTEN, {"repository": repository_id, "known_to": known_to})
