# ruff: noqa: PLR2004 - the numbers are chances: a name for each would say nothing more
"""Random events of pull requests, for the past and the present alike."""

from datetime import datetime, timedelta
from random import Random

from dx_dagster.sandbox import merging, vocabulary
from dx_dagster.sandbox.codebases import Codebase, Fork
from dx_dagster.sandbox.commits import Commit
from dx_dagster.sandbox.people import People, User, random_uuid
from dx_dagster.sandbox.pull_requests import Comment, Inline, PullRequest
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.story import Plot

STRATEGY_WEIGHTS = ("merge_commit", "merge_commit", "squash", "squash", "squash", "fast_forward")


class Reviewing:
    """Random but plausible events. Every decision comes from `rng`."""

    def __init__(self, rng: Random, people: People, plot: Plot | None = None) -> None:
        self.rng, self.people, self.plot = rng, people, plot

    def strategy(self) -> str:
        return vocabulary.pick(self.rng, STRATEGY_WEIGHTS)

    def open(self, repository: HostedRepository, at: datetime, target: str, *, author: User | None) -> PullRequest:
        """A new pull request with one to eight commits on a new source branch."""
        rng = self.rng
        title = vocabulary.title(rng, repository.project.key, repository.last_number + 1)
        base = repository.graph.branches[target]
        while base.parents and rng.random() < 0.25:  # the branch was started a while ago
            base = base.parents[0]
        count = 1 + int(rng.random() ** 2 * 8)
        head = self.commits(repository, base, author, at, count)
        fork = None
        if author and (author in self.people.outsiders or rng.random() < 0.01):
            owner = (author.nickname or "somebody").replace(" ", "-").lower()
            fork = Fork(random_uuid(rng), f"{owner}/{repository.slug}", repository.name)
        pull_request = PullRequest(
            repository,
            repository.last_number + 1,
            author,
            title,
            "" if rng.random() < 0.2 else f"{vocabulary.plain_title(rng)}.\n\n* {vocabulary.remark(rng)}",
            vocabulary.branch(rng, title),
            head,
            target,
            repository.graph.branches[target],
            at,
            at,
            fork=fork,
            draft=rng.random() < 0.08,
            close_source_branch=rng.random() < 0.7,
            task_count=int(rng.random() * 4) if rng.random() < 0.1 else 0,
        )
        reviewers: list[User] = []
        for _ in range(int(rng.random() * 4)):
            reviewers.append(self.people.member(rng, [author, *reviewers]))
        repository.open_pull_request(pull_request, list(dict.fromkeys(r for r in reviewers if r is not author)))
        return pull_request

    def commits(self, repository: Codebase, base: Commit, author: User | None, at: datetime, count: int) -> Commit:
        """`count` commits on top of `base`, made in the hours before `at`; one in twenty by an unknown address."""
        rng, head = self.rng, base
        who = author or self.people.member(rng)
        trailer = self.plot.trailer(rng, at) if self.plot else ""
        for left in range(count, 0, -1):
            by: User | str = who if rng.random() < 0.95 else f"{who.display_name} <{who.display_name[0]}@laptop.local>"
            at_desk = at - timedelta(seconds=left * (60 + int(rng.random() * 3000)))
            message = f"{vocabulary.pick(rng, vocabulary.COMMIT_SUBJECTS)}\n{trailer}"
            head = repository.graph.add((head,), by, message, at_desk)
        return head

    def revert(self, repository: HostedRepository, merged: PullRequest, at: datetime, user: User) -> PullRequest:
        """Opens the pull request that Bitbucket's button "Revert" makes of a merged one."""
        title = f'Revert "{merged.title.replace(chr(0), "")} (pull request #{merged.number})"'
        quoted = "".join(f"\n> {line}".rstrip() for line in merged.description.splitlines())
        message = f"{title}\n\nThis reverts pull request #{merged.number}.\n{quoted}"
        target = repository.graph.branches[merged.target_branch]
        reverting = PullRequest(
            repository,
            repository.last_number + 1,
            user,
            title,
            message,
            f"revert-pr-{merged.number}",
            repository.graph.add((target,), user, message, at),
            merged.target_branch,
            target,
            at,
            at,
        )
        repository.open_pull_request(reverting, [])
        return reverting

    def review_by_ai(self, pull_request: PullRequest, at: datetime) -> None:
        """One to three inline comments of the AI reviewer."""
        for _ in range(1 + int(self.rng.random() * 3)):
            inline = Inline(vocabulary.pick(self.rng, vocabulary.PATHS), None, 1 + int(self.rng.random() * 300))
            pull_request.comment(self.people.ai_reviewer, vocabulary.remark(self.rng), at, inline=inline)

    def act(self, pull_request: PullRequest, at: datetime) -> bool:
        """One event on an open pull request. True when the source branch moved."""
        chance = self.rng.random()
        if chance < 0.42:
            self.talk(pull_request, at)
        elif chance < 0.66:
            pull_request.approve(self._reviewer(pull_request), at)
        elif chance < 0.71:
            pull_request.request_changes(self._reviewer(pull_request), at)
        elif chance < 0.74:
            self.unapprove(pull_request, at)
        elif chance < 0.77:
            self.edit_comment(pull_request, at)
        elif chance < 0.79:
            self.delete_comment(pull_request, at)
        elif chance < 0.81:
            title = vocabulary.title(self.rng, pull_request.repository.project.key)
            pull_request.retitle(title, pull_request.author, at)
        else:
            self.push(pull_request, at)
            return True
        return False

    def push(self, pull_request: PullRequest, at: datetime) -> None:
        """More commits; sometimes the target branch merged in, sometimes everything rebased and force-pushed."""
        chance, repository = self.rng.random(), pull_request.repository
        author = pull_request.author or self.people.member(self.rng)
        if chance < 0.15 and not pull_request.target_gone:
            merging.update_source(pull_request, author, at)
        elif chance < 0.3 and not pull_request.target_gone:
            merging.rebase(pull_request, author, at)
        else:
            head = self.commits(repository, pull_request.source, author, at, 1 + int(self.rng.random() * 2))
            merging.push(pull_request, head, author, at)

    def talk(self, pull_request: PullRequest, at: datetime) -> Comment:
        """A remark, a reply or an inline comment.

        A comment whose account is gone (user null) only follows a known reviewer's, so that "the first review by
        somebody else than the author" never hangs on who that was.
        """
        rng, earlier = self.rng, pull_request.comments
        reviewed = any(c.user and c.user is not pull_request.author for c in earlier)
        if earlier and rng.random() < 0.4:
            parent = earlier[int(rng.random() * len(earlier))]
            who = pull_request.author if rng.random() < 0.7 else self._reviewer(pull_request)
            who = who if who or reviewed else self._reviewer(pull_request)
            if reviewed and rng.random() < 0.03:
                who = None
            return pull_request.comment(who, vocabulary.pick(rng, vocabulary.REPLIES), at, parent, parent.inline)
        inline = None
        if rng.random() < 0.5:
            line = 1 + int(rng.random() * 300)
            old, new = (line, None) if rng.random() < 0.2 else (None, line)
            inline = Inline(vocabulary.pick(rng, vocabulary.PATHS), old, new)
        bot = rng.random() < 0.05
        user = self.people.bots[int(rng.random() * len(self.people.bots))] if bot else self._reviewer(pull_request)
        return pull_request.comment(user, vocabulary.remark(rng), at, inline=inline)

    def edit_comment(self, pull_request: PullRequest, at: datetime) -> None:
        comment = self._comment(pull_request)
        if comment is not None:
            pull_request.edit_comment(comment, f"{comment.text}\n\nEdit: {vocabulary.remark(self.rng)}", at)

    def delete_comment(self, pull_request: PullRequest, at: datetime) -> None:
        comment = self._comment(pull_request)
        if comment is not None:
            pull_request.delete_comment(comment, at)

    def unapprove(self, pull_request: PullRequest, at: datetime) -> None:
        judges = [p.user for p in pull_request.participants.values() if p.state]
        if judges:
            pull_request.take_back(judges[int(self.rng.random() * len(judges))], at)

    def _comment(self, pull_request: PullRequest) -> Comment | None:
        standing = [c for c in pull_request.comments if not c.deleted]
        return standing[int(self.rng.random() * len(standing))] if standing else None

    def _reviewer(self, pull_request: PullRequest) -> User:
        """Mostly one of the requested reviewers, never the author."""
        asked = pull_request.reviewers
        if asked and self.rng.random() < 0.8:
            return asked[int(self.rng.random() * len(asked))]
        return self.people.member(self.rng, (pull_request.author,))
