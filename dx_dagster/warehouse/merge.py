"""Frames into tables: `COPY` into a temporary table, then one statement that inserts what is new and updates what is
newer.

A row is taken only when it is not older than the stored one, and written only when it differs: importing the same thing
again writes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Self, cast

import polars as pl
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from sqlalchemy import Table

from dx_dagster.warehouse import tables


@dataclass(frozen=True)
class Merge:
    """How rows of one table are merged.

    Attributes:
        table: where to.
        newer: columns by which two versions of a row are compared, in this order; null is oldest.
        settle: for columns that are not simply overwritten, the value to store, in SQL over `old` and `new`.
        first_only: columns that are written with a new row and left alone afterwards.
    """

    table: Table
    newer: tuple[str, ...] = ("synced_at",)
    settle: Mapping[str, str] = field(default_factory=dict)
    first_only: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.primary_key)


def _longer_hash(column: str) -> str:
    """Pull requests tell 12 characters of a hash; the whole one, once known, stays."""
    return f"CASE WHEN old.{column} LIKE new.{column} || '%' THEN old.{column} ELSE new.{column} END"


WORKSPACES = Merge(tables.workspaces)
REPOSITORIES = Merge(tables.repositories)
# A list of members says who is one; anybody else met on the way is none until such a list says so.
USERS = Merge(
    tables.users,
    settle={
        "nickname": "COALESCE(new.nickname, old.nickname)",
        "account_id": "COALESCE(new.account_id, old.account_id)",
    },
    first_only=frozenset({"active"}),
)
MEMBERS = Merge(tables.users)
PULLS = Merge(
    tables.pulls,
    newer=("updated_at", "synced_at"),
    settle={name: _longer_hash(name) for name in ("source_commit_sha", "merge_commit_sha")},
)
PARTICIPANTS = Merge(tables.pull_participants)
ACTIVITIES = Merge(tables.pull_activities)
COMMENTS = Merge(tables.pull_comments, newer=("updated_at", "synced_at"))
PULL_COMMITS = Merge(tables.pull_commits)
BRANCH_COMMITS = Merge(tables.default_branch_commits)
PIPELINES = Merge(
    tables.pipelines,
    newer=("completed_at", "synced_at"),
    settle={"commit_sha": _longer_hash("commit_sha")},
)


@dataclass
class Counts:
    """Rows written to one table."""

    inserted: int = 0
    updated: int = 0

    def __iadd__(self, other: "Counts") -> Self:
        self.inserted += other.inserted
        self.updated += other.updated
        return self


async def merge(connection: AsyncConnection[TupleRow], how: Merge, frame: pl.DataFrame) -> Counts:
    """Merges the frame's rows; its columns are the columns that are written.

    Of several rows with the same key in the frame, the newest is taken.
    """
    if frame.is_empty():
        return Counts()
    await load(connection, how, frame)
    return await merge_loaded(connection, how, frame)


async def merge_loaded(connection: AsyncConnection[TupleRow], how: Merge, frame: pl.DataFrame) -> Counts:
    """The second half of `merge`, after `load` in the same transaction."""
    cursor = await connection.execute(_statement(how, tuple(frame.columns)))
    row = await cursor.fetchone()
    return Counts(*cast("tuple[int, int]", row)) if row else Counts()


async def load(connection: AsyncConnection[TupleRow], how: Merge, frame: pl.DataFrame) -> None:
    """Puts the frame into the temporary table `incoming_…`, which holds nothing else then."""
    incoming = _incoming(how)
    # One for each connection, emptied by every commit: a table for each page would bloat the catalogue.
    create = (
        f"CREATE TEMP TABLE IF NOT EXISTS {incoming} (LIKE {how.table.name} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
    )
    await connection.execute(f"{create}; DELETE FROM {incoming}")  # noqa: S608 - names of our own tables
    columns = ", ".join(frame.columns)
    rows = BytesIO()
    frame.write_csv(rows, include_header=False)
    async with connection.cursor() as cursor:
        copy = f"COPY {incoming} ({columns}) FROM STDIN (FORMAT csv)"
        async with cursor.copy(copy) as stream:
            await stream.write(rows.getvalue())


def _incoming(how: Merge) -> str:
    return f"incoming_{how.table.name}"


def _statement(how: Merge, columns: tuple[str, ...]) -> str:
    """INSERT … ON CONFLICT DO UPDATE of the rows loaded, in the order of their keys (no deadlocks between merges)."""
    key = ", ".join(how.key)
    changing = [name for name in columns if name not in how.key and name not in how.first_only]
    settled = {name: how.settle.get(name, f"new.{name}") for name in changing}
    compared = [name for name in changing if name != "synced_at"]
    target = how.table.name
    newest = ", ".join(f"{name} DESC NULLS LAST" for name in how.newer)
    statement = f"""
        WITH merged AS (
            INSERT INTO {target} AS old ({", ".join(columns)})
            SELECT DISTINCT ON ({key}) {", ".join(columns)} FROM {_incoming(how)} ORDER BY {key}, {newest}
            ON CONFLICT ({key}) DO UPDATE SET {", ".join(f"{name} = {value}" for name, value in settled.items())}
            WHERE ({_age(how, "new")}) >= ({_age(how, "old")})
              AND ({", ".join(f"old.{name}" for name in compared)}) IS DISTINCT FROM
                  ({", ".join(settled[name] for name in compared)})
            RETURNING (xmax = 0) AS inserted)
        SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM merged
    """  # noqa: S608
    return statement.replace("new.", "EXCLUDED.")


def _age(how: Merge, version: str) -> str:
    return ", ".join(f"COALESCE({version}.{name}, '-infinity')" for name in how.newer)
