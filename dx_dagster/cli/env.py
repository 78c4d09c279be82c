"""`dx-dagster env`."""

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dx_dagster.settings import Settings


def env(
    database: Annotated[
        bool,
        typer.Option("--database", help="Print only the address at which the database listens, with its password."),
    ] = False,
) -> None:
    """Prints export lines with the installation's settings, including the password of its database.

    With them, Dagster's own commands work on the installation. Keys and credentials from the environment are not
    printed. An embedded database runs until the shell session ends.

    With --database: one address for BI tools and graphical clients, of a role that only reads the imported and unified
    tables. It works while `up --database-port` runs.

    Example: eval "$(dx-dagster env)" && dg dev
    """
    from dx_dagster.cli.installation import Installation
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse.embedded import keep_for_session

    settings = Settings.read()
    if database:
        print(_address(settings))
        return
    given = set(os.environ)
    # Printed even at its default: the shell may have the address of another installation.
    lines = Installation.open(settings, new=True).environment | {"BITBUCKET_API_URL": settings.bitbucket_api_url}
    for name, value in (lines | settings.changed()).items():
        print(f"export {name}={shlex.quote(value)}")
    for name in sorted(given - set(os.environ)):
        print(f"unset {name}")  # a variable of libpq that would override the lines above
    keep_for_session(settings)


def _address(settings: "Settings") -> str:
    from dx_dagster.cli.errors import CommandError
    from dx_dagster.cli.running import running_in
    from dx_dagster.warehouse import analyst_role

    running = running_in(settings.home)
    if running is None or running.database_port is None:
        raise CommandError(
            f"The database of the installation in {settings.home} listens on no port. To have it listen: dx-dagster up "
            "--database-port 5432. For a database that DX_DATABASE_URL names, use an address of your own."
        )
    return analyst_role.address(settings.home, running.database_port).get_secret_value()
