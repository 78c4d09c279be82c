"""Counts wrong keys by address."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from dx_dagster.http_limits.addresses import counted_as

_WRONG_KEYS = 20
_SECONDS = 60.0
_REMEMBERED = 10_000  # addresses


@dataclass
class Guessing:
    """The recent wrong keys of each address; `keys.py` decides by them.

    Behind a proxy the address is the proxy's, unless DX_TRUSTED_PROXIES lists the proxy.
    """

    most: int = _WRONG_KEYS
    seconds: float = _SECONDS
    clock: Callable[[], float] = time.monotonic
    _wrong: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)

    def must_wait(self, address: str) -> float:
        """Seconds until the address may give another wrong key; 0 when it may now."""
        wrong = self._wrong.get(counted_as(address))
        if wrong is None:
            return 0.0
        now = self.clock()
        while wrong and wrong[0] <= now - self.seconds:
            wrong.popleft()
        return wrong[0] + self.seconds - now if len(wrong) >= self.most else 0.0

    def was_wrong(self, address: str) -> None:
        network = counted_as(address)
        self._wrong.setdefault(network, deque(maxlen=self.most)).append(self.clock())
        self._wrong.move_to_end(network)
        while len(self._wrong) > _REMEMBERED:
            self._wrong.popitem(last=False)
