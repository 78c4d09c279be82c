"""Frames into tables: one statement that inserts what is new and updates what is newer.

The rows travel as JSON in a parameter. Pages are small and many, so round trips cost more than bytes: measured against
`COPY` into a temporary table, this took a third of the time for each page.

A row is taken only when it is not older than the stored one, and written only when it differs: importing the same thing
again writes nothing.

Which of two versions is older, Bitbucket's own date says where there is one, and then `synced_at`: when each was asked
for, by the database's clock. A date that is missing or cannot be right says nothing. A stored `synced_at` that lies in
the future, as a wrong clock leaves it, is the oldest of all, and goes with the next version.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Self

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from dx_dagster.warehouse.schema import bitbucket as tables

if TYPE_CHECKING:
    # Most commands connect to the database and merge nothing: polars would take them a quarter of a second.
    import polars as pl

_NOTHING_IS_OLDER = datetime(1990, 1, 1, tzinfo=UTC)  # a history may have been imported from CVS
CLOCKS_DIFFER = timedelta(days=1)
"""A time that lies no further ahead may be right: clocks that differ by less are common."""
# All processes go by the database's clock, as well as they could read it when they last did.
_SECONDS_APART = 5
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Merge:
    """How rows of one table are merged.

    Attributes:
        table: where to.
        dated: the column with Bitbucket's own date of a version.
        hashes: columns with hashes that come as 12 characters: the whole one, once known, stays.
        lasting: columns whose value stays where the newer version has none.
        first_only: columns that are written with a new row and left alone afterwards.
    """

    table: Table
    dated: str | None = None
    hashes: frozenset[str] = frozenset()
    lasting: frozenset[str] = frozenset()
    first_only: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.primary_key)

    def settled(self, column: str) -> str:
        """What to store, in SQL over the stored row `old` and the new one."""
        new, old = f"EXCLUDED.{column}", f"old.{column}"
        if column in self.hashes:
            return f"CASE WHEN {old} LIKE {new} || '%%' THEN {old} ELSE {new} END"
        return f"COALESCE({new}, {old})" if column in self.lasting else new


WORKSPACES = Merge(tables.workspaces)
REPOSITORIES = Merge(tables.repositories)
# A list of members says who is one; anybody else met on the way is none until such a list says so.
MEMBERS = Merge(tables.users, lasting=frozenset({"nickname", "account_id"}), first_only=frozenset({"counted_as"}))
USERS = replace(MEMBERS, first_only=MEMBERS.first_only | {"active"})
PULLS = Merge(
    tables.pulls,
    dated="updated_at",
    hashes=frozenset({"source_commit_sha", "merge_commit_sha"}),
    lasting=frozenset({"merge_commit_date"}),  # a webhook does not tell it
)
PARTICIPANTS = Merge(tables.pull_participants)
ACTIVITIES = Merge(tables.pull_activities)
COMMENTS = Merge(tables.pull_comments, dated="updated_at")
PULL_COMMITS = Merge(tables.pull_commits)
BRANCH_COMMITS = Merge(tables.default_branch_commits)
PIPELINES = Merge(tables.pipelines, hashes=frozenset({"commit_sha"}))  # one that is run again loses its end


def overriding(how: Merge) -> Merge:
    """For `--full`: what was asked for last is right, whatever the dates say."""
    return replace(how, dated=None)


@dataclass
class Counts:
    """Rows written to one table."""

    inserted: int = 0
    updated: int = 0

    def __iadd__(self, other: "Counts") -> Self:
        self.inserted += other.inserted
        self.updated += other.updated
        return self


async def merge(connection: AsyncConnection[TupleRow], how: Merge, frame: "pl.DataFrame") -> Counts:
    """Merges the frame's rows; its columns are the columns that are written.

    Of several rows with the same key in the frame, the newest is taken.
    """
    if frame.is_empty():
        return Counts()
    cursor = await connection.execute(_statement(how, tuple(frame.columns)), {"rows": as_json(frame)})
    row = await cursor.fetchone()
    return Counts(*row) if row else Counts()


def as_json(frame: "pl.DataFrame") -> str:
    """The frame's rows as PostgreSQL takes them: one parameter, one round trip."""
    return frame.write_json()


@cache
def recordset(table: Table, columns: tuple[str, ...], parameter: str = "rows") -> str:
    """SQL for rows that come as JSON in a parameter: something to select from."""
    types = ", ".join(f"{name} {table.columns[name].type.compile(dialect=_DIALECT)}" for name in columns)
    return f"json_to_recordset(%({parameter})s::json) AS incoming ({types})"


@cache
def _statement(how: Merge, columns: tuple[str, ...]) -> str:
    """INSERT … ON CONFLICT DO UPDATE of the rows given, in the order of their keys (no deadlocks between merges)."""
    key = ", ".join(how.key)
    changing = [name for name in columns if name not in how.key and name not in how.first_only]
    settled = {name: how.settled(name) for name in changing}
    compared = [name for name in changing if name != "synced_at"]
    newest = ", ".join(f"{name} DESC NULLS LAST" for name in (how.dated, "synced_at") if name)
    return f"""
        WITH merged AS (
            INSERT INTO {how.table.name} AS old ({", ".join(columns)})
            SELECT DISTINCT ON ({key}) {", ".join(columns)} FROM {recordset(how.table, columns)}
            ORDER BY {key}, {newest}
            ON CONFLICT ({key}) DO UPDATE SET {", ".join(f"{name} = {value}" for name, value in settled.items())}
            WHERE {is_not_older(how, "EXCLUDED", "old")}
              AND (({", ".join(f"old.{name}" for name in compared)}) IS DISTINCT FROM
                   ({", ".join(settled[name] for name in compared)}) OR {_is_wrong("old.synced_at")})
            RETURNING (xmax = 0) AS inserted)
        SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM merged
    """  # noqa: S608 - names of our own tables and columns


def is_not_older(how: Merge, new: str, old: str) -> str:
    """Whether a version may take the place of a stored one, in SQL over the rows with these names."""
    asked = f"{new}.synced_at >= {asked_at(old)}"
    if how.dated is None:
        return asked
    one, other = (f"{version}.{how.dated}" for version in (new, old))
    says_nothing = " OR ".join(f"{date} IS NULL OR {is_absurd(date)}" for date in (one, other))
    return f"CASE WHEN {says_nothing} OR {one} = {other} THEN {asked} ELSE {one} > {other} END"


def asked_at(stored: str) -> str:
    """When a stored row was asked for, in SQL."""
    moment = f"{stored}.synced_at"
    return f"CASE WHEN {moment} IS NULL OR {_is_wrong(moment)} THEN '-infinity' ELSE {moment} END"


def is_absurd(moment: str) -> str:
    """Whether a date of Bitbucket's cannot be right, in SQL: it is from before all history, or lies in the future."""
    return f"(COALESCE({moment} < '{_NOTHING_IS_OLDER}', false) OR {lies_in_the_future(moment)})"


def lies_in_the_future(moment: str) -> str:
    """Whether a time is wrong because it has not come yet, in SQL."""
    return f"COALESCE({moment} > now() + interval '{CLOCKS_DIFFER.total_seconds():.0f} s', false)"


def cannot_be(moment: datetime, now: datetime) -> bool:
    """The same of a date that is not stored yet."""
    return not _NOTHING_IS_OLDER <= moment <= now + CLOCKS_DIFFER


def _is_wrong(synced_at: str) -> str:
    return f"COALESCE({synced_at} > now() + interval '{_SECONDS_APART} s', false)"
