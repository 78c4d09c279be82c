# ruff: noqa: PLR2004 - the numbers are chances: a name for each would say nothing more
"""Makes the past of one repository, event by event, with the code that makes later events.

Each pull request is a generator that acts and yields the time of its next act; a heap resumes whoever is next.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from heapq import heapify, heappop, heapreplace
from random import Random

from dx_dagster.sandbox import merging, vocabulary
from dx_dagster.sandbox.people import People, User
from dx_dagster.sandbox.pipelines import run
from dx_dagster.sandbox.pull_requests import PullRequest
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.reviewing import Reviewing
from dx_dagster.sandbox.story import Plot

Life = Iterator[datetime]

GONE_RELEASE = "release/0.x"
RELEASE = "release/1.x"
INTEGRATION = ("develop", "staging")
"""The long-lived branch of worlds with pull requests into other branches; the second where the first is the default."""
_WEEKS_OF_INTEGRATION = 6  # how often it is merged into the default branch


def integration_branch(repository: HostedRepository) -> str:
    """The name of the repository's long-lived branch beside the default one."""
    first, second = INTEGRATION
    return second if repository.main_branch == first else first


def another_branch(repository: HostedRepository, rng: Random) -> str | None:
    """A long-lived branch for the share of pull requests into other branches; None for the other ones."""
    share = repository.config.into_other_branches
    if not share or rng.random() >= share:
        return None
    there = [name for name in (integration_branch(repository), RELEASE) if name in repository.graph.branches]
    return there[int(rng.random() ** 3 * len(there))] if there else None


