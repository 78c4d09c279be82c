"""`dx-dagster connect` and `verify`: the connections of a workspace."""

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import SecretStr

from dx_dagster.cli.arguments import ConnectionType, Type, Workspace, one_line
from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.installation import Installation, with_warehouse
from dx_dagster.cli.running import require_intended
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from dx_dagster.connections.verification import VerificationFailed
    from dx_dagster.warehouse.connections.connections import StoredConnection
    from dx_dagster.warehouse.database import Warehouse


_HOW: dict[str, str] = {
    "access_token": "Set BITBUCKET_TOKEN instead.",
    "api_token": "Set BITBUCKET_EMAIL and BITBUCKET_API_TOKEN instead.",
}
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def given_secret(settings: Settings, kind: ConnectionType = ConnectionType.bitbucket) -> tuple[SecretStr, str | None]:
    """Secret and user name from the environment, or from a prompt without echo.

    Raises:
        CommandError: the environment has two credentials or half of one, or there is no terminal.
    """
    if kind == ConnectionType.jira_cloud:
        return _pair(settings.jira_email, settings.jira_api_token, "JIRA") or _ask_jira()
    token, api_token, email = settings.bitbucket_token, settings.bitbucket_api_token, settings.bitbucket_email
    if token is not None and api_token is not None:
        raise CommandError(
            "BITBUCKET_TOKEN and BITBUCKET_API_TOKEN are both set. Keep BITBUCKET_TOKEN for a workspace access token, "
            "or BITBUCKET_API_TOKEN with BITBUCKET_EMAIL for an Atlassian API token with its e-mail address."
        )
    if token is not None:
        return token, email if _is_api_token(token) else None
    found = _pair(email, api_token, "BITBUCKET", " or BITBUCKET_TOKEN alone")
    if found is not None:
        return found
    return _recognized(
        _ask(
            "Workspace access token, or Atlassian API token",
            "BITBUCKET_TOKEN to a workspace access token, or BITBUCKET",
        )
    )


def _recognized(given: SecretStr) -> tuple[SecretStr, str | None]:
    """Asks for the other half of what was pasted: an API token's e-mail address, or an address's API token."""
    pasted = given.get_secret_value().strip()
    if _EMAIL.fullmatch(pasted):
        return SecretStr(typer.prompt(f"Atlassian API token of {pasted}", hide_input=True)), pasted
    if _is_api_token(given):
        return given, typer.prompt("E-mail address of its Atlassian account")
    return given, None


def _is_api_token(given: SecretStr) -> bool:
    from dx_dagster.connections import advice
    from dx_dagster.connections.input import trimmed

    return advice.looks_like(trimmed(given)) == "api_token"


def _pair(email: str | None, token: SecretStr | None, prefix: str, else_: str = "") -> tuple[SecretStr, str] | None:
    """API token and e-mail address; None if neither is set. A prompt asks for a missing token."""
    if email is not None and token is None and sys.stdin.isatty():
        token = SecretStr(typer.prompt(f"Atlassian API token of {email}", hide_input=True))
    if (token is None) != (email is None):
        raise CommandError(
            f"{prefix}_EMAIL and {prefix}_API_TOKEN belong together: set both{',' if else_ else ''}{else_}."
        )
    return (token, email) if token is not None and email is not None else None


def _ask_jira() -> tuple[SecretStr, str]:
    token = _ask("Atlassian API token of the Jira account", "JIRA")
    return token, typer.prompt("E-mail address of its account")


def _ask(what: str, otherwise: str) -> SecretStr:
    if not sys.stdin.isatty():
        raise CommandError(
            f"No credential is set. Set {otherwise}_EMAIL and {otherwise.rpartition(' ')[2]}_API_TOKEN to an "
            "account's e-mail address and its Atlassian API token."
        )
    return SecretStr(typer.prompt(what, hide_input=True))


def connect(
    workspace: Workspace,
    type_: Type = ConnectionType.bitbucket,
    name: Annotated[str | None, typer.Option(callback=one_line, help="Display name of the connection.")] = None,
    jira_url: Annotated[
        str | None, typer.Option(help="Jira site, such as https://acme.atlassian.net (jira_cloud).")
    ] = None,
) -> None:
    """Verifies a credential and stores it with the connection. A failed verification stores nothing.

    BITBUCKET_TOKEN holds a workspace access token; BITBUCKET_API_TOKEN and BITBUCKET_EMAIL an Atlassian API token with
    its e-mail address; for jira_cloud JIRA_API_TOKEN and JIRA_EMAIL. If they are not set, a prompt asks for either.

    Example: BITBUCKET_TOKEN=… dx-dagster connect acme
    """
    settings = Settings.read()
    if (type_ == ConnectionType.jira_cloud) != (jira_url is not None):
        raise typer.BadParameter("is required for --type jira_cloud, and valid only there.", param_hint="--jira-url")
    require_intended(settings)  # before it asks for a secret
    secret, username = given_secret(settings, type_)
    connected, is_new = connect_workspace(
        settings, workspace, secret, username, kind=type_, name=name, jira_url=jira_url
    )
    workspace = connected.workspace
    if not is_new:
        print("This token is there already, and is good and enabled.")
    if type_ == ConnectionType.bitbucket:
        if expected := _expectation(connected):
            print(expected)
        print(f"Workspace {workspace} is connected. To import it: dx-dagster sync {workspace}")
    else:
        print(f"Workspace {workspace} now has a connection of type {type_.value}.")


