"""What the headers of an answer say about the rate limit; anything odd in them counts as not said."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from dx_dagster.clock import HOST

_LONGEST = 86_400.0  # seconds; a longer Retry-After is a mistake
_MOST_REQUESTS = 10_000_000  # an hour; a higher limit is none
_EPOCH = 1_000_000_000  # a "reset" beyond this is a date, not seconds


@dataclass(frozen=True)
class Hints:
    """`retry_after` in seconds and above 0, or None; `limit` in requests an hour, or None."""

    retry_after: float | None
    limit: int | None
    near_limit: bool


def read(headers: httpx.Headers) -> Hints:
    """Retry-After is sent *sometimes*, in seconds or as a date; x-ratelimit-reset (seconds) is hearsay (S20)."""
    wait = _seconds(headers.get("retry-after"), headers.get("date")) or _reset(
        headers.get("x-ratelimit-reset"), headers.get("date")
    )
    # Other groups of resources (hooks) have other limits, and one budget stands for a credential here.
    mine = headers.get("x-ratelimit-resource", "api").strip().lower() == "api"
    limit = _number(headers.get("x-ratelimit-limit")) if mine else None
    return Hints(
        retry_after=wait,
        limit=int(min(limit, _MOST_REQUESTS)) if limit and limit >= 1 else None,
        near_limit=headers.get("x-ratelimit-nearlimit", "").strip().lower() == "true",
    )


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _bounded(seconds: float | None) -> float | None:
    return min(seconds, _LONGEST) if seconds is not None and seconds > 0 else None


def _seconds(text: str | None, date: str | None) -> float | None:
    if text is None:
        return None
    number = _number(text)
    if number is not None:
        return _bounded(number)
    until = moment(text)
    return _bounded((until - _now(date)).total_seconds()) if until else None


def _now(date: str | None) -> datetime:
    """By the server's own clock where it tells the time, for ours may be wrong."""
    return moment(date) or HOST.now()


def moment(text: str | None) -> datetime | None:
    """A date as headers hold them; None for anything else."""
    try:
        parsed = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _reset(text: str | None, date: str | None) -> float | None:
    number = _number(text)
    if number is not None and number > _EPOCH:
        number -= _now(date).timestamp()
    return _bounded(number)
