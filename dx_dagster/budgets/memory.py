"""Who has how many requests left: the rolling window of each budget."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

DEFAULT_LIMIT = 1000
"""Requests an hour of a token on most plans: support.atlassian.com, api-request-limits."""

_RECHECK = 0.05  # seconds; when only requests in flight stand in the way


@runtime_checkable
class Lease(Protocol):
    """One request reserved on `budget`; it stays reserved until it is settled."""

    @property
    def budget(self) -> str: ...

    @property
    def number(self) -> int: ...


class Ledger(Protocol):
    """The books of all budgets. Another implementation may share them between processes."""

    @property
    def window(self) -> float:
        """Seconds after which a request no longer counts."""

    async def acquire(self, budgets: Sequence[str]) -> Lease | float:
        """Reserve a request on the budget with most headroom, or say in how many seconds the first may be ready."""

    async def settle(self, lease: Lease) -> None:
        """The request ended, somehow: it counts for one window from now, for the API may have counted it just now."""

    async def limited(self, budget: str, seconds: float) -> None:
        """Nothing more on this budget for so long; never shortens a rest."""

    async def learn(self, budget: str, limit: int) -> None:
        """The API says how many requests a window this budget has."""

    async def near_limit(self, budget: str) -> None:
        """The API says that less than a fifth is left; others may go first for a while, nothing waits."""

    async def close(self) -> None:
        """Nobody asks any more: what was reserved and not sent goes back."""


@dataclass(frozen=True)
class _Reservation:
    budget: str
    number: int


@dataclass
class Account:
    limit: int
    in_flight: int = 0
    settled: deque[float] = field(default_factory=deque)
    rests_until: float = 0.0
    near_limit_at: float | None = None

    def ready_in(self, now: float, window: float) -> float:
        """Seconds until a request may be sent; 0 when one may be sent now."""
        while self.settled and self.settled[0] <= now - window:
            self.settled.popleft()
        rest = max(0.0, self.rests_until - now)
        excess = self.used - self.limit
        if excess < 0:
            return rest
        expires = self.settled[excess] + window - now if excess < len(self.settled) else _RECHECK
        return max(rest, expires)

    @property
    def used(self) -> int:
        return self.in_flight + len(self.settled)


class MemoryLedger:
    """The books of one process."""

    def __init__(
        self,
        window: float = 3600.0,
        default_limit: int = DEFAULT_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window = window
        self._default_limit = default_limit
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._leases: set[Lease] = set()
        self._issued = 0

    @property
    def window(self) -> float:
        return self._window

    def account(self, budget: str) -> Account:
        return self._accounts.setdefault(budget, Account(self._default_limit))

    async def acquire(self, budgets: Sequence[str]) -> Lease | float:
        """As the protocol says.

        Raises:
            ValueError: no budget was named.
        """
        now = self._clock()
        waits = {budget: self.account(budget).ready_in(now, self._window) for budget in budgets}
        ready = [budget for budget, wait in waits.items() if wait <= 0]
        if not ready:
            return min(waits.values())
        best = max(ready, key=lambda budget: self.account(budget).limit - self.account(budget).used)
        self.account(best).in_flight += 1
        self._issued += 1
        lease = _Reservation(best, self._issued)
        self._leases.add(lease)
        return lease

    async def settle(self, lease: Lease) -> None:
        if lease in self._leases:
            self._leases.remove(lease)
            account = self.account(lease.budget)
            account.in_flight -= 1
            account.settled.append(self._clock())

    async def limited(self, budget: str, seconds: float) -> None:
        account = self.account(budget)
        account.rests_until = max(account.rests_until, self._clock() + seconds)

    async def learn(self, budget: str, limit: int) -> None:
        self.account(budget).limit = limit

    async def near_limit(self, budget: str) -> None:
        self.account(budget).near_limit_at = self._clock()

    async def close(self) -> None:
        """Nothing is shared, so nothing is missed."""
