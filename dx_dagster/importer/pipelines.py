"""Runs of Bitbucket Pipelines.

Newest first by page numbers that are put together here, since `next` drops the sort (BCLOUD-20639) and `q` is ignored.
New runs push older ones to later pages, so a walk sees some twice and misses none.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from dx_dagster.bitbucket import Forbidden, Gone, NotFound, Page, endpoints, numbered
from dx_dagster.frames import pipelines as frames
from dx_dagster.frames.reading import Json, time
from dx_dagster.importer.accounts import store_accounts
from dx_dagster.importer.pullrequests import OVERLAP, later, reaches_below
from dx_dagster.importer.workspace import Report, Workspace, for_each_repository, lacks_scope, require_id
from dx_dagster.warehouse import marks, merge, pulls
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.marks import Mark, Repository

KIND = "pipelines"


async def import_pipelines(workspace: Workspace) -> Report:
    """Stores new runs of every repository, and asks again for those that had not ended."""
    report = Report(KIND)
    workspace_id = require_id(workspace)
    if workspace.full:
        await marks.forget(workspace.warehouse, workspace_id, KIND)
    repositories = await marks.repositories(workspace.warehouse, workspace_id, KIND, workspace.quiet)

    written: set[str] = set()

    async def work(repository: Repository) -> None:
        try:
            if await import_runs(workspace, repository):
                written.add(repository.id)
        except (Forbidden, NotFound, Gone) as error:
            # What a repository with Pipelines off answers: normal, and nothing to warn of.
            if lacks_scope(error):
                raise
            async with workspace.warehouse.transaction() as transaction:
                await marks.put(transaction, repository.mark, asked=True)

    await for_each_repository(workspace, report, [one for one in repositories if one.accessible], work)
    async with workspace.warehouse.transaction() as transaction:
        await pulls.resolve_hashes_of_pipelines(transaction, written)
    return report


async def import_runs(workspace: Workspace, repository: Repository) -> bool:
    """Stores new runs, and those that had not ended; returns whether there was anything new.

    Hashes stay as Bitbucket gives them: `warehouse.pulls.resolve_hashes_of_pipelines`.
    """
    mark = repository.mark
    resumed = False
    if mark.walk_cursor is not None:
        mark, _, _, resumed = await _walk(workspace, repository, mark)
    elif mark.synced_to is None:
        mark = replace(mark, since=workspace.since)
    walked = await _walk(workspace, repository, replace(mark, walk_head=None))
    await _ask_unfinished(workspace, repository, walked)
    return resumed or walked.written


class _Walked(NamedTuple):
    """What a walk came to: its mark, the runs and pages that it saw, whether anything was new."""

    mark: Mark
    seen: set[str]
    pages: int
    written: bool


async def _walk(workspace: Workspace, repository: Repository, mark: Mark) -> _Walked:
    """One way back through the runs, down to what is known."""
    stop = mark.since if mark.synced_to is None else mark.synced_to - OVERLAP
    seen: set[str] = set()
    written = False
    pages = 0
    endpoint = endpoints.pipelines(workspace.slug, repository.source_id)
    async for page in numbered(workspace.client, endpoint, start=int(mark.walk_cursor or 1)):
        times = [moment for value in page.values if (moment := time(value.get("created_on")))]
        if mark.walk_head is None:
            mark = replace(mark, walk_head=max(times, default=None))
        seen |= _named(page)
        pages = page.number
        # Where the sort was not heeded, older pages may hold newer runs.
        over = times == sorted(times, reverse=True) and reaches_below(times, stop)
        if not over:
            mark = replace(mark, walk_cursor=str(page.number + 1))
        async with workspace.warehouse.transaction() as transaction:
            written |= await _store(transaction, workspace, repository, page.values, page.asked_at)
            await marks.put(transaction, mark)
        if over:
            break
    done = replace(mark, synced_to=later(mark.synced_to, mark.walk_head), walk_cursor=None)
    async with workspace.warehouse.transaction() as transaction:
        await marks.put(transaction, done, asked=True)
        await transaction.execute(
            "UPDATE bitbucket_repositories SET pipelines_synced_at = now() WHERE id = %s", [repository.id]
        )
    return _Walked(done, seen, pages, written)


async def _store(
    transaction: Transaction, workspace: Workspace, repository: Repository, values: Sequence[Json], asked_at: datetime
) -> bool:
    """Merges runs; returns whether anything was new."""
    creators = [value.get("creator") for value in values]
    await store_accounts(transaction, workspace, creators, asked_at)
    rows = frames.pipelines(workspace.id, repository.id, values, asked_at)
    counts = await transaction.merge(merge.PIPELINES, rows)
    return bool(counts.inserted or counts.updated)


async def _ask_unfinished(workspace: Workspace, repository: Repository, walked: _Walked) -> None:
    """Asks for runs that had not ended when they were last seen and are older than the walk went.

    Page by page where that takes fewer requests than one by one: a run whose manual step nobody starts never ends.
    """
    rows = await workspace.warehouse.rows(
        "SELECT source_id, created_at FROM bitbucket_pipelines "
        "WHERE repository_id = %s AND state IS DISTINCT FROM 'COMPLETED' AND NOT source_id = ANY(%s) "
        "ORDER BY created_at DESC",
        [repository.id, list(walked.seen)],
    )
    wanted = [row.source_id for row in rows]
    if len(wanted) > 1:
        newer = await workspace.warehouse.row(
            "SELECT count(*) AS runs FROM bitbucket_pipelines WHERE repository_id = %s AND created_at >= %s",
            [repository.id, rows[-1].created_at],
        )
        last = math.ceil(newer.runs / endpoints.PAGE)
        if 0 < last - walked.pages < len(wanted):
            seen = await _pages(workspace, repository, walked.pages + 1, last)
            wanted = [one for one in wanted if one not in seen]
    for source_id in wanted:
        endpoint = endpoints.pipeline(workspace.slug, repository.source_id, source_id)
        asked_at = datetime.now(UTC)
        try:
            value = await workspace.client.get(endpoint.path, endpoint.params)
        except NotFound:
            continue
        async with workspace.warehouse.transaction() as transaction:
            await _store(transaction, workspace, repository, [value], asked_at)


async def _pages(workspace: Workspace, repository: Repository, first: int, last: int) -> set[str]:
    """Stores some pages of the list; returns the runs in them."""
    seen: set[str] = set()
    endpoint = endpoints.pipelines(workspace.slug, repository.source_id)
    async for page in numbered(workspace.client, endpoint, start=first):
        async with workspace.warehouse.transaction() as transaction:
            await _store(transaction, workspace, repository, page.values, page.asked_at)
        seen |= _named(page)
        if page.number >= last:
            break
    return seen


def _named(page: Page) -> set[str]:
    return {value["uuid"] for value in page.values if value.get("uuid")}
