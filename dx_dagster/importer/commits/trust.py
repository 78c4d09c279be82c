"""Decides for which kinds of pull request the history may replace the endpoint, by comparing samples. Pure.

Bitbucket's documentation says of the endpoint "empty if the source branch no longer exists", so the two may differ. Of
every kind, the oldest pull requests are compared first, because their branches are most likely gone. Where one answer
differs, all pull requests of that kind are requested; where an answer is empty, all but the open ones.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

CERTAIN = 3
"""So many answers of the endpoint must agree with the history before a kind is trusted."""

SAMPLED = 50
"""Once a kind is trusted, one pull request of so many is compared; each answer that agrees doubles the number."""

_OPEN = "open"

Item = TypeVar("Item")


@dataclass
class _Shown:
    """The answers about one kind.

    Attributes:
        since: pull requests of that kind since the last one compared.
        interval: so many are not compared before the next one is.
    """

    agreed: int = 0
    since: int = 0
    interval: int = SAMPLED
    differed: bool = False


class Trust:
    """The kinds of pull request for which the history may replace the endpoint.

    `agreed`: kinds, once for each answer that agreed before.
    """

    def __init__(self, agreed: Iterable[str] = ()) -> None:
        self._shown: defaultdict[str, _Shown] = defaultdict(_Shown)
        self._forgets_branches = False
        for kind in agreed:
            self.agreed(kind)

    @property
    def agrees(self) -> bool:
        """Whether no answer has differed."""
        return not any(shown.differed for shown in self._shown.values())

    def agrees_beyond_doubt(self, kind: str, answers: int) -> bool:
        """Whether enough answers have agreed without the last ones, and none differed."""
        return self.agrees and self._shown[kind].agreed - answers >= CERTAIN

    def is_certain(self, kind: str) -> bool:
        """Whether enough answers have agreed."""
        return self._shown[kind].agreed >= CERTAIN

    def is_broken(self, kind: str) -> bool:
        """Whether each pull request of the kind must be requested."""
        return self._shown[kind].differed or (self._forgets_branches and kind != _OPEN)

    def is_trusted(self, kind: str) -> bool:
        """Whether enough answers have agreed, and none differs."""
        return self.is_certain(kind) and not self.is_broken(kind)

    def choose(self, kind: str, proven: Sequence[Item]) -> list[Item]:
        """The pull requests to compare, oldest first, of those `proven`, newest first."""
        if self.is_broken(kind):
            return []
        shown, chosen = self._shown[kind], []
        wanted = CERTAIN - shown.agreed
        for one in reversed(proven):
            shown.since += 1
            if wanted > 0 or shown.since >= shown.interval:
                shown.interval *= 1 if wanted > 0 else 2
                wanted -= 1
                shown.since = 0
                chosen.append(one)
        return chosen

    def agreed(self, kind: str) -> None:
        """Records an answer equal to what the history proves."""
        self._shown[kind].agreed += 1

    def differed(self, kind: str, *, empty: bool) -> None:
        """Records a different answer; `empty`: it had no commits."""
        self._shown[kind].differed = True
        self._forgets_branches |= empty and kind != _OPEN
