"""What a listing lacks: when that may be believed, and how it is confirmed.

A listing can be empty, or cut short, and mean nothing (bitbucket-api.md, "Learnt since"): a token that lost its access
gets 200 and no rows. So what a suspicious listing lacks is asked for by itself, and what is not confirmed stays.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from dx_dagster.bitbucket import (
    BitbucketError,
    Forbidden,
    Gone,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    endpoints,
    sentence,
)
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.imported import absences, marks
from dx_dagster.warehouse.imported.marks import Repository

MOST = 25
"""Requests of one sync to confirm what one listing lacks; the rest waits for the next sync.

What is not confirmed is asked again with pauses that grow.
"""

_UNAVAILABLE = "unavailable"
_FEW = 3
_SHARE = 10


class NothingReadError(BitbucketError):
    """Not one repository could be read, whether the answers were empty, refusals or none at all; `code` says which."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code

    @classmethod
    def because(cls, error: BitbucketError) -> "NothingReadError":
        return cls(str(error), error.code or _UNAVAILABLE)


def is_suspicious(*, stored: int, missing: int, listed: int) -> bool:
    """Whether a listing that holds `listed` rows, and lacks `missing` of those `stored`, must be confirmed."""
    return missing > 0 and (listed == 0 or (missing >= _FEW and missing * _SHARE > stored))


async def confirmed(
    workspace: Workspace, missing: Collection[str], is_gone: Callable[[str], Awaitable[bool]]
) -> list[str]:
    """Asks for some of what is missing (ids of rows) by itself; returns what is gone.

    What cannot be told stays as it is: an answer may fail to come, or be refused.
    """
    gone = []
    for subject in await absences.next_to_ask(workspace.warehouse, missing, MOST):
        try:
            if await is_gone(subject):
                gone.append(subject)
        except (Forbidden, Unavailable):
            continue
    return gone


async def asked(workspace: Workspace, path: str) -> Any:
    """What Bitbucket has there; None where it answers that there is nothing."""
    try:
        return await workspace.client.get(path)
    except (NotFound, Gone):
        return None


async def repository_answers(workspace: Workspace, repository: Repository) -> bool:
    """Whether the repository itself can be read: else a 404 of something in it means nothing."""
    try:
        return await asked(workspace, endpoints.repository(workspace.slug, repository.source_id).path) is not None
    except (Forbidden, Unavailable):
        return False


async def require_something_visible(workspace: Workspace) -> None:
    """To a token that lost its access everything is gone: one must see something for a 404 to mean anything.

    Raises:
        NothingReadError: the list of repositories is empty, or refused, to every credential.
    """
    path, params = endpoints.repositories(workspace.slug).path, {"pagelen": endpoints.LEAST_PAGE}
    refusal: BitbucketError | None = None
    for credential in workspace.client.pool.usable:
        try:
            answer = await workspace.client.using(credential).get(path, params)
        except (Unauthorized, Forbidden, NotFound, Gone) as error:
            refusal = refusal or error
            continue
        if isinstance(answer, dict) and answer.get("values"):
            return
    raise NothingReadError.because(refusal) if refusal else nothing_listed(workspace)


def nothing_listed(workspace: Workspace) -> NothingReadError:
    return NothingReadError(
        f"Bitbucket lists no repository of workspace {workspace.slug} to any credential. They may have lost their "
        "access; nothing was changed",
        "no_resources",
    )


async def _require_something_readable(workspace: Workspace, refusal: BitbucketError) -> None:
    """Repositories may be listed and refused, every one: then a refusal says nothing about the one that was asked for.

    Raises:
        NothingReadError: of the repositories that could be read, none of some can.
    """
    known = [one for one in await marks.repositories(workspace.warehouse, workspace.id) if one.accessible]
    if not await _one_answers(workspace, known):
        raise NothingReadError.because(refusal)


async def _one_answers(workspace: Workspace, repositories: Sequence[Repository]) -> bool:
    """Whether the pull requests of one of the first of these can be read."""
    for repository in repositories[:_FEW]:
        endpoint = endpoints.pull_requests(workspace.slug, repository.source_id)
        with suppress(BitbucketError):
            await workspace.client.get(endpoint.path, {**endpoint.params, "pagelen": endpoints.LEAST_PAGE})
            return True
    return False


@dataclass
class Doubt:
    """Asks once, for many refusals that come together, whether the credentials still see anything."""

    workspace: Workspace
    _settled: bool = field(default=False, init=False)

    async def settle(self, refusal: BitbucketError) -> None:
        """Returns where the refusal may be believed.

        Raises:
            NothingReadError: the credentials see nothing, or may read nothing.
        """
        if not self._settled:
            await require_something_visible(self.workspace)
            if isinstance(refusal, Forbidden):
                await _require_something_readable(self.workspace, refusal)
            self._settled = True


class Reading:
    """Whether a step that asks every repository could read any."""

    def __init__(self, workspace: Workspace, repositories: Sequence[Repository]) -> None:
        self._workspace = workspace
        self._asked = {one.id for one in repositories}
        self._answered = False
        self._errors: list[BitbucketError] = []

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Around the reading of one repository."""
        try:
            yield
        except BitbucketError as error:
            self._errors.append(error)
            raise
        self._answered = True

    @asynccontextmanager
    async def whole(self) -> AsyncIterator[None]:
        """Around the reading of all.

        Raises:
            NothingReadError: none of them could be read, nor any other.
        """
        failure: BitbucketError | None = None
        try:
            yield
        except BitbucketError as error:
            failure = error
        if failure is None and not self._errors:
            return
        first = next((one for one in (failure, *self._errors) if one is not None and one.code), failure)
        first = first or next((one for one in self._errors if not isinstance(one, RateLimited)), None)
        hopeless = first is not None and not isinstance(first, RateLimited) and not self._answered
        if first is not None and hopeless and not await self._another_answers():
            raise NothingReadError(self._words(first), first.code or _UNAVAILABLE) from first
        if failure is not None:
            raise failure

    def _words(self, first: BitbucketError) -> str:
        others = len(self._asked) - 1
        return f"{sentence(str(first))} No other repository could be read either" if others else str(first)

    async def _another_answers(self) -> bool:
        """Quiet repositories were not asked: some of them may answer what the others refuse."""
        known = await marks.repositories(self._workspace.warehouse, self._workspace.id)
        others = sorted((one for one in known if one.id not in self._asked), key=lambda one: not one.accessible)
        return await _one_answers(self._workspace, others)
