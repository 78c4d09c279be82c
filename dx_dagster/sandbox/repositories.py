"""A repository of the workspace: a codebase with pull requests, activity feed and pipelines."""

from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from dx_dagster.sandbox.codebases import Codebase
from dx_dagster.sandbox.deployments import Deployment, Environment, Rollout, make_environments
from dx_dagster.sandbox.people import User
from dx_dagster.sandbox.pipelines import Pipeline, new_pipeline
from dx_dagster.sandbox.pull_requests import Activity, PullRequest


@dataclass(slots=True, eq=False)
class HostedRepository(Codebase):
    """`feed` holds the entries of all pull requests, oldest first; `deployments` those that appeared first, first."""

    pull_requests: dict[int, PullRequest] = field(default_factory=dict, repr=False)
    feed: list[Activity] = field(default_factory=list, repr=False)
    pipelines: list[Pipeline] = field(default_factory=list, repr=False)
    environments: list[Environment] = field(default_factory=list, repr=False)
    deployments: list[Deployment] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.environments = make_environments(self.uuid)

    def open_pull_request(self, pull_request: PullRequest, reviewers: list[User]) -> None:
        if pull_request.fork is None:
            self.graph.branches[pull_request.source_branch] = pull_request.source
            self.touch(pull_request.created_on)
        self.last_number = pull_request.number
        self.pull_requests[pull_request.number] = pull_request
        pull_request.feed = self.feed
        pull_request.open(reviewers)

    def delete_branch(self, branch: str) -> None:
        """Deletes a branch; open and closed pull requests into it lose their destination's commit."""
        self.graph.branches.pop(branch)
        for pull_request in self.pull_requests.values():
            if pull_request.target_branch == branch:
                pull_request.target_gone = True
                pull_request.version += 1

    def delete_pull_request(self, number: int) -> None:
        gone = self.pull_requests.pop(number)
        self.feed[:] = [entry for entry in self.feed if entry.pull_request is not gone]
        for pipeline in self.pipelines:
            if pipeline.pull_request is gone:
                pipeline.pull_request = None
                pipeline.version += 1

    def add_pipeline(
        self,
        rng: Random,
        at: datetime,
        *,
        pull_request: PullRequest | None = None,
        creator: User | None = None,
        trigger: str = "PUSH",
        ref_name: str | None = None,
        deploys: float = 0.25,
        to_production: bool = True,
        left_waiting: float = 0.3,
    ) -> Pipeline:
        """A run for a pull request, else for a branch, else for the bare commit at the default branch's head.

        `deploys` is the chance that a run on the default branch deploys; without `to_production` it ends before that.
        `left_waiting`: as of a `Rollout`.
        """
        commit = pull_request.source if pull_request else self.graph.branches.get(ref_name or "", self.head)
        pipeline = new_pipeline(
            rng, len(self.pipelines) + 1, commit, at,
            creator=creator, trigger=trigger, pull_request=pull_request,
            ref_name=pull_request.source_branch if pull_request else ref_name,
        )  # fmt: skip
        chances = Random(pipeline.uuid)
        if pull_request is None and ref_name == self.main_branch and chances.random() < deploys:
            early = self.config.deployments_shown_early
            environments = self.environments if to_production else self.environments[:-1]
            pipeline.rollout = Rollout(pipeline, environments, self.deployments, early, chances, left_waiting)
        self.pipelines.append(pipeline)
        return pipeline
