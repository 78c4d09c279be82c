"""Builds of unified tables, beside the same SELECTs as plain CREATE TABLE AS in the same PostgreSQL."""

import asyncio
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection
from psycopg.sql import SQL, Identifier

from benchmarks.reporting import Table
from benchmarks.surroundings import databases
from dx_dagster.insights import building
from dx_dagster.insights.building import Build
from dx_dagster.insights.measures import BUILDS as MEASURES
from dx_dagster.insights.unified import BUILDS as ALL
from dx_dagster.warehouse import migrations
from dx_dagster.warehouse.database import Statement, Transaction, Warehouse

WORKSPACE = "00000000-0000-0000-0000-000000000001"
CHANGED = 1000
# The benchmark of measures has the others.
BUILDS = tuple(build for build in ALL if build not in MEASURES)
_REPOSITORIES = 400
_ACCOUNTS = 2000

# Ids are hashes, as the imported ones: sequential ones would lie beside each other on disk. For each pull request there
# are 3 participants, 5 commits, 4 entries of the activity, 2 comments and a pipeline.
_ROWS = {
    "bitbucket_workspaces": """
        INSERT INTO bitbucket_workspaces (id, source_id, slug) SELECT %(workspace)s, '{1}', 'acme'""",
    "bitbucket_repositories": """
        INSERT INTO bitbucket_repositories (id, source_id, workspace_id, name, slug, created_at, default_branch)
        SELECT md5('r' || n)::uuid, '{' || md5('r' || n)::uuid || '}', %(workspace)s, 'Repository ' || n, 'r-' || n,
               timestamptz '2020-01-01 00:00Z' + n * interval '1 hour', 'main'
        FROM generate_series(0, %(repositories)s - 1) n""",
    "bitbucket_users": """
        INSERT INTO bitbucket_users (id, source_id, workspace_id, name, account_id, active, bot, type)
        SELECT md5('u' || n)::uuid, '{' || md5('u' || n)::uuid || '}', %(workspace)s, 'Person ' || n, 'account ' || n,
               true, n %% 20 = 0, CASE WHEN n %% 20 = 0 THEN 'bot' ELSE 'human' END
        FROM generate_series(0, %(accounts)s - 1) n""",
    "dx_users": """
        INSERT INTO dx_users (source_id, name, tz)
        SELECT source_id, name,
               CASE WHEN name LIKE '%%7' THEN 'Europe/Berlin' WHEN name LIKE '%%3' THEN 'Asia/Kolkata' END
        FROM bitbucket_users""",
    "identities": """
        INSERT INTO identities (dx_user_id, source_id, source, reason)
        SELECT d.id, u.id, 'bitbucket', 'alone' FROM dx_users d JOIN bitbucket_users u USING (source_id)""",
    "bitbucket_pulls": """
        INSERT INTO bitbucket_pulls (
            id, source_id, repository_id, user_id, merged_by_user_id, title, state, draft, ready_for_review,
            source_branch, target_branch, source_commit_sha, merge_commit_sha, comment_count, task_count, created_at,
            updated_at, merged_at, closed_at, source_url)
        SELECT md5('p' || n)::uuid, n / %(repositories)s + 1, md5('r' || n %% %(repositories)s)::uuid,
               md5('u' || h %% %(accounts)s)::uuid,
               CASE WHEN closed AND NOT declined THEN md5('u' || (h / 7) %% %(accounts)s)::uuid END,
               CASE WHEN n %% 200 = 198
                    THEN 'Revert "Make it better ' || n - %(repositories)s * 3 || ' (pull request #'
                         || GREATEST((n / %(repositories)s) - 2, 1) || ')"'
                    WHEN n %% 3 = 0 THEN 'PAY-' || h %% 90000 + 1 || ': Make it better ' || n
                    ELSE 'Make it better ' || n END,
               CASE WHEN NOT closed THEN 'OPEN' WHEN declined THEN 'DECLINED' ELSE 'MERGED' END,
               n %% 50 = 0 AND NOT closed, CASE WHEN n %% 12 = 0 AND closed THEN at + interval '3 hours' END,
               'feature/pay-' || n, 'main', md5('s' || n) || left(md5('t' || n), 8),
               CASE WHEN closed AND NOT declined THEN md5('m' || n) || left(md5('n' || n), 8) END, 2, 0, at,
               at + interval '3 days', CASE WHEN closed AND NOT declined THEN at + interval '2 days' END,
               CASE WHEN closed THEN at + interval '2 days' END,
               'https://bitbucket.org/acme/r-' || n %% %(repositories)s || '/pull-requests/' || n / %(repositories)s + 1
        FROM (SELECT n, ('x' || left(md5('h' || n), 7))::bit(28)::int AS h, n < 0.97 * %(pulls)s AS closed,
                     n %% 10 = 9 AS declined, timestamptz '2020-01-01 00:00Z' + n * interval '3 minutes' AS at
              FROM generate_series(0, %(pulls)s - 1) n) made""",
    "bitbucket_pull_participants": """
        INSERT INTO bitbucket_pull_participants (pull_id, user_id, role, approved, state)
        SELECT md5('p' || n)::uuid, md5('u' || (n * 13 + k) %% %(accounts)s)::uuid, 'REVIEWER', k = 0, NULL
        FROM generate_series(0, %(pulls)s - 1) n, generate_series(0, 2) k""",
    "bitbucket_pull_activities": """
        INSERT INTO bitbucket_pull_activities (id, pull_id, user_id, kind, created_at, state, draft)
        SELECT md5('a' || n || '-' || k)::uuid, md5('p' || n)::uuid, md5('u' || (n * 13 + k) %% %(accounts)s)::uuid,
               (ARRAY['update', 'comment', 'approval', 'update'])[k + 1],
               timestamptz '2020-01-01 00:00Z' + n * interval '3 minutes' + k * interval '16 hours',
               CASE k WHEN 0 THEN 'OPEN' WHEN 3 THEN 'MERGED' END, CASE WHEN k IN (0, 3) THEN false END
        FROM generate_series(0, %(pulls)s - 1) n, generate_series(0, 3) k""",
    "bitbucket_pull_comments": """
        INSERT INTO bitbucket_pull_comments (id, source_id, pull_id, user_id, content, created_at, updated_at)
        SELECT md5('c' || n || '-' || k)::uuid, n * 2 + k, md5('p' || n)::uuid,
               md5('u' || (n * 13 + k) %% %(accounts)s)::uuid, 'This could be simpler, could it not? ' || n,
               timestamptz '2020-01-01 00:00Z' + n * interval '3 minutes' + (k + 1) * interval '11 hours',
               timestamptz '2020-01-01 00:00Z' + n * interval '3 minutes' + (k + 1) * interval '11 hours'
        FROM generate_series(0, %(pulls)s - 1) n, generate_series(0, 1) k""",
    "bitbucket_pull_commits": """
        INSERT INTO bitbucket_pull_commits (id, sha, author_id, pull_id, created, message, source_url)
        SELECT md5('k' || n || '-' || k)::uuid, md5('k' || n || '-' || k) || left(md5('l' || n || k), 8),
               md5('u' || (n * 7 + k) %% %(accounts)s)::uuid, md5('p' || n)::uuid,
               timestamptz '2020-01-01 00:00Z' + n * interval '3 minutes' - k * interval '1 hour',
               CASE WHEN n %% 200 = 198 AND k = 0 THEN
                    E'Revert "Make it better"\n\nThis reverts commit ' || md5('m' || n - %(repositories)s)
                    || left(md5('n' || n - %(repositories)s), 8) || E'.\n'
                    ELSE 'Make it better, step ' || k || ' of 5, as was agreed upon' || chr(10) END,
               'https://bitbucket.org/acme/r-' || n %% %(repositories)s || '/commits/' || md5('k' || n || '-' || k)
        FROM generate_series(0, %(pulls)s - 1) n, generate_series(0, 4) k""",
    "bitbucket_repository_default_branch_commits": """
        INSERT INTO bitbucket_repository_default_branch_commits (
            id, sha, author_id, repository_id, created, message, source_url, parents)
        SELECT md5('b' || n || '-' || k)::uuid,
               CASE k WHEN 0 THEN md5('m' || n) || left(md5('n' || n), 8)
                      ELSE md5('k' || n || '-' || k) || left(md5('l' || n || k), 8) END,
               md5('u' || (n * 7 + k) %% %(accounts)s)::uuid, md5('r' || n %% %(repositories)s)::uuid,
               timestamptz '2020-01-01 00:00Z' + n * interval '3 minutes' + interval '2 days', 'Merged in feature',
               NULL, ARRAY[md5('m' || n - %(repositories)s) || left(md5('n' || n - %(repositories)s), 8)]
        FROM generate_series(0, %(pulls)s - 1) n, generate_series(0, 2) k""",
    "bitbucket_pipelines": """
        INSERT INTO bitbucket_pipelines (
            id, source_id, repository_id, build_number, run_number, state, result, trigger, ref_name, commit_sha,
            pull_id, user_id, created_at, completed_at, duration)
        SELECT md5('i' || n)::uuid, '{' || md5('i' || n)::uuid || '}', md5('r' || n %% %(repositories)s)::uuid,
               n / %(repositories)s + 1, 1, 'COMPLETED', CASE WHEN n %% 9 = 0 THEN 'FAILED' ELSE 'SUCCESSFUL' END,
               'PUSH', 'feature/pay-' || n, md5('s' || n) || left(md5('t' || n), 8), md5('p' || n)::uuid,
               md5('u' || (n * 13) %% %(accounts)s)::uuid,
               timestamptz '2020-01-01 00:00Z' + n * interval '3 minutes',
               timestamptz '2020-01-01 00:00Z' + n * interval '3 minutes' + interval '10 minutes', 600
        FROM generate_series(0, %(pulls)s - 1) n""",
}
_CHANGE = """
    WITH picked AS (SELECT id FROM bitbucket_pulls ORDER BY md5(id::text) LIMIT %(changed)s),
    commented AS (
        INSERT INTO bitbucket_pull_comments (id, source_id, pull_id, user_id, content, created_at, updated_at)
        SELECT gen_random_uuid(), -1, id, md5('u7')::uuid, 'One more', now(), now() FROM picked)
    UPDATE bitbucket_pulls p SET title = title || '!', updated_at = now() FROM picked WHERE picked.id = p.id"""


