"""Reads single values from Bitbucket's JSON, in which nearly every field can be missing or null."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Json = Mapping[str, Any]
_NOTHING: Json = {}


def inner(value: Any, *path: str) -> Any:
    """The value at `path`, or None where the path ends early."""
    for name in path:
        # dict, as json.loads returns it: isinstance with Mapping takes ten times as long.
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def record(value: Any, *path: str) -> Json:
    """The object at `path`, or an empty one."""
    at_path = inner(value, *path)
    return at_path if isinstance(at_path, dict) else _NOTHING


def records(value: Any, *path: str) -> list[Json]:
    """The objects of the list at `path`; empty where there is no list."""
    at_path = inner(value, *path)
    return [item for item in at_path if isinstance(item, dict)] if isinstance(at_path, list) else []


def text(value: Any) -> str | None:
    """A text that PostgreSQL can store: without NUL and halves of surrogate pairs."""
    if not isinstance(value, str):
        return None
    storable: str = value.replace("\x00", "")
    try:
        storable.encode()
    except UnicodeEncodeError:
        storable = storable.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return storable


def number(value: Any, bits: int = 64) -> int | None:
    """An integer that a column of so many bits can store."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and -(1 << (bits - 1)) <= value < 1 << (bits - 1) else None


def flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def time(value: Any) -> datetime | None:
    """A time in UTC, cut to microseconds: pipelines have nanoseconds with a varying number of digits."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
        if parsed.tzinfo is UTC:  # nearly always, and converting takes longer than parsing
            return parsed
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def link(value: Json) -> str | None:
    """The URL of the page in Bitbucket's web interface."""
    return text(inner(value, "links", "html", "href"))
