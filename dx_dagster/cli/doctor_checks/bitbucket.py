"""Checks of Bitbucket: whether its API answers, takes the credentials, and has the webhooks."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dx_dagster.cli.doctor_checks.examination import Examination, Finding, State, unknown
from dx_dagster.clock import HOST
from dx_dagster.settings import SettingsError

if TYPE_CHECKING:
    from dx_dagster.connections.health import Health
    from dx_dagster.warehouse.connections.connections import StoredConnection
    from dx_dagster.warehouse.database import Warehouse

_HTTP_SECONDS = 10.0
_REQUESTS_SECONDS = 30.0
_SERVER_ERROR = 500

Found = tuple[State, str]


def check_api(examination: Examination) -> list[Finding]:
    import httpx

    from dx_dagster.bitbucket.transport import user_agent

    url = examination.settings.bitbucket_api_url
    host = urlsplit(url).hostname
    before = HOST.now()
    try:
        # Without a credential: any answer shows that the address is right.
        answer = httpx.get(
            f"{url}/user",
            headers={"User-Agent": user_agent(), "Accept": "application/json"},
            timeout=_HTTP_SECONDS,
            trust_env=url.startswith("https:"),
        )
    except httpx.TimeoutException:
        told = f"{host} did not answer within {_HTTP_SECONDS:.0f} s. Check the network, the firewall and HTTPS_PROXY."
        return [Finding("API", State.BAD, told)]
    except httpx.HTTPError as error:
        if "CERTIFICATE" in str(error) or "SSL" in str(error):
            told = f"The certificate of {host} cannot be verified. If a proxy opens TLS connections, set SSL_CERT_FILE."
        else:
            told = f"{host} cannot be reached. Check BITBUCKET_API_URL, the network, the firewall and HTTPS_PROXY."
        return [Finding("API", State.BAD, told)]
    if "date" in answer.headers:
        with suppress(ValueError):
            examination.times.append(("API", parsedate_to_datetime(answer.headers["date"]).astimezone(UTC), before))
    if answer.is_redirect or "html" in answer.headers.get("content-type", ""):
        told = f"{url} answered with a page, not as an API. Check BITBUCKET_API_URL, and whether a proxy answers."
        return [Finding("API", State.BAD, told)]
    if answer.status_code >= _SERVER_ERROR:
        return [Finding("API", State.BAD, f"{url} answered {answer.status_code}. Imports retry; try again later.")]
    examination.is_reached = True
    return [Finding("API", State.GOOD, f"{url} answers.")]


def check_credentials(examination: Examination) -> list[Finding]:
    return _on_warehouse(examination, "credentials", _of_connections)


def check_webhooks(examination: Examination) -> list[Finding]:
    return _on_warehouse(examination, "webhooks", _of_hooks)


def _on_warehouse(
    examination: Examination, name: str, work: "Callable[[Examination, Warehouse], Any]"
) -> list[Finding]:
    from dx_dagster.warehouse.database import Warehouse

    if examination.url is None or not examination.is_current:
        return [unknown(name, "The database does not answer, or its tables are not current.")]

    async def run(url: str) -> list[Finding]:
        async with Warehouse(url, connections=2) as warehouse, asyncio.timeout(_REQUESTS_SECONDS):
            found: list[Finding] = await work(examination, warehouse)
            return found

    try:
        return asyncio.run(run(examination.url))
    except TimeoutError:
        return [unknown(name, f"The requests did not end within {_REQUESTS_SECONDS:.0f} s.")]


async def _of_connections(examination: Examination, warehouse: "Warehouse") -> list[Finding]:
    from dx_dagster.warehouse.connections import connections

    every = await connections.all_connections(warehouse)
    if not every:
        return [Finding("credentials", State.WARNING, "No workspace is connected. Run: dx-dagster connect WORKSPACE")]
    found = [(one, await _of_connection(examination, warehouse, one)) for one in every]
    return [
        Finding("credentials", state, f"{connection.workspace}, {connection.type}: {text}")
        for connection, texts in found
        for state, text in texts
    ]


async def _of_connection(
    examination: Examination, warehouse: "Warehouse", connection: "StoredConnection"
) -> list[Found]:
    from dx_dagster.connections.health import health

    workspace = connection.workspace
    if connection.disabled_at:
        return [(State.WARNING, f"disabled. To resume: dx-dagster connections enable {workspace}")]
    found: list[Found] = []
    if connection.last_error:
        found.append((State.BAD, f"the last sync failed: {connection.last_error}"))
    every = await health(examination.settings, warehouse, connection)
    if all(one.verdict in {"disabled", "expired"} for one in every):
        found.append((State.BAD, f"no usable credential. Add one: dx-dagster credentials add {workspace}"))
    refused = await _refused(examination, warehouse, connection)
    return found + [refused.get(one.credential.id) or _of_credential(examination, workspace, one) for one in every]


def _of_credential(examination: Examination, workspace: str, one: "Health") -> Found:
    it = one.credential
    whose = f"credential {it.id} ({it.label})"
    if one.verdict in {"disabled", "expired"}:
        reason = f": {it.disabled_reason}" if it.disabled_at else ""
        return State.WARNING, f"{whose} is {one.verdict} and not used{reason}"
    if one.verdict == "expires soon":
        add = f"dx-dagster credentials add {workspace}"
        return State.WARNING, f"{whose} expires on {it.expiration_date}. Add another: {add}"
    left = "" if one.left is None else f", {one.left:,} of {one.limit:,} requests left"
    if examination.is_reached:
        return State.GOOD, f"{whose} is good{left}."
    if one.verdict != "good":
        return State.BAD, f"{whose} failed with {one.verdict} when it was last verified: {it.reason}"
    return State.GOOD, f"{whose} was good when it was last verified{left}."


async def _refused(
    examination: Examination, warehouse: "Warehouse", connection: "StoredConnection"
) -> Mapping[int, Found]:
    """Usable credentials that Bitbucket or Jira refuses now, by id. The result is not stored."""
    from dx_dagster.connections.actions import target_of
    from dx_dagster.connections.verification import UNAVAILABLE, Verifier
    from dx_dagster.warehouse.connections import credentials
    from dx_dagster.warehouse.connections.vault import Vault, has_keys

    if not examination.is_reached or not has_keys(examination.settings):
        return {}
    verifier = Verifier(examination.settings, warehouse, target_of(examination.settings, connection))
    found: dict[int, Found] = {}
    for one in await credentials.all_of(warehouse, Vault.of(examination.settings), connection.id):
        failure = (await verifier.verify(one, one.id)).failure
        if failure is not None:
            state = State.WARNING if failure.code == UNAVAILABLE else State.BAD
            found[one.id] = (state, f"credential {one.id} ({one.label}): {failure.code}: {failure.sentence}")
    return found


async def _of_hooks(examination: Examination, warehouse: "Warehouse") -> list[Finding]:
    from dx_dagster.warehouse.connections import connections
    from dx_dagster.warehouse.webhooks import inbox

    found: list[Finding] = []
    for connection in await connections.all_connections(warehouse):
        if connection.type != "bitbucket" or connection.disabled_at:
            continue
        found += [Finding("webhooks", *one) for one in await _of_hook(examination, warehouse, connection)]
        if aside := await inbox.set_aside(warehouse, connection.workspace):
            name = connection.workspace
            told = f"{name}: {len(aside)} deliveries were set aside. See dx-dagster webhooks status {name}"
            found.append(Finding("webhooks", State.BAD, told))
    return found or [Finding("webhooks", State.GOOD, "None: no workspace is connected and enabled.")]


async def _of_hook(examination: Examination, warehouse: "Warehouse", connection: "StoredConnection") -> list[Found]:
    """What is found of the workspace's webhook."""
    from dx_dagster.warehouse.webhooks import secrets
    from dx_dagster.webhooks import address

    settings, name = examination.settings, connection.workspace
    made = await secrets.hooks(warehouse, connection.id)
    if settings.public_url is None and not made:
        return [(State.GOOD, f"{name}: none installed, so changes arrive with syncs. DX_PUBLIC_URL is not set.")]
    try:
        url = address.receiver(settings) if settings.public_url else None
    except SettingsError as error:
        return [(State.BAD, str(error))]
    if not examination.is_reached:
        return [(State.WARNING, f"{name}: not checked, since the API does not answer.")]
    return await _at_bitbucket(examination, warehouse, connection, url, installed=bool(made))