class RepositoryPast:
    """Fills a repository with events between its creation and `until`, as a `plot` has them where there is one."""

    def __init__(
        self, rng: Random, people: People, repository: HostedRepository, until: datetime, plot: Plot | None = None
    ) -> None:
        self.rng, self.people, self.repository, self.until, self.plot = rng, people, repository, until, plot
        self.now = repository.created_on
        self.reviewing = Reviewing(rng, people, plot)
        self.doomed: list[PullRequest] = []

    def live(self, main_branch: str, pull_requests: int) -> None:
        """Leaves exactly `pull_requests`; one in two hundred more is opened and deleted."""
        repository = self.repository
        repository.main_branch = main_branch
        repository.commit_to(main_branch, self.people.member(self.rng), "Initial commit", self.now)
        doomed = -(-pull_requests // 200) if pull_requests > 1 else 0
        opened = pull_requests + doomed
        fated = set(self.rng.sample(range(max(1, opened - 1)), doomed))
        # One in twenty was opened of late, so that something is under review today.
        starts = [0.997 if index % 20 == 19 else 0.03 for index in range(opened)]
        lives = [self._pull_request(self._opening(start), fated=i in fated) for i, start in enumerate(starts)]
        direct = self._direct_commits(max(2.0, (self.until - self.now).total_seconds() / 3600 / (8 + opened / 6)))
        nightly = [self._schedule(opened)] if repository.has_pipelines else []
        integration = [self._integration()] if repository.config.into_other_branches else []
        release = [self._release(self.plot)] if self.plot and repository.has_pipelines else []
        self._run([*lives, direct, self._branches(), *nightly, *integration, *release])
        for pull_request in self.doomed:
            repository.delete_pull_request(pull_request.number)

    def _run(self, lives: list[Life]) -> None:
        queue = [(next(life), index, life) for index, life in enumerate(lives)]
        heapify(queue)
        while queue and queue[0][0] <= self.until:
            self.now, index, life = queue[0]
            following = next(life, None)
            if following is None:
                heappop(queue)
            else:
                heapreplace(queue, (following, index, life))

    def _moment(self, start: float, end: float) -> datetime:
        """A moment between two fractions of the repository's time."""
        span = self.until - self.repository.created_on
        fraction = start + (end - start) * self.rng.random()
        return self.repository.created_on + timedelta(microseconds=int(span / timedelta(microseconds=1) * fraction))

    def _opening(self, start: float) -> datetime:
        """When a pull request is opened: from a fraction of the repository's time on, or as the plot has it."""
        return self.plot.opening(self.rng) if self.plot else self._moment(start, 1)

    def _later(self, hours: float) -> datetime:
        """Some time from now, `hours` on average, at least a second."""
        at = self.now + timedelta(microseconds=1_000_000 + int(self.rng.expovariate(1 / hours) * 3_600_000_000))
        return self.plot.after_holiday(self.rng, at) if self.plot else at

    def _direct_commits(self, hours: float) -> Life:
        """Direct commits to the default branch."""
        while True:
            yield self._later(hours)
            member = self.people.member(self.rng)
            author: User | str = member if self.rng.random() < 0.9 else f"{member.display_name} <root@localhost>"
            subject = vocabulary.pick(self.rng, vocabulary.COMMIT_SUBJECTS)
            self.repository.commit_to(self.repository.main_branch or "main", author, f"{subject}\n", self.now)
            self._build(None, member, 0.3)

    def _branches(self) -> Life:
        """One release branch is deleted later, one stays."""
        graph = self.repository.graph
        for fraction, branch in ((0.05, GONE_RELEASE), (0.3, RELEASE)):
            yield self._moment(fraction, fraction + 0.05)
            graph.branches[branch] = self.repository.head
        yield self._moment(0.55, 0.7)
        self.repository.delete_branch(GONE_RELEASE)

    def _integration(self) -> Life:
        """A long-lived branch with history of its own: it is merged into the default branch now and then."""
        repository, branch = self.repository, integration_branch(self.repository)
        graph, main = repository.graph, repository.main_branch or "main"
        yield self._moment(0.01, 0.02)
        graph.branches[branch] = repository.head
        while True:
            yield self._later(_WEEKS_OF_INTEGRATION * 7 * 24)
            for into, brought in ((main, branch), (branch, main)):
                parents = (graph.branches[into], graph.branches[brought])
                message = f"Merge branch '{brought}' into {into}\n"
                graph.branches[into] = graph.add(parents, self.people.member(self.rng), message, self.now)
            repository.touch(self.now)

    def _schedule(self, opened: int) -> Life:
        """Nightly runs of a schedule, without a creator."""
        nights = max(1, (self.until - self.now).days // (2 + opened // 20))
        if self.plot:  # else the last night of all repositories is the same
            yield self.now + timedelta(days=nights * self.rng.random())
        while True:
            yield self.now + timedelta(days=nights, microseconds=int(self.rng.random() * 9_000_000))
            branch = self.repository.main_branch
            self._run_pipeline(trigger="SCHEDULE", ref_name=branch)

    def _release(self, plot: Plot) -> Life:
        """What a freeze held back is deployed in the days after it."""
        yield plot.thaw + timedelta(hours=8 + 56 * self.rng.random())
        self._run_pipeline(trigger="MANUAL", ref_name=self.repository.main_branch, deploys=1)

    def _build(self, pull_request: PullRequest | None, creator: User | None, chance: float) -> None:
        if not self.repository.has_pipelines or self.rng.random() > chance:
            return
        kind = self.rng.random()
        self._run_pipeline(
            pull_request=pull_request if kind < 0.8 else None,
            creator=creator,
            trigger="MANUAL" if kind < 0.1 else "PUSH",
            ref_name=None if kind > 0.95 else self.repository.main_branch,
            deploys=0.25 if self.plot is None else chance,
        )

    def _run_pipeline(
        self,
        *,
        trigger: str,
        ref_name: str | None,
        pull_request: PullRequest | None = None,
        creator: User | None = None,
        deploys: float = 0.25,
    ) -> None:
        plot = self.plot
        pipeline = self.repository.add_pipeline(
            self.rng,
            self.now,
            pull_request=pull_request,
            creator=creator,
            trigger=trigger,
            ref_name=ref_name,
            deploys=deploys,
            to_production=plot is None or not plot.is_frozen(self.now),
            left_waiting=0.1 if plot else 0.3,
        )
        run(self.rng, pipeline, self.until, plot.result if plot else None)

    def _pull_request(self, opened: datetime, *, fated: bool) -> Life:
        yield opened
        rng, reviewing = self.rng, self.reviewing
        pull_request = reviewing.open(self.repository, self.now, self._target(), author=self._author())
        self._build(pull_request, pull_request.author, 0.7)
        if fated:
            self.doomed.append(pull_request)
            return
        if self.plot and self.plot.has_reviewer(opened) and rng.random() < 0.85:
            yield self.now + timedelta(minutes=1 + rng.random() * 8)
            reviewing.review_by_ai(pull_request, self.now)
        if pull_request.draft and rng.random() < 0.8:
            yield self._later(10)
            pull_request.ready(pull_request.author, self.now)
        stale = rng.random() < 0.03
        first, others, last = (72, 20, 24) if self._is_slow else (5, 5, 6)  # mean hours before an event
        for number in range(int(rng.expovariate(0.22))):
            yield self._later(200 if stale else others if number else first)
            if reviewing.act(pull_request, self.now):
                self._build(pull_request, pull_request.author, 0.6)
        if stale:
            return
        yield self._later(last)
        self._close(pull_request)
        self._build(None, pull_request.closed_by, 1 if self.plot else 0.5)
        if self._is_reverted(pull_request):
            yield from self._revert(pull_request)
            return
        if rng.random() < 0.12:
            yield self._later(30)
            reviewing.talk(pull_request, self.now)

    @property
    def _is_slow(self) -> bool:
        return self.plot is not None and self.plot.is_slow(self.repository.slug)

    def _author(self) -> User | None:
        author = self.people.author(self.rng)
        if self.plot is None:
            return author
        return self.plot.author(self.rng, self.repository.project.key, author, self.people.members)

    def _is_reverted(self, pull_request: PullRequest) -> bool:
        is_merged = pull_request.state == "MERGED" and pull_request.target_branch == self.repository.main_branch
        return self.plot is not None and is_merged and self.plot.is_reverted(self.rng, self.now)

    def _revert(self, merged: PullRequest) -> Life:
        """A day later, somebody reverts it."""
        yield self._later(20)
        user = self.people.member(self.rng)
        reverting = self.reviewing.revert(self.repository, merged, self.now, user)
        self._build(reverting, user, 0.7)
        yield self._later(1)
        merging.merge(reverting, "squash", self.people.member(self.rng), self.now)
        self._build(None, reverting.closed_by, 1)

    def _target(self) -> str:
        branches = self.repository.graph.branches
        if (other := another_branch(self.repository, self.rng)) is not None:
            return other
        chance = self.rng.random()
        if chance < 0.05 and GONE_RELEASE in branches:
            return GONE_RELEASE
        if chance < 0.09 and RELEASE in branches:
            return RELEASE
        return self.repository.main_branch or "main"

    def _close(self, pull_request: PullRequest) -> None:
        rng, repository = self.rng, self.repository
        closer = self.people.member(rng)
        chance = rng.random()
        if pull_request.target_gone or chance < 0.1:
            reason = "Not needed any more." if chance < 0.03 else ""
            pull_request.close("DECLINED", closer, self.now, reason=reason)
            if rng.random() < 0.5:
                merging.close_source_branch(pull_request)
        elif chance < 0.13:
            pull_request.close("SUPERSEDED", closer if chance < 0.12 else None, self.now)
        else:
            if pull_request.draft:
                pull_request.ready(pull_request.author, self.now - timedelta(milliseconds=3))
            strategy = self.reviewing.strategy()
            if chance > 1 - repository.config.merges_by_push:
                merging.merge_by_push(pull_request, closer, self.now)
            else:
                merging.merge(pull_request, strategy, closer, self.now)
        if pull_request.fork and rng.random() < 0.5:
            pull_request.fork_gone = True
            pull_request.version += 1
