"""The ledger of one process, for requests that no stored budget counts: verification and tests."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from dx_dagster.budgets.protocol import Lease
from dx_dagster.budgets.window import ASSUMED_LIMIT, Books

_PROCESS = "this process"


class MemoryLedger:
    """Keeps the books of all budgets in memory; see `dx_dagster.budgets.protocol.Ledger`."""

    def __init__(
        self,
        window: float = 3600.0,
        default_limit: int = ASSUMED_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window = window
        self._default_limit = default_limit
        self._clock = clock
        self._books: dict[str, Books] = {}
        self._under_way: defaultdict[str, set[int]] = defaultdict(set)
        self._issued = 0

    @property
    def window(self) -> float:
        return self._window

    def books(self, budget: str) -> Books:
        return self._books.setdefault(budget, Books(self._window, assumed_limit=self._default_limit))

    async def acquire(self, budgets: Sequence[str], *, spare: bool = False) -> Lease | float:
        if not budgets:
            raise ValueError("a request must be paid from some budget")
        now = self._clock()
        for budget in budgets:
            self.books(budget).forget(now)
            self._hold(budget, now)
        best = max(budgets, key=lambda budget: self.books(budget).room(now, spare=spare))
        if not self.books(best).room(now, spare=spare):
            return min(self._ready_in(self.books(budget), now) for budget in budgets)
        self._issued += 1
        self._under_way[best].add(self._issued)
        self._hold(best, now)
        return Lease(best, self._issued)

    async def settle(self, lease: Lease) -> None:
        if lease.number in self._under_way[lease.budget]:
            now = self._clock()
            self._under_way[lease.budget].remove(lease.number)
            self.books(lease.budget).record(now)
            self._hold(lease.budget, now)

    async def limited(self, budget: str, seconds: float) -> None:
        self.books(budget).limited(self._clock(), seconds)

    async def learn(self, budget: str, limit: int) -> None:
        self.books(budget).limit = limit

    async def near_limit(self, budget: str) -> None:
        self.books(budget).near_limit_at = self._clock()

    async def close(self) -> None:
        """Does nothing: no other process waits for what was reserved."""

    def _hold(self, budget: str, now: float) -> None:
        self.books(budget).hold(_PROCESS, len(self._under_way[budget]), now)

    def _ready_in(self, books: Books, now: float) -> float:
        """Retries soon while requests are in flight: they end long before the latest moment that the books assume."""
        wait = books.ready_in(now) or books.recheck
        is_resting = books.rests_until is not None and now < books.rests_until
        return wait if is_resting or not books.leased(now) else min(wait, books.recheck)
