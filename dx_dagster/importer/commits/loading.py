"""Loads a repository's history: the stored default branch, and what is beside it from Bitbucket."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from dx_dagster.bitbucket import BadRequest, BitbucketError, NotFound, cursor, endpoints
from dx_dagster.bitbucket.paging import ask
from dx_dagster.frames import commits as frames
from dx_dagster.frames.commits import CommitRow
from dx_dagster.frames.reading import Json, text
from dx_dagster.importer.accounts import store_authors
from dx_dagster.importer.commits.ancestry import SHORT, Reached
from dx_dagster.importer.commits.history import History
from dx_dagster.importer.each import OF_ONE_REQUEST, for_each, lacks_scope
from dx_dagster.importer.each_pull import PullRow
from dx_dagster.importer.report import Report, note
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse.imported import commits

LEARNED = 3
"""For fewer unmerged pull requests into another branch, its history is not fetched."""

INCLUDED = 90
"""Revisions of one request: within the length of an address, and fewer than the 100 that are known to be accepted."""

_PAGES_OF_ONE = 3
"""Pages that a batch of revisions may take in any case."""

_TOO_FEW = 3
"""So many pull requests are requested by themselves, and no more in halves."""

_AT_ONCE = 4
"""Batches of one repository that are requested at a time."""


async def load(workspace: Workspace, report: Report, history: History) -> list[PullRow]:
    """Loads the stored default branch and fetches what is beside it; returns the pull requests whose commits it holds.

    Raises:
        BitbucketError: a credential lacks a scope, or none is left.
    """
    if not history.ancestry.branch:
        await commits.graph(workspace.warehouse, history.repository.id, history.ancestry.add_branch)
    history.beside.update(_add(workspace, history, await workspace.kept_commits(history.repository.id)))
    await _learn_branches(workspace, report, history)
    promising = [row for row in history.rows if history.is_promising(row)]
    held = [row for row in promising if not history.missing(row)]
    in_held = {row.id for row in held}
    # Commits whose branch is closed may be gone: together, they fail together.
    beside = sorted((row for row in promising if row.id not in in_held), key=history.closes_source)
    into_default = [row for row in beside if history.is_into_default(row)]
    into_others = [row for row in beside if not history.is_into_default(row)]
    if into_default and into_others and len(list(_by_revisions(history, beside))) == 1:
        fetched = await _fetch_all(workspace, report, history, beside, most=_PAGES_OF_ONE)
        if fetched:
            return held + fetched
    # Another branch may have a long history of its own, which must not stop the requests for the default one.
    for rows in (into_default, into_others):
        held += await _fetch_all(workspace, report, history, rows, most=len(rows) // 2)
    return held


async def _fetch_all(
    workspace: Workspace, report: Report, history: History, rows: Sequence[PullRow], most: int
) -> list[PullRow]:
    """Fetches the missing commits of pull requests; returns those whose commits are known then.

    With more than `most` pages, a request for each pull request is cheaper.
    """
    history.pages_left = max(_PAGES_OF_ONE, most)
    fetched: list[PullRow] = []

    async def fetch(batch: Sequence[PullRow]) -> None:
        fetched.extend(await _fetch(workspace, report, history, batch))

    await for_each(list(_by_revisions(history, rows)), fetch, _AT_ONCE)
    return fetched


def _by_revisions(history: History, rows: Sequence[PullRow]) -> Iterator[list[PullRow]]:
    """Batches of pull requests with at most `INCLUDED` revisions to fetch."""
    batch: list[PullRow] = []
    count = 0
    for row in rows:
        needed = len(history.missing(row))
        if batch and count + needed > INCLUDED:
            yield batch
            batch, count = [], 0
        batch.append(row)
        count += needed
    if batch:
        yield batch


async def _learn_branches(workspace: Workspace, report: Report, history: History) -> None:
    """Fetches the history of other branches that are the target of some pull requests."""
    into: Counter[str] = Counter()
    for heads in history.heads.values():
        # Of a merged one, its merge commit says where the target was. No target is named once its branch is gone.
        if heads.state != "MERGED" and heads.target and heads.target_branch != history.repository.default_branch:
            into[heads.target_branch or ""] += 1
    for branch, count in into.most_common():
        if branch and branch not in history.known.branches and count >= LEARNED:
            most = max(1, count // 2)
            history.known.branches[branch] = await _learn(workspace, report, history, branch, most)


async def _learn(workspace: Workspace, report: Report, history: History, branch: str, most: int) -> Reached | None:
    """What a branch reaches by now; None where it is gone, or longer than `most` pages."""
    known, slug, uuid = history.known, workspace.slug, history.repository.source_id
    values: list[Json] = []
    try:
        # In a path, a branch may not contain "/" (BCLOUD-9969, about /commit/); as a parameter it may.
        async for page in cursor(workspace.client, endpoints.commits(slug, uuid, [branch], _excluded(history))):
            values += page.values
            if page.next is not None and page.number >= most:
                return None
        newest = (
            values
            or (
                # Everything is known that it reaches; but not where it is.
                await ask(
                    workspace.client, replace(endpoints.commits(slug, uuid, [branch]), pagelen=endpoints.LEAST_PAGE)
                )
            ).values
        )
    except OF_ONE_REQUEST as error:
        if lacks_scope(error):
            raise
        note(workspace, report, f"{history.repository.slug}: the history of branch {branch} is not read ({error})")
        return None
    known.beside.update(await _take(workspace, history, values))
    head = text(newest[0].get("hash")) if newest else None
    if head is None:
        return None
    if values:
        known.heads.append(head)
    return known.ancestry.reach(head)


def _excluded(history: History) -> list[str]:
    return [history.repository.mark.head or "", *history.known.heads]


async def _take(workspace: Workspace, history: History, values: Sequence[Json]) -> dict[str, CommitRow]:
    """Adds commits to the history, and stores their authors; returns the commits."""
    async with workspace.warehouse.transaction() as transaction:
        await store_authors(transaction, workspace, values, history.asked_at)
        # Beside another branch, they would be kept without their ancestors.
        if not history.known.heads:
            await workspace.keep_commits(transaction, history.repository.id, values)
    return _add(workspace, history, values)


def _add(workspace: Workspace, history: History, values: Sequence[Json]) -> dict[str, CommitRow]:
    history.ancestry.add((value["hash"], frames.parents(value)) for value in values if value.get("hash"))
    return {row.sha: row for row in frames.rows(workspace.id, values)}


async def _fetch(workspace: Workspace, report: Report, history: History, batch: Sequence[PullRow]) -> list[PullRow]:
    """Fetches commits that the sources and merges reach and no known branch does.

    Returns the pull requests whose commits are known then. None are where there are too many: half of them prove
    nothing.
    """
    is_held = await _request(workspace, report, history, batch)
    if is_held is None:
        return await _fetch_halves(workspace, report, history, batch)
    return list(batch) if is_held else []


async def _fetch_halves(
    workspace: Workspace, report: Report, history: History, batch: Sequence[PullRow], in_vain: int = 0
) -> list[PullRow]:
    """Requests each half of a refused batch, and so on: one revision that is gone may refuse a request for many.

    `in_vain`: in so many generations before, both halves were refused. Many revisions are gone then.
    """
    middle = len(batch) // 2
    if middle < _TOO_FEW or in_vain > 1:
        return []
    held: list[PullRow] = []
    refused: list[Sequence[PullRow]] = []
    for half in (batch[:middle], batch[middle:]):
        is_held = await _request(workspace, report, history, half)
        if is_held is None:
            refused.append(half)
        elif is_held:
            held += half
    for half in refused:
        held += await _fetch_halves(workspace, report, history, half, in_vain + 1 if len(refused) > 1 else 0)
    return held


async def _request(workspace: Workspace, report: Report, history: History, batch: Sequence[PullRow]) -> bool | None:
    """Whether the commits of these pull requests are known now; None where Bitbucket refuses and does not say why."""
    wanted = dict.fromkeys(sha for row in batch for sha in history.missing(row))
    values: list[Json] = []
    including = history.including
    while wanted:
        values = []
        if history.pages_left <= 0:
            return False
        endpoint = endpoints.commits(workspace.slug, history.repository.source_id, list(wanted), _excluded(history))
        try:
            async for page in cursor(workspace.client, endpoint):
                history.pages_left -= 1
                values += page.values
                if page.next is not None and history.pages_left <= 0:
                    return False
            including.succeeded = True
            break
        except (BadRequest, NotFound) as error:
            # Bitbucket may name the revisions that it no longer has; the others may be requested again.
            gone = named_by(error, wanted) if isinstance(error, NotFound) else set()
            including.failed += not gone
            if not gone:
                return _give_up(workspace, report, history, error) if including.is_hopeless else None
            including.succeeded = True
            wanted = {sha: None for sha in wanted if sha not in gone}
        except OF_ONE_REQUEST as error:
            if lacks_scope(error):
                raise
            return _give_up(workspace, report, history, error)
    if values:
        history.beside.update(await _take(workspace, history, values))
    return True


def named_by(error: NotFound, wanted: Iterable[str]) -> set[str]:
    """Which of the revisions Bitbucket says it does not have; it may name whole hashes or abbreviations."""
    named = [one for one in error.revisions if len(one) >= SHORT]
    return {sha for sha in wanted if any(sha.startswith(one) or one.startswith(sha) for one in named)}


def _give_up(workspace: Workspace, report: Report, history: History, error: BitbucketError) -> bool:
    history.pages_left = 0
    slug = history.repository.slug
    note(workspace, report, f"{slug}: commits are requested for each pull request by itself ({error})")
    return False
