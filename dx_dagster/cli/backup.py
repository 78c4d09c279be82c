"""`dx-dagster backup` and `restore`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

_KEYS = (
    "Its credentials are encrypted. Whoever restores it needs the secret keys: keep a copy of secret_keys in DX_HOME, "
    "or of DX_SECRET_KEYS, in another place."
)


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.", dir_okay=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Replace the file where it exists.")] = False,
) -> None:
    """Writes the whole database into one file, while the installation goes on working.

    It has the imported rows, connections and credentials, the inbox, and Dagster's runs and partitions.

    Example: dx-dagster backup dx.dump
    """
    from dx_dagster.cli.confirming import confirm
    from dx_dagster.cli.errors import CommandError
    from dx_dagster.cli.installation import Installation
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse import dumps

    installation = Installation.open(Settings.read())
    if file.exists() and not file.is_file():  # a device or a pipe would be replaced, not written to
        raise CommandError(f"{file} is not a regular file. Nothing was written. Name a file to make.")
    if file.exists():
        confirm(f"{file} exists.", "Replace it?", yes=yes)
    try:
        dumps.write(installation.database_url, file)
    except OSError as error:
        raise CommandError(
            f"The backup was not written to {file}: {error.strerror}. Name a file in a folder that exists, that you "
            "may write to, and that has room."
        ) from None
    except dumps.DumpError as error:
        raise CommandError(f"The backup was not written to {file}: {error}") from None
    print(f"{file}: {file.stat().st_size / 1e6:,.1f} MB. {_KEYS}")


def restore(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file of dx-dagster backup.", exists=True, dir_okay=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Replace the rows that are there without asking.")] = False,
) -> None:
    """Replaces the whole database with the content of a backup, and upgrades its tables.

    It replaces everything or, where it fails, nothing. End dx-dagster up first.

    Example: DX_HOME=.dx-restored dx-dagster restore dx.dump
    """
    from dx_dagster.cli import running
    from dx_dagster.cli.confirming import confirm
    from dx_dagster.cli.errors import CommandError
    from dx_dagster.cli.installation import Installation
    from dx_dagster.cli.keys import require_keys
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse import dumps
    from dx_dagster.warehouse.connections.vault import VaultError
    from dx_dagster.warehouse.embedded import database_url

    settings = Settings.read()
    running.require_intended(settings)
    running.require_idle(settings.home)
    url = database_url(settings)
    running.require_no_daemon(url)
    if dumps.is_used(url):
        confirm(f"Everything in the database of {settings.home} will be replaced.", "Replace it?", yes=yes)
    try:
        dumps.restore(url, file)
    except dumps.DumpError as error:
        raise CommandError(f"Nothing was changed: {file} was not restored. {error}") from None
    restored = Installation.open(settings)
    print(f"Restored {file}.")
    try:
        require_keys(restored.database_url, settings)
    except VaultError as error:
        print(error, file=sys.stderr)
