"""`--since` is a bound of the workspace that holds: for every kind of thing, in every later sync, and as far back as it
is extended.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.world import World
from dx_dagster.warehouse.imported.bounds import BoundRefusedError, Wanted
from dx_dagster_tests.connecting import TOKEN
from dx_dagster_tests.importing import Installation

SMALL = WorldConfig(seed=11, repositories=5, pull_requests=60, members=8, merges_by_push=0.05)
DAYS = (4, 120, 500)


def test_a_bound_holds_in_every_later_sync_and_extending_it_costs_the_difference(database_url, new_database):
    with Sandbox(SMALL) as sandbox:
        world = sandbox.world
        installation = Installation(database_url, sandbox)
        for days in (*DAYS, None):
            since = world.now - timedelta(days=days) if days else None
            first = Installation(new_database(), sandbox).sync(wanted=Wanted(since)).requests
            extended = installation.sync(wanted=Wanted(since)).requests
            assert installation.differences(since) == {}
            assert extended <= 1.1 * first, f"{days} days"
            assert installation.sync().written == 0
            world.step(8)
            installation.sync()
            assert installation.differences(since) == {}


def test_an_extension_that_is_killed_goes_on_where_it_stopped(database_url, new_database):
    with Sandbox(SMALL) as sandbox:
        installation = Installation(database_url, sandbox)
        near, far = (Wanted(sandbox.world.now - timedelta(days=days)) for days in (20, 400))
        first = Installation(new_database(), sandbox).sync(wanted=far).requests
        sandbox.faults.latency = 0.01
        sandbox.requests.reset()
        for wanted in (near, far):
            for seconds in (0.2, 0.4):
                with suppress(TimeoutError):
                    installation.sync(within=seconds, wanted=wanted)
        installation.sync(wanted=far)
        assert installation.differences(far.since) == {}
        lost = 8 * 4  # of each kill, what was under way
        assert sandbox.requests.count <= 1.1 * first + lost + 4 * (2 + SMALL.repositories)


def test_a_bound_moves_back_only_and_never_into_the_future(database_url):
    with Sandbox(WorldConfig(repositories=3, pull_requests=12, members=4)) as sandbox:
        installation = Installation(database_url, sandbox)
        bound = Wanted(sandbox.world.now - timedelta(days=200))
        installation.sync(wanted=bound)
        with pytest.raises(BoundRefusedError, match="Rows are never dropped"):
            installation.sync(wanted=Wanted(sandbox.world.now - timedelta(days=100)))
        with pytest.raises(BoundRefusedError, match="future"):
            installation.sync(wanted=Wanted(datetime(2999, 1, 1, tzinfo=UTC)))
        installation.sync(wanted=Wanted(None))
        assert installation.differences() == {}
        with pytest.raises(BoundRefusedError, match="all of the workspace is imported"):
            installation.sync(wanted=bound)


def test_a_time_with_an_offset_is_that_moment_and_status_shows_the_bound(run_cli, environment, sandbox, database_url):
    env = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": TOKEN}
    assert run_cli("connect", "acme", env=env).returncode == 0
    assert run_cli("sync", "acme", "--since", "2026-01-31T08:00+05:00", env=env).returncode == 0
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT since FROM bitbucket_workspaces").fetchall()
    assert found == [(datetime(2026, 1, 31, 3, tzinfo=UTC),)]
    refused = run_cli("sync", "acme", "--since", "2026-05-01", env=env)
    assert refused.returncode == 1
    assert "never dropped" in refused.stderr
    assert "imported since 2026-01-31 03:00 UTC" in run_cli("status", env=env).stdout


def merge_old_work(world: World, repository: HostedRepository, commits: int) -> None:
    """A branch of old commits is merged today: a list by ancestry shows them before the latest ones of the target."""
    author = world.people.members[0]
    commit = repository.head
    while commit.parents:
        commit = commit.parents[0]
    for number in range(commits):
        made_at = world.now - timedelta(days=900, minutes=-number)
        commit = repository.graph.add((commit,), author, f"Old work {number}\n", made_at)
    merge = repository.graph.add((repository.head, commit), author, "Merge old work\n", world.tick())
    repository.graph.branches[repository.main_branch or ""] = merge
    repository.touch(world.now)


def test_commits_within_the_bound_are_found_behind_pages_of_older_ones(database_url, new_database):
    with Sandbox(WorldConfig(repositories=2, pull_requests=20, members=4)) as sandbox:
        world = sandbox.world
        repository = max(world.open_repositories, key=lambda one: len(one.graph))
        since = world.now - timedelta(days=200)
        installation = Installation(database_url, sandbox)
        installation.sync(wanted=Wanted(since))
        world.commit_to_default_branch(repository)
        merge_old_work(world, repository, 250)
        installation.sync()
        assert installation.differences(since) == {}
        anew = Installation(new_database(), sandbox)
        anew.sync(wanted=Wanted(since))
        assert anew.differences(since) == {}
        anew.sync(wanted=Wanted(None))
        assert anew.differences() == {}
