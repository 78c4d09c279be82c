"""`dx-dagster credentials`: lists, adds, disables and removes credentials of a connection."""

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from dx_dagster.cli.arguments import ConnectionType, Type, Workspace
from dx_dagster.cli.connect import given_secret, not_connected, not_stored
from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.installation import with_warehouse
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dx_dagster.warehouse.connections.connections import StoredConnection
    from dx_dagster.warehouse.database import Warehouse

credentials = typer.Typer(help="Manages the credentials of a workspace.", no_args_is_help=True)


@credentials.command("list")
def list_(workspace: Workspace, type_: Type = ConnectionType.bitbucket) -> None:
    """Lists the credentials with the last four characters of their secrets.

    Example: dx-dagster credentials list acme
    """

    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.bitbucket import clause
        from dx_dagster.warehouse.connections import connections, credentials

        connection = await connections.find(warehouse, workspace, type_.value)
        if connection is None:
            raise not_connected(workspace, type_)
        for one in await credentials.shown(warehouse, connection.id):
            state = "expired" if one.expired else "enabled"
            if one.disabled_at:
                state = f"disabled: {clause(one.disabled_reason or '')}"
            expiry = f", expires {one.expiration_date}" if one.expiration_date else ""
            failing = f", last check: {one.code}" if one.code else ""
            print(f"{one.id}  {one.type}  …{one.hint}  {one.label}  ({state}{expiry}{failing})")

    with_warehouse(work)


@credentials.command()
def add(
    workspace: Workspace,
    type_: Type = ConnectionType.bitbucket,
    label: Annotated[str | None, typer.Option(help="Display name of the credential.")] = None,
    expires: Annotated[str | None, typer.Option(help="Day of expiry, such as 2027-01-31.")] = None,
) -> None:
    """Verifies another credential and adds it to the pool.

    Example: BITBUCKET_TOKEN=… dx-dagster credentials add acme --label "second token"
    """
    day = _day(expires)

    async def work(settings: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.connections.actions import VerificationFailed, new_credential
        from dx_dagster.connections.actions import add as add_credential
        from dx_dagster.warehouse.connections import connections

        connection = await connections.find(warehouse, workspace, type_.value)
        if connection is None:
            raise not_connected(workspace, type_)
        secret, username = given_secret(settings, type_)
        new = new_credential(secret, username, label, day)
        try:
            added = await add_credential(settings, warehouse, connection, new)
        except VerificationFailed as error:
            raise not_stored(error) from None
        print(f"{added.label}: good, added with number {added.id}.")

    with_warehouse(work)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date. Use the form 2027-01-31.", param_hint="--expires") from None


Number = Annotated[int, typer.Argument(metavar="ID", help="Number of the credential, from `credentials list`.")]


@credentials.command()
def disable(
    workspace: Workspace,
    number: Number,
    reason: Annotated[str, typer.Option(help="Reason, shown with the credential.")] = "disabled by hand",
) -> None:
    """Disables a credential; `dx-dagster verify` enables a good one again.

    Example: dx-dagster credentials disable acme 3
    """
    from dx_dagster.connections.actions import disable as disable_credential

    _change(workspace, number, lambda warehouse, connection: disable_credential(warehouse, connection, number, reason))


@credentials.command()
def remove(workspace: Workspace, number: Number) -> None:
    """Removes a credential.

    Example: dx-dagster credentials remove acme 3
    """
    from dx_dagster.connections.actions import remove as remove_credential

    _change(workspace, number, lambda warehouse, connection: remove_credential(warehouse, connection, number))


def _change(workspace: str, number: int, change: "Callable[[Warehouse, StoredConnection], Awaitable[None]]") -> None:
    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.connections.actions import CredentialNotFoundError
        from dx_dagster.warehouse.connections import connections

        unknown = CommandError(
            f"Workspace {workspace} has no credential {number}. To list them: dx-dagster credentials list {workspace}"
        )
        connection = await connections.of_credential(warehouse, number, workspace)
        if connection is None:
            raise unknown
        try:
            await change(warehouse, connection)
        except CredentialNotFoundError:
            raise unknown from None

    with_warehouse(work)


@credentials.command()
def rekey() -> None:
    """Encrypts every stored secret again with the first key.

    To rotate the keys in DX_SECRET_KEYS, put a new key first wherever dx-dagster runs, run this command, then remove
    the old keys. If dx-dagster keeps the key itself, it generates a new one.

    Example: DX_SECRET_KEYS=NEW,OLD dx-dagster credentials rekey
    """

    async def work(settings: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.connections import actions

        done, renewed = await actions.rekey(settings, warehouse)
        what = "a new key" if renewed else "the first key of DX_SECRET_KEYS. The other keys may be removed"
        print(f"{done} secrets are encrypted with {what}.")

    with_warehouse(work)
