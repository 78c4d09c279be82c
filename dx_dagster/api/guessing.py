"""A bound on guessing: who gave too many wrong keys is not listened to for a while."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from pydantic import SecretStr

_WRONG_KEYS = 20
_SECONDS = 60.0
_REMEMBERED = 10_000  # addresses, and keys that were good from one


@dataclass
class Guessing:
    """Counts by address. A key that was good from an address lately still is, or one bad neighbour would lock all out.

    Behind a proxy the address is the proxy's, unless uvicorn is told to trust its headers.
    """

    most: int = _WRONG_KEYS
    seconds: float = _SECONDS
    clock: Callable[[], float] = time.monotonic
    _wrong: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)
    _good: OrderedDict[tuple[str, bytes], None] = field(default_factory=OrderedDict)

    def must_wait(self, address: str, key: SecretStr) -> float:
        """Seconds until this key is looked at; 0 when it may be now."""
        wrong = self._wrong.get(address)
        if wrong is None or (address, _digest(key)) in self._good:
            return 0.0
        now = self.clock()
        while wrong and wrong[0] <= now - self.seconds:
            wrong.popleft()
        return wrong[0] + self.seconds - now if len(wrong) >= self.most else 0.0

    def was_wrong(self, address: str, key: SecretStr) -> None:
        self._good.pop((address, _digest(key)), None)
        wrong = self._wrong.setdefault(address, deque(maxlen=self.most))
        wrong.append(self.clock())
        self._wrong.move_to_end(address)
        while len(self._wrong) > _REMEMBERED:
            self._wrong.popitem(last=False)

    def was_good(self, address: str, key: SecretStr) -> None:
        self._good[address, _digest(key)] = None
        self._good.move_to_end((address, _digest(key)))
        while len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)


def _digest(key: SecretStr) -> bytes:
    return sha256(key.get_secret_value().encode("utf-8", "surrogatepass")).digest()
