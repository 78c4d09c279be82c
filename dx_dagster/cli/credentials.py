"""`dx-dagster credentials`: lists, adds, disables and removes credentials of a connection."""

import sys
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from dx_dagster.cli.arguments import ConnectionType, Type, Workspace, one_line
from dx_dagster.cli.confirming import Yes, confirm, counted
from dx_dagster.cli.connect import given_secret, not_stored, stored_connection
from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.installation import with_warehouse
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dx_dagster.warehouse.connections.connections import StoredConnection
    from dx_dagster.warehouse.connections.credentials import ShownCredential
    from dx_dagster.warehouse.database import Warehouse

credentials = typer.Typer(help="Manages the credentials of a workspace.", no_args_is_help=True)


@credentials.command("list")
def list_(workspace: Workspace, type_: Type = ConnectionType.bitbucket) -> None:
    """Lists the credentials with the last four characters of their secrets.

    Example: dx-dagster credentials list acme
    """

    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.bitbucket import clause
        from dx_dagster.warehouse.connections import credentials

        connection = await stored_connection(warehouse, workspace, type_)
        stored = await credentials.shown(warehouse, connection.id)
        if not stored:
            whose = f"The connection of {connection.workspace} ({connection.type})"
            options = f" --type {type_.value}" if type_ is not ConnectionType.bitbucket else ""
            how = f"dx-dagster credentials add {connection.workspace}{options}"
            print(f"{whose} has no credentials. To add one: {how}", file=sys.stderr)
        for one in stored:
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
    label: Annotated[str | None, typer.Option(callback=one_line, help="Display name of the credential.")] = None,
    expires: Annotated[str | None, typer.Option(help="Day of expiry, such as 2027-01-31.")] = None,
) -> None:
    """Verifies another credential and adds it to the pool.

    Example: BITBUCKET_TOKEN=… dx-dagster credentials add acme --label "second token"
    """
    day = _day(expires)

    async def work(settings: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.connections.actions import VerificationFailed, new_credential
        from dx_dagster.connections.actions import add as add_credential
        from dx_dagster.warehouse.connections import credentials

        connection = await stored_connection(warehouse, workspace, type_)
        before = {one.id for one in await credentials.shown(warehouse, connection.id)}
        secret, username = given_secret(settings, type_)
        new = new_credential(secret, username, label, day)
        try:
            added = await add_credential(settings, warehouse, connection, new)
        except VerificationFailed as error:
            raise not_stored(error) from None
        if added.id in before:
            print(f"This token is there already, as credential {added.id} ({added.label}). It is good and enabled.")
        else:
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
    reason: Annotated[
        str, typer.Option(callback=one_line, help="Reason, shown with the credential.")
    ] = "disabled by hand",
) -> None:
    """Disables a credential; `dx-dagster verify` enables a good one again.

    Example: dx-dagster credentials disable acme 3
    """
    from dx_dagster.connections.actions import disable as disable_credential

    async def change(warehouse: "Warehouse", connection: "StoredConnection", one: "ShownCredential") -> None:
        if one.disabled_at:
            print(f"Credential {number} ({one.label}) was disabled already: {one.disabled_reason}")
            return
        await disable_credential(warehouse, connection, number, reason)
        rest = await _usable(warehouse, connection)
        print(f"Credential {number} ({one.label}) is disabled. Usable ones left: {rest}.")

    _change(workspace, number, change)


@credentials.command()
def remove(workspace: Workspace, number: Number, yes: Yes = False) -> None:
    """Removes a credential and erases its secret.

    Example: dx-dagster credentials remove acme 3 --yes
    """
    from dx_dagster.connections.actions import remove as remove_credential

    async def change(warehouse: "Warehouse", connection: "StoredConnection", one: "ShownCredential") -> None:
        rest = await _usable(warehouse, connection, but=number)
        left = f"Usable ones left: {rest}." if rest else "No usable one is left, so nothing can be imported over it."
        whose = f"workspace {connection.workspace}, {connection.type}"
        confirm(f"Credential {number} ({one.label}) belongs to {whose}. {left}", "Erase its secret?", yes=yes)
        await remove_credential(warehouse, connection, number)
        print(f"Credential {number} ({one.label}) is removed, and its secret erased. {left}")

    _change(workspace, number, change)


async def _usable(warehouse: "Warehouse", connection: "StoredConnection", but: int | None = None) -> int:
    """The number of credentials that may send requests."""
    from dx_dagster.warehouse.connections import credentials

    return len(await credentials.usable_ids(warehouse, connection.id) - {but})


def _change(
    workspace: str, number: int, change: "Callable[[Warehouse, StoredConnection, ShownCredential], Awaitable[None]]"
) -> None:
    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.connections.actions import CredentialNotFoundError, show
        from dx_dagster.warehouse.connections import connections

        unknown = CommandError(
            f"Workspace {workspace} has no credential {number}. To list them: dx-dagster credentials list {workspace}"
        )
        connection = await connections.of_credential(warehouse, number, workspace)
        if connection is None:
            raise unknown
        try:
            await change(warehouse, connection, await show(warehouse, connection, number))
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
        print(f"{counted(done, 'secret')} {'is' if done == 1 else 'are'} encrypted with {what}.")

    with_warehouse(work)
