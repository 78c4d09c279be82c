"""Runs that change after they have ended, and runs that never end."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.world import World
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported.pipelines import due
from dx_dagster_tests.delivering import installed
from dx_dagster_tests.importing import Installation

THREE_DAYS_AGO = datetime.now(UTC) - timedelta(days=3)
TINY = WorldConfig(seed=9, repositories=3, pull_requests=12, members=5, now=THREE_DAYS_AGO)
PAUSED = 2000


def add_a_page(world: World, repository: HostedRepository) -> None:
    """Newer runs, so many that what was there before lies on the second page."""
    for _ in range(120):
        world.finish_pipeline(world.add_pipeline(repository), "SUCCESSFUL")


def asked(sandbox: Sandbox) -> list[str]:
    """Requests for pipelines."""
    return [one.path for one in sandbox.requests if "/pipelines" in one.path]


def test_paused_runs_cost_one_request_a_sync_and_the_failure_rate_counts_them_as_good(database_url):
    with Sandbox(TINY) as sandbox:
        world = sandbox.world
        repository = next(one for one in world.open_repositories if one.has_pipelines)
        for _ in range(PAUSED):
            world.pause_pipeline(world.add_pipeline(repository))
        installation = Installation(database_url, sandbox)
        installation.sync()
        assert installation.differences() == {}
        sandbox.requests.reset()
        installation.sync()
        assert len([path for path in asked(sandbox) if repository.uuid[1:-1] in path]) == 1
        [told] = installation.query("SELECT count(*) AS runs FROM bitbucket_pipelines WHERE stage = 'PAUSED'")
        assert told["runs"] >= PAUSED


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("age", "rested", "is_due"),
    [
        (timedelta(hours=1), timedelta(seconds=1), True),
        (timedelta(days=30), timedelta(hours=20), False),
        (timedelta(days=30), timedelta(hours=25), True),
        (timedelta(days=365), timedelta(days=28), False),
        (timedelta(days=365), timedelta(days=32), True),
        (timedelta(days=700_000), timedelta(days=32), True),
        (timedelta(days=-200_000), timedelta(seconds=1), True),
    ],
)
async def test_a_run_that_does_not_end_is_asked_with_pauses_that_grow_with_its_age(database_url, age, rested, is_due):
    now = datetime.now(UTC)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO bitbucket_pipelines (id, source_id, repository_id, state, created_at, asked_at) "
            "VALUES (gen_random_uuid(), '{1}', '00000000-0000-0000-0000-000000000001', 'IN_PROGRESS', %s, %s)",
            [now - age, now - rested],
        )
    async with Warehouse(database_url) as warehouse:
        found = await due(warehouse, "00000000-0000-0000-0000-000000000001")
    assert [one.source_id for one in found] == (["{1}"] if is_due else [])


def test_failed_steps_that_run_again_are_told_by_a_delivery_and_found_by_the_reconcile(database_url):
    with installed(database_url, TINY) as installation:
        world = installation.sandbox.world
        repository = next(one for one in world.open_repositories if one.has_pipelines)
        watcher = Watcher(world)
        told, found = (world.add_pipeline(repository) for _ in range(2))
        for run in (told, found):
            world.finish_pipeline(run, "FAILED")
        add_a_page(world, repository)
        watcher.deliveries()
        installation.sync()
        assert installation.differences() == {}

        world.rerun_failed_steps(told, "SUCCESSFUL")
        installation.deliver(*watcher.deliveries())
        installation.sandbox.requests.reset()
        installation.refresh()
        assert len(asked(installation.sandbox)) == 1
        assert installation.differences() == {}

        world.rerun_failed_steps(found, "SUCCESSFUL")
        installation.sync()
        assert "bitbucket_pipelines" in installation.differences()
        installation.sync(reconcile=timedelta(days=14))
        assert installation.differences() == {}


def test_a_failed_run_that_has_grown_old_is_listed_for_a_last_time(database_url):
    with Sandbox(TINY) as sandbox:
        world = sandbox.world
        repository = next(one for one in world.open_repositories if one.has_pipelines)
        old = world.add_pipeline(repository)
        world.finish_pipeline(old, "FAILED")
        add_a_page(world, repository)
        installation = Installation(database_url, sandbox)
        installation.sync()
        with psycopg.connect(database_url) as connection:  # when it was two days old
            connection.execute("UPDATE sync_marks SET listed_at = now() - interval '1 day' WHERE kind = 'pipelines'")
        world.rerun_failed_steps(old, "SUCCESSFUL")
        pages = []
        for _ in range(2):
            sandbox.requests.reset()
            installation.sync(reconcile=timedelta(days=2, hours=12))
            pages.append(len([path for path in asked(sandbox) if repository.uuid[1:-1] in path]))
            assert installation.differences() == {}
        assert pages == [2, 1]


def test_an_api_that_wants_a_slash_after_pipelines_is_imported_too(database_url):
    with Sandbox(TINY) as sandbox:
        sandbox.faults.pipelines_with_slash_only = True
        installation = Installation(database_url, sandbox)
        installation.sync()
        assert installation.differences() == {}
        sandbox.world.add_pipeline(sandbox.world.open_repositories[0])
        installation.sync()
        assert installation.differences() == {}


@pytest.mark.parametrize("status", [403, 404])
def test_refused_lists_are_reported_where_something_is_stored_and_there_alone(database_url, status):
    with Sandbox(TINY) as sandbox:
        installation = Installation(database_url, sandbox)
        installation.sync()
        sandbox.faults.on("/(pipelines|deployments)", status)
        skipped = {one for one in installation.sync(reconcile=timedelta(days=7)).skipped if one.step != "pullrequests"}
        for step in ("pipelines", "deployments"):
            stored = installation.query(
                "SELECT slug FROM bitbucket_repositories "
                f"WHERE api_accessible AND id IN (SELECT repository_id FROM bitbucket_{step})"
            )
            assert stored
            assert {one.repository for one in skipped if one.step == step} == {one["slug"] for one in stored}
            assert all(str(status) in one.reason for one in skipped)
        sandbox.faults.clear()
        installation.sync()
        assert installation.differences() == {}
