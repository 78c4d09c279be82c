"""Imports the activity of pull requests from the feeds of their repositories.

Where a feed cannot be used or says too little about a pull request, the pull request's own activity is fetched.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from dx_dagster.bitbucket import BitbucketError, PagingInCircles, cursor, endpoints
from dx_dagster.frames import activities as frames
from dx_dagster.importer.activity.feed import KIND, Feeds, NewEntries, store_entries
from dx_dagster.importer.affordable import affordable, requests_left
from dx_dagster.importer.each import for_each_repository
from dx_dagster.importer.each_pull import PullRow, for_each_pull, pull_rows
from dx_dagster.importer.mending import mend
from dx_dagster.importer.pull_requests import record_access
from dx_dagster.importer.report import Progress, Report
from dx_dagster.importer.workspace import Workspace, require_id
from dx_dagster.warehouse.imported import feeds, marks, pulls, review_times, stale
from dx_dagster.warehouse.imported.marks import ActivityMark, MarkedRepository, Repository

RepositoryToRead = MarkedRepository[ActivityMark]
_STORING = 8  # feeds being stored while others are requested
_TRIED = 2  # pull requests fetched to find out whether their own activity has the end that the feed lacks
_ENTRIES_OF_ONE = 8  # of a pull request, to estimate the length of a feed


async def import_activity(workspace: Workspace) -> Report:
    """Stores new entries of every repository's feed, the comments in them, and the review times derived from them."""
    report = Report(KIND)
    workspace_id = require_id(workspace)
    if workspace.full:
        await marks.forget(workspace.warehouse, workspace_id, ActivityMark)
    repositories = await marks.with_marks(workspace.warehouse, workspace_id, ActivityMark)
    readable = await _in_order(workspace, [repository for repository in repositories if repository.accessible])

    async def closed(repository: Repository, error: BitbucketError) -> None:
        await record_access(workspace, repository, str(error))

    due = await _due(workspace, report)
    # A feed is read page after page: with many at once, the longest one would wait for all the others.
    at_once = workspace.client.max_in_flight + _STORING
    with workspace.unstored() as limit:
        feeds_of = Feeds(workspace, report, limit, due)
        await for_each_repository(workspace, report, readable, feeds_of.read, refused=closed, at_once=at_once)
    rows = await pull_rows(workspace, stale.pulls_without_activity)
    endless = [row for row in rows if row.version == stale.ONLY_END_UNTOLD]
    progress = Progress(workspace, report, len(rows))
    await _import_each(workspace, report, [row for row in rows if row.version != stale.ONLY_END_UNTOLD], progress)
    await _import_each(workspace, report, endless[:_TRIED], progress)
    if await stale.an_end_is_told(workspace.warehouse, [row.id for row in endless[:_TRIED]]):
        await _import_each(workspace, report, endless[_TRIED:], progress)
    else:
        await _believe_the_feed(workspace, endless[_TRIED:])
        progress.add(len(endless[_TRIED:]))
    await mend(workspace)
    return report


async def _due(workspace: Workspace, report: Report) -> set[str] | None:
    """In a scheduled sync, ids of the repositories whose feed is read although the list shows no change there."""
    if workspace.pace is None:
        return None
    daily = replace(workspace.pace, least=timedelta(days=1))
    repositories = await marks.with_marks(workspace.warehouse, workspace.id, ActivityMark, daily)
    return {one.id for one in await affordable(workspace, report, repositories, 3)}


async def _import_each(workspace: Workspace, report: Report, rows: Sequence[PullRow], progress: Progress) -> None:
    await for_each_pull(workspace, report, rows, lambda row: import_one(workspace, row), progress)


async def _believe_the_feed(workspace: Workspace, rows: Sequence[PullRow]) -> None:
    """Marks pull requests as complete, until they change: a merge by push leaves no entry anywhere."""
    async with workspace.warehouse.transaction() as transaction:
        await pulls.set_marks(transaction, "activity_synced_to", [(row, row.updated_at) for row in rows])


async def _in_order(workspace: Workspace, repositories: list[RepositoryToRead]) -> list[RepositoryToRead]:
    """The longest feeds first, since they take longest; if requests are few, the latest changes first."""
    new = [one.id for one in repositories if one.mark.synced_to is None]
    if not new:
        return repositories
    sizes = await pulls.counts(workspace.warehouse, new)
    needed = sum(1 + size * _ENTRIES_OF_ONE // endpoints.SMALL_PAGE for size in sizes.values())
    if await requests_left(workspace) < needed:
        return repositories
    return sorted(repositories, key=lambda one: sizes.get(one.id, 0), reverse=True)


async def import_one(workspace: Workspace, row: PullRow) -> None:
    """Fetches the whole activity of one pull request, which replaces the stored one.

    Raises:
        PagingInCircles: it is empty, and every pull request has an entry at least.
    """
    endpoint = endpoints.pull_request_activity(workspace.slug, row.repository.source_id, row.number)
    pages = [page async for page in cursor(workspace.client, endpoint)]
    entries = [entry for page in pages for entry in frames.entries(page.values)]
    if not any(page.count for page in pages):
        raise PagingInCircles(f"{endpoint.path} sent no row", path=endpoint.path)
    async with workspace.warehouse.transaction() as transaction:
        [kept] = await store_entries(transaction, workspace, [NewEntries(row.repository, entries, pages[0].asked_at)])
        if kept:  # there may be none of a kind that is stored
            await feeds.drop_other_activities(transaction, row.id, kept)
        await review_times.derive(transaction, [row.id])
        await pulls.set_marks(transaction, "activity_synced_to", [(row, row.updated_at)])
