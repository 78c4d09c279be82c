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
        walk_begun_at: when that walk, or the last one, began; only of kinds that a continued sync need not ask again.
        bound: everything from here on is stored (`--since`); None for all.
        fallback: why the short way does not work for this repository; None where it works.
    """

    kind: ClassVar[str]

    repository_id: str
    synced_to: datetime | None = None
    walk_cursor: str | None = None
    walk_head: datetime | None = None
    walk_begun_at: datetime | None = None
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
_VOUCHES = {
    name: name for name in ("synced_to", "walk_head", "walk_begun_at", "full_head", "listed_at")
} | dict.fromkeys(("fingerprint", "version"), "synced_to")
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
class Pace:
    """Which repositories a scheduled sync asks.

    A repository is asked again after a `share` of the time in which nothing happened there, a day at most: earlier,
    where the next scheduled sync would be too late. While its webhook is believed, it is not asked.

    Attributes:
        share: of the silence of a repository.
        every: the interval of scheduled syncs.
        vouched_from: since when deliveries have told every change; None where they are not believed.
        doubted_at: what was asked before then relied on deliveries that may be lost, and is asked at once.
        least: the shortest pause.
    """

    share: float = 0.05
    every: timedelta = timedelta(hours=1)
    vouched_from: datetime | None = None
    doubted_at: datetime | None = None
    least: timedelta = timedelta()


_LONGEST_PAUSE = timedelta(days=1)
# Scheduled syncs are up to this much more than an interval apart: the schedule's next tick comes later, and the run
# takes its time.
_LATE = timedelta(minutes=10)
# So long a webhook is believed about a repository that nobody asks.
_LONGEST_BELIEF = timedelta(days=7)
# Clocks of this host and of the database differ by less.
_CLOCK_READINGS_DIFFER = timedelta(minutes=1)

_HAPPENED_AT = SQL("""
    GREATEST(r.updated_at, r.created_at, f.synced_to,
             (SELECT max(p.updated_at) FROM bitbucket_pulls p WHERE p.repository_id = r.id),
             (SELECT GREATEST(max(p.created_at), max(p.completed_at)) FROM bitbucket_pipelines p
              WHERE p.repository_id = r.id))""")

# A change is told once its delivery is applied. These are not: set aside, waiting for longer than a sync would take to
# ask, or settled although nothing could be stored.
_UNAPPLIED = SQL("""
    SELECT e.repository_source_id AS repository, max(e.received_at) AS received_at
    FROM webhook_events e JOIN bitbucket_workspaces w ON w.slug = e.workspace
    WHERE w.id = %(workspace)s AND e.received_at > now() - %(longest_belief)s::interval AND CASE
        WHEN e.set_aside_at IS NOT NULL THEN true
        WHEN e.applied_at IS NULL THEN e.received_at < now() - %(every)s::interval
        ELSE e.outcome <> 'applied' AND e.outcome NOT LIKE 'nothing depends on %%'
             AND e.outcome <> 'the status is not of Bitbucket Pipelines' END
    GROUP BY 1""")

_IS_VOUCHED = SQL("""(
    r.api_accessible AND m.asked_at >= %(vouched_from)s::timestamptz
    AND m.asked_at > now() - %(longest_belief)s::interval
    AND NOT EXISTS (SELECT FROM unapplied u WHERE (u.repository = r.source_id OR u.repository IS NULL)
                    AND u.received_at > m.asked_at - %(clocks_differ)s::interval))""")

# What must be asked in any case has a time that has passed long ago, so that it comes first.
_DUE_AT = SQL("""CASE
    WHEN m.asked_at IS NULL OR m.asked_at > now() + %(clocks_differ)s::interval OR m.walk_cursor IS NOT NULL
      OR m.bound > COALESCE((SELECT w.since FROM bitbucket_workspaces w WHERE w.id = r.workspace_id), '-infinity')
    THEN '-infinity'
    WHEN m.asked_at < %(doubted_at)s::timestamptz THEN m.asked_at
    WHEN {is_vouched} THEN 'infinity'
    WHEN r.api_accessible AND %(vouched_from)s::timestamptz IS NOT NULL THEN m.asked_at
    ELSE m.asked_at + GREATEST(interval '0', LEAST(%(longest_pause)s::interval, GREATEST(
        %(least)s::interval, %(share)s * (m.asked_at - {happened_at}))) - %(every)s::interval - %(late)s::interval)
    END""").format(is_vouched=_IS_VOUCHED, happened_at=_HAPPENED_AT)

_REPOSITORIES = SQL("""
    SELECT r.id::text AS id, r.source_id, COALESCE(NULLIF(r.slug, ''), r.source_id) AS slug, r.default_branch,
           r.updated_at, r.api_accessible AS accessible{fields}
    FROM bitbucket_repositories r {marks}
    WHERE r.workspace_id = %(workspace)s AND r.deleted_at IS NULL AND r.allowlisted
    ORDER BY r.updated_at DESC NULLS LAST, r.id""")
_DUE_REPOSITORIES = SQL("""
    WITH unapplied AS MATERIALIZED ({unapplied}),
    paced AS (
        SELECT r.id, {due_at} AS due_at
        FROM bitbucket_repositories r {marks}
        LEFT JOIN sync_marks f ON f.repository_id = r.id AND f.kind = 'activity'
        WHERE r.workspace_id = %(workspace)s AND r.deleted_at IS NULL AND r.allowlisted)
    SELECT id::text FROM paced WHERE due_at <= now() ORDER BY due_at, id""")
_MARKS = SQL("LEFT JOIN sync_marks m ON m.repository_id = r.id AND m.kind = %(kind)s")


async def repositories(warehouse: Warehouse, workspace_id: str) -> list[Repository]:
    """The workspace's repositories, last changed first, without those that are deleted or not allowed."""
    statement = _REPOSITORIES.format(fields=SQL(""), marks=SQL(""))
    return await warehouse.fetch(Repository, statement, {"workspace": workspace_id})


