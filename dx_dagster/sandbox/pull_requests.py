"""A pull request and its events; each event adds an entry to the activity feed."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from dx_dagster.sandbox.codebases import Codebase, Fork
from dx_dagster.sandbox.commits import Commit
from dx_dagster.sandbox.people import User

STATUS_WORDS = {"OPEN": "open", "MERGED": "fulfilled", "DECLINED": "rejected", "SUPERSEDED": "superseded"}


class Inline(NamedTuple):
    """Where in the diff a comment stands: `old` is the line on the left (`from`), `new` on the right (`to`)."""

    path: str
    old: int | None
    new: int | None


@dataclass(slots=True, eq=False)
class Comment:
    number: int
    user: User | None
    text: str
    created_on: datetime
    updated_on: datetime
    parent: "Comment | None" = None
    inline: Inline | None = None
    deleted: bool = False


@dataclass(slots=True, eq=False)
class Update:
    """The whole pull request after a change, as the feed repeats it."""

    state: str
    title: str
    reason: str
    draft: bool
    source: Commit
    target_branch: str
    target: Commit
    reviewers: tuple[User, ...]
    changes: dict[str, object]


@dataclass(slots=True, eq=False)
class Activity:
    """An entry of the feed. `kind` is comment, update, approval or changes_requested."""

    sequence: int
    kind: str
    at: datetime
    user: User | None
    pull_request: "PullRequest"
    comment: Comment | None = None
    update: Update | None = None
    taken_back: bool = False


@dataclass(slots=True, eq=False)
class Participant:
    user: User
    role: str
    state: str | None = None
    participated_on: datetime | None = None

    @property
    def approved(self) -> bool:
        return self.state == "approved"


@dataclass(slots=True, eq=False)
class PullRequest:
    """`source` and `target` are the branches' heads as the API shows them; `fork_gone` hides the former.

    `activity` holds its own entries, `feed` those of the whole repository.
    """

    repository: Codebase = field(repr=False)
    number: int
    author: User | None
    title: str
    description: str
    source_branch: str
    source: Commit
    target_branch: str
    target: Commit
    created_on: datetime
    updated_on: datetime
    fork: Fork | None = None
    draft: bool = False
    state: str = "OPEN"
    reason: str = ""
    close_source_branch: bool = False
    closed_by: User | None = None
    merge_commit: Commit | None = None
    task_count: int = 0
    fork_gone: bool = False
    target_gone: bool = False
    source_closed: bool = False
    version: int = 0
    participants: dict[User, Participant] = field(default_factory=dict)
    comments: list[Comment] = field(default_factory=list)
    activity: list[Activity] = field(default_factory=list, repr=False)
    feed: list[Activity] = field(default_factory=list, repr=False)

    @property
    def reviewers(self) -> tuple[User, ...]:
        return tuple(p.user for p in self.participants.values() if p.role == "REVIEWER")

    @property
    def comment_count(self) -> int:
        counts_all = self.repository.config.count_includes_deleted
        return sum(1 for comment in self.comments if counts_all or not comment.deleted)

    def open(self, reviewers: list[User]) -> None:
        self.participants = {user: Participant(user, "REVIEWER") for user in reviewers}
        self.updated(self.created_on, self.author, {})

    def touch(self, at: datetime, *, moves: bool = True) -> None:
        """Notes a change; `moves` says whether `updated_on` moves."""
        self.version += 1
        if moves:
            self.updated_on = max(self.updated_on, at)

    def record(self, kind: str, at: datetime, user: User | None) -> Activity:
        entry = Activity(self.repository.next_entry(), kind, at, user, self)
        self.activity.append(entry)
        self.feed.append(entry)
        return entry

    def updated(self, at: datetime, user: User | None, changes: dict[str, object]) -> None:
        """Adds an update with the pull request as it is now."""
        self.record("update", at, user).update = Update(
            self.state, self.title, self.reason, self.draft, self.source, self.target_branch, self.target,
            self.reviewers, changes,
        )  # fmt: skip
        self.touch(at)

    def comment(
        self,
        user: User | None,
        text: str,
        at: datetime,
        parent: Comment | None = None,
        inline: Inline | None = None,
    ) -> Comment:
        comment = Comment(self.repository.next_comment(), user, text, at, at, parent, inline)
        self.comments.append(comment)
        self.record("comment", at, user).comment = comment
        if user is not None:
            self._participates(user, at)
        self.touch(at)
        return comment

    def edit_comment(self, comment: Comment, text: str, at: datetime) -> None:
        """Changes a comment without a new entry of the feed: the old one shows the new text."""
        comment.text, comment.updated_on = text, at
        self.touch(at)

    def delete_comment(self, comment: Comment, at: datetime) -> None:
        comment.text, comment.updated_on, comment.deleted = "", at, True
        self.touch(at)

    def approve(self, user: User, at: datetime) -> None:
        self._judge(user, at, "approval", "approved")

    def request_changes(self, user: User, at: datetime) -> None:
        self._judge(user, at, "changes_requested", "changes_requested")

    def take_back(self, user: User, at: datetime) -> None:
        """Withdraws an approval or a change request without an entry of the feed."""
        self._participates(user, at).state = None
        for entry in self.activity:
            if entry.user is user and entry.kind in {"approval", "changes_requested"}:
                entry.taken_back = True
        self.touch(at, moves=self.repository.config.approvals_move_updated_on)

    def retitle(self, title: str, user: User | None, at: datetime) -> None:
        old, self.title = self.title, title
        self.updated(at, user, {"title": {"old": old, "new": title}})

    def ready(self, user: User | None, at: datetime) -> None:
        """Makes a draft ready for review. The shape of `changes` is inferred: no recording shows one."""
        self.draft = False
        self.updated(at, user, {"draft": {"old": True, "new": False}})

    def pushed(self, source: Commit, user: User | None, at: datetime) -> None:
        self.source = source
        self.target = self.repository.graph.branches.get(self.target_branch, self.target)
        self.updated(at, user, {})

    def retarget(self, branch: str, user: User | None, at: datetime) -> None:
        old, self.target_branch = self.target_branch, branch
        self.target, self.target_gone = self.repository.graph.branches[branch], False
        self.updated(at, user, {"destination": {"old": old, "new": branch}})

    def close(
        self, state: str, user: User | None, at: datetime, *, reason: str = "", merge_commit: Commit | None = None
    ) -> None:
        """Closes it as MERGED, DECLINED or SUPERSEDED. Call this before the target branch moves: `target` is kept."""
        old, self.state, self.reason = self.state, state, reason
        self.closed_by, self.merge_commit = user, merge_commit
        self.updated(at, user, {"status": {"old": STATUS_WORDS[old], "new": STATUS_WORDS[state]}})

    def merged_by_push(self, user: User, at: datetime, head: Commit) -> None:
        """Closes it as MERGED without an entry of the feed. Call this before the target branch moves, as `close`."""
        self.state, self.closed_by, self.merge_commit = "MERGED", user, head
        self.touch(at)

    def _judge(self, user: User, at: datetime, kind: str, state: str) -> None:
        if user in self.participants and self.participants[user].state:
            self.take_back(user, at)
        self._participates(user, at).state = state
        self.record(kind, at, user)
        self.touch(at, moves=self.repository.config.approvals_move_updated_on)

    def _participates(self, user: User, at: datetime) -> Participant:
        participant = self.participants.setdefault(user, Participant(user, "PARTICIPANT"))
        participant.participated_on = at
        return participant
