"""A repository's history, as far as it is needed to prove the commits of its pull requests.

The default branch is stored with all parents, so what a merge commit brought costs no request. Sources beside it
(squashed, declined, open) are fetched many at a time: `/commits` with repeated `include`. So is the history of another
branch that is the target of some pull requests. `proofs` says what such a history proves.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from dx_dagster.frames.commits import CommitRow
from dx_dagster.importer.commits.ancestry import Ancestry, Reached
from dx_dagster.importer.commits.proofs import ends, may_be_proven, prove
from dx_dagster.importer.each_pull import PullRow
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.imported import pulls
from dx_dagster.warehouse.imported.commits import Targets
from dx_dagster.warehouse.imported.marks import CommitsMark, MarkedRepository, with_marks
from dx_dagster.warehouse.imported.pulls import Heads

WORTHWHILE = 4
"""For fewer pull requests of a repository, its history is not loaded."""

_FAILURES = 8
"""Failed requests for many revisions, none of which succeeded, after which Bitbucket is taken not to answer them."""


@dataclass
class Including:
    """How requests for many revisions went in this import."""

    succeeded: bool = False
    failed: int = 0

    @property
    def is_hopeless(self) -> bool:
        return self.failed >= _FAILURES and not self.succeeded


@dataclass
class Known:
    """What is known of a repository's commits.

    Attributes:
        branches: what each other branch reaches; None for a branch that was requested in vain.
        heads: of these branches, all of whose commits are known.
        beside: commits of these branches that the default one does not reach, by hash.
    """

    ancestry: Ancestry = field(default_factory=Ancestry)
    branches: dict[str, Reached | None] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    beside: dict[str, CommitRow] = field(default_factory=dict)


@dataclass
class History:
    """One repository's commits, and the pull requests whose commits they may prove.

    Attributes:
        known: shared by all parts of a large repository.
        beside: fetched commits of sources and merges that no branch reaches, by hash.
        pages_left: how many more pages of such commits are worth fetching.
    """

    repository: MarkedRepository[CommitsMark]
    rows: Sequence[PullRow]
    heads: Mapping[str, Heads]
    asked_at: datetime
    known: Known
    including: Including
    beside: dict[str, CommitRow] = field(default_factory=dict)
    pages_left: int = 0

    @property
    def ancestry(self) -> Ancestry:
        return self.known.ancestry

    def commit(self, sha: str) -> CommitRow | None:
        """A commit that the default branch does not reach."""
        return self.beside.get(sha) or self.known.beside.get(sha)

    def is_into_default(self, row: PullRow) -> bool:
        return self.heads[row.id].target_branch == self.repository.default_branch

    def closes_source(self, row: PullRow) -> bool:
        return self.heads[row.id].state != "OPEN" and bool(self.heads[row.id].closes_source)

    def missing(self, row: PullRow) -> list[str]:
        """The hashes that must be fetched. An earlier part may have fetched them: its commits are not kept."""
        return [sha for sha in ends(self.heads[row.id]) if not self._holds(sha)]

    def _holds(self, revision: str) -> bool:
        sha = self.ancestry.find(revision)
        return sha is not None and (self.ancestry.holds(self.ancestry.branch, sha) or self.commit(sha) is not None)

    def _branch(self, row: PullRow) -> Reached | None:
        """What the target branch of a pull request reaches, where it is another than the default one and known."""
        return self.known.branches.get(self.heads[row.id].target_branch or "")

    def is_promising(self, row: PullRow) -> bool:
        """Whether its source, and its merge commit, could prove its commits."""
        return self.heads[row.id].state == "MERGED" or self.is_into_default(row) or self._branch(row) is not None

    def prove(self, row: PullRow, targets: Targets) -> tuple[str, set[str]] | None:
        """The kind of pull request and the hashes of its commits; None where the history does not prove them."""
        if not self.is_promising(row):
            return None
        branch = None if self.is_into_default(row) else self._branch(row)
        return prove(self.heads[row.id], self.ancestry, targets, branch)


class Split(NamedTuple):
    """Pull requests that a history may prove, by repository; those whose fork is deleted; and the rest."""

    histories: list[History]
    forkless: list[PullRow]
    others: list[PullRow]


async def split(
    workspace: Workspace, rows: Sequence[PullRow], known: Mapping[str, Known], including: Including
) -> Split:
    """Splits pull requests by how their commits are found; `known`: what earlier parts of repositories have brought."""
    warehouse = workspace.warehouse
    marked = await with_marks(warehouse, workspace.id, CommitsMark)
    complete = {one.id: one for one in marked if one.mark.synced_to is not None and one.mark.head}
    heads = await pulls.heads(warehouse, [row.id for row in rows])
    provable: dict[str, list[PullRow]] = defaultdict(list)
    for row in rows:
        if row.repository.id in complete and may_be_proven(heads[row.id]):
            provable[row.repository.id].append(row)
    histories = [
        History(
            complete[repository_id],
            of_it,
            {row.id: heads[row.id] for row in of_it},
            workspace.now(),
            known.get(repository_id) or Known(),
            including,
        )
        for repository_id, of_it in provable.items()
        if len(of_it) >= WORTHWHILE
    ]
    in_history = {row.id for history in histories for row in history.rows}
    others = [row for row in rows if row.id not in in_history]
    forkless = [row for row in others if heads[row.id].from_fork and not heads[row.id].source]
    gone = {row.id for row in forkless}
    return Split(histories, forkless, [row for row in others if row.id not in gone])
