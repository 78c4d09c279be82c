"""Clocks: the database's for stored times, the host's for times that only people see.

Rows, marks and pauses are compared with times that processes on other hosts stored. So all of them use the database's
clock. The host's clock decides on the day on which a credential expires, and appears in messages.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# On Linux, CLOCK_MONOTONIC stops while the machine is suspended.
_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic() -> float:
    """Seconds of a monotonic clock that includes suspend."""
    return time.clock_gettime(_MONOTONIC)


@dataclass
class Host:
    """The host's clock; tests shift it by `ahead`."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


HOST = Host()


def ago(moment: datetime) -> str:
    """A time as its distance from now: "3 hours ago", "in 12 minutes"."""
    seconds = (HOST.now() - moment).total_seconds()
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if abs(seconds) >= size:
            count = int(abs(seconds) // size)
            distance = f"{count} {unit}{'s' if count > 1 else ''}"
            return f"{distance} ago" if seconds > 0 else f"in {distance}"
    return "just now" if seconds >= 0 else "within a minute"


class Clock:
    """A server's clock, extrapolated with the host's monotonic clock: `now` never goes backwards."""

    def __init__(self) -> None:
        self._offset: float | None = None

    @classmethod
    def of_host(cls) -> "Clock":
        """A clock of the host's time, for results that are not stored."""
        clock, moment = cls(), monotonic()
        clock.set(HOST.now().timestamp(), moment, moment)
        return clock

    def set(self, server_time: float, asked: float, answered: float) -> None:
        """Sets the clock: the server's time was `server_time` (seconds since 1970) between `asked` and `answered`.

        A running clock moves no further than necessary.
        """
        earliest, latest = server_time - answered, server_time - asked
        within = (earliest + latest) / 2 if self._offset is None else self._offset
        self._offset = min(max(within, earliest), latest)

    def now(self) -> datetime:
        if self._offset is None:
            raise RuntimeError("the clock is not set before the warehouse is open")
        return datetime.fromtimestamp(monotonic() + self._offset, UTC)
