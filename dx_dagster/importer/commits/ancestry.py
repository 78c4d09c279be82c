"""Answers `git log` questions from the known commits of a repository.

Commits have numbers here, and arrays of numbers hold the history: about 60 bytes a commit, where objects take 700. A
history may have half a million commits.
"""

from array import array
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

SHORT = 12
"""Characters of the abbreviated hashes in pull requests."""

_LENGTH = 20  # bytes of a whole hash
_SHORT_LENGTH = SHORT // 2
_FIRST_SLOTS = 64
_NONE = -1

Reached = bytes
"""For each commit by its number, whether a head reaches it; later commits are not reached."""


class _Numbers:
    """Numbers hashes in the order in which they come; a hash table in two arrays."""

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._slots = array("i", [_NONE]) * _FIRST_SLOTS

    def __len__(self) -> int:
        return len(self._hashes) // _LENGTH

    def sha(self, number: int) -> str:
        return self._bytes(number).hex()

    def _bytes(self, number: int) -> bytearray:
        return self._hashes[number * _LENGTH : (number + 1) * _LENGTH]

    def find(self, wanted: bytes) -> int | None:
        """The number of the hash that begins like this; None where there is none, or more than one."""
        found = _NONE
        slots, mask = self._slots, len(self._slots) - 1
        slot = _place(wanted) & mask
        while (number := slots[slot]) != _NONE:
            if self._bytes(number).startswith(wanted):
                if found != _NONE:
                    return None
                found = number
            slot = (slot + 1) & mask
        return None if found == _NONE else found

    def add(self, sha: bytes) -> int:
        """The number of a whole hash, a new one if it has none."""
        slots, mask = self._slots, len(self._slots) - 1
        slot = _place(sha) & mask
        while (number := slots[slot]) != _NONE:
            if self._bytes(number) == sha:
                return number
            slot = (slot + 1) & mask
        number = len(self)
        self._hashes += sha
        slots[slot] = number
        if 2 * len(self) > len(slots):
            self._grow()
        return number

    def _grow(self) -> None:
        self._slots = slots = array("i", [_NONE]) * (2 * len(self._slots))
        mask = len(slots) - 1
        for number in range(len(self)):
            slot = _place(self._bytes(number)) & mask
            while slots[slot] != _NONE:
                slot = (slot + 1) & mask
            slots[slot] = number


def _place(sha: bytes | bytearray) -> int:
    """From the characters that an abbreviation has too."""
    return int.from_bytes(sha[:_SHORT_LENGTH])


def _read(revision: str | None) -> bytes | None:
    """The bytes of a hash or of an abbreviation, which may have an odd number of characters; None for other texts."""
    try:
        return bytes.fromhex((revision or "")[: len(revision or "") & ~1])
    except ValueError:
        return None


