"""Deployments: where they are asked for, how deep, and what an answer that says nothing changes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.sandbox.pipelines import Pipeline
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.world import World
from dx_dagster_tests.delivering import installed
from dx_dagster_tests.importing import Installation

THREE_DAYS_AGO = datetime.now(UTC) - timedelta(days=3)
TINY = WorldConfig(seed=9, repositories=3, pull_requests=12, members=5, now=THREE_DAYS_AGO)
LISTS = ("/environments", "/deployments")


def asked(sandbox: Sandbox, repository: HostedRepository | None = None) -> list[str]:
    """Requests for environments and deployments, by the part of the path behind the repository."""
    found = [one.path.partition("?")[0] for one in sandbox.requests if any(name in one.path for name in LISTS)]
    return [path.split("%7D", 1)[1] for path in found if repository is None or repository.uuid[1:-1] in path]


def deploying(world: World, repository: HostedRepository) -> Pipeline:
    """A new run that deploys: some do not."""
    while True:
        run = world.add_pipeline(repository)
        if run.rollout is not None:
            return run


def add_pages(world: World, repository: HostedRepository, deployments: int = 210) -> None:
    """Newer deployments, so many that what was there before lies on the third page."""
    until = len(repository.deployments) + deployments
    while len(repository.deployments) < until:
        world.finish_pipeline(deploying(world, repository), "SUCCESSFUL")


def test_deployments_cost_two_requests_where_a_pipeline_ended_and_one_elsewhere_once(database_url, new_database):
    with Sandbox(replace(TINY, repositories=5)) as sandbox:
        world = sandbox.world
        repository, other = [one for one in world.open_repositories if one.has_pipelines]
        [empty] = [one for one in world.repositories if one not in world.open_repositories and not one.forbidden]
        other.pipelines.clear()
        other.deployments.clear()
        without = Installation(new_database(), sandbox)
        without.settings = without.settings.model_copy(update={"deployments": "off"})
        off = without.sync()
        assert asked(sandbox) == []
        assert any("DX_DEPLOYMENTS is off" in note for note in off.notes)

        installation = Installation(database_url, sandbox)
        assert installation.sync().requests == off.requests + 4
        assert asked(sandbox, repository) == list(LISTS)
        assert asked(sandbox, other) == asked(sandbox, empty) == ["/environments"]
        assert installation.differences() == {}

        run = deploying(world, repository)  # it has only been queued
        world.commit_to_default_branch(repository)
        world.comment(next(iter(repository.pull_requests.values())))
        sandbox.requests.reset()
        installation.sync()
        assert asked(sandbox) == []

        world.finish_pipeline(run, "SUCCESSFUL")
        installation.sync()
        assert asked(sandbox) == asked(sandbox, repository) == list(LISTS)
        assert installation.differences() == {}
        assert installation.sync().written == 0
        assert len(asked(sandbox)) == 2


@pytest.mark.parametrize(("order", "pages"), [("created", 1), ("updated", 1), ("oldest", 3)])
def test_deployments_deep_in_the_list_follow_their_pipelines(database_url, order, pages):
    with installed(database_url, replace(TINY, deployments_order=order)) as installation:
        sandbox, world = installation.sandbox, installation.sandbox.world
        repository = next(one for one in world.open_repositories if one.has_pipelines)
        watcher = Watcher(world)
        waiting, failed = (deploying(world, repository) for _ in range(2))
        world.pause_pipeline(waiting)
        world.finish_pipeline(failed, "FAILED")
        add_pages(world, repository)
        installation.sync()
        assert installation.differences() == {}
        watcher.deliveries()

        # A person starts the manual step of an old run, and failed steps run again: deliveries name the runs.
        world.finish_pipeline(waiting, "SUCCESSFUL")
        world.rerun_failed_steps(failed, "SUCCESSFUL")
        installation.deliver(*watcher.deliveries())
        sandbox.requests.reset()
        installation.refresh()
        assert installation.differences() == {}
        assert len(asked(sandbox)) <= 1 + 3, "more than all environments and all pages"

        world.finish_pipeline(deploying(world, repository), "SUCCESSFUL")
        sandbox.requests.reset()
        installation.sync()
        assert len(asked(sandbox)) == 1 + pages
        assert installation.differences() == {}

        # Nobody is told when a deployment of an ended run changes by itself; the nightly reconcile looks.
        last = repository.deployments[-1]
        last.end("FAILED", world.tick())
        sandbox.requests.reset()
        installation.sync()
        assert asked(sandbox) == []
        installation.sync(reconcile=timedelta(days=14))
        assert installation.differences() == {}


def test_a_list_of_deployments_that_was_cut_off_goes_on_at_its_page(database_url):
    with Sandbox(TINY) as sandbox:
        world = sandbox.world
        repository = next(one for one in world.open_repositories if one.has_pipelines)
        add_pages(world, repository, 330)
        installation = Installation(database_url, sandbox)
        sandbox.faults.on(r"/deployments\?.*page=3", 400, 1)
        assert "deployments" in {one.step for one in installation.sync().skipped}
        world.finish_pipeline(deploying(world, repository), "SUCCESSFUL")
        sandbox.requests.reset()
        installation.sync()
        assert installation.differences() == {}
        # From the third page to the end, and the first one for what is new.
        assert len([path for path in asked(sandbox, repository) if path == "/deployments"]) == 3


def test_environments_are_gone_only_if_that_is_certain(database_url):
    with Sandbox(TINY) as sandbox:
        world = sandbox.world
        repository = next(one for one in world.open_repositories if one.has_pipelines)
        installation = Installation(database_url, sandbox)
        installation.sync()

        def environments() -> set[str]:
            told = "SELECT source_id FROM bitbucket_environments WHERE deleted_at IS NULL"
            return {row["source_id"] for row in installation.query(told)}

        before = environments()
        sandbox.faults.empty_lists = ["environments", "deployments"]
        world.finish_pipeline(deploying(world, repository), "SUCCESSFUL")
        notes = installation.sync().notes
        assert [note for note in notes if "3 of 3 environments: 0 are confirmed" in note]
        assert [note for note in notes if "the list of deployments is empty" in note]
        assert environments() == before

        # An empty list is no success: the next sync asks again.
        sandbox.faults.clear()
        gone = repository.environments[0]
        world.rename_environment(repository.environments[1], "Acceptance EU")
        world.remove_environment(repository, gone)
        installation.sync()
        assert environments() == before - {gone.uuid}
        assert installation.differences() == {}

        repository.environments.insert(0, gone)
        world.finish_pipeline(deploying(world, repository), "SUCCESSFUL")
        installation.sync()
        assert environments() == before
        assert installation.differences() == {}


@pytest.mark.parametrize(("status", "warned"), [(403, False), (404, False), (410, True)])
def test_refused_deployments_are_no_warning_and_asked_for_again_after_a_day(database_url, status, warned):
    with Sandbox(TINY) as sandbox:
        installation = Installation(database_url, sandbox)
        sandbox.faults.on("/(environments|deployments)", status)
        skipped = {one.step for one in installation.sync().skipped}
        assert skipped == {"pullrequests", *(["deployments"] if warned else [])}
        assert bool([warning for warning in installation.warnings if "deploy" in warning]) is warned
        sandbox.requests.reset()
        installation.sync()
        assert asked(sandbox) == []
        sandbox.faults.clear()
        with psycopg.connect(database_url) as connection:
            connection.execute(
                "UPDATE sync_marks m SET asked_at = asked_at - CASE WHEN EXISTS (SELECT FROM bitbucket_pipelines p "
                "WHERE p.repository_id = m.repository_id) THEN interval '1 day' ELSE interval '30 days' END "
                "WHERE kind = 'deployments'"
            )
        installation.sync()
        assert installation.differences() == {}
