"""The report of one step of an import: its progress, its notes and what it skipped."""

import re
from collections import Counter
from dataclasses import dataclass, field

from dx_dagster.bitbucket import BitbucketError
from dx_dagster.importer.workspace import Workspace

_UUID_OF_REPOSITORY = re.compile(r"(/repositories/[^/\s]+/)%7B[0-9A-Fa-f-]+%7D")


@dataclass(frozen=True)
class Skipped:
    """Something that the step could not import, while it imported the rest."""

    repository: str
    step: str
    reason: str


@dataclass
class Report:
    """What one step did.

    Attributes:
        requests: sent to Bitbucket, retries included.
        skipped: what could not be imported, with the reason.
        notes: fallbacks to more requests, and other observations.
        written: rows written, by `TABLE/inserted` and `TABLE/updated`.
    """

    step: str
    requests: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: Counter[str] = field(default_factory=Counter)


REPOSITORIES, PULL_REQUESTS = "repositories", "pull requests"


class Progress:
    """Counts the items that a step has done, for the listener. A step may count one thing after the other."""

    def __init__(self, workspace: Workspace, report: Report, total: int, counted: str = PULL_REQUESTS) -> None:
        self._workspace, self._report, self._total, self._counted = workspace, report, total, counted
        self._count = 0

    def add(self, count: int = 1) -> None:
        self._count += count
        requests = self._workspace.client.requests
        self._workspace.listener.progress(self._report.step, self._count, self._total, requests, self._counted)


def skip(workspace: Workspace, report: Report, repository: str, error: BitbucketError) -> None:
    """Reports a repository or pull request as skipped; its reason has the slug where the request had the uuid."""
    slug = repository.partition("#")[0]
    reason = _UUID_OF_REPOSITORY.sub(lambda found: found[1] + slug, str(error))
    report.skipped.append(Skipped(repository, report.step, reason))
    workspace.listener.warning(f"{report.step}: {repository} skipped: {reason}")


def note(workspace: Workspace, report: Report, message: str) -> None:
    """Adds a note to the report, and warns the listener."""
    report.notes.append(message)
    workspace.listener.warning(f"{report.step}: {message}")
