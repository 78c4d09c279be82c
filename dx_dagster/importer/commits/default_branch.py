"""Imports the commits of default branches.

The list is newest first by ancestry, so dates do not say where to stop. Once a first walk has ended, the stored commits
include all their parents: a later walk ends when every parent that it met is stored or was met.

With a bound (`--since`) this holds for commits within the bound: a walk ends with a page that is wholly older. Commits
within the bound may come after such a page (old work, merged recently), so the parents that are still unknown are then
requested, many at a time.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import datetime

from dx_dagster.bitbucket import BadRequest, NotFound, Page, PagingInCircles, RefusedOrigin, cursor, endpoints
from dx_dagster.bitbucket.paging import ask, require_readable
from dx_dagster.frames import commits as frames
from dx_dagster.frames.reading import Json, time
from dx_dagster.importer import absence
from dx_dagster.importer.accounts import store_authors
from dx_dagster.importer.each import for_each_repository
from dx_dagster.importer.report import Report, note
from dx_dagster.importer.watermarks import later, newest_of
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import commits, marks, repositories
from dx_dagster.warehouse.imported.bounds import reaches_back_to
from dx_dagster.warehouse.imported.marks import CommitsMark, MarkedRepository, Repository

KIND = "commits"
BranchToImport = MarkedRepository[CommitsMark]
PARENTS_AT_ONCE = 20
_INCLUDED = 50  # revisions of one request
_IN_VAIN = 2  # after so many requests that brought nothing within the bound, the rest is older too
_ASKED_WHEN_LOST = 20  # commits that seem to be rewritten away


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
    """Whether new commits are likely: `updated_on` has changed, which only commits do, or a merge is unresolved."""
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
    """Stores new commits of one default branch."""
    mark = repository.mark
    begins = mark.synced_to is None and mark.walk_cursor is None
    if begins or mark.branch != repository.default_branch:
        fallback = mark.fallback if begins else None
        mark = CommitsMark(repository.id, bound=workspace.since, branch=repository.default_branch, fallback=fallback)
    elif mark.synced_to is None and not reaches_back_to(mark.bound, workspace.since):
        mark = replace(mark, bound=workspace.since)  # the unfinished walk goes further instead
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
    """Stores the whole branch, page by page; starts over where the cursor of a killed walk no longer works."""
    resumed = mark.walk_cursor is not None
    if not resumed:
        mark = replace(mark, version=_version(repository))
    begun_for = mark.version
    try:
        mark = await _walk(workspace, report, repository, mark)
    except (NotFound, BadRequest):
        if not resumed:
            raise
        return await _walk(workspace, report, repository, replace(mark, walk_cursor=None, head=None))
    if resumed and begun_for != _version(repository):
        # What was pushed since the walk began.
        mark = await _follow(workspace, report, replace(repository, mark=mark), mark)
    return mark


async def _walk(workspace: Workspace, report: Report, repository: Repository, mark: CommitsMark) -> CommitsMark:
    async for page in _newest_first(workspace, repository, mark.walk_cursor):
        dates = _dates(page.values)
        if mark.head is None and page.values:
            mark = replace(mark, head=page.values[0].get("hash"), walk_head=newest_of(dates, page.asked_at))
        if page.next is None or _lies_before(dates, mark.bound):
            break
        mark = replace(mark, walk_cursor=page.next)
        async with workspace.warehouse.transaction() as transaction:
            await _store(transaction, workspace, repository, page.values, page)
            await marks.put(transaction, mark)
    if mark.head is None:
        _note_empty(workspace, report, repository)
        return mark
    async with workspace.warehouse.transaction() as transaction:
        await _store(transaction, workspace, repository, page.values, page)
    # A list that was cut short lacks the parents of its last commits. If the branch was rewritten since a killed walk,
    # the pages after its cursor may lack parents of those before it.
    await _reach_down(workspace, repository, mark.bound)
    # Commits of an earlier default branch, or of before a `--full` walk, may be left.
    return await _end(workspace, report, repository, mark, page.asked_at, until_then=mark)


def _lies_before(dates: Sequence[datetime], bound: datetime | None) -> bool:
    """Whether a whole page is older than the bound."""
    return bound is not None and bool(dates) and max(dates) < bound


async def _reach_down(workspace: Workspace, repository: Repository, bound: datetime | None) -> None:
    """Fetches commits between the stored ones and the bound: their unknown parents, and so on.

    Each page is stored at once. What is left is always a query over the stored commits, so a killed import resumes.
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
            # Several lines of history may begin here, which the list shows one after the other.
            settled |= before
            in_vain = 0 if new else in_vain + 1


async def _walk_from(
    workspace: Workspace, repository: Repository, revisions: Sequence[str], bound: datetime | None
) -> tuple[bool, set[str]]:
    """Stores what the revisions reach, down to the bound; returns whether anything was new, and older hashes seen."""
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
    """Ends a walk: deletes the commits that the branch no longer reaches.

    Where they are many, a request confirms it first: a list without its beginning looks like a rewritten branch.
    `until_then` is the mark until that is confirmed, with which the next sync reads the branch again.
    """
    ended = _ended(mark, repository, asked_at)
    async with workspace.warehouse.transaction() as transaction:
        lost = await commits.unreachable(transaction, repository.id, mark.head or "")
        reached = lost.stored - len(lost.hashes)
        if not absence.is_suspicious(stored=lost.stored, missing=len(lost.hashes), listed=reached):
            await commits.drop(transaction, repository.id, lost.hashes)
            await _finish(transaction, repository, mark, ended)
            return ended
        await marks.put(transaction, until_then)
    if not await _is_lost(workspace, repository, mark.head or "", lost.hashes):
        note(
            workspace,
            report,
            f"{repository.slug}: the list of commits lacks {len(lost.hashes)} commits that still exist",
        )
        return until_then
    async with workspace.warehouse.transaction() as transaction:
        await commits.drop(transaction, repository.id, lost.hashes)
        await _finish(transaction, repository, mark, ended)
    return ended


