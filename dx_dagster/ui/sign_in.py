"""The sign-in of the UI with API keys: a page and a cookie for browsers, a header for programs."""

from contextlib import suppress
from http import HTTPStatus
from urllib.parse import urlencode

import psycopg
from psycopg_pool import PoolTimeout
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dx_dagster.api.bodies import BodyLimit
from dx_dagster.api.data_cloud.envelope import RefusedError
from dx_dagster.api.guard import host_name
from dx_dagster.api.headers import SafeHeaders
from dx_dagster.api.installation import ServedInstallation
from dx_dagster.api.keys import InsightsOnlyError, Keys, RefusedKeyError, WrongKeyError
from dx_dagster.api.pages import connections
from dx_dagster.api.pages.rendering import render
from dx_dagster.api.pages.sessions import key_help, local_path
from dx_dagster.settings import Settings, is_loopback
from dx_dagster.warehouse import api_keys
from dx_dagster.warehouse.api_keys import ApiKey
from dx_dagster.warehouse.database import WarehouseError

HOME = "/dx-dagster"
# Another name than the connections pages use: browsers send a cookie to every port of a host.
SESSION = "dx_ui_session"
_SIGN_IN = f"{HOME}/sign-in"
# Shows versions of Dagster's packages to probes and tools, and no data of the installation.
_OPEN = "/server_info"
_WRONG = "This API key is unknown or revoked."
_AWAY = (WarehouseError, PoolTimeout, psycopg.OperationalError)


class SignIn:
    """Requires a session or an API key; other requests are redirected to the sign-in page or get 401."""

    def __init__(self, app: ASGIApp, settings: Settings, url: str, *, everywhere: bool) -> None:
        self.app, self._everywhere = app, everywhere
        self._keys = Keys(ServedInstallation(settings, url))
        self._pages = SafeHeaders(BodyLimit(_Pages(self._keys).app()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, send)
            finally:
                await self._keys.installation.close()
            return
        if scope["path"] == HOME or scope["path"].startswith(f"{HOME}/"):
            await self._pages(scope, receive, send)
            return
        refused = None if self._is_open(scope) else await self._refusal(HTTPConnection(scope))
        await (refused or self.app)(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        """Whether the request needs no key: a loopback name, unless DX_UI_SIGN_IN is on."""
        if scope["path"] == _OPEN:
            return True
        return not self._everywhere and is_loopback(host_name(Headers(scope=scope).get("host", "")))

    async def _refusal(self, connection: HTTPConnection) -> Response | None:
        try:
            if await _signed_in(self._keys, connection) is not None:
                return None
        except RefusedKeyError as error:
            return _refused(error.status, str(error), error.headers)
        except WrongKeyError:
            return _refused(HTTPStatus.UNAUTHORIZED, _WRONG)
        except _AWAY:
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer.")
        if connection.scope["type"] == "http" and "text/html" in connection.headers.get("accept", ""):
            path = connection.url.path + (f"?{connection.url.query}" if connection.url.query else "")
            return RedirectResponse(f"{_SIGN_IN}?{urlencode({'next': path})}", HTTPStatus.SEE_OTHER)
        sentence = "Sign in at /dx-dagster/sign-in, or send a key of `dx-dagster api-keys create` as a Bearer token."
        return _refused(HTTPStatus.UNAUTHORIZED, sentence)


def _refused(status: HTTPStatus, sentence: str, headers: dict[str, str] | None = None) -> Response:
    bearer = {"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else {}
    return JSONResponse({"errors": [{"message": sentence}]}, status, bearer | (headers or {}))  # as GraphQL says it


async def _signed_in(keys: Keys, connection: HTTPConnection) -> ApiKey | None:
    """The API key of the session or the header; None without either.

    Raises:
        WrongKeyError: the header has an unknown or revoked key.
        InsightsOnlyError: the key opens insights alone.
        TooManyRequestsError: its address gave too many wrong keys, or too many requests came with the key.
    """
    scheme, _, given = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return await keys.recognized(connection, SecretStr(given.strip()))
    token = connection.cookies.get(SESSION)
    key = await api_keys.session(await keys.installation.warehouse(), SecretStr(token)) if token else None
    if key is not None and key.insights_only:  # a session of the pages: it is no secret which cookie it came in
        raise InsightsOnlyError
    return key


class _Pages:
    """The sign-in pages. The guard, which runs before them, rejects foreign forms."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def app(self) -> ASGIApp:
        unavailable = dict.fromkeys(_AWAY, _unavailable)
        return Starlette(
            routes=[
                Route(HOME, self.to_dagster),
                Route(_SIGN_IN, self.form),
                Route(_SIGN_IN, self.sign_in, methods=["POST"]),
                Route(f"{HOME}/sign-out", self.sign_out, methods=["POST"]),
                Route(f"{HOME}/static/{{name}}", self.static),
            ],
            exception_handlers={**unavailable, RefusedError: _unreadable},
        )

    async def to_dagster(self, _: Request) -> Response:
        return RedirectResponse("/")

    async def static(self, request: Request) -> Response:
        return await connections.static(request.path_params["name"])

    async def form(self, request: Request) -> Response:
        with suppress(WrongKeyError, RefusedKeyError):
            key = await _signed_in(self._keys, request)
            if key is not None:
                return render(request, "signed_in.html", csrf_cookie="none", home=HOME, key=key)
        return _form(request, self._keys, local_path(request.query_params.get("next", ""), "/"))

    async def sign_in(self, request: Request) -> Response:
        sent = await request.form(max_files=0, max_fields=10)
        given, after = sent.get("key"), local_path(str(sent.get("next", "")), "/")
        try:
            key = await self._keys.recognized(request, SecretStr(given.strip() if isinstance(given, str) else ""))
        except WrongKeyError:
            return _form(request, self._keys, after, _WRONG, HTTPStatus.UNAUTHORIZED)
        except RefusedKeyError as error:
            return _form(request, self._keys, after, str(error), error.status)
        token = await api_keys.open_session(await self._keys.installation.warehouse(), key)
        response = RedirectResponse(after, HTTPStatus.SEE_OTHER)
        response.set_cookie(
            SESSION,
            token.get_secret_value(),
            max_age=int(api_keys.SESSION_LASTS.total_seconds()),
            secure=request.url.scheme == "https",
            httponly=True,
            # Not strict: a link to a run in a message must open it. The guard refuses all other foreign requests.
            samesite="lax",
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        token = SecretStr(request.cookies.get(SESSION, ""))
        await api_keys.close_session(await self._keys.installation.warehouse(), token)
        response = RedirectResponse(_SIGN_IN, HTTPStatus.SEE_OTHER)
        response.delete_cookie(SESSION, secure=request.url.scheme == "https", httponly=True, samesite="lax")
        return response


async def _unavailable(_: Request, __: Exception) -> Response:
    return PlainTextResponse("The database does not answer.", HTTPStatus.SERVICE_UNAVAILABLE)


async def _unreadable(_: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), HTTPStatus.BAD_REQUEST)


def _form(request: Request, keys: Keys, after: str, error: str = "", status: int = HTTPStatus.OK) -> Response:
    encrypted = request.url.scheme == "https" or is_loopback(request.url.hostname)
    plain = "" if encrypted else "Others in the network can read the API key."
    shown = key_help(request, keys.installation) | {"home": HOME, "next": after, "error": error, "plain": plain}
    return render(request, "sign_in.html", status=status, csrf_cookie="none", **shown)
