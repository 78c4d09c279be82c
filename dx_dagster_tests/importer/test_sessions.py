"""Syncs that continue a killed one, in a world that changes meanwhile."""

import asyncio
import random

import pytest

from dx_dagster.bitbucket import Unavailable
from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.world import World
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported.sessions import begin, in_session
from dx_dagster_tests.importing import Installation

CONFIG = WorldConfig(seed=3, repositories=5, pull_requests=60, members=8, merges_by_push=0.05)
LIST = "/2.0/repositories/acme?"
SLUG = "acme"


def lists_asked(sandbox: Sandbox) -> int:
    return sum(path.startswith(LIST) for _, path, _, _ in sandbox.requests.list())


def change_something_of_each_kind(world: World) -> None:
    """In every repository, a change of each kind that a sync imports; and one repository is deleted."""
    for repository in world.open_repositories:
        opened = [one for one in repository.pull_requests.values() if one.state == "OPEN" and one.fork is None]
        own = [one for one in opened if one.target_branch in repository.graph.branches]
        for pull in own[:1]:
            world.edit_title(pull, "Another title")
            world.delete_comment(pull, world.comment(pull, "Deleted soon"))
            world.comment(pull, "Stays")
            world.approve(pull)
            world.push(pull, force=True)
        for pull in own[1:2]:
            world.merge(pull, "squash")
        world.commit_to_default_branch(repository)
        world.force_push_default_branch(repository)
        world.finish_pipeline(world.add_pipeline(repository))
    world.delete_repository(world.open_repositories[-1])
    world.step(10, random.Random(4))


@pytest.mark.parametrize("requests", [4, 25, 55])
def test_what_changes_between_a_kill_and_the_sync_that_continues_is_right_after_the_next(requests, database_url):
    with Sandbox(CONFIG) as sandbox:
        installation = Installation(database_url, sandbox)
        sandbox.faults.latency = 0.005
        with pytest.raises(TimeoutError):
            installation.sync(requests=requests)
        sandbox.faults.latency = 0
        change_something_of_each_kind(sandbox.world)
        installation.sync()
        assert lists_asked(sandbox) == 1  # it was continued
        installation.sync()
        assert installation.differences() == {}


@pytest.mark.parametrize(
    ("meanwhile", "continued"),
    [
        ("alive_at = alive_at - interval '55 min'", True),
        ("alive_at = alive_at - interval '61 min'", False),
        ("alive_at = alive_at - interval '10 min', paused = '51 min'", False),
        ("paused = '58 min'", False),  # a kill counts as three minutes at least
        ("alive_at = alive_at + interval '1 h'", False),  # the clock was set back
        ("rules = 'of another release'", False),
    ],
)
def test_a_session_is_continued_until_its_pauses_make_an_hour(meanwhile, continued, database_url):
    async def run() -> bool:
        async with Warehouse(database_url) as warehouse:
            await begin(warehouse, SLUG, afresh=False)
            async with warehouse.transaction() as transaction:
                await transaction.execute(f"UPDATE sync_sessions SET {meanwhile}")
            return (await begin(warehouse, SLUG, afresh=False)).continued_from is not None

    assert asyncio.run(run()) is continued


def test_a_sync_that_fails_and_a_full_one_continue_nothing(database_url):
    async def run() -> None:
        async with Warehouse(database_url) as warehouse:
            with pytest.raises(Unavailable):
                async with in_session(warehouse, SLUG, afresh=False):
                    raise Unavailable("down")
            async with in_session(warehouse, SLUG, afresh=False) as session:
                assert session.continued_from is None
                assert (await begin(warehouse, SLUG, afresh=True)).continued_from is None

    asyncio.run(run())
