"""Counts wrong keys by address."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network

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
        wrong = self._wrong.get(_network(address))
        if wrong is None:
            return 0.0
        now = self.clock()
        while wrong and wrong[0] <= now - self.seconds:
            wrong.popleft()
        return wrong[0] + self.seconds - now if len(wrong) >= self.most else 0.0

    def was_wrong(self, address: str) -> None:
        network = _network(address)
        self._wrong.setdefault(network, deque(maxlen=self.most)).append(self.clock())
        self._wrong.move_to_end(network)
        while len(self._wrong) > _REMEMBERED:
            self._wrong.popitem(last=False)


def _network(address: str) -> str:
    """The address that counts: for IPv6 its /64 network, of which a client can use every address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((int(parsed) >> 64 << 64, 64))) if isinstance(parsed, IPv6Address) else address
