"""The rolling window of one budget, as arithmetic. Times are seconds of one clock, which the caller keeps."""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

ASSUMED_LIMIT = 1000
"""Requests an hour of a token on most plans: support.atlassian.com, api-request-limits. API tokens never say theirs."""

SCALED_LIMIT = 10_000
"""The most that a large workspace's access tokens get (bitbucket.org/blog, scaled rate limits). They are told theirs in
every answer: one that is told nothing is not known to be small, and an hour's wait for nothing is worse than a 429."""

_BUCKETS = 60  # in a window: Bitbucket counts by the minute too ("for every minute that passes ...")
_LARGEST_BLOCK = 16
_LONGEST_LEASE = 10.0  # seconds
_LONGEST_REQUEST = 60.0  # seconds; the client gives up then
_LONGEST_REST = 86_400.0  # seconds; no answer to a 429 asks for more than a day


@dataclass(frozen=True)
class Held:
    """Requests that one process has reserved; by `ends_by` all of them will have been sent, and will have ended."""

    requests: int
    ends_by: float


@dataclass(frozen=True)
class Headroom:
    """How a budget stands.

    Attributes:
        used: requests of the window that were sent.
        leased: requests that a process may be sending now, or is yet to send.
        left: requests that may still be sent in the window.
        assumed: the API has not said the limit yet.
        rests_until: when the next request may be sent, where none may be now.
        near_limit_at: when the API last said that less than a fifth is left.
    """

    used: int
    leased: int
    limit: int
    left: int
    assumed: bool
    rests_until: datetime | None
    near_limit_at: datetime | None


@dataclass
class Books:
    """What is known of one budget.

    A reserved request counts until its process reports it as sent or returns it. Of a process that was killed nobody
    knows which were sent: all count as if they had been at the last moment they could be, and no longer.

    Attributes:
        window: seconds after which a request no longer counts.
        limit: requests in a window; None until the API says it.
        spent: requests that ended, by the end of their bucket.
        leases: by process.
        careful_until: one request at a time after a 429's rest: it may say that somebody else draws on the budget.
        near_limit_at: when the API last said that less than a fifth is left.
        assumed_limit: what goes for `limit` until the API says it.
    """

    window: float
    limit: int | None = None
    spent: dict[float, int] = field(default_factory=dict)
    leases: dict[str, Held] = field(default_factory=dict)
    rests_until: float | None = None
    careful_until: float | None = None
    near_limit_at: float | None = None
    assumed_limit: int = ASSUMED_LIMIT

    @property
    def bucket(self) -> float:
        return self.window / _BUCKETS

    @property
    def lease_seconds(self) -> float:
        """How long a process may keep a reserved request before it sends it."""
        return min(_LONGEST_LEASE, self.window / 6)

    @property
    def request_seconds(self) -> float:
        """How long a request may take that nobody reports any more."""
        return min(_LONGEST_REQUEST, self.window / 6)

    @property
    def recheck(self) -> float:
        """Seconds after which to ask again where only requests under way stand in the way."""
        return min(1.0, self.bucket)

    @property
    def _counts_for(self) -> float:
        # One bucket more than the window: clocks drift, and Bitbucket's own hour may move in steps.
        return self.window + self.bucket

    def forget(self, now: float) -> None:
        """Drop what no longer counts, and what a clock that was wrong has put into the future."""
        since, latest = now - self._counts_for, now + max(_LONGEST_REST, 2 * self._counts_for)
        self.spent = {until: requests for until, requests in self.spent.items() if since < until < latest}
        self.leases = {
            who: held for who, held in self.leases.items() if held.requests and since < held.ends_by < latest
        }
        for name in ("rests_until", "careful_until", "near_limit_at"):
            if (getattr(self, name) or 0.0) > latest:
                setattr(self, name, None)

    def used(self, now: float) -> int:
        """Requests of the window that are known or taken to be sent."""
        return sum(self.spent.values()) + sum(held.requests for held in self.leases.values() if held.ends_by <= now)

    def leased(self, now: float) -> int:
        """Requests that a process may be sending now, or is yet to send."""
        return sum(held.requests for held in self.leases.values() if held.ends_by > now)

    def room(self, now: float) -> int:
        """How many requests may be reserved now."""
        if self.rests_until and now < self.rests_until:
            return 0
        limit, leased = self.limit or self.assumed_limit, self.leased(now)
        room = limit - self.used(now) - leased
        if self.careful_until and now < self.careful_until:
            room = min(room, 0 if leased else 1)
        if self.near_limit_at and now < self.near_limit_at + 2 * self.bucket:
            room = min(room, max(1, limit // 5))
        return max(0, room)

    def block(self, now: float) -> int:
        """How many requests a process is given at once: few where little is left, for they lie idle elsewhere."""
        room = self.room(now)
        return min(room, max(1, min(_LARGEST_BLOCK, room // 8)))

    def ready_in(self, now: float) -> float:
        """Seconds until a request may be reserved, as far as one can see; 0 when one may be now."""
        if self.room(now):
            return 0.0
        rest = max(0.0, (self.rests_until or 0.0) - now)
        ends = sorted([*self.spent.items(), *((held.ends_by, held.requests) for held in self.leases.values())])
        excess = self.used(now) + self.leased(now) - (self.limit or self.assumed_limit)
        for until, requests in ends:
            if excess < 0:
                break
            excess -= requests
            rest = max(rest, until + self._counts_for - now)
        return rest or self.recheck

    def record(self, ended: float) -> None:
        """A request ended then; the API may have counted it as late as that."""
        until = math.ceil(ended / self.bucket) * self.bucket
        self.spent[until] = self.spent.get(until, 0) + 1

    def hold(self, who: str, requests: int, now: float) -> None:
        """What a process has reserved from now on, all in all."""
        self.leases[who] = Held(requests, now + self.lease_seconds + self.request_seconds)

    def limited(self, now: float, seconds: float) -> None:
        """A 429: nobody sends anything for so long, and for as long again, or a minute, one at a time; never shortens
        a rest.
        """
        self.rests_until = max(self.rests_until or 0.0, now + seconds)
        self.careful_until = max(self.careful_until or 0.0, self.rests_until + min(self.bucket, seconds))

    def headroom(self, now: float) -> Headroom:
        """How the budget stands; `now` is in seconds of Unix time."""
        wait = self.ready_in(now)
        used, leased, limit = self.used(now), self.leased(now), self.limit or self.assumed_limit
        return Headroom(
            used,
            leased,
            limit,
            max(0, limit - used - leased),
            self.limit is None,
            _moment(now + wait if wait else None),
            _moment(self.near_limit_at),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "request_limit": self.limit,
            "spent": sorted([until, requests] for until, requests in self.spent.items()),
            "leases": {who: [held.requests, held.ends_by] for who, held in self.leases.items() if held.requests},
            "rests_until": self.rests_until,
            "careful_until": self.careful_until,
            "near_limit_at": self.near_limit_at,
        }


def _moment(seconds: float | None) -> datetime | None:
    """To the second: pages and JSON show no more."""
    return datetime.fromtimestamp(int(seconds), UTC) if seconds else None
