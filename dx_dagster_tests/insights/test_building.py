"""Builds of derived tables: each looks at what changed since the last one, and misses nothing."""

import asyncio
import time
from collections.abc import Iterable

import psycopg
import pytest

from benchmarks import unified as made_up
from dx_dagster.insights import building, changes
from dx_dagster.insights.unified import BUILDS, repos
from dx_dagster.warehouse.database import Warehouse

ACME = "00000000-0000-0000-0000-0000000000a1"
WEB = "00000000-0000-0000-0000-0000000000b1"
ANN = "00000000-0000-0000-0000-0000000000c1"
PULLS = [f"00000000-0000-0000-0000-0000000000d{number}" for number in range(1, 4)]
ROWS = f"""
    INSERT INTO bitbucket_workspaces (id, source_id, slug) VALUES ('{ACME}', '{{a1}}', 'acme');
    INSERT INTO bitbucket_repositories (id, source_id, workspace_id, slug, name)
        VALUES ('{WEB}', '{{b1}}', '{ACME}', 'web', 'Web');
    INSERT INTO bitbucket_users (id, source_id, workspace_id, name) VALUES ('{ANN}', '{{c1}}', '{ACME}', 'Ann');
    INSERT INTO bitbucket_pulls (id, source_id, repository_id, user_id, state)
        VALUES ('{PULLS[0]}', 1, '{WEB}', '{ANN}', 'OPEN'), ('{PULLS[1]}', 2, '{WEB}', NULL, 'OPEN'),
               ('{PULLS[2]}', 3, '{WEB}', NULL, 'OPEN');"""

SEEN_AGAIN = """
    SELECT asset FROM build_marks m
    WHERE EXISTS (SELECT FROM changed_rows c WHERE c.kind = 'user' AND c.changed_in >= m.built_to)"""
READING_PEOPLE = {build.key for build in BUILDS if "unified/dx_users" in build.after} | {"bitbucket/reviews"}


@pytest.fixture
def database(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(ROWS.encode())
        yield connection


@pytest.fixture
def changed(database_url):
    """The pull requests that a build finds."""

    async def find() -> list[str]:
        async with Warehouse(database_url) as warehouse, warehouse.transaction() as transaction:
            scope = await changes.begin(transaction, ACME, "pulls", "1", full=False)
            await changes.find_pulls(transaction, scope)
            await changes.finish(transaction, "pulls", "1", scope)
            return [str(row.id) for row in await transaction.rows("SELECT id FROM changed_pulls ORDER BY id")]

    return lambda: asyncio.run(find())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE bitbucket_pulls SET title = 'New' WHERE source_id = 2", PULLS[1:2]),
        (
            f"INSERT INTO bitbucket_pull_activities VALUES (gen_random_uuid(), '{PULLS[2]}', NULL, 'comment', now())",
            PULLS[2:],
        ),
        (f"UPDATE bitbucket_users SET type = 'bot' WHERE id = '{ANN}'", PULLS[:1]),
        ("UPDATE bitbucket_repositories SET deleted_at = now()", PULLS),
        ("UPDATE bitbucket_repositories SET synced_at = now()", []),
        ("DELETE FROM bitbucket_pulls WHERE source_id = 3", PULLS[2:]),
        ("UPDATE build_marks SET built_to = 1000000000000", PULLS),  # a restored database counts from the start
    ],
)
def test_a_build_finds_the_pull_requests_that_changed(database, changed, change, found):
    assert changed() == PULLS
    assert changed() == []
    database.execute(change)
    assert changed() == found
    assert changed() == []


def test_a_build_finds_what_a_transaction_wrote_that_ended_after_the_last_build_began(database, database_url, changed):
    changed()
    with psycopg.connect(database_url) as slow:
        slow.execute("UPDATE bitbucket_pulls SET title = 'New' WHERE source_id = 1")
        database.execute("UPDATE bitbucket_pulls SET title = 'New' WHERE source_id = 2")
        assert changed() == PULLS[1:2]
    assert PULLS[0] in changed()


def test_rows_keep_their_numbers(database, database_url):
    async def build() -> building.Built:
        async with Warehouse(database_url) as warehouse:
            return await building.run(warehouse, repos.BUILD, ACME)

    def stored() -> list[tuple[object, ...]]:
        return list(database.execute("SELECT id, name, deleted FROM repos").fetchall())

    assert asyncio.run(build()) == building.Built(1, 0, everything=True)
    [(number, *_)] = stored()
    database.execute("UPDATE bitbucket_repositories SET name = 'Site', deleted_at = now()")
    assert asyncio.run(build()) == building.Built(0, 1, everything=False)
    assert stored() == [(number, "Site", True)]
    assert asyncio.run(build()) == building.Built(0, 0, everything=False)


def test_reviews_that_are_built_late_reach_the_unified_table(database, database_url):
    reviews = {build.key: build for build in BUILDS}
    late = [reviews["bitbucket/reviews"], reviews["unified/pull_request_reviews"]]

    async def build(builds: Iterable[building.Build]) -> None:
        async with Warehouse(database_url) as warehouse:
            await building.bring_up_to_date(warehouse, builds, ACME)

    asyncio.run(build(BUILDS))
    database.execute(
        "INSERT INTO bitbucket_pull_activities (id, pull_id, user_id, kind, created_at) "
        f"VALUES (gen_random_uuid(), '{PULLS[1]}', '{ANN}', 'approval', now())"
    )
    asyncio.run(build(build for build in BUILDS if build not in late))
    asyncio.run(build(reversed(late)))
    asyncio.run(build(late))
    assert database.execute("SELECT count(*) FROM pull_request_reviews").fetchone() == (1,)


def test_a_first_build_needs_no_statistics_of_the_rows_imported_just_before(database_url):
    """Without them, PostgreSQL expects one row and joins by nested loops: that takes twenty times as long."""
    made_up.fill(database_url, pulls=3000, repositories=20, indexes_last=False)

    async def build() -> tuple[float, float]:
        async with Warehouse(database_url) as warehouse:
            started = time.monotonic()
            await building.bring_up_to_date(warehouse, BUILDS, made_up.WORKSPACE)
            seconds = time.monotonic() - started
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute("ANALYZE")
            started = time.monotonic()
            for one in BUILDS:
                await building.run(warehouse, one, made_up.WORKSPACE, full=True)
            with_statistics = time.monotonic() - started
            # The build of people changed accounts, which the builds after it have seen.
            async with warehouse.transaction(read_only=True) as transaction:
                seen_twice = {row.asset for row in await transaction.rows(SEEN_AGAIN)}
                assert not seen_twice & READING_PEOPLE
            return seconds, with_statistics

    first, again = asyncio.run(build())
    assert first < 7 * again


def test_every_column_of_a_derived_table_exists_and_says_where_it_comes_from():
    for build in BUILDS:
        for derivation in build.derivations:
            assert derivation.columns.keys() <= set(derivation.table.columns.keys())
            tables = build.table.metadata.tables
            for column, origins in derivation.origins.items():
                assert all(name in tables[table].columns for table, name in origins), (build.key, column)
