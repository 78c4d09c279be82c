"""Commits on default branches.

The list is newest first by ancestry, so dates say nothing about where to stop. What is stored is always closed under
"parent of" once a first walk has ended: a later walk is over when every parent it met is stored or was met.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import datetime

from dx_dagster.bitbucket import BadRequest, NotFound, Page, PagingInCircles, RefusedOrigin, cursor, endpoints
from dx_dagster.bitbucket.paging import ask
from dx_dagster.frames import commits as frames
from dx_dagster.frames.reading import Json, time
from dx_dagster.importer.accounts import store_accounts
from dx_dagster.importer.workspace import Report, Workspace, for_each_repository, note
from dx_dagster.warehouse import branches, marks, merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.marks import Mark, Repository

KIND = "commits"
PARENTS_AT_ONCE = 20


async def import_branches(workspace: Workspace, report: Report) -> None:
    """Stores new commits of every default branch that may have some."""
    if workspace.full:
        await marks.forget(workspace.warehouse, workspace.id, KIND)
    repositories = await marks.repositories(workspace.warehouse, workspace.id, KIND)
    unresolved = await branches.with_unresolved_merges(workspace.warehouse, workspace.id)

    async def work(repository: Repository) -> None:
        await import_branch(workspace, report, repository)

    stale = [one for one in repositories if one.accessible and _is_stale(one, unresolved)]
    await for_each_repository(workspace, report, stale, work)


def _is_stale(repository: Repository, unresolved: Collection[str]) -> bool:
    """Only commit activity moves a repository's `updated_on`; a merge that is not found yet is a reason as well."""
    return repository.default_branch is not None and (
        repository.mark.checked != _version(repository) or repository.id in unresolved
    )


def _version(repository: Repository) -> str:
    return f"{repository.updated_at.isoformat() if repository.updated_at else ''} {repository.default_branch}"


async def import_branch(workspace: Workspace, report: Report, repository: Repository) -> None:
    mark = repository.mark
    if mark.branch != repository.default_branch:
        mark = Mark(repository.id, KIND, branch=repository.default_branch, since=workspace.since)
    try:
        if mark.fallback is not None:
            await _walk_by_parents(workspace, repository, mark)
        elif mark.synced_to is None:
            await _walk_from_the_start(workspace, repository, mark)
        else:
            await _follow(workspace, repository, mark)
    except (PagingInCircles, RefusedOrigin) as error:
        note(workspace, report, f"{repository.slug}: commits are fetched by their parents ({error})")
        await _walk_by_parents(workspace, repository, replace(mark, fallback=str(error)))


async def _walk_from_the_start(workspace: Workspace, repository: Repository, mark: Mark) -> None:
    """The whole branch, stored page by page; begins anew where a cursor from before a kill is no longer good."""
    resumed = mark.walk_cursor is not None
    try:
        mark = await _walk(workspace, repository, mark)
    except (NotFound, BadRequest):
        if not resumed:
            raise
        await _walk(workspace, repository, replace(mark, walk_cursor=None, head=None))
        return
    if resumed:
        # What was pushed since the walk began.
        await _follow(workspace, replace(repository, mark=mark), mark)


async def _walk(workspace: Workspace, repository: Repository, mark: Mark) -> Mark:
    async for page in _newest_first(workspace, repository, mark.walk_cursor):
        dates = _dates(page.values)
        if mark.head is None and page.values:
            mark = replace(mark, head=page.values[0].get("hash"), walk_head=max(dates, default=None))
        over = page.next is None or (mark.since is not None and bool(dates) and max(dates) < mark.since)
        mark = _ended(mark, repository) if over else replace(mark, walk_cursor=page.next)
        async with workspace.warehouse.transaction() as transaction:
            await _store(transaction, workspace, repository, page.values, page)
            await marks.put(transaction, mark)
            if over:
                # Of a branch that was the default before, or a walk that is made again (--full), there may be rests.
                await branches.drop_unreachable(transaction, repository.id, mark.head or "")
                await _finish(transaction, repository, mark)
        if over:
            break
    return mark