@dataclass
class Timed:
    """Seconds of one build, and of the same SELECTs as CREATE TABLE AS."""

    key: str
    rows: int = 0
    full: float = 0
    plain: float = 0
    later: float = 0
    idle: float = 0


def measure(pulls: int) -> list[Table]:
    """A row for each build, and their sum."""
    with databases() as place, place.fresh() as url:
        migrations.upgrade(url)
        rows = fill(url, pulls)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        found = {build.key: Timed(build.key) for build in BUILDS}
        asyncio.run(_measure(url, found))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [_table(list(found.values()), pulls, rows, peak)]


def fill(url: str, pulls: int, repositories: int = _REPOSITORIES, *, indexes_last: bool = True) -> int:
    """Makes rows of one workspace, without statistics of them; returns their number.

    `indexes_last`: makes indexes after the rows, which is faster, and tells PostgreSQL how many there are.
    """
    bound = {"workspace": WORKSPACE, "pulls": pulls, "repositories": repositories, "accounts": _ACCOUNTS}
    rows = 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # nothing is noted as changed
        connection.execute("SET maintenance_work_mem = '512MB'")
        for table, statement in _ROWS.items():
            with _without_indexes(connection, table) if indexes_last else nullcontext():
                rows += connection.execute(statement.encode(), bound).rowcount
    return rows


