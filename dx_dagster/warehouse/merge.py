"""Merges frames into tables: one statement inserts new rows and updates older ones.

The rows travel as JSON in a parameter. Pages are small and many, so round trips cost more than bytes: this took a third
of the time that `COPY` into a temporary table took for each page.

A row is merged only when it is not older than the stored one, and written only when it differs: importing the same page
again writes nothing.

Bitbucket's own date decides which of two versions is older, and then `synced_at`: the time of each version's request by
the database's clock. A date that is missing or cannot be right decides nothing. A stored `synced_at` in the future,
which a wrong clock has left, counts as the oldest of all, and the next version replaces it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Self

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row
from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from dx_dagster.warehouse.schema import bitbucket as tables

if TYPE_CHECKING:
    # Most commands connect to the database and merge nothing: polars would take them a quarter of a second.
    import polars as pl

_NOTHING_IS_OLDER = datetime(1990, 1, 1, tzinfo=UTC)  # a history may have been imported from CVS
CLOCKS_DIFFER = timedelta(days=1)
"""A time in the future by no more than this may be right: clocks that differ by less are common."""
# All processes use the database's clock, as precisely as they last read it.
_CLOCK_READINGS_DIFFER = timedelta(seconds=5)
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Merge:
    """How rows of one table are merged.

    Attributes:
        table: the table to merge into.
        dated: the column with Bitbucket's own date of a version.
        hashes: columns with hashes that come as 12 characters. A whole hash stays once it is stored.
        lasting: columns whose value stays where the newer version has none.
        first_only: columns that are written with a new row and never updated.
    """

    table: Table
    dated: str | None = None
    hashes: frozenset[str] = frozenset()
    lasting: frozenset[str] = frozenset()
    first_only: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.primary_key)

    def settled(self, column: str) -> Composable:
        """SQL of the value to store, over the stored row `old` and the new one."""
        new, old = Identifier("excluded", column), Identifier("old", column)
        if column in self.hashes:
            return SQL("CASE WHEN {old} LIKE {new} || '%%' THEN {old} ELSE {new} END").format(old=old, new=new)
        return SQL("COALESCE({new}, {old})").format(old=old, new=new) if column in self.lasting else new


WORKSPACES = Merge(tables.workspaces)
REPOSITORIES = Merge(tables.repositories)
# Only a list of members makes a user active; users from other payloads are inactive.
MEMBERS = Merge(tables.users, lasting=frozenset({"nickname", "account_id"}), first_only=frozenset({"counted_as"}))
USERS = replace(MEMBERS, first_only=MEMBERS.first_only | {"active"})
PULLS = Merge(
    tables.pulls,
    dated="updated_at",
    hashes=frozenset({"source_commit_sha", "merge_commit_sha"}),
    lasting=frozenset({"merge_commit_date"}),  # missing in webhook payloads
)
PARTICIPANTS = Merge(tables.pull_participants)
ACTIVITIES = Merge(tables.pull_activities)
COMMENTS = Merge(tables.pull_comments, dated="updated_at")
PULL_COMMITS = Merge(tables.pull_commits)
BRANCH_COMMITS = Merge(tables.default_branch_commits)
PIPELINES = Merge(tables.pipelines, hashes=frozenset({"commit_sha"}))  # a run whose failed steps run again has no end
ENVIRONMENTS = Merge(tables.environments)
DEPLOYMENTS = Merge(tables.deployments, dated="updated_at", hashes=frozenset({"commit_sha"}))


def overriding(how: Merge) -> Merge:
    """The merge for `--full`: the version requested last replaces the stored one, whatever its date."""
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
    async with connection.cursor(row_factory=class_row(Counts)) as cursor:
        await cursor.execute(_statement(how, tuple(frame.columns)), {"rows": as_json(frame)})
        return await cursor.fetchone() or Counts()


def as_json(frame: "pl.DataFrame") -> str:
    """The frame's rows as JSON for `recordset`: one parameter, one round trip."""
    return frame.write_json()


@cache
def recordset(table: Table, columns: tuple[str, ...], parameter: str = "rows") -> Composed:
    """SQL of rows `incoming` that come as JSON in a parameter: something to select from."""
    types = SQL(", ").join(
        SQL("{} {}").format(Identifier(name), SQL(table.columns[name].type.compile(dialect=_DIALECT)))
        for name in columns
    )
    return SQL("json_to_recordset({rows}::json) AS incoming ({types})").format(rows=Placeholder(parameter), types=types)


