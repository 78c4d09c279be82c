# ruff: noqa: PLR2004 - the numbers are chances: a name for each would say nothing more
"""The files that a pull request changes, and the pull requests about which Bitbucket does not tell them.

Both follow from its source commit and the name of its target, so that they stay until one of these changes: as in a
diff from the merge base, which new commits of the target do not change.
"""

from random import Random
from typing import NamedTuple

from dx_dagster.sandbox import vocabulary
from dx_dagster.sandbox.answers import Refused, error
from dx_dagster.sandbox.pull_requests import PullRequest

SUFFIXES = ("py", "md", "ts", "yaml", "png")


class ChangedFile(NamedTuple):
    """`old` is None for an added file, `new` for a removed one."""

    old: str | None
    new: str | None
    added: int
    removed: int

    @property
    def status(self) -> str:
        if self.old is None or self.new is None:
            return "added" if self.old is None else "removed"
        return "modified" if self.old == self.new else "renamed"


def _chances(pull_request: PullRequest, what: str) -> Random:
    return Random(f"{what} {pull_request.source.sha} {pull_request.target_branch}")


def changed_files(pull_request: PullRequest) -> list[ChangedFile]:
    """Mostly a few; now and then none, or more than fit on a page."""
    rng = _chances(pull_request, "files")
    count = 101 + int(rng.random() * 150) if rng.random() < 0.03 else int(rng.expovariate(0.2))
    return [_file(rng, number) for number in range(count)]


def _file(rng: Random, number: int) -> ChangedFile:
    suffix = vocabulary.pick(rng, SUFFIXES)
    path = f"src/{number:03d}/ünïcode name.{suffix}" if rng.random() < 0.1 else f"src/{number:03d}.{suffix}"
    added, removed = (0, 0) if suffix == "png" else (int(rng.expovariate(0.05)), int(rng.expovariate(0.1)))
    chance = rng.random()
    if chance < 0.15:
        return ChangedFile(None, path, added, 0)
    if chance < 0.25:
        return ChangedFile(path, None, 0, removed)
    return ChangedFile(path, f"moved/{path}" if chance < 0.35 else path, added, removed)


def refusal(pull_request: PullRequest) -> Refused | None:
    """The answer where Bitbucket cannot tell (docs/bitbucket-api.md, "Diffstat")."""
    if pull_request.fork_gone:
        return Refused(404, error("The source repository of this pull request no longer exists.", typed=False))
    chance = _chances(pull_request, "refusal").random()
    if chance < 0.03:
        return Refused(555, error("Unable to respond in time"))
    if chance < 0.05:
        return Refused(400, error("No common ancestor"))
    if chance < 0.08:
        return Refused(404, error("Commit not found", data={"shas": [pull_request.source.sha]}))
    return None
