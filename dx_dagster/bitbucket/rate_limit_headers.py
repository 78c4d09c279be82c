"""Parses the rate limit headers of a response; an invalid value counts as absent."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from dx_dagster.clock import HOST

_LONGEST = 86_400.0  # seconds; a longer Retry-After is a mistake
_MOST_REQUESTS = 10_000_000  # an hour; a higher limit means no limit
_EPOCH = 1_000_000_000  # a "reset" beyond this is a date, not seconds


@dataclass(frozen=True)
class Hints:
    """The rate limit headers: `retry_after` in seconds above 0, `limit` in requests an hour; None if absent."""

    retry_after: float | None
    limit: int | None
    near_limit: bool


def read(headers: httpx.Headers) -> Hints:
    """Parses the headers. Retry-After is optional, in seconds or a date; x-ratelimit-reset is undocumented (S20)."""
    wait = _seconds(headers.get("retry-after"), headers.get("date")) or _reset(
        headers.get("x-ratelimit-reset"), headers.get("date")
    )
    # Other groups of resources (hooks) have limits of their own, while a budget counts all requests of a credential.
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
    """The time by the server's clock where it sends a Date: the host's clock may be wrong."""
    return moment(date) or HOST.now()


def moment(text: str | None) -> datetime | None:
    """Parses the date of a header; None for anything else."""
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
