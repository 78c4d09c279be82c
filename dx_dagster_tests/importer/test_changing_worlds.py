"""A workspace in which people go on working while it is imported, under each reading of what Bitbucket may do."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest

from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.pipelines import FAILURES
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.story import Story
from dx_dagster.sandbox.world import World
from dx_dagster_tests.importing import Installation

USUALLY = 0.85  # chance
USUAL = WorldConfig(seed=3, repositories=5, pull_requests=60, members=8, merges_by_push=0.05)
READINGS = {
    "usual": (replace(USUAL, deployments_shown_early=True, story=Story()), {}),
    "approvals move, deleted comments count": (
        replace(USUAL, seed=4, approvals_move_updated_on=True, count_includes_deleted=True),
        {"sort_with_states_fails": True},
    ),
    "what is taken back is gone": (replace(USUAL, seed=5, feed_keeps_taken_back=False), {"compressed": True}),
    "a short feed, deployments by their last change": (
        replace(USUAL, seed=6, deployments_order="updated", deployments_shown_early=True),
        {"feed_length": 50},
    ),
    "no feed, deployments oldest first": (replace(USUAL, seed=7, deployments_order="oldest"), {"feed_missing": True}),
}


def change(world: World, chances: random.Random) -> None:
    """Something that happens: mostly what `step` thinks of, now and then what is rare."""
    if chances.random() < USUALLY:
        world.step(1, chances)
        return
    with world.lock:
        repository = chances.choice([one for one in world.open_repositories if one.main_branch])
        opened = [one for one in repository.pull_requests.values() if one.state == "OPEN" and one.fork is None]
        own = [one for one in opened if one.target_branch in repository.graph.branches]
        happens: list[Callable[[], object]] = [
            partial(world.rename_repository, repository),
            partial(world.force_push_default_branch, repository),
            partial(pause, world, repository),
        ]
        if own:
            pull = chances.choice(own)
            happens += [
                partial(world.push, pull),
                partial(world.push, pull, force=True),
                partial(world.edit_title, pull, f"Title {chances.random()}"),
                partial(world.merge_by_push, pull),
                partial(world.comment, pull, user=chances.choice(world.people.bots)),
            ]
        chances.choice(happens)()


def pause(world: World, repository: HostedRepository) -> None:
    """A run waits for its manual step: one that has not ended, or a new one."""
    going = [run for run in repository.pipelines if run.state == "PENDING" or run.stage == "RUNNING"]
    world.pause_pipeline(going[-1] if going else world.add_pipeline(repository))


def run_failed_steps_again(world: World) -> None:
    """Of two runs: one still runs, the other has succeeded since."""
    failed = [run for one in world.open_repositories for run in one.pipelines if run.result in FAILURES]
    for run, result in zip(failed[-2:], (None, "SUCCESSFUL"), strict=True):
        world.rerun_failed_steps(run, result)


@contextmanager
def changing(world: World, chances: random.Random) -> Iterator[None]:
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            change(world, chances)
            time.sleep(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(("config", "oddities"), READINGS.values(), ids=READINGS)
def test_a_world_that_changes_during_the_import_is_right_after_the_next_sync(config, oddities, database_url):
    chances = random.Random(config.seed)
    with Sandbox(config) as sandbox:
        sandbox.faults.set(oddities)
        sandbox.faults.latency = 0.005
        installation = Installation(database_url, sandbox)
        with changing(sandbox.world, chances):
            with suppress(TimeoutError):
                installation.sync(within=0.5)
            installation.sync()
        installation.sync()
        assert installation.differences() == {}
        for _ in range(20):
            change(sandbox.world, chances)
        installation.sync()
        assert installation.differences() == {}
        # No list of what is new names a run that runs again. A delivery does; without one, everything is asked again.
        run_failed_steps_again(sandbox.world)
        installation.sync(full=True)
        assert installation.differences() == {}
