"""When to try again, how often, and how long to wait before it."""

import random
from dataclasses import dataclass

import httpx
from tenacity import RetryCallState

from dx_dagster.bitbucket.errors import BitbucketError

TRANSIENT = frozenset({408, 425, *range(500, 600)})  # 555: a diff that took too long, says the OpenAPI file

_LONGEST_WAIT = 30.0  # seconds between two tries
_LONGEST_HINT = 120.0  # seconds that a Retry-After of a 503 may ask for
_SOON = 5.0  # seconds in which an answer may always come
_SEVERAL = 4


@dataclass(frozen=True)
class Timeouts:
    """Seconds. `total` bounds one try from the first byte sent to the last received, however the bytes trickle."""

    connect: float = 10.0
    read: float = 30.0
    write: float = 30.0
    pool: float = 60.0
    total: float = 60.0

    def for_httpx(self) -> httpx.Timeout:
        return httpx.Timeout(connect=self.connect, read=self.read, write=self.write, pool=self.pool)


class AdaptiveTimeout:
    """How long to wait for an answer before it is taken for lost: several times as long as its kind has taken so far.

    A page that hangs holds up all that are asked after it, and a time-out made for the slowest answers would be paid
    for each. A service that has slowed down pays it once: every loss doubles the bound, and the answer that comes in
    the end counts for the next.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._total = timeouts.total
        self._slowest: dict[str, float] = {}

    def seconds(self, kind: str, lost: int) -> float:
        """The bound of one try, after so many that were lost."""
        if kind not in self._slowest:
            return self._total
        return min(self._total, max(_SOON, _SEVERAL * self._slowest[kind]) * 2.0**lost)

    def answered(self, kind: str, seconds: float) -> None:
        """A whole answer came after so long."""
        self._slowest[kind] = max(seconds, self._slowest.get(kind, 0.0))


@dataclass(frozen=True)
class Retries:
    """Bounds of one request. All but `attempts` are seconds.

    `attempts` and `total` bound tries that failed for a passing reason; time spent resting does not count. `backoff` is
    the first wait between two, doubled each time, jittered. `patience` is how long a request may rest, all in all,
    because its budgets are used up or limited (429), before it gives up as `RateLimited`.
    """

    attempts: int = 6
    total: float = 300.0
    backoff: float = 0.5
    patience: float = 10_800.0


class Transient(Exception):  # noqa: N818
    """A try failed for a passing reason: `error` is what to raise when no try is left."""

    def __init__(self, error: BitbucketError, retry_after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


class Schedule:
    """Tenacity's `stop` and `wait` for one request."""

    def __init__(self, retries: Retries, attempts: int | None = None, patience: float | None = None) -> None:
        self._retries = retries
        self._attempts = attempts or retries.attempts
        self.patience = retries.patience if patience is None else patience
        self._tries = 0
        self.rested = 0.0
        """Seconds this request spent waiting for a budget."""

    @property
    def is_last(self) -> bool:
        """Whether no try is left after the one that comes next, or is being made."""
        return self._tries + 1 >= self._attempts

    def stop(self, state: RetryCallState) -> bool:
        self._tries = state.attempt_number
        spent = (state.seconds_since_start or 0.0) - self.rested
        return state.attempt_number >= self._attempts or spent >= self._retries.total

    def wait(self, state: RetryCallState) -> float:
        step = min(self._retries.backoff * 2.0 ** (state.attempt_number - 1), _LONGEST_WAIT)
        failure = state.outcome.exception() if state.outcome else None
        hint = failure.retry_after if isinstance(failure, Transient) else None
        return max(step * random.uniform(0.5, 1.0), min(hint or 0.0, _LONGEST_HINT))  # noqa: S311
