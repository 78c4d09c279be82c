"""What the first import of a workspace will take, from a few requests after it was connected."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import monotonic
from typing import Any, Self

import anyio

from dx_dagster.bitbucket import BitbucketError, Credential, MemoryLedger, PinnedClient, endpoints
from dx_dagster.bitbucket.concurrency import MODEST
from dx_dagster.bitbucket.origin import Params
from dx_dagster.budgets.window import ASSUMED_LIMIT
from dx_dagster.connections.input import usable
from dx_dagster.connections.verification import Target, asking
from dx_dagster.frames.reading import Json, number, records, text
from dx_dagster.settings import Settings
from dx_dagster.warehouse.budgets import book
from dx_dagster.warehouse.connections import connections, credentials
from dx_dagster.warehouse.connections.connections import StoredConnection
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Warehouse

# docs/performance.md: 700 requests for 2,000 pull requests in 40 repositories, 6,139 for 20,000.
_REQUESTS_A_PULL = 0.3
_REQUESTS_A_REPOSITORY = 4
# The same page: 10.4 s for those 700 with a latency of 60 ms, eight at once, and 4.5 ms of CPU time each.
_SECONDS_TO_START = 2.0
_SECONDS_A_REQUEST = 0.005

_SAMPLE = 8
_PATIENCE_SECONDS = 12.0
_HOUR, _DAY = 3600, 24


@dataclass(frozen=True)
class Expected:
    """What a first import is expected to take.

    Attributes:
        repositories: None where Bitbucket does not say it.
        pull_requests: in all states; None where no repository said it.
        is_sample: the number of pull requests is extrapolated from a few repositories.
        limit: requests an hour.
    """

    repositories: int | None
    pull_requests: int | None
    is_sample: bool
    requests: int | None
    seconds: float | None
    limit: int

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self | None:
        """The expectation that was stored with a connection."""
        return cls(**stored) if stored else None

    @property
    def sentence(self) -> str:
        """What is there and what it takes, such as "25 repositories, about 400 pull requests: about 300 requests"."""
        if self.repositories is None:
            return "Bitbucket does not say how many repositories there are."
        there = _count(self.repositories, "repository", "repositories")
        if self.pull_requests is None or self.requests is None or self.seconds is None:
            return f"{there}. Bitbucket does not say how many pull requests they have."
        pulls = f"about {about(self.pull_requests):,} pull requests"
        if not self.is_sample:
            pulls = _count(self.pull_requests, "pull request", "pull requests")
        takes = f"about {about(self.requests):,} requests, {_duration(self.seconds)}"
        return f"{there}, {pulls}: {takes}; at {self.limit:,} requests an hour {_within(self.requests / self.limit)}."


def about(value: float) -> int:
    """A number with two significant digits."""
    unit: int = 10 ** max(0, int(math.log10(max(value, 1))) - 1)
    return round(value / unit) * unit


def _count(value: int, one: str, many: str) -> str:
    return f"{value:,} {one if value == 1 else many}"


def _duration(seconds: float) -> str:
    if seconds < 100:  # noqa: PLR2004 - seconds up to there
        return f"{about(max(1.0, seconds))} s"
    return f"{about(seconds / 60)} min" if seconds < 2 * _HOUR else f"{about(seconds / _HOUR)} h"


def _within(hours: float) -> str:
    if hours <= 1:
        return "within the first hour"
    if hours <= 2 * _DAY:
        return f"within about {math.ceil(hours)} hours"
    return f"within about {math.ceil(hours / _DAY)} days"


async def expect(settings: Settings, warehouse: Warehouse, connection: StoredConnection) -> Expected | None:
    """Asks what the workspace holds, with at most ten requests, and stores what its first import will take.

    It never fails: what Bitbucket does not say, or not in time, stays unknown. None where no credential can be used,
    or the workspace was imported already.
    """
    if connection.type != "bitbucket" or connection.last_synced_at is not None:
        return None
    stored = await credentials.all_of(warehouse, Vault.of(settings), connection.id)
    if not stored:
        return None
    credential, ledger = usable(stored[0]), MemoryLedger()
    target = Target.of(settings, connection.type, connection.workspace)
    async with asking(target, credential, ledger) as client:
        survey = _Survey(client, connection.workspace)
        with anyio.move_on_after(_PATIENCE_SECONDS):
            await survey.take()
        requests = client.client.requests
    await book(warehouse, settings.budget_window, credential.budget, requests)
    found = survey.expected(_limit(ledger, credential), min(settings.max_in_flight, MODEST))
    await connections.expect(warehouse, connection.id, asdict(found))
    return found


def _limit(ledger: MemoryLedger, credential: Credential) -> int:
    return ledger.books(credential.budget).limit or ASSUMED_LIMIT


class _Survey:
    """Counts repositories, and the pull requests of a sample of them.

    The list is sorted by activity: of more than a page, half of the sample is from the first page, and half from one in
    the middle of the others.
    """

    def __init__(self, client: PinnedClient, workspace: str) -> None:
        self._client, self._workspace = client, workspace
        self._repositories: int | None = None
        self._strata: list[_Stratum] = []
        self._latencies: list[float] = []

    async def take(self) -> None:
        first = await self._page(1)
        if first is None:
            return
        listed = _uuids(first)
        size = _size(first)
        self._repositories = max(size or 0, len(listed))
        if size is None and "next" in first:
            self._repositories = None
            return
        strata = [(listed, min(self._repositories, endpoints.PAGE))]
        if (rest := self._repositories - endpoints.PAGE) > 0:
            others = await self._page(2 + (math.ceil(rest / endpoints.PAGE) - 1) // 2)
            strata.append((_uuids(others) if others else [], rest))
        self._strata = [
            _Stratum(repositories, _spread(uuids, _SAMPLE // len(strata)), []) for uuids, repositories in strata
        ]
        async with anyio.create_task_group() as group:
            for stratum in self._strata:
                for uuid in stratum.sample:
                    group.start_soon(self._count_pulls, stratum, uuid)

    async def _page(self, page: int) -> Json | None:
        params: Params = {"pagelen": endpoints.PAGE, "sort": "-updated_on", "fields": "size,next,values.uuid"}
        asked = {**params, "page": page} if page > 1 else params
        return await self._ask(endpoints.repositories(self._workspace).path, asked)

    async def _count_pulls(self, stratum: "_Stratum", uuid: str) -> None:
        endpoint = endpoints.pull_requests(self._workspace, uuid)
        params = {**endpoint.params, "pagelen": endpoints.LEAST_PAGE, "fields": "size"}
        body = await self._ask(endpoint.path, params)
        if body is not None and (size := _size(body)) is not None:
            stratum.counts.append(size)

    async def _ask(self, path: str, params: Params) -> Json | None:
        """The object that Bitbucket answers; None where it refuses or answers something else."""
        began = monotonic()
        try:
            body = await self._client.get(path, params, attempts=1)
        except BitbucketError:
            return None
        self._latencies.append(monotonic() - began)
        return body if isinstance(body, dict) else None

    def expected(self, limit: int, at_once: int) -> Expected:
        found = Expected(self._repositories, None, True, None, None, limit)
        known = [stratum for stratum in self._strata if stratum.counts]
        if self._repositories is None or (self._repositories and not known):
            return found
        pulls = round(sum(one.repositories * statistics.fmean(one.counts) for one in known))
        requests = round(self._repositories * _REQUESTS_A_REPOSITORY + pulls * _REQUESTS_A_PULL)
        latency = statistics.median(self._latencies)
        return replace(
            found,
            pull_requests=pulls,
            is_sample=any(len(one.counts) < one.repositories for one in self._strata),
            requests=requests,
            seconds=round(_SECONDS_TO_START + requests * (latency / at_once + _SECONDS_A_REQUEST), 1),
        )


@dataclass(frozen=True)
class _Stratum:
    """Repositories that a sample stands for, and the numbers of pull requests in it."""

    repositories: int
    sample: Sequence[str]
    counts: list[int]


def _size(page: Json) -> int | None:
    """The length of the whole list, where the page says it."""
    size = number(page.get("size"))
    return size if size is not None and size >= 0 else None


def _uuids(page: Json) -> list[str]:
    return [uuid for one in records(page, "values") if (uuid := text(one.get("uuid")))]


def _spread(items: Sequence[str], most: int) -> list[str]:
    """At most so many of the items, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[int((index + 0.5) * len(items) / most)] for index in range(most)]
