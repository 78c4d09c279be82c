# ruff: noqa: PLR2004 - the numbers are chances: a name for each would say nothing more
"""Pipeline runs: what started them, what they build and how they end."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from dx_dagster.sandbox.commits import Commit
from dx_dagster.sandbox.people import User, random_uuid
from dx_dagster.sandbox.pull_requests import PullRequest

RESULTS = (*("SUCCESSFUL",) * 15, *("FAILED",) * 4, "ERROR", "STOPPED", "EXPIRED")


@dataclass(slots=True, eq=False)
class Pipeline:
    """A run. `nanoseconds` is what the API's times hold beyond microseconds.

    The target is a pull request, else a branch, else (`ref_name` None) a bare commit.
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
    version: int = 0

    def start(self, duration: int) -> None:
        """Runs, for the first time or again: a run that is run again has not ended."""
        self.state, self.result, self.completed_on, self.duration = "IN_PROGRESS", None, None, duration
        self.version += 1

    def finish(self, result: str, at: datetime) -> None:
        self.state, self.result, self.completed_on = "COMPLETED", result, at
        self.duration = int((at - self.created_on).total_seconds())
        self.version += 1


def any_result(rng: Random) -> str:
    return RESULTS[int(rng.random() * len(RESULTS))]


def run(rng: Random, pipeline: Pipeline, now: datetime) -> None:
    """Lets a pipeline get as far as it can by `now`; a few stay waiting for a runner for ever."""
    seconds = 20 + int(rng.expovariate(1 / 240))
    end = pipeline.created_on + timedelta(seconds=seconds, microseconds=int(rng.random() * 1_000_000))
    stuck = rng.random()
    if stuck < 0.003:
        return
    if stuck < 0.006:
        pipeline.start(int(rng.random() * 90))  # paused at a manual step
    elif end <= now:
        pipeline.finish(any_result(rng), end)
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
    """A run that waits for a runner. One in ten has whole microseconds, so that the digits of its times vary."""
    nanoseconds = 0 if rng.random() < 0.1 else int(rng.random() * 1000)
    return Pipeline(random_uuid(rng), build_number, creator, commit, ref_name, pull_request, trigger, at, nanoseconds)
