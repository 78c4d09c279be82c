"""Repositories: the whole list, in which absence is news once it is complete."""

from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from operator import itemgetter

from dx_dagster.bitbucket import (
    BadRequest,
    BitbucketError,
    Credential,
    Forbidden,
    Gone,
    NotFound,
    Page,
    PagingInCircles,
    RateLimited,
    Unauthorized,
    Unavailable,
    endpoints,
    keyset,
    numbered,
)
from dx_dagster.frames import repositories as frames
from dx_dagster.frames.identifiers import of_bitbucket
from dx_dagster.frames.reading import Json, inner, record, text
from dx_dagster.importer import absence
from dx_dagster.importer.clocks import warn_of_differences
from dx_dagster.importer.workspace import Report, Workspace, lacks_scope, note
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import bounds, moves

KIND = "repositories"
_REFUSED = (Unauthorized, Forbidden, NotFound, Gone, RateLimited)
_PATIENCE = 60.0  # seconds that a credential may wait for its budget while others could go on
_RESTORE = """
    UPDATE bitbucket_repositories SET deleted_at = NULL
    WHERE workspace_id = %(workspace)s AND id = ANY(%(seen)s::uuid[]) AND deleted_at IS NOT NULL"""
_MARK_DELETED = """
    UPDATE bitbucket_repositories SET deleted_at = now()
    WHERE workspace_id = %(workspace)s AND id = ANY(%(gone)s::uuid[]) AND deleted_at IS NULL"""


async def import_repositories(workspace: Workspace) -> Report:
    """Stores the workspace and its repositories; one that no complete listing holds any longer gets `deleted_at`.

    A listing that lacks many is confirmed first: `importer.absence`.

    Raises:
        NothingReadError: no credential sees a repository.
        BitbucketError: the list could not be read to its end.
    """
    report = Report(KIND)
    listing = _Listing(workspace, report)
    try:
        await listing.read()
    except BitbucketError as error:
        if error.code is None or listing.seen:
            raise
        raise absence.NothingReadError.because(error) from error
    for refusal in listing.refusals:
        note(workspace, report, f"what one credential sees is not listed ({refusal})")
    if not listing.seen:
        raise absence.nothing_listed(workspace)
    gone = await listing.gone(report)
    workspace.client.note_visibility(alike=listing.alike)
    warn_of_differences(workspace)
    async with workspace.warehouse.transaction() as transaction:
        await listing.settle(transaction, gone)
    return report


async def _ask_workspace(workspace: Workspace, report: Report) -> Workspace:
    """For what its repositories do not say of it."""
    try:
        value = await workspace.client.get(endpoints.workspace(workspace.slug).path)
    except (Gone, Forbidden, NotFound) as error:
        # 410 was met on the real service in 2026, though the endpoint is not deprecated; a token of a single repository
        # may be refused.
        if lacks_scope(error):
            raise
        note(workspace, report, f"the workspace is taken from its repositories ({error})")
        return workspace
    return await _store_workspace(workspace, record(value))


async def _store_workspace(workspace: Workspace, value: Json) -> Workspace:
    """Stores the workspace under the name that it is asked by; one whose uuid is not told stays as it is known."""
    source = text(value.get("uuid"))
    if not source:
        return workspace
    frame = frames.workspace({"slug": workspace.slug, "name": value.get("name"), "uuid": source}, workspace.now())
    workspace_id = of_bitbucket(source)
    async with workspace.warehouse.transaction() as transaction:
        await transaction.merge(merge.WORKSPACES, frame)
        since = await bounds.settle(transaction, workspace_id, workspace.wanted)
    return replace(workspace, id=workspace_id, since=since)


