"""A repository: its commits, pull requests, pipelines and feed, and what a push does to them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from dx_dagster.sandbox.commits import Commit, CommitGraph, is_ancestor, log
from dx_dagster.sandbox.config import WorldConfig
from dx_dagster.sandbox.people import User
from dx_dagster.sandbox.pipelines import Pipeline, new_pipeline
from dx_dagster.sandbox.pull_requests import Activity, PullRequest

AT_THE_DESK = timedelta(seconds=40)  # between a merge by hand and its push
STRATEGIES = ("merge_commit", "squash", "fast_forward")


@dataclass(slots=True, eq=False)
class Project:
    key: str
    name: str
    uuid: str


@dataclass(slots=True, eq=False)
class Fork:
    """Somebody's copy outside the workspace; only pull requests tell of it."""

    uuid: str
    full_name: str
    name: str


@dataclass(slots=True, eq=False)
class Repository:
    """`main_branch` is None until the first commit. `names_version` moves when anything that others repeat changes."""

    config: WorldConfig
    uuid: str
    slug: str
    name: str
    description: str
    is_private: bool
    project: Project
    language: str
    created_on: datetime
    updated_on: datetime
    graph: CommitGraph
    next_comment: Callable[[], int]
    main_branch: str | None = None
    parent: "Repository | None" = None
    forbidden: bool = False
    has_pipelines: bool = True
    last_number: int = 0
    entries: int = 0
    version: int = 0
    names_version: int = 0
    pull_requests: dict[int, PullRequest] = field(default_factory=dict, repr=False)
    feed: list[Activity] = field(default_factory=list, repr=False)
    pipelines: list[Pipeline] = field(default_factory=list, repr=False)

    @property
    def full_name(self) -> str:
        return f"{self.config.workspace}/{self.slug}"

    @property
    def head(self) -> Commit:
        """The default branch's newest commit; only for a repository that has one."""
        return self.graph.branches[self.main_branch or ""]

    def next_entry(self) -> int:
        self.entries += 1
        return self.entries

    def touch(self, at: datetime) -> None:
        """Commit activity, the only thing that moves a repository's `updated_on`."""
        self.updated_on = max(self.updated_on, at)
        self.version += 1

    def commit_to(self, branch: str, author: User | str, message: str, at: datetime) -> Commit:
        """A commit on top of a branch, made and pushed at once; it may be the branch's first."""
        head = self.graph.branches.get(branch)
        commit = self.graph.add((head,) if head else (), author, message, at)
        self.graph.branches[branch] = commit
        self.touch(at)
        return commit

    def open_pull_request(self, pull_request: PullRequest, reviewers: list[User]) -> None:
        if pull_request.fork is None:
            self.graph.branches[pull_request.source_branch] = pull_request.source
            self.touch(pull_request.created_on)
        self.last_number = pull_request.number
        self.pull_requests[pull_request.number] = pull_request
        pull_request.open(reviewers)

    def push(self, pull_request: PullRequest, head: Commit, user: User | None, at: datetime) -> None:
        """The source branch moves, forward or by force."""
        if pull_request.fork is None:
            self.graph.branches[pull_request.source_branch] = head
            self.touch(at)
        pull_request.pushed(head, user, at)

    def update_source(self, pull_request: PullRequest, author: User, at: datetime) -> None:
        """Merges the target branch into the source branch, as the button "Sync now" does."""
        target = self.graph.branches[pull_request.target_branch]
        message = f"Merged {pull_request.target_branch} into {pull_request.source_branch}"
        merge = self.graph.add((pull_request.source, target), author, message, at)
        self.push(pull_request, merge, author, at)

    def rebase(self, pull_request: PullRequest, author: User, at: datetime) -> None:
        """Force-pushes the same changes on top of today's target branch: new hashes, old dates, no merges."""
        head = self.graph.branches[pull_request.target_branch]
        mine = [c for c in reversed(pull_request_commits(pull_request)) if len(c.parents) == 1]
        for old in mine:
            head = self.graph.add((head,), old.raw, old.message, old.date, user=old.user)
        if not mine:
            head = self.graph.add((head,), author, "Start over", at)
        self.push(pull_request, head, author, at)

    def merge(self, pull_request: PullRequest, strategy: str, user: User, at: datetime) -> Commit:
        """Merges by one of `STRATEGIES`; a fast-forward that is not possible updates the source branch first."""
        target = self.graph.branches[pull_request.target_branch]
        title = pull_request.title.replace("\0", "")
        subject = f"(pull request #{pull_request.number})"
        if strategy == "fast_forward":
            if not is_ancestor(target, pull_request.source):
                self.update_source(pull_request, user, at)
                at += timedelta(milliseconds=1)  # two entries of the feed, in this order
            commit = pull_request.source
        elif strategy == "squash":
            commit = self.graph.add((target,), pull_request.author or user, f"{title} {subject}\n", at)
        elif strategy == "merge_commit":
            message = f"Merged in {pull_request.source_branch} {subject}\n\n{title}\n"
            commit = self.graph.add((target, pull_request.source), user, message, at)
        else:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}")
        pull_request.target = target
        pull_request.close("MERGED", user, at, merge_commit=commit)
        self._moves(pull_request, commit, at)
        if pull_request.close_source_branch:
            self.close_source_branch(pull_request)
        return commit

    def merge_by_push(self, pull_request: PullRequest, user: User, at: datetime) -> Commit:
        """Somebody pushes the source's commits to the target branch by hand, merged on their own machine if need be.

        Bitbucket notices, but its activity has no update about it. The merge commit is the pushed head, which may be
        older than the pull request; the source branch stays.
        """
        target, head = self.graph.branches[pull_request.target_branch], pull_request.source
        if not is_ancestor(target, head):
            message = f"Merge branch '{pull_request.source_branch}' into {pull_request.target_branch}\n"
            head = self.graph.add((target, head), user, message, at - AT_THE_DESK)
        pull_request.target = target
        pull_request.merged_by_push(user, at, head)
        self._moves(pull_request, head, at)
        return head

    def _moves(self, pull_request: PullRequest, head: Commit, at: datetime) -> None:
        self.graph.branches[pull_request.target_branch] = head
        self.touch(at)

    def close_source_branch(self, pull_request: PullRequest) -> None:
        if pull_request.fork is None:
            self.graph.branches.pop(pull_request.source_branch, None)
            pull_request.source_closed = True

    def delete_branch(self, branch: str) -> None:
        """Open and closed pull requests into the branch lose their destination's commit."""
        self.graph.branches.pop(branch)
        for pull_request in self.pull_requests.values():
            if pull_request.target_branch == branch:
                pull_request.target_gone = True
                pull_request.version += 1

    def delete_pull_request(self, number: int) -> None:
        gone = self.pull_requests.pop(number)
        self.feed = [entry for entry in self.feed if entry.pull_request is not gone]
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
    ) -> Pipeline:
        """A run for a pull request, else for a branch, else for the bare commit at the default branch's head."""
        commit = pull_request.source if pull_request else self.graph.branches.get(ref_name or "", self.head)
        pipeline = new_pipeline(
            rng, len(self.pipelines) + 1, commit, at,
            creator=creator, trigger=trigger, pull_request=pull_request,
            ref_name=pull_request.source_branch if pull_request else ref_name,
        )  # fmt: skip
        self.pipelines.append(pipeline)
        return pipeline


def pull_request_commits(pull_request: PullRequest) -> list[Commit]:
    """What would be merged, or what was: reachable from the source, not from the target, newest first."""
    base = pull_request.target
    if pull_request.state == "OPEN":
        base = pull_request.repository.graph.branches.get(pull_request.target_branch, base)
    return log([pull_request.source], [base])
