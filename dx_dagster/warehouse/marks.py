"""Marks: how far each kind of thing is imported from each repository.

A walk is one way through a listing. Its mark holds where it goes on after a kill (`walk_cursor`) and what may be
vouched for once it ends (`walk_head`: the newest time on its first page, so that everything that changes later is newer
than it, by the server's own clock).
"""

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from dx_dagster.warehouse.database import Transaction, Warehouse


@dataclass(frozen=True)
class Mark:
    """A row of `sync_marks`; the columns' comments say what each field means."""

    repository_id: str
    kind: str
    synced_to: datetime | None = None
    walk_cursor: str | None = None
    walk_head: datetime | None = None
    full_head: datetime | None = None
    since: datetime | None = None
    head: str | None = None
    branch: str | None = None
    checked: str | None = None
    fallback: str | None = None


_COLUMNS = [column.name for column in fields(Mark)]
_CHANGING = _COLUMNS[2:]


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


_IS_DUE = """(
    m.asked_at IS NULL OR m.asked_at < now() - %(every)s OR m.walk_cursor IS NOT NULL
    OR GREATEST(r.updated_at, r.created_at,
                (SELECT max(p.updated_at) FROM bitbucket_pulls p WHERE p.repository_id = r.id),
                (SELECT max(p.created_at) FROM bitbucket_pipelines p WHERE p.repository_id = r.id))
       >= now() - %(after)s)"""


async def repositories(
    warehouse: Warehouse, workspace_id: str, kind: str, quiet: Quiet | None = None
) -> list[Repository]:
    """The workspace's repositories, last changed first; without those deleted, not allowed, or quiet and not due."""
    due = _IS_DUE if quiet else "true"
    marks = ", ".join(f"m.{name}" for name in _CHANGING)
    rows = await warehouse.rows(
        f"""SELECT r.id::text AS id, r.source_id, r.slug, r.default_branch, r.updated_at, r.api_accessible, {marks}
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


async def put(transaction: Transaction, mark: Mark, *, asked: bool = False) -> None:
    """Stores the mark, in the transaction that stores what it vouches for; `asked` says that nothing is left to ask."""
    names, values = ", ".join(_COLUMNS), ", ".join(f"%({name})s" for name in _COLUMNS)
    changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in _CHANGING)
    if asked:
        names, values, changes = f"{names}, asked_at", f"{values}, now()", f"{changes}, asked_at = now()"
    await transaction.execute(
        f"INSERT INTO sync_marks ({names}) VALUES ({values}) "  # noqa: S608 - names of our own columns
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
