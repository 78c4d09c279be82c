"""Versions of the tables that this release knows, from the file names of its migrations: Alembic imports slowly.

A migration runs before the new code: the release before works on its tables. One whose name begins with `after`, such
as `0099_after_old_marks.py`, takes away what the release before needs, and waits until no process of that is left.
"""

from functools import cache
from pathlib import Path

VERSION_TABLE = "dx_schema_version"
WORKS_FROM = "0020"
"""The oldest version whose release works on the tables at `needed()`, beside this one. A test compares both tables."""
# Tables before 0021 have no such columns. An upgrade that was killed has not told yet what works with its version.
STORED = """
    SELECT version_num,
        CASE WHEN to_jsonb(stored) ->> 'works_from_of' = version_num THEN to_jsonb(stored) ->> 'works_from' END
    FROM public.dx_schema_version AS stored"""
"""Selects a database's version, and the oldest one whose release works on its tables."""
_MIGRATIONS = Path(__file__).parent / "migrations" / "versions"


@cache
def known() -> tuple[str, ...]:
    """The versions, oldest first."""
    return tuple(sorted(path.name.partition("_")[0] for path in _MIGRATIONS.glob("[0-9]*.py")))


@cache
def _after() -> frozenset[str]:
    """Versions whose migrations wait until no process of an older release is left."""
    names = (path.name.split("_") for path in _MIGRATIONS.glob("[0-9]*_after_*.py"))
    return frozenset(version for version, kind, *_ in names if kind == "after")


@cache
def needed() -> str:
    """The oldest version that this release works on. The migrations that wait come behind it."""
    return max(set(known()) - _after())


def waiting(version: str) -> tuple[str, ...]:
    """Versions of the migrations that tables at a version lack."""
    return tuple(later for later in known() if later > version)


def what_waits(version: str) -> str | None:
    """A message about the migrations that tables at a version lack; None where they lack none."""
    if not (lacking := waiting(version)):
        return None
    return (
        f"Migrations that wait until no process of an older release is left: {', '.join(lacking)}. The job upkeep runs "
        "them then, or dx-dagster migrate --after does."
    )


def works_from(version: str) -> str:
    """The oldest version whose release works on tables at a version: no older one after a migration that waited."""
    return max({WORKS_FROM, *(after for after in _after() if after <= version)})


def is_ahead(version: str, works_from: str | None) -> bool:
    """Whether a newer release has upgraded the tables, and they work with this release all the same."""
    return version not in known() and works_from is not None and works_from <= known()[-1]


def why_unfit(version: str, works_from: str | None = None) -> str | None:
    """Why this release cannot work on tables at a version, as a message; None where it can."""
    if is_ahead(version, works_from):
        return None
    if version not in known():
        return (
            "The database at DX_DATABASE_URL was upgraded by a newer release of dx-dagster: its tables are at version "
            f"{version}, which this release does not know. Install the newer one here too."
        )
    if version < needed():
        return (
            f"The tables at DX_DATABASE_URL are at version {version}, and this release of dx-dagster needs "
            f"{needed()}. Run dx-dagster migrate."
        )
    return None
