"""A repository's commit graph: hashes, parents, branches and `git log`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush

from dx_dagster.sandbox.people import User

SHORT = 12  # the length of a hash inside a pull request
SHORTEST = 4  # below that git takes no abbreviation


@dataclass(slots=True, eq=False)
class Commit:
    """A commit. `sequence` grows along every edge of the graph, so that descending order is topological."""

    sha: str
    parents: "tuple[Commit, ...]" = field(repr=False)  # a whole history otherwise
    raw: str
    user: User | None
    date: datetime
    message: str
    sequence: int

    @property
    def short(self) -> str:
        return self.sha[:SHORT]


class GitGraph:
    """All commits ever made, reachable or not, and the branches' heads."""

    def __init__(self, name: str) -> None:
        self.branches: dict[str, Commit] = {}
        self._name = name
        self._by_short: dict[str, Commit] = {}

    def __len__(self) -> int:
        return len(self._by_short)

    def add(
        self, parents: tuple[Commit, ...], author: User | str, message: str, date: datetime, user: User | None = None
    ) -> Commit:
        """A new commit on no branch. An author given as text is an e-mail address that belongs to no account."""
        if isinstance(author, User):
            raw, user, date = author.signature, user or author, date.astimezone(author.zone)
        else:
            raw = author
        sequence = len(self._by_short) + 1
        date = date.replace(microsecond=0)
        inside = f"{self._name}\n{sequence}\n{[p.sha for p in parents]}\n{raw}\n{date}\n{message}"
        sha = hashlib.sha1(inside.encode(), usedforsecurity=False).hexdigest()
        commit = Commit(sha, parents, raw, user, date, message, sequence)
        self._by_short[sha[:SHORT]] = commit
        return commit

    def forget(self, commit: Commit) -> None:
        """No revision finds the commit from now on; references to it stay."""
        del self._by_short[commit.short]

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch's name, or of a hash with at least four digits."""
        if revision in self.branches:
            return self.branches[revision]
        revision = revision.lower()
        if len(revision) >= SHORT:
            commit = self._by_short.get(revision[:SHORT])
            return commit if commit and commit.sha.startswith(revision) else None
        if len(revision) < SHORTEST:
            return None
        found = [commit for short, commit in self._by_short.items() if short.startswith(revision)]
        return found[0] if len(found) == 1 else None


def log(include: Sequence[Commit], exclude: Sequence[Commit] = ()) -> list[Commit]:
    """`git log include ^exclude`: newest first, children before parents.

    Walks from both sides in topological order and ends when nothing wanted is left, so that the commits of one pull
    request cost no walk over the whole history.
    """
    if not exclude:
        return _everything(include)
    unwanted: dict[Commit, bool] = {}
    heap: list[tuple[int, Commit]] = []
    wanted = 0
    found: list[Commit] = []
    edges = [(commit, True) for commit in exclude] + [(commit, False) for commit in include]
    while True:
        for commit, excluded in edges:
            before = unwanted.get(commit)
            if before is None:
                unwanted[commit] = excluded
                heappush(heap, (-commit.sequence, commit))
                wanted += not excluded
            elif excluded and not before:
                unwanted[commit] = True
                wanted -= 1
        if not wanted:
            return found
        commit = heappop(heap)[1]
        excluded = unwanted[commit]
        if not excluded:
            found.append(commit)
            wanted -= 1
        edges = [(parent, excluded) for parent in commit.parents]


def _everything(include: Sequence[Commit]) -> list[Commit]:
    seen = set(include)
    stack = list(seen)
    while stack:
        for parent in stack.pop().parents:
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=lambda commit: -commit.sequence)


def is_ancestor(old: Commit, new: Commit) -> bool:
    """Whether `new` already holds `old`: then a branch at `old` can be fast-forwarded to `new`."""
    return not log([old], [new])
