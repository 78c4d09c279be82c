# ruff: noqa: PLR2004 - the numbers are chances: a name for each would say nothing more
"""Environments, and the deployments of runs on the default branch: to Test, then to Staging, then to Production.

Chance comes from the uuids of repositories and runs, so that deployments change nothing else in a world.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from dx_dagster.sandbox.people import random_uuid
from dx_dagster.sandbox.pipelines import Pipeline

KINDS = ("Test", "Staging", "Production")
STOPS = {"FAILED": "FAILED", "STOPPED": "STOPPED", "ERROR": "FAILED"}


@dataclass(slots=True, eq=False)
class Environment:
    """`kind` is Test, Staging or Production."""

    uuid: str
    name: str
    slug: str
    kind: str
    rank: int
    hidden: bool = False
    version: int = 0


@dataclass(slots=True, eq=False)
class Release:
    """What a run has built and deploys. It is created with the run's first deployment."""

    uuid: str
    pipeline: Pipeline
    created_on: datetime


@dataclass(slots=True, eq=False)
class Deployment:
    """`step` is the uuid of the step that deploys; dates are None until it has begun or ended."""

    uuid: str
    environment: Environment
    release: Release
    step: str
    state: str = "UNDEPLOYED"
    status: str | None = None
    started_on: datetime | None = None
    completed_on: datetime | None = None
    updated_on: datetime | None = None
    version: int = 1

    def begin(self, at: datetime) -> None:
        self.state, self.status = "IN_PROGRESS", None
        self.started_on, self.completed_on, self.updated_on = at, None, at
        self.version += 1

    def end(self, status: str, at: datetime) -> None:
        """Ends it; one that has not begun begins right before."""
        if self.state != "IN_PROGRESS":
            self.begin(max(self.release.created_on, at - timedelta(seconds=3)))
        self.state, self.status = "COMPLETED", status
        self.completed_on = self.updated_on = at
        self.version += 1


def make_environments(repository: str) -> list[Environment]:
    """The environments that a repository (uuid) has from its beginning; one in four hides the first."""
    rng = Random(f"{repository}/environments")
    made = [Environment(random_uuid(rng), kind, kind.lower(), kind, rank) for rank, kind in enumerate(KINDS)]
    made[0].hidden = rng.random() < 0.25
    return made


@dataclass(slots=True, eq=False)
class Rollout:
    """The deployments of one run, from environment to environment. They follow what the run does.

    Attributes:
        deployments: of the whole repository, in the order in which they appeared.
        shown_early: a run that goes on shows a deployment in progress.
        left_waiting: the chance that nobody starts the manual step of a run that succeeds.
    """

    pipeline: Pipeline
    environments: list[Environment]
    deployments: list[Deployment] = field(repr=False)
    shown_early: bool
    rng: Random
    left_waiting: float = 0.3
    release: Release | None = None
    own: dict[str, Deployment] = field(default_factory=dict)

    def begins(self, at: datetime) -> None:
        """The run begins, or its failed steps begin again."""
        if not self.shown_early or not self.environments:
            return
        failed = [one for one in self.own.values() if one.status in STOPS.values()]
        for one in failed or [self._deployment(self.environments[0], at)]:
            one.begin(at)

    def waits(self, at: datetime) -> None:
        """The run waits for the manual step that deploys to the last environment."""
        for environment in self.environments[:-1]:
            self._succeed(environment, at)
        for environment in self.environments[-1:]:
            self._deployment(environment, at)

    def ends(self, result: str, at: datetime) -> None:
        going = self.environments
        if result == "SUCCESSFUL":
            if going and self.rng.random() < self.left_waiting:
                self._deployment(going[-1], at)
                going = going[:-1]
            for environment in going:
                self._succeed(environment, at)
        elif result in STOPS and going:
            reached = int(self.rng.random() * len(going)) if result == "FAILED" else 0
            for environment in going[:reached]:
                self._succeed(environment, at)
            self._deployment(going[reached], at).end(STOPS[result], at)
        for one in self.own.values():
            if one.state == "IN_PROGRESS":
                one.end("STOPPED", at)

    def _succeed(self, environment: Environment, at: datetime) -> None:
        deployment = self._deployment(environment, at)
        if deployment.status != "SUCCESSFUL":
            deployment.end("SUCCESSFUL", at)

    def _deployment(self, environment: Environment, at: datetime) -> Deployment:
        if environment.uuid not in self.own:
            if self.release is None:
                built = max(self.pipeline.created_on, at - timedelta(seconds=int(self.rng.random() * 20)))
                self.release = Release(random_uuid(self.rng), self.pipeline, built)
            made = Deployment(random_uuid(self.rng), environment, self.release, random_uuid(self.rng))
            self.own[environment.uuid] = made
            self.deployments.append(made)
        return self.own[environment.uuid]
