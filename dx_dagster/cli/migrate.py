"""`dx-dagster migrate`."""


def migrate() -> None:
    """Creates or upgrades the tables. It can be repeated, and run by several processes at once.

    Example: DX_DATABASE_URL=postgresql://dx@db.example.com/dx dx-dagster migrate
    """
    from dx_dagster.cli.running import require_intended
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse import migrations
    from dx_dagster.warehouse.embedded import database_url

    settings = Settings.read()
    require_intended(settings)
    migrations.upgrade(database_url(settings))
    print("The tables are at the latest version.")
