"""Marks: how far each kind of thing is imported from each repository.

A walk is one way through a listing. Its mark holds where it goes on after a kill (`walk_cursor`) and what may be
vouched for once it ends (`walk_head`: the newest time on its first page, so that everything that changes later is newer
than it, by the server's own clock; `walk_bound`: how far back it goes).

A mark that lies in the future vouches for nothing: a commit may be dated 2116, a clock may have been wrong.
"""

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import cache
from typing import ClassVar, Generic, TypeVar

from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder

from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.merge import lies_in_the_future


@dataclass(frozen=True)
class Mark:
    """What the marks of all kinds have in common; a row of `sync_marks`.

    Attributes:
        synced_to: all changes up to here are stored; None before the first walk has ended.
        walk_cursor: where the walk under way goes on; None where none is under way.
        walk_head: what `synced_to` becomes when that walk ends.
        bound: everything from here on is stored (`--since`); None for all.
        fallback: why the short way does not work for this repository; None where it works.
    """

    kind: ClassVar[str]

    repository_id: str
    synced_to: datetime | None = None
    walk_cursor: str | None = None
    walk_head: datetime | None = None
    bound: datetime | None = None
    fallback: str | None = None


@dataclass(frozen=True)
class PullRequestsMark(Mark):
    """The list of pull requests.

    Attributes:
        walk_bound: what `bound` becomes when the walk under way ends.
        listed_at: when all open pull requests were last listed.
    """

    kind: ClassVar[str] = "pullrequests"

    walk_bound: datetime | None = None
    listed_at: datetime | None = None


@dataclass(frozen=True)
class ActivityMark(Mark):
    """The activity feed.

    Attributes:
        walk_bound: what `bound` becomes when the walk under way ends.
        full_head: `walk_head` of the last walk through the whole feed.
        since: from when on the feed tells everything: its oldest entry, or the bound of the walk.
        older: cursor of the page with the entries before the bound.
        fingerprint: the day, and the pull requests as they were listed when the feed was last read.
    """

    kind: ClassVar[str] = "activity"

    walk_bound: datetime | None = None
    full_head: datetime | None = None
    since: datetime | None = None
    older: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class CommitsMark(Mark):
    """The commits of the default branch.

    Attributes:
        head: head of the branch when the walk under way, or the last one, began.
        branch: the branch that was walked.
        version: `updated_at` and default branch of the repository when its commits were last found complete.
    """

    kind: ClassVar[str] = "commits"

    head: str | None = None
    branch: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class PipelinesMark(Mark):
    """The runs of Bitbucket Pipelines.

    Attributes:
        walk_bound: what `bound` becomes when the walk under way ends.
        listed_at: when the pipelines of the last days were last listed again.
    """

    kind: ClassVar[str] = "pipelines"

    walk_bound: datetime | None = None
    listed_at: datetime | None = None


@dataclass(frozen=True)
class DeploymentsMark(Mark):
    """The deployments and their environments.

    Attributes:
        walk_bound: what `bound` becomes when the walk under way ends.
        listed_at: when the deployments of the last days were last listed again.
        version: of the repository's pipelines when its deployments were last found complete.
    """

    kind: ClassVar[str] = "deployments"

    walk_bound: datetime | None = None
    listed_at: datetime | None = None
    version: str | None = None


# The field whose time decides whether a field is trusted: a field is read as None where that time lies in the future. A
# bound in the future, and a feed that begins in the future, say by themselves that nothing is covered.
_VOUCHES = {name: name for name in ("synced_to", "walk_head", "full_head", "listed_at")} | dict.fromkeys(
    ("fingerprint", "version"), "synced_to"
)
_COLUMNS = {"fingerprint": "checked", "version": "checked"}  # of fields that are not named as their columns

AnyMark = TypeVar("AnyMark", bound=Mark)


_RESTS = SQL("""COALESCE(NOT {asked_is_wrong} AND now() - {asked} < CASE
    WHEN {since_is_wrong} OR {age} < interval '90 minutes' THEN interval '0'
    WHEN {age} < interval '90 days' THEN {age} / 30
    ELSE LEAST({age} / 12, interval '31 days') END, false)""")


def rests(asked: str, since: str) -> Composed:
    """SQL: whether something unfinished `since` then was `asked` for too recently to be asked for again.

    The pause grows with the age: none for an hour, a day for a month, a month for a year and everything older. What was
    never asked for does not rest, nor does what is dated in the future.
    """
    return _RESTS.format(
        asked=SQL(asked),
        asked_is_wrong=lies_in_the_future(asked),
        since_is_wrong=lies_in_the_future(since),
        age=SQL("GREATEST(now() - {since}, {since} - now())").format(since=SQL(since)),
    )


@dataclass(frozen=True)
class Repository:
    """A repository that is to be imported."""

    id: str
    source_id: str
    slug: str
    default_branch: str | None
    updated_at: datetime | None
    accessible: bool


@dataclass(frozen=True)
class MarkedRepository(Repository, Generic[AnyMark]):
    """A repository with its mark of one kind."""

    mark: AnyMark = field(repr=False)


