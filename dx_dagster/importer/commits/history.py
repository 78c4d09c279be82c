"""A repository's history, as far as it is needed to prove the commits of its pull requests.

The default branch is stored with all parents, so what a merge commit brought costs no request. Sources beside the
default branch (squashed, declined, open) are fetched fifty at a time: `/commits` with repeated `include`. `proofs` says
what such a history proves.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dx_dagster.bitbucket import (
    BadRequest,
    BitbucketError,
    Forbidden,
    NotFound,
    PagingInCircles,
    RefusedOrigin,
    Unavailable,
    cursor,
    endpoints,
)
from dx_dagster.frames import commits as frames
from dx_dagster.frames.commits import CommitRow
from dx_dagster.frames.reading import Json
from dx_dagster.importer.accounts import store_authors
from dx_dagster.importer.commits.ancestry import Ancestry
from dx_dagster.importer.commits.proofs import may_be_proven, missing
from dx_dagster.importer.each import batches, lacks_scope
from dx_dagster.importer.each_pull import PullRow
from dx_dagster.importer.report import Report, note
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.imported import commits, pulls
from dx_dagster.warehouse.imported.marks import CommitsMark, MarkedRepository, with_marks
from dx_dagster.warehouse.imported.pulls import Heads

WORTHWHILE = 4
"""For fewer pull requests of a repository, its history is not loaded."""

INCLUDED = 50
"""Revisions of one request: well within the length of an address."""


@dataclass
class History:
    """One repository's commits, and the pull requests whose commits they may prove.

    Attributes:
        beside: fetched commits that the default branch does not reach, by hash.
        pages_left: how many more pages of such commits are worth fetching.
    """

    repository: MarkedRepository[CommitsMark]
    rows: Sequence[PullRow]
    heads: Mapping[str, Heads]
    asked_at: datetime
    ancestry: Ancestry = field(default_factory=lambda: Ancestry(()))
    beside: dict[str, CommitRow] = field(default_factory=dict)
    pages_left: int = 0

    def forget(self) -> None:
        """Frees the commits: those of all repositories together take much memory."""
        self.ancestry, self.beside = Ancestry(()), {}


async def split(workspace: Workspace, rows: Sequence[PullRow]) -> tuple[list[History], list[PullRow]]:
    """Splits pull requests into those that a history may prove, by repository, and the rest."""
    warehouse = workspace.warehouse
    marked = await with_marks(warehouse, workspace.id, CommitsMark)
    complete = {one.id: one for one in marked if one.mark.synced_to is not None and one.mark.head}
    heads = await pulls.heads(warehouse, [row.id for row in rows])
    provable: dict[str, list[PullRow]] = defaultdict(list)
    for row in rows:
        if (repository := complete.get(row.repository.id)) and may_be_proven(heads[row.id], repository):
            provable[repository.id].append(row)
    histories = [
        History(complete[repository_id], of_it, {row.id: heads[row.id] for row in of_it}, workspace.now())
        for repository_id, of_it in provable.items()
        if len(of_it) >= WORTHWHILE
    ]
    in_history = {row.id for history in histories for row in history.rows}
    return histories, [row for row in rows if row.id not in in_history]


async def load(workspace: Workspace, report: Report, history: History) -> list[PullRow]:
    """Loads the stored default branch and fetches what is beside it; returns the pull requests whose commits it holds.

    Raises:
        BitbucketError: a credential lacks a scope, or none is left.
    """
    history.ancestry = Ancestry(await commits.graph(workspace.warehouse, history.repository.id))
    _take(workspace, history, await workspace.kept_commits(history.repository.id))
    held: list[PullRow] = []
    beside: list[PullRow] = []
    for row in history.rows:
        (beside if missing(history.heads[row.id], history.ancestry) else held).append(row)
    # Where a branch beside the default one has a long history of its own, a request for each pull request is cheaper.
    history.pages_left = max(2, len(beside) // 3)
    for batch in batches(beside, INCLUDED):
        if not await _fetch(workspace, report, history, batch):
            break
        held += batch
    return held


async def _fetch(workspace: Workspace, report: Report, history: History, batch: Sequence[PullRow]) -> bool:
    """Fetches commits that the sources and merges reach and the default branch does not.

    False where there are too many, or Bitbucket does not answer: half of them prove nothing.
    """
    wanted = dict.fromkeys(sha for row in batch for sha in missing(history.heads[row.id], history.ancestry))
    values: list[dict[str, Any]] = []
    while wanted:
        endpoint = endpoints.commits(
            workspace.slug, history.repository.source_id, list(wanted), [history.repository.mark.head or ""]
        )
        try:
            async for page in cursor(workspace.client, endpoint):
                history.pages_left -= 1
                values += page.values
                if page.next is not None and history.pages_left <= 0:
                    return False
            break
        except NotFound as error:
            # Bitbucket names the revisions that it no longer has; the others may be requested again.
            gone = {sha for sha in wanted if sha in error.revisions}
            if not gone:
                return _give_up(workspace, report, history, error)
            wanted = {sha: None for sha in wanted if sha not in gone}
        except (Forbidden, BadRequest, PagingInCircles, RefusedOrigin, Unavailable) as error:
            if lacks_scope(error):
                raise
            return _give_up(workspace, report, history, error)
    _take(workspace, history, values)
    async with workspace.warehouse.transaction() as transaction:
        await store_authors(transaction, workspace, values, history.asked_at)
        await workspace.keep_commits(transaction, history.repository.id, values)
    return True


def _take(workspace: Workspace, history: History, values: Sequence[Json]) -> None:
    history.ancestry.add((value["hash"], frames.parents(value)) for value in values if value.get("hash"))
    history.beside.update((row.sha, row) for row in frames.rows(workspace.id, values))


def _give_up(workspace: Workspace, report: Report, history: History, error: BitbucketError) -> bool:
    slug = history.repository.slug
    note(workspace, report, f"{slug}: commits are requested for each pull request by itself ({error})")
    return False
