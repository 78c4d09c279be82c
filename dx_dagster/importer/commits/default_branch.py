"""Commits on default branches.

The list is newest first by ancestry, so dates say nothing about where to stop. What is stored is always closed under
"parent of" once a first walk has ended: a later walk is over when every parent it met is stored or was met.

Below a bound (`--since`) it is closed as far as commits within the bound go: a walk ends with a page that lies before
it as a whole. Commits within the bound may come after such a page (old work that was merged of late), so the parents
that are still unknown are asked for then, once for all of them.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import datetime

from dx_dagster.bitbucket import BadRequest, NotFound, Page, PagingInCircles, RefusedOrigin, cursor, endpoints
from dx_dagster.bitbucket.paging import ask
from dx_dagster.frames import commits as frames
from dx_dagster.frames.reading import Json, time
from dx_dagster.importer import absence
from dx_dagster.importer.accounts import store_accounts
from dx_dagster.importer.pull_requests import later, newest_of
from dx_dagster.importer.workspace import Report, Workspace, for_each_repository, note
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import commits, marks, repositories
from dx_dagster.warehouse.imported.bounds import reaches_back_to
from dx_dagster.warehouse.imported.marks import CommitsMark, MarkedRepository, Repository

KIND = "commits"
BranchToImport = MarkedRepository[CommitsMark]
PARENTS_AT_ONCE = 20
_INCLUDED = 50  # revisions of one request
_IN_VAIN = 2  # requests for unknown parents that brought nothing within the bound: the rest lies before it too
_ASKED_WHEN_LOST = 20  # commits that look as if they were rewritten away


async def import_branches(workspace: Workspace, report: Report) -> None:
    """Stores new commits of every default branch that may have some."""
    if workspace.full:
        await marks.forget(workspace.warehouse, workspace.id, CommitsMark)
    to_import = await marks.with_marks(workspace.warehouse, workspace.id, CommitsMark)
    unresolved = await commits.with_unresolved_merges(workspace.warehouse, workspace.id)

    async def work(repository: BranchToImport) -> None:
        await import_branch(workspace, report, repository)

    stale = [one for one in to_import if one.accessible and _is_stale(workspace, one, unresolved)]
    await for_each_repository(workspace, report, stale, work)


def _is_stale(workspace: Workspace, repository: BranchToImport, unresolved: Collection[str]) -> bool:
    """Only commit activity moves a repository's `updated_on`; a merge that is not found yet is a reason as well."""
    mark = repository.mark
    return repository.default_branch is not None and (
        mark.synced_to is None
        or mark.version != _version(repository)
        or repository.id in unresolved
        or not reaches_back_to(mark.bound, workspace.since)
    )


def _version(repository: Repository) -> str:
    return f"{repository.updated_at.isoformat() if repository.updated_at else ''} {repository.default_branch}"


async def import_branch(workspace: Workspace, report: Report, repository: BranchToImport) -> None:
    mark = repository.mark
    begins = mark.synced_to is None and mark.walk_cursor is None
    if begins or mark.branch != repository.default_branch:
        fallback = mark.fallback if begins else None
        mark = CommitsMark(repository.id, bound=workspace.since, branch=repository.default_branch, fallback=fallback)
    elif mark.synced_to is None and not reaches_back_to(mark.bound, workspace.since):
        mark = replace(mark, bound=workspace.since)  # a walk under way may as well go further
    try:
        if mark.fallback is not None:
            await _walk_by_parents(workspace, report, repository, replace(mark, bound=workspace.since))
        elif mark.synced_to is None:
            mark = await _walk_from_the_start(workspace, report, repository, mark)
        elif mark.version != _version(repository) or reaches_back_to(mark.bound, workspace.since):
            mark = await _follow(workspace, report, repository, mark)
        if mark.synced_to is not None and not reaches_back_to(mark.bound, workspace.since):
            await _reach_down(workspace, repository, workspace.since)
            async with workspace.warehouse.transaction() as transaction:
                await marks.put(transaction, replace(mark, bound=workspace.since))
    except (PagingInCircles, RefusedOrigin) as error:
        note(workspace, report, f"{repository.slug}: commits are fetched by their parents ({error})")
        mark = replace(mark, bound=workspace.since, fallback=str(error))
        await _walk_by_parents(workspace, report, repository, mark)


async def _walk_from_the_start(
    workspace: Workspace, report: Report, repository: BranchToImport, mark: CommitsMark
) -> CommitsMark:
    """The whole branch, stored page by page; begins anew where a cursor from before a kill is no longer good."""
    resumed = mark.walk_cursor is not None
    try:
        mark = await _walk(workspace, report, repository, mark)
    except (NotFound, BadRequest):
        if not resumed:
            raise
        return await _walk(workspace, report, repository, replace(mark, walk_cursor=None, head=None))
    if resumed:
        # What was pushed since the walk began.
        mark = await _follow(workspace, report, replace(repository, mark=mark), mark)
    return mark


