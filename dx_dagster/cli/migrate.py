"""`dx-dagster migrate`."""

from contextlib import suppress


def migrate() -> None:
    """Creates or upgrades the tables. It can be repeated, and run by several processes at once.

    Where its user may make roles, it also makes `dx_analyst`, which reads the tables for people and cannot log in yet,
    and a role that runs reports.

    Example: DX_DATABASE_URL=postgresql://dx@db.example.com/dx dx-dagster migrate
    """
    from dx_dagster.cli.running import require_intended
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse import analyst_role, migrations
    from dx_dagster.warehouse.connections.vault import VaultError
    from dx_dagster.warehouse.embedded import database_url
    from dx_dagster.warehouse.report_access import ReportAccess, ReportsUnavailableError

    settings = Settings.read()
    require_intended(settings)
    url = database_url(settings)
    migrations.upgrade(url)
    analyst_role.make_role_if_allowed(url)
    with suppress(ReportsUnavailableError, VaultError):  # the pages of reports say what is missing
        ReportAccess.of(settings, url).ready()
    print("The tables are at the latest version.")
