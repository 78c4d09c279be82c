"""What tells the rows of a listing apart: the field that each of them has."""

from typing import Any, Literal

Key = Literal["id", "uuid", "hash", "user", "pull_request"]

_TYPES: dict[str, type] = {"id": int, "uuid": str, "hash": str, "user": dict, "pull_request": dict}


def has_key(value: Any, key: Key | None) -> bool:
    """Whether this is an object with its key; with None, whether it is an object at all."""
    if not isinstance(value, dict):
        return False
    if key is None:
        return True
    found = value.get(key)
    if key == "pull_request":
        return has_key(found, "id")
    return type(found) is _TYPES[key] and found not in ("", {})  # JSON's true would be an int otherwise
