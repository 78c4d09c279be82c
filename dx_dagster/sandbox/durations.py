"""Seconds between two moments, worked out day by day and not by any SQL."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

_SATURDAY = 5
_WEEKS = 1000


def business_seconds(start: datetime | None, end: datetime | None, zone: str) -> float | None:
    """Seconds between 08:00 and 18:00 from Monday to Friday, day by day."""
    if start is None or end is None or end < start:
        return None
    first, last = start.astimezone(ZoneInfo(zone)).date(), end.astimezone(ZoneInfo(zone)).date()
    days = (last - first).days
    # Of an absurd date, whole weeks: they are 50 hours each, after the first one.
    weeks = max(days // 7 - _WEEKS, 0)
    found = weeks * timedelta(hours=50)
    for number in (*range(7), *range(7 + 7 * weeks, days + 1)) if weeks else range(days + 1):
        day = first + timedelta(number)
        if day.weekday() < _SATURDAY:
            opens, closes = (datetime.combine(day, time(hour), ZoneInfo(zone)).astimezone(UTC) for hour in (8, 18))
            found += max(min(end, closes) - max(start, opens), timedelta())
    return found.total_seconds()


def seconds(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end and end >= start else None