class Ancestry:
    """Commits and their parents.

    A question about a commit with unknown ancestors returns None where they could change the answer.

    Attributes:
        branch: the commits that the default branch reaches.
    """

    def __init__(self, branch: Iterable[tuple[str, Sequence[str]]] = ()) -> None:
        self._numbers = _Numbers()
        self._known = bytearray()
        self._first = array("i")
        self._second = array("i")
        self._others: dict[int, list[int]] = {}  # third and further parents, which are rare
        self._depths = array("i")
        self.branch: Reached = b""
        self.add_branch(branch)

    def add_branch(self, commits: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Adds commits of the default branch. Call it before `add`."""
        self.add(commits)
        self.branch = bytes(self._known)

    def add(self, commits: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Adds commits beside the default branch, together with all their unknown ancestors."""
        for sha, parents in commits:
            if (number := self._number(sha)) is None or self._known[number]:
                continue
            numbers = [found for parent in parents if (found := self._number(parent)) is not None]
            self._known[number] = True
            self._first[number], self._second[number] = [*numbers, _NONE, _NONE][:2]
            if numbers[2:]:
                self._others[number] = numbers[2:]

    def _number(self, sha: str) -> int | None:
        """The number of a commit, known or only named as a parent."""
        read = _read(sha)
        if read is None or len(read) != _LENGTH:
            return None
        number = self._numbers.add(read)
        if number == len(self._known):
            self._known.append(False)
            self._first.append(_NONE)
            self._second.append(_NONE)
            self._depths.append(0)
        return number

    def _find(self, revision: str | None) -> int | None:
        read = _read(revision)
        if revision is None or read is None or len(revision) < SHORT:
            return None
        number = self._numbers.find(read)
        return number if number is not None and self._known[number] else None

    def find(self, revision: str | None) -> str | None:
        """The whole hash of a known commit, from its first 12 characters or more.

        An abbreviation that two commits share identifies neither.
        """
        number = self._find(revision)
        sha = None if number is None else self._numbers.sha(number)
        return sha if sha and sha.startswith(revision or "") else None

    def parents(self, sha: str) -> tuple[str, ...]:
        number = self._find(sha)
        return () if number is None else tuple(self._numbers.sha(parent) for parent in self._parents(number))

    def _parents(self, number: int) -> list[int]:
        first, second = self._first[number], self._second[number]
        if second == _NONE:
            return [] if first == _NONE else [first]
        return [first, second, *self._others.get(number, ())]

    def reach(self, head: str) -> Reached | None:
        """The commits that a head reaches; None where some of them are unknown."""
        reached = bytearray(len(self._known))
        waiting = [] if (number := self._find(head)) is None else [number]
        while waiting:
            number = waiting.pop()
            if not self._known[number]:
                return None
            if not reached[number]:
                reached[number] = True
                waiting += self._parents(number)
        return bytes(reached) if any(reached) else None

    @staticmethod
    def is_reached(number: int, by: Reached) -> bool:
        return number < len(by) and bool(by[number])

    def holds(self, reached: Reached, sha: str | None) -> bool:
        """Whether the commit is among those that a head reaches."""
        number = self._find(sha)
        return number is not None and self.is_reached(number, reached)

    def beside(self, tip: str, reached: Reached) -> set[str] | None:
        """`git log tip ^head`: what the tip reaches and a head does not."""
        found: set[int] = set()
        start = self._find(tip)
        if start is None:
            return None
        waiting = [start]
        while waiting:
            number = waiting.pop()
            if number in found or self.is_reached(number, reached):
                continue
            if not self._known[number]:
                return None
            found.add(number)
            waiting += self._parents(number)
        return {self._numbers.sha(number) for number in found}

    def difference(self, tip: str, base: str) -> set[str] | None:
        """`git log tip ^base`: what the tip reaches and the base does not.

        Visits children before their parents, so a visited commit is final, and ends where only ancestors of the base
        are left. The cost depends on the commits in between, not on the length of the history.
        """
        ours, theirs = self._find(tip), self._find(base)
        if ours is None or theirs is None:
            return None
        excluded = {ours: False, theirs: True}  # the same commit when the base is the tip: excluded
        waiting: list[tuple[int, int]] = []
        for number in excluded:
            heappush(waiting, (-self._depth(number), number))
        wanted = sum(not out for out in excluded.values())
        found: list[int] = []
        while wanted:
            number = heappop(waiting)[1]
            if not self._known[number]:
                return None
            out = excluded[number]
            if not out:
                found.append(number)
                wanted -= 1
            for parent in self._parents(number):
                before = excluded.get(parent)
                if before is None:
                    excluded[parent] = out
                    heappush(waiting, (-self._depth(parent), parent))
                    wanted += not out
                elif out and not before:
                    excluded[parent] = True
                    wanted -= 1
        return {self._numbers.sha(number) for number in found}

    def _depth(self, number: int) -> int:
        """The longest path from a commit without known parents: larger for a child than for its parents."""
        depths, waiting = self._depths, [number]
        while waiting:
            one = waiting[-1]
            if depths[one] or not self._known[one]:
                waiting.pop()
                continue
            parents = self._parents(one)
            undecided = [parent for parent in parents if not depths[parent] and self._known[parent]]
            if undecided:
                waiting += undecided
            else:
                depths[one] = 1 + max((depths[parent] for parent in parents), default=0)
                waiting.pop()
        return depths[number]
