"""`dx-dagster api-keys`: keys of the Data Cloud API and the connections pages."""

import sys
from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer

from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.installation import with_warehouse
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from dx_dagster.warehouse.database import Warehouse

api_keys = typer.Typer(help="Manages the keys of the Data Cloud API.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Purpose of the key.")]
_LONGEST_NAME = 200


@api_keys.command()
def create(name: Name) -> None:
    """Creates a key and prints it on standard output.

    Example: dx-dagster api-keys create rotation > key
    """
    chosen = name.strip()
    if not chosen or len(chosen) > _LONGEST_NAME or not chosen.isprintable():
        raise typer.BadParameter("must be one line of 1 to 200 characters.", param_hint="NAME")

    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.warehouse import api_keys

        try:
            key = await api_keys.create(warehouse, chosen)
        except api_keys.NameTakenError:
            raise CommandError(
                f"A key named {chosen} exists already. To revoke it: dx-dagster api-keys revoke {chosen}"
            ) from None
        print(key.get_secret_value())
        print("Store it now: it cannot be shown again.", file=sys.stderr)

    with_warehouse(work)


@api_keys.command("list")
def list_() -> None:
    """Lists the keys with their last four characters.

    Example: dx-dagster api-keys list
    """

    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.warehouse import api_keys

        for one in await api_keys.all_keys(warehouse):
            used = (
                f"last used {one.last_used_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if one.last_used_at else "never used"
            )
            state = f", revoked {one.revoked_at.astimezone(UTC):%Y-%m-%d}" if one.revoked_at else ""
            print(f"{one.name}  …{one.hint}  (created {one.created_at.astimezone(UTC):%Y-%m-%d}, {used}{state})")

    with_warehouse(work)


@api_keys.command()
def revoke(name: Name) -> None:
    """Revokes a key and ends its sessions at once.

    Example: dx-dagster api-keys revoke rotation
    """

    async def work(_: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.warehouse import api_keys

        if not await api_keys.revoke(warehouse, name.strip()):
            raise CommandError(f"No valid key is named {name}. To list the keys: dx-dagster api-keys list")

    with_warehouse(work)
