"""Imports pull requests and their participants.

The first import walks each repository by number, newest first. Later ones request what changed and all open pull
requests: an approval, given or withdrawn, need not change `updated_on`. The walk is by keyset on the number, because
offsets lose rows when the list changes during the walk.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from dx_dagster.bitbucket import (
    BadRequest,
    BitbucketError,
    NotFound,
    Page,
    PagingInCircles,
    Unavailable,
    by_id_ranges,
    endpoints,
    fetch_object,
    find_row,
    keyset,
    unreadable,
)
from dx_dagster.frames import pulls as frames
from dx_dagster.frames.reading import Json, number, time
from dx_dagster.importer import absence
from dx_dagster.importer.accounts import store_accounts
from dx_dagster.importer.affordable import affordable
from dx_dagster.importer.each import OF_ONE_REQUEST, ask_singly, for_each_repository
from dx_dagster.importer.report import Report, note, skip
from dx_dagster.importer.watermarks import later, newest, overlapping
from dx_dagster.importer.webhook_proof import Proving
from dx_dagster.importer.workspace import Workspace, require_id
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import absences, marks, pulls, repositories, stale
from dx_dagster.warehouse.imported.bounds import reaches_back_to
from dx_dagster.warehouse.imported.marks import AnyMark, MarkedRepository, PullRequestsMark, Repository

KIND = "pullrequests"
# There is a fallback without sorting, so few attempts are made.
_ATTEMPTS_AT_SORTING = 3
_EVER = datetime.min.replace(tzinfo=UTC)


async def import_pull_requests(workspace: Workspace) -> Report:
    """Stores what changed in the pull requests of every readable repository.

    Raises:
        NothingReadError: no repository could be read.
    """
    report = Report(KIND)
    workspace_id = require_id(workspace)
    proving = await Proving.of(workspace, PullRequestsMark)
    if workspace.full:
        await marks.forget(workspace.warehouse, workspace_id, PullRequestsMark)
    due = await marks.with_marks(workspace.warehouse, workspace_id, PullRequestsMark, workspace.pace)
    # The other half is for what this finds to be stale, and for pipelines.
    left = await not_asked_before(workspace, due)
    to_import = await affordable(workspace, report, left, 2)
    begun_at = workspace.now()
    reading = absence.Reading(workspace, to_import)

    refusing: list[MarkedRepository[PullRequestsMark]] = []

    async def work(repository: MarkedRepository[PullRequestsMark]) -> None:
        async with reading.of_repository():
            await _import_repository(workspace, report, repository, proving)

    async def refused(repository: MarkedRepository[PullRequestsMark], error: BitbucketError) -> None:
        await record_access(workspace, repository, str(error))
        refusing.append(repository)

    async with reading.of_all():
        answered = len(due) - len(left)
        await for_each_repository(workspace, report, to_import, work, refused=refused, answered=answered)
    async with workspace.warehouse.transaction() as transaction:
        for repository in refusing:
            await marks.put(transaction, repository.mark, asked=begun_at)
    return report


async def not_asked_before(
    workspace: Workspace, repositories: list[MarkedRepository[AnyMark]]
) -> list[MarkedRepository[AnyMark]]:
    """The repositories without those that the killed sync which this one continues asked to the end."""
    if workspace.continued_from is None or not repositories:
        return repositories
    kind, since = type(repositories[0].mark), workspace.continued_from
    asked = await marks.asked(workspace.warehouse, workspace.id, kind, since, refused=True)
    return [one for one in repositories if one.id not in asked or not reaches_back_to(one.mark.bound, workspace.since)]


@dataclass
class _Listed:
    """What a listing showed: the numbers of pull requests, and how many rows could be any pull request."""

    numbers: set[int] = field(default_factory=set)
    unreadable: int = 0


async def _import_repository(
    workspace: Workspace, report: Report, repository: MarkedRepository[PullRequestsMark], proving: Proving
) -> None:
    mark, below = repository.mark, None
    horizon = await pulls.open_horizon(workspace.warehouse, repository.id, mark.listed_at)
    first = mark.synced_to is None
    if mark.walk_cursor is not None:
        # A killed walk resumes where it stopped; the next walk brings what changed since it began.
        below = int(mark.walk_cursor)
        done, seen = await _walk(workspace, report, repository, mark, horizon, proving=proving)
        if seen.unreadable:
            await _walk_again(workspace, report, repository, seen.unreadable)
            return
        if not (first and workspace.is_continued(mark.walk_begun_at) and reaches_back_to(done.bound, workspace.since)):
            await _end(workspace, repository, done, listed=horizon is None)
            mark, below, first = done, None, False
    if below is None:
        begun = replace(mark, walk_head=None, walk_bound=workspace.since, walk_begun_at=workspace.now())
        done, seen = await _walk(workspace, report, repository, begun, horizon, proving=proving)
    if seen.unreadable:
        await _walk_again(workspace, report, repository, seen.unreadable)
        return
    # The first walk lists everything within the bound, later walks what changed and what is open.
    listed_from = workspace.since or _EVER if first else None
    await _fetch_missing(workspace, report, repository, seen.numbers, listed_from, horizon=horizon, below=below)
    await _end(workspace, repository, done, listed=horizon is None, asked=done.walk_begun_at)
    await record_access(workspace, repository, None)


async def _walk_again(
    workspace: Workspace, report: Report, repository: MarkedRepository[PullRequestsMark], rows: int
) -> None:
    """Leaves the mark as it was, for a walk that met rows which could be any pull request."""
    path = endpoints.pull_requests(workspace.slug, repository.source_id).path
    skip(workspace, report, repository.slug, unreadable(path, rows))
    async with workspace.warehouse.transaction() as transaction:
        await marks.put(transaction, repository.mark)
    await record_access(workspace, repository, None)


async def _walk(
    workspace: Workspace,
    report: Report,
    repository: Repository,
    mark: PullRequestsMark,
    horizon: datetime | None,
    *,
    proving: Proving,
) -> tuple[PullRequestsMark, _Listed]:
    """Walks through the list; returns the mark at its end and what it showed.

    `horizon`: open pull requests that last changed before it are not listed.
    """
    seen = _Listed()
    try:
        if mark.fallback is None:
            pages = _newest_first(workspace, repository, mark, horizon)
            mark = await _store_pages(workspace, report, repository, mark, pages, seen=seen, proving=proving)
    except (Unavailable, PagingInCircles, BadRequest) as error:
        note(workspace, report, f"{repository.slug}: pull requests are fetched by ranges of numbers ({error})")
        stored = await marks.with_marks(workspace.warehouse, workspace.id, PullRequestsMark)
        reached = next((one.mark for one in stored if one.id == repository.id and one.mark.walk_cursor), mark)
        mark = replace(reached, fallback=str(error))
    if mark.fallback is not None:
        pages = _by_ranges(workspace, repository, mark, horizon)
        mark = await _store_pages(workspace, report, repository, mark, pages, seen=seen, proving=proving)
    synced_to = later(mark.synced_to, mark.walk_head)
    return replace(mark, synced_to=synced_to, bound=mark.walk_bound, walk_cursor=None), seen


async def _end(
    workspace: Workspace,
    repository: Repository,
    done: PullRequestsMark,
    *,
    listed: bool,
    asked: datetime | None = None,
) -> None:
    """Stores the mark of a walk that has ended; `asked`: when it began, where nothing is left to ask for."""
    async with workspace.warehouse.transaction() as transaction:
        await marks.put(transaction, done, asked=asked, listed=listed)
        await repositories.pull_requests_synced(transaction, repository.id, done.synced_to)


async def _store_pages(
    workspace: Workspace,
    report: Report,
    repository: Repository,
    mark: PullRequestsMark,
    pages: AsyncIterator[Page],
    *,
    seen: _Listed,
    proving: Proving,
) -> PullRequestsMark:
    async for page in pages:
        seen.unreadable += page.unreadable
        for value in page.values:
            if number(value["id"]) is None:
                skip(workspace, report, f"{repository.slug}#{value['id']}", BadRequest("its number cannot be stored"))
        if mark.walk_head is None:
            mark = replace(mark, walk_head=newest((value.get("updated_on") for value in page.values), page.asked_at))
        numbers = [one for value in page.values if (one := number(value["id"])) is not None]
        seen.numbers.update(numbers)
        if mark.fallback is None and numbers:
            mark = replace(mark, walk_cursor=str(min(numbers)))
        async with workspace.warehouse.transaction() as transaction:
            async with proving.pull_requests(transaction, repository.id, numbers):
                await store(transaction, workspace, repository, page.values, page.asked_at)
            await marks.put(transaction, mark)
    return mark


def _newest_first(
    workspace: Workspace, repository: Repository, mark: PullRequestsMark, horizon: datetime | None
) -> AsyncIterator[Page]:
    """The pages below the number that the walk has reached."""
    endpoint = endpoints.pull_requests(workspace.slug, repository.source_id)
    below = int(mark.walk_cursor) if mark.walk_cursor else None
    return keyset(workspace.client, endpoint, q=_condition(mark, horizon), start=below, attempts=_ATTEMPTS_AT_SORTING)


def _by_ranges(
    workspace: Workspace, repository: Repository, mark: PullRequestsMark, horizon: datetime | None
) -> AsyncIterator[Page]:
    """The same without a sort, which together with the state filters always fails on some large repositories.

    (constructorfabric/insight always got 500.) The ranges have no order, so a killed walk starts over.
    """
    endpoint = endpoints.pull_requests(workspace.slug, repository.source_id)
    high = int(mark.walk_cursor) - 1 if mark.walk_cursor else None
    return by_id_ranges(workspace.client, endpoint, q=_condition(mark, horizon), high=high)


def _condition(mark: PullRequestsMark, horizon: datetime | None) -> str | None:
    """The filter of a walk: at first everything within the bound, later what changed, what is open, and what a bound
    moved further back adds.
    """
    opened = f'(state = "OPEN" AND {_from(horizon)})' if horizon else 'state = "OPEN"'
    if mark.synced_to is None:
        return f"{_from(mark.walk_bound)} OR {opened}" if mark.walk_bound else None
    changed = f"{_from(overlapping(mark.synced_to))} OR {opened}"
    if mark.bound is None or reaches_back_to(mark.bound, mark.walk_bound):
        return changed
    return f'({_from(mark.walk_bound or _EVER)} AND updated_on < "{mark.bound.isoformat()}") OR {changed}'


def _from(moment: datetime) -> str:
    return f'updated_on >= "{moment.isoformat()}"'


async def store(
    transaction: Transaction, workspace: Workspace, repository: Repository, values: Sequence[Json], asked_at: datetime
) -> None:
    """Merges pull requests and their participants from a list, a single pull request or a payload.

    A pull request outside of the workspace's bound is left out unless it is stored already.
    """
    workspace_id = workspace.id
    outside = [value["id"] for value in values if _is_outside(workspace, value)]
    unwanted = await pulls.leave_out(transaction, repository.id, outside)
    kept = [value for value in values if value.get("id") not in unwanted]
    await store_accounts(transaction, workspace, frames.accounts(kept), asked_at)
    await pulls.store(
        transaction,
        frames.pulls(workspace_id, repository.id, kept, asked_at),
        frames.participants(workspace_id, repository.id, kept, asked_at),
        workspace.merging(merge.PULLS),
    )


def _is_outside(workspace: Workspace, value: Json) -> bool:
    changed_at = time(value.get("updated_on"))
    return (
        workspace.since is not None
        and changed_at is not None
        and changed_at < workspace.since
        and value.get("state") != "OPEN"
        and number(value.get("id")) is not None
    )


async def fetch_one(workspace: Workspace, repository: Repository, number: int) -> bool:
    """Fetches a single pull request, or marks it deleted; returns whether it exists.

    A 404 by itself says too little: the list must not show the pull request either.

    Raises:
        NotFound: the repository or its list answers 404 too, so the pull request may still exist.
    """
    endpoint = endpoints.pull_request(workspace.slug, repository.source_id, number)
    asked_at = workspace.now()
    value: Json | None
    try:
        value = await fetch_object(workspace.client, endpoint, "id")
    except NotFound as error:
        value = await _listed(workspace, repository, number, error)
        if value is None and not await absence.repository_answers(workspace, repository):
            raise
    if value is None:
        async with workspace.warehouse.transaction() as transaction:
            await pulls.mark_deleted(transaction, repository.id, number)
        return False
    async with workspace.warehouse.transaction() as transaction:
        await store(transaction, workspace, repository, [value], asked_at)
    return True


async def _listed(workspace: Workspace, repository: Repository, number: int, refusal: NotFound) -> Json | None:
    """The pull request as the list shows it; None where the list lacks it.

    Raises:
        NotFound: the `refusal`, where the list cannot be read either.
    """
    try:
        return await find_row(
            workspace.client, endpoints.pull_requests(workspace.slug, repository.source_id), "id", number
        )
    except OF_ONE_REQUEST as error:
        raise refusal from error


async def fetch_each(workspace: Workspace, report: Report, repository: Repository, numbers: Sequence[int]) -> None:
    """Fetches pull requests of one repository one by one; those that Bitbucket refuses are skipped.

    Raises:
        NotFound: as `fetch_one`.
    """
    done = await ask_singly(numbers, lambda one: fetch_one(workspace, repository, one))
    for one, error in done.failed:
        skip(workspace, report, f"{repository.slug}#{one}", error)


async def _fetch_missing(
    workspace: Workspace,
    report: Report,
    repository: Repository,
    seen: set[int],
    listed_from: datetime | None,
    *,
    horizon: datetime | None,
    below: int | None,
) -> None:
    """Requests the pull requests that are missing from a listing: open ones that changed at or after `horizon`, and all
    that changed at or after `listed_from`. Pull requests with an absurd date are requested as well, with growing
    pauses. `below`: the listing went on there; what it had `seen` before is unknown.
    """
    expected = await stale.pulls_expected(workspace.warehouse, repository.id, listed_from, horizon or _EVER)
    rows = [row for row in expected if below is None or row.number < below]
    numbers = {row.id: row.number for row in rows if row.number not in seen}
    stored = [row.id for row in rows if row.expected]
    asked = [pull for pull in stored if pull in numbers]
    if absence.is_suspicious(stored=len(stored), missing=len(asked), listed=len(seen)):
        asked = await absences.next_to_ask(workspace.warehouse, asked, absence.MOST)
    # A list of what changed does not show that an absurd date was corrected.
    if odd := numbers.keys() - set(stored):
        asked += await absences.next_to_ask(workspace.warehouse, odd, absence.MOST)
    await fetch_each(workspace, report, repository, [numbers[pull] for pull in asked])


async def record_access(workspace: Workspace, repository: Repository, reason: str | None) -> None:
    """Records why a repository cannot be read, or with None that it can."""
    if reason is None and repository.accessible:
        return
    async with workspace.warehouse.transaction() as transaction:
        await repositories.set_access(transaction, repository.id, reason)
