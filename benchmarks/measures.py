"""Builds of measures, beside the queries of dashboards that work out each chart for each group by itself."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection

from benchmarks.reporting import Table
from benchmarks.surroundings import databases
from benchmarks.unified import WORKSPACE, fill
from dx_dagster.insights import building
from dx_dagster.insights.measures import BUILDS as MEASURES
from dx_dagster.insights.unified import BUILDS
from dx_dagster.warehouse import migrations
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.schema.measures import BUSINESS_HOURS, DURATIONS, PERCENTILES

CHANGED = 1000
# People and teams are made up as rows: no evidence leads to them.
_BUILDS = tuple(build for build in BUILDS if build.derivations)

# Durations that differ, and a tenth of the repositories with deployments to production, two for every twenty merges.
_MORE = """
    UPDATE bitbucket_pulls p SET
        merged_at = CASE WHEN merged_at IS NOT NULL THEN created_at + h % 400000 * interval '1 second' END,
        closed_at = CASE WHEN closed_at IS NOT NULL THEN created_at + h % 400000 * interval '1 second' END,
        first_commit_at = created_at - h / 7 % 300000 * interval '1 second', open_to_first_review = 60
    FROM (SELECT id, ('x' || left(md5('d' || id), 7))::bit(28)::int AS h FROM bitbucket_pulls) hashed
    WHERE hashed.id = p.id;
    UPDATE bitbucket_pull_activities
    SET created_at = created_at - ('x' || left(md5('e' || id), 7))::bit(28)::int % 50000 * interval '1 second'
    WHERE kind <> 'update';
    INSERT INTO bitbucket_environments (id, source_id, repository_id, name, type)
        SELECT md5('e' || id)::uuid, id::text, id, 'Production', 'Production' FROM bitbucket_repositories;
    INSERT INTO bitbucket_deployments (
        id, source_id, repository_id, environment_id, commit_sha, state, status, started_at, completed_at, updated_at)
    SELECT md5('d' || p.id)::uuid, p.id::text, p.repository_id, md5('e' || p.repository_id)::uuid, p.merge_commit_sha,
           'COMPLETED', CASE WHEN p.source_id % 7 = 0 THEN 'FAILED' ELSE 'SUCCESSFUL' END,
           p.merged_at + interval '1 hour', p.merged_at + interval '2 hours', p.merged_at + interval '2 hours'
    FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id
    WHERE p.state = 'MERGED' AND p.source_id % 20 < 2 AND r.slug LIKE '%0';"""
# Twenty teams of a hundred people, five of them below each of four others.
_TEAMS = """
    INSERT INTO dx_teams (id, source_id, name, parent_id)
        SELECT n, n::text, n::text, CASE WHEN n > 4 THEN n % 4 + 1 END FROM generate_series(1, 24) n;
    INSERT INTO dx_team_hierarchies (ancestor_id, descendant_id, generations)
        SELECT id, id, 0 FROM dx_teams UNION ALL SELECT parent_id, id, 1 FROM dx_teams WHERE parent_id IS NOT NULL;
    UPDATE dx_users SET team_id = 5 + id % 20 WHERE type IS DISTINCT FROM 'bot';"""
# The pull requests that were merged last.
_CHANGE = """
    UPDATE bitbucket_pulls p
    SET merged_at = merged_at + interval '1 minute', closed_at = closed_at + interval '1 minute'
    FROM (SELECT id FROM bitbucket_pulls WHERE state = 'MERGED' ORDER BY merged_at DESC LIMIT %(changed)s) picked
    WHERE picked.id = p.id"""


@dataclass(frozen=True)
class _Source:
    """Rows that a chart counts, and the moment that says in which week."""

    table: str
    moment: str
    where: str


_MERGED = _Source("pull_request_measures", "merged", "NOT t.bot_authored")
_ALL_MERGED = _Source("pull_request_measures", "merged", "true")
_LED = _Source("pull_request_measures", "deployed_at", "NOT t.bot_authored")
_REVIEWS = _Source("pull_request_reviews", "created", "NOT t.bot_authored")
_RUNS = _Source("pipeline_runs", "finished_at", "t.status IN ('success', 'failure')")


def _charts() -> Iterator[tuple[_Source, str]]:
    """The source and the figures of each chart."""
    for name in DURATIONS:
        for column in (name, f"{name}{BUSINESS_HOURS}"):
            yield _LED if name == "lead_time" else _MERGED, _percentiles(column)
    yield _MERGED, "count(*) AS rows, count(DISTINCT t.dx_user_id)"
    yield _ALL_MERGED, "count(*) AS rows, count(*) FILTER (WHERE t.bot_authored)"
    for flag in ("merged_without_review", "re_reviewed", "reverted", "ai_named", "ai_account"):
        yield _ALL_MERGED, f"count(*) AS rows, count(*) FILTER (WHERE t.{flag})"
    yield _REVIEWS, "count(*) AS rows, count(DISTINCT t.dx_user_id)"
    yield _RUNS, _percentiles("duration")
    yield _RUNS, "count(*) AS rows, count(*) FILTER (WHERE t.status = 'failure')"


def _percentiles(column: str) -> str:
    each = (
        f"percentile_cont({share}) WITHIN GROUP (ORDER BY t.{column}) AS {name}" for name, share in PERCENTILES.items()
    )
    return f"count(t.{column}), {', '.join(each)}"


_BY_TEAM = "JOIN dx_users u ON u.id = t.dx_user_id JOIN dx_team_hierarchies h ON h.descendant_id = u.team_id"
_LOADS = """
    SELECT {key} AS key, date_trunc('week', t.created AT TIME ZONE 'UTC')::date AS week, t.dx_user_id, count(*) AS n
    FROM pull_request_reviews t {joins} WHERE NOT t.bot_authored GROUP BY 1, 2, 3"""
_GINI = """
    SELECT key, week, 2 * sum(place * n)::float8 / (count(*) * sum(n)) - (count(*) + 1)::float8 / count(*) AS gini
    FROM (SELECT *, row_number() OVER (PARTITION BY key, week ORDER BY n) AS place FROM ({loads}) loads) ranked
    GROUP BY key, week"""
_FAILED = """
    SELECT {key} AS key, date_trunc('week', d.deployed_at AT TIME ZONE 'UTC')::date AS week,
           count(DISTINCT d.id) AS rows, count(DISTINCT d.id) FILTER (
               WHERE d.rolled_back_at <= d.deployed_at + interval '7 days'
               OR t.reverted_at BETWEEN d.deployed_at AND d.deployed_at + interval '7 days') AS failed
    FROM deployments d LEFT JOIN deployment_pull_requests a ON a.deployment_id = d.id
    LEFT JOIN pull_request_measures t ON t.pull_request_id = a.pull_request_id {joins}
    WHERE d.success AND d.environment = 'production' GROUP BY 1, 2"""


_CHART = """
    SELECT {key} AS key, date_trunc('week', t.{moment} AT TIME ZONE 'UTC')::date AS week, {figures}
    FROM {table} t {joins} WHERE t.{moment} IS NOT NULL AND {where} GROUP BY 1, 2"""


def _queries() -> Iterator[str]:
    """A query for each chart and each kind of group: the workspace, repositories, teams."""
    for joins, key in (("", "1"), ("", "t.repo_id"), (_BY_TEAM, "h.ancestor_id")):
        for source, figures in _charts():
            yield _CHART.format(
                key=key, moment=source.moment, figures=figures, table=source.table, joins=joins, where=source.where
            )
        yield _GINI.format(loads=_LOADS.format(key=key, joins=joins))
        yield _FAILED.format(key="d.service_id" if key == "t.repo_id" else key, joins=joins)


def measure(pulls: int) -> list[Table]:
    """Seconds of both ways, from nothing and after changes."""
    with databases() as place, place.fresh() as url:
        migrations.upgrade(url)
        rows = fill(url, pulls)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(_MORE.encode())
            connection.execute("VACUUM ANALYZE")
        return asyncio.run(_measure(url, pulls, rows))


async def _measure(url: str, pulls: int, rows: int) -> list[Table]:
    full: dict[str, float] = {}
    later: dict[str, float] = {}
    idle: dict[str, float] = {}
    async with Warehouse(url) as warehouse:
        await _execute(url, _TEAMS)
        for found in (full, later, idle):
            if found is later:
                async with warehouse.transaction() as transaction:
                    await transaction.execute(_CHANGE, {"changed": CHANGED})
            for build in _BUILDS:
                if build in MEASURES:
                    await _execute(url, "CHECKPOINT")
                started = time.perf_counter()
                await building.run(warehouse, build, WORKSPACE)
                found[build.key] = time.perf_counter() - started
        weeks = await warehouse.row("SELECT count(*) AS n, count(DISTINCT week) AS weeks FROM weekly_measures")
    charts = list(_queries())
    await _execute(url, "CHECKPOINT")
    plain = await _plainly(url, charts)
    again = await _again(url)
    columns = ["build", "from nothing s", f"{CHANGED:,} changed s", "part", "idle s"]
    shown = [
        [
            build.key, f"{full[build.key]:.2f}", f"{later[build.key]:.2f}",
            f"1/{full[build.key] / later[build.key]:.0f}", f"{idle[build.key]:.3f}",
        ]
        for build in MEASURES
    ]  # fmt: skip
    title = f"{pulls:,} pull requests, {rows:,} imported rows, {weeks.n:,} rows of {weeks.weeks} weeks"
    beside = Table(
        "The figures of `weekly_measures`, from the same rows",
        ["way", "seconds", "ratio"],
        [
            ["measures/weeks from nothing", f"{full['measures/weeks']:.2f}", "1"],
            ["measures/weeks once more, in full", f"{again:.2f}", f"{again / full['measures/weeks']:.2f}"],
            [f"{len(charts)} queries with percentile_cont", f"{plain:.2f}", f"{plain / full['measures/weeks']:.2f}"],
        ],
    )
    return [Table(title, columns, shown), beside]


async def _plainly(url: str, charts: list[str]) -> float:
    """Seconds of all queries, each into a table, with the memory that builds have."""
    async with await AsyncConnection.connect(url, autocommit=True, cursor_factory=AsyncClientCursor) as connection:
        await connection.execute("SET work_mem = '256MB'")
        await connection.execute("SET jit = off")
        started = time.perf_counter()
        for chart in charts:
            await connection.execute(f"CREATE TEMPORARY TABLE plain AS {chart}".encode())
            await connection.execute("DROP TABLE plain")
        return time.perf_counter() - started


async def _again(url: str) -> float:
    async with Warehouse(url) as warehouse:
        started = time.perf_counter()
        await building.run(warehouse, MEASURES[-1], WORKSPACE, full=True)
        return time.perf_counter() - started


async def _execute(url: str, statements: str) -> None:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statements.encode())
