"""Arguments of a method, from JSON or a form. They are checked by hand: no answer quotes a body with a secret."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydantic import SecretStr
from python_multipart.exceptions import FormParserError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from dx_dagster.api.bodies import LARGEST_BODY
from dx_dagster.api.data_cloud.envelope import RefusedError

CONNECTION_TYPES = ("github", "gitlab", "ado", "bitbucket", "bitbucket_server")
"""Those whose accounts DX classifies; the accounts here are all of the type bitbucket."""
STATUSES = ("human", "bot", "ai_agent")
MOST_USERS = 1000

_LONGEST_TEXT = 4000
_LARGEST_ID = 2**31 - 1
_MOST_FIELDS = 2 * MOST_USERS + 50
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
_OF_USER = re.compile(r"users\[([0-9]{0,4})\]\[(source_id|status)\]")
_NESTED = re.compile(r"(settings|secrets)(?:\[([A-Za-z_]+)\]|\.([A-Za-z_]+))")


@dataclass(frozen=True)
class Arguments:
    """Arguments of a method; `given` names those in the body, which tells null from absence."""

    id: int | None
    label: str | None
    settings: Mapping[str, str | None]
    secrets: Mapping[str, SecretStr]
    expiration_date: date | None
    given: frozenset[str]


@dataclass(frozen=True)
class Statuses:
    """Arguments of `users.setUserStatuses`: status by source_id."""

    connection_type: str
    statuses: Mapping[str, str]


async def arguments(request: Request) -> Arguments:
    """The arguments in the body of the request.

    Raises:
        RefusedError: the body cannot be read (invalid_json).
    """
    values = await _values(request)
    label = _text(values.get("label"), "label")
    return Arguments(
        id=_number(values.get("id")),
        label=label.strip() if label else None,
        settings={name: _text(value, f"settings.{name}") for name, value in _object(values, "settings").items()},
        secrets={
            name: SecretStr(text)
            for name, value in _object(values, "secrets").items()
            if (text := _text(value, f"secrets.{name}"))
        },
        expiration_date=_day(values.get("expiration_date")),
        given=frozenset(values),
    )


async def statuses(request: Request) -> Statuses:
    """The arguments of `users.setUserStatuses` in the body of the request.

    In a form, `users` is JSON, or has names such as `users[0][status]` or `users[][status]`.

    Raises:
        RefusedError: the body cannot be read, or an argument is missing or wrong (invalid_json).
    """
    values = await _values(request)
    kind = values.get("connection_type")
    if kind not in CONNECTION_TYPES:
        raise _unreadable(f"connection_type must be one of {', '.join(CONNECTION_TYPES)}.")
    users = values.get("users")
    if isinstance(users, str):
        users = _json(b'{"users": %b}' % users.encode("utf-8", "replace"))["users"]
    if not isinstance(users, list) or not 1 <= len(users) <= MOST_USERS:
        raise _unreadable(f"users must be a list of 1 to {MOST_USERS} objects with source_id and status.")
    return Statuses(kind, dict(_status(number, one) for number, one in enumerate(users)))


def _status(number: int, user: Any) -> tuple[str, str]:
    if not isinstance(user, dict):
        raise _unreadable(f"users[{number}] must be an object with source_id and status.")
    source_id = _text(user.get("source_id"), f"users[{number}].source_id")
    if not source_id or not source_id.strip():
        raise _unreadable(f"users[{number}].source_id must be the source_id of an account.")
    status = user.get("status")
    if status not in STATUSES:
        raise _unreadable(f"users[{number}].status must be one of {', '.join(STATUSES)}.")
    return source_id.strip(), status


async def _values(request: Request) -> Mapping[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return await _form(request) if kind in _FORMS else _json(await request.body())


def _unreadable(what: str) -> RefusedError:
    return RefusedError("invalid_json", what)


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        raise _unreadable("The JSON body could not be parsed.") from None
    if not isinstance(values, dict):
        raise _unreadable("The JSON body must be an object.")
    return values


async def _form(request: Request) -> Mapping[str, Any]:
    """Arguments of a form. Nested names are `secrets[api_token]`, `secrets.api_token`, or JSON in `secrets`."""
    values: dict[str, Any] = {}
    try:
        form = await request.form(max_files=0, max_fields=_MOST_FIELDS, max_part_size=LARGEST_BODY)
    except (HTTPException, FormParserError, ValueError):
        raise _unreadable("The form could not be parsed.") from None
    for name, value in form.multi_items():
        nested = _NESTED.fullmatch(name)
        if nested:
            holder = values.setdefault(nested[1], {})
            if not isinstance(holder, dict):
                raise _unreadable(f"{nested[1]} is given twice.")
            holder[nested[2] or nested[3]] = value
        elif name in {"settings", "secrets"}:
            values[name] = _json(str(value).encode("utf-8", "replace"))
        else:
            values[name] = value
    return values | ({"users": users} if (users := _users(form.multi_items())) else {})


def _users(fields: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Users of a form. Without a number, a field that the last user has already begins the next one, as in Rails."""
    users: dict[str, dict[str, Any]] = {}
    begun = 0
    for name, value in fields:
        if found := _OF_USER.fullmatch(name):
            place, column = found.groups()
            if not place:
                begun += column in users.get(f"[{begun}]", {})
            users.setdefault(place or f"[{begun}]", {})[column] = value
    return list(users.values())


def _object(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    if found is None or found == "":
        return {}
    if not isinstance(found, dict):
        raise _unreadable(f"{name} must be an object.")
    return found


def _text(value: Any, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not _storable(value):
        raise _unreadable(f"{name[:100]!r} must be a text of at most {_LONGEST_TEXT} characters.")
    return value


def _storable(text: str) -> bool:
    """Whether PostgreSQL can store the text: no NUL, no half of a surrogate pair."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _number(value: Any) -> int | None:
    """The number of a row, or None for an invalid one."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_ID else None


def _day(value: Any) -> date | None:
    if value is None or value == "":
        return None
    try:
        return date.fromisoformat(value)
    except (ValueError, TypeError):
        raise _unreadable("expiration_date must be a day such as 2027-01-31.") from None
