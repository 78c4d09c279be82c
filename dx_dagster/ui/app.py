"""The UI's application: Dagster's own behind the guard and, where required, the sign-in."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dx_dagster.api.guard import Guard, Hosts
from dx_dagster.settings import Settings, is_loopback

_GRAPHQL = "/graphql"
_READING = frozenset({"GET", "HEAD"})
# Content types that a form of any page can send without a preflight. Dagster's pages send JSON.
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})


def create_app(dagster: ASGIApp, settings: Settings, host: str) -> ASGIApp:
    """Dagster's application as it is served on `host`.

    Raises:
        EmbeddedDatabaseError: the sign-in needs the embedded database, which does not start.
    """
    guarded: ASGIApp = KeptApart(ChangesByPost(dagster))
    if may_need_sign_in(settings, host):
        from dx_dagster.ui.sign_in import SignIn  # noqa: PLC0415 - 30 MB that most do without
        from dx_dagster.warehouse.embedded import database_url  # noqa: PLC0415

        everywhere = settings.ui_sign_in == "on" or not is_loopback(host)
        guarded = SignIn(guarded, settings, database_url(settings), everywhere=everywhere)
    return Guard(guarded, Hosts(settings.served_hosts))


def may_need_sign_in(settings: Settings, host: str) -> bool:
    """Whether the UI may require a sign-in. By default only a loopback name does without."""
    if settings.ui_sign_in is not None:
        return settings.ui_sign_in == "on"
    return not is_loopback(host) or not all(is_loopback(name) for name in settings.served_hosts)


class ChangesByPost:
    """Accepts GraphQL only as JSON in a POST. Dagster itself also accepts links and forms."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refused = _refusal(scope)
            if refused is not None:
                await refused(scope, receive, send)
                return
            if scope["path"] == _GRAPHQL and scope["method"] in _READING:
                scope = {**scope, "query_string": b""}  # for the page to write queries on, which reads its address
        await self.app(scope, receive, send)


def _refusal(scope: Scope) -> PlainTextResponse | None:
    headers = Headers(scope=scope)
    if scope["method"] in _READING:
        if scope["path"] != _GRAPHQL or "text/html" in headers.get("accept", ""):
            return None
        return PlainTextResponse("GraphQL is taken by POST only.\n", 405, {"Allow": "POST"})
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FORMS:
        return PlainTextResponse("Forms are not taken here; send application/json.\n", 415)
    return None


class KeptApart:
    """Adds headers that keep foreign pages from framing, embedding or reading Dagster's answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def apart(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]
                headers.append("Content-Security-Policy", "frame-ancestors 'self'")  # beside Dagster's own
                headers["X-Frame-Options"] = "SAMEORIGIN"
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Cross-Origin-Opener-Policy"] = "same-origin"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
            await send(message)

        await self.app(scope, receive, apart if scope["type"] == "http" else send)
