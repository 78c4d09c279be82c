"""Reads measures for the pages of insights: of one workspace, repository or team, and of some weeks."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from psycopg.sql import SQL, Composed, Identifier

from dx_dagster.insights.figures import Measure
from dx_dagster.warehouse.database import Transaction

_WEEK = timedelta(days=7)
_PARTS = 5


class UnknownScopeError(Exception):
    """There are no figures of what was asked for; the message says of what, for a person."""


@dataclass(frozen=True)
class Weeks:
    """Weeks by their Mondays, both included."""

    first: date
    last: date

    @property
    def number(self) -> int:
        return (self.last - self.first) // _WEEK + 1

    @property
    def end(self) -> date:
        """The Monday after the last week."""
        return self.last + _WEEK

    @property
    def last_day(self) -> date:
        """The Sunday of the last week."""
        return self.end - timedelta(days=1)

    @property
    def before(self) -> "Weeks":
        """As many weeks before these."""
        return Weeks(self.first - self.number * _WEEK, self.first - _WEEK)

    @classmethod
    def until(cls, last: date, number: int) -> "Weeks":
        return cls(last - (number - 1) * _WEEK, last)


def monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


@dataclass(frozen=True)
class MeasuredScope:
    """What figures are of: the key of `weekly_measures`, and its name for people."""

    scope: str
    scope_id: str
    name: str


@dataclass(frozen=True)
class Choices:
    """What figures can be of. Repositories are those of one workspace.

    Attributes:
        this_week: the Monday of the current week.
    """

    workspaces: tuple[str, ...]
    repositories: tuple[str, ...]
    teams: tuple[str, ...]
    this_week: date


@dataclass(frozen=True)
class Median:
    """The median of some rows, and their number."""

    seconds: float | None
    rows: int


@dataclass(frozen=True)
class Totals:
    """Figures of all rows of some weeks together.

    Attributes:
        weeks: their number, without those before the first one with figures.
    """

    weeks: int
    deployments: int
    change_failures: int
    merged: int
    bots_merged: int
    reviews: int
    bot_reviews: int
    lead_time: Median
    cycle_time: Median


@dataclass(frozen=True)
class Fifth:
    """A fifth of the people of a scope, by the number of their reviews: the first has the most.

    Attributes:
        share: of all their reviews, from 0 to 1; None where there is no review.
    """

    fifth: int
    people: int
    reviews: int
    share: float | None


# The workspace with the most pull requests comes first: a person who names none sees that one.
_WORKSPACES = """
    SELECT w.slug FROM bitbucket_workspaces w
    LEFT JOIN (SELECT scope_id, sum(merged_count) AS merged FROM weekly_measures WHERE scope = 'workspace'
               GROUP BY scope_id) m ON m.scope_id = w.id::text
    ORDER BY m.merged DESC NULLS LAST, w.slug"""
_REPOSITORIES = """
    SELECT DISTINCT r.slug FROM repos o JOIN bitbucket_repositories r ON r.id = o.source_table_id
    JOIN bitbucket_workspaces w ON w.id = r.workspace_id
    WHERE w.slug = %(workspace)s AND r.slug IS NOT NULL ORDER BY r.slug"""
_TEAMS = "SELECT source_id FROM dx_teams WHERE deleted_at IS NULL ORDER BY source_id"
_THIS_WEEK = "SELECT date_trunc('week', now() AT TIME ZONE %(zone)s)::date AS week"

_WORKSPACE = "SELECT id::text FROM bitbucket_workspaces WHERE slug = %(workspace)s"
# Of two repositories with one slug, the other one is deleted.
_REPOSITORY = """
    SELECT o.id::text FROM repos o JOIN bitbucket_repositories r ON r.id = o.source_table_id
    JOIN bitbucket_workspaces w ON w.id = r.workspace_id
    WHERE w.slug = %(workspace)s AND r.slug = %(repository)s
    ORDER BY r.deleted_at IS NOT NULL, o.id LIMIT 1"""
_TEAM = """
    SELECT id::text FROM dx_teams WHERE source_id = %(team)s
    ORDER BY deleted_at IS NOT NULL LIMIT 1"""


async def choices(transaction: Transaction, workspace: str, zone: str) -> Choices:
    """What figures can be of, with the repositories of the workspace, by default of the first."""
    workspaces = tuple(row.slug for row in await transaction.rows(_WORKSPACES))
    chosen = workspace or next(iter(workspaces), "")
    return Choices(
        workspaces,
        tuple(row.slug for row in await transaction.rows(_REPOSITORIES, {"workspace": chosen})),
        tuple(row.source_id for row in await transaction.rows(_TEAMS)),
        await this_week(transaction, zone),
    )


async def this_week(transaction: Transaction, zone: str) -> date:
    """The Monday of the current week."""
    monday: date = (await transaction.row(_THIS_WEEK, {"zone": zone})).week
    return monday


async def find(transaction: Transaction, *, workspace: str, repository: str, team: str) -> MeasuredScope:
    """The team, else the repository of the workspace, else the workspace.

    Raises:
        UnknownScopeError: there is none.
    """
    if team:
        scope, query, name, unknown = "team", _TEAM, team, f"There is no team {team}."
    elif repository:
        name, unknown = f"{workspace}/{repository}", f"Workspace {workspace} has no repository {repository}."
        scope, query = "repository", _REPOSITORY
    else:
        scope, query, name, unknown = "workspace", _WORKSPACE, workspace, f"There is no workspace {workspace}."
    row = await transaction.row(query, {"workspace": workspace, "repository": repository, "team": team})
    if row is None:
        raise UnknownScopeError(unknown)
    return MeasuredScope(scope, row.id, name)


async def weekly(
    transaction: Transaction, of: MeasuredScope, weeks: Weeks, measures: Iterable[Measure]
) -> list[dict[str, Any]]:
    """A row for each week, the newest first: `week`, and each measure by its column.

    Weeks before the first one with figures are left out. A later week without a row had nothing to count.
    """
    columns = {measure.column: measure for measure in measures}
    statement = SQL("""
        SELECT monday::date AS week, {columns}
        FROM generate_series(
            greatest(%(first)s, (SELECT min(week) FROM weekly_measures WHERE {of}))::timestamp, %(last)s::timestamp,
            interval '7 days') monday
        LEFT JOIN weekly_measures m ON {of} AND m.week = monday::date
        WHERE EXISTS (SELECT FROM weekly_measures WHERE {of})
        ORDER BY monday DESC""").format(
        columns=SQL(", ").join(_selected(measure) for measure in columns.values()),
        of=SQL("scope = %(scope)s AND scope_id = %(scope_id)s"),
    )
    bound = {"scope": of.scope, "scope_id": of.scope_id, "first": weeks.first, "last": weeks.last}
    return [row._asdict() for row in await transaction.rows(statement, bound)]


def _selected(measure: Measure) -> Composed:
    value = SQL(measure.sql) if measure.sql else SQL("m.{}").format(Identifier(measure.column))
    if measure.unit == "number":
        value = SQL("COALESCE({}, 0)").format(value)
    return SQL("{} AS {}").format(value, Identifier(measure.column))


_SUMS = """
    SELECT count(*)::int AS rows, COALESCE(sum(deployment_count), 0)::int AS deployments,
           COALESCE(sum(change_failure_count), 0)::int AS change_failures,
           COALESCE(sum(merged_count), 0)::int AS merged, COALESCE(sum(bot_merged_count), 0)::int AS bots_merged,
           COALESCE(sum(review_count), 0)::int AS reviews, COALESCE(sum(bot_review_count), 0)::int AS bot_reviews,
           (%(last)s::date - GREATEST(%(first)s::date, (
                SELECT min(week) FROM weekly_measures WHERE scope = %(scope)s AND scope_id = %(scope_id)s
           ))) / 7 + 1 AS weeks
    FROM weekly_measures
    WHERE scope = %(scope)s AND scope_id = %(scope_id)s AND week BETWEEN %(first)s AND %(last)s"""
_OF_SCOPE = {
    "workspace": """t.repo_id IN (SELECT o.id FROM repos o JOIN bitbucket_repositories r ON r.id = o.source_table_id
                                  WHERE r.workspace_id = %(scope_id)s::uuid)""",
    "repository": "t.repo_id = %(scope_id)s::bigint",
    "team": """t.dx_user_id IN (SELECT u.id FROM dx_users u JOIN dx_team_hierarchies h ON h.descendant_id = u.team_id
                                WHERE h.ancestor_id = %(scope_id)s::bigint)""",
}
_MERGED_THEN = "t.week BETWEEN %(first)s AND %(last)s"
_DEPLOYED_THEN = """t.deployed_at >= %(first)s::timestamp AT TIME ZONE %(zone)s
                    AND t.deployed_at < %(end)s::timestamp AT TIME ZONE %(zone)s"""
# The median of weekly medians is no median: those of several weeks are of the pull requests.
_MEDIAN = SQL("""
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t.{column}) AS seconds, count(t.{column})::int AS rows
    FROM pull_request_measures t WHERE NOT t.bot_authored AND {then} AND {of}""")


async def totals(
    transaction: Transaction, of: MeasuredScope, weeks: Weeks, zone: str, *, suffix: str = "", medians: bool = True
) -> Totals | None:
    """Figures of the weeks together, or None where there is none.

    `suffix` chooses durations in business hours. Medians read all pull requests, so they are left out on request.
    """
    bound = _bound(of, weeks, zone)
    sums = await transaction.row(_SUMS, bound)
    if not sums.rows:
        return None

    async def median(column: str, then: str) -> Median:
        if not medians:
            return Median(None, 0)
        statement = _MEDIAN.format(column=Identifier(column + suffix), then=SQL(then), of=SQL(_OF_SCOPE[of.scope]))
        row = await transaction.row(statement, bound)
        return Median(row.seconds, row.rows)

    return Totals(
        sums.weeks,
        sums.deployments,
        sums.change_failures,
        sums.merged,
        sums.bots_merged,
        sums.reviews,
        sums.bot_reviews,
        await median("lead_time", _DEPLOYED_THEN),
        await median("cycle_time", _MERGED_THEN),
    )


_REVIEWED_THEN = """t.created >= %(first)s::timestamp AT TIME ZONE %(zone)s
                    AND t.created < %(end)s::timestamp AT TIME ZONE %(zone)s"""
# The same people as those of `review_load_gini`.
_FIFTHS = SQL("""
    WITH loads AS (
        SELECT dx_user_id, sum(n)::int AS n FROM (
            SELECT t.dx_user_id, 1 AS n FROM pull_request_reviews t
            WHERE NOT t.bot_authored AND NOT t.by_author AND {reviewed} AND {of}
            UNION ALL
            SELECT t.dx_user_id, 0 FROM pull_request_measures t WHERE NOT t.bot_authored AND {merged} AND {of}) each
        WHERE dx_user_id IS NOT NULL GROUP BY dx_user_id)
    SELECT fifth, count(*)::int AS people, sum(n)::int AS reviews,
           sum(n)::float8 / NULLIF(sum(sum(n)) OVER (), 0)::float8 AS share
    FROM (SELECT n, ntile(5) OVER (ORDER BY n DESC) AS fifth FROM loads) placed GROUP BY fifth ORDER BY fifth""")


async def fifths(transaction: Transaction, of: MeasuredScope, weeks: Weeks, zone: str) -> list[Fifth]:
    """How many reviews each fifth of the people gave; nothing where a fifth is a single person."""
    statement = _FIFTHS.format(reviewed=SQL(_REVIEWED_THEN), merged=SQL(_MERGED_THEN), of=SQL(_OF_SCOPE[of.scope]))
    found = await transaction.fetch(Fifth, statement, _bound(of, weeks, zone))
    return found if found and min(one.people for one in found) > 1 and len(found) == _PARTS else []


def _bound(of: MeasuredScope, weeks: Weeks, zone: str) -> dict[str, Any]:
    return {
        "scope": of.scope,
        "scope_id": of.scope_id,
        "first": weeks.first,
        "last": weeks.last,
        "end": weeks.end,
        "zone": zone,
    }
