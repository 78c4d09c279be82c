"""Imports pipelines.

The list is walked newest first by page numbers, because `next` drops the sort (BCLOUD-20639) and `q` is ignored. New
pipelines move older ones to later pages, so a walk sees some twice and misses none.

A pipeline may change after a walk has passed it. An unfinished one is requested again, with pauses that grow with its
age: a pipeline that waits for a manual step may never end. The failed steps of a finished one may be run again, under
the same uuid and date (cypress-io/cypress 8720): it is requested again when a delivery names it, and a reconcile lists
recent pipelines again.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from dx_dagster.bitbucket import (
    BitbucketError,
    Forbidden,
    Gone,
    NotFound,
    Unavailable,
    Undecided,
    endpoints,
    fetch_object,
    numbered,
    unreadable,
)
from dx_dagster.frames import pipelines as frames
from dx_dagster.frames.reading import Json, number, time
from dx_dagster.importer.accounts import store_accounts
from dx_dagster.importer.affordable import affordable
from dx_dagster.importer.each import ask_singly, for_each_repository, lacks_scope
from dx_dagster.importer.pull_requests import not_asked_before
from dx_dagster.importer.report import Report, note, skip
from dx_dagster.importer.watermarks import later, newest_of, overlapping, reaches_below
from dx_dagster.importer.webhook_proof import PROVES_NOTHING, Proving
from dx_dagster.importer.workspace import Workspace, require_id
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import deployments, hashes, marks, pipelines, repositories
from dx_dagster.warehouse.imported.bounds import reaches_back_to
from dx_dagster.warehouse.imported.marks import MarkedRepository, PipelinesMark, Repository
from dx_dagster.warehouse.imported.pipelines import Run

KIND = "pipelines"
_WITH_SLASH = "the list is found with a slash at the end of its path only"


async def import_pipelines(workspace: Workspace) -> Report:
    """Stores new pipelines of every repository, and updates unfinished ones."""
    report = Report(KIND)
    workspace_id = require_id(workspace)
    if workspace.full:
        await marks.forget(workspace.warehouse, workspace_id, PipelinesMark)
    proving = await Proving.of(workspace, PipelinesMark)
    due = await marks.with_marks(workspace.warehouse, workspace_id, PipelinesMark, workspace.pace)
    left = await not_asked_before(workspace, due)
    to_import = await affordable(workspace, report, [one for one in left if one.accessible], 1)
    begun_at = workspace.now()

    written: set[str] = set()
    answered: set[str] = set()
    unknown: list[MarkedRepository[PipelinesMark]] = []

    async def work(repository: MarkedRepository[PipelinesMark]) -> None:
        try:
            if (await import_runs(workspace, report, repository, proving)).written:
                written.add(repository.id)
            answered.add(repository.id)
        except (Forbidden, NotFound, Gone, Undecided) as error:
            if lacks_scope(error):
                raise
            # Others are the normal answer of a repository without Pipelines, and no reason for a warning.
            if isinstance(error, Gone) or await pipelines.count(workspace.warehouse, repository.id, None):
                skip(workspace, report, repository.slug, error)
            if isinstance(error, NotFound):
                unknown.append(repository)
            async with workspace.warehouse.transaction() as transaction:
                await marks.put(transaction, repository.mark, asked=begun_at)

    await for_each_repository(workspace, report, to_import, work, answered=len(due) - len(left))
    if not answered and await _is_found_with_slash(workspace, unknown):
        await for_each_repository(workspace, report, [_with_slash(one) for one in unknown], work)
    async with workspace.warehouse.transaction() as transaction:
        await hashes.resolve_pipelines(transaction, written)
    return report


async def _is_found_with_slash(workspace: Workspace, unknown: Sequence[MarkedRepository[PipelinesMark]]) -> bool:
    """Whether the API has the list only under a path with a slash at its end.

    The documentation has no slash; constructorfabric/insight got 404 without it.
    """
    for repository in unknown[:1]:
        endpoint = _listed(workspace, _with_slash(repository))
        try:
            await workspace.client.get(endpoint.path, {"pagelen": endpoints.LEAST_PAGE})
        except BitbucketError:
            return False
        return True
    return False


def _with_slash(repository: MarkedRepository[PipelinesMark]) -> MarkedRepository[PipelinesMark]:
    return replace(repository, mark=replace(repository.mark, fallback=_WITH_SLASH))


def _listed(workspace: Workspace, repository: MarkedRepository[PipelinesMark]) -> endpoints.Endpoint:
    slash = repository.mark.fallback == _WITH_SLASH
    return endpoints.pipelines(workspace.slug, repository.source_id, slash=slash)


class Imported(NamedTuple):
    """Whether anything was new, and the highest build number that the list showed."""

    written: bool
    newest: int


async def import_runs(
    workspace: Workspace,
    report: Report,
    repository: MarkedRepository[PipelinesMark],
    proving: Proving = PROVES_NOTHING,
) -> Imported:
    """Stores new and unfinished pipelines.

    Short hashes are resolved later: `warehouse.imported.hashes.resolve_pipelines`.
    """
    mark, bound = repository.mark, workspace.since
    written, unread = False, 0
    if mark.walk_cursor is not None:
        walked = await _walk(workspace, repository, mark)
        is_whole = workspace.is_continued(mark.walk_begun_at) and reaches_back_to(walked.mark.bound, bound)
        if mark.synced_to is None and is_whole and not walked.unreadable:
            await _end(workspace, walked.mark, listed=True)
            return Imported(walked.written, walked.newest)
        mark, written, unread = walked.mark, walked.written, walked.unreadable
    if mark.synced_to is not None and mark.bound is not None and not reaches_back_to(mark.bound, bound):
        known = await pipelines.count(workspace.warehouse, repository.id, mark.bound)
        first = math.ceil(known / endpoints.PAGE)  # the page with the oldest stored pipeline
        if first > 1:
            begun = replace(mark, walk_head=None, walk_bound=bound, walk_cursor=str(first))
            walked = await _walk(workspace, repository, begun, must_overlap=True)
            mark, written, unread = walked.mark, written or walked.written, unread + walked.unreadable
    begun = replace(mark, walk_head=None, walk_begun_at=workspace.now(), walk_bound=bound)
    due = await pipelines.due(workspace.warehouse, repository.id)
    walked = await _walk(workspace, repository, begun, {run.source_id for run in due}, proving=proving)
    due = [run for run in due if run.source_id not in walked.seen]
    for error in (await _ask(workspace, repository, due, walked.pages)).errors:
        skip(workspace, report, repository.slug, error)
    is_no_answer = walked.empty and await pipelines.count(workspace.warehouse, repository.id, None) > 0
    if is_no_answer:
        note(workspace, report, f"{repository.slug}: the list of pipelines is empty; nothing is changed")
    if unread := unread + walked.unreadable:
        skip(workspace, report, repository.slug, unreadable(_listed(workspace, repository).path, unread))
    done = Imported(written or walked.written, walked.newest)
    if unread or is_no_answer:
        async with workspace.warehouse.transaction() as transaction:
            await marks.put(transaction, repository.mark)  # the next sync walks there again
        return done
    listed = workspace.reconcile is not None or repository.mark.synced_to is None
    await _end(workspace, walked.mark, listed=listed)
    return done


async def _end(workspace: Workspace, mark: PipelinesMark, *, listed: bool) -> None:
    """Records that nothing is left to ask for."""
    async with workspace.warehouse.transaction() as transaction:
        await marks.put(transaction, mark, asked=mark.walk_begun_at, listed=listed)


async def refresh_runs(
    workspace: Workspace, report: Report, repository: MarkedRepository[PipelinesMark], numbers: Collection[int]
) -> None:
    """Updates the pipelines that deliveries name by number; lists new ones where one of them is not stored.

    One that answers 404 is looked for in the list.

    Raises:
        BitbucketError: one of them was refused, after the others.
        Unavailable: the list ends before one of them.
    """
    named = await pipelines.named(workspace.warehouse, repository.id, numbers)
    newest = max(numbers)
    if len(named) < len(set(numbers)):
        newest = (await import_runs(workspace, report, repository)).newest
    asked = await _ask(workspace, repository, named, 0)
    if asked.unknown:
        await _pages(workspace, repository, 1, await _page_of(workspace, repository, asked.unknown[-1]))
    for error in asked.errors:
        raise error
    if newest < max(numbers):
        path = _listed(workspace, repository).path
        raise Unavailable(f"{path} does not show pipeline {max(numbers)} yet", path=path)


class _Walked(NamedTuple):
    """The result of a walk: its mark, the wanted pipelines and the pages it saw, and whether anything was new.

    `unreadable`: rows that could be any pipeline. `newest`: the highest build number; 0 where no row has one.
    """

    mark: PipelinesMark
    seen: set[str]
    pages: int
    written: bool
    unreadable: int
    newest: int
    empty: bool


async def _walk(
    workspace: Workspace,
    repository: MarkedRepository[PipelinesMark],
    mark: PipelinesMark,
    wanted: Collection[str] = (),
    *,
    must_overlap: bool = False,
    proving: Proving = PROVES_NOTHING,
) -> _Walked:
    """Walks back through the pipelines, down to the watermark or to the bound, and notes `wanted` ones (uuids).

    A walk that `must_overlap` ends at once unless it begins with stored pipelines.
    """
    further = mark.synced_to is None or not reaches_back_to(mark.bound, mark.walk_bound)
    stop = mark.walk_bound if further else _stop(mark, workspace.reconcile)
    seen: set[str] = set()
    written = False
    pages = unread = newest = rows = 0
    async for page in numbered(workspace.client, _listed(workspace, repository), start=int(mark.walk_cursor or 1)):
        times = [moment for value in page.values if (moment := time(value.get("created_on")))]
        if must_overlap and mark.bound is not None and not (times and max(times) >= mark.bound):
            unwalked = replace(mark, walk_cursor=None, walk_head=None)
            return _Walked(unwalked, seen, pages, written, unread, newest, rows == 0)
        must_overlap = False
        if mark.walk_head is None:
            mark = replace(mark, walk_head=newest_of(times, page.asked_at))
        within = [value for value in page.values if not _is_outside(workspace, value)]
        seen |= _named(within).intersection(wanted)
        pages, unread, rows = page.number, unread + page.unreadable, rows + page.count
        newest = max(newest, *_numbers(page.values), 0)
        # If the API ignored the sort, later pages may hold newer pipelines.
        over = times == sorted(times, reverse=True) and reaches_below(times, stop)
        if not over:
            mark = replace(mark, walk_cursor=str(page.number + 1))
        async with workspace.warehouse.transaction() as transaction:
            async with proving.pipelines(transaction, repository.id, _numbers(within)):
                written |= await _store(transaction, workspace, repository, within, page.asked_at)
            await marks.put(transaction, mark)
        if over:
            break
    synced_to = later(mark.synced_to, mark.walk_head)
    done = replace(mark, synced_to=synced_to, bound=mark.walk_bound, walk_cursor=None)
    async with workspace.warehouse.transaction() as transaction:
        await marks.put(transaction, done)
        await repositories.pipelines_synced(transaction, repository.id)
    return _Walked(done, seen, pages, written, unread, newest, rows == 0)


def _stop(mark: PipelinesMark, reconcile: timedelta | None) -> datetime | None:
    """How far back a later walk goes: to the watermark, or, to reconcile, `reconcile` before the last such listing.

    So a pipeline that has become older than `reconcile` since then is listed one last time.
    """
    if mark.synced_to is None:
        return mark.walk_bound
    known = overlapping(mark.synced_to)
    return known if reconcile is None else min(overlapping(mark.listed_at or mark.synced_to, reconcile), known)


def _is_outside(workspace: Workspace, value: Json) -> bool:
    created_at = time(value.get("created_on"))
    return workspace.since is not None and created_at is not None and created_at < workspace.since


async def _store(
    transaction: Transaction,
    workspace: Workspace,
    repository: MarkedRepository[PipelinesMark],
    values: Sequence[Json],
    asked_at: datetime,
) -> bool:
    """Merges pipelines, which makes their deployments stale; returns whether anything was new."""
    creators = [value.get("creator") for value in values]
    await store_accounts(transaction, workspace, creators, asked_at)
    rows = frames.pipelines(workspace.id, repository.id, values, asked_at)
    counts = await transaction.merge(merge.PIPELINES, rows)
    if not counts.inserted and not counts.updated:
        return False
    await deployments.note_pipelines(transaction)
    return True


class _Asked(NamedTuple):
    """The pipelines, newest first, that answered 404, and the errors of others."""

    unknown: list[Run]
    errors: list[BitbucketError]


async def _ask(
    workspace: Workspace, repository: MarkedRepository[PipelinesMark], wanted: Sequence[Run], pages: int
) -> _Asked:
    """Fetches pipelines, newest first, that a walk over so many pages did not see.

    Page by page where that takes fewer requests than one by one.
    """
    unknown: list[Run] = []
    if not wanted:
        return _Asked(unknown, [])
    left = list(wanted)
    if len(left) > 1:
        last = await _page_of(workspace, repository, left[-1])
        if 0 < last - pages < len(left):
            seen = await _pages(workspace, repository, pages + 1, last)
            left = [run for run in left if run.source_id not in seen]

    async def ask_one(run: Run) -> None:
        try:
            await _ask_one(workspace, repository, run.source_id)
        except NotFound:
            unknown.append(run)

    done = await ask_singly(left, ask_one)
    async with workspace.warehouse.transaction() as transaction:
        await pipelines.asked(transaction, [run.id for run in wanted if run not in done.left_out])
    return _Asked(unknown, [error for _, error in done.failed])


async def _page_of(workspace: Workspace, repository: Repository, run: Run) -> int:
    """The page of the list that has the pipeline, or the page before, unless the list was changed."""
    newer = await pipelines.count(workspace.warehouse, repository.id, run.created_at)
    return math.ceil(newer / endpoints.PAGE)


async def _ask_one(workspace: Workspace, repository: MarkedRepository[PipelinesMark], source_id: str) -> None:
    """Fetches one pipeline.

    Raises:
        NotFound: Bitbucket does not have it.
    """
    endpoint = endpoints.pipeline(workspace.slug, repository.source_id, source_id)
    asked_at = workspace.now()
    value = await fetch_object(workspace.client, endpoint, "uuid")
    async with workspace.warehouse.transaction() as transaction:
        await _store(transaction, workspace, repository, [value], asked_at)


async def _pages(workspace: Workspace, repository: MarkedRepository[PipelinesMark], first: int, last: int) -> set[str]:
    """Stores some pages of the list; returns the uuids of their pipelines."""
    seen: set[str] = set()
    async for page in numbered(workspace.client, _listed(workspace, repository), start=first):
        within = [value for value in page.values if not _is_outside(workspace, value)]
        async with workspace.warehouse.transaction() as transaction:
            await _store(transaction, workspace, repository, within, page.asked_at)
        seen |= _named(within)
        if page.number >= last:
            break
    return seen


def _numbers(values: Sequence[Json]) -> list[int]:
    return [found for value in values if (found := number(value.get("build_number"))) is not None]


def _named(values: Sequence[Json]) -> set[str]:
    return {value["uuid"] for value in values if value.get("uuid")}
