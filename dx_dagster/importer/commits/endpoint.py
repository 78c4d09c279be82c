"""Fetches the commits of pull requests from their endpoint, with a request for each pull request."""

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from dx_dagster.bitbucket import NotFound, Page, cursor, endpoints
from dx_dagster.frames import commits as frames
from dx_dagster.frames.commits import CommitRow
from dx_dagster.frames.reading import Json, text
from dx_dagster.importer.accounts import store_authors
from dx_dagster.importer.each_pull import PullRow
from dx_dagster.importer.pull_requests import fetch_one
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import commits, pulls, review_times, stale

_UNCONFIRMED = " unconfirmed"
"""Appended to the version in a mark, which then equals no version: the list is requested once more."""
_HASH = re.compile(r"[0-9a-f]{12}")


class FetchedCommits(NamedTuple):
    """All commits of one pull request; `values` is None where its source is gone."""

    row: PullRow
    values: list[Json] | None
    asked_at: datetime


async def fetch(workspace: Workspace, row: PullRow) -> FetchedCommits:
    """Fetches the commits of a pull request.

    Raises:
        NotFound: the list is missing, or a later page of it; the pull request stays stale.
    """
    endpoint = endpoints.pull_request_commits(workspace.slug, row.repository.source_id, row.number)
    asked_at = workspace.now()
    pages: list[Page] = []
    try:
        async for page in cursor(workspace.client, endpoint):
            pages.append(page)  # noqa: PERF401 - whether there was a first page matters
    except NotFound as error:
        # It may name the commits that Bitbucket no longer has.
        if pages or not (error.revisions or await _lost_its_source(workspace, row)):
            raise
        return FetchedCommits(row, None, asked_at)
    return FetchedCommits(row, [value for page in pages for value in page.values], asked_at)


async def _lost_its_source(workspace: Workspace, row: PullRow) -> bool:
    """Whether a 404 of the list means that the fork or branch is gone: the stored commits stay.

    An open pull request shows whether its source is gone. A credential that lost its access gets 404 for everything:
    each other pull request must answer, unless its source is known to be gone.

    Raises:
        NotFound: the repository answers 404 too.
    """
    heads = (await pulls.heads(workspace.warehouse, [row.id]))[row.id]
    if not heads.source:
        return True
    return heads.state != "OPEN" and await fetch_one(workspace, row.repository, row.number)


async def leaves_it_to_history(workspace: Workspace, fetched: FetchedCommits) -> bool:
    """Whether the list of a closed pull request of which no commit is stored is empty or missing.

    Its source branch may be gone. The history of its target, which a sync loads, may prove its commits all the same.
    """
    if fetched.values:
        return False
    pull = fetched.row.id
    heads = (await pulls.heads(workspace.warehouse, [pull]))[pull]
    async with workspace.warehouse.transaction(read_only=True) as transaction:
        stored = (await pulls.commits_marked(transaction, [pull]))[pull].hashes
    return heads.state != "OPEN" and bool(heads.source) and not stored


async def store(workspace: Workspace, batch: Sequence[FetchedCommits]) -> None:
    """Stores what the endpoint returned.

    A list that was made while the target stood elsewhere than at the last walk of the default branch is requested
    again by the next sync, unless that one gets the same list: the target may be rewritten and restored between two
    walks, which both walks miss.
    """
    asked_at = min(fetched.asked_at for fetched in batch)
    lists = [(fetched.row, list(frames.rows(workspace.id, fetched.values or ()))) for fetched in batch]
    values = [value for fetched in batch for value in fetched.values or ()]
    async with workspace.warehouse.transaction() as transaction:
        await store_authors(transaction, workspace, values, asked_at)
        unconfirmed = await _unconfirmed(transaction, batch)
        await store_lists(transaction, lists, asked_at, unconfirmed)


async def store_lists(
    transaction: Transaction,
    lists: Sequence[tuple[PullRow, Sequence[CommitRow]]],
    asked_at: datetime,
    unconfirmed: Collection[str] = (),
) -> None:
    """Merges the commits of pull requests and their marks; `unconfirmed` pull requests stay stale.

    A stored commit that is missing from a list was removed by a push. An empty list may only mean that the branch is
    gone: it removes only commits that the target contains by now.
    """
    frame = frames.pull_commits(((row.id, commit) for row, commits in lists for commit in commits), asked_at)
    await transaction.merge(merge.PULL_COMMITS, frame)
    listed = [row.id for row, commits in lists if commits]
    await pulls.mark_other_commits_deleted(transaction, listed, frame["id"].to_list())
    await commits.mark_taken_commits_deleted(transaction, [row.id for row, commits in lists if not commits])
    await review_times.derive_first_commits(transaction, [row.id for row, _ in lists])
    stored = await _versions(transaction, [row for row, _ in lists])
    marks = [(row, row.version + _UNCONFIRMED if row.id in unconfirmed else stored[row.id]) for row, _ in lists]
    await pulls.set_marks(transaction, "commits_synced_for", marks)


async def _unconfirmed(transaction: Transaction, batch: Sequence[FetchedCommits]) -> set[str]:
    """The ids of open pull requests whose list contradicts the stored default branch, which is their target.

    If the stored branch is the target, it contains no commit of the list, and every parent of the list's oldest
    commits. A second identical list in a row is accepted.
    """
    complete = [fetched for fetched in batch if fetched.values is not None]
    lists = {fetched.row.id: _hashes(fetched) for fetched in complete}
    beside = [(one, sha) for one, hashes in lists.items() for sha in hashes]
    below = [(fetched.row.id, sha) for fetched in complete for sha in _below(fetched, lists[fetched.row.id])]
    contradicting = await commits.pulls_that_contradict(transaction, beside, below)
    if not contradicting:
        return set()
    before = await pulls.commits_marked(transaction, contradicting)
    rows = {fetched.row.id: fetched.row for fetched in complete}
    return {
        one
        for one in contradicting
        if before[one].hashes != lists[one] or not _was_unconfirmed(before[one].synced_for, rows[one].version)
    }


def _hashes(fetched: FetchedCommits) -> set[str]:
    return {sha for value in fetched.values or () if (sha := text(value.get("hash")))}


def _below(fetched: FetchedCommits, hashes: set[str]) -> set[str]:
    """Hashes that the target must contain: parents outside of the list, and the source itself if it is not listed."""
    source = fetched.row.version.partition(" ")[0]
    is_listed = any(sha.startswith(source) for sha in hashes)
    parents = {sha for value in fetched.values or () for sha in frames.parents(value)}
    return parents - hashes | ({source} if _HASH.fullmatch(source) and not is_listed else set())


def _was_unconfirmed(mark: str | None, version: str) -> bool:
    """Whether the last list, of the same source and target, was not accepted."""
    before, unconfirmed, _ = (mark or "").partition(_UNCONFIRMED)
    return bool(unconfirmed) and before.rpartition(" ")[0] == version.rpartition(" ")[0]


async def _versions(transaction: Transaction, rows: Sequence[PullRow]) -> dict[str, str]:
    """The versions that were fetched, with the number of commits that are stored by now.

    The old number would make a pull request stale at once if the default branch contains some of the commits.
    """
    now = await stale.commits_versions(transaction, [row.id for row in rows])
    return {row.id: _recounted(row.version, now.get(row.id, row.version)) for row in rows}


def _recounted(asked: str, now: str) -> str:
    """`now`, unless the pull request itself has changed since the request."""
    return now if now.rpartition(" ")[0] == asked.rpartition(" ")[0] else asked