async def _walk(workspace: Workspace, report: Report, repository: Repository, mark: CommitsMark) -> CommitsMark:
    async for page in _newest_first(workspace, repository, mark.walk_cursor):
        dates = _dates(page.values)
        if mark.head is None and page.values:
            mark = replace(mark, head=page.values[0].get("hash"), walk_head=newest_of(dates, page.asked_at))
        ends = page.next is None
        over = ends or _lies_before(dates, mark.bound)
        if over:
            break
        mark = replace(mark, walk_cursor=page.next)
        async with workspace.warehouse.transaction() as transaction:
            await _store(transaction, workspace, repository, page.values, page)
            await marks.put(transaction, mark)
    if mark.head is None:
        note(workspace, report, f"{repository.slug}: the list of commits is empty, which says nothing")
        return mark
    async with workspace.warehouse.transaction() as transaction:
        await _store(transaction, workspace, repository, page.values, page)
    if not ends:
        await _reach_down(workspace, repository, mark.bound)
    # Of a branch that was the default before, or a walk that is made again (--full), there may be rests.
    return await _end(workspace, report, repository, mark, page.asked_at, until_then=mark)


def _lies_before(dates: Sequence[datetime], bound: datetime | None) -> bool:
    """Whether a whole page does."""
    return bound is not None and bool(dates) and max(dates) < bound


async def _reach_down(workspace: Workspace, repository: Repository, bound: datetime | None) -> None:
    """Fetches what lies between the commits that are stored and the bound: their unknown parents, and on from there.

    Each page is stored at once. What is left is always a query over the stored commits, so a killed import goes on.
    """
    settled: set[str] = set()
    in_vain = 0
    while in_vain < _IN_VAIN:
        async with workspace.warehouse.transaction() as transaction:
            wanted = await commits.unknown_parents(transaction, repository.id, bound, _INCLUDED, settled)
        if not wanted:
            return
        try:
            new, before = await _walk_from(workspace, repository, wanted, bound)
        except NotFound as error:
            missing = set(wanted) & set(error.revisions)
            if not missing:
                raise
            settled |= missing
        else:
            # Several lines of history may begin here, and the list shows one after the other.
            settled |= before
            in_vain = 0 if new else in_vain + 1


async def _walk_from(
    workspace: Workspace, repository: Repository, revisions: Sequence[str], bound: datetime | None
) -> tuple[bool, set[str]]:
    """Stores what these revisions reach, down to the bound: whether anything was new, and what was seen before it."""
    new = False
    async for page in cursor(workspace.client, endpoints.commits(workspace.slug, repository.source_id, revisions)):
        if _lies_before(_dates(page.values), bound):
            return new, {value["hash"] for value in page.values if value.get("hash")}
        async with workspace.warehouse.transaction() as transaction:
            new |= await _store(transaction, workspace, repository, page.values, page) > 0
    return new, set()


async def _end(
    workspace: Workspace,
    report: Report,
    repository: Repository,
    mark: CommitsMark,
    asked_at: datetime,
    *,
    until_then: CommitsMark,
) -> CommitsMark:
    """Ends a walk: what the branch no longer reaches is dropped.

    Where that is much, Bitbucket is asked for it first: a list that lacks its beginning looks like a rewritten branch.
    `until_then` is the mark until that is confirmed, with which the next sync reads the branch again.
    """
    ended = _ended(mark, repository, asked_at)
    async with workspace.warehouse.transaction() as transaction:
        lost = await commits.unreachable(transaction, repository.id, mark.head or "")
        reached = lost.stored - len(lost.hashes)
        if not absence.is_suspicious(stored=lost.stored, missing=len(lost.hashes), listed=reached):
            await commits.drop(transaction, repository.id, lost.hashes)
            await marks.put(transaction, ended)
            await _finish(transaction, repository, ended)
            return ended
        await marks.put(transaction, until_then)
    if not await _is_lost(workspace, repository, mark.head or "", lost.hashes):
        note(workspace, report, f"{repository.slug}: the list of commits lacks {len(lost.hashes)} that are still there")
        return until_then
    async with workspace.warehouse.transaction() as transaction:
        await commits.drop(transaction, repository.id, lost.hashes)
        await marks.put(transaction, ended)
        await _finish(transaction, repository, ended)
    return ended


