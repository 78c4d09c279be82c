"""`weekly_measures`: figures of each week of each workspace, repository and team.

A row counts in the week of its end: a pull request in that of its merge, but its lead time in that of its first
deployment to production. Figures of bots are shown beside those of people. What is deleted in Bitbucket still counts.

A team has the pull requests of its members and of the teams below it, their reviews and their runs of pipelines, and
the deployments that brought one of its pull requests, over all workspaces.

A build looks at the weeks that changed: triggers note the days of what counts in a week (`changed_rows`). What happened
to a deployment within seven days counts in its week, so the days before a changed day are looked at too.

Each source is read and sorted once for all figures over it. Of one sort, PostgreSQL gets all percentiles of a duration.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Identifier

from dx_dagster.insights.building import FOR_EVERYTHING, Build
from dx_dagster.insights.business_hours import BusinessTime
from dx_dagster.insights.changes import Scope
from dx_dagster.insights.derivation import Derivation, derive
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import measures
from dx_dagster.warehouse.schema.measures import BUSINESS_HOURS, DURATIONS, PERCENTILES

_SHARES = ", ".join(map(str, PERCENTILES.values()))
_MERGED = [name for name in DURATIONS if name != "lead_time"]

# Sorts of rows and of states: each is freed before the next.
_MEMORY = "SET LOCAL work_mem = '256MB'"
_ALL_CHANGED = """
    SELECT FROM changed_rows
    WHERE changed_in >= %(since)s AND id = %(workspace)s
      AND kind IN ('pull_request_measures', 'pull_request_reviews', 'pipeline_runs', 'deployments')"""
# All weeks of which a part lies between seven days before the changed day and its end.
_CHANGED = r"""
    SELECT DISTINCT monday::date AS week, monday AT TIME ZONE %(zone)s AS begins,
           (monday + interval '7 days') AT TIME ZONE %(zone)s AS ends
    FROM changed_rows c,
    LATERAL (SELECT right(c.kind, 10)::timestamp AT TIME ZONE 'UTC' AS day) noted,
    LATERAL generate_series(
        date_trunc('week', (noted.day - interval '7 days') AT TIME ZONE %(zone)s),
        (noted.day + interval '24 hours') AT TIME ZONE %(zone)s, interval '7 days') monday
    WHERE c.changed_in >= %(since)s AND c.kind ~ ' \d{4}-\d\d-\d\d$' AND c.id = %(workspace)s
      AND noted.day BETWEEN '1969-12-01' AND '2971-01-01'
    ORDER BY week"""
_POSSIBLE = SQL("t.{at} >= '1970-01-05' AND t.{at} < '2970-01-01'")
_MOST_RANGES = 100  # more than that are found by reading everything
# Another build waits here until this one has ended. So whichever writes last has read what the other one had.
_LOCK_TEAMS = "SELECT pg_advisory_xact_lock(hashtextextended('teams of measures/weeks', 0))"
_MEMBERS = """
    CREATE TEMPORARY TABLE team_members ON COMMIT DROP AS
    SELECT u.id AS dx_user_id, h.ancestor_id AS team_id
    FROM dx_users u JOIN dx_team_hierarchies h ON h.descendant_id = u.team_id"""
_REPOSITORIES = """
    CREATE TEMPORARY TABLE workspace_repos ON COMMIT DROP AS
    SELECT o.id AS repo_id FROM repos o JOIN bitbucket_repositories r ON r.id = o.source_table_id
    WHERE r.workspace_id = %(workspace)s"""
# Which account counts for which team, and which team for which.
_TEAMS = """
    SELECT COALESCE(sum(hashtextextended(said, 0)), 0) AS hash FROM (
        SELECT i.source_id || ' ' || u.team_id AS said FROM identities i JOIN dx_users u ON u.id = i.dx_user_id
        WHERE u.team_id IS NOT NULL
        UNION ALL SELECT ancestor_id || '/' || descendant_id FROM dx_team_hierarchies) teams"""


async def _teams(transaction: Transaction) -> str:
    return f"teams {(await transaction.row(_TEAMS)).hash}"


class _Sources:
    """The rows of the weeks to build, as SQL to select from: each with `week` and columns of its table `t`.

    Where there are teams, they are those of all workspaces.

    `weeks`: the weeks with their bounds, in order; None for all. They stand in the statements as constants: of a join
    with their bounds, PostgreSQL expects so many rows that it reads whole tables.
    """

    def __init__(self, zone: str, weeks: Sequence[Any] | None, *, with_teams: bool) -> None:
        self._zone, self._weeks, self._with_teams = zone, weeks, with_teams

    def dated(
        self, table: str, moment: str, columns: str, where: str = "true", *, repository: str = "repo_id"
    ) -> Composed:
        """Rows that count in the week of a moment."""
        return SQL("""
            (SELECT date_trunc('week', t.{at} AT TIME ZONE {zone})::date AS week, {columns}
             FROM {table} t WHERE {in_weeks} AND {ours} AND {where})""").format(
            at=Identifier(moment),
            zone=self._zone,
            columns=SQL(columns),
            table=Identifier(table),
            in_weeks=self._between(moment),
            ours=self._ours(repository),
            where=SQL(where),
        )

    def merged(self, columns: str) -> Composed:
        """Merged pull requests."""
        in_weeks: Composable = _POSSIBLE.format(at=Identifier("week"))
        if self._weeks is not None:
            in_weeks = SQL("{} AND t.week = ANY({})").format(in_weeks, [one.week for one in self._weeks])
        return SQL("(SELECT t.week, {columns} FROM pull_request_measures t WHERE {in_weeks} AND {ours})").format(
            columns=SQL(columns), in_weeks=in_weeks, ours=self._ours("repo_id")
        )

    def _between(self, moment: str) -> Composable:
        at = Identifier(moment)
        if self._weeks is None:
            return _POSSIBLE.format(at=at)
        ranges = (
            SQL("(t.{at} >= {begins} AND t.{at} < {ends})").format(at=at, begins=begins, ends=ends)
            for begins, ends in _joined(self._weeks)
        )
        return SQL("{} AND ({})").format(_POSSIBLE.format(at=at), SQL(" OR ").join(ranges))

    def _ours(self, repository: str) -> Composable:
        if self._with_teams:
            return SQL("true")
        return SQL("t.{} IN (SELECT repo_id FROM workspace_repos)").format(Identifier(repository))


def _joined(weeks: Sequence[Any]) -> list[tuple[datetime, datetime]]:
    """Beginning and end of each unbroken series of weeks."""
    ranges: list[tuple[datetime, datetime]] = []
    for one in weeks:
        if ranges and ranges[-1][1] == one.begins:
            ranges[-1] = (ranges[-1][0], one.ends)
        else:
            ranges.append((one.begins, one.ends))
    return ranges


def _of_all_scopes(rows: Composable, figures: str) -> Composed:
    """SELECT of the figures over `rows` of each week of the workspace, its repositories, and all teams."""
    return SQL("""
        SELECT CASE WHEN GROUPING(rows.repo_id) = 0 THEN 'repository' ELSE 'workspace' END AS scope,
               rows.repo_id AS number, rows.week, {figures}
        FROM {rows} rows JOIN workspace_repos USING (repo_id)
        GROUP BY GROUPING SETS ((rows.week, rows.repo_id), (rows.week))
        UNION ALL
        SELECT 'team', m.team_id, rows.week, {figures}
        FROM {rows} rows JOIN team_members m USING (dx_user_id)
        GROUP BY rows.week, m.team_id""").format(rows=rows, figures=SQL(figures))


def _percentiles(column: str, where: str = "true") -> str:
    return (
        f"percentile_cont(ARRAY[{_SHARES}]::float8[]) WITHIN GROUP (ORDER BY rows.{column}) FILTER (WHERE {where}) "
        f"AS {column}"
    )


def _both(name: str, where: str = "true") -> str:
    hours = f"{name}{BUSINESS_HOURS}"
    return (
        f"count(rows.{name}) FILTER (WHERE {where}) AS {name}_count, {_percentiles(name, where)}, "
        f"{_percentiles(hours, where)}"
    )


_BY_PEOPLE = "NOT rows.bot_authored"
_PULL_FIGURES = f"""
    count(*) FILTER (WHERE {_BY_PEOPLE}) AS merged,
    count(DISTINCT rows.dx_user_id) FILTER (WHERE {_BY_PEOPLE}) AS engineers,
    count(*) FILTER (WHERE rows.bot_authored) AS by_bots,
    count(*) FILTER (WHERE {_BY_PEOPLE} AND rows.merged_without_review) AS without_review,
    count(*) FILTER (WHERE {_BY_PEOPLE} AND rows.re_reviewed) AS re_reviewed,
    count(*) FILTER (WHERE {_BY_PEOPLE} AND rows.reverted) AS reverted,
    count(*) FILTER (WHERE {_BY_PEOPLE} AND rows.ai_named) AS ai_named,
    count(*) FILTER (WHERE rows.ai_account) AS ai_account,
    {", ".join(_both(name, _BY_PEOPLE) for name in _MERGED)}"""
_PULL_COLUMNS = ", ".join(
    f"t.{name}"
    for name in (
        *("repo_id", "dx_user_id", "bot_authored", "merged_without_review", "re_reviewed", "reverted", "ai_named"),
        *("ai_account", *_MERGED, *(f"{name}{BUSINESS_HOURS}" for name in _MERGED)),
    )
)
_LEAD_COLUMNS = f"t.repo_id, t.dx_user_id, t.lead_time, t.lead_time{BUSINESS_HOURS}"
_PIPELINE_FIGURES = f"""
    count(*) AS ended, count(*) FILTER (WHERE rows.status = 'failure') AS failed,
    count(rows.duration) AS durations, {_percentiles("duration")}"""


def _tables(sources: _Sources) -> Iterator[tuple[str, Composable]]:
    """Temporary tables of figures by scope, number (of the repository or team) and week."""
    yield "weekly_pulls", _of_all_scopes(sources.merged(_PULL_COLUMNS), _PULL_FIGURES)
    led = sources.dated("pull_request_measures", "deployed_at", _LEAD_COLUMNS, "NOT t.bot_authored")
    yield "weekly_leads", _of_all_scopes(led, _both("lead_time"))
    # The reviews of a person in a repository and week, and 0 for those whose pull requests were merged there.
    of_reviews = "t.repo_id, t.dx_user_id, t.bot_authored"
    reviews = sources.dated("pull_request_reviews", "created", of_reviews, "NOT t.by_author")
    authors = sources.merged("t.repo_id, t.dx_user_id, t.bot_authored")
    yield (
        "weekly_loads",
        SQL("""
            SELECT week, repo_id, dx_user_id, bot_authored, sum(n) AS n FROM (
                SELECT rows.*, 1 AS n FROM {reviews} rows
                UNION ALL SELECT rows.*, 0 FROM {authors} rows WHERE NOT rows.bot_authored) each
            GROUP BY week, repo_id, dx_user_id, bot_authored""").format(reviews=reviews, authors=authors),
    )
    yield "weekly_reviews", _REVIEWS
    runs = sources.dated(
        "pipeline_runs",
        "finished_at",
        "t.repo_id, t.dx_user_id, t.status, t.duration",
        "t.status IN ('success', 'failure')",
    )
    yield "weekly_pipelines", _of_all_scopes(runs, _PIPELINE_FIGURES)
    deployed = sources.dated(
        "deployments",
        "deployed_at",
        "t.id, t.service_id AS repo_id, t.success, t.deployed_at, t.rolled_back_at",
        "t.environment = 'production'",
        repository="service_id",
    )
    yield "weekly_deployed", SQL("SELECT rows.* FROM {} rows").format(deployed)
    yield "weekly_brought", _BROUGHT
    yield "weekly_failed", _FAILED
    yield "weekly_deployments", _DEPLOYMENTS


# People without a row of their own (an account that is gone) count as no person: nothing tells two of them apart.
# For the Gini coefficient, people with the same number of reviews stand one after another, behind the `before` others
# that have fewer: this gives the sum of their places. So numbers are sorted, and not people.
_REVIEWS = SQL("""
    WITH of_people AS MATERIALIZED (
        SELECT l.week, l.dx_user_id, l.bot_authored, r.repo_id IS NOT NULL AS is_ours, sum(l.n)::bigint AS n
        FROM weekly_loads l LEFT JOIN workspace_repos r USING (repo_id)
        GROUP BY l.week, l.dx_user_id, l.bot_authored, r.repo_id IS NOT NULL),
    loads AS (
        SELECT 'repository' AS scope, l.repo_id AS number, l.week, l.dx_user_id, l.bot_authored, l.n
        FROM weekly_loads l JOIN workspace_repos USING (repo_id)
        UNION ALL
        SELECT 'workspace', NULL, week, dx_user_id, bot_authored, n FROM of_people WHERE is_ours
        UNION ALL
        SELECT 'team', m.team_id, o.week, o.dx_user_id, o.bot_authored, sum(o.n)::bigint
        FROM of_people o JOIN team_members m USING (dx_user_id)
        GROUP BY m.team_id, o.week, o.dx_user_id, o.bot_authored),
    alike AS (
        SELECT scope, number, week, bot_authored, n,
               count(*) AS rows, count(*) FILTER (WHERE NOT bot_authored AND dx_user_id IS NOT NULL) AS people
        FROM loads GROUP BY scope, number, week, bot_authored, n),
    placed AS (
        SELECT *, sum(people) OVER (PARTITION BY scope, number, week ORDER BY n, bot_authored) - people AS before
        FROM alike),
    summed AS (
        SELECT scope, number, week, sum(people) AS people, sum(people) FILTER (WHERE n > 0) AS reviewers,
               sum(rows * n) FILTER (WHERE NOT bot_authored) AS reviews,
               sum(rows * n) FILTER (WHERE bot_authored) AS by_bots,
               sum(people * n) AS load, sum((people * before + people * (people + 1) / 2) * n) AS weighted
        FROM placed GROUP BY scope, number, week)
    SELECT scope, number, week, COALESCE(reviews, 0)::int AS reviews, COALESCE(by_bots, 0)::int AS by_bots,
           COALESCE(reviewers, 0)::int AS reviewers, people::int AS people,
           CASE WHEN load > 0
                THEN 2 * weighted::float8 / (people * load)::float8 - (people + 1)::float8 / people::float8 END AS gini
    FROM summed""")
# Looked up by the key (LATERAL and OFFSET): of this table PostgreSQL may have no statistics yet.
_BROUGHT = SQL("""
    SELECT d.id, d.week, d.success, d.deployed_at, a.pull_request_id
    FROM weekly_deployed d, LATERAL (
        SELECT pull_request_id FROM deployment_pull_requests WHERE deployment_id = d.id OFFSET 0) a""")
_FAILED = SQL("""
    SELECT id FROM weekly_deployed WHERE success AND rolled_back_at <= deployed_at + interval '7 days'
    UNION SELECT d.id
    FROM weekly_brought d JOIN pull_request_measures m USING (pull_request_id)
    WHERE d.success AND m.reverted_at BETWEEN d.deployed_at AND d.deployed_at + interval '7 days'""")
_DEPLOYMENT_FIGURES = """
    count(*) FILTER (WHERE rows.success) AS deployed, count(*) FILTER (WHERE NOT rows.success) AS failed,
    count(f.id) AS failed_later"""
_DEPLOYMENTS = SQL("""
    SELECT CASE WHEN GROUPING(rows.repo_id) = 0 THEN 'repository' ELSE 'workspace' END AS scope,
           rows.repo_id AS number, rows.week, {figures}
    FROM weekly_deployed rows JOIN workspace_repos USING (repo_id) LEFT JOIN weekly_failed f USING (id)
    GROUP BY GROUPING SETS ((rows.week, rows.repo_id), (rows.week))
    UNION ALL
    SELECT 'team', rows.team_id, rows.week, {figures}
    FROM (SELECT DISTINCT d.id, d.week, d.success, m.team_id
          FROM weekly_brought d JOIN pull_request_measures p USING (pull_request_id)
          JOIN team_members m ON m.dx_user_id = p.dx_user_id) rows
    LEFT JOIN weekly_failed f USING (id)
    GROUP BY rows.team_id, rows.week""").format(figures=SQL(_DEPLOYMENT_FIGURES))

_KEYED = ("weekly_pulls", "weekly_leads", "weekly_reviews", "weekly_pipelines", "weekly_deployments")
_ROWS = SQL("FROM ({keys}) k {joins}").format(
    keys=SQL(" UNION ").join(SQL("SELECT scope, number, week FROM {}").format(Identifier(table)) for table in _KEYED),
    joins=SQL(" ").join(
        SQL(
            "LEFT JOIN {table} {alias} ON {alias}.scope = k.scope AND {alias}.week = k.week "
            "AND COALESCE({alias}.number, 0) = COALESCE(k.number, 0)"
        ).format(table=Identifier(table), alias=Identifier(alias))
        for table, alias in zip(_KEYED, "plrgd", strict=True)
    ),
)


def _count(column: str) -> str:
    return f"COALESCE({column}, 0)"


def _share(part: str, whole: str) -> str:
    return f"{part}::float8 / NULLIF({whole}, 0)"


def _spread(column: str, values: str) -> dict[str, str]:
    return {f"{column}_{percentile}": f"{values}[{place}]" for place, percentile in enumerate(PERCENTILES, 1)}


def _durations(alias: str, name: str) -> dict[str, str]:
    hours = f"{name}{BUSINESS_HOURS}"
    return {
        f"{name}_count": _count(f"{alias}.{name}_count"),
        **_spread(name, f"{alias}.{name}"),
        **_spread(hours, f"{alias}.{hours}"),
    }


_COLUMNS: Mapping[str, str] = {
    "scope": "k.scope",
    "scope_id": "CASE WHEN k.scope = 'workspace' THEN %(workspace)s::uuid::text ELSE k.number::text END",
    "week": "k.week",
    "workspace_id": "CASE WHEN k.scope <> 'team' THEN %(workspace)s::uuid END",
    "repo_id": "CASE WHEN k.scope = 'repository' THEN k.number END",
    "team_id": "CASE WHEN k.scope = 'team' THEN k.number END",
    "merged_count": _count("p.merged"),
    "engineer_count": _count("p.engineers"),
    "throughput_per_engineer": _share("p.merged", "p.engineers"),
    "bot_merged_count": _count("p.by_bots"),
    "bot_merged_share": _share("p.by_bots", "p.merged + p.by_bots"),
    **{column: sql for name in _MERGED for column, sql in _durations("p", name).items()},
    **_durations("l", "lead_time"),
    "merged_without_review_count": _count("p.without_review"),
    "merged_without_review_share": _share("p.without_review", "p.merged"),
    "re_reviewed_count": _count("p.re_reviewed"),
    "reverted_count": _count("p.reverted"),
    "ai_named_count": _count("p.ai_named"),
    "ai_account_count": _count("p.ai_account"),
    "review_count": _count("r.reviews"),
    "reviewer_count": _count("r.reviewers"),
    "review_load_count": _count("r.people"),
    "review_load_gini": "r.gini",
    "bot_review_count": _count("r.by_bots"),
    "bot_review_share": _share("r.by_bots", "r.reviews + r.by_bots"),
    "pipeline_count": _count("g.ended"),
    "pipeline_failure_count": _count("g.failed"),
    "pipeline_failure_rate": _share("g.failed", "g.ended"),
    "pipeline_duration_count": _count("g.durations"),
    **_spread("pipeline_duration", "g.duration"),
    "deployment_count": _count("d.deployed"),
    "failed_deployment_count": _count("d.failed"),
    "change_failure_count": _count("d.failed_later"),
    "change_failure_rate": _share("d.failed_later", "d.deployed"),
}
_ORIGINS: dict[str, dict[str, tuple[str, ...]]] = {
    "k": {
        "scope": (),
        "number": ("pull_request_measures.repo_id", "dx_team_hierarchies.ancestor_id"),
        "week": (
            *("pull_request_measures.week", "pull_request_measures.deployed_at", "pull_request_reviews.created"),
            *("pipeline_runs.finished_at", "deployments.deployed_at"),
        ),
    },
    "p": {
        "merged": ("pull_request_measures.merged",),
        "engineers": ("pull_request_measures.dx_user_id",),
        "by_bots": ("pull_request_measures.bot_authored",),
        "without_review": ("pull_request_measures.merged_without_review",),
        **{name: (f"pull_request_measures.{name}",) for name in ("re_reviewed", "reverted", "ai_named", "ai_account")},
    },
    "l": {},
    "r": {
        "reviews": ("pull_request_reviews.id",),
        "by_bots": ("pull_request_reviews.bot_authored",),
        "reviewers": ("pull_request_reviews.dx_user_id",),
        **dict.fromkeys(("people", "gini"), ("pull_request_reviews.dx_user_id", "pull_request_measures.dx_user_id")),
    },
    "g": {
        "ended": ("pipeline_runs.status",),
        "failed": ("pipeline_runs.status",),
        **dict.fromkeys(("duration", "durations"), ("pipeline_runs.duration",)),
    },
    "d": {
        "deployed": ("deployments.success",),
        "failed": ("deployments.success",),
        "failed_later": ("deployments.rolled_back_at", "pull_request_measures.reverted_at"),
    },
}
for _name in DURATIONS:
    for _column in (_name, f"{_name}_count", f"{_name}{BUSINESS_HOURS}"):
        _ORIGINS["l" if _name == "lead_time" else "p"][_column] = (
            f"pull_request_measures.{_column.removesuffix('_count')}",
        )

WEEKS = Derivation(measures.weekly_measures, _COLUMNS, _ROWS, _ORIGINS, key=("scope", "scope_id", "week"))
_OF_ALL_WEEKS = SQL("(old.workspace_id = %(workspace)s::uuid OR old.scope = 'team')")
_OF_CHANGED_WEEKS = SQL("{} AND old.week = ANY(%(weeks)s::date[])").format(_OF_ALL_WEEKS)


async def _changed_weeks(transaction: Transaction, scope: Scope, bound: Mapping[str, object]) -> list[Any] | None:
    """The weeks to build, with their bounds; None for all."""
    if scope.everything or await transaction.row(_ALL_CHANGED, bound) is not None:
        return None
    weeks = await transaction.rows(_CHANGED, bound)
    return weeks if len(_joined(weeks)) <= _MOST_RANGES else None


async def _build(transaction: Transaction, scope: Scope) -> None:
    zone = BusinessTime.parse(scope.settings).zone
    bound: dict[str, object] = {**scope.bound, "zone": zone}
    weeks = await _changed_weeks(transaction, scope, bound)
    if weeks == []:
        return
    if weeks is None:
        await transaction.execute(FOR_EVERYTHING)
    await transaction.execute(_MEMORY)
    await transaction.execute(_LOCK_TEAMS)
    members = await transaction.execute(_MEMBERS)
    await transaction.execute(_REPOSITORIES, bound)
    await transaction.execute("ANALYZE team_members, workspace_repos")
    for table, query in _tables(_Sources(zone, weeks, with_teams=members > 0)):
        name = Identifier(table)
        await transaction.execute(SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS {}").format(name, query))
        columns = SQL("(scope, number, week)" if table in _KEYED else "")
        await transaction.execute(SQL("ANALYZE {} {}").format(name, columns))
    bound["weeks"] = [one.week for one in weeks or ()]
    await derive(transaction, WEEKS, bound, within=_OF_ALL_WEEKS if weeks is None else _OF_CHANGED_WEEKS)


# Of the last week that has ended: a plot over time shows no week that is half over.
_LAST_WEEK = """
    SELECT merged_count AS merged_last_week,
           round((cycle_time_median / 3600)::numeric, 2)::float8 AS cycle_time_median_hours,
           round((pickup_time_median / 3600)::numeric, 2)::float8 AS pickup_time_median_hours,
           round((lead_time_median / 3600)::numeric, 2)::float8 AS lead_time_median_hours,
           deployment_count AS deployments_last_week, change_failure_rate, pipeline_failure_rate
    FROM weekly_measures
    WHERE scope = 'workspace' AND scope_id = %(workspace)s::text
      AND week = date_trunc('week', now() AT TIME ZONE %(zone)s - interval '7 days')::date"""

BUILD = Build(
    "measures/weeks",
    measures.weekly_measures,
    after=(
        "measures/pull_requests",
        "unified/repos",
        "unified/pull_request_reviews",
        "unified/pipeline_runs",
        "unified/deployments",
        "unified/identities",
        "unified/dx_users",
        "unified/dx_team_hierarchies",
    ),
    derivations=(WEEKS,),
    work=_build,
    noted=(
        "measures/pull_requests",
        "unified/repos",
        "unified/pull_request_reviews",
        "unified/pipeline_runs",
        "unified/deployments",
        "unified/dx_team_hierarchies",
    ),
    state=_teams,
    figures=_LAST_WEEK,
)
