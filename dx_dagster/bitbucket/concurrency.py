"""How many requests are in flight at once: more while that helps, half as many when the API is overloaded."""

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

_STRAINED = 2.0  # responses take this many times the usual latency


@dataclass(eq=False)
class Slot:
    """Permission for one request in flight; `began` is when it was granted (monotonic seconds)."""

    began: float = 0.0


class AdaptiveLimiter:
    """Limits concurrency by additive increase and multiplicative decrease, as TCP does.

    The limit grows by one after each round of good responses, while all slots are taken and latency stays near the
    usual one of that kind of request. It is halved after a 429, a 5xx or a timeout, at most once a round trip: requests
    sent before the last decrease say nothing about the new limit.
    """

    def __init__(self, maximum: int = 16, start: int = 4) -> None:
        if maximum < 1 or start < 1:
            raise ValueError("at least one request must be allowed at a time")
        self._maximum = maximum
        self._places = anyio.CapacityLimiter(min(start, maximum))
        self._good = 0
        self._cut_at = -math.inf
        self._usual: dict[str, float] = {}
        self._strain = 1.0

    @property
    def limit(self) -> int:
        return int(self._places.total_tokens)

    @property
    def in_flight(self) -> int:
        return self._places.borrowed_tokens

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Waits, first come first served, for a slot."""
        slot = Slot()
        await self._places.acquire_on_behalf_of(slot)
        slot.began = time.monotonic()
        try:
            yield slot
        finally:
            self._places.release_on_behalf_of(slot)

    def succeeded(self, kind: str, seconds: float) -> None:
        """Records a good response to a request of this kind after so many seconds."""
        self._observe(kind, seconds)
        self._good += 1
        if self._good >= self.limit and self.in_flight == self.limit < self._maximum and self._strain < _STRAINED:
            self._places.total_tokens = self.limit + 1
            self._good = 0

    def overloaded(self, slot: Slot) -> None:
        """Records that the request in this slot met a 429, a 5xx or a timeout."""
        if slot.began > self._cut_at:
            self._cut_at = time.monotonic()
            self._places.total_tokens = max(1, self.limit // 2)
            self._good = 0

    def _observe(self, kind: str, seconds: float) -> None:
        usual = self._usual.setdefault(kind, seconds)
        # Falling latency is adopted quickly and rising latency slowly, or congestion would become the usual.
        self._usual[kind] = usual + (seconds - usual) * (0.2 if seconds < usual else 0.01)
        self._strain += (seconds / max(usual, 0.001) - self._strain) * 0.1