class _Listing:
    """The list as each credential sees it: tokens of single repositories or projects see different ones.

    A credential that is refused or has to rest for long keeps nobody else from going on; but what it alone sees is not
    known to be gone then.
    """

    def __init__(self, workspace: Workspace, report: Report) -> None:
        self.workspace = workspace
        self._report = report
        self.seen: set[str] = set()
        self._rows = 0
        self._whole = True
        self._lists: dict[str, set[str]] = {}
        self._refusals: dict[int, BitbucketError] = {}

    @property
    def refusals(self) -> list[BitbucketError]:
        return list(self._refusals.values())

    @property
    def complete(self) -> bool:
        """Whether what no list holds is gone."""
        return self._whole and not self._refusals

    @property
    def alike(self) -> bool:
        """Whether all credentials see the same."""
        first, *others = self._lists.values()
        return self.complete and all(other == first for other in others)

    async def read(self) -> None:
        """Asks for the list with each credential; once for all API tokens of one account, which see the same.

        Raises:
            BitbucketError: all are refused.
        """
        usable = self.workspace.client.pool.usable
        resting: dict[str, tuple[float, Credential]] = {}
        for credential in usable:
            if credential.budget in self._lists or credential.budget in resting:
                continue
            error = await self._ask(credential, _PATIENCE if len(usable) > 1 else None)
            if isinstance(error, RateLimited):
                resting[credential.budget] = (error.retry_after or 0.0, credential)
        if resting and not self.seen:
            # Nobody who has a request left sees anything: now it is worth waiting for whoever has one first.
            await self._ask(min(resting.values(), key=itemgetter(0))[1], None)
        if not self._lists:
            if not self.workspace.client.pool.usable:
                raise self.workspace.client.pool.exhausted()
            raise next(iter(self._refusals.values()))
        if self._rows and not self.workspace.id:
            raise Unavailable(f"neither workspace {self.workspace.slug} nor any repository in it tells its uuid")

    async def _ask(self, credential: Credential, patience: float | None) -> BitbucketError | None:
        """Stores what one credential sees; returns why it sees nothing."""
        seen: set[str] = set()
        try:
            async for page in self._pages(credential, patience, seen):
                await self._store(page, seen)
        except _REFUSED as error:
            self._refusals[credential.id] = error
            return error
        self._refusals.pop(credential.id, None)
        self._lists[credential.budget] = seen
        return None

    async def _pages(self, credential: Credential, patience: float | None, seen: set[str]) -> AsyncIterator[Page]:
        """By uuid, which never changes; by page numbers where the filter or the sort is not heeded."""
        endpoint = endpoints.repositories(self.workspace.slug)
        pinned = self.workspace.client.using(credential, patience)
        try:
            async for page in keyset(pinned, endpoint, key="uuid", descending=False):
                yield page
        except (PagingInCircles, BadRequest):
            size: int | None = None
            async for page in numbered(pinned, endpoint):
                size = page.size
                yield page
            # Page numbers lose rows when one goes meanwhile.
            self._whole &= size is not None and len(seen) >= size

    async def _store(self, page: Page, seen: set[str]) -> None:
        self._rows += len(page.values)
        if page.number == 1 and page.values:
            await self._name_workspace(record(page.values[0], "workspace"))
        workspace = self.workspace
        if not workspace.id:
            return
        frame = frames.repositories(workspace.id, page.values, page.asked_at)
        seen.update(frame["id"])
        self.seen.update(frame["id"])
        async with workspace.warehouse.transaction() as transaction:
            await moves.store_repositories(transaction, frame)
        workspace.listener.progress(KIND, len(seen), max(len(seen), page.size or 0), workspace.client.requests)

    async def _name_workspace(self, named: Json) -> None:
        """Stores the workspace as its repositories name it; where they do not say enough, it is asked for once."""
        if text(named.get("name")):
            self.workspace = await _store_workspace(self.workspace, named)
        if not self.workspace.id:
            self.workspace = await _ask_workspace(self.workspace, self._report)
        if not self.workspace.id:
            self.workspace = await _store_workspace(self.workspace, named)

    async def gone(self, report: Report) -> list[str]:
        """Stored repositories that a complete listing lacks, confirmed where it lacks suspiciously many."""
        if not self.complete:
            return []
        rows = await self.workspace.warehouse.rows(
            "SELECT id::text, source_id FROM bitbucket_repositories WHERE workspace_id = %s AND deleted_at IS NULL",
            [self.workspace.id],
        )
        missing = {row.id: row.source_id for row in rows if row.id not in self.seen}
        if not absence.is_suspicious(stored=len(rows), missing=len(missing), listed=len(self.seen)):
            return list(missing)

        async def is_gone(repository_id: str) -> bool:
            path = endpoints.repository(self.workspace.slug, missing[repository_id]).path
            value = await absence.asked(self.workspace, path)
            return value is None or not _is_here(self.workspace, value)

        gone = await absence.confirmed(self.workspace, list(missing), is_gone)
        if gone:
            await absence.require_something_visible(self.workspace)
        note(
            self.workspace,
            report,
            f"the list lacks {len(missing)} of {len(rows)} repositories: {len(gone)} are confirmed to be gone, and the "
            "others stay",
        )
        return gone

    async def settle(self, transaction: Transaction, gone: Collection[str]) -> None:
        """Marks those that are gone, and those that are there again."""
        bound = {"workspace": self.workspace.id, "seen": list(self.seen), "gone": list(gone)}
        await transaction.execute(_RESTORE, bound)
        await transaction.execute(_MARK_DELETED, bound)


def _is_here(workspace: Workspace, value: Json) -> bool:
    """Whether a repository that was asked for by its uuid still belongs to the workspace: it may have moved."""
    owner = text(inner(value, "workspace", "uuid"))
    return owner is None or of_bitbucket(owner) == workspace.id


async def fetch_repository(workspace: Workspace, name: str, doubt: absence.Doubt) -> str | None:
    """Stores one repository, by uuid or slug, and returns its uuid; one that Bitbucket no longer has in this workspace
    is marked as deleted.

    Raises:
        Forbidden: it cannot be read.
        NothingReadError: nothing can, so that its absence means nothing.
    """
    asked_at = workspace.now()
    try:
        value = await absence.asked(workspace, endpoints.repository(workspace.slug, name).path)
    except Forbidden as error:
        if not lacks_scope(error):
            await doubt.settle(error)
        raise
    if value is None:
        await doubt.settle(NotFound(f"there is no repository {name}"))
        value = {}
    here = bool(value) and _is_here(workspace, value)
    uuid = text(value.get("uuid")) if here else None
    async with workspace.warehouse.transaction() as transaction:
        if here:
            frame = frames.repositories(workspace.id, [value], asked_at)
            await moves.store_repositories(transaction, frame)
        await transaction.execute(
            "UPDATE bitbucket_repositories SET deleted_at = CASE WHEN %s THEN NULL ELSE now() END "
            "WHERE workspace_id = %s AND source_id = %s AND (deleted_at IS NULL) <> %s",
            [here, workspace.id, uuid if here else name, here],
        )
    return uuid
