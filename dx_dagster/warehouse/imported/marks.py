"""Marks: how far each kind of thing is imported from each repository.

A walk is one way through a listing. Its mark holds where it goes on after a kill (`walk_cursor`) and what may be
vouched for once it ends (`walk_head`: the newest time on its first page, so that everything that changes later is newer
than it, by the server's own clock; `walk_bound`: how far back it goes).

A mark that lies in the future vouches for nothing: a commit may be dated 2116, a clock may have been wrong.
"""

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.merge import lies_in_the_future


@dataclass(frozen=True)
class Mark:
    """A row of `sync_marks`; the columns' comments say what each field means."""

    repository_id: str
    kind: str
    synced_to: datetime | None = None
    walk_cursor: str | None = None
    walk_head: datetime | None = None
    full_head: datetime | None = None
    bound: datetime | None = None
    walk_bound: datetime | None = None
    since: datetime | None = None
    older: str | None = None
    head: str | None = None
    branch: str | None = None
    checked: str | None = None
    fallback: str | None = None
    listed_at: datetime | None = None


_COLUMNS = [column.name for column in fields(Mark)]
_CHANGING = _COLUMNS[2:]


def rests(asked: str, since: str) -> str:
    """Whether what has not ended `since` then was `asked` too short a while ago to be asked again, in SQL.

    The pause grows with the age: none for an hour, a day for a month, a month for a year and all that is older. What
    was never asked does not rest, nor does what is dated in the future.
    """
    age = f"GREATEST(now() - {since}, {since} - now())"
    pause = f"""CASE WHEN {lies_in_the_future(since)} OR {age} < interval '90 minutes' THEN interval '0'
                     WHEN {age} < interval '90 days' THEN {age} / 30
                     ELSE LEAST({age} / 12, interval '31 days') END"""
    return f"COALESCE(NOT {lies_in_the_future(asked)} AND now() - {asked} < {pause}, false)"


# A bound in the future, and a feed that tells only from then on, say by themselves that nothing is covered.
_VOUCHES = {name: name for name in ("synced_to", "walk_head", "full_head", "listed_at")} | {"checked": "synced_to"}
"""What a column vouches for is worth as much as this column's time."""

_SELECTED = ", ".join(
    f"CASE WHEN NOT {lies_in_the_future(f'm.{_VOUCHES[name]}')} THEN m.{name} END AS {name}"
    if name in _VOUCHES
    else f"m.{name}"
    for name in _CHANGING
)


@dataclass(frozen=True)
class Repository:
    """A repository that is to be imported, with its mark for one kind of thing."""

    id: str
    source_id: str
    slug: str
    default_branch: str | None
    updated_at: datetime | None
    accessible: bool
    mark: Mark = field(repr=False)


@dataclass(frozen=True)
class Quiet:
    """Repositories in which nothing happened for `after` are asked again only when `every` has passed."""

    after: timedelta
    every: timedelta


_IS_DUE = f"""(
    m.asked_at IS NULL OR m.asked_at < now() - %(every)s OR m.walk_cursor IS NOT NULL
    OR {lies_in_the_future("m.asked_at")}
    OR m.bound > COALESCE((SELECT w.since FROM bitbucket_workspaces w WHERE w.id = r.workspace_id), '-infinity')
    OR GREATEST(r.updated_at, r.created_at,
                (SELECT max(p.updated_at) FROM bitbucket_pulls p WHERE p.repository_id = r.id),
                (SELECT max(p.created_at) FROM bitbucket_pipelines p WHERE p.repository_id = r.id))
       >= now() - %(after)s)"""  # noqa: S608 - an expression of ours


async def repositories(
    warehouse: Warehouse, workspace_id: str, kind: str, quiet: Quiet | None = None
) -> list[Repository]:
    """The workspace's repositories, last changed first; without those deleted, not allowed, or quiet and not due."""
    due = _IS_DUE if quiet else "true"
    rows = await warehouse.rows(
        f"""SELECT r.id::text AS id, r.source_id, r.slug, r.default_branch, r.updated_at, r.api_accessible, {_SELECTED}
            FROM bitbucket_repositories r
            LEFT JOIN sync_marks m ON m.repository_id = r.id AND m.kind = %(kind)s
            WHERE r.workspace_id = %(workspace)s AND r.deleted_at IS NULL AND r.allowlisted AND {due}
            ORDER BY r.updated_at DESC NULLS LAST, r.id""",  # noqa: S608 - names of our own columns
        {"kind": kind, "workspace": workspace_id, **(vars(quiet) if quiet else {})},
    )
    return [_repository(row, kind) for row in rows]


def _repository(row: Any, kind: str) -> Repository:
    mark = Mark(row.id, kind, **{name: getattr(row, name) for name in _CHANGING})
    return Repository(
        row.id, row.source_id, row.slug or row.source_id, row.default_branch, row.updated_at, row.api_accessible, mark
    )


async def put(transaction: Transaction, mark: Mark, *, asked: bool = False, listed: bool = False) -> None:
    """Stores the mark, in the transaction that stores what it vouches for.

    `asked` says that nothing is left to ask, `listed` that all was listed which a short walk leaves out.
    """
    values = {name: f"%({name})s" for name in _COLUMNS}
    values |= ({"asked_at": "now()"} if asked else {}) | ({"listed_at": "now()"} if listed else {})
    changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in values if name not in _COLUMNS[:2])
    await transaction.execute(
        f"INSERT INTO sync_marks ({', '.join(values)}) VALUES ({', '.join(values.values())}) "  # noqa: S608 - our own
        f"ON CONFLICT (repository_id, kind) DO UPDATE SET {changes}",
        {name: getattr(mark, name) for name in _COLUMNS},
    )


async def forget(warehouse: Warehouse, workspace_id: str, kind: str) -> None:
    """Makes the next walk of every repository a full one (`--full`)."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "DELETE FROM sync_marks WHERE kind = %s AND repository_id IN "
            "(SELECT id FROM bitbucket_repositories WHERE workspace_id = %s)",
            [kind, workspace_id],
        )