async def _at_bitbucket(
    examination: Examination,
    warehouse: "Warehouse",
    connection: "StoredConnection",
    url: str | None,
    *,
    installed: bool,
) -> list[Found]:
    from dx_dagster.bitbucket import BitbucketError
    from dx_dagster.cli.progress import Lines
    from dx_dagster.importer.session import NotConnectedError, open_client, open_pool
    from dx_dagster.webhooks import hooks

    name = connection.workspace
    try:
        pool = await open_pool(examination.settings, warehouse, Lines(), connection, disables=False)
        async with open_client(examination.settings, warehouse, pool, connection) as client:
            [(_, found, _)] = await hooks.compare_all(client, warehouse, connection, url, repositories=False)
    except hooks.HooksRefusedError as error:
        return [(State.WARNING, f"{name}: {error}")]
    except (BitbucketError, NotConnectedError) as error:
        return [(State.WARNING, f"{name}: not checked: {error}")]
    install = f"dx-dagster webhooks install {name}"
    if not found and installed:
        return [(State.WARNING, f"{name}: not on the workspace. See dx-dagster webhooks status {name} --repositories")]
    if not found:
        return [(State.WARNING, f"{name}: none installed. To install it: {install}")]
    return [
        (State.BAD, f"{name}: {'; '.join(one.wrong)}. To repair it: {install}")
        if one.wrong
        else (State.GOOD, f"{name}: installed, and delivers to {one.url}.")
        for one in found
    ]
