"""Business hours as a person writes them: `Mon-Fri 08:00-18:00`, or `Sun-Wed 09:00-17:00, Thu 09:00-15:00`."""

import re
from dataclasses import dataclass
from typing import Self

DAY = 86_400
WEEK = 7 * DAY
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PART = re.compile(r"([a-z]{3})(?:\s*-\s*([a-z]{3}))?\s+(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)")
_EXAMPLE = "write days and hours, such as Mon-Thu 09:00-17:00, Fri 09:00-15:00"


class BusinessHoursError(ValueError):
    """The text names no business hours. The message goes on from the name of the setting."""


@dataclass(frozen=True)
class BusinessWeek:
    """The business hours of a week.

    Attributes:
        ranges: first and last second of each range, counted from Monday 00:00; in order, apart from each other.
    """

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The business hours that the text names.

        Raises:
            BusinessHoursError: it names none.
        """
        return cls(_joined([one for part in text.split(",") for one in _ranges(part.strip())]))

    @property
    def seconds(self) -> int:
        """Seconds of business hours in a week."""
        return sum(closes - opens for opens, closes in self.ranges)


def _ranges(part: str) -> list[tuple[int, int]]:
    """The range of each day that the part names. Days may go over the end of the week: Sun-Thu."""
    found = _PART.fullmatch(part.lower())
    if found is None:
        raise BusinessHoursError(f"contains {part!r}, which is not a range of hours; {_EXAMPLE}")
    first, last, *times = found.groups()
    opens, closes = _second(part, *times[:2]), _second(part, *times[2:])
    if opens >= closes:
        raise BusinessHoursError(
            f"contains {part!r}, which ends before it begins; split a night at 24:00, such as Mon 22:00-24:00, "
            "Tue 00:00-06:00"
        )
    start, end = _day(part, first), _day(part, last or first)
    days = [(start + more) % 7 for more in range((end - start) % 7 + 1)]
    return [(day * DAY + opens, day * DAY + closes) for day in days]


def _second(part: str, hours: str, minutes: str) -> int:
    second = int(hours) * 3600 + int(minutes) * 60
    if int(minutes) > 59 or second > DAY:  # noqa: PLR2004 - minutes of an hour
        raise BusinessHoursError(f"contains {part!r}, and {hours}:{minutes} is not a time of day; {_EXAMPLE}")
    return second


def _day(part: str, name: str) -> int:
    if name not in _DAYS:
        raise BusinessHoursError(f"contains {part!r}; days are Mon, Tue, Wed, Thu, Fri, Sat and Sun")
    return _DAYS.index(name)


def _joined(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The ranges in order; those that touch or overlap are one."""
    joined: list[tuple[int, int]] = []
    for opens, closes in sorted(ranges):
        if joined and opens <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], closes))
        else:
            joined.append((opens, closes))
    return tuple(joined)
