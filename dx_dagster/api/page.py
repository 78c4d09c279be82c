"""The connections page, for a person: every change is a form, so that it works without scripts and by keyboard."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from dx_dagster.api import sessions
from dx_dagster.api.data_cloud import ConnectionId, CredentialId, Doors, connection_of, recognized
from dx_dagster.api.envelope import RefusedError
from dx_dagster.api.forms import Form
from dx_dagster.api.installation import Installation, installation
from dx_dagster.api.pages import render
from dx_dagster.api.sessions import SESSION, VISIT, ForgedError, SignInNeededError, signed_form, signed_in
from dx_dagster.importer import connections as doors
from dx_dagster.importer.connections import CredentialNotFoundError, Failure, VerificationFailed
from dx_dagster.importer.given import GivenError, jira_site, workspace_slug
from dx_dagster.importer.health import health
from dx_dagster.warehouse import api_keys, connections, webhook_secrets
from dx_dagster.warehouse.connections import StoredConnection
from dx_dagster.warehouse.vault import Vault

_STATIC = Path(__file__).parent / "static"
_HOME = "/connections"
_DONE = {
    "connected": "The credential is good, and the workspace is connected.",
    "added": "The credential is good, and was added.",
    "checked": "Verified again: what came of it stands with each credential.",
    "disabled": "The credential is disabled: no request is sent with it.",
    "removed": "The credential was removed, and its secret forgotten.",
    "rotated": "There is a new secret. Deliveries signed with the old one are taken for an hour more.",
}

routes = APIRouter(prefix=_HOME, include_in_schema=False)
_signed_in, _signed_form = [Depends(signed_in)], [Depends(signed_form)]


@routes.get("/static/{name}")
async def static(name: str) -> Response:
    files = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
    if name not in files:
        return Response(status_code=404)
    return FileResponse(_STATIC / name, media_type=files[name], headers={"Cache-Control": "max-age=300"})


@routes.get("/sign-in")
async def sign_in_form(request: Request) -> Response:
    return _sign_in_page(request)


@routes.post("/sign-in")
async def sign_in(request: Request) -> Response:
    await sessions.from_our_page(request, VISIT)
    given = (await request.form()).get("key")
    try:
        key = await recognized(request, SecretStr(given.strip() if isinstance(given, str) else ""))
    except RefusedError as error:
        wrong = "This is no key of this installation, or it was revoked."
        return _sign_in_page(request, wrong if error.status == 401 else error.message, error.status)  # noqa: PLR2004
    token = await api_keys.open_session(await installation(request).warehouse(), key)
    response = RedirectResponse(_HOME, 303)
    lasts = int(api_keys.SESSION_LASTS.total_seconds())
    sessions.set_cookie(request, response, SESSION, token.get_secret_value(), lasts=lasts)
    sessions.drop_cookie(request, response, VISIT)
    return response


def _sign_in_page(request: Request, error: str = "", status: int = 200) -> Response:
    plain = sessions.must_be_secure(request) and request.url.scheme != "https"
    visit = sessions.visit(request)
    response = render(request, "sign_in.html", status=status, csrf_cookie=visit, error=error, plain=plain)
    sessions.set_cookie(request, response, VISIT, visit)
    return response


@routes.post("/sign-out", dependencies=_signed_form)
async def sign_out(request: Request, found: Doors) -> Response:
    await api_keys.close_session(await found.warehouse(), SecretStr(request.cookies.get(SESSION, "")))
    response = RedirectResponse(f"{_HOME}/sign-in", 303)
    sessions.drop_cookie(request, response, SESSION)
    return response


@routes.get("", dependencies=_signed_in)
async def overview(request: Request, found: Doors) -> Response:
    every = await connections.all_connections(await found.warehouse())
    return render(request, "overview.html", connections=every)


@routes.get("/new", dependencies=_signed_in)
async def new_form(request: Request) -> Response:
    return render(request, "new.html", form=Form(), failure=None)


@routes.post("/new", dependencies=_signed_form)
async def new(request: Request, found: Doors) -> Response:
    form = await Form.read(request)
    try:
        connection = await _connect(found, form)
    except VerificationFailed as error:
        return render(request, "new.html", status=422, form=form, failure=error.failure)
    return _to(connection.id, "connected")


async def _connect(found: Installation, form: Form) -> StoredConnection:
    try:
        workspace = workspace_slug(form.workspace)
        site = jira_site(form.jira_url) if form.type == "jira_cloud" else None
    except GivenError as error:
        raise VerificationFailed(Failure("no_resources", str(error))) from None
    credential = doors.described(form.type, form.fields())
    return await doors.connect(
        found.settings,
        await found.warehouse(),
        workspace,
        credential,
        kind=form.type,
        name=form.name or None,
        jira_url=site,
    )


async def _chosen(found: Doors, connection_id: ConnectionId) -> StoredConnection:
    return await connection_of(found, connection_id)


Chosen = Annotated[StoredConnection, Depends(_chosen)]


@routes.get("/{connection_id}", dependencies=_signed_in)
async def details(request: Request, found: Doors, connection: Chosen) -> Response:
    return await _details(request, found, connection, done=_DONE.get(request.query_params.get("done", "")))


async def _details(
    request: Request, found: Installation, connection: StoredConnection, *, status: int = 200, **shown: Any
) -> Response:
    warehouse = await found.warehouse()
    jira = connection.type == "jira_cloud"
    values: dict[str, Any] = {
        "connection": connection,
        "credentials": await health(found.settings, warehouse, connection),
        "form": Form(type=connection.type, method="basic" if jira else "api_token"),
        "failure": None,
        "done": None,
        "webhook": f"{(found.settings.public_url or str(request.base_url)).rstrip('/')}/webhooks/bitbucket",
        "public": found.settings.public_url is not None,
        "secret": None,
    }
    return render(request, "connection.html", status=status, **(values | shown))


@routes.post("/{connection_id}/credentials", dependencies=_signed_form)
async def add(request: Request, found: Doors, connection: Chosen) -> Response:
    form = await Form.read(request)
    form.type = connection.type
    if connection.type == "jira_cloud":
        form.method = "basic"
    try:
        await doors.add_fields(found.settings, await found.warehouse(), connection, form.fields())
    except VerificationFailed as error:
        return await _details(request, found, connection, status=422, form=form, failure=error.failure)
    return _to(connection.id, "added")


@routes.post("/{connection_id}/check", dependencies=_signed_form)
async def check_all(found: Doors, connection: Chosen) -> Response:
    await doors.check(found.settings, await found.warehouse(), connection)
    return _to(connection.id, "checked")


@routes.post("/{connection_id}/credentials/{credential_id}/check", dependencies=_signed_form)
async def check(found: Doors, connection: Chosen, credential_id: CredentialId) -> Response:
    async def work() -> None:
        await doors.check(found.settings, await found.warehouse(), connection, credential_id)

    return await _change(work, connection, "checked")


@routes.post("/{connection_id}/credentials/{credential_id}/disable", dependencies=_signed_form)
async def disable(request: Request, found: Doors, connection: Chosen, credential_id: CredentialId) -> Response:
    reason = (await request.form()).get("reason")

    async def work() -> None:
        text = "".join(one for one in str(reason or "")[:500] if one.isprintable())
        await doors.disable(await found.warehouse(), connection, credential_id, text)

    return await _change(work, connection, "disabled")


@routes.post("/{connection_id}/credentials/{credential_id}/remove", dependencies=_signed_form)
async def remove(found: Doors, connection: Chosen, credential_id: CredentialId) -> Response:
    async def work() -> None:
        await doors.remove(await found.warehouse(), connection, credential_id)

    return await _change(work, connection, "removed")


async def _change(work: Callable[[], Awaitable[None]], connection: StoredConnection, done: str) -> Response:
    try:
        await work()
    except CredentialNotFoundError:
        done = "gone"  # somebody else was faster: the list says so
    return _to(connection.id, done)


@routes.post("/{connection_id}/webhook/show", dependencies=_signed_form)
async def show_secret(request: Request, found: Doors, connection: Chosen) -> Response:
    vault, warehouse = Vault.of(found.settings), await found.warehouse()
    current = await webhook_secrets.current(warehouse, vault, connection.id)
    if current is None:
        current = await webhook_secrets.add(warehouse, vault, connection.id)
    return await _details(request, found, connection, secret=current[1])


@routes.post("/{connection_id}/webhook/rotate", dependencies=_signed_form)
async def rotate_secret(request: Request, found: Doors, connection: Chosen) -> Response:
    vault, warehouse = Vault.of(found.settings), await found.warehouse()
    number, secret = await webhook_secrets.add(warehouse, vault, connection.id)
    await webhook_secrets.retire(warehouse, connection.id, but=number)
    return await _details(request, found, connection, secret=secret, done=_DONE["rotated"])


def _to(connection_id: int, done: str) -> Response:
    return RedirectResponse(f"{_HOME}/{connection_id}?done={done}", 303)


async def to_sign_in(request: Request, error: Exception) -> Response:
    """Where requests of nobody, or from elsewhere, go."""
    if isinstance(error, ForgedError):
        text = "This form is out of date. Go back, load the page again, and repeat what you did."
        return render(request, "message.html", status=403, csrf_cookie="none", text=text)
    if not isinstance(error, SignInNeededError):
        raise error
    return RedirectResponse(f"{_HOME}/sign-in", 303)
