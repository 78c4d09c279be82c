"""How many requests are in flight at once: more while the API serves them side by side, fewer when it is overloaded."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

MODEST = 8
"""So many requests at once have never strained Bitbucket. Latency alone does not reduce the limit below it."""

_START = 4
_TOLERATED = 2.0  # requests that may wait at the server; see `_tolerated`
_TOLERATED_SHARE = 1 / 6
_RECENT = 1 / 32  # weight of one response in the recent latency of its kind
_FIRST = 8  # responses of a kind that are averaged before they count


@dataclass(eq=False)
class Slot:
    """Permission for one request in flight; `began` is when it was granted (monotonic seconds)."""

    began: float = 0.0


@dataclass
class _Latency:
    """Latency of one kind of request, in seconds.

    Attributes:
        recent: the moving average.
        usual: the average while no more than `MODEST` requests are in flight.
    """

    count: int = 0
    recent: float = 0.0
    usual: float = 0.0

    def observe(self, seconds: float, strain: float, *, modest: bool) -> None:
        self.count += 1
        self.recent += (seconds - self.recent) * max(_RECENT, 1 / self.count)
        if modest:
            self.usual = self.recent
        elif self.count <= _FIRST:
            self.usual = self.recent / strain  # the first response of this kind came while others were strained
        else:
            self.usual = min(self.usual, self.recent)

    def strain_of(self, seconds: float) -> float | None:
        """How many times the usual latency this is; None while that is unknown."""
        return seconds / max(self.usual, 0.001) if self.count > _FIRST else None


class AdaptiveLimiter:
    """Limits concurrency by latency, as TCP Vegas does, and by multiplicative decrease after errors.

    Of L requests in flight, L * (1 - usual latency / recent latency) wait at the server. The limit grows by one after
    each half round of good responses while all slots are taken and few requests wait, and falls by one while many wait.
    So it finds the concurrency that the server serves.

    It is halved after a 429, a 5xx or a timeout, at most once a round trip: requests sent before the last decrease say
    nothing about the new limit. Then it grows by one a round. After a 429 it stays at `MODEST` at most: more may have
    been the reason, and where a budget was, more requests at once gain nothing.
    """

    def __init__(self, maximum: int = 32, start: int = _START) -> None:
        if maximum < 1 or start < 1:
            raise ValueError("at least one request must be allowed at a time")
        self._maximum = maximum
        self._places = anyio.CapacityLimiter(min(start, maximum))
        self._good = 0
        self._cut_at: float | None = None
        self._latencies: dict[str, _Latency] = {}
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
        latency = self._latencies.setdefault(kind, _Latency())
        latency.observe(seconds, self._strain, modest=self.in_flight <= MODEST)
        if (strain := latency.strain_of(seconds)) is not None:
            self._strain += (strain - self._strain) / max(self.limit, MODEST)
        self._good += 1
        if self._good < self._round:
            return
        waiting = self.limit * (1 - 1 / max(self._strain, 1.0))
        if waiting < self._tolerated and self.in_flight == self.limit < self._maximum:
            self._move_to(self.limit + 1)
        elif waiting > 2 * self._tolerated and self.limit > MODEST:
            self._move_to(self.limit - 1)

    def overloaded(self, slot: Slot, *, limited: bool = False) -> None:
        """Records that the request in this slot met a 429 (`limited`), a 5xx or a timeout."""
        if limited:
            self._maximum = min(self._maximum, MODEST)
        if self._cut_at is None or slot.began > self._cut_at:
            self._cut_at = time.monotonic()
            self._move_to(max(1, min(self.limit // 2, self._maximum)))

    @property
    def _round(self) -> int:
        """Good responses before the limit changes."""
        if self._cut_at is not None:
            return self.limit
        return self.limit // 2 if self.limit >= MODEST else 1

    @property
    def _tolerated(self) -> float:
        """Requests that may wait at the server: fewer could not be told from chance."""
        return max(_TOLERATED, self.limit * _TOLERATED_SHARE)

    def _move_to(self, limit: int) -> None:
        self._places.total_tokens = limit
        self._good = 0