async def _newest_first(workspace: Workspace, repository: Repository, start: str | None = None) -> AsyncIterator[Page]:
    """The default branch.

    A revision in a path may not have "/" in its name (BCLOUD-9969 says so of /commit/); as a parameter it may.
    """
    branch = repository.default_branch or ""
    begun = start is not None
    try:
        endpoint = endpoints.branch_commits(workspace.slug, repository.source_id, branch)
        async for page in cursor(workspace.client, endpoint, start=start):
            begun = True
            yield page
    except NotFound:
        if begun or "/" not in branch:
            raise
        async for page in cursor(workspace.client, endpoints.commits(workspace.slug, repository.source_id, [branch])):
            yield page


async def _walk_by_parents(workspace: Workspace, repository: Repository, mark: Mark) -> None:
    """Without links to a next page: asks for commits that are known only as somebody's parent, until there are none."""
    endpoint = endpoints.branch_commits(workspace.slug, repository.source_id, repository.default_branch or "")
    head: str | None = None
    while True:
        page = await ask(workspace.client, endpoint)
        if head is None:
            head = page.values[0]["hash"] if page.values else ""
            mark = replace(mark, head=head, walk_head=max(_dates(page.values), default=None), walk_cursor=None)
        async with workspace.warehouse.transaction() as transaction:
            await _store(transaction, workspace, repository, page.values, page)
            await marks.put(transaction, mark)
            wanted = await branches.unknown_parents(transaction, repository.id, mark.since, PARENTS_AT_ONCE)
            if not wanted:
                await branches.drop_unreachable(transaction, repository.id, head)
                mark = _ended(mark, repository)
                await marks.put(transaction, mark)
                await _finish(transaction, repository, mark)
                return
        endpoint = endpoints.commits(workspace.slug, repository.source_id, wanted)


def _dates(values: Sequence[Json]) -> list[datetime]:
    return [date for value in values if (date := time(value.get("date")))]


def _ended(mark: Mark, repository: Repository) -> Mark:
    return replace(
        mark, synced_to=mark.walk_head or mark.synced_to, walk_cursor=None, walk_head=None, checked=_version(repository)
    )


async def _follow(workspace: Workspace, repository: Repository, mark: Mark) -> None:
    """What is new since the last walk, in one transaction: half of it would leave parents out for good."""
    found: dict[str, Json] = {}
    pages: list[Page] = []
    async for page in _newest_first(workspace, repository):
        pages.append(page)
        found |= {value["hash"]: value for value in page.values if isinstance(value.get("hash"), str)}
        dates = _dates(page.values)
        too_old = mark.since is not None and bool(dates) and max(dates) < mark.since
        if too_old or not await _missing(workspace, repository, found):
            break
    if not found:
        return
    head = next(iter(found))
    dates = _dates(list(found.values()))
    mark = replace(mark, head=head, walk_head=max([*dates, *([mark.synced_to] if mark.synced_to else [])]))
    async with workspace.warehouse.transaction() as transaction:
        await _store(transaction, workspace, repository, list(found.values()), pages[0])
        old_head = repository.mark.head
        if old_head not in (None, head) and await branches.is_rewritten(transaction, repository.id, old_head):
            await branches.drop_unreachable(transaction, repository.id, head)
        mark = _ended(mark, repository)
        await marks.put(transaction, mark)
        await _finish(transaction, repository, mark)


async def _missing(workspace: Workspace, repository: Repository, found: dict[str, Json]) -> bool:
    """Whether a commit is known only as somebody's parent."""
    wanted = {sha for value in found.values() for sha in (value["hash"], *frames.parents(value))}
    known = await branches.known(workspace.warehouse, repository.id, wanted)
    return any(
        parent not in found and parent not in known
        for sha, value in found.items()
        if sha not in known
        for parent in frames.parents(value)
    )


async def _store(
    transaction: Transaction, workspace: Workspace, repository: Repository, values: Sequence[Json], page: Page
) -> None:
    await store_accounts(transaction, workspace, frames.accounts(values), page.asked_at)
    rows = frames.branch_commits(workspace.id, repository.id, values, page.asked_at)
    await transaction.merge(merge.BRANCH_COMMITS, rows)


async def _finish(transaction: Transaction, repository: Repository, mark: Mark) -> None:
    await transaction.execute(
        "UPDATE bitbucket_repositories SET default_branch_commits_sync_to = %s WHERE id = %s",
        [mark.synced_to, repository.id],
    )
