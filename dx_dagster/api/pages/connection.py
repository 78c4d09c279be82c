"""The page of one connection: its syncs, its credentials and their health, and its webhook."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dx_dagster.api.data_cloud.routes import ConnectionId, CredentialId, Served, connection_of
from dx_dagster.api.installation import ServedInstallation
from dx_dagster.api.pages.forms import Form, line
from dx_dagster.api.pages.rendering import render
from dx_dagster.api.pages.sessions import is_local, signed_form, signed_in
from dx_dagster.clock import HOST
from dx_dagster.connections import actions
from dx_dagster.connections.actions import ConnectionNotFoundError, CredentialNotFoundError, VerificationFailed
from dx_dagster.connections.estimate import Expected
from dx_dagster.connections.health import health
from dx_dagster.settings import Settings, is_loopback
from dx_dagster.warehouse import lock_names, sync_steps
from dx_dagster.warehouse.connections import connections, credentials
from dx_dagster.warehouse.connections.connections import StoredConnection
from dx_dagster.warehouse.connections.credentials import ShownCredential
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported import bounds
from dx_dagster.warehouse.locks import holder_of
from dx_dagster.warehouse.webhooks import belief, inbox
from dx_dagster.webhooks import secret_rotation
from dx_dagster.webhooks.address import PATH

_HOME = "/connections"
_DONE = {
    "connected": "The credential is good, and the workspace is connected. The first import starts within minutes.",
    "added": "The credential is good and was added.",
    "there": "This token is there already. It is good and enabled.",
    "changed": "The credential is good and was changed.",
    "checked": "Verified again. Each credential shows its result.",
    "disabled": "The credential is disabled: no request is sent with it.",
    "removed": "The credential was removed and its secret erased.",
    "gone": "This credential no longer exists.",
    "rotated": "There is a new secret. Deliveries signed with the old one are accepted for another hour.",
    "off": "The connection is disabled: no request is sent over it.",
    "on": "The connection is enabled, and its credentials were verified.",
    "asked": "A sync was asked for. It starts within seconds.",
    "late": "The sync is running or asked for already.",
    "replayed": "The deliveries will be applied again within seconds.",
}
_MOST_SHOWN = 20
_LATE = timedelta(seconds=30)
_DIGITS = 18  # of a number of a delivery

routes = APIRouter(prefix=_HOME, include_in_schema=False)
_signed_in, _signed_form = [Depends(signed_in)], [Depends(signed_form)]


async def _chosen(served: Served, connection_id: ConnectionId) -> StoredConnection:
    return await connection_of(served, connection_id)


Chosen = Annotated[StoredConnection, Depends(_chosen)]


@routes.get("/{connection_id}", dependencies=_signed_in)
async def details(request: Request, served: Served, connection: Chosen) -> Response:
    return await _details(request, served, connection, done=_DONE.get(request.query_params.get("done", "")))


async def _details(
    request: Request, served: ServedInstallation, connection: StoredConnection, *, status: int = 200, **shown: Any
) -> Response:
    jira = connection.type == "jira_cloud"
    warehouse = await served.warehouse()
    values: dict[str, Any] = {
        **await _syncs(request, served, connection),
        **await _deliveries(warehouse, connection),
        "look": None,
        "connection": connection,
        "credentials": await health(served.settings, warehouse, connection),
        "believed": await belief.read(warehouse, connection.workspace),
        "since": await bounds.of_workspace(warehouse, connection.workspace),
        "form": Form(type=connection.type, method="basic" if jira else "api_token"),
        "failure": None,
        "done": None,
        "webhook": f"{(served.settings.public_url or str(request.base_url)).rstrip('/')}{PATH}",
        "public": served.settings.public_url is not None,
        "secret": None,
    }
    return render(request, "connection.html", status=status, **(values | shown))


async def _syncs(request: Request, served: ServedInstallation, connection: StoredConnection) -> dict[str, Any]:
    """Values of the part of the page that shows syncs. A request for it alone is answered with that part."""
    if connection.type != "bitbucket":
        return {"syncs": None}
    syncs = await sync_steps.last_syncs(await served.warehouse(), connection.workspace)
    expected = Expected.read(connection.expected) if connection.last_synced_at is None else None
    asked_at = connection.sync_asked_at
    waits = asked_at is not None
    return {
        "waits_long": asked_at is not None and HOST.now() - asked_at > _LATE,
        "syncs": syncs,
        "running": next((one for one in syncs if one.state == "running"), None),
        "waits": waits,
        "no_daemon": waits and await to_thread.run_sync(holder_of, served.url, lock_names.DAEMON) is None,
        "expected": expected.sentence if expected else None,
        "ui": _ui(request, served.settings),
    }


def _ui(request: Request, settings: Settings) -> str | None:
    """The address of Dagster's UI, where this client reaches it."""
    url = (settings.ui_url or "").rstrip("/")
    if not url or (is_loopback(urlsplit(url).hostname) and not is_local(request)):
        return None
    return url


