"""`dx-dagster api-keys`: keys of the Data Cloud API and the connections pages."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dx_dagster.cli.arguments import one_line
from dx_dagster.cli.confirming import Yes, confirm, counted
from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.installation import with_warehouse
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from dx_dagster.warehouse.database import Warehouse

api_keys = typer.Typer(help="Manages the keys of the Data Cloud API.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Purpose of the key.")]


@api_keys.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", callback=one_line, help="Purpose of the key.")],
    insights: Annotated[bool, typer.Option("--insights", help="The key opens insights and nothing else.")] = False,
) -> None:
    """Creates a key and prints it on standard output.

    Example: dx-dagster api-keys create rotation > key
    """

    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.warehouse import api_keys

        try:
            key = await api_keys.create(warehouse, name, insights_only=insights)
        except api_keys.NameTakenError:
            raise CommandError(
                f"A key named {name} exists already. To revoke it: dx-dagster api-keys revoke {name}"
            ) from None
        try:
            print(key.get_secret_value(), flush=True)
        except OSError:  # nobody has seen it
            await api_keys.revoke(warehouse, name)
            raise
        print(f"API key {name} is created. Store it now: it cannot be shown again.", file=sys.stderr)

    # A key may come first: it opens the page that connects the first workspace.
    with_warehouse(work, new=bool(os.environ.get("DX_HOME")))


@api_keys.command("list")
def list_() -> None:
    """Lists the keys with their last four characters.

    Example: dx-dagster api-keys list
    """

    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.clock import ago
        from dx_dagster.warehouse import api_keys

        stored = await api_keys.all_keys(warehouse)
        if not stored:
            print("There are no API keys. To create one: dx-dagster api-keys create NAME", file=sys.stderr)
        for one in stored:
            used = f"last used {ago(one.last_used_at)}" if one.last_used_at else "never used"
            state = f", revoked {ago(one.revoked_at)}" if one.revoked_at else ""
            opens = "insights only, " if one.insights_only else ""
            print(f"{one.name}  …{one.hint}  ({opens}created {ago(one.created_at)}, {used}{state})")

    with_warehouse(work)


@api_keys.command()
def revoke(name: Name, yes: Yes = False) -> None:
    """Revokes a key and ends its sessions at once.

    Example: dx-dagster api-keys revoke rotation --yes
    """
    chosen = name.strip()

    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.clock import ago
        from dx_dagster.warehouse import api_keys

        unknown = CommandError(f"No valid key is named {chosen}. To list the keys: dx-dagster api-keys list")
        key = await api_keys.named(warehouse, chosen)
        if key is None:
            raise unknown
        sessions = counted(await api_keys.open_sessions(warehouse, key), "session")
        used = f"was last used {ago(key.last_used_at)}" if key.last_used_at else "was never used"
        confirm(f"API key {chosen} …{key.hint} {used} and has {sessions}.", "Revoke it?", yes=yes)
        if not await api_keys.revoke(warehouse, chosen):
            raise unknown
        print(f"API key {chosen} is revoked, and its {sessions} ended.")

    with_warehouse(work)
