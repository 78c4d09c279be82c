"""What happened to pull requests, from the feeds of their repositories.

Where a feed cannot be used, and for single pull requests about which it says too little, their own activity is asked
instead.
"""

from collections.abc import Sequence

from dx_dagster.bitbucket import BitbucketError, cursor, endpoints
from dx_dagster.frames import activities as frames
from dx_dagster.importer.activity.feed import KIND, Feeds, Heard, store_entries
from dx_dagster.importer.each_pull import PullRow, for_each_pull, pull_rows
from dx_dagster.importer.mending import mend
from dx_dagster.importer.pull_requests import record_access
from dx_dagster.importer.workspace import Progress, Report, Workspace, for_each_repository, require_id
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.budgets import headroom
from dx_dagster.warehouse.imported import feeds, marks, pulls, review_times
from dx_dagster.warehouse.imported.marks import Repository

_STORING = 8  # feeds that are being stored while others are asked
_ENTRIES_OF_ONE = 8  # of a pull request, for a guess at how long a feed is


async def import_activity(workspace: Workspace) -> Report:
    """Stores new entries of every repository's feed, the comments in them, and the times that follow from them."""
    report = Report(KIND)
    workspace_id = require_id(workspace)
    if workspace.full:
        await marks.forget(workspace.warehouse, workspace_id, KIND)
    repositories = await marks.repositories(workspace.warehouse, workspace_id, KIND)
    readable = await _in_order(workspace, [repository for repository in repositories if repository.accessible])

    async def closed(repository: Repository, error: BitbucketError) -> None:
        await record_access(workspace, repository, str(error))

    # A feed is asked page after page, so with many at once the longest would wait for all the others.
    at_once = workspace.client.max_in_flight + _STORING
    await for_each_repository(
        workspace, report, readable, Feeds(workspace, report).read, refused=closed, at_once=at_once
    )
    stale = await pull_rows(workspace, STALE, _REASON)
    endless = [row for row in stale if row.version == _ENDLESS]
    progress = Progress(workspace, report, len(stale))
    await _import_each(workspace, report, [row for row in stale if row.version != _ENDLESS], progress)
    await _import_each(workspace, report, endless[:_TRIED], progress)
    if await _gained_an_end(workspace, endless[:_TRIED]):
        await _import_each(workspace, report, endless[_TRIED:], progress)
    else:
        await _believe_the_feed(workspace, endless[_TRIED:])
        progress.add(len(endless[_TRIED:]))
    await mend(workspace)
    return report


async def _import_each(workspace: Workspace, report: Report, rows: Sequence[PullRow], progress: Progress) -> None:
    await for_each_pull(workspace, report, rows, lambda row: import_one(workspace, row), progress)


async def _gained_an_end(workspace: Workspace, rows: Sequence[PullRow]) -> bool:
    """Whether the own activity of one of these tells what the feed did not: when it was closed."""
    found = await workspace.warehouse.row(
        f"SELECT EXISTS (SELECT FROM bitbucket_pulls p WHERE p.id = ANY(%s::uuid[]) AND NOT {_UNTOLD_END}) AS told",  # noqa: S608
        [[row.id for row in rows]],
    )
    return bool(found.told)


async def _believe_the_feed(workspace: Workspace, rows: Sequence[PullRow]) -> None:
    """A merge by push leaves no entry anywhere: those are not asked until they change."""
    async with workspace.warehouse.transaction() as transaction:
        await pulls.set_marks(transaction, "activity_synced_to", [(row, row.updated_at) for row in rows])


async def _in_order(workspace: Workspace, repositories: list[Repository]) -> list[Repository]:
    """The longest feeds first, for one begun last is waited for; where requests are few, what changed last."""
    new = [one.id for one in repositories if one.mark.synced_to is None]
    if not new:
        return repositories
    sizes = await pulls.counts(workspace.warehouse, new)
    needed = sum(1 + size * _ENTRIES_OF_ONE // endpoints.SMALL_PAGE for size in sizes.values())
    if await _requests_left(workspace) < needed:
        return repositories
    return sorted(repositories, key=lambda one: sizes.get(one.id, 0), reverse=True)


async def _requests_left(workspace: Workspace) -> int:
    pool = workspace.client.pool
    ours = {credential.budget for credential in pool.usable}
    budgets = await headroom(workspace.warehouse, pool.ledger.window)
    return sum(one.left for name, one in budgets.items() if name in ours)


_UNTOLD_END = f"""(p.state <> 'OPEN' AND NOT EXISTS (
            SELECT FROM bitbucket_pull_activities a
            WHERE a.pull_id = p.id AND a.kind = 'update' AND {review_times.CLOSES}))"""
_SYNCED_TO_IS_WRONG = merge.lies_in_the_future("feed.synced_to")

# Pull requests whose own activity must be asked: an opinion went away; the feed cannot be used and did not tell before
# what changed since, or it began after the pull request did (--since, or it is a short one); it is closed, approved or
# has changes requested, and the feed does not say when.
STALE = f"""
    m.activity_stale OR (m.activity_synced_to IS DISTINCT FROM p.updated_at AND (
        EXISTS (SELECT FROM sync_marks feed
                WHERE feed.repository_id = p.repository_id AND feed.kind = 'activity'
                  AND ((feed.fallback IS NOT NULL AND (feed.synced_to IS NULL OR {_SYNCED_TO_IS_WRONG}
                                                       OR p.updated_at >= feed.synced_to - interval '5 minutes'))
                       OR (COALESCE(m.activity_synced_to < feed.since, true) AND {feeds.BEGINNING_UNTOLD})))
     OR {_UNTOLD_END}
     OR {feeds.UNTOLD_OPINION}))"""

_ENDLESS = "endless"
_TRIED = 2
# What is closed, and a feed that tells all the rest of it does not say when.
_REASON = f"""CASE WHEN m.activity_stale IS NOT TRUE AND {_UNTOLD_END} AND NOT {feeds.UNTOLD_OPINION} AND EXISTS (
        SELECT FROM sync_marks feed
        WHERE feed.repository_id = p.repository_id AND feed.kind = 'activity' AND feed.fallback IS NULL
          AND feed.synced_to IS NOT NULL AND NOT {_SYNCED_TO_IS_WRONG} AND NOT {feeds.BEGINNING_UNTOLD})
    THEN '{_ENDLESS}' ELSE '' END"""


async def import_one(workspace: Workspace, row: PullRow) -> None:
    """Asks one pull request for its whole activity, which replaces what was stored."""
    endpoint = endpoints.pull_request_activity(workspace.slug, row.repository.source_id, row.number)
    pages = [page async for page in cursor(workspace.client, endpoint)]
    entries = [entry for page in pages for entry in frames.entries(page.values)]
    async with workspace.warehouse.transaction() as transaction:
        [kept] = await store_entries(transaction, workspace, [Heard(row.repository, entries, pages[0].asked_at)])
        if kept:  # a pull request has its opening at least: an empty list says nothing
            await feeds.drop_other_activities(transaction, row.id, kept)
        await review_times.derive(transaction, [row.id])
        await pulls.set_marks(transaction, "activity_synced_to", [(row, row.updated_at)])
