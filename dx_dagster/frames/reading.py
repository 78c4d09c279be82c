"""Reading single values out of Bitbucket's JSON, in which nearly everything can be missing or null."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Json = Mapping[str, Any]
_NOTHING: Json = {}


def inner(value: Any, *path: str) -> Any:
    """What stands at `path`, or None where the path ends early."""
    for name in path:
        # As json.loads gives it. Asking for any Mapping takes ten times as long, and this is asked a million times.
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def record(value: Any, *path: str) -> Json:
    """The object at `path`, or an empty one."""
    found = inner(value, *path)
    return found if isinstance(found, dict) else _NOTHING


def records(value: Any, *path: str) -> list[Json]:
    """The objects of the list at `path`; none where there is no list."""
    found = inner(value, *path)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def text(value: Any) -> str | None:
    """A text as PostgreSQL can hold it: no NUL, and no half of a surrogate pair."""
    if not isinstance(value, str):
        return None
    storable: str = value.replace("\x00", "")
    try:
        storable.encode()
    except UnicodeEncodeError:
        storable = storable.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return storable


def number(value: Any, bits: int = 64) -> int | None:
    """A whole number that a column of so many bits holds."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and -(1 << (bits - 1)) <= value < 1 << (bits - 1) else None


def flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def time(value: Any) -> datetime | None:
    """A time in UTC, cut to microseconds: pipelines carry nanoseconds with a varying number of digits."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
        if parsed.tzinfo is UTC:  # nearly all of them, and a conversion takes longer than to read it
            return parsed
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def link(value: Json) -> str | None:
    """The address of the page for people."""
    return text(inner(value, "links", "html", "href"))