@contextmanager
def _without_indexes(connection: "psycopg.Connection[tuple[str, ...]]", table: str) -> Iterator[None]:
    indexes = connection.execute(
        """SELECT i.relname, pg_get_indexdef(x.indexrelid) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
           WHERE x.indrelid = %s::regclass AND NOT x.indisprimary""",
        [table],
    ).fetchall()
    for name, _ in indexes:
        connection.execute(SQL("DROP INDEX {}").format(Identifier(name)))
    yield
    for _, definition in indexes:
        connection.execute(definition.encode())


async def _measure(url: str, found: dict[str, Timed]) -> None:
    async with await AsyncConnection.connect(url, cursor_factory=AsyncClientCursor) as connection:
        for build in BUILDS:
            await _beside_plain(connection, build, found[build.key])
            await connection.commit()
    await _checkpoint(url)
    async with Warehouse(url) as warehouse:
        async with warehouse.transaction() as transaction:
            await transaction.execute(_CHANGE, {"changed": CHANGED})
        for build in BUILDS:
            started = time.perf_counter()
            await building.run(warehouse, build, WORKSPACE)
            found[build.key].later = time.perf_counter() - started
        for build in BUILDS:
            started = time.perf_counter()
            await building.run(warehouse, build, WORKSPACE)
            found[build.key].idle = time.perf_counter() - started


class Remembering(Transaction):
    """A transaction that remembers the parameters of its statements, for statements like them."""

    def __init__(self, connection: "AsyncConnection[tuple[str, ...]]") -> None:
        super().__init__(connection, frozenset())
        self.bound: dict[str, Any] = {}

    async def execute(self, statement: Statement, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> int:
        if isinstance(parameters, Mapping):
            self.bound |= parameters
        return await super().execute(statement, parameters)


async def _beside_plain(connection: "AsyncConnection[tuple[str, ...]]", build: Build, timed: Timed) -> None:
    """Builds everything, and then makes tables of the same SELECTs, which find their rows in memory more often."""
    transaction = Remembering(connection)
    started = time.perf_counter()
    built = await building.run_in(transaction, build, WORKSPACE)
    await connection.execute("SAVEPOINT built")
    timed.full, timed.rows = time.perf_counter() - started, built.inserted
    started = time.perf_counter()
    for derivation in build.derivations:
        await connection.execute(
            SQL("CREATE TABLE plain AS {} {}").format(derivation.before, derivation.select),
            transaction.bound,
        )
        await connection.execute("DROP TABLE plain")
    timed.plain = time.perf_counter() - started


async def _checkpoint(url: str) -> None:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CHECKPOINT")


def _table(found: Sequence[Timed], pulls: int, rows: int, peak: float) -> Table:
    total = Timed(
        "all",
        *(sum(getattr(one, name) for one in found) for name in ("rows", "full", "plain", "later", "idle")),
    )
    columns = [
        "build",
        "rows",
        "everything s",
        "CREATE TABLE AS s",
        "ratio",
        f"{CHANGED:,} changed s",
        "part",
        "idle s",
    ]
    shown = [
        [
            one.key, f"{one.rows:,}", f"{one.full:.2f}", f"{one.plain:.2f}", f"{one.full / one.plain:.2f}",
            f"{one.later:.2f}", f"1/{one.full / one.later:.0f}", f"{one.idle:.2f}",
        ]
        for one in [*found, total]
    ]  # fmt: skip
    title = f"{pulls:,} pull requests, {rows:,} imported rows; highest memory of the process {peak:.0f} MiB"
    return Table(title, columns, shown)
