"""`dx-dagster connections`: lists, disables, enables and removes connections."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dx_dagster.cli.arguments import ConnectionType, Type, Workspace, one_line
from dx_dagster.cli.confirming import Yes, confirm, counted
from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.installation import with_warehouse
from dx_dagster.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dx_dagster.warehouse.connections.connections import StoredConnection
    from dx_dagster.warehouse.database import Warehouse

    Change = Callable[[Settings, Warehouse, StoredConnection], Awaitable[object]]

connections = typer.Typer(help="Manages connections.", no_args_is_help=True)


@connections.command("list")
def list_() -> None:
    """Lists the connections of all workspaces.

    Example: dx-dagster connections list
    """

    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.bitbucket import clause
        from dx_dagster.clock import ago
        from dx_dagster.warehouse.connections.connections import all_connections

        stored = await all_connections(warehouse)
        if not stored:
            print("No workspace is connected. To connect one: dx-dagster connect WORKSPACE", file=sys.stderr)
        for one in stored:
            state = f"failing: {clause(one.last_error)}" if one.last_error else one.state
            state = f"disabled: {clause(one.disabled_reason or '')}" if one.disabled_at else state
            synced = ago(one.last_synced_at) if one.last_synced_at else "never"
            print(f"{one.id}  {one.workspace}  {one.type}  {one.name}  ({state}, last synced {synced})")

    with_warehouse(work)


@connections.command()
def disable(
    workspace: Workspace,
    type_: Type = ConnectionType.bitbucket,
    reason: Annotated[
        str, typer.Option(callback=one_line, help="Reason, shown with the connection.")
    ] = "disabled by hand",
) -> None:
    """Stops all requests over a connection until it is enabled again. A running import ends.

    Example: dx-dagster connections disable acme --reason "contract ends"
    """
    from dx_dagster.connections.actions import disable_connection

    async def change(_: Settings, warehouse: "Warehouse", connection: "StoredConnection") -> None:
        name = f"The connection of workspace {connection.workspace} ({connection.type})"
        if connection.disabled_at:
            print(f"{name} was disabled already: {connection.disabled_reason}")
            return
        await disable_connection(warehouse, connection, reason)
        print(f"{name} is disabled. To resume: dx-dagster connections enable {connection.workspace}")

    _change(workspace, type_, change)


@connections.command()
def enable(workspace: Workspace, type_: Type = ConnectionType.bitbucket) -> None:
    """Enables a connection, and verifies its credentials.

    Example: dx-dagster connections enable acme
    """
    from dx_dagster.connections.actions import enable_connection

    async def change(settings: Settings, warehouse: "Warehouse", connection: "StoredConnection") -> None:
        checked = await enable_connection(settings, warehouse, connection)
        good = sum(1 for one in checked if one.verdict.failure is None)
        print(f"The connection of workspace {connection.workspace} ({connection.type}) is enabled.")
        print(f"{good} of {counted(len(checked), 'credential')} good.")
        if good < len(checked):
            print(f"To see why: dx-dagster verify {connection.workspace}")

    _change(workspace, type_, change)


@connections.command()
def remove(
    workspace: Workspace,
    type_: Type = ConnectionType.bitbucket,
    yes: Yes = False,
    webhook: Annotated[
        bool | None, typer.Option("--webhook/--keep-webhook", help="Remove the webhook at Bitbucket too. Else it asks.")
    ] = None,
) -> None:
    """Removes a connection and erases its secrets. Imported rows stay.

    Example: dx-dagster connections remove acme --type jira_cloud --yes
    """

    async def change(settings: Settings, warehouse: "Warehouse", connection: "StoredConnection") -> None:
        from dx_dagster.connections.actions import remove_connection
        from dx_dagster.warehouse.connections import credentials
        from dx_dagster.warehouse.webhooks import secrets

        count = counted(len(await credentials.shown(warehouse, connection.id)), "credential")
        hooks = await secrets.hooks(warehouse, connection.id)
        also = " and the secret of its webhook" if hooks else ""
        name = f"The connection of workspace {connection.workspace} ({connection.type})"
        confirm(f"{name} has {count}{also}. Imported rows stay.", "Remove it and erase its secrets?", yes=yes)
        if hooks and (_asked(webhook) if not yes else webhook):
            await _remove_webhook(settings, warehouse, connection)
        elif hooks:
            print("Its webhook stays at Bitbucket, and deliveries are answered with 404.")
        await remove_connection(warehouse, connection)
        print(f"{name} is removed, and its secrets erased. Imported rows stay.")

    _change(workspace, type_, change)


def _asked(webhook: bool | None) -> bool:
    return typer.confirm("Remove its webhook at Bitbucket too?", default=True) if webhook is None else webhook


async def _remove_webhook(settings: Settings, warehouse: "Warehouse", connection: "StoredConnection") -> None:
    """Removes the hooks of the workspace, or else of its repositories. A refusal stops nothing."""
    from dx_dagster.cli.webhooks import remove_hooks

    try:
        result = await remove_hooks(settings, warehouse, connection.workspace, repositories=False)
        if not result.changed:
            result = await remove_hooks(settings, warehouse, connection.workspace, repositories=True)
        refused = result.refused[0] if result.refused else None
    except (CommandError, SettingsError) as error:
        refused = str(error)
    if refused:
        print(f"The webhook stays at Bitbucket: {refused}", file=sys.stderr)


def _change(workspace: str, type_: ConnectionType, change: "Change") -> None:
    async def work(settings: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.connections.actions import ConnectionNotFoundError
        from dx_dagster.warehouse.connections.connections import find

        unknown = CommandError(
            f"Workspace {workspace} has no connection of type {type_.value}. To list all: dx-dagster connections list"
        )
        connection = await find(warehouse, workspace, type_.value)
        if connection is None:
            raise unknown
        try:
            await change(settings, warehouse, connection)
        except ConnectionNotFoundError:
            raise unknown from None

    with_warehouse(work)