async def with_marks(
    warehouse: Warehouse, workspace_id: str, kind: type[AnyMark], pace: Pace | None = None
) -> list[MarkedRepository[AnyMark]]:
    """The same with their marks of one kind; with a `pace`, those that are due, the most overdue first."""
    statement = _REPOSITORIES.format(fields=_selected(kind), marks=_MARKS)
    marked = [
        MarkedRepository(
            **{one.name: getattr(row, one.name) for one in fields(Repository)},
            mark=kind(row.id, **{name: getattr(row, f"mark_{name}") for name in _changing(kind)}),
        )
        for row in await warehouse.rows(statement, {"kind": kind.kind, "workspace": workspace_id})
    ]
    if pace is None:
        return marked
    by_id = {one.id: one for one in marked}
    return [by_id[one] for one in await due(warehouse, workspace_id, kind, pace) if one in by_id]


_DUE = _DUE_REPOSITORIES.format(unapplied=_UNAPPLIED, due_at=_DUE_AT, marks=_MARKS)


async def due(warehouse: Warehouse, workspace_id: str, kind: type[Mark], pace: Pace) -> list[str]:
    """Ids of the repositories that a scheduled sync asks for one kind of thing, the most overdue first."""
    bound = {
        "kind": kind.kind,
        "workspace": workspace_id,
        "longest_pause": _LONGEST_PAUSE,
        "late": _LATE,
        "longest_belief": _LONGEST_BELIEF,
        "clocks_differ": _CLOCK_READINGS_DIFFER,
        **vars(pace),
    }
    return [row.id for row in await warehouse.rows(_DUE, bound)]


async def asked(
    warehouse: Warehouse, workspace_id: str, kind: type[Mark], since: datetime, *, refused: bool = False
) -> dict[str, datetime]:
    """When each repository was last asked to the end for one kind of thing, where that was after `since`.

    `refused`: includes repositories that cannot be read.
    """
    rows = await warehouse.rows(
        "SELECT r.id::text, m.asked_at FROM bitbucket_repositories r JOIN sync_marks m ON m.repository_id = r.id "
        "WHERE r.workspace_id = %s AND m.kind = %s AND m.asked_at >= %s AND m.asked_at <= now() "
        "AND m.walk_cursor IS NULL AND (r.api_accessible OR %s)",
        [workspace_id, kind.kind, since, refused],
    )
    return {row.id: row.asked_at for row in rows}


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


async def put(transaction: Transaction, mark: Mark, *, asked: datetime | None = None, listed: bool = False) -> None:
    """Stores the mark, in the transaction that stores what it vouches for.

    `asked`: when the requests began after which nothing is left to ask for; what changed since may be missing.
    `listed`: everything was listed that a short walk leaves out.
    """
    statement = _put(tuple(_changing(type(mark))), asked is not None, listed)
    await transaction.execute(statement, {"kind": mark.kind, "asked_at": asked, **vars(mark)})


@cache
def _put(names: tuple[str, ...], asked: bool, listed: bool) -> str:
    values: dict[str, Composable] = {_COLUMNS.get(name, name): Placeholder(name) for name in names}
    values |= ({"asked_at": Placeholder("asked_at")} if asked else {}) | ({"listed_at": SQL("now()")} if listed else {})
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