async def _deliveries(warehouse: Warehouse, connection: StoredConnection) -> dict[str, Any]:
    """Values of the part that shows the webhook's deliveries."""
    if connection.type != "bitbucket":
        return {"events": [], "set_aside": []}
    set_aside = await inbox.set_aside(warehouse, connection.workspace)
    return {
        "events": await inbox.by_event(warehouse, connection.workspace),
        "set_aside": set_aside[-_MOST_SHOWN:],
        "set_aside_count": len(set_aside),
    }


# Its syncs


@routes.get("/{connection_id}/syncs", dependencies=_signed_in)
async def syncs(request: Request, served: Served, connection: Chosen) -> Response:
    """The part of the page that shows syncs, which its script renews while one runs."""
    return render(request, "syncs.html", connection=connection, **await _syncs(request, served, connection))


@routes.post("/{connection_id}/sync", dependencies=_signed_form)
async def sync_now(request: Request, served: Served, connection: Chosen) -> Response:
    """Asks the daemon for a sync, which its sensor takes within seconds."""
    known = await _syncs(request, served, connection)
    if connection.type != "bitbucket" or connection.disabled_at is not None:
        return _to(connection.id, "off")
    if known["running"] or known["waits"]:
        return _to(connection.id, "late")
    await connections.ask_for_sync(await served.warehouse(), connection.id)
    return _to(connection.id, "asked")


# The connection as a whole


@routes.post("/{connection_id}/check", dependencies=_signed_form)
async def check_all(served: Served, connection: Chosen) -> Response:
    await actions.check(served.settings, await served.warehouse(), connection)
    return _to(connection.id, "checked")


@routes.post("/{connection_id}/disable", dependencies=_signed_form)
async def disable_connection(request: Request, served: Served, connection: Chosen) -> Response:
    await actions.disable_connection(await served.warehouse(), connection, await _reason(request))
    return _to(connection.id, "off")


@routes.post("/{connection_id}/enable", dependencies=_signed_form)
async def enable_connection(served: Served, connection: Chosen) -> Response:
    await actions.enable_connection(served.settings, await served.warehouse(), connection)
    return _to(connection.id, "on")


@routes.post("/{connection_id}/remove", dependencies=_signed_form)
async def remove_connection(served: Served, connection: Chosen) -> Response:
    with suppress(ConnectionNotFoundError):  # it was removed already
        await actions.remove_connection(await served.warehouse(), connection)
    return RedirectResponse(f"{_HOME}?removed", 303)


# Its credentials


@routes.post("/{connection_id}/credentials", dependencies=_signed_form)
async def add(request: Request, served: Served, connection: Chosen) -> Response:
    form = await Form.read(request, connection.type)
    warehouse = await served.warehouse()
    before = {one.id for one in await credentials.shown(warehouse, connection.id)}
    try:
        added = await actions.add_fields(served.settings, warehouse, connection, form.new_fields())
    except VerificationFailed as error:
        form.follow(error.failure)
        return await _details(request, served, connection, status=422, form=form, failure=error.failure)
    return _to(connection.id, "there" if added.id in before else "added")


@routes.post("/{connection_id}/credentials/{credential_id}/check", dependencies=_signed_form)
async def check(served: Served, connection: Chosen, credential_id: CredentialId) -> Response:
    async def work() -> None:
        await actions.check(served.settings, await served.warehouse(), connection, credential_id)

    return await _change(work, connection, "checked")


