"""`dx-dagster env`."""

import os
import shlex


def env() -> None:
    """Prints the export lines of all that the installation runs with, its database's password among them.

    With these, Dagster's own commands work on it. The keys and credentials of the environment are not printed: a shell
    that has them keeps them. The embedded database, if there is one, runs on until the shell session ends.

    Example: eval "$(dx-dagster env)" && dg dev
    """
    from dx_dagster.cli.installation import Installation
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse.embedded import keep_for_session

    settings = Settings.read()
    given = set(os.environ)
    # Named even where it is Bitbucket's own: the shell may hold that of another installation.
    lines = Installation.open(settings).environment | {"BITBUCKET_API_URL": settings.bitbucket_api_url}
    for name, value in (lines | settings.changed()).items():
        print(f"export {name}={shlex.quote(value)}")
    for name in sorted(given - set(os.environ)):
        print(f"unset {name}")  # one of libpq's that would change what the lines above say
    keep_for_session(settings)
