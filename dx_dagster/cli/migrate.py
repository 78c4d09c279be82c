"""`dx-dagster migrate`."""


def migrate() -> None:
    """Creates or upgrades the tables. It can be repeated, and run by several processes at once.

    Where its user may make roles, it also makes `dx_analyst`, which reads the tables for people and cannot log in yet.

    Example: DX_DATABASE_URL=postgresql://dx@db.example.com/dx dx-dagster migrate
    """
    from dx_dagster.cli.running import require_intended
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse import analyst_role, migrations
    from dx_dagster.warehouse.embedded import database_url

    settings = Settings.read()
    require_intended(settings)
    url = database_url(settings)
    migrations.upgrade(url)
    analyst_role.make_role_if_allowed(url)
    print("The tables are at the latest version.")