@routes.get("/{connection_id}/credentials/{credential_id}", dependencies=_signed_in)
async def edit_form(request: Request, served: Served, connection: Chosen, credential_id: CredentialId) -> Response:
    try:
        shown = await actions.show(await served.warehouse(), connection, credential_id)
    except CredentialNotFoundError:
        return _to(connection.id, "gone")
    form = Form(
        type=connection.type,
        method="basic" if shown.type == "api_token" else "api_token",
        username=shown.username or "",
        label=shown.label,
        expiration_date=shown.expiration_date.isoformat() if shown.expiration_date else "",
    )
    return _edit_page(request, connection, shown, form)


@routes.post("/{connection_id}/credentials/{credential_id}", dependencies=_signed_form)
async def edit(request: Request, served: Served, connection: Chosen, credential_id: CredentialId) -> Response:
    warehouse = await served.warehouse()
    try:
        shown = await actions.show(warehouse, connection, credential_id)
        form = await Form.read(request, connection.type, shown.type)
        await actions.update(served.settings, warehouse, connection, credential_id, form.changes(shown.label))
    except CredentialNotFoundError:
        return _to(connection.id, "gone")
    except VerificationFailed as error:
        return _edit_page(request, connection, shown, form, status=422, failure=error.failure)
    return _to(connection.id, "changed")


def _edit_page(
    request: Request, connection: StoredConnection, shown: ShownCredential, form: Form, status: int = 200, **more: Any
) -> Response:
    values: dict[str, Any] = {"connection": connection, "credential": shown, "form": form, "failure": None} | more
    return render(request, "credential.html", status=status, **values)


@routes.post("/{connection_id}/credentials/{credential_id}/disable", dependencies=_signed_form)
async def disable(request: Request, served: Served, connection: Chosen, credential_id: CredentialId) -> Response:
    reason = await _reason(request)

    async def work() -> None:
        await actions.disable(await served.warehouse(), connection, credential_id, reason)

    return await _change(work, connection, "disabled")


@routes.post("/{connection_id}/credentials/{credential_id}/remove", dependencies=_signed_form)
async def remove(served: Served, connection: Chosen, credential_id: CredentialId) -> Response:
    async def work() -> None:
        await actions.remove(await served.warehouse(), connection, credential_id)

    return await _change(work, connection, "removed")


async def _reason(request: Request) -> str:
    return line(await request.form(), "reason")[:500]


async def _change(work: Callable[[], Awaitable[None]], connection: StoredConnection, done: str) -> Response:
    try:
        await work()
    except CredentialNotFoundError:
        done = "gone"  # it was removed already
    return _to(connection.id, done)


# Its webhook


@routes.post("/{connection_id}/webhook/show", dependencies=_signed_form)
async def show_secret(request: Request, served: Served, connection: Chosen) -> Response:
    _, secret = await secret_rotation.current_or_new(served.settings, await served.warehouse(), connection.id)
    return await _details(request, served, connection, secret=secret)


@routes.post("/{connection_id}/webhook/rotate", dependencies=_signed_form)
async def rotate_secret(request: Request, served: Served, connection: Chosen) -> Response:
    _, secret = await secret_rotation.rotate(served.settings, await served.warehouse(), connection.id)
    return await _details(request, served, connection, secret=secret, done=_DONE["rotated"])


@routes.post("/{connection_id}/webhook/look", dependencies=_signed_form)
async def look_at_webhook(request: Request, served: Served, connection: Chosen) -> Response:
    """Asks Bitbucket for the webhook's state, with one request."""
    from dx_dagster.webhooks.looking import look  # noqa: PLC0415 - 30 MB that most pages do without

    seen = await look(served.settings, await served.warehouse(), connection)
    return await _details(request, served, connection, look=seen)


@routes.post("/{connection_id}/webhook/replay", dependencies=_signed_form)
async def replay(request: Request, served: Served, connection: Chosen) -> Response:
    """Applies one delivery that was set aside again, or all of them."""
    given = line(await request.form(), "delivery")
    chosen = [int(given)] if given.isdecimal() and len(given) < _DIGITS else None
    await inbox.replay(await served.warehouse(), connection.workspace, chosen)
    return _to(connection.id, "replayed")


def _to(connection_id: int, done: str) -> Response:
    return RedirectResponse(f"{_HOME}/{connection_id}?done={done}", 303)
