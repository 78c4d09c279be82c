"""Runs work for many items concurrently; a repository that Bitbucket refuses does not fail the others."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio

from dx_dagster.bitbucket import (
    BadRequest,
    BitbucketError,
    Forbidden,
    Gone,
    NotFound,
    PagingInCircles,
    RefusedOrigin,
    Unavailable,
    Undecided,
    endpoints,
    in_turn,
)
from dx_dagster.importer.growing_limit import GrowingLimit
from dx_dagster.importer.report import REPOSITORIES, Progress, Report, skip
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.imported.marks import Repository

_ATTEMPTS_TO_BE_SURE = 3

OF_ONE_REQUEST = (BadRequest, Forbidden, Gone, NotFound, PagingInCircles, RefusedOrigin, Unavailable, Undecided)
"""What may be wrong with one request and nothing else; but see `lacks_scope`."""

MOST_FAILURES = 3
"""Single requests about one repository that may fail in a row; then the rest of them waits for the next sync."""

SURE = 8
"""So many repositories must lack the same scope, and none have it, before the step fails."""

Item = TypeVar("Item")
OneRepository = TypeVar("OneRepository", bound=Repository)


def lacks_scope(error: BitbucketError) -> bool:
    """Whether the credential lacks a scope, which concerns every repository alike."""
    return isinstance(error, Forbidden) and bool(error.required)


@dataclass
class Singly(Generic[Item]):
    """The items that failed when they were requested one by one, with their errors, and those that were left out."""

    failed: list[tuple[Item, BitbucketError]] = field(default_factory=list)
    left_out: Sequence[Item] = ()


async def ask_singly(items: Sequence[Item], work: Callable[[Item], Awaitable[object]]) -> Singly[Item]:
    """Does `work`, which requests a part of a repository, for one item after the other.

    A part that Bitbucket refuses or cannot deliver holds up neither the others nor the repository.

    Raises:
        NotFound: from `work`.
        BitbucketError: a credential lacks a scope, or none is left.
    """
    done, in_a_row = Singly[Item](), 0
    for number, item in enumerate(items, 1):
        try:
            await work(item)
            in_a_row = 0
        except OF_ONE_REQUEST as error:
            if isinstance(error, NotFound) or lacks_scope(error):
                raise
            done.failed.append((item, error))
            in_a_row += 1
            if in_a_row == MOST_FAILURES:
                done.left_out = items[number:]
                break
    return done


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


async def for_each(
    items: Sequence[Item],
    work: Callable[[Item], Awaitable[None]],
    at_once: int,
    *,
    limit: GrowingLimit | None = None,
) -> None:
    """Does `work` for every item, `at_once` at a time; the first error cancels the rest and is raised ungrouped.

    Requests for earlier items are sent first. `limit`: a lower bound, while it grows.
    """
    waiting = in_turn(items)

    async def worker() -> None:
        while True:
            async with limit.slot() if limit else nullcontext():
                item = next(waiting, None)
                if item is None:
                    return
                await work(item)

    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(min(at_once, len(items))):
                tasks.start_soon(worker)
    except BaseExceptionGroup as group:
        raise _first_of(group) from group


Refused = Callable[[OneRepository, BitbucketError], Awaitable[None]]


@dataclass
class _Refusals(Generic[OneRepository]):
    """Decides whether refusals concern single repositories or the credential.

    Attributes:
        record: called with each refused repository.
        answered: how many repositories were not refused.
        lacking: repositories refused for a missing scope while none has answered.
    """

    workspace: Workspace
    report: Report
    record: Refused[OneRepository] | None
    answered: int = 0
    lacking: list[tuple[OneRepository, BitbucketError]] = field(default_factory=list)
    unavailable: list[BitbucketError] = field(default_factory=list)

    async def refused(self, repository: OneRepository, error: BitbucketError) -> None:
        """Skips the repository; one that lacks a scope waits until another repository has answered."""
        if not lacks_scope(error) or self.answered:
            skip(self.workspace, self.report, repository.slug, error)
            if self.record is not None:
                await self.record(repository, error)
        elif len(self.lacking) >= SURE:
            raise error
        else:
            self.lacking.append((repository, error))

    async def settle(self, asked: int) -> None:
        """Decides about the repositories that wait, once all `asked` are done."""
        if self.lacking and not self.answered:
            raise self.lacking[0][1]
        for repository, error in self.lacking:
            await self.refused(repository, error)
        # One or two may be broken for themselves.
        hopeless = bool(self.unavailable) and len(self.unavailable) == asked
        if hopeless and (asked >= MOST_FAILURES or await is_away(self.workspace)):
            raise self.unavailable[0]


async def for_each_repository(
    workspace: Workspace,
    report: Report,
    repositories: Sequence[OneRepository],
    work: Callable[[OneRepository], Awaitable[None]],
    *,
    refused: Refused[OneRepository] | None = None,
    at_once: int | None = None,
    answered: int = 0,
) -> None:
    """Does `work` for every repository; one that Bitbucket refuses never fails the others.

    `refused` records a repository that answers 403 or 404. `answered`: how many did in the killed sync that this
    one continues.

    Raises:
        BitbucketError: a credential lacks a scope, or Bitbucket could deliver none of the repositories.
    """
    refusals = _Refusals(workspace, report, refused, answered)
    progress = Progress(workspace, report, len(repositories), REPOSITORIES)

    async def work_on(repository: OneRepository) -> None:
        try:
            await work(repository)
            refusals.answered += 1
        except (Forbidden, NotFound) as error:
            await refusals.refused(repository, error)
        except (BadRequest, Gone, PagingInCircles, RefusedOrigin, Undecided) as error:
            skip(workspace, report, repository.slug, error)
        except Unavailable as error:
            skip(workspace, report, repository.slug, error)
            refusals.unavailable.append(error)
        progress.add()

    with workspace.unstored() as limit:
        await for_each(repositories, work_on, at_once or workspace.most_at_once, limit=limit)
    await refusals.settle(len(repositories))


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a task group: its tasks fail for the same reason, and the message should be one sentence."""
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


async def is_away(workspace: Workspace) -> bool:
    """Whether Bitbucket is down: the list of repositories cannot be read either."""
    path = endpoints.repositories(workspace.slug).path
    try:
        await workspace.client.get(path, {"pagelen": endpoints.LEAST_PAGE}, attempts=_ATTEMPTS_TO_BE_SURE)
    except BitbucketError as error:
        return isinstance(error, Unavailable)
    return False
