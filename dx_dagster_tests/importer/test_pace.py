"""A scheduled sync asks each repository at its own pace, as far as the budget reaches."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest

from dx_dagster.assets.ours import OURS
from dx_dagster.assets.steps import STEPS, key_of
from dx_dagster.sandbox import WorldConfig, truth
from dx_dagster.sandbox.config import TYPICAL_SILENCE
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported import marks
from dx_dagster.warehouse.imported.marks import Pace, PullRequestsMark
from dx_dagster_tests.comparing import differences
from dx_dagster_tests.delivering import Receiving, installed
from dx_dagster_tests.importing import KEYS
from dx_dagster_tests.ticking import hourly_sync

pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),
    pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer"),
]
REPOSITORIES = len(TYPICAL_SILENCE)
TYPICAL = WorldConfig(
    repositories=REPOSITORIES,
    pull_requests=2 * REPOSITORIES,
    members=5,
    forbidden_repositories=0,
    now=None,
    silent_days=TYPICAL_SILENCE,
)
# The members of the workspace and its repositories.
ALWAYS = 2
WORKSPACE = "00000000-0000-0000-0000-0000000000a1"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def installation(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiving]:
    """An imported workspace without a webhook."""
    with installed(database_url, TYPICAL) as made:
        monkeypatch.setenv("DX_DATABASE_URL", database_url)
        monkeypatch.setenv("DX_SECRET_KEYS", KEYS)
        monkeypatch.setenv("BITBUCKET_API_URL", made.sandbox.url)
        with psycopg.connect(database_url) as connection:
            connection.execute("DELETE FROM webhook_secrets")
            connection.execute("UPDATE connections SET last_synced_at = now()")
        yield made


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        made.add_dynamic_partitions("workspaces", ["acme"])
        yield made


@pytest.fixture
def requests_of(installation: Receiving, instance: dg.DagsterInstance) -> Callable[[dict[str, Any]], int]:
    """Runs what imports in `sync_workspace`, and counts what it asks."""
    from dx_dagster.definitions import defs  # noqa: PLC0415 - at the top it would be outside the filter for warnings

    def run(config: dict[str, Any]) -> int:
        installation.sandbox.requests.reset()
        job = defs.resolve_job_def("sync_workspace")
        imported = [OURS.key(key_of(step)) for step in STEPS]
        assert job.execute_in_process(
            instance=instance, partition_key="acme", run_config=config, asset_selection=imported
        ).success
        return installation.sandbox.requests.count

    return run


@pytest.fixture
def hourly(installation: Receiving, instance: dg.DagsterInstance) -> dict[str, Any]:
    """How the schedule runs that job, some hours from now."""
    del installation
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime.now(UTC) + 2 * HOUR)
    asked: Any = hourly_sync(context)
    (request,) = asked
    return dict(request.run_config)


def pass_time(installation: Receiving, by: timedelta) -> None:
    with psycopg.connect(installation.database_url) as connection:
        connection.execute("UPDATE sync_marks SET asked_at = asked_at - %s", [by])


def budget_of(installation: Receiving, requests: int) -> None:
    """Begins an hour with so many requests."""
    installation.sandbox.limits.hourly_limit = requests
    installation.sandbox.limits.spent.clear()
    with psycopg.connect(installation.database_url) as connection:
        connection.execute("DELETE FROM budgets")


def test_an_hourly_sync_asks_what_is_due_as_far_as_its_budget_reaches(installation, requests_of, hourly):
    world = installation.sandbox.world
    not_quiet = sum(1 for days in TYPICAL_SILENCE if days < 30)
    pass_time(installation, HOUR)
    assert requests_of(hourly) <= ALWAYS + 2 * not_quiet // 5

    # A day later everything is due, and the budget is enough for a part of it. None waits, and each gets its turn.
    world.step(10)
    world.commit_to_default_branch(world.open_repositories[-1])
    pass_time(installation, DAY)
    syncs, within = 0, 65
    overdue = (
        "SELECT FROM sync_marks WHERE kind IN ('pullrequests', 'pipelines') AND asked_at < now() - interval '1 day'"
    )
    while installation.query(overdue) and syncs < 6:
        budget_of(installation, within)
        assert requests_of(hourly) <= within
        syncs += 1
    assert 2 <= syncs < 6
    assert differences(installation.database_url, truth(world)) == {}


def test_no_change_is_seen_later_than_a_share_of_the_silence_before_it(database_url):
    """An hour, or 5 % of the time in which nothing happened before, a day at most."""
    age = "UPDATE bitbucket_repositories SET updated_at = updated_at - %s"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO bitbucket_workspaces (id, source_id, slug) VALUES (%s, '{a}', 'acme')", [WORKSPACE]
        )
        connection.execute(
            "INSERT INTO bitbucket_repositories (id, source_id, workspace_id, slug, updated_at) "
            "SELECT gen_random_uuid(), n, %s, n, now() - n::float8 * interval '1 day' FROM unnest(%s::text[]) AS n",
            [WORKSPACE, list(map(str, TYPICAL_SILENCE))],
        )
        connection.execute(
            "INSERT INTO sync_marks (repository_id, kind, asked_at) "
            "SELECT id, 'pullrequests', now() FROM bitbucket_repositories"
        )
        silences: dict[str, str] = dict(
            connection.execute("SELECT id::text, slug FROM bitbucket_repositories").fetchall()
        )
        # The schedule looks every five minutes, and a sync takes its time.
        tick = timedelta(minutes=66)
        last, asked, now = dict.fromkeys(silences, timedelta()), 0, timedelta()
        while (now := now + tick) < 2 * DAY:
            connection.execute("UPDATE sync_marks SET asked_at = asked_at - %s", [tick])
            connection.execute(age.encode(), [tick])
            found = asyncio.run(_due(database_url))
            for one in found:
                silence = float(silences[one]) * DAY + last[one]
                assert now - last[one] <= max(tick, min(silence / 20, DAY)) + timedelta(minutes=1)
                last[one] = now
            asked += len(found)
            connection.execute("UPDATE sync_marks SET asked_at = now() WHERE repository_id = ANY(%s::uuid[])", [found])
    assert min(last.values()) >= DAY - tick
    assert asked < 48 * len(silences) / 6


async def _due(database_url: str) -> list[str]:
    async with Warehouse(database_url, connections=1) as warehouse:
        return await marks.due(warehouse, WORKSPACE, PullRequestsMark, Pace())
