"""Limits wrong keys by address."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from dx_dagster.http_limits.addresses import counted_as
from dx_dagster.warehouse import wrong_keys
from dx_dagster.warehouse.database import Warehouse

_WRONG_KEYS = 20
_SECONDS = 60.0
_REMEMBERED = 10_000  # addresses
_BETWEEN_FORGETTING = 100  # wrong keys


@dataclass
class Guessing:
    """The addresses that gave too many wrong keys; `keys.py` decides by them.

    The database counts, for all processes of the API. Each remembers the addresses that must wait, so that these cost
    nothing. Behind a proxy the address is the proxy's, unless DX_TRUSTED_PROXIES lists the proxy.
    """

    most: int = _WRONG_KEYS
    seconds: float = _SECONDS
    clock: Callable[[], float] = time.monotonic
    _waiting: OrderedDict[str, float] = field(default_factory=OrderedDict)
    _noted: int = 0

    def must_wait(self, address: str) -> float:
        """Seconds until the address may give another wrong key; 0 when it may now, as far as this process knows."""
        return max(0.0, self._waiting.get(counted_as(address), 0.0) - self.clock())

    async def was_wrong(self, warehouse: Warehouse, address: str) -> float:
        """Counts a wrong key; returns the seconds to wait if it was one too many, else 0."""
        network = counted_as(address)
        noted = await wrong_keys.note(warehouse, network, most=self.most, seconds=self.seconds)
        if noted.given >= self.most:
            self._waiting[network] = self.clock() + noted.wait
            self._waiting.move_to_end(network)
            while len(self._waiting) > _REMEMBERED:
                self._waiting.popitem(last=False)
        self._noted += 1
        if self._noted % _BETWEEN_FORGETTING == 0:
            await wrong_keys.forget(warehouse, self.seconds)
        return noted.wait if noted.given > self.most else 0.0
