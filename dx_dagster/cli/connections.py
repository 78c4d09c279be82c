"""`dx-dagster connections`: lists, disables, enables and removes connections."""

from typing import TYPE_CHECKING, Annotated

import typer

from dx_dagster.cli.arguments import ConnectionType, Type, Workspace
from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.installation import with_warehouse
from dx_dagster.settings import Settings

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
        from dx_dagster.warehouse.connections.connections import all_connections

        for one in await all_connections(warehouse):
            state = f"failing: {clause(one.last_error)}" if one.last_error else one.state
            state = f"disabled: {clause(one.disabled_reason or '')}" if one.disabled_at else state
            synced = f"{one.last_synced_at:%Y-%m-%d %H:%M %Z}" if one.last_synced_at else "never"
            print(f"{one.id}  {one.workspace}  {one.type}  {one.name}  ({state}, last synced {synced})")

    with_warehouse(work)


@connections.command()
def disable(
    workspace: Workspace,
    type_: Type = ConnectionType.bitbucket,
    reason: Annotated[str, typer.Option(help="Reason, shown with the connection.")] = "disabled by hand",
) -> None:
    """Stops all requests over a connection until it is enabled again. A running import ends.

    Example: dx-dagster connections disable acme --reason "contract ends"
    """
    from dx_dagster.connections.actions import disable_connection

    _change(workspace, type_, lambda _, warehouse, connection: disable_connection(warehouse, connection, reason))


@connections.command()
def enable(workspace: Workspace, type_: Type = ConnectionType.bitbucket) -> None:
    """Enables a connection, and verifies its credentials.

    Example: dx-dagster connections enable acme
    """
    from dx_dagster.connections.actions import enable_connection

    _change(workspace, type_, enable_connection)


@connections.command()
def remove(workspace: Workspace, type_: Type = ConnectionType.bitbucket) -> None:
    """Removes a connection and erases its secrets. Imported rows stay.

    Example: dx-dagster connections remove acme --type jira_cloud
    """
    from dx_dagster.connections.actions import remove_connection

    _change(workspace, type_, lambda _, warehouse, connection: remove_connection(warehouse, connection))


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
