# ruff: noqa: PLR2004 - the numbers are chances: a name for each would say nothing more
"""A made-up workspace that lives: `step` makes one random event after another."""

from collections.abc import Sequence
from random import Random

from dx_dagster.sandbox.history import RELEASE, another_branch
from dx_dagster.sandbox.pipelines import FAILURES, WAITING, Pipeline, any_result
from dx_dagster.sandbox.pull_requests import PullRequest
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.reviewing import Reviewing
from dx_dagster.sandbox.workspace import MadeUpWorkspace

FEW_REPOSITORIES = 3  # no more are deleted below this
FEW_MEMBERS = 4
RECENT_RUNS = 20  # people run again what failed of late


class World(MadeUpWorkspace):
    """A workspace that makes random events too."""

    def step(self, n: int = 1, random: Random | None = None) -> list[str]:
        """Makes `n` random events; returns what happened, in a few words each."""
        return [_step(self, random or self.rng) for _ in range(n)]


def find_world(worlds: Sequence[World], name: str) -> World | None:
    """The world of a workspace's slug or uuid."""
    return next((world for world in worlds if world.is_called(name)), None)


def _step(world: MadeUpWorkspace, rng: Random) -> str:  # noqa: PLR0911 - a return per kind of event
    """Makes one event, in the proportions of a busy workspace, and names it."""
    with world.lock:
        repository = _repository(world, rng)
        opened = [pr for pr in repository.pull_requests.values() if pr.state == "OPEN"]
        if world.plot:
            opened = [pr for pr in opened if not world.plot.is_forgotten(pr.created_on)]
        chance = rng.random()
        if chance < 0.12:
            return _people_and_repositories(world, rng, repository)
        if chance < 0.27:
            return _pipelines(world, rng, repository)
        if chance < 0.4 or not opened:
            target = another_branch(repository, rng)
            opening = world.open_pull_request(repository, author=world.people.author(rng), target=target)
            if world.plot:
                world.reviewing.review_by_ai(opening, world.tick())
            return "opened"
        pull_request = opened[int(rng.random() * len(opened))]
        if chance < 0.58:
            return _close(world, rng, pull_request)
        if chance < 0.6 and RELEASE in repository.graph.branches and pull_request.target_branch != RELEASE:
            world.retarget(pull_request, RELEASE)
            return "retargeted"
        if chance < 0.63 and pull_request.draft:
            world.mark_ready(pull_request)
            return "made ready"
        if chance < 0.68:
            return _afterwards(world, rng, repository)
        Reviewing(rng, world.people).act(pull_request, world.tick())
        return "reviewed"


def _repository(world: MadeUpWorkspace, rng: Random) -> HostedRepository:
    """A random repository, mostly one of the first."""
    candidates = world.open_repositories or [world.create_repository()]
    return candidates[int(rng.random() ** 2 * len(candidates))]


def _close(world: MadeUpWorkspace, rng: Random, pull_request: PullRequest) -> str:
    chance = rng.random() if pull_request.target_branch in pull_request.repository.graph.branches else 0.0
    if chance < 0.15:
        world.decline(pull_request)
        return "declined"
    if chance > 1 - world.config.merges_by_push:
        world.merge_by_push(pull_request)
        return "merged by push"
    if pull_request.draft:
        world.mark_ready(pull_request)
    strategy = Reviewing(rng, world.people).strategy()
    world.merge(pull_request, strategy)
    return f"merged by {strategy}"


def _afterwards(world: MadeUpWorkspace, rng: Random, repository: HostedRepository) -> str:
    """Comments on a closed pull request, which moves its `updated_on`."""
    closed = [pr for pr in repository.pull_requests.values() if pr.state != "OPEN"]
    if not closed:
        return "nothing"
    Reviewing(rng, world.people).talk(closed[int(rng.random() * len(closed))], world.tick())
    return "commented afterwards"


def _pipelines(world: MadeUpWorkspace, rng: Random, repository: HostedRepository) -> str:
    if not repository.has_pipelines:
        return "nothing"
    unfinished = [p for p in repository.pipelines if p.state != "COMPLETED"]
    if unfinished and (chance := rng.random()) < 0.5:
        return _go_on(world, rng, unfinished[int(rng.random() * len(unfinished))], chance * 2)
    failed = [p for p in repository.pipelines[-RECENT_RUNS:] if p.result in FAILURES]
    if failed and world.config.failed_steps_run_again and rng.random() < 0.25:
        world.rerun_failed_steps(
            failed[int(rng.random() * len(failed))], any_result(rng) if rng.random() < 0.5 else None
        )
        return "failed steps run again"
    recent = list(repository.pull_requests.values())[-5:]
    pull_request = recent[int(rng.random() * len(recent))] if recent and rng.random() < 0.7 else None
    world.add_pipeline(repository, pull_request=pull_request)
    return "pipeline added"


def _go_on(world: MadeUpWorkspace, rng: Random, pipeline: Pipeline, chance: float) -> str:
    if pipeline.state == "PENDING" and rng.random() < 0.3:
        world.start_pipeline(pipeline)
        return "pipeline started"
    if pipeline.stage not in WAITING and chance < 0.15:
        world.pause_pipeline(pipeline, "PAUSED" if chance < 0.13 else "HALTED")
        return "pipeline paused"
    world.finish_pipeline(pipeline)
    return "pipeline finished"


def _people_and_repositories(world: MadeUpWorkspace, rng: Random, repository: HostedRepository) -> str:  # noqa: PLR0911 - likewise
    chance = rng.random()
    if chance < 0.6:
        world.commit_to_default_branch(repository)
        return "committed"
    if chance < 0.7:
        if world.plot and world.plot.is_slow(repository.slug):
            return "nothing"  # the documentation has its name
        world.rename_repository(repository)
        return "repository renamed"
    if chance < 0.78:
        world.create_repository()
        return "repository created"
    if chance < 0.8 and len(world.open_repositories) > FEW_REPOSITORIES:
        world.delete_repository(world.open_repositories[-1])
        return "repository deleted"
    if chance < 0.88 and len(world.people.members) > FEW_MEMBERS:
        world.remove_member(world.people.members[-1])
        return "member left"
    if chance < 0.97:
        world.add_member()
        return "member joined"
    world.force_push_default_branch(repository)
    return "default branch force-pushed"