def _expectation(connection: "StoredConnection") -> str | None:
    """What the first import will take, as a sentence."""
    from dx_dagster.connections.estimate import expect

    expected = with_warehouse(lambda settings, warehouse: expect(settings, warehouse, connection))
    return expected.sentence if expected else None


def connect_workspace(
    settings: Settings,
    workspace: str,
    secret: SecretStr,
    username: str | None = None,
    *,
    kind: ConnectionType = ConnectionType.bitbucket,
    name: str | None = None,
    jira_url: str | None = None,
) -> tuple["StoredConnection", bool]:
    """Verifies and stores the credential, and registers the workspace's partition; also returns whether it is new.

    Raises:
        CommandError: verification failed, or the workspace is connected under another spelling.
    """
    from dx_dagster.connections.actions import AlreadyConnectedError, VerificationFailed, connect, new_credential
    from dx_dagster.connections.input import jira_site
    from dx_dagster.connections.workspace_names import GivenError
    from dx_dagster.warehouse.connections import connections, credentials

    try:
        site = jira_site(jira_url) if jira_url is not None else None
    except GivenError as error:
        raise CommandError(str(error)) from None
    installation = Installation.open(settings, new=True)

    async def ids(warehouse: "Warehouse") -> set[int]:
        found = await connections.find(warehouse, workspace, kind.value)
        return {one.id for one in await credentials.shown(warehouse, found.id)} if found else set()

    async def work(warehouse: "Warehouse") -> tuple["StoredConnection", bool]:
        before = await ids(warehouse)
        new = new_credential(secret, username)
        try:
            stored = await connect(settings, warehouse, workspace, new, kind=kind.value, name=name, jira_url=site)
        except VerificationFailed as error:
            raise not_stored(error) from None
        except AlreadyConnectedError as error:
            raise CommandError(str(error)) from None
        return stored, await ids(warehouse) != before

    connected, is_new = installation.run(work)
    if kind == ConnectionType.bitbucket:
        _register_partition(installation, connected.workspace)
    return connected, is_new


def not_stored(error: "VerificationFailed") -> CommandError:
    see = f" To reproduce: {error.failure.curl}" if error.failure.curl else ""
    how = f" {_HOW[error.failure.looks_like]}" if error.failure.looks_like else ""
    return CommandError(f"{error}{how} Nothing was stored.{see}")


def _register_partition(installation: Installation, workspace: str) -> None:
    from dx_dagster.assets.partitions import register

    with installation.dagster() as instance:
        register(instance, [workspace])


def verify(workspace: Workspace) -> None:
    """Verifies every credential of a workspace again.

    Example: dx-dagster verify acme
    """
    with_warehouse(lambda settings, warehouse: _verify_all(settings, warehouse, workspace))


async def _verify_all(settings: Settings, warehouse: "Warehouse", workspace: str) -> None:
    from dx_dagster.connections.actions import check
    from dx_dagster.warehouse.connections import connections

    checked = 0
    failed: list[str] = []
    for kind in ConnectionType:
        connection = await connections.find(warehouse, workspace, kind.value)
        if connection is None:
            continue
        for one in await check(settings, warehouse, connection):
            checked += 1
            failure = one.verdict.failure
            if failure is None:
                print(" ".join([f"{one.credential.id}  {one.credential.label}: good", *one.verdict.notes]))
            else:
                failed.append(f"credential {one.credential.id} ({one.credential.label}) with {failure.code}")
                how = f" {_HOW[failure.looks_like]}" if failure.looks_like else ""
                print(f"{one.credential.id}  {one.credential.label}: {failure.code}: {failure.sentence}{how}")
                print(f"    {failure.curl}")
    if not checked:
        raise not_connected(workspace)
    if failed:
        raise CommandError(
            f"{len(failed)} of {checked} credentials of workspace {workspace} failed: {', '.join(failed)}. The "
            "reasons are printed above."
        )


async def stored_connection(
    warehouse: "Warehouse", workspace: str, kind: ConnectionType = ConnectionType.bitbucket
) -> "StoredConnection":
    """The workspace's connection of the type.

    Raises:
        CommandError: it has none.
    """
    from dx_dagster.warehouse.connections import connections

    connection = await connections.find(warehouse, workspace, kind.value)
    if connection is None:
        raise not_connected(workspace, kind)
    return connection


def not_connected(workspace: str, kind: ConnectionType = ConnectionType.bitbucket) -> CommandError:
    """The workspace has no connection of the type; the message says how to create it."""
    main = kind == ConnectionType.bitbucket
    missing = "is not connected" if main else f"has no connection of type {kind.value}"
    secrets = "BITBUCKET_TOKEN, or BITBUCKET_EMAIL and BITBUCKET_API_TOKEN,"
    options = "" if main else f" --type {kind.value}"
    if kind == ConnectionType.jira_cloud:
        secrets, options = "JIRA_EMAIL and JIRA_API_TOKEN", f"{options} --jira-url https://SITE.atlassian.net"
    return CommandError(
        f"Workspace {workspace} {missing}. Set {secrets} and run: dx-dagster connect {workspace}{options}"
    )
