"""`dx-dagster connect`, `verify` and `credentials`: the credentials of a workspace."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import SecretStr

from dx_dagster.cli.errors import CommandError
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from dx_dagster.warehouse.database import Warehouse

Result = TypeVar("Result")

Workspace = Annotated[
    str, typer.Argument(metavar="WORKSPACE", help="First part of its address: https://bitbucket.org/WORKSPACE/")
]


class ConnectionType(StrEnum):
    bitbucket = "bitbucket"
    bitbucket_pipelines = "bitbucket_pipelines"


Type = Annotated[ConnectionType, typer.Option("--type", help="What the credential is for.")]


def slug(workspace: str) -> str:
    """The name of a workspace, as typed or as the start of an address.

    Raises:
        CommandError: it cannot be one.
    """
    trimmed = re.sub(r"^https?://bitbucket\.org/", "", workspace.strip()).strip("/")
    if not re.fullmatch(r"[A-Za-z0-9_.{}-]+", trimmed):
        raise CommandError(
            f"{workspace!r} is no name of a workspace. It is the first part of the workspace's address: for "
            "https://bitbucket.org/acme/ it is acme."
        )
    return trimmed


def given_secret(settings: Settings) -> tuple[SecretStr, str | None]:
    """Secret and user name from the environment, or asked for without echo.

    Raises:
        CommandError: there is both kinds, half of one, or nobody to ask.
    """
    token, api_token, email = settings.bitbucket_token, settings.bitbucket_api_token, settings.bitbucket_email
    if token is not None and api_token is not None:
        raise CommandError(
            "BITBUCKET_TOKEN and BITBUCKET_API_TOKEN are both set. Keep the first for a workspace access token, or the "
            "second together with BITBUCKET_EMAIL for an API token."
        )
    if token is not None:
        return token, None
    if (api_token is None) != (email is None):
        raise CommandError(
            "BITBUCKET_EMAIL and BITBUCKET_API_TOKEN belong together: set both, or BITBUCKET_TOKEN alone."
        )
    if api_token is not None:
        return api_token, email
    return _ask(), None


def _ask() -> SecretStr:
    import sys

    if not sys.stdin.isatty():
        raise CommandError(
            "No credential is given. Set BITBUCKET_TOKEN to a workspace access token, or BITBUCKET_EMAIL and "
            "BITBUCKET_API_TOKEN to an account's e-mail address and API token."
        )
    return SecretStr(typer.prompt("Workspace access token", hide_input=True))


def connect(
    workspace: Workspace,
    type_: Type = ConnectionType.bitbucket,
    name: Annotated[str | None, typer.Option(help="Display name of the connection.")] = None,
) -> None:
    """Verifies a credential and stores it with the connection. Nothing is stored when verification fails.

    The credential comes from BITBUCKET_TOKEN, or BITBUCKET_EMAIL and BITBUCKET_API_TOKEN; it is asked for otherwise.

    Example: BITBUCKET_TOKEN=… dx-dagster connect acme
    """
    settings = Settings.read()
    secret, username = given_secret(settings)
    connect_workspace(settings, slug(workspace), secret, username, kind=type_, name=name)
    print(f"Workspace {slug(workspace)} is connected. Import it with: dx-dagster sync {slug(workspace)}")


def connect_workspace(
    settings: Settings,
    workspace: str,
    secret: SecretStr,
    username: str | None = None,
    *,
    kind: ConnectionType = ConnectionType.bitbucket,
    name: str | None = None,
) -> None:
    """Verifies and stores the credential, and registers the workspace's partition.

    Raises:
        CommandError: verification failed.
    """
    from dx_dagster.cli.installation import Installation
    from dx_dagster.importer.connections import VerificationFailed, connect, new_credential
    from dx_dagster.warehouse.database import Warehouse

    installation = Installation.open(settings)

    async def run() -> None:
        async with Warehouse(installation.database_url) as warehouse:
            try:
                await connect(
                    settings, warehouse, workspace, new_credential(secret, username), kind=kind.value, name=name
                )
            except VerificationFailed as error:
                raise CommandError(f"{error} Nothing was stored. To see for yourself: {error.failure.curl}") from None

    asyncio.run(run())
    register_partition(installation.activate, workspace)


def register_partition(activate: Callable[[], None], workspace: str) -> None:
    import dagster as dg

    from dx_dagster.assets.partitions import WORKSPACES

    activate()
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(str(WORKSPACES.name), [workspace])


def verify(workspace: Workspace) -> None:
    """Checks every credential of a workspace again.

    Example: dx-dagster verify acme
    """
    failed = with_warehouse(lambda settings, warehouse: _verify_all(settings, warehouse, slug(workspace)))
    if failed:
        raise CommandError(
            f"{failed} of the credentials of workspace {slug(workspace)} failed; the reasons stand above."
        )


async def _verify_all(settings: Settings, warehouse: "Warehouse", workspace: str) -> int:
    from dx_dagster.importer.connections import verify as verify_credential
    from dx_dagster.warehouse import connections
    from dx_dagster.warehouse.vault import Vault

    failed = checked = 0
    for kind in ConnectionType:
        connection = await connections.find(warehouse, workspace, kind.value)
        if connection is None:
            continue
        for stored in await connections.credentials(warehouse, Vault.of(settings), connection.id, enabled=False):
            checked += 1
            failure = await verify_credential(settings, workspace, stored, kind.value)
            if failure is None:
                await connections.enable_credential(warehouse, stored.id)
                print(f"{stored.id}  {stored.label}: good")
            else:
                failed += 1
                print(f"{stored.id}  {stored.label}: {failure.code}: {failure.reason}\n    {failure.curl}")
    if not checked:
        raise never_connected(workspace)
    return failed


def never_connected(workspace: str) -> CommandError:
    return CommandError(
        f"Workspace {workspace} was never connected. Set BITBUCKET_TOKEN, or BITBUCKET_EMAIL and BITBUCKET_API_TOKEN, "
        f"and run: dx-dagster connect {workspace}"
    )


def with_warehouse(work: Callable[[Settings, "Warehouse"], Awaitable[Result]]) -> Result:
    """Runs asynchronous work on the installation's warehouse."""
    from dx_dagster.cli.installation import Installation
    from dx_dagster.warehouse.database import Warehouse

    settings = Settings.read()
    installation = Installation.open(settings)

    async def run() -> Result:
        async with Warehouse(installation.database_url) as warehouse:
            return await work(settings, warehouse)

    return asyncio.run(run())