@cache
def _statement(how: Merge, columns: tuple[str, ...]) -> str:
    """INSERT … ON CONFLICT DO UPDATE of the rows given, in the order of their keys (no deadlocks between merges)."""
    changing = [name for name in columns if name not in how.key and name not in how.first_only]
    settled = {name: how.settled(name) for name in changing}
    compared = [name for name in changing if name != "synced_at"]
    newest = [SQL("{} DESC NULLS LAST").format(Identifier(name)) for name in (how.dated, "synced_at") if name]
    statement = SQL("""
        WITH merged AS (
            INSERT INTO {table} AS old ({columns})
            SELECT DISTINCT ON ({key}) {columns} FROM {incoming}
            ORDER BY {key}, {newest}
            ON CONFLICT ({key}) DO UPDATE SET {changes}
            WHERE {is_not_older} AND (({stored}) IS DISTINCT FROM ({settled}) OR {stored_is_wrong})
            RETURNING (xmax = 0) AS inserted)
        SELECT count(*) FILTER (WHERE inserted) AS inserted, count(*) FILTER (WHERE NOT inserted) AS updated
        FROM merged""")
    return statement.format(
        table=Identifier(how.table.name),
        columns=_listed(map(Identifier, columns)),
        key=_listed(map(Identifier, how.key)),
        incoming=recordset(how.table, columns),
        newest=_listed(newest),
        changes=_listed(SQL("{} = {}").format(Identifier(name), value) for name, value in settled.items()),
        is_not_older=is_not_older(how, "excluded", "old"),
        stored=_listed(Identifier("old", name) for name in compared),
        settled=_listed(settled[name] for name in compared),
        stored_is_wrong=_is_wrong("old.synced_at"),
    ).as_string()


def _listed(fragments: Iterable[Composable]) -> Composed:
    return SQL(", ").join(fragments)


def is_not_older(how: Merge, new: str, old: str) -> Composed:
    """SQL over the rows with these names: whether a version may replace the stored one."""
    asked = SQL("{new} >= {old}").format(new=Identifier(new, "synced_at"), old=asked_at(old))
    if how.dated is None:
        return asked
    return SQL("""CASE WHEN {new} IS NULL OR {new_is_absurd} OR {old} IS NULL OR {old_is_absurd} OR {new} = {old}
                       THEN {asked} ELSE {new} > {old} END""").format(
        new=Identifier(new, how.dated),
        new_is_absurd=is_absurd(f"{new}.{how.dated}"),
        old=Identifier(old, how.dated),
        old_is_absurd=is_absurd(f"{old}.{how.dated}"),
        asked=asked,
    )


def asked_at(stored: str) -> Composed:
    """SQL: the time of the request that returned a stored row."""
    return SQL("CASE WHEN {moment} IS NULL OR {is_wrong} THEN '-infinity' ELSE {moment} END").format(
        moment=Identifier(stored, "synced_at"), is_wrong=_is_wrong(f"{stored}.synced_at")
    )


def is_absurd(moment: str) -> Composed:
    """SQL: whether a date of Bitbucket's cannot be right, for it precedes all history or lies in the future."""
    return SQL("(COALESCE({moment} < {earliest}, false) OR {is_in_the_future})").format(
        moment=SQL(moment), earliest=_NOTHING_IS_OLDER, is_in_the_future=lies_in_the_future(moment)
    )


def lies_in_the_future(moment: str) -> Composed:
    """SQL: whether a time is wrong because it has not come yet."""
    return _lies_ahead(moment, CLOCKS_DIFFER)


def cannot_be(moment: datetime, now: datetime) -> bool:
    """`is_absurd` for a date that is not stored yet."""
    return not _NOTHING_IS_OLDER <= moment <= now + CLOCKS_DIFFER


def _is_wrong(synced_at: str) -> Composed:
    return _lies_ahead(synced_at, _CLOCK_READINGS_DIFFER)


def _lies_ahead(moment: str, by: timedelta) -> Composed:
    return SQL("COALESCE({moment} > now() + {by}, false)").format(moment=SQL(moment), by=by)
