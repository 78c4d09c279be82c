"""Whose API key it is, without an ear for those who try many."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from pydantic import SecretStr

from dx_dagster.api.installation import ServedInstallation
from dx_dagster.api.throttle import Guessing
from dx_dagster.warehouse import api_keys
from dx_dagster.warehouse.api_keys import ApiKey

_SECONDS_BETWEEN_LISTS = 0.5


class WrongKeyError(Exception):
    """No key of this installation, or a revoked one."""


class TooManyWrongKeysError(Exception):
    """No key of this installation either, from an address that gave too many of them."""

    def __init__(self, seconds: float) -> None:
        super().__init__("Too many wrong keys: try again later.")
        self.seconds = seconds


@dataclass(eq=False)
class Keys:
    """Recognizes keys. After too many wrong ones from an address, only those that are listed as in use are looked at.

    So a good key passes whoever else is behind the same address, and all wrong ones together cost two queries a second.
    """

    installation: ServedInstallation
    guessing: Guessing = field(default_factory=Guessing)
    clock: Callable[[], float] = time.monotonic
    _listed: frozenset[bytes] = frozenset()
    _listed_at: float = float("-inf")
    _listing: anyio.Lock = field(default_factory=anyio.Lock)

    async def recognized(self, address: str, key: SecretStr) -> ApiKey:
        """The key.

        Raises:
            WrongKeyError: it is none of this installation.
            TooManyWrongKeysError: likewise, and the address gave too many.
        """
        wait = self.guessing.must_wait(address)
        if wait > 0 and not await self._is_listed(key):
            raise TooManyWrongKeysError(wait)
        found = await api_keys.recognize(await self.installation.warehouse(), key)
        if found is None:
            self._listed -= {api_keys.digest(key)}  # it was revoked since
            self.guessing.was_wrong(address)
            raise WrongKeyError
        return found

    async def _is_listed(self, key: SecretStr) -> bool:
        """Whether the key is in use. One that is not in the last list waits for the next, as all others do."""
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
