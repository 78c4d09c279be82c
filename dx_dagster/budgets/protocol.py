"""What a credential pool needs of a ledger: `memory` has one for one process, `warehouse.budgets` one for many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Lease:
    """One request reserved on `budget`; it stays reserved until it is settled."""

    budget: str
    number: int


class Ledger(Protocol):
    """Counts the requests of all budgets."""

    @property
    def window(self) -> float:
        """Seconds after which a request no longer counts."""

    async def acquire(self, budgets: Sequence[str], *, spare: bool = False) -> Lease | float:
        """Reserves a request on the budget with most headroom, or returns the seconds until one may be free.

        `spare`: for what can wait, so that a fifth of each budget is left for other requests. The seconds are then
        those until it is worth asking again.

        Raises:
            ValueError: no budget was named.
        """

    async def settle(self, lease: Lease) -> None:
        """Counts the request for one window from now: the API may have counted it as late as now.

        To be called however the request ended; a second call changes nothing.
        """

    async def limited(self, budget: str, seconds: float) -> None:
        """Stops all requests on this budget for so long, after a 429; never shortens an earlier stop."""

    async def learn(self, budget: str, limit: int) -> None:
        """Notes how many requests a window has, as the API says."""

    async def near_limit(self, budget: str) -> None:
        """Notes that the API says that less than a fifth is left: other budgets are preferred for a while."""

    async def close(self) -> None:
        """Returns what was reserved and not sent."""
