"""What the credentials of a pool see: tokens of single repositories and projects see different ones."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from dx_dagster.bitbucket.credentials import Credential

_DEPTH = 3  # repositories, workspace, repository


class Visibility:
    """Remembers who was refused what others may read, so that the same is not tried in vain for every request."""

    def __init__(self) -> None:
        self._blind: dict[str, set[int]] = defaultdict(set)

    def learn(self, path: str, refused: Iterable[int]) -> None:
        """Somebody was answered below this path after these credentials (by id) were refused."""
        place = _place(path)
        if place is not None:
            self._blind[place].update(refused)

    def blind(self, path: str, usable: Collection[Credential]) -> set[int]:
        """Who need not ask for this path; nobody where that would leave none of the usable."""
        blind = self._blind.get(_place(path) or "", set())
        return set(blind) if any(one.id not in blind for one in usable) else set()


def _place(path: str) -> str | None:
    """The repository that a path below the base leads to."""
    parts = path.strip("/").split("/")
    return "/".join(parts[:_DEPTH]) if parts[0] == "repositories" and len(parts) >= _DEPTH else None
