"""What became of each delivery of a batch, until it is written into the inbox."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from dx_dagster.bitbucket import Unavailable, Undecided
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.webhooks import inbox

_APPLIED = "applied"


@dataclass
class Applied:
    """What became of the deliveries that a run took.

    Attributes:
        outcomes: how many were settled, by outcome.
        failed: how many could not be applied and will be retried.
        set_aside: how many were given up.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    set_aside: int = 0

    @property
    def taken(self) -> int:
        return self.outcomes.total() + self.failed


class Outcomes:
    """The outcome of each delivery, by id: one that neither failed nor was refused is applied.

    `nothing`: deliveries that need no work, by reason.
    """

    def __init__(self, deliveries: Iterable[int], nothing: dict[str, list[int]]) -> None:
        self._deliveries = set(deliveries)
        self._refused = {reason: list(refused) for reason, refused in nothing.items()}
        self._failed: dict[int, Exception] = {}

    def refuse(self, reason: str, deliveries: Iterable[int]) -> None:
        """Settles deliveries for a reason that a retry would not remove."""
        self._refused.setdefault(reason, []).extend(deliveries)

    def fail(self, deliveries: Iterable[int], error: Exception) -> None:
        """Has deliveries retried."""
        self._failed |= dict.fromkeys(deliveries, error)

    def has_failed(self, deliveries: Iterable[int]) -> bool:
        """Whether one of these deliveries has failed."""
        return any(delivery in self._failed for delivery in deliveries)

    def of_unavailable(self) -> dict[int, Exception]:
        """The deliveries that failed because a request got no answer."""
        return {delivery: error for delivery, error in self._failed.items() if isinstance(error, Unavailable)}

    async def settle(
        self, warehouse: Warehouse, run: str, result: Applied, *, except_for: Collection[int] = ()
    ) -> set[int]:
        """Records the outcome of every delivery but `except_for`, in one transaction; returns the ids recorded."""
        failed = {delivery: error for delivery, error in self._failed.items() if delivery not in except_for}
        others = {delivery for refused in self._refused.values() for delivery in refused} | self._failed.keys()
        outcomes = {**self._refused, _APPLIED: sorted(self._deliveries - others)}
        async with warehouse.transaction() as transaction:
            for outcome, deliveries in outcomes.items():
                settled = set(deliveries) - self._failed.keys()
                await inbox.settle(transaction, settled, run, outcome)
                result.outcomes[outcome] += len(settled)
            for error in set(failed.values()):
                retried = [delivery for delivery, its in failed.items() if its is error]
                reason, gives_up = f"{type(error).__name__}: {error}", not isinstance(error, Undecided)
                result.set_aside += await inbox.fail(transaction, retried, reason, gives_up=gives_up)
        result.failed += len(failed)
        return (self._deliveries | others) - set(except_for)
