"""The people file: a CSV of e-mail address, name, team, time zone and type. Pure: it reads and writes text.

Every bad line is named, and a file with one is refused as a whole.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple
from zoneinfo import available_timezones

from dx_dagster.time_zones import unabbreviated

COLUMNS = ("email", "name", "team", "time_zone", "type")
HEADER = ",".join(COLUMNS)
LARGEST_FILE = 50 * 1024 * 1024

_ALIASES = {
    "email": "email",
    "mail": "email",
    "emailaddress": "email",
    "name": "name",
    "team": "team",
    "teampath": "team",
    "timezone": "time_zone",
    "zone": "time_zone",
    "tz": "time_zone",
    "type": "type",
    "kind": "type",
    "humanorbot": "type",
}
_TYPES = {"human": "human", "bot": "bot", "ai_bot": "ai_bot", "ai_agent": "ai_bot"}
_LABEL = r"[^\W_](?:[\w-]*[^\W_])?"
_EMAIL = re.compile(rf"[^\s@<>,;:\"()\[\]\\]+@{_LABEL}(?:\.{_LABEL})+")
_LONGEST_EMAIL = 254
_LONGEST = 200
_SHOWN = 60


class PeopleFileError(Exception):
    """The file cannot be imported.

    Attributes:
        problems: a sentence for each bad line, which begins with the line's number; empty where all of it is bad.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class PersonLine(NamedTuple):
    """One person of the file; None where the file says nothing."""

    line: int
    email: str
    name: str | None = None
    team: str | None = None
    tz: str | None = None
    type: str | None = None


def read(content: bytes) -> list[PersonLine]:
    """The people of a file.

    Raises:
        PeopleFileError: with every bad line.
    """
    rows = _rows(content)
    header = next(rows, None)
    if header is None:
        raise PeopleFileError(f"The file is empty. Its first line must name the columns: {HEADER}")
    columns = _columns(header[1])
    reading = _Reading(columns)
    people = [person for line, values in rows if (person := reading.person(line, values))]
    reading.compare(people)
    if reading.problems:
        raise PeopleFileError("Lines of the file are wrong.", [sentence for _, sentence in sorted(reading.problems)])
    if not people:
        raise PeopleFileError("The file names no people: below its first line, it has no line with an e-mail address.")
    return people


def write(people: Iterable[PersonLine]) -> str:
    """The text of a file with these people."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([one.email, one.name, one.team, one.tz, one.type] for one in people)
    return out.getvalue()


def _rows(content: bytes) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line."""
    if len(content) > LARGEST_FILE:
        raise PeopleFileError(f"The file is larger than {LARGEST_FILE // 1024 // 1024} MB.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PeopleFileError(
            f"The file is not UTF-8: line {line} holds a byte that UTF-8 does not have. Save it as CSV UTF-8."
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise PeopleFileError(f"The file is not CSV: line {line}: {error}.") from None
        if any(value.strip() for value in values):
            yield line, [value.strip() for value in values]
        line = reader.line_num + 1


def _columns(header: Sequence[str]) -> list[str]:
    """The names of the columns, from those in the first line."""
    if len(header) == 1 and any(separator in header[0] for separator in ";\t"):
        separator = "semicolons" if ";" in header[0] else "tabs"
        raise PeopleFileError(
            f"The columns of the file are separated by {separator}. Save it with commas between the columns: {HEADER}"
        )
    names = [_ALIASES.get(re.sub(r"[\s_-]", "", name.casefold()), "") for name in header]
    unknown = [repr(name[:_SHOWN]) for name, known in zip(header, names, strict=True) if not known]
    if unknown or "email" not in names or len(set(names)) < len(names):
        wrong = f"It names {', '.join(unknown)}." if unknown else f"It is {','.join(header)[:_SHOWN]!r}."
        raise PeopleFileError(f"The first line of the file must name the columns {HEADER}, email at least. {wrong}")
    return names


class _Reading:
    """Reads lines, and remembers what is wrong with them.

    Attributes:
        problems: (number of the line, sentence).
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self.problems: list[tuple[int, str]] = []

    def person(self, line: int, values: Sequence[str]) -> PersonLine | None:
        """The person of a line; None if the line is bad."""
        if len(values) != len(self._columns):
            self._bad(line, f"has {len(values)} columns instead of {len(self._columns)}")
            return None
        given = dict(zip(self._columns, values, strict=True))
        before = len(self.problems)
        email = given["email"].lower()
        if len(email) > _LONGEST_EMAIL or not _EMAIL.fullmatch(email):
            self._bad(line, f"{_shown(given['email'])} is not an e-mail address")
        person = PersonLine(
            line,
            email,
            self._text(line, "name", given),
            self._team(line, given),
            self._zone(line, given),
            self._type(line, given),
        )
        return person if len(self.problems) == before else None

    def compare(self, people: Iterable[PersonLine]) -> None:
        """Finds people who are there twice, and teams that differ in upper and lower case only."""
        lines: dict[str, int] = {}
        teams: dict[str, tuple[str, int]] = {}
        for person in people:
            if (first := lines.setdefault(person.email, person.line)) != person.line:
                self._bad(person.line, f"{person.email} is in line {first} already")
            for team in paths(person.team):
                known, line = teams.setdefault(team.casefold(), (team, person.line))
                if known != team:
                    self._bad(person.line, f"team {_shown(team)} is written {known!r} in line {line}")
                    break

    def _text(self, line: int, column: str, given: Mapping[str, str]) -> str | None:
        value = given.get(column, "")
        if len(value) > _LONGEST or not value.isprintable():
            self._bad(line, f"{column} must be one line of at most {_LONGEST} characters")
        return value or None

    def _team(self, line: int, given: Mapping[str, str]) -> str | None:
        value = self._text(line, "team", given)
        parts = [part.strip() for part in value.split("/")] if value else []
        if not all(parts):
            self._bad(line, f"team {_shown(value or '')} has an empty part; write it as Engineering/Platform")
        return "/".join(parts) or None

    def _zone(self, line: int, given: Mapping[str, str]) -> str | None:
        value = given.get("time_zone", "")
        zone = _zones().get(value.casefold())
        if value and zone is None:
            self._bad(line, f"{_shown(value)} is not an IANA time zone such as Europe/Berlin")
        return zone

    def _type(self, line: int, given: Mapping[str, str]) -> str | None:
        value = given.get("type", "")
        kind = _TYPES.get(value.casefold())
        if value and kind is None:
            self._bad(line, f"type {_shown(value)} must be human, bot or ai_bot")
        return kind

    def _bad(self, line: int, what: str) -> None:
        self.problems.append((line, f"line {line}: {what}"))


def paths(team: str | None) -> list[str]:
    """The path of a team and of those above it, the highest first."""
    parts = team.split("/") if team else []
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


@cache
def _zones() -> dict[str, str]:
    return {zone.casefold(): unabbreviated(zone) for zone in available_timezones()}


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
