"""Runs work for each of many pull requests."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from dx_dagster.bitbucket import BitbucketError, CredentialsExhausted, NotFound, RateLimited, Unavailable
from dx_dagster.importer.each import for_each, is_away, lacks_scope
from dx_dagster.importer.pull_requests import fetch_one
from dx_dagster.importer.report import Progress, Report, skip
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported import marks, pulls
from dx_dagster.warehouse.imported.marks import Repository
from dx_dagster.warehouse.imported.stale import Part, Scope, StalePull

# After so many unavailable pull requests in a row, Bitbucket may be down.
HOPELESS = 8


@dataclass(frozen=True, slots=True)
class PullRow:
    """A pull request that needs a request, as it was stored when that was decided."""

    id: str
    repository: Repository
    number: int
    updated_at: datetime | None
    version: str = ""


Find = Callable[[Warehouse, Scope], Awaitable[list[StalePull]]]


async def pull_rows(
    workspace: Workspace,
    find: Find,
    pulls: Collection[str] | None = None,
    repositories: Collection[str] = (),
    parts: Collection[Part] | None = None,
) -> list[PullRow]:
    """The pull requests that a query of `warehouse.imported.stale` finds, last changed first.

    `pulls` and `repositories` narrow its scope by ids, `parts` by numbers, as in `Scope`. Pull requests that rest after
    a refusal are left out, except with `--full`.
    """
    known = await _accessible(workspace)
    scope = Scope(list(known), resting=workspace.full, pulls=pulls, repositories=repositories, parts=parts)
    return [
        PullRow(row.id, known[row.repository_id], row.number, row.updated_at, row.version)
        for row in await find(workspace.warehouse, scope)
    ]


async def scope_of(workspace: Workspace) -> Scope:
    """All pull requests that `pull_rows` considers."""
    return Scope(list(await _accessible(workspace)), resting=workspace.full)


async def _accessible(workspace: Workspace) -> dict[str, Repository]:
    stored = await marks.repositories(workspace.warehouse, workspace.id)
    return {one.id: one for one in stored if one.accessible}


async def for_each_pull(
    workspace: Workspace,
    report: Report,
    rows: Sequence[PullRow],
    work: Callable[[PullRow], Awaitable[None]],
    progress: Progress | None = None,
) -> None:
    """Does `work` for each pull request; one that Bitbucket refuses is skipped and does not fail the others.

    `progress` counts them where the step has more to do than these.

    Raises:
        BitbucketError: a credential lacks a scope, no credential is left, or Bitbucket is down.
    """
    lost = 0
    progress = progress or Progress(workspace, report, len(rows))

    async def work_on(row: PullRow) -> None:
        nonlocal lost
        try:
            await _work_or_mark(workspace, row, work)
            lost = 0
        except BitbucketError as error:
            lost = lost + 1 if isinstance(error, Unavailable) else 0
            if lacks_scope(error) or isinstance(error, CredentialsExhausted | RateLimited):
                raise
            if lost >= HOPELESS:
                # Pull requests that always fail take the most attempts, so they come together at the end.
                if await is_away(workspace):
                    raise
                lost = 0
            skip(workspace, report, f"{row.repository.slug}#{row.number}", error)
            if not isinstance(error, Unavailable):
                async with workspace.warehouse.transaction() as transaction:
                    await pulls.refused(transaction, row, row.updated_at)
        progress.add()

    with workspace.unstored() as limit:
        await for_each(rows, work_on, workspace.most_at_once, limit=limit)


async def _work_or_mark(workspace: Workspace, row: PullRow, work: Callable[[PullRow], Awaitable[None]]) -> None:
    """Does `work`; where it answers 404, the pull request itself may be deleted and is fetched.

    Raises:
        NotFound: the pull request exists, or its repository answers 404 too.
    """
    try:
        await work(row)
    except NotFound:
        if await fetch_one(workspace, row.repository, row.number):
            raise
