"""Versions of the tables that this release knows, from the file names of its migrations: Alembic imports slowly."""

from functools import cache
from pathlib import Path

VERSION_TABLE = "dx_schema_version"
STORED = "SELECT version_num FROM public.dx_schema_version"
"""Selects a database's version."""
_MIGRATIONS = Path(__file__).parent / "migrations" / "versions"


@cache
def known() -> tuple[str, ...]:
    """The versions, oldest first."""
    return tuple(sorted(path.name.partition("_")[0] for path in _MIGRATIONS.glob("[0-9]*.py")))


def why_unfit(version: str) -> str | None:
    """Why this release cannot work on tables at a version, as a message; None where it can."""
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
