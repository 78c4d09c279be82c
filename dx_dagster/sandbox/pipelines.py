# ruff: noqa: PLR2004 - the numbers are chances: a name for each would say nothing more
"""Pipeline runs: trigger, target and result."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Protocol

from dx_dagster.sandbox.commits import Commit
from dx_dagster.sandbox.people import User, random_uuid
from dx_dagster.sandbox.pull_requests import PullRequest

FAILURES = frozenset({"FAILED", "ERROR"})  # whose failed steps may be run again
WAITING = frozenset({"PAUSED", "HALTED"})
RESULTS = (*("SUCCESSFUL",) * 15, *("FAILED",) * 4, "ERROR", "STOPPED", "EXPIRED")


class DeployingRun(Protocol):
    """What a run that deploys does on its way."""

    def begins(self, at: datetime) -> None: ...

    def waits(self, at: datetime) -> None: ...

    def ends(self, result: str, at: datetime) -> None: ...


@dataclass(slots=True, eq=False)
class Pipeline:
    """A run. `nanoseconds` are the digits beyond microseconds in the API's times.

    The target is a pull request, else a branch, else (`ref_name` None) a bare commit.

    Attributes:
        stage: RUNNING, PAUSED or HALTED while `state` is IN_PROGRESS, else None.
        run_number: 1, and one more each time that its failed steps are run again.
        duration: seconds that it ran, without the time in which it waited for a manual step.
        rollout: its deployments; None if it deploys nothing.
    """

    uuid: str
    build_number: int
    creator: User | None
    commit: Commit
    ref_name: str | None
    pull_request: PullRequest | None
    trigger: str
    created_on: datetime
    nanoseconds: int
    state: str = "PENDING"
    result: str | None = None
    completed_on: datetime | None = None
    duration: int | None = None
    stage: str | None = None
    run_number: int = 1
    resumed_on: datetime | None = None
    version: int = 0
    rollout: DeployingRun | None = None

    def start(self, duration: int) -> None:
        """Starts the run on a runner."""
        self._become("IN_PROGRESS", stage="RUNNING")
        self.duration = duration

    def pause(self, at: datetime, stage: str = "PAUSED") -> None:
        """Pauses at the manual step, without end unless that is started."""
        self.duration = self._ran_for(at)
        self._become("IN_PROGRESS", stage=stage)
        if self.rollout is not None:
            self.rollout.waits(at)

    def rerun(self, at: datetime) -> None:
        """Its failed steps run again: the same run, with its old uuid, build number and date.

        Raises:
            ValueError: it has no failed steps.
        """
        if self.result not in FAILURES:
            raise ValueError(f"pipeline {self.build_number} is {self.result or self.state}: no step of it has failed")
        self._become("IN_PROGRESS", stage="RUNNING")
        self.run_number += 1
        self.resumed_on = at
        self.deploy(at)

    def finish(self, result: str, at: datetime) -> None:
        self.duration = self._ran_for(at)
        self._become("COMPLETED", result=result, completed_on=at)
        if self.rollout is not None:
            self.rollout.ends(result, at)

    def deploy(self, at: datetime) -> None:
        """Begins to deploy, if the run deploys anything."""
        if self.rollout is not None:
            self.rollout.begins(at)

    def _ran_for(self, at: datetime) -> int:
        if self.stage in WAITING or self.state == "COMPLETED":
            return self.duration or 0
        if self.resumed_on is None:
            return int((at - self.created_on).total_seconds())
        return (self.duration or 0) + int((at - self.resumed_on).total_seconds())

    def _become(
        self, state: str, *, stage: str | None = None, result: str | None = None, completed_on: datetime | None = None
    ) -> None:
        self.state, self.stage, self.result, self.completed_on = state, stage, result, completed_on
        self.version += 1


def any_result(rng: Random) -> str:
    return RESULTS[int(rng.random() * len(RESULTS))]


def run(
    rng: Random, pipeline: Pipeline, now: datetime, result_of: Callable[[Random, datetime], str] | None = None
) -> None:
    """Advances a pipeline to its state at `now`; a few stay pending without end.

    `result_of`: gives the result of a run that began at a moment, in place of a random one.
    """
    seconds = 20 + int(rng.expovariate(1 / 240))
    end = pipeline.created_on + timedelta(seconds=seconds, microseconds=int(rng.random() * 1_000_000))
    stuck = rng.random()
    if stuck < 0.003:
        return
    if stuck < 0.006:
        pipeline.start(0)
        pipeline.pause(pipeline.created_on + timedelta(seconds=int(rng.random() * 90)))
    elif end <= now:
        pipeline.finish(result_of(rng, pipeline.created_on) if result_of else any_result(rng), end)
    elif now - pipeline.created_on > timedelta(seconds=15):
        pipeline.start(int((now - pipeline.created_on).total_seconds()))


def new_pipeline(
    rng: Random,
    build_number: int,
    commit: Commit,
    at: datetime,
    *,
    creator: User | None,
    ref_name: str | None = None,
    pull_request: PullRequest | None = None,
    trigger: str = "PUSH",
) -> Pipeline:
    """A pending run. One in ten has whole microseconds, so that the digits of times vary."""
    nanoseconds = 0 if rng.random() < 0.1 else int(rng.random() * 1000)
    return Pipeline(random_uuid(rng), build_number, creator, commit, ref_name, pull_request, trigger, at, nanoseconds)
