"""Recognizes API keys, and slows down guessing."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import anyio
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from dx_dagster.api.installation import ServedInstallation
from dx_dagster.api.throttle import Guessing
from dx_dagster.warehouse import api_keys
from dx_dagster.warehouse.api_keys import ApiKey

_SECONDS_BETWEEN_LISTS = 0.5
_MOST_REQUESTS = 3_000  # in a minute, with one key


class WrongKeyError(Exception):
    """The key is unknown or revoked."""


class RefusedKeyError(Exception):
    """The key does not open what the request wants.

    Attributes:
        status: of the answer.
        headers: of the answer.
    """

    status = HTTPStatus.FORBIDDEN

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers


class InsightsOnlyError(RefusedKeyError):
    """The key opens insights and nothing else."""

    def __init__(self) -> None:
        super().__init__("This API key opens insights and nothing else.")


class TooManyRequestsError(RefusedKeyError):
    """Too many requests came in this minute, with the key or with wrong ones."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, {"Retry-After": str(int(seconds) + 1)})


class TooManyWrongKeysError(TooManyRequestsError):
    """The key is unknown or revoked, and its address gave too many such keys."""

    def __init__(self, seconds: float) -> None:
        super().__init__("Too many wrong keys. Try again later.", seconds)


@dataclass(eq=False)
class Keys:
    """Recognizes keys, and limits the requests with each.

    After too many wrong keys from an address, it accepts only keys in a list of those in use. So a valid key passes
    whoever shares its address, and all wrong keys together cost two queries a second.
    """

    installation: ServedInstallation
    guessing: Guessing = field(default_factory=Guessing)
    most_requests: int = _MOST_REQUESTS
    clock: Callable[[], float] = time.monotonic
    _listed: frozenset[bytes] = frozenset()
    _listed_at: float = float("-inf")
    _listing: anyio.Lock = field(default_factory=anyio.Lock)

    async def recognized(self, connection: HTTPConnection, key: SecretStr, *, for_insights: bool = False) -> ApiKey:
        """The key that came over the connection.

        Raises:
            WrongKeyError: it is unknown or revoked.
            InsightsOnlyError: it opens insights alone, and the request is not `for_insights`.
            TooManyRequestsError: its address gave too many wrong keys, or too many requests came with the key.
        """
        found = await self._found(connection, key)
        if found.insights_only and not for_insights:
            raise InsightsOnlyError
        await self.count(found)
        return found

    async def count(self, key: ApiKey) -> None:
        """Counts a request with the key.

        Raises:
            TooManyRequestsError: too many came in this minute.
        """
        counted = await api_keys.count_request(await self.installation.warehouse(), key)
        if counted.requests > self.most_requests:
            said = f"More than {self.most_requests:,} requests in a minute came with this API key."
            raise TooManyRequestsError(said, counted.seconds_left)

    async def _found(self, connection: HTTPConnection, key: SecretStr) -> ApiKey:
        address = connection.client.host if connection.client else ""
        wait = self.guessing.must_wait(address)
        if wait > 0 and not await self._is_listed(key):
            raise TooManyWrongKeysError(wait)
        found = await api_keys.recognize(await self.installation.warehouse(), key)
        if found is None:
            self._listed -= {api_keys.digest(key)}  # it was revoked since
            wait = await self.guessing.was_wrong(await self.installation.warehouse(), address)
            raise TooManyWrongKeysError(wait) if wait else WrongKeyError
        return found

    async def _is_listed(self, key: SecretStr) -> bool:
        """Whether the key is in use. A key that the list lacks waits for the next list."""
        digest, asked_at = api_keys.digest(key), self.clock()
        if digest in self._listed:
            return True
        async with self._listing:
            if self._listed_at < asked_at:
                await anyio.sleep(max(0.0, self._listed_at + _SECONDS_BETWEEN_LISTS - self.clock()))
                listed_at = self.clock()
                self._listed = await api_keys.digests_in_use(await self.installation.warehouse())
                self._listed_at = listed_at
        return digest in self._listed
