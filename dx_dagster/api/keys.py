"""Recognizes API keys, and slows down guessing."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from dx_dagster.api.installation import ServedInstallation
from dx_dagster.api.throttle import Guessing
from dx_dagster.warehouse import api_keys
from dx_dagster.warehouse.api_keys import ApiKey

_SECONDS_BETWEEN_LISTS = 0.5


class WrongKeyError(Exception):
    """The key is unknown or revoked."""


class TooManyWrongKeysError(Exception):
    """The key is unknown or revoked, and its address gave too many such keys."""

    def __init__(self, seconds: float) -> None:
        super().__init__("Too many wrong keys. Try again later.")
        self.seconds = seconds


@dataclass(eq=False)
class Keys:
    """Recognizes keys. After too many wrong keys from an address, it accepts only keys in a list of those in use.

    So a valid key passes whoever shares its address, and all wrong keys together cost two queries a second.
    """

    installation: ServedInstallation
    guessing: Guessing = field(default_factory=Guessing)
    clock: Callable[[], float] = time.monotonic
    _listed: frozenset[bytes] = frozenset()
    _listed_at: float = float("-inf")
    _listing: anyio.Lock = field(default_factory=anyio.Lock)

    async def recognized(self, connection: HTTPConnection, key: SecretStr) -> ApiKey:
        """The key that came over the connection.

        Raises:
            WrongKeyError: it is unknown or revoked.
            TooManyWrongKeysError: likewise, and its address gave too many wrong keys.
        """
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
