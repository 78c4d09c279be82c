"""The credentials of one connection, and which of them sends the next request."""

import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field

import anyio

from dx_dagster.bitbucket.credentials import Credential
from dx_dagster.bitbucket.errors import CredentialsExhausted, Unauthorized
from dx_dagster.bitbucket.rate_limit_headers import Hints
from dx_dagster.bitbucket.wording import clause
from dx_dagster.budgets.protocol import Lease, Ledger
from dx_dagster.clock import HOST

OnUnauthorized = Callable[[Credential, str], Awaitable[None]]
"""Called once for each credential that is taken out, with the reason."""

OnWait = Callable[[float, str], None]
"""Called with the seconds that all requests are about to wait, and the reason."""

_LONGEST_NAP = 15.0  # seconds; a higher limit or another process may free requests before the wait is over
_TOO_SHORT_TO_TELL = 0.5
_MOST_DOUBLINGS = 11.0  # from a second to a sixth of an hour
_GOOD_FOR_ONE = 4  # good responses that make up for one 429: a budget fills by the minute, so 429s come in groups


@dataclass(frozen=True)
class Grant:
    """Permission to send one request with this credential; return it with `CredentialPool.settle`."""

    credential: Credential
    lease: Lease
    sent: float


@dataclass(frozen=True)
class Rest:
    """No budget has a request left; `seconds` until one may have."""

    seconds: float
    reason: str


@dataclass
class _Strikes:
    """Recent 429s on one budget."""

    count: float = 0.0
    began: float = -1.0
    limit: int | None = None
    near_told: float = -math.inf


@dataclass
class _Standing:
    """What this process knows of one credential; `probing` is held while it is being probed."""

    used: int = 0
    good_at: float = -1.0
    out: str | None = None
    probing: anyio.Lock = field(default_factory=anyio.Lock)


