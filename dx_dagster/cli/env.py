"""`dx-dagster env`."""

import shlex


def env() -> None:
    """Prints the export lines that Dagster's own commands need, the database's password among them.

    The embedded database, if there is one, runs on until the shell session ends.

    Example: eval "$(dx-dagster env)" && dg dev
    """
    from dx_dagster.cli.installation import Installation
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse.embedded import keep_for_session

    settings = Settings.read()
    for name, value in Installation.open(settings).environment.items():
        print(f"export {name}={shlex.quote(value)}")
    keep_for_session(settings)
