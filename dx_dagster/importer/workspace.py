"""What every step of an import works with, and what it reports."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

import anyio

from dx_dagster.bitbucket import (
    BadRequest,
    BitbucketClient,
    BitbucketError,
    Forbidden,
    Gone,
    NotFound,
    PagingInCircles,
    RefusedOrigin,
    Unavailable,
    endpoints,
)
from dx_dagster.frames import identifiers
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported import bounds, repositories
from dx_dagster.warehouse.imported.bounds import Wanted
from dx_dagster.warehouse.imported.marks import Quiet, Repository
from dx_dagster.warehouse.merge import Merge, overriding

Item = TypeVar("Item")

_ATTEMPTS_TO_BE_SURE = 3

SURE = 8
"""So many repositories that lack the same scope, and none that does not, need no more of them."""


class Listener(Protocol):
    """Hears how an import goes on."""

    def progress(self, step: str, done: int, total: int, requests: int) -> None: ...

    def warning(self, message: str) -> None: ...


@dataclass(frozen=True)
class Skipped:
    """Something that could not be imported; the rest was."""

    repository: str
    step: str
    reason: str


@dataclass
class Report:
    """What one step did.

    Attributes:
        requests: sent to Bitbucket, repeated ones included.
        skipped: what could not be imported, and why.
        notes: where a short way failed and the long one was taken.
        written: rows written, by `TABLE/inserted` and `TABLE/updated`.
    """

    step: str
    requests: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: Counter[str] = field(default_factory=Counter)


class Progress:
    """Counts what a step has done, and tells the listener."""

    def __init__(self, workspace: "Workspace", report: Report, total: int) -> None:
        self._workspace, self._report, self._total = workspace, report, total
        self._count = 0

    def add(self, count: int = 1) -> None:
        self._count += count
        self._workspace.listener.progress(self._report.step, self._count, self._total, self._workspace.client.requests)


@dataclass
class NewAccounts:
    """Counts the accounts that were stored for the first time, among them those of a transaction that failed."""

    count: int = 0


@dataclass(frozen=True)
class Workspace:
    """One workspace, the way to it and the way to its tables.

    Attributes:
        slug: name of the workspace in addresses.
        id: of its row; empty until the repositories step has stored one.
        full: fetch all again, whatever the marks say.
        since: lower bound of the import, which every sync keeps; None for all.
        wanted: the bound that was asked for with this sync.
        quiet: which repositories need not be asked every time; None asks all.
        reconcile: pipelines that were created within this time are listed again.
        new_accounts: of all that is stored through this object and its copies.
    """

    slug: str
    id: str
    client: BitbucketClient
    warehouse: Warehouse
    listener: Listener
    full: bool = False
    since: datetime | None = None
    wanted: Wanted | None = None
    quiet: Quiet | None = None
    reconcile: timedelta | None = None
    new_accounts: NewAccounts = field(default_factory=NewAccounts)

    def now(self) -> datetime:
        """The database's clock, which all that import share."""
        return self.warehouse.clock.now()

    def merging(self, how: Merge) -> Merge:
        """How this import merges rows that tell their own date: one of everything goes by when it asked."""
        return overriding(how) if self.full else how

    @property
    def at_once(self) -> int:
        """How many things to work on at a time: while some store what they got, others ask."""
        return 4 * self.client.max_in_flight


class NotImportedError(Exception):
    """A step was asked for before the step that it builds on has ever run."""


async def open_workspace(
    slug: str,
    client: BitbucketClient,
    warehouse: Warehouse,
    listener: Listener,
    *,
    full: bool = False,
    wanted: Wanted | None = None,
    quiet: Quiet | None = None,
    reconcile: timedelta | None = None,
) -> Workspace:
    """The workspace as it is stored, if it is, with its bound moved back where that is `wanted`.

    Raises:
        BoundRefusedError: the bound cannot be moved so.
    """
    slug = await connections.stored_name(warehouse, slug)  # a partition's key may be spelled differently
    async with warehouse.transaction() as transaction:
        await warehouse.set_clock(transaction)  # a run may last so long that clocks drift apart
        workspace_id = await repositories.workspace_id(transaction, slug)
        since = await bounds.settle(transaction, workspace_id, wanted)
    return Workspace(slug, workspace_id or "", client, warehouse, listener, full, since, wanted, quiet, reconcile)