@dataclass(frozen=True)
class Quiet:
    """A repository in which nothing changed for `after` is asked again only when `every` has passed."""

    after: timedelta
    every: timedelta


_IS_DUE = SQL("""(
    m.asked_at IS NULL OR m.asked_at < now() - %(every)s OR m.walk_cursor IS NOT NULL
    OR {asked_at_is_wrong}
    OR m.bound > COALESCE((SELECT w.since FROM bitbucket_workspaces w WHERE w.id = r.workspace_id), '-infinity')
    OR GREATEST(r.updated_at, r.created_at,
                (SELECT max(p.updated_at) FROM bitbucket_pulls p WHERE p.repository_id = r.id),
                (SELECT max(p.created_at) FROM bitbucket_pipelines p WHERE p.repository_id = r.id))
       >= now() - %(after)s)""").format(asked_at_is_wrong=lies_in_the_future("m.asked_at"))

_REPOSITORIES = SQL("""
    SELECT r.id::text AS id, r.source_id, COALESCE(NULLIF(r.slug, ''), r.source_id) AS slug, r.default_branch,
           r.updated_at, r.api_accessible AS accessible{fields}
    FROM bitbucket_repositories r {marks}
    WHERE r.workspace_id = %(workspace)s AND r.deleted_at IS NULL AND r.allowlisted AND {is_due}
    ORDER BY r.updated_at DESC NULLS LAST, r.id""")
_MARKS = SQL("LEFT JOIN sync_marks m ON m.repository_id = r.id AND m.kind = %(kind)s")


async def repositories(warehouse: Warehouse, workspace_id: str) -> list[Repository]:
    """The workspace's repositories, last changed first, without those that are deleted or not allowed."""
    statement = _REPOSITORIES.format(fields=SQL(""), marks=SQL(""), is_due=SQL("true"))
    return await warehouse.fetch(Repository, statement, {"workspace": workspace_id})


async def with_marks(
    warehouse: Warehouse, workspace_id: str, kind: type[AnyMark], quiet: Quiet | None = None
) -> list[MarkedRepository[AnyMark]]:
    """The same with their marks of one kind; with `quiet`, without repositories that are quiet and not due."""
    statement = _REPOSITORIES.format(fields=_selected(kind), marks=_MARKS, is_due=_IS_DUE if quiet else SQL("true"))
    return [
        MarkedRepository(
            **{one.name: getattr(row, one.name) for one in fields(Repository)},
            mark=kind(row.id, **{name: getattr(row, f"mark_{name}") for name in _changing(kind)}),
        )
        for row in await warehouse.rows(
            statement, {"kind": kind.kind, "workspace": workspace_id, **(vars(quiet) if quiet else {})}
        )
    ]


def _changing(kind: type[Mark]) -> list[str]:
    return [one.name for one in fields(kind) if one.name != "repository_id"]


def _selected(kind: type[Mark]) -> Composed:
    return SQL("").join(
        SQL(", {value} AS {name}").format(value=_trusted(name), name=Identifier(f"mark_{name}"))
        for name in _changing(kind)
    )


def _trusted(name: str) -> Composable:
    column = Identifier("m", _COLUMNS.get(name, name))
    if name not in _VOUCHES:
        return column
    is_wrong = lies_in_the_future(f"m.{_VOUCHES[name]}")
    return SQL("CASE WHEN NOT {is_wrong} THEN {column} END").format(is_wrong=is_wrong, column=column)


_PUT = SQL("""
    INSERT INTO sync_marks ({columns}) VALUES ({values})
    ON CONFLICT (repository_id, kind) DO UPDATE SET {changes}""")


async def put(transaction: Transaction, mark: Mark, *, asked: bool = False, listed: bool = False) -> None:
    """Stores the mark, in the transaction that stores what it vouches for.

    `asked`: nothing is left to ask for at the moment. `listed`: everything was listed that a short walk leaves out.
    """
    await transaction.execute(_put(tuple(_changing(type(mark))), asked, listed), {"kind": mark.kind, **vars(mark)})


@cache
def _put(names: tuple[str, ...], asked: bool, listed: bool) -> str:
    values: dict[str, Composable] = {_COLUMNS.get(name, name): Placeholder(name) for name in names}
    values |= ({"asked_at": SQL("now()")} if asked else {}) | ({"listed_at": SQL("now()")} if listed else {})
    statement = _PUT.format(
        columns=SQL(", ").join(map(Identifier, ("repository_id", "kind", *values))),
        values=SQL(", ").join((Placeholder("repository_id"), Placeholder("kind"), *values.values())),
        changes=SQL(", ").join(SQL("{column} = EXCLUDED.{column}").format(column=Identifier(name)) for name in values),
    )
    return statement.as_string()


async def forget(warehouse: Warehouse, workspace_id: str, kind: type[Mark]) -> None:
    """Makes the next walk of every repository a full one (`--full`)."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "DELETE FROM sync_marks WHERE kind = %s AND repository_id IN "
            "(SELECT id FROM bitbucket_repositories WHERE workspace_id = %s)",
            [kind.kind, workspace_id],
        )
