"""A scheduled sync asks repositories in which nothing happens less often; a person's sync asks all."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from dx_dagster.automation.schedules import hourly_sync
from dx_dagster.sandbox import truth
from dx_dagster_tests.comparing import differences
from dx_dagster_tests.delivering import SMALL, Receiving, installed
from dx_dagster_tests.importing import KEYS

pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),
    pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer"),
]
# The members of the workspace and its repositories.
ALWAYS = 2


@pytest.fixture
def installation(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiving]:
    """An imported workspace whose clock is ours; what is older than some seconds counts as quiet."""
    with installed(database_url, replace(SMALL, now=None)) as made:
        monkeypatch.setenv("DX_DATABASE_URL", database_url)
        monkeypatch.setenv("DX_SECRET_KEYS", KEYS)
        monkeypatch.setenv("BITBUCKET_API_URL", made.sandbox.url)
        monkeypatch.setenv("DX_QUIET_AFTER_DAYS", "0.00001")
        yield made


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        made.add_dynamic_partitions("workspaces", ["acme"])
        yield made


@pytest.fixture
def requests_of(installation: Receiving, instance: dg.DagsterInstance) -> Callable[[dict[str, Any]], int]:
    """Runs `sync_workspace` and counts what it asks."""
    from dx_dagster.definitions import defs  # noqa: PLC0415 - at the top it would be outside the filter for warnings

    def run(config: dict[str, Any]) -> int:
        installation.sandbox.requests.reset()
        job = defs.resolve_job_def("sync_workspace")
        assert job.execute_in_process(instance=instance, partition_key="acme", run_config=config).success
        return installation.sandbox.requests.count

    return run


@pytest.fixture
def hourly(installation: Receiving, instance: dg.DagsterInstance) -> dict[str, Any]:
    """How the schedule runs that job, an hour from now."""
    del installation
    later = datetime.now(UTC) + timedelta(hours=2)
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=later)
    asked: Any = hourly_sync(context)
    (request,) = asked
    return dict(request.run_config)


def test_only_what_moved_is_asked_until_a_day_has_passed(installation, requests_of, hourly, monkeypatch):
    assert requests_of(hourly) == ALWAYS
    assert requests_of({}) > ALWAYS + len(installation.sandbox.world.open_repositories)

    pull = next(one for one in installation.sandbox.world.pull_requests if one.state == "OPEN")
    installation.sandbox.world.approve(pull)
    assert requests_of(hourly) == ALWAYS

    monkeypatch.setenv("DX_QUIET_SYNC_EVERY", "0.001")
    assert requests_of(hourly) > ALWAYS
    assert differences(installation.database_url, truth(installation.sandbox.world)) == {}


def test_a_push_wakes_a_quiet_repository(installation, requests_of, hourly):
    world = installation.sandbox.world
    world.commit_to_default_branch(world.open_repositories[0])
    # Its pull requests and their feed, its pipelines, its branch.
    assert ALWAYS < requests_of(hourly) <= ALWAYS + 4
    assert differences(installation.database_url, truth(world)) == {}
