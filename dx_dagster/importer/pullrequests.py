"""Pull requests and who takes part in them.

The first import walks each repository by number, newest first; later ones ask for what changed and for all that are
open (an approval, given or taken back, need not move `updated_on`). Keyset paging on the number, because an offset walk
over a living list loses rows.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dx_dagster.bitbucket import (
    BadRequest,
    BitbucketError,
    NotFound,
    Page,
    PagingInCircles,
    Unavailable,
    endpoints,
    id_windows,
    keyset,
)
from dx_dagster.frames import pulls as frames
from dx_dagster.frames.reading import Json, time
from dx_dagster.importer.accounts import store_accounts
from dx_dagster.importer.workspace import Report, Workspace, for_each_repository, note, require_id
from dx_dagster.warehouse import marks, pulls
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.marks import Mark, Repository

KIND = "pullrequests"
# Asked again before a mark: the clocks of a large service differ.
OVERLAP = timedelta(minutes=5)
# There is another way when sorting fails, so it is not worth much patience.
_ATTEMPTS_AT_SORTING = 3
ROWS_TO_BE_SURE = 10


async def import_pull_requests(workspace: Workspace) -> Report:
    """Stores what changed in the pull requests of every repository that can be read."""
    report = Report(KIND)
    workspace_id = require_id(workspace)
    if workspace.full:
        await marks.forget(workspace.warehouse, workspace_id, KIND)
    repositories = await marks.repositories(workspace.warehouse, workspace_id, KIND, workspace.quiet)

    async def work(repository: Repository) -> None:
        await _import_repository(workspace, report, repository)

    async def refused(repository: Repository, error: BitbucketError) -> None:
        await record_access(workspace, repository, str(error))
        async with workspace.warehouse.transaction() as transaction:
            await marks.put(transaction, repository.mark, asked=True)

    await for_each_repository(workspace, report, repositories, work, refused=refused)
    return report


async def _import_repository(workspace: Workspace, report: Report, repository: Repository) -> None:
    mark = repository.mark
    if mark.walk_cursor is not None:
        # A killed walk goes on where it stopped; what changed since it began comes with the fresh one.
        mark, _ = await _walk(workspace, report, repository, mark)
    elif mark.synced_to is None:
        mark = replace(mark, since=workspace.since)
    _, seen = await _walk(workspace, report, repository, replace(mark, walk_head=None))
    await _look_for_the_vanished(workspace, repository, seen, everything=mark.synced_to is None and mark.since is None)
    await record_access(workspace, repository, None)


async def _walk(workspace: Workspace, report: Report, repository: Repository, mark: Mark) -> tuple[Mark, set[int]]:
    """One way through the list; returns the mark at its end and the numbers seen."""
    seen: set[int] = set()
    try:
        if mark.fallback is None:
            mark = await _store_pages(workspace, repository, mark, _newest_first(workspace, repository, mark), seen)
    except (Unavailable, PagingInCircles, BadRequest) as error:
        note(workspace, report, f"{repository.slug}: pull requests are fetched by ranges of numbers ({error})")
        stored = await marks.repositories(workspace.warehouse, workspace.id, KIND)
        reached = next((one.mark for one in stored if one.id == repository.id and one.mark.walk_cursor), mark)
        mark = replace(reached, fallback=str(error))
    if mark.fallback is not None:
        mark = await _store_pages(workspace, repository, mark, _by_ranges(workspace, repository, mark), seen)
    done = replace(mark, synced_to=later(mark.synced_to, mark.walk_head), walk_cursor=None)
    async with workspace.warehouse.transaction() as transaction:
        await marks.put(transaction, done, asked=True)
        await transaction.execute(
            "UPDATE bitbucket_repositories SET pull_requests_synced_at = now(), pull_request_synced_to = %s "
            "WHERE id = %s",
            [done.synced_to, repository.id],
        )
    return done, seen


async def _store_pages(
    workspace: Workspace, repository: Repository, mark: Mark, pages: AsyncIterator[Page], seen: set[int]
) -> Mark:
    async for page in pages:
        if mark.walk_head is None:
            mark = replace(mark, walk_head=newest(value.get("updated_on") for value in page.values))
        numbers = [value["id"] for value in page.values]
        seen.update(numbers)
        if mark.fallback is None and numbers:
            mark = replace(mark, walk_cursor=str(min(numbers)))
        async with workspace.warehouse.transaction() as transaction:
            await store(transaction, workspace, repository, page.values, page.asked_at)
            await marks.put(transaction, mark)
    return mark


def _newest_first(workspace: Workspace, repository: Repository, mark: Mark) -> AsyncIterator[Page]:
    """Pages below the number that the walk has come to."""
    endpoint = endpoints.pull_requests(workspace.slug, repository.source_id)
    below = int(mark.walk_cursor) if mark.walk_cursor else None
    return keyset(workspace.client, endpoint, q=_condition(mark), start=below, attempts=_ATTEMPTS_AT_SORTING)


def _by_ranges(workspace: Workspace, repository: Repository, mark: Mark) -> AsyncIterator[Page]:
    """The same without sorting: together with the state filters it fails for good on some large repositories.

    (Met by constructorfabric/insight: 500 every time.) Ranges come in no order, so a killed walk begins them again.
    """
    endpoint = endpoints.pull_requests(workspace.slug, repository.source_id)
    high = int(mark.walk_cursor) - 1 if mark.walk_cursor else None
    return id_windows(workspace.client, endpoint, q=_condition(mark), high=high)


def _condition(mark: Mark) -> str | None:
    if mark.synced_to is not None:
        return f'updated_on >= "{(mark.synced_to - OVERLAP).isoformat()}" OR state = "OPEN"'
    return f'updated_on >= "{mark.since.isoformat()}"' if mark.since else None


async def store(
    transaction: Transaction, workspace: Workspace, repository: Repository, values: Sequence[Json], asked_at: datetime
) -> None:
    """Merges pull requests as the list and the single pull request give them, participants included."""
    workspace_id = workspace.id
    await store_accounts(transaction, workspace, frames.accounts(values), asked_at)
    await pulls.store(
        transaction,
        frames.pulls(workspace_id, repository.id, values, asked_at),
        frames.participants(workspace_id, repository.id, values, asked_at),
    )


async def fetch_one(workspace: Workspace, repository: Repository, number: int) -> bool:
    """Fetches a single pull request; one that is gone is marked as deleted. Returns whether it is there."""
    endpoint = endpoints.pull_request(workspace.slug, repository.source_id, number)
    asked_at = datetime.now(UTC)
    try:
        value = await workspace.client.get(endpoint.path, endpoint.params)
    except NotFound:
        async with workspace.warehouse.transaction() as transaction:
            await pulls.mark_deleted(transaction, repository.id, number)
        return False
    async with workspace.warehouse.transaction() as transaction:
        await store(transaction, workspace, repository, [value], asked_at)
    return True


async def _look_for_the_vanished(
    workspace: Workspace, repository: Repository, seen: set[int], *, everything: bool
) -> None:
    """Asks for those that a complete listing should have held: all that were open, or simply all after a full one."""
    rows = await workspace.warehouse.rows(
        "SELECT source_id FROM bitbucket_pulls WHERE repository_id = %s AND deleted_at IS NULL "
        "AND (state = 'OPEN' OR %s) AND NOT source_id = ANY(%s)",
        [repository.id, everything, list(seen)],
    )
    for row in rows:
        await fetch_one(workspace, repository, row.source_id)


async def record_access(workspace: Workspace, repository: Repository, reason: str | None) -> None:
    """Notes why a repository cannot be read; None where it can."""
    if reason is None and repository.accessible:
        return
    async with workspace.warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE bitbucket_repositories SET api_accessible = %s, inaccessible_reason = %s WHERE id = %s",
            [reason is None, reason, repository.id],
        )


def newest(moments: Iterable[object]) -> datetime | None:
    """The latest of some of Bitbucket's times."""
    return max((moment for one in moments if (moment := time(one))), default=None)


def reaches_below(moments: Sequence[datetime], stop: datetime | None) -> bool:
    """Whether a page of a list that is newest first ends with what is known already.

    Several rows must be older: the order of entries that happened together is nobody's promise.
    """
    return stop is not None and bool(moments) and all(moment < stop for moment in moments[-ROWS_TO_BE_SURE:])


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)