class CredentialPool:
    """Chooses a credential for each request, least used first.

    A rate limited credential rests, a refused one is taken out, and the others go on. The ledger counts the requests;
    the pool keeps only the state of this process.
    """

    def __init__(
        self,
        credentials: Iterable[Credential],
        ledger: Ledger,
        on_unauthorized: OnUnauthorized | None = None,
        on_wait: OnWait | None = None,
    ) -> None:
        self.credentials = tuple(credentials)
        self.ledger = ledger
        self._on_unauthorized = on_unauthorized
        self._on_wait = on_wait
        self._standings = {credential.id: _Standing() for credential in self.credentials}
        self._strikes: dict[str, _Strikes] = {credential.budget: _Strikes() for credential in self.credentials}
        self._announced_until = 0.0
        self._all_see_the_same = len(self.credentials) == 1

    @property
    def all_see_the_same(self) -> bool:
        """Whether a 404 to one credential would be one to all of them."""
        return self._all_see_the_same

    def compared(self, *, all_see_the_same: bool) -> None:
        """Notes what listing the repositories with each credential has shown."""
        self._all_see_the_same = all_see_the_same

    @property
    def usable(self) -> tuple[Credential, ...]:
        """The credentials that were not taken out, least used first."""
        left = [credential for credential in self.credentials if not self.is_out(credential)]
        return tuple(sorted(left, key=lambda credential: self._standings[credential.id].used))

    @property
    def used(self) -> Counter[int]:
        """Requests sent by this process, by credential id."""
        return Counter({identity: standing.used for identity, standing in self._standings.items()})

    def is_out(self, credential: Credential) -> bool:
        return self._standings[credential.id].out is not None

    def candidates(self, only: Credential | None, tried: Collection[int]) -> tuple[Credential, ...]:
        """The credentials that may send a request which those `tried` were refused.

        Raises:
            CredentialsExhausted: no credential is left in the pool.
            Unauthorized: `only` was taken out.
        """
        if only is not None and self.is_out(only):
            reason = self._standings[only.id].out
            raise Unauthorized(f"Bitbucket refuses the credential {only.label!r}: {reason}", status=401, message=reason)
        usable = self.usable
        if not usable:
            raise self.exhausted()
        untried = tuple(one for one in usable if one.id not in tried and (only is None or one.id == only.id))
        # While a credential is being probed, the others do its work.
        return tuple(one for one in untried if not self.probing(one).locked()) or untried

    async def _take_out_expired(self) -> None:
        """Takes out credentials that expired during the run."""
        today = HOST.now().astimezone().date()
        for one in self.credentials:
            if one.expires and one.expires < today:
                await self.take_out(one, f"it expired on {one.expires}")

    def exhausted(self) -> CredentialsExhausted:
        """The error to raise when all credentials have been taken out, with the reason of each."""
        reasons = "; ".join(f"{one.label!r}: {clause(self._standings[one.id].out or '')}" for one in self.credentials)
        return CredentialsExhausted(
            f"no credential is left ({reasons or 'the pool is empty'})", status=401, message=reasons
        )

    async def take(
        self, only: Credential | None = None, tried: Collection[int] = (), *, spare: bool = False
    ) -> Grant | Rest | None:
        """Reserves a request; None when every candidate has tried it.

        `spare`: from what the budgets have to spare; see `Ledger.acquire`.

        Raises:
            CredentialsExhausted: no credential is left in the pool.
            Unauthorized: `only` was taken out.
        """
        await self._take_out_expired()
        while candidates := self.candidates(only, tried):
            lease = await self.ledger.acquire(list(dict.fromkeys(one.budget for one in candidates)), spare=spare)
            if isinstance(lease, int | float):
                return Rest(lease, "what is left of the budget is kept" if spare else _why(candidates))
            # The ledger may have waited for the database; a credential may have been taken out in the meantime.
            ready = [one for one in candidates if one.budget == lease.budget and not self.is_out(one)]
            if ready:
                self._standings[ready[0].id].used += 1
                return Grant(ready[0], lease, time.monotonic())
            await self.ledger.settle(lease)
        return None

    async def close(self) -> None:
        """Returns the requests that the ledger has reserved for this process."""
        with anyio.CancelScope(shield=True):
            await self.ledger.close()

    async def settle(self, grant: Grant) -> None:
        """Settles the lease of a grant; call it also for failed and cancelled requests, which may have been counted."""
        with anyio.CancelScope(shield=True):
            await self.ledger.settle(grant.lease)

    async def rest(self, rest: Rest) -> float:
        """Waits for at most `_LONGEST_NAP`; returns the seconds that passed."""
        began = time.monotonic()
        if rest.seconds >= _TOO_SHORT_TO_TELL and began + rest.seconds > self._announced_until:
            self._announced_until = began + rest.seconds + min(1.0, rest.seconds / 10)
            if self._on_wait:
                self._on_wait(rest.seconds, rest.reason)
        await anyio.sleep(min(max(rest.seconds, 0.001), _LONGEST_NAP))
        return time.monotonic() - began

    async def answered(self, grant: Grant, hints: Hints) -> None:
        """Records a response that was not a failure, and what it says about the budget."""
        standing, strikes = self._standings[grant.credential.id], self._strikes[grant.lease.budget]
        standing.good_at = max(standing.good_at, grant.sent)
        if grant.sent > strikes.began:
            strikes.count = max(0.0, strikes.count - 1 / _GOOD_FOR_ONE)
        if hints.limit and hints.limit != strikes.limit:
            strikes.limit = hints.limit
            await self.ledger.learn(grant.lease.budget, hints.limit)
        if hints.near_limit and time.monotonic() > strikes.near_told + self.ledger.window / 60:
            strikes.near_told = time.monotonic()
            await self.ledger.near_limit(grant.lease.budget)

    async def limited(self, grant: Grant, retry_after: float | None) -> None:
        """Records a 429: the budget rests as long as Retry-After says, or with exponential backoff."""
        strikes = self._strikes[grant.lease.budget]
        if grant.sent >= strikes.began:
            strikes.count = min(strikes.count + 1, _MOST_DOUBLINGS)
            strikes.began = time.monotonic()
            # A Retry-After that did not help is exceeded the next time: "5-second retry exacerbates" (S18).
            own = self._back_off(strikes.count - (1 if retry_after else 0))
            await self.ledger.limited(grant.lease.budget, max(retry_after or 0.0, own))
        elif retry_after:
            await self.ledger.limited(grant.lease.budget, retry_after)
        # A 429 to a request sent before the rest began belongs to the same burst, which counts once.

    def _back_off(self, count: float) -> float:
        """Seconds: 1, 2, 4 … up to a sixth of the window, with jitter; shorter in proportion to a shorter window."""
        if count < 1:
            return 0.0
        window = self.ledger.window
        step: float = min(1.0, window / 60) * 2.0 ** (count - 1)
        return min(step * random.uniform(1.0, 1.5), window / 6)  # noqa: S311

    def vouched(self, grant: Grant) -> bool:
        """Whether a request that the same credential sent later was accepted."""
        return self._standings[grant.credential.id].good_at > grant.sent

    def probing(self, credential: Credential) -> anyio.Lock:
        """The lock held while a credential is being probed, so that a burst of 401s probes it once."""
        return self._standings[credential.id].probing

    async def take_out(self, credential: Credential, reason: str) -> None:
        """Stops using a credential for the rest of the run, and calls `on_unauthorized` once."""
        if not self.is_out(credential):
            self._standings[credential.id].out = reason
            if self._on_unauthorized:
                await self._on_unauthorized(credential, reason)


def _why(candidates: Collection[Credential]) -> str:
    budgets = len({one.budget for one in candidates})
    if budgets == 1:
        return f"the budget of {next(iter(candidates)).label!r} is used up for now"
    return f"all {budgets} budgets are used up for now"