async def _is_lost(workspace: Workspace, repository: Repository, head: str, lost: Sequence[str]) -> bool:
    """Whether Bitbucket says so of the newest of these commits: the head does not reach them, or they are gone."""
    left = set(lost[:_ASKED_WHEN_LOST])
    while left:
        try:
            endpoint = endpoints.commits(workspace.slug, repository.source_id, sorted(left), [head])
            page = await ask(workspace.client, endpoint)
        except NotFound as error:
            gone = left & set(error.revisions)
            if not gone:
                return False
            left -= gone
        except BadRequest:
            return False
        else:
            return left <= {value.get("hash") for value in page.values}
    return True


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


async def _walk_by_parents(workspace: Workspace, report: Report, repository: Repository, mark: CommitsMark) -> None:
    """Without links to a next page: asks for commits that are known only as somebody's parent, until there are none."""
    endpoint = endpoints.branch_commits(workspace.slug, repository.source_id, repository.default_branch or "")
    head: str | None = None
    while True:
        page = await ask(workspace.client, endpoint)
        if head is None:
            if not page.values:
                note(workspace, report, f"{repository.slug}: the list of commits is empty, which says nothing")
                return
            head = page.values[0]["hash"]
            mark = replace(mark, head=head, walk_head=newest_of(_dates(page.values), page.asked_at), walk_cursor=None)
        async with workspace.warehouse.transaction() as transaction:
            await _store(transaction, workspace, repository, page.values, page)
            await marks.put(transaction, mark)
            wanted = await commits.unknown_parents(transaction, repository.id, mark.bound, PARENTS_AT_ONCE)
        if not wanted:
            await _end(workspace, report, repository, mark, page.asked_at, until_then=mark)
            return
        endpoint = endpoints.commits(workspace.slug, repository.source_id, wanted)


def _dates(values: Sequence[Json]) -> list[datetime]:
    return [date for value in values if (date := time(value.get("date")))]


def _ended(mark: CommitsMark, repository: Repository, asked_at: datetime) -> CommitsMark:
    # A branch was walked to its end also where none of its dates can be believed.
    return replace(
        mark,
        synced_to=mark.walk_head or mark.synced_to or asked_at,
        walk_cursor=None,
        walk_head=None,
        version=_version(repository),
    )


async def _follow(workspace: Workspace, report: Report, repository: BranchToImport, mark: CommitsMark) -> CommitsMark:
    """What is new since the last walk, in one transaction: half of it would leave parents out for good."""
    found: dict[str, Json] = {}
    pages: list[Page] = []
    too_old = False
    async for page in _newest_first(workspace, repository):
        pages.append(page)
        found |= {value["hash"]: value for value in page.values if isinstance(value.get("hash"), str)}
        too_old = _lies_before(_dates(page.values), mark.bound)
        if too_old or not await _missing(workspace, repository, found):
            break
    if not found:
        return mark
    head, asked_at = next(iter(found)), pages[0].asked_at
    mark = replace(mark, head=head, walk_head=later(newest_of(_dates(list(found.values())), asked_at), mark.synced_to))
    async with workspace.warehouse.transaction() as transaction:
        await _store(transaction, workspace, repository, list(found.values()), pages[0])
        old_head = repository.mark.head
        rewritten = old_head not in (None, head) and await commits.is_rewritten(transaction, repository.id, old_head)
        ended = _ended(mark, repository, asked_at)
        until_then = replace(mark, head=old_head, walk_head=None, version=None)
        if too_old:
            # As if nothing before now were stored, so that a killed import looks for what these commits lead to.
            await marks.put(transaction, replace(until_then, bound=asked_at))
        elif not rewritten:
            await marks.put(transaction, ended)
            await _finish(transaction, repository, ended)
            return ended
    if too_old:
        await _reach_down(workspace, repository, mark.bound)
    return await _end(workspace, report, repository, mark, asked_at, until_then=until_then)


async def _missing(workspace: Workspace, repository: Repository, found: dict[str, Json]) -> bool:
    """Whether a commit is known only as somebody's parent."""
    wanted = {sha for value in found.values() for sha in (value["hash"], *frames.parents(value))}
    known = await commits.known(workspace.warehouse, repository.id, wanted)
    return any(
        parent not in found and parent not in known
        for sha, value in found.items()
        if sha not in known
        for parent in frames.parents(value)
    )


async def _store(
    transaction: Transaction, workspace: Workspace, repository: Repository, values: Sequence[Json], page: Page
) -> int:
    """Merges commits; returns how many were new."""
    await store_accounts(transaction, workspace, frames.accounts(values), page.asked_at)
    rows = frames.branch_commits(workspace.id, repository.id, values, page.asked_at)
    counts = await transaction.merge(merge.BRANCH_COMMITS, rows)
    return counts.inserted


async def _finish(transaction: Transaction, repository: Repository, mark: CommitsMark) -> None:
    await repositories.default_branch_synced(transaction, repository.id, mark.synced_to)
