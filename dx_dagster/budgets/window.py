"""The arithmetic of one budget's rolling window. All times are seconds of one clock, which the caller reads."""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

ASSUMED_LIMIT = 1000
"""Requests an hour of a token on most plans (support.atlassian.com, api-request-limits), until the API says the limit.

The responses to API tokens never say it.
"""

SCALED_LIMIT = 10_000
"""The highest limit of an access token in a large workspace (bitbucket.org/blog, scaled rate limits).

Every response to an access token says its limit. Until the first response a high one is assumed: a 429 costs less than
waiting an hour for nothing.
"""

KEPT = 0.2
"""The share of a limit that spare requests never use."""

_BUCKETS = 60  # in a window: Bitbucket counts by the minute as well ("for every minute that passes ...")
_LARGEST_BLOCK = 16
_LONGEST_LEASE = 10.0  # seconds
_LONGEST_REQUEST = 60.0  # seconds; the client's total timeout
_LONGEST_REST = 86_400.0  # seconds; a longer Retry-After is cut to a day


@dataclass(frozen=True)
class Held:
    """Requests reserved by one process; all of them are sent and have ended by `ends_by`."""

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
    """The state of one budget.

    A reserved request counts until its process reports it as sent or returns it. All requests reserved by a killed
    process count as sent at the latest possible moment.

    Attributes:
        window: seconds after which a request no longer counts.
        limit: requests in a window; None until the API says it.
        spent: requests that ended, by the end of their bucket.
        leases: reserved requests, by process.
        rests_until: no request is sent until then, after a 429.
        careful_until: one request at a time until then: after a 429, another program may draw on the same budget.
        near_limit_at: when the API last said that less than a fifth is left.
        assumed_limit: stands in for `limit` until the API says it.
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
        """How long a process may hold a reserved request before sending it."""
        return min(_LONGEST_LEASE, self.window / 6)

    @property
    def request_seconds(self) -> float:
        """How long a request may take whose process was killed."""
        return min(_LONGEST_REQUEST, self.window / 6)

    @property
    def recheck(self) -> float:
        """Seconds until the next attempt to reserve while only requests in flight use up the budget."""
        return min(1.0, self.bucket)

    @property
    def _counts_for(self) -> float:
        # One bucket more than the window: clocks drift, and Bitbucket's window may move in steps.
        return self.window + self.bucket

    def forget(self, now: float) -> None:
        """Drops what no longer counts, and times in the future that a wrong clock has written."""
        since, latest = now - self._counts_for, now + max(_LONGEST_REST, 2 * self._counts_for)
        self.spent = {until: requests for until, requests in self.spent.items() if since < until < latest}
        self.leases = {
            who: held for who, held in self.leases.items() if held.requests and since < held.ends_by < latest
        }
        for name in ("rests_until", "careful_until", "near_limit_at"):
            if (getattr(self, name) or 0.0) > latest:
                setattr(self, name, None)

    def used(self, now: float) -> int:
        """Requests of the window that were sent, or must be assumed to be."""
        return sum(self.spent.values()) + sum(held.requests for held in self.leases.values() if held.ends_by <= now)

    def leased(self, now: float) -> int:
        """Requests that a process is sending or may still send."""
        return sum(held.requests for held in self.leases.values() if held.ends_by > now)

    def room(self, now: float, *, spare: bool = False) -> int:
        """Requests that may be reserved now; `spare`: for what can wait."""
        if spare:
            return self._spare_room(now)
        if self.rests_until and now < self.rests_until:
            return 0
        limit, leased = self.limit or self.assumed_limit, self.leased(now)
        room = limit - self.used(now) - leased
        if self.careful_until and now < self.careful_until:
            room = min(room, 0 if leased else 1)
        if self.near_limit_at and now < self.near_limit_at + 2 * self.bucket:
            room = min(room, max(1, limit // 5))
        return max(0, room)

    def _spare_room(self, now: float) -> int:
        """Requests for what can wait: none of the last fifth, so that they make no other request wait.

        There are none at all while another program may be drawing on the same budget.
        """
        if self.careful_until and now < self.careful_until:
            return 0
        if self.near_limit_at and now < self.near_limit_at + 2 * self.bucket:
            return 0
        return max(0, self.room(now) - math.ceil(KEPT * (self.limit or self.assumed_limit)))

    def block(self, now: float, *, spare: bool = False) -> int:
        """Requests that one process may reserve at once: few where few are left, as no other process can use them."""
        room = self.room(now, spare=spare)
        return min(room, max(1, min(_LARGEST_BLOCK, room // 8)))

    def ready_in(self, now: float) -> float:
        """Seconds until a request may be reserved, by what is known now; 0 when one may be now."""
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
        """Counts a request from its end on: the API may have counted it as late as that."""
        until = math.ceil(ended / self.bucket) * self.bucket
        self.spent[until] = self.spent.get(until, 0) + 1

    def hold(self, who: str, requests: int, now: float) -> None:
        """Replaces the number of requests that a process has reserved."""
        self.leases[who] = Held(requests, now + self.lease_seconds + self.request_seconds)

    def limited(self, now: float, seconds: float) -> None:
        """Applies a 429: no requests for so long, then one at a time for as long again, at most a bucket.

        Never shortens a rest.
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
