# ruff: noqa: PLR2004 - the numbers are chances: a name for each would say nothing more
"""Makes a workspace from a seed: people, projects and repositories, then the past of each repository."""

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

from dx_dagster.sandbox import vocabulary
from dx_dagster.sandbox.codebases import Project
from dx_dagster.sandbox.commits import GitGraph
from dx_dagster.sandbox.config import WorldConfig
from dx_dagster.sandbox.history import RepositoryPast
from dx_dagster.sandbox.people import People, random_uuid
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.story import Plot, Story

HIDDEN_PULL_REQUESTS = 5  # those of a forbidden repository, which nobody gets to see


class Founder:
    """Makes repositories, each with a slug of its own."""

    def __init__(self, config: WorldConfig, rng: Random, next_comment: Callable[[], int]) -> None:
        self.config, self.rng, self.next_comment = config, rng, next_comment
        self.projects = [Project(key, name, random_uuid(rng)) for key, name in vocabulary.PROJECTS]
        self._names: set[str] = set()

    def claim(self, name: str) -> str:
        """A slug for a repository from another workspace: its own, with a number if that is taken."""
        free = next(tried for tried in (name, *(f"{name}-{n}" for n in range(2, 1000))) if tried not in self._names)
        self._names.add(free)
        return free

    def repository(self, created_on: datetime) -> HostedRepository:
        rng = self.rng
        name = vocabulary.repository_name(rng)
        while name in self._names:
            name = f"{vocabulary.repository_name(rng)}-{int(rng.random() * 1000)}"
        self._names.add(name)
        uuid = random_uuid(rng)
        return HostedRepository(
            self.config,
            uuid,
            name,
            name.replace("-", " ").capitalize() if rng.random() < 0.3 else name,
            "" if rng.random() < 0.3 else f"{vocabulary.plain_title(rng)}, and what belongs to it. 🧰",
            rng.random() < 0.8,
            self.projects[int(rng.random() * len(self.projects))],
            vocabulary.pick(rng, vocabulary.LANGUAGES),
            created_on,
            created_on,
            GitGraph(uuid),
            self.next_comment,
        )


def make_repositories(
    founder: Founder, people: People, now: datetime, plot: Plot | None = None
) -> list[HostedRepository]:
    """Makes all repositories with their past. Among the last are an empty one, one without pipelines and a fork."""
    config, rng = founder.config, founder.rng
    years = [timedelta(days=400 + rng.random() * 900) for _ in range(config.repositories)]
    repositories = [founder.repository(now - age) for age in years]
    spare = repositories[1:][::-1]
    forbidden, spare = spare[: config.forbidden_repositories], spare[config.forbidden_repositories :]
    empty = spare.pop(0) if spare else None
    if len(spare) > 1:
        spare[0].has_pipelines = False
        spare[1].parent = repositories[0]
    for repository in forbidden:
        repository.forbidden = True
    busy = [r for r in repositories if r is not empty and not r.forbidden]
    if plot:
        _cast(founder, plot.story, busy)
    silent_days = config.silent_days or (0.0,)
    shares = _shares(config.pull_requests, len(busy), 1.3 if plot else 0.8)
    for index, (repository, count) in enumerate(zip(busy, shares, strict=True)):
        _live(rng, people, repository, now - timedelta(days=silent_days[index % len(silent_days)]), count, plot=plot)
    for repository in forbidden:
        _live(rng, people, repository, now, HIDDEN_PULL_REQUESTS)
    return repositories


def _cast(founder: Founder, story: Story, repositories: list[HostedRepository]) -> None:
    """Gives the repositories their parts in a story: all projects in turn, and one of them the slow repository."""
    for number, repository in enumerate(repositories):
        repository.project = founder.projects[number % len(founder.projects)]
    for slow in repositories[:1]:  # with the most pull requests
        slow.slug = slow.name = founder.claim(story.slow_repository)


def _live(
    rng: Random,
    people: People,
    repository: HostedRepository,
    now: datetime,
    pull_requests: int,
    *,
    plot: Plot | None = None,
) -> None:
    """Each repository has its own stream of chance, so that one's size does not change another's past."""
    branch = ("main", "main", "master", "develop")[int(rng.random() * 4)]
    until = now - timedelta(seconds=1)
    RepositoryPast(Random(repository.uuid), people, repository, until, plot).live(branch, pull_requests)


def _shares(total: int, among: int, falling: float) -> list[int]:
    """Splits a total so that a few repositories have most pull requests; the sum is exact."""
    weights = [1 / (index + 2) ** falling for index in range(among)]
    shares = [int(total * weight / sum(weights)) for weight in weights]
    for index in range(total - sum(shares)):
        shares[index % among] += 1
    return shares
