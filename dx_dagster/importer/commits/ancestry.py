"""Answers `git log` questions from the known commits of a repository."""

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

SHORT = 12
"""Characters of the abbreviated hashes in pull requests."""


class Ancestry:
    """Commits and their parents; `branch`: the commits that the default branch reaches.

    A question about a commit with unknown ancestors returns None where they could change the answer.
    """

    def __init__(self, branch: Iterable[tuple[str, Sequence[str]]]) -> None:
        self._parents = {sha: tuple(parents) for sha, parents in branch}
        self._by_short: dict[str, str] = {}
        self._depths: dict[str, int] = {}
        self._index(self._parents)
        self.branch = frozenset(self._parents)

    def add(self, commits: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Adds commits beside the default branch, together with all their unknown ancestors."""
        new = {sha: tuple(parents) for sha, parents in commits if sha not in self._parents}
        self._parents |= new
        self._index(new)

    def _index(self, hashes: Iterable[str]) -> None:
        for sha in hashes:
            # An abbreviation that two commits share identifies neither.
            self._by_short[sha[:SHORT]] = "" if sha[:SHORT] in self._by_short else sha

    def find(self, revision: str | None) -> str | None:
        """The whole hash of a known commit, from its first 12 characters or more."""
        if revision is None or len(revision) < SHORT:
            return None
        sha = self._by_short.get(revision[:SHORT])
        return sha if sha and sha.startswith(revision) else None

    def parents(self, sha: str) -> tuple[str, ...]:
        return self._parents.get(sha, ())

    def beside_branch(self, tip: str) -> set[str] | None:
        """`git log tip ^branch`: what the tip reaches and the default branch does not."""
        found: set[str] = set()
        waiting = [tip]
        while waiting:
            sha = waiting.pop()
            if sha in self.branch or sha in found:
                continue
            if sha not in self._parents:
                return None
            found.add(sha)
            waiting += self._parents[sha]
        return found

    def difference(self, tip: str, base: str) -> set[str] | None:
        """`git log tip ^base`: what the tip reaches and the base does not.

        Visits children before their parents, so a visited commit is final, and ends where only ancestors of the base
        are left. The cost depends on the commits in between, not on the length of the history.
        """
        excluded = {tip: False, base: True}  # the same commit when the base is the tip: excluded
        waiting: list[tuple[int, str]] = []
        for sha in excluded:
            heappush(waiting, (-self._depth(sha), sha))
        wanted = sum(not out for out in excluded.values())
        found: set[str] = set()
        while wanted:
            sha = heappop(waiting)[1]
            if sha not in self._parents:
                return None
            out = excluded[sha]
            if not out:
                found.add(sha)
                wanted -= 1
            for parent in self._parents[sha]:
                before = excluded.get(parent)
                if before is None:
                    excluded[parent] = out
                    heappush(waiting, (-self._depth(parent), parent))
                    wanted += not out
                elif out and not before:
                    excluded[parent] = True
                    wanted -= 1
        return found

    def _depth(self, sha: str) -> int:
        """The longest path from a commit without known parents: larger for a child than for its parents."""
        depths, waiting = self._depths, [sha]
        while waiting:
            one = waiting[-1]
            unknown = [parent for parent in self._parents.get(one, ()) if parent not in depths]
            if unknown and one not in depths:
                waiting += unknown
            else:
                waiting.pop()
                if one in self._parents:
                    depths[one] = 1 + max((depths[parent] for parent in self._parents[one]), default=0)
                else:
                    depths[one] = 0
        return depths[sha]
