"""A made-up Bitbucket workspace: a seed makes its past, and each event is a method."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate, repeat
from random import Random
from threading import RLock

from dx_dagster.sandbox import merging, vocabulary
from dx_dagster.sandbox.codebases import Codebase
from dx_dagster.sandbox.commits import Commit
from dx_dagster.sandbox.config import WorldConfig
from dx_dagster.sandbox.deployments import Environment
from dx_dagster.sandbox.genesis import Founder, make_repositories
from dx_dagster.sandbox.people import People, User, random_uuid
from dx_dagster.sandbox.pipelines import Pipeline, any_result
from dx_dagster.sandbox.pull_requests import Comment, Inline, PullRequest
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.reviewing import Reviewing
from dx_dagster.sandbox.story import Plot

SOONEST = timedelta(milliseconds=2)  # between two events of one moment; a fast-forward takes half of that
BEHIND = timedelta(milliseconds=50)  # the clock of this machine, so that events of one moment are not ahead of it
FIRST_COMMENT = 3_000_000_017  # comment ids are int64, and beyond int32 for years


class MadeUpWorkspace:
    """The workspace and its clock. Every change happens under `lock` and moves `now` forward.

    Attributes:
        follows_clock: events happen now; else each is up to a minute and a half after the one before.
        came_from, went_to: by uuid, the other workspaces of repositories that moved between workspaces.

    Methods take a repository itself, its slug or its uuid. What they leave open (who, which words) is decided by the
    seed, so that the same calls make the same world.
    """

    def __init__(self, config: WorldConfig | None = None) -> None:
        self.config = config or WorldConfig()
        self.lock = RLock()
        self.now = (self.config.now or datetime.now(UTC)).astimezone(UTC)
        self.follows_clock = False
        self.rng = rng = Random(f"{self.config.seed}/{self.config.workspace}")
        self.uuid = random_uuid(rng)
        self.name = self.config.workspace.capitalize()
        self.created_on = self.now - timedelta(days=1500, microseconds=531_532)
        self.people = People(rng, self.config.workspace, self.config.members)
        self.plot = Plot(self.config.story, self.now) if self.config.story else None
        if self.config.story:
            self.people.ai_reviewer.display_name = self.config.story.reviewer
        self.reviewing = Reviewing(rng, self.people, self.plot)
        numbers = accumulate(repeat(7), initial=FIRST_COMMENT)
        self._founder = Founder(self.config, rng, lambda: next(numbers))
        with _collecting_no_garbage():
            self.repositories = make_repositories(self._founder, self.people, self.now, self.plot)
        self.came_from: dict[str, MadeUpWorkspace] = {}
        self.went_to: dict[str, MadeUpWorkspace] = {}

    def tick(self) -> datetime:
        """Moves the clock forward to the time of the next event."""
        later = self.now + timedelta(microseconds=1_000_000 + int(self.rng.random() * 90_000_000))
        self.now = max(self.now + SOONEST, datetime.now(UTC) - BEHIND) if self.follows_clock else later
        return self.now

    def pass_time(self, by: timedelta) -> None:
        """Moves the clock forward without an event."""
        with self.lock:
            self.now += by

    def is_called(self, key: str) -> bool:
        """Whether the workspace has this slug, in whatever case, or this uuid."""
        return key.lower() in {self.config.workspace.lower(), self.uuid}

    def holds(self, uuid: str) -> bool:
        return any(repository.uuid == uuid for repository in self.repositories)

    # -- finding ------------------------------------------------------------------------------------------------------

    def repository(self, key: Codebase | str) -> HostedRepository:
        """The repository of a slug or uuid; KeyError where there is none."""
        if isinstance(key, HostedRepository):
            return key
        for repository in self.repositories:
            if key in {repository.slug, repository.uuid}:
                return repository
        raise KeyError(key)

    @property
    def open_repositories(self) -> list[HostedRepository]:
        """Repositories that answer and have commits."""
        return [r for r in self.repositories if not r.forbidden and r.main_branch]

    @property
    def pull_requests(self) -> Iterator[PullRequest]:
        """All pull requests of repositories that answer."""
        for repository in self.repositories:
            if not repository.forbidden:
                yield from repository.pull_requests.values()

    # -- pull requests ------------------------------------------------------------------------------------------------

    def open_pull_request(
        self, repo: Codebase | str, *, author: User | None = None, target: str | None = None
    ) -> PullRequest:
        with self.lock:
            repository = self.repository(repo)
            who = author or self.people.member(self.rng)
            branch = target or repository.main_branch or ""
            return self.reviewing.open(repository, self.tick(), branch, author=who)

    def comment(
        self,
        pr: PullRequest,
        text: str | None = None,
        *,
        user: User | None = None,
        parent: Comment | None = None,
        inline: Inline | None = None,
    ) -> Comment:
        with self.lock:
            who = user or self.people.member(self.rng, (pr.author,))
            return pr.comment(who, text or vocabulary.remark(self.rng), self.tick(), parent, inline)

    def edit_comment(self, pr: PullRequest, comment: Comment, text: str = "Edited.") -> None:
        with self.lock:
            pr.edit_comment(comment, text, self.tick())

    def delete_comment(self, pr: PullRequest, comment: Comment) -> None:
        with self.lock:
            pr.delete_comment(comment, self.tick())

    def approve(self, pr: PullRequest, user: User | None = None) -> User:
        with self.lock:
            who = user or self.people.member(self.rng, (pr.author,))
            pr.approve(who, self.tick())
            return who

    def unapprove(self, pr: PullRequest, user: User) -> None:
        """Takes back an approval or a change request."""
        with self.lock:
            pr.take_back(user, self.tick())

    def request_changes(self, pr: PullRequest, user: User | None = None) -> User:
        with self.lock:
            who = user or self.people.member(self.rng, (pr.author,))
            pr.request_changes(who, self.tick())
            return who

    def edit_title(self, pr: PullRequest, title: str) -> None:
        with self.lock:
            pr.retitle(title, pr.author, self.tick())

    def retarget(self, pr: PullRequest, branch: str) -> None:
        with self.lock:
            pr.retarget(branch, pr.author, self.tick())

    def mark_ready(self, pr: PullRequest) -> None:
        with self.lock:
            pr.ready(pr.author, self.tick())

    def push(self, pr: PullRequest, *, force: bool = False) -> None:
        """A commit on the source branch; with `force` the branch is rebased instead."""
        with self.lock:
            author, at = pr.author or self.people.member(self.rng), self.tick()
            if force:
                merging.rebase(pr, author, at)
            else:
                head = self.reviewing.commits(pr.repository, pr.source, author, at, 1)
                merging.push(pr, head, author, at)

    def merge(self, pr: PullRequest, strategy: str = "merge_commit", *, user: User | None = None) -> Commit:
        """Merges by `merge_commit`, `squash` or `fast_forward`."""
        with self.lock:
            commit = merging.merge(pr, strategy, user or self.people.member(self.rng), self.tick())
            self.now = max(self.now, pr.updated_on)  # a fast-forward takes a moment longer
            return commit

    def merge_by_push(self, pr: PullRequest, *, user: User | None = None) -> Commit:
        """Merges by a push of the source's commits to the target, without an update in the activity."""
        with self.lock:
            return merging.merge_by_push(pr, user or self.people.member(self.rng), self.tick())

    def revert(self, pr: PullRequest) -> PullRequest:
        """Opens the pull request that Bitbucket's button "Revert" makes of a merged one."""
        with self.lock:
            who = self.people.member(self.rng)
            return self.reviewing.revert(self.repository(pr.repository), pr, self.tick(), who)

    def decline(self, pr: PullRequest, *, user: User | None = None) -> None:
        with self.lock:
            pr.close("DECLINED", user or self.people.member(self.rng), self.tick())

    def delete_pull_request(self, pr: PullRequest) -> None:
        with self.lock:
            self.tick()
            self.repository(pr.repository).delete_pull_request(pr.number)

    # -- repositories -------------------------------------------------------------------------------------------------

    def create_repository(self) -> HostedRepository:
        """A new repository with one commit on `main`."""
        with self.lock:
            repository = self._founder.repository(self.tick())
            repository.main_branch = "main"
            repository.commit_to("main", self.people.member(self.rng), "Initial commit", self.now)
            self.repositories.append(repository)
            return repository

    def rename_repository(self, repo: Codebase | str, slug: str | None = None) -> str:
        """Changes slug and name, not the uuid; returns the new slug."""
        with self.lock:
            repository = self.repository(repo)
            self.tick()
            base = repository.slug.rstrip("-0123456789")
            repository.slug = repository.name = slug or f"{base}-{self.rng.randrange(1000, 100_000)}"
            repository.names_version += 1
            return repository.slug

    def delete_repository(self, repo: Codebase | str) -> None:
        with self.lock:
            self.tick()
            self.repositories.remove(self.repository(repo))

    def move_repository(self, repo: Codebase | str, to: "MadeUpWorkspace") -> None:
        """Moves the repository to another workspace, with everything in it.

        It keeps its uuid, and its people keep theirs, members there or not. Its project is the one of the same key.
        """
        first, second = sorted((self, to), key=lambda world: world.uuid)  # in one order, or two moves wait for ever
        with first.lock, second.lock:
            repository = self.repository(repo)
            to.now = max(to.now, self.tick())
            self.repositories.remove(repository)
            to.receive(repository)
            self.came_from.pop(repository.uuid, None)
            to.went_to.pop(repository.uuid, None)
            self.went_to[repository.uuid], to.came_from[repository.uuid] = to, self

    def receive(self, repository: HostedRepository) -> None:
        """Adds a repository of another workspace; a slug that is taken gets a number."""
        projects = self._founder.projects
        repository.config, repository.slug = self.config, self._founder.claim(repository.slug)
        repository.project = next((p for p in projects if p.key == repository.project.key), projects[0])
        repository.names_version += 1
        self.repositories.append(repository)

    def commit_to_default_branch(self, repo: Codebase | str, message: str = "Direct commit\n") -> Commit:
        with self.lock:
            repository = self.repository(repo)
            repository.main_branch = repository.main_branch or "main"
            return repository.commit_to(repository.main_branch, self.people.member(self.rng), message, self.tick())

    def force_push_default_branch(self, repo: Codebase | str, drop: int = 2) -> Commit:
        """The default branch loses its last `drop` commits (along the first parents) and gets a new one."""
        with self.lock:
            repository = self.repository(repo)
            commit = repository.head
            for _ in range(drop):
                commit = commit.parents[0] if commit.parents else commit
            repository.graph.branches[repository.main_branch or ""] = commit
            return self.commit_to_default_branch(repository, "Rewrite history\n")

    # -- pipelines and people -----------------------------------------------------------------------------------------

    def add_pipeline(self, repo: Codebase | str, *, pull_request: PullRequest | None = None) -> Pipeline:
        """Adds a pending run, of the pull request or of the default branch."""
        with self.lock:
            repository = self.repository(repo)
            creator = self.people.member(self.rng)
            branch = repository.main_branch
            return repository.add_pipeline(
                self.rng, self.tick(), pull_request=pull_request, creator=creator, ref_name=branch, deploys=0.7
            )

    def start_pipeline(self, pipeline: Pipeline) -> None:
        """Starts a pending run."""
        with self.lock:
            pipeline.start(0)
            pipeline.deploy(self.tick())

    def pause_pipeline(self, pipeline: Pipeline, stage: str = "PAUSED") -> None:
        """Pauses a run at its manual step; `stage` is PAUSED or HALTED."""
        with self.lock:
            pipeline.pause(self.tick(), stage)

    def finish_pipeline(self, pipeline: Pipeline, result: str | None = None) -> None:
        with self.lock:
            pipeline.finish(result or any_result(self.rng), self.tick())

    def rerun_failed_steps(self, pipeline: Pipeline, result: str | None = None) -> None:
        """Runs failed steps again: the run keeps uuid, build number and date. With a result it ends at once."""
        with self.lock:
            pipeline.rerun(self.tick())
            if result is not None:
                self.finish_pipeline(pipeline, result)

    def rename_environment(self, environment: Environment, name: str) -> None:
        with self.lock:
            self.tick()
            environment.name, environment.slug = name, name.lower().replace(" ", "-")
            environment.version += 1

    def remove_environment(self, repo: Codebase | str, environment: Environment) -> None:
        """Removes an environment; its deployments stay."""
        with self.lock:
            self.tick()
            self.repository(repo).environments.remove(environment)

    def add_member(self, user: User | None = None) -> User:
        """Adds a new person, or an account of another workspace."""
        with self.lock:
            self.tick()
            joining = user or self.people.person(self.rng)
            self.people.join(joining)
            return joining

    def remove_member(self, user: User) -> None:
        with self.lock:
            self.tick()
            self.people.leave(user)


@contextmanager
def _collecting_no_garbage() -> Iterator[None]:
    """Pauses garbage collection, which doubles the time and finds nothing while a world is made."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()
