"""Decides when a row that is missing from a listing is really gone.

A listing can be empty or cut short without meaning it (bitbucket-api.md, "Learnt since"): a token that lost its access
gets 200 and no rows. So each row that a suspicious listing lacks is requested by itself, and stays unless confirmed.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from dx_dagster.bitbucket import (
    BitbucketError,
    Endpoint,
    Forbidden,
    Gone,
    NotFound,
    RateLimited,
    Unauthorized,
    Undecided,
    endpoints,
    fetch_object,
    find_row,
    sentence,
)
from dx_dagster.bitbucket.row_keys import Key
from dx_dagster.frames.reading import Json
from dx_dagster.importer.each import OF_ONE_REQUEST
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.imported import absences, marks
from dx_dagster.warehouse.imported.marks import Repository

MOST = 25
"""Requests of one sync to confirm what one listing lacks; the rest waits for the next sync.

Rows that are not confirmed are requested again with growing pauses.
"""

_UNAVAILABLE = "unavailable"
_PATIENCE = 5.0  # seconds that a credential may wait for its budget while others can be asked
_FEW = 3
_SHARE = 10


class NothingReadError(BitbucketError):
    """No repository could be read: the answers were empty, refusals or missing; `code` says which."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code

    @classmethod
    def because(cls, error: BitbucketError) -> "NothingReadError":
        made = cls(str(error), error.code or _UNAVAILABLE)
        made.status = error.status
        return made


def is_suspicious(*, stored: int, missing: int, listed: int) -> bool:
    """Whether a listing of `listed` rows, which lacks `missing` of the `stored` ones, must be confirmed."""
    return missing > 0 and (listed == 0 or (missing >= _FEW and missing * _SHARE > stored))


async def confirmed(
    workspace: Workspace, missing: Collection[str], is_gone: Callable[[str], Awaitable[bool]]
) -> list[str]:
    """Requests some of the missing rows (ids) by themselves; returns those that are gone.

    A row stays if its request fails or is refused.
    """
    gone = []
    for subject in await absences.next_to_ask(workspace.warehouse, missing, MOST):
        try:
            if await is_gone(subject):
                gone.append(subject)
        except OF_ONE_REQUEST:
            continue
    return gone


async def asked(workspace: Workspace, endpoint: Endpoint, key: Key) -> Json | None:
    """The object at the endpoint; None where Bitbucket answers 404. `key`: as in `fetch_object`.

    A 410 says that an endpoint was removed, not what it was asked for (bitbucket-api.md, "Errors").
    """
    try:
        return await fetch_object(workspace.client, endpoint, key)
    except NotFound:
        return None


async def listed(workspace: Workspace, uuid: str) -> Json | None:
    """The repository as a list shows it that answers 404 itself; None where no credential's list contains it.

    Raises:
        BitbucketError: a credential's list cannot be read at the moment.
    """
    endpoint = endpoints.repositories(workspace.slug)
    usable = workspace.client.pool.usable
    for credential in usable:
        client = workspace.client.using(credential, _PATIENCE if len(usable) > 1 else None)
        try:
            row = await find_row(client, endpoint, "uuid", uuid)
        except (Unauthorized, Forbidden, NotFound, Gone):
            continue
        except RateLimited as error:
            if len(usable) == 1:
                raise
            raise Undecided(f"{endpoint.path} cannot be read with each credential: {error}") from error
        if row is not None:
            return row
    return None


async def repository_answers(workspace: Workspace, repository: Repository) -> bool:
    """Whether the repository itself can be read: otherwise a 404 of something in it means nothing."""
    try:
        endpoint = endpoints.repository(workspace.slug, repository.source_id)
        return await asked(workspace, endpoint, "uuid") is not None
    except OF_ONE_REQUEST:
        return False


async def require_something_visible(workspace: Workspace) -> None:
    """Checks that a 404 means something: a token that lost its access gets 404 for everything.

    Raises:
        NothingReadError: the list of repositories is empty or refused to every credential.
    """
    path, params = endpoints.repositories(workspace.slug).path, {"pagelen": endpoints.LEAST_PAGE}
    refusal: BitbucketError | None = None
    usable = workspace.client.pool.usable
    asking = [(credential, _PATIENCE if len(usable) > 1 else None) for credential in usable]
    for credential, patience in asking:
        try:
            answer = await workspace.client.using(credential, patience).get(path, params)
        except (Unauthorized, Forbidden, NotFound, Gone) as error:
            refusal = refusal or error
            continue
        except RateLimited:
            if patience is None:
                raise
            asking.append((credential, None))  # it is waited for once the others have been asked
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
    """Checks that a refusal means something: all repositories may be listed and refused.

    Raises:
        NothingReadError: none of the first readable repositories can be read any longer.
    """
    known = [one for one in await marks.repositories(workspace.warehouse, workspace.id) if one.accessible]
    if not await _one_answers(workspace, known):
        raise NothingReadError.because(refusal)


async def _one_answers(workspace: Workspace, repositories: Sequence[Repository]) -> bool:
    """Whether the pull requests of one of the first few repositories can be read."""
    for repository in repositories[:_FEW]:
        endpoint = endpoints.pull_requests(workspace.slug, repository.source_id)
        with suppress(BitbucketError):
            await workspace.client.get(endpoint.path, {**endpoint.params, "pagelen": endpoints.LEAST_PAGE})
            return True
    return False


@dataclass
class AccessCheck:
    """Checks once, for many refusals that come together, whether the credentials still see anything."""

    workspace: Workspace
    _checked: bool = field(default=False, init=False)

    async def check(self, refusal: BitbucketError) -> None:
        """Checks that a refusal concerns only its own resource.

        Raises:
            NothingReadError: the credentials see nothing, or can read nothing.
        """
        if not self._checked:
            await require_something_visible(self.workspace)
            if isinstance(refusal, Forbidden):
                await _require_something_readable(self.workspace, refusal)
            self._checked = True


class Reading:
    """Whether a step that reads every repository could read any."""

    def __init__(self, workspace: Workspace, repositories: Sequence[Repository]) -> None:
        self._workspace = workspace
        self._asked = {one.id for one in repositories}
        self._answered = False
        self._errors: list[BitbucketError] = []

    @asynccontextmanager
    async def of_repository(self) -> AsyncIterator[None]:
        """Wraps the reading of one repository."""
        try:
            yield
        except BitbucketError as error:
            self._errors.append(error)
            raise
        self._answered = True

    @asynccontextmanager
    async def of_all(self) -> AsyncIterator[None]:
        """Wraps the reading of all repositories.

        Raises:
            NothingReadError: none of them could be read, nor any other repository.
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
            raise NothingReadError(self._message(first), first.code or _UNAVAILABLE) from first
        if failure is not None:
            raise failure

    def _message(self, first: BitbucketError) -> str:
        others = len(self._asked) - 1
        return f"{sentence(str(first))} No other repository could be read either" if others else str(first)

    async def _another_answers(self) -> bool:
        """Whether a repository can be read that the step left out as quiet."""
        known = await marks.repositories(self._workspace.warehouse, self._workspace.id)
        others = sorted((one for one in known if one.id not in self._asked), key=lambda one: not one.accessible)
        return await _one_answers(self._workspace, others)
