"""Comments on pull requests.

The activity feed carries them, so where it holds as many as the pull request counts, there is nothing to ask. An edit
or a deletion moves the pull request's `updated_on` and is no new entry of the feed: pull requests that moved are asked
for all their comments, one request for a hundred.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from dx_dagster.bitbucket import endpoints, numbered
from dx_dagster.frames import comments as frames
from dx_dagster.frames.reading import Json
from dx_dagster.importer.accounts import store_accounts
from dx_dagster.importer.each_pull import PullRow, for_each_pull, pull_rows
from dx_dagster.importer.group_commit import GroupCommit
from dx_dagster.importer.workspace import Report, Workspace, require_id
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.imported import pulls, review_times, stale

KIND = "comments"


class FetchedComments(NamedTuple):
    """All comments of one pull request."""

    row: PullRow
    values: list[Json]
    asked_at: datetime


async def import_comments(workspace: Workspace) -> Report:
    """Completes the comments of every pull request that changed."""
    report = Report(KIND)
    workspace_id = require_id(workspace)
    async with workspace.warehouse.transaction() as transaction:
        if workspace.full:
            await stale.forget_comments(transaction, workspace_id)
        await stale.settle_comments(transaction, workspace_id)
    commit = GroupCommit[FetchedComments](lambda batch: store(workspace, batch))

    async def one(row: PullRow) -> None:
        await commit(await fetch(workspace, row))

    await for_each_pull(workspace, report, await pull_rows(workspace, stale.pulls_without_comments), one)
    return report


async def fetch(workspace: Workspace, row: PullRow) -> FetchedComments:
    endpoint = endpoints.comments(workspace.slug, row.repository.source_id, row.number)
    pages = [page async for page in numbered(workspace.client, endpoint)]
    return FetchedComments(row, [value for page in pages for value in page.values], pages[0].asked_at)


async def store(workspace: Workspace, batch: Sequence[FetchedComments]) -> None:
    """Merges complete lists of comments; a stored comment that its list no longer holds was deleted.

    An empty list of a pull request that counts comments says nothing: it is asked again with the next sync.
    """
    asked_at = min(fetched.asked_at for fetched in batch)
    found = [(fetched.row.id, value) for fetched in batch for value in fetched.values]
    frame = frames.comments(workspace.id, found, asked_at)
    async with workspace.warehouse.transaction() as transaction:
        await store_accounts(transaction, workspace, [one.get("user") for _, one in found], asked_at)
        await transaction.merge(workspace.merging(merge.COMMENTS), frame)
        silent = await pulls.that_count_comments(transaction, [one.row.id for one in batch if not one.values])
        told = [fetched for fetched in batch if fetched.row.id not in silent]
        asked = [fetched.row.id for fetched in told]
        await pulls.mark_other_comments_deleted(transaction, asked, frame["id"].to_list())
        await review_times.derive(transaction, asked)
        marks = [(fetched.row, fetched.row.updated_at) for fetched in told]
        await pulls.set_marks(transaction, "comments_synced_to", marks)
