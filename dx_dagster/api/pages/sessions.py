"""Sessions of the pages, and CSRF tokens of their forms."""

import hmac
import secrets
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends
from pydantic import SecretStr
from python_multipart.exceptions import FormParserError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dx_dagster.api.installation import ServedInstallation, command_line, installation
from dx_dagster.api.keys import InsightsOnlyError, TooManyRequestsError
from dx_dagster.settings import is_loopback
from dx_dagster.warehouse import api_keys

SESSION, VISIT = "dx_session", "dx_visit"
CSRF = "csrf_token"
# Browsers send a cookie to every port of a host, so none is for all paths. The session has one for each group of pages.
_PATHS = {SESSION: "/connections", VISIT: "/connections", "dx_insights_session": "/insights"}
SESSION_COOKIES = (SESSION, "dx_insights_session")


class SignInNeededError(Exception):
    """The request has no valid session."""


class ForgedError(Exception):
    """The form lacks the CSRF token of its session."""


async def signed_in(request: Request) -> api_keys.ApiKey:
    """The API key of the session.

    Raises:
        SignInNeededError: there is no session, or it has ended.
        InsightsOnlyError: its key opens insights alone.
        HTTPException: too many requests came with the key.
    """
    key = await reading_insights(request)
    if key.insights_only:
        raise InsightsOnlyError
    return key


async def reading_insights(request: Request) -> api_keys.ApiKey:
    """The API key of the session, which may open insights alone.

    Raises:
        SignInNeededError: there is no session, or it has ended.
        HTTPException: too many requests came with the key.
    """
    token = session_token(request)
    key = await api_keys.session(await installation(request).warehouse(), SecretStr(token)) if token else None
    if key is None:
        raise SignInNeededError
    try:
        await request.app.state.keys.count(key)
    except TooManyRequestsError as error:
        raise HTTPException(error.status, str(error), error.headers) from None
    return key


def session_token(request: Request) -> str:
    """The token of the session, empty without one."""
    return next((request.cookies[name] for name in SESSION_COOKIES if request.cookies.get(name)), "")


async def is_signed_in(request: Request) -> bool:
    try:
        await reading_insights(request)
    except SignInNeededError:
        return False
    return True


SignedIn = Annotated[api_keys.ApiKey, Depends(signed_in)]


def csrf_token(secret: str) -> str:
    """The CSRF token of a session, derived from its cookie one way."""
    return hmac.new(secret.encode(), b"dx-dagster form", sha256).hexdigest()


async def from_our_page(request: Request, cookie: str = SESSION) -> None:
    """Compares the form's token with the cookie.

    Raises:
        ForgedError: they do not match.
    """
    try:
        form = await request.form(max_files=0, max_fields=50)
    except (HTTPException, FormParserError, ValueError):
        raise ForgedError from None
    given, secret = form.get(CSRF), request.cookies.get(cookie, "")
    if not secret or not isinstance(given, str) or not hmac.compare_digest(given.encode(), csrf_token(secret).encode()):
        raise ForgedError


async def signed_form(request: Request, _: SignedIn) -> None:
    await from_our_page(request)


async def sign_out_form(request: Request, _: Annotated[api_keys.ApiKey, Depends(reading_insights)]) -> None:
    await from_our_page(request)


def visit(request: Request) -> str:
    """The cookie that the sign-in form's CSRF token is derived from."""
    return request.cookies.get(VISIT) or secrets.token_urlsafe(32)


def set_cookie(request: Request, response: Response, name: str, value: str, *, lasts: int | None = None) -> None:
    response.set_cookie(
        name, value, max_age=lasts, path=_PATHS[name], secure=must_be_secure(request), httponly=True, samesite="lax"
    )


def drop_cookie(request: Request, response: Response, name: str) -> None:
    response.delete_cookie(name, path=_PATHS[name], secure=must_be_secure(request), httponly=True, samesite="lax")


def local_path(path: str, otherwise: str) -> str:
    """The path to continue at after sign-in; `otherwise` unless it is a path of this server."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_ours else otherwise


def is_local(request: Request) -> bool:
    """Whether the client is on this machine and uses a loopback name."""
    return is_loopback(request.url.hostname) and request.client is not None and is_loopback(request.client.host)


def key_help(request: Request, served: ServedInstallation) -> dict[str, Any]:
    """Values of the sign-in page: the command that creates a key, with the home if the client is on this machine."""
    command = command_line(served.settings) if is_local(request) else "dx-dagster"
    return {"command": f"{command} api-keys create NAME", "is_named": served.is_named}


def must_be_secure(request: Request) -> bool:
    """Whether the session cookie needs https; only a loopback name does without."""
    return not is_loopback(request.url.hostname)
