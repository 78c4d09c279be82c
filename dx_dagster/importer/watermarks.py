"""Compares Bitbucket's times with watermarks: up to which time something is imported."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from dx_dagster.frames.reading import time
from dx_dagster.warehouse import merge

# Entries this much older than a watermark are requested again: the clocks of a large service differ.
OVERLAP = timedelta(minutes=5)
ROWS_TO_BE_SURE = 10
_EVER = datetime.min.replace(tzinfo=UTC)


def newest(moments: Iterable[object], asked_at: datetime) -> datetime | None:
    """The latest of Bitbucket's times; a time after the request cannot be right and is ignored."""
    return newest_of((moment for one in moments if (moment := time(one))), asked_at)


def newest_of(moments: Iterable[datetime], asked_at: datetime) -> datetime | None:
    """The same of parsed times; clocks may differ by a day."""
    return max((moment for moment in moments if moment <= asked_at + merge.CLOCKS_DIFFER), default=None)


def reaches_below(moments: Sequence[datetime], stop: datetime | None) -> bool:
    """Whether a page, newest first, ends with rows that are older than `stop`.

    Several rows must be older: the order of rows with nearly equal times is undocumented.
    """
    return stop is not None and bool(moments) and all(moment < stop for moment in moments[-ROWS_TO_BE_SURE:])


def overlapping(mark: datetime, by: timedelta = OVERLAP) -> datetime:
    """The time from which to request again; a mark may be the earliest time possible."""
    return max(mark, _EVER + by) - by


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)