async def _is_lost(workspace: Workspace, repository: Repository, head: str, lost: Sequence[str]) -> bool:
    """Whether Bitbucket confirms it for the newest of these commits: the head does not reach them, or they are gone."""
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
    """Walks the default branch.

    A branch name in a path may not contain "/" (BCLOUD-9969, about /commit/); as a parameter it may.
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
    """Walks without links to a next page: requests commits that are known only as parents, until there are none.

    Raises:
        PagingInCircles: the list shows none of the commits that were requested.
    """
    endpoint = endpoints.branch_commits(workspace.slug, repository.source_id, repository.default_branch or "")
    head: str | None = None
    before: list[str] = []
    while True:
        page = await ask(workspace.client, endpoint)
        require_readable(endpoint, page)
        if head is None:
            if not page.values:
                _note_empty(workspace, report, repository)
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
        if wanted == before:
            raise PagingInCircles(f"{endpoint.path} shows none of the commits asked for", path=endpoint.path)
        before = wanted
        endpoint = endpoints.commits(workspace.slug, repository.source_id, wanted)


def _note_empty(workspace: Workspace, report: Report, repository: Repository) -> None:
    note(workspace, report, f"{repository.slug}: the list of commits is empty, and is ignored")


def _dates(values: Sequence[Json]) -> list[datetime]:
    return [date for value in values if (date := time(value.get("date")))]


def _ended(mark: CommitsMark, repository: Repository, asked_at: datetime) -> CommitsMark:
    # The walk has ended even where all dates are absurd.
    return replace(
        mark,
        synced_to=mark.walk_head or mark.synced_to or asked_at,
        walk_cursor=None,
        walk_head=None,
        version=_version(repository),
    )


async def _follow(workspace: Workspace, report: Report, repository: BranchToImport, mark: CommitsMark) -> CommitsMark:
    """Stores what is new since the last walk, in one transaction: a part of it would omit parents for good."""
    new: dict[str, Json] = {}
    pages: list[Page] = []
    too_old = False
    async for page in _newest_first(workspace, repository):
        pages.append(page)
        new |= {value["hash"]: value for value in page.values if isinstance(value.get("hash"), str)}
        too_old = _lies_before(_dates(page.values), mark.bound)
        if too_old or not await _missing(workspace, repository, new):
            break
    if not new:
        _note_empty(workspace, report, repository)
        return mark
    head, asked_at = next(iter(new)), pages[0].asked_at
    mark = replace(mark, head=head, walk_head=later(newest_of(_dates(list(new.values())), asked_at), mark.synced_to))
    async with workspace.warehouse.transaction() as transaction:
        await _store(transaction, workspace, repository, list(new.values()), pages[0])
        old_head = repository.mark.head
        rewritten = old_head not in (None, head) and await commits.is_rewritten(transaction, repository.id, old_head)
        ended = _ended(mark, repository, asked_at)
        until_then = replace(mark, head=old_head, walk_head=None, version=None)
        if too_old:
            # With this bound, a killed import looks for the parents of these commits again.
            await marks.put(transaction, replace(until_then, bound=asked_at))
        elif not rewritten:
            await _finish(transaction, repository, mark, ended)
            return ended
    if too_old:
        await _reach_down(workspace, repository, mark.bound)
    return await _end(workspace, report, repository, mark, asked_at, until_then=until_then)


async def _missing(workspace: Workspace, repository: Repository, new: dict[str, Json]) -> bool:
    """Whether a commit is known only as a parent."""
    wanted = {sha for value in new.values() for sha in (value["hash"], *frames.parents(value))}
    known = await commits.known(workspace.warehouse, repository.id, wanted)
    return any(
        parent not in new and parent not in known
        for sha, value in new.items()
        if sha not in known
        for parent in frames.parents(value)
    )


async def _store(
    transaction: Transaction, workspace: Workspace, repository: Repository, values: Sequence[Json], page: Page
) -> int:
    """Merges commits; returns how many were new."""
    await store_authors(transaction, workspace, values, page.asked_at)
    rows = frames.branch_commits(workspace.id, repository.id, values, page.asked_at)
    counts = await transaction.merge(merge.BRANCH_COMMITS, rows)
    return counts.inserted


async def _finish(transaction: Transaction, repository: Repository, mark: CommitsMark, ended: CommitsMark) -> None:
    """Stores the mark of a walk that has `ended`; `mark`: until then."""
    await marks.put(transaction, ended)
    await repositories.default_branch_synced(transaction, repository.id, ended.synced_to)
    if mark.synced_to is None:
        # A delivery may have brought lists of commits before the first walk. It shows no rewriting of the branch since.
        await commits.ask_open_pulls(transaction, repository.id)
