"""Imports comments on pull requests.

The activity feed contains new comments, so a pull request needs no request while the feed has given as many as it
counts. An edit or a deletion changes the pull request's `updated_on` without a new entry: all comments of a changed
pull request are fetched, a hundred with one request.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from dx_dagster.bitbucket import PagingInCircles, endpoints, numbered
from dx_dagster.frames import comments as frames
from dx_dagster.frames.reading import Json
from dx_dagster.importer.accounts import store_accounts
from dx_dagster.importer.each_pull import PullRow, for_each_pull, pull_rows
from dx_dagster.importer.group_commit import GroupCommit
from dx_dagster.importer.report import Report
from dx_dagster.importer.workspace import Workspace, require_id
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.imported import pulls, review_times, stale

KIND = "comments"


class FetchedComments(NamedTuple):
    """All comments of one pull request; `size`: how many they are, by Bitbucket's own count of the list."""

    row: PullRow
    values: list[Json]
    asked_at: datetime
    size: int

    @property
    def lacks_some(self) -> bool:
        return len(self.values) < self.size


async def import_comments(workspace: Workspace) -> Report:
    """Fetches the comments of every pull request that changed since the feed was read."""
    report = Report(KIND)
    workspace_id = require_id(workspace)
    async with workspace.warehouse.transaction() as transaction:
        if workspace.full:
            await stale.forget_comments(transaction, workspace_id)
        await stale.settle_comments(transaction, workspace_id)
    commit = GroupCommit[FetchedComments](lambda batch: store(workspace, batch))

    async def import_pull(row: PullRow) -> None:
        fetched = await fetch(workspace, row)
        await commit(fetched)
        if fetched.lacks_some:
            path = endpoints.comments(workspace.slug, row.repository.source_id, row.number).path
            raise PagingInCircles(f"{path} sent {len(fetched.values)} of {fetched.size} rows", path=path)

    await for_each_pull(workspace, report, await pull_rows(workspace, stale.pulls_without_comments), import_pull)
    return report


async def fetch(workspace: Workspace, row: PullRow) -> FetchedComments:
    """Fetches all comments of a pull request."""
    endpoint = endpoints.comments(workspace.slug, row.repository.source_id, row.number)
    pages = [page async for page in numbered(workspace.client, endpoint, strict=True)]
    size = max(page.size or 0 for page in pages)
    return FetchedComments(row, [value for page in pages for value in page.values], pages[0].asked_at, size)


async def store(workspace: Workspace, batch: Sequence[FetchedComments]) -> None:
    """Merges complete lists of comments; a stored comment that is missing from its list is marked deleted.

    A list with fewer rows than its size, or an empty one of a pull request that counts comments, is not complete: the
    next sync fetches it again.
    """
    asked_at = min(fetched.asked_at for fetched in batch)
    by_pull = [(fetched.row.id, value) for fetched in batch for value in fetched.values]
    frame = frames.comments(workspace.id, by_pull, asked_at)
    async with workspace.warehouse.transaction() as transaction:
        await store_accounts(transaction, workspace, [comment.get("user") for _, comment in by_pull], asked_at)
        await transaction.merge(workspace.merging(merge.COMMENTS), frame)
        ignored = await pulls.that_count_comments(transaction, [one.row.id for one in batch if not one.values])
        complete = [one for one in batch if one.row.id not in ignored and not one.lacks_some]
        pull_ids = [fetched.row.id for fetched in complete]
        await pulls.mark_other_comments_deleted(transaction, pull_ids, frame["id"].to_list())
        await review_times.derive(transaction, pull_ids)
        marks = [(fetched.row, fetched.row.updated_at) for fetched in complete]
        await pulls.set_marks(transaction, "comments_synced_to", marks)
