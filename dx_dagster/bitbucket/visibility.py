"""Which repositories each credential of a pool may read: access tokens of repositories and projects differ."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from dx_dagster.bitbucket.credentials import Credential

_DEPTH = 3  # repositories, workspace, repository


class Visibility:
    """Remembers which credentials were refused a repository that others may read, to skip them for later requests."""

    def __init__(self) -> None:
        self._blind: dict[str, set[int]] = defaultdict(set)

    def learn(self, path: str, refused: Iterable[int]) -> None:
        """Records that a request below this path succeeded after these credentials (by id) were refused."""
        place = _place(path)
        if place is not None:
            self._blind[place].update(refused)

    def blind(self, path: str, usable: Collection[Credential]) -> set[int]:
        """Ids of the credentials to skip for this path; empty where that would leave no usable one."""
        blind = self._blind.get(_place(path) or "", set())
        return set(blind) if any(one.id not in blind for one in usable) else set()


def _place(path: str) -> str | None:
    """The part of a path below the base that names a repository."""
    parts = path.strip("/").split("/")
    return "/".join(parts[:_DEPTH]) if parts[0] == "repositories" and len(parts) >= _DEPTH else None
