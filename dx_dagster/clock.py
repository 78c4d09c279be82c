"""The time.

Rows, marks and pauses are compared with times that other processes stored, on other hosts. So they are dated by the one
clock that all of them share, the database's. The host's own clock is for people: the day on which a credential expires,
a time in a message.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# Linux's other monotonic clock stands still while a machine sleeps.
_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic() -> float:
    """Seconds of a clock that is never set."""
    return time.clock_gettime(_MONOTONIC)


@dataclass
class Host:
    """The host's clock; `ahead` shifts it, so that a test need not set the clock of its machine."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


HOST = Host()


class Clock:
    """The clock of a server, carried on by the host's monotonic clock: two calls of `now` never swap their order."""

    def __init__(self) -> None:
        self._offset: float | None = None

    @classmethod
    def of_host(cls) -> "Clock":
        """For answers of which nothing is stored."""
        clock, moment = cls(), monotonic()
        clock.set(HOST.now().timestamp(), moment, moment)
        return clock

    def set(self, told: float, asked: float, answered: float) -> None:
        """Takes what the server told, in seconds since 1970, at some moment between `asked` and `answered`.

        A clock that runs already moves only as far as it must to agree.
        """
        earliest, latest = told - answered, told - asked
        within = (earliest + latest) / 2 if self._offset is None else self._offset
        self._offset = min(max(within, earliest), latest)

    def now(self) -> datetime:
        if self._offset is None:
            raise RuntimeError("the clock is not set: it is once the warehouse is open")
        return datetime.fromtimestamp(monotonic() + self._offset, UTC)
