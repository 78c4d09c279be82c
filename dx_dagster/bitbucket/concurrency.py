"""How many requests are in flight at once: more while the API serves them side by side, fewer when it is overloaded."""

import heapq
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

MODEST = 8
"""So many requests at once have never strained Bitbucket. Latency alone does not reduce the limit below it."""

_START = 4
_TOLERATED = 2.0  # requests that may wait at the server; see `_tolerated`
_TOLERATED_SHARE = 1 / 6
_RECENT = 1 / 32  # weight of one response in the recent latency of its kind
_FIRST = 8  # responses of a kind that are averaged before they count


Item = TypeVar("Item")
_turn: ContextVar[tuple[int, ...]] = ContextVar("_turn", default=())


def in_turn(items: Iterable[Item]) -> Iterator[Item]:
    """The items for tasks that share them; a task's requests come before those of tasks with later items.

    So a long listing that begins first does not wait, page after page, for all the others.
    """
    outer = _turn.get()
    for number, item in enumerate(items):
        _turn.set((*outer, number))  # in the context of the task that takes the item
        yield item


@dataclass(order=True)
class Slot:
    """Permission for one request in flight; `began` is when it was granted (monotonic seconds)."""

    turn: tuple[int, ...]
    number: int
    granted: anyio.Event = field(default_factory=anyio.Event, compare=False)
    began: float = field(default=0.0, compare=False)


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
        self._limit = min(start, maximum)
        self._in_flight = 0
        self._waiting: list[Slot] = []
        self._numbers = itertools.count()
        self._good = 0
        self._cut_at: float | None = None
        self._latencies: dict[str, _Latency] = {}
        self._strain = 1.0

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Waits for a slot: by `in_turn`, and else first come first served."""
        slot = Slot(_turn.get(), next(self._numbers))
        heapq.heappush(self._waiting, slot)
        self._grant()
        try:
            await slot.granted.wait()
            slot.began = time.monotonic()
            yield slot
        finally:
            if slot.granted.is_set():
                self._in_flight -= 1
            else:
                self._waiting.remove(slot)
                heapq.heapify(self._waiting)
            self._grant()

    def _grant(self) -> None:
        while self._waiting and self._in_flight < self._limit:
            self._in_flight += 1
            heapq.heappop(self._waiting).granted.set()

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
        self._limit = limit
        self._good = 0
        self._grant()
