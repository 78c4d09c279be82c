"""How many requests are under way at once: more while that helps, half as many when the API groans."""

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

_STRAINED = 2.0  # answers take this many times the usual time


@dataclass(eq=False)
class Slot:
    """A place among the requests under way; `began` is when it was got (monotonic seconds)."""

    began: float = 0.0


class AdaptiveLimiter:
    """Additive growth, multiplicative decrease, as TCP does it.

    One more place after each round of good answers, while all places are taken and latency stays near the usual one of
    that kind of request; half of them after a 429, a 5xx or a time-out, at most once a round trip: what was sent before
    the last cut says nothing about the new limit.
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
        """Wait, first come first served, for a place."""
        slot = Slot()
        await self._places.acquire_on_behalf_of(slot)
        slot.began = time.monotonic()
        try:
            yield slot
        finally:
            self._places.release_on_behalf_of(slot)

    def succeeded(self, kind: str, seconds: float) -> None:
        """A good answer to a request of this kind came after so many seconds."""
        self._observe(kind, seconds)
        self._good += 1
        if self._good >= self.limit and self.in_flight == self.limit < self._maximum and self._strain < _STRAINED:
            self._places.total_tokens = self.limit + 1
            self._good = 0

    def overloaded(self, slot: Slot) -> None:
        """The request in this slot met a 429, a 5xx or a time-out."""
        if slot.began > self._cut_at:
            self._cut_at = time.monotonic()
            self._places.total_tokens = max(1, self.limit // 2)
            self._good = 0

    def _observe(self, kind: str, seconds: float) -> None:
        usual = self._usual.setdefault(kind, seconds)
        # Good times are believed quickly and bad ones slowly, else a crowd would pass for the usual.
        self._usual[kind] = usual + (seconds - usual) * (0.2 if seconds < usual else 0.01)
        self._strain += (seconds / max(usual, 0.001) - self._strain) * 0.1
