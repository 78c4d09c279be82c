"""The errors of the client, as a tree, so that a caller can catch at any level.

BitbucketError
├── Unauthorized           401: this credential is refused                      invalid_credentials
├── CredentialsExhausted   every credential of the pool is refused              invalid_credentials
├── Forbidden              403, 402, 451, or a 401 of one resource only         invalid_permissions
├── NotFound               404                                                  no_resources
├── Gone                   410: a removed API, or a workspace that was shut     no_resources
├── BadRequest             400 and every other 4xx
├── RateLimited            429, and the longest allowed wait is over
├── Undecided              404 to some credentials; the others have no requests left
├── Unavailable            5xx, 555, 408, timeouts, broken bodies; no retry is left    unavailable
├── RefusedOrigin          a link, redirect or path that leaves the API
└── PagingInCircles        a listing that repeats itself, lacks rows, or ignores its filter or sort

None of them holds a header, a query string or a secret, so all of them may be logged and stored.
"""

# ruff: noqa: N818 - the tree already says that these are errors

import html
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from dx_dagster.bitbucket.wording import series

EXCERPT = 300
"""Characters of the API's message that an error quotes."""

_MARKUP = re.compile(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>")
_SPACE = re.compile(r"\s+")


class BitbucketError(Exception):
    """The root of the tree.

    Attributes:
        method, path: of the request; without the query.
        status: of the response, if there was one.
        message: the error message of the API, if it sent one.
    """

    code: str | None = None
    """The public error code: invalid_credentials, invalid_permissions, no_resources, unavailable, or None."""

    def __init__(
        self,
        text: str,
        *,
        method: str | None = None,
        path: str | None = None,
        status: int | None = None,
        message: str | None = None,
    ) -> None:
        super().__init__(text)
        self.method = method
        self.path = path
        self.status = status
        self.message = message


class Unauthorized(BitbucketError):
    code = "invalid_credentials"


class CredentialsExhausted(BitbucketError):
    code = "invalid_credentials"


class Forbidden(BitbucketError):
    """`required` and `granted` are scopes, empty where the API does not name them."""

    code = "invalid_permissions"
    required: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(scope for scope in self.required if scope not in self.granted)


class NotFound(BitbucketError):
    """`revisions` are those of the request that do not exist, empty where the API does not name them."""

    code = "no_resources"
    revisions: tuple[str, ...] = ()


class Gone(BitbucketError):
    code = "no_resources"


class BadRequest(BitbucketError):
    pass


class RateLimited(BitbucketError):
    """`retry_after` is in seconds; None where it is unknown."""

    retry_after: float | None = None


class Undecided(BitbucketError):
    pass


class Unavailable(BitbucketError):
    code = "unavailable"


class RefusedOrigin(BitbucketError):
    pass


class PagingInCircles(BitbucketError):
    pass


_KINDS: dict[int, type[BitbucketError]] = {
    401: Unauthorized,
    402: Forbidden,  # a feature that the workspace's plan lacks
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    410: Gone,
    425: Unavailable,
    429: RateLimited,
    451: Forbidden,
}


def from_response(response: httpx.Response, redact: Callable[[str], str] = str) -> BitbucketError:
    """Builds the error for a response; `redact` removes secrets from the quoted message."""
    status = response.status_code
    kind = _KINDS.get(status, BadRequest if 400 <= status < 500 else Unavailable)  # noqa: PLR2004
    method, path = response.request.method, response.request.url.raw_path.decode("ascii").partition("?")[0]
    body = _parsed(response)
    message = redact(_words(body) if body is not None else excerpt(_text(response.content))) or None
    text = f"{method} {path} answered {status}{f': {message}' if message else ''}"
    error = kind(text, method=method, path=path, status=status, message=message)
    if isinstance(error, Forbidden):
        _add_scopes(error, body)
    if isinstance(error, NotFound):
        error.revisions = _strings(body, "data", "shas")
    return error


def _add_scopes(error: Forbidden, body: Any) -> None:
    error.required, error.granted = _scopes(body, "required"), _scopes(body, "granted")
    if error.missing:
        error.args = (f"{error.args[0]} (missing: {', '.join(error.missing)})",)


def excerpt(text: str) -> str:
    """The readable words of a text or HTML body, shortened."""
    words = _SPACE.sub(" ", html.unescape(_MARKUP.sub(" ", text[:20_000]))).strip()
    return words if len(words) <= EXCERPT else f"{words[:EXCERPT]}…"


def _text(content: bytes) -> str:
    """The text of a body, without regard to the header, whose charset may be no encoding of texts."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _parsed(response: httpx.Response) -> Any:
    """The body as JSON whatever its content type, which is sometimes wrong; None if it is not JSON."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None


def _words(body: Any) -> str:
    """The message of an error body.

    Only `error.message` is documented. `detail` may be text or an object of scopes, `fields` maps names to a text or a
    list of texts, and live responses leave out any of them (bitbucket-api.md, "Error bodies").
    """
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return excerpt(series(_texts(error)))
    texts = [text for key in ("message", "detail") for text in _texts(error.get(key), objects=key == "message")]
    fields = error.get("fields")
    if isinstance(fields, dict):
        texts += [f"{name}: {text}" for name, value in fields.items() for text in _texts(value)]
    return excerpt(series(texts))


def _texts(value: Any, *, objects: bool = True) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value[:10]:
            yield from _texts(item) if not isinstance(item, list) else ()
    elif isinstance(value, dict) and objects:
        yield json.dumps(value, default=str)[:EXCERPT]


def _scopes(body: Any, which: str) -> tuple[str, ...]:
    return _strings(body, "detail", which)


def _strings(body: Any, *path: str) -> tuple[str, ...]:
    """The texts of a list inside `error`; empty where there is no such list."""
    value = body.get("error") if isinstance(body, dict) else None
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()
