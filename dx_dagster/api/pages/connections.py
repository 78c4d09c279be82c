"""The list of connections, and the sign-in of all pages. Every change is a form: the pages work without scripts."""

from pathlib import Path
from urllib.parse import urlencode

from fastapi import APIRouter, Depends
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from dx_dagster.api.data_cloud.envelope import RefusedError
from dx_dagster.api.data_cloud.routes import Served, recognized
from dx_dagster.api.installation import ServedInstallation, installation
from dx_dagster.api.keys import InsightsOnlyError
from dx_dagster.api.pages import sessions
from dx_dagster.api.pages.forms import Form
from dx_dagster.api.pages.rendering import render
from dx_dagster.api.pages.sessions import (
    SESSION_COOKIES,
    VISIT,
    ForgedError,
    SignInNeededError,
    sign_out_form,
    signed_form,
    signed_in,
)
from dx_dagster.connections import actions
from dx_dagster.connections.actions import AlreadyConnectedError, Failure, VerificationFailed
from dx_dagster.connections.estimate import expect
from dx_dagster.connections.health import health
from dx_dagster.connections.input import jira_site
from dx_dagster.connections.workspace_names import GivenError, workspace_slug
from dx_dagster.warehouse import api_keys
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.connections.connections import StoredConnection

_STATIC = Path(__file__).parent.parent / "static"
_HOME, _INSIGHTS = "/connections", "/insights"
entrance = APIRouter(include_in_schema=False)
routes = APIRouter(prefix=_HOME, include_in_schema=False)
_signed_in, _signed_form = [Depends(signed_in)], [Depends(signed_form)]


@entrance.get("/")
async def to_home() -> Response:
    return RedirectResponse(_HOME)


@routes.get("/static/{name}")
async def static(name: str) -> Response:
    files = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
    if name not in files:
        return Response(status_code=404)
    return FileResponse(_STATIC / name, media_type=files[name], headers={"Cache-Control": "max-age=300"})


@routes.get("/sign-in")
async def sign_in_form(request: Request, once: str | None = None) -> Response:
    """The sign-in form. With `once`, a sign-in link: it opens a session, once, for a browser on this machine."""
    if once is None:
        return _sign_in_page(request, after=request.query_params.get("next", ""))
    warehouse = await installation(request).warehouse()
    token = await api_keys.redeem_link(warehouse, SecretStr(once)) if sessions.is_local(request) else None
    if token is not None:
        return _entered(request, token)
    if await sessions.is_signed_in(request):  # this browser has used the link before
        return RedirectResponse(_HOME, 303)
    return _sign_in_page(request, "This link has expired or was used. Sign in with an API key.", 401)


@routes.post("/sign-in")
async def sign_in(request: Request) -> Response:
    await sessions.from_our_page(request, VISIT)
    form = await request.form()
    given, after = form.get("key"), sessions.local_path(str(form.get("next", "")), _HOME)
    try:
        secret = SecretStr(given.strip() if isinstance(given, str) else "")
        key = await recognized(request, secret, for_insights=True)
    except RefusedError as error:
        wrong = "This API key is unknown or revoked."
        told = wrong if error.status == 401 else error.message  # noqa: PLR2004
        return _sign_in_page(request, told, error.status, after=after)
    if key.insights_only and not after.startswith(_INSIGHTS):
        after = _INSIGHTS
    return _entered(request, await api_keys.open_session(await installation(request).warehouse(), key), after)


def _entered(request: Request, token: SecretStr, after: str = _HOME) -> Response:
    response = RedirectResponse(after, 303)
    lasts = int(api_keys.SESSION_LASTS.total_seconds())
    for cookie in SESSION_COOKIES:
        sessions.set_cookie(request, response, cookie, token.get_secret_value(), lasts=lasts)
    sessions.drop_cookie(request, response, VISIT)
    return response


def _sign_in_page(request: Request, error: str = "", status: int = 200, *, after: str = "") -> Response:
    plain = ""
    if sessions.must_be_secure(request) and request.url.scheme != "https":
        plain = "Browsers keep the session only over https, or on this machine (http://127.0.0.1)."
    visit = sessions.visit(request)
    shown = sessions.key_help(request, installation(request)) | {"error": error, "plain": plain, "next": after}
    response = render(request, "sign_in.html", status=status, csrf_cookie=visit, **shown)
    sessions.set_cookie(request, response, VISIT, visit)
    return response


@routes.post("/sign-out", dependencies=[Depends(sign_out_form)])
async def sign_out(request: Request, served: Served) -> Response:
    await api_keys.close_session(await served.warehouse(), SecretStr(sessions.session_token(request)))
    response = RedirectResponse(f"{_HOME}/sign-in", 303)
    for cookie in SESSION_COOKIES:
        sessions.drop_cookie(request, response, cookie)
    return response


@routes.get("", dependencies=_signed_in)
async def overview(request: Request, served: Served) -> Response:
    warehouse = await served.warehouse()
    every = await connections.all_connections(warehouse)
    shown = [(one, await health(served.settings, warehouse, one)) for one in every]
    done = "The connection was removed and its secrets erased. Imported rows stay."
    return render(request, "overview.html", connections=shown, done=done if "removed" in request.query_params else None)


@routes.get("/new", dependencies=_signed_in)
async def new_form(request: Request) -> Response:
    return render(request, "new.html", form=Form(), failure=None)


@routes.post("/new", dependencies=_signed_form)
async def new(request: Request, served: Served) -> Response:
    form = await Form.read(request)
    try:
        connection = await _connect(served, form)
    except VerificationFailed as error:
        form.follow(error.failure)
        return render(request, "new.html", status=422, form=form, failure=error.failure)
    await expect(served.settings, await served.warehouse(), connection)
    return RedirectResponse(f"{_HOME}/{connection.id}?done=connected", 303)


async def _connect(served: ServedInstallation, form: Form) -> StoredConnection:
    try:
        workspace = workspace_slug(form.workspace)
        site = jira_site(form.jira_url) if form.type == "jira_cloud" else None
    except GivenError as error:
        raise VerificationFailed(Failure("no_resources", str(error))) from None
    credential = actions.described(form.type, form.new_fields())
    warehouse = await served.warehouse()
    name = form.name or None
    try:
        return await actions.connect(
            served.settings, warehouse, workspace, credential, kind=form.type, name=name, jira_url=site
        )
    except AlreadyConnectedError as error:
        raise VerificationFailed(Failure("already_connected", str(error))) from None


async def to_sign_in(request: Request, error: Exception) -> Response:
    """Answers requests without a session, those whose key opens insights alone, and forged forms."""
    if isinstance(error, ForgedError):
        text = "This form is out of date. Go back, reload the page, and submit it again."
        return render(
            request, "message.html", status=403, csrf_cookie="none", text=text, to=_HOME, place="the connections"
        )
    if isinstance(error, InsightsOnlyError):
        return render(request, "message.html", status=403, text=str(error), to=_INSIGHTS, place="insights")
    if not isinstance(error, SignInNeededError):
        raise error
    if request.url.path.startswith(_INSIGHTS) and request.method == "GET":
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{_HOME}/sign-in?{urlencode({'next': path})}", 303)
    return RedirectResponse(f"{_HOME}/sign-in", 303)
