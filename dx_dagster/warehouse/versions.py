"""Which versions of the tables this release knows: read off file names, for Alembic is slow to import."""

from functools import cache
from pathlib import Path
from typing import LiteralString

VERSION_TABLE = "dx_schema_version"
STORED: LiteralString = f"SELECT version_num FROM public.{VERSION_TABLE}"  # noqa: S608 - a constant
"""Asks a database for its version."""
_MIGRATIONS = Path(__file__).parent / "migrations" / "versions"


@cache
def known() -> tuple[str, ...]:
    """Oldest first."""
    return tuple(sorted(path.name.partition("_")[0] for path in _MIGRATIONS.glob("[0-9]*.py")))


def why_unfit(version: str) -> str | None:
    """What to say of a database whose tables this release cannot work on; None where it can."""
    if version not in known():
        return (
            "The database at DX_DATABASE_URL was upgraded by a newer release of dx-dagster: its tables are at version "
            f"{version}, which this release does not know. Install the newer one here too."
        )
    if version != known()[-1]:
        return (
            f"The tables at DX_DATABASE_URL are at version {version}, and this release of dx-dagster needs "
            f"{known()[-1]}. Run dx-dagster migrate."
        )
    return None