def require_id(workspace: Workspace) -> str:
    """The id of the workspace's row.

    Raises:
        NotImportedError: there is none yet.
    """
    if not workspace.id:
        raise NotImportedError(
            f"Nothing of workspace {workspace.slug} is imported yet: materialize bitbucket/repositories first, or all "
            f"assets together (dx-dagster sync {workspace.slug})."
        )
    return workspace.id


def lacks_scope(error: BitbucketError) -> bool:
    """Whether the credential lacks a scope: every repository would answer the same."""
    return isinstance(error, Forbidden) and bool(error.required)


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


async def for_each(items: Sequence[Item], work: Callable[[Item], Awaitable[None]], at_once: int) -> None:
    """Does `work` for every item, some at a time. The first error ends all, and is raised itself, not in a group."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(min(at_once, len(items))):
                tasks.start_soon(worker)
    except BaseExceptionGroup as group:
        raise _first_of(group) from group


OneRepository = TypeVar("OneRepository", bound=Repository)
Refused = Callable[[OneRepository, BitbucketError], Awaitable[None]]


@dataclass
class _Refusals(Generic[OneRepository]):
    """Repositories that were not imported, and whether that is a matter of the repository or of the credential."""

    workspace: Workspace
    report: Report
    record: Refused[OneRepository] | None
    answered: int = 0
    lacking: list[tuple[OneRepository, BitbucketError]] = field(default_factory=list)
    unavailable: list[BitbucketError] = field(default_factory=list)

    async def refused(self, repository: OneRepository, error: BitbucketError) -> None:
        """A scope that other repositories do not ask for is one that this repository does not grant."""
        if not lacks_scope(error) or self.answered:
            skip(self.workspace, self.report, repository.slug, error)
            if self.record is not None:
                await self.record(repository, error)
        elif len(self.lacking) >= SURE:
            raise error
        else:
            self.lacking.append((repository, error))

    async def settle(self, asked: int) -> None:
        if self.lacking and not self.answered:
            raise self.lacking[0][1]
        for repository, error in self.lacking:
            await self.refused(repository, error)
        if self.unavailable and len(self.unavailable) == asked:
            raise self.unavailable[0]


async def for_each_repository(
    workspace: Workspace,
    report: Report,
    repositories: Sequence[OneRepository],
    work: Callable[[OneRepository], Awaitable[None]],
    *,
    refused: Refused[OneRepository] | None = None,
    at_once: int | None = None,
) -> None:
    """Does `work` for every repository; one that Bitbucket refuses never fails the others.

    `refused` records a repository that answers 403, 404 or 410.

    Raises:
        BitbucketError: a credential lacks a scope, or none of the repositories could be reached.
    """
    refusals = _Refusals(workspace, report, refused)
    progress = Progress(workspace, report, len(repositories))

    async def one(repository: OneRepository) -> None:
        try:
            await work(repository)
            refusals.answered += 1
        except (Forbidden, NotFound, Gone) as error:
            await refusals.refused(repository, error)
        except (BadRequest, PagingInCircles, RefusedOrigin) as error:
            skip(workspace, report, repository.slug, error)
        except Unavailable as error:
            skip(workspace, report, repository.slug, error)
            refusals.unavailable.append(error)
        progress.add()

    await for_each(repositories, one, at_once or workspace.at_once)
    await refusals.settle(len(repositories))


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group of tasks: they fail for the same reason, and people want one sentence."""
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


async def is_away(workspace: Workspace) -> bool:
    """Whether Bitbucket does not answer what it always does."""
    path = endpoints.repositories(workspace.slug).path
    try:
        await workspace.client.get(path, {"pagelen": endpoints.LEAST_PAGE}, attempts=_ATTEMPTS_TO_BE_SURE)
    except BitbucketError as error:
        return isinstance(error, Unavailable)
    return False


def skip(workspace: Workspace, report: Report, repository: str, error: BitbucketError) -> None:
    report.skipped.append(Skipped(repository, report.step, str(error)))
    workspace.listener.warning(f"{report.step}: {repository} skipped: {error}")


def note(workspace: Workspace, report: Report, message: str) -> None:
    report.notes.append(message)
    workspace.listener.warning(f"{report.step}: {message}")


def pull_id(repository: Repository, number: int) -> str:
    return identifiers.of_pull(repository.id, number)
