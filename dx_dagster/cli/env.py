"""`dx-dagster env`."""

import os
import shlex


def env() -> None:
    """Prints export lines with the installation's settings, including the password of its database.

    With them, Dagster's own commands work on the installation. Keys and credentials from the environment are not
    printed. An embedded database runs until the shell session ends.

    Example: eval "$(dx-dagster env)" && dg dev
    """
    from dx_dagster.cli.installation import Installation
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse.embedded import keep_for_session

    settings = Settings.read()
    given = set(os.environ)
    # Printed even at its default: the shell may have the address of another installation.
    lines = Installation.open(settings, new=True).environment | {"BITBUCKET_API_URL": settings.bitbucket_api_url}
    for name, value in (lines | settings.changed()).items():
        print(f"export {name}={shlex.quote(value)}")
    for name in sorted(given - set(os.environ)):
        print(f"unset {name}")  # a variable of libpq that would override the lines above
    keep_for_session(settings)
