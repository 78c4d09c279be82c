"""Timeouts, and when and how often a request is retried."""

import random
from dataclasses import dataclass

import httpx
from tenacity import RetryCallState

from dx_dagster.bitbucket.errors import BitbucketError

TRANSIENT = frozenset({408, 425, *range(500, 600)})  # 555: a diff that took too long, says the OpenAPI file

_LONGEST_WAIT = 30.0  # seconds between two attempts
_LONGEST_HINT = 120.0  # seconds that a Retry-After of a 503 may ask for
_LEAST_TIMEOUT = 5.0  # seconds
_TIMES_SLOWEST = 4


@dataclass(frozen=True)
class Timeouts:
    """Timeouts in seconds; `total` is that of a whole attempt, however slowly its bytes arrive."""

    connect: float = 10.0
    read: float = 30.0
    write: float = 30.0
    pool: float = 60.0
    total: float = 60.0

    def for_httpx(self) -> httpx.Timeout:
        return httpx.Timeout(connect=self.connect, read=self.read, write=self.write, pool=self.pool)


class AdaptiveTimeout:
    """An adaptive timeout: four times the slowest response of a kind of endpoint so far.

    A request that hangs delays all pages after it, and a fixed timeout that suits the slowest response would delay each
    of them. When Bitbucket becomes slower, each timeout doubles the next one of the same request, and its response
    counts for all later requests.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._total = timeouts.total
        self._slowest: dict[str, float] = {}

    def seconds(self, kind: str, lost: int) -> float:
        """The timeout of one attempt, after `lost` attempts that timed out."""
        if kind not in self._slowest:
            return self._total
        return min(self._total, max(_LEAST_TIMEOUT, _TIMES_SLOWEST * self._slowest[kind]) * 2.0**lost)

    def answered(self, kind: str, seconds: float) -> None:
        """Records a complete response after so many seconds."""
        self._slowest[kind] = max(seconds, self._slowest.get(kind, 0.0))


@dataclass(frozen=True)
class Retries:
    """How often one request is retried; all but `attempts` in seconds.

    Attributes:
        attempts, total: limits of retries after transient errors; waiting for a budget does not count.
        backoff: the first wait between two attempts; it doubles each time, with jitter.
        patience: the longest total wait for a budget (used up, or 429) before the request fails as `RateLimited`.
    """

    attempts: int = 6
    total: float = 300.0
    backoff: float = 0.5
    patience: float = 10_800.0


class Transient(Exception):  # noqa: N818
    """An attempt failed for a transient reason; `error` is raised when no attempt is left."""

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
        """Seconds that this request has waited for a budget."""

    @property
    def is_last(self) -> bool:
        """Whether the current attempt, or the next one, is the last."""
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
