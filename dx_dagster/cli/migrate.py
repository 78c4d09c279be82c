"""`dx-dagster migrate`."""

from contextlib import suppress
from typing import Annotated

import typer


def migrate(
    *,
    after: Annotated[
        bool, typer.Option("--after", help="Also what has to wait until no process of an older release is left.")
    ] = False,
) -> None:
    """Creates or upgrades the tables. It can be repeated, and run by several processes at once.

    Where its user may make roles, it also makes `dx_analyst`, which reads the tables for people and cannot log in yet,
    and a role that runs reports.

    Processes of the release before can use the new tables. `--after` also removes what only they need. It does nothing
    while one of them is connected. The job `upkeep` does the same each night.

    Example: DX_DATABASE_URL=postgresql://dx@db.example.com/dx dx-dagster migrate
    """
    from dx_dagster.cli.running import require_intended
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse import analyst_role, migrations, versions
    from dx_dagster.warehouse.connections.vault import VaultError
    from dx_dagster.warehouse.embedded import database_url
    from dx_dagster.warehouse.report_access import ReportAccess, ReportsUnavailableError

    settings = Settings.read()
    require_intended(settings)
    url = database_url(settings)
    version = migrations.upgrade(url, after=after)
    analyst_role.make_role_if_allowed(url)
    with suppress(ReportsUnavailableError, VaultError):  # the pages of reports say what is missing
        ReportAccess.of(settings, url).ready()
    waits = versions.what_waits(version)
    print(f"The tables are ready for this release. {waits}" if waits else "The tables are at the latest version.")