credentials = typer.Typer(help="Manages the credentials of a workspace.", no_args_is_help=True)


@credentials.command("list")
def list_(workspace: Workspace, type_: Type = ConnectionType.bitbucket) -> None:
    """Lists the credentials; of a secret, the last four characters.

    Example: dx-dagster credentials list acme
    """

    async def work(settings: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.warehouse import connections
        from dx_dagster.warehouse.vault import Vault

        connection = await connections.find(warehouse, slug(workspace), type_.value)
        if connection is None:
            raise never_connected(slug(workspace))
        for one in await connections.credentials(warehouse, Vault.of(settings), connection.id, enabled=False):
            state = f"disabled: {one.disabled_reason}" if one.disabled_at else "enabled"
            expiry = f", expires {one.expiration_date}" if one.expiration_date else ""
            print(f"{one.id}  {one.type}  …{one.hint}  {one.label}  ({state}{expiry})")

    with_warehouse(work)


@credentials.command()
def add(
    workspace: Workspace,
    type_: Type = ConnectionType.bitbucket,
    label: Annotated[str | None, typer.Option(help="Display name of the credential.")] = None,
    expires: Annotated[str | None, typer.Option(help="Day on which it expires, as 2027-01-31.")] = None,
) -> None:
    """Verifies one more credential and adds it to the pool.

    Example: BITBUCKET_TOKEN=… dx-dagster credentials add acme --label "second token"
    """

    async def work(settings: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.importer.connections import VerificationFailed, connect, new_credential
        from dx_dagster.warehouse import connections

        connection = await connections.find(warehouse, slug(workspace), type_.value)
        if connection is None:
            raise never_connected(slug(workspace))
        secret, username = given_secret(settings)
        new = new_credential(secret, username, label, _day(expires))
        try:
            await connect(settings, warehouse, slug(workspace), new, kind=type_.value, name=connection.name)
        except VerificationFailed as error:
            raise CommandError(f"{error} Nothing was stored. To see for yourself: {error.failure.curl}") from None
        print(f"{new.label}: good, and added.")

    with_warehouse(work)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day; write it as 2027-01-31.", param_hint="--expires") from None


Number = Annotated[int, typer.Argument(metavar="ID", help="Number of the credential, from `credentials list`.")]


@credentials.command()
def disable(
    workspace: Workspace, number: Number, reason: Annotated[str, typer.Option(help="Why.")] = "disabled by hand"
) -> None:
    """Takes a credential out of the pool; `dx-dagster verify` puts a good one back.

    Example: dx-dagster credentials disable acme 3
    """
    _change(workspace, number, reason)


@credentials.command()
def remove(workspace: Workspace, number: Number) -> None:
    """Removes a credential.

    Example: dx-dagster credentials remove acme 3
    """
    _change(workspace, number, None)


def _change(workspace: str, number: int, disable_because: str | None) -> None:
    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.warehouse import connections

        if not await connections.belongs(warehouse, number, slug(workspace)):
            raise CommandError(
                f"Workspace {slug(workspace)} has no credential {number}: see dx-dagster credentials list."
            )
        if disable_because is None:
            await connections.remove_credential(warehouse, number)
        else:
            await connections.disable_credential(warehouse, number, disable_because)

    with_warehouse(work)
