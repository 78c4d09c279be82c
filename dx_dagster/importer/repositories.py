"""Imports the list of repositories; a repository missing from the complete list is marked deleted."""

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
    Undecided,
    endpoints,
    keyset,
    numbered,
    unreadable,
)
from dx_dagster.frames import repositories as frames
from dx_dagster.frames.identifiers import of_bitbucket
from dx_dagster.frames.reading import Json, inner, record, text
from dx_dagster.importer import absence
from dx_dagster.importer.clocks import warn_of_differences
from dx_dagster.importer.each import lacks_scope
from dx_dagster.importer.report import REPOSITORIES, Report, note
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.connections import chosen_repositories
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import bounds, moves, repositories

KIND = "repositories"
_REFUSED = (Unauthorized, Forbidden, NotFound, Gone, RateLimited)
_PATIENCE = 60.0  # seconds that a credential may wait for its budget while others can continue


async def import_repositories(workspace: Workspace) -> Report:
    """Stores the workspace and its repositories; one that is missing from a complete listing gets `deleted_at`.

    Where many are missing, `importer.absence` confirms that first.

    Raises:
        NothingReadError: no credential can read any repository.
        BitbucketError: the list could not be read to its end.
    """
    report = Report(KIND)
    # With several credentials, the list also shows whether they see the same.
    if workspace.has_ended(KIND) and len(workspace.client.pool.usable) == 1:
        async with workspace.warehouse.transaction() as transaction:
            await chosen_repositories.apply(transaction, workspace.slug)
        return report
    listing = _Listing(workspace, report)
    try:
        await listing.read()
    except BitbucketError as error:
        if isinstance(error, RateLimited) or listing.seen:
            raise
        raise absence.NothingReadError.because(error) from error
    for refusal in listing.refusals:
        note(workspace, report, f"the repositories of one credential are not listed ({refusal})")
    if not listing.seen:
        raise absence.nothing_listed(workspace)
    if listing.unreadable:
        sent = unreadable(endpoints.repositories(workspace.slug).path, listing.unreadable)
        note(workspace, report, f"no repository is taken for deleted: {sent}")
    gone = await listing.gone(report)
    workspace.client.note_visibility(alike=listing.alike)
    warn_of_differences(workspace)
    async with workspace.warehouse.transaction() as transaction:
        await listing.settle(transaction, gone)
        await chosen_repositories.apply(transaction, workspace.slug)
        await workspace.end_step(transaction, KIND)
    return report


async def _ask_workspace(workspace: Workspace, report: Report) -> Workspace:
    """Fetches the workspace, where its repositories do not name it completely."""
    try:
        value = await workspace.client.get(endpoints.workspace(workspace.slug).path)
    except (BadRequest, Gone, Forbidden, NotFound, Undecided) as error:
        # The real service answered 410 in 2026, though the endpoint is not deprecated. A token of a single repository
        # may be refused.
        if lacks_scope(error):
            raise
        note(workspace, report, f"the workspace is read from its repositories ({error})")
        return workspace
    return await _store_workspace(workspace, record(value))


async def _store_workspace(workspace: Workspace, value: Json) -> Workspace:
    """Stores the workspace under its requested name; without a uuid, the workspace stays as it is."""
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
    """Reads the list with each credential, since tokens of repositories and projects see different ones.

    A credential that is refused or rate limited for long does not stop the others. The repositories that only it sees
    are not taken for deleted then.
    """

    def __init__(self, workspace: Workspace, report: Report) -> None:
        self.workspace = workspace
        self._report = report
        self.seen: set[str] = set()
        self.unreadable = 0
        self._rows = 0
        self._whole = True
        self._lists: dict[str, set[str]] = {}
        self._refusals: dict[int, BitbucketError] = {}

    @property
    def refusals(self) -> list[BitbucketError]:
        return list(self._refusals.values())

    @property
    def complete(self) -> bool:
        """Whether a repository that no list contains is gone."""
        return self._whole and not self._refusals and not self.unreadable

    @property
    def alike(self) -> bool:
        """Whether all credentials see the same repositories."""
        first, *others = self._lists.values()
        return self.complete and all(other == first for other in others)

    async def read(self) -> None:
        """Reads the list with each credential; once for all API tokens of one account, which see the same.

        Raises:
            BitbucketError: every credential is refused.
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
            # No credential with requests left sees anything: wait for the one that has requests again first.
            await self._ask(min(resting.values(), key=itemgetter(0))[1], None)
        if not self._lists:
            if not self.workspace.client.pool.usable:
                raise self.workspace.client.pool.exhausted()
            raise next(iter(self._refusals.values()))
        if self._rows and not self.workspace.id:
            raise Unavailable(f"the API returns no uuid of workspace {self.workspace.slug}")

    async def _ask(self, credential: Credential, patience: float | None) -> BitbucketError | None:
        """Stores what one credential sees; returns the error if it sees nothing."""
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
        """Walks by uuid, which never changes; by page numbers where the API ignores the filter or the sort."""
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
            # Page numbers lose rows when a repository is removed during the walk.
            self._whole &= size is not None and len(seen) >= size

    async def _store(self, page: Page, seen: set[str]) -> None:
        self._rows += len(page.values)
        self.unreadable += page.unreadable
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
        total, requests = max(len(seen), page.size or 0), workspace.client.requests
        workspace.listener.progress(KIND, len(seen), total, requests, REPOSITORIES)

    async def _name_workspace(self, named: Json) -> None:
        """Stores the workspace as its repositories name it; fetches it where they do not name it completely."""
        if text(named.get("name")):
            self.workspace = await _store_workspace(self.workspace, named)
        if not self.workspace.id:
            self.workspace = await _ask_workspace(self.workspace, self._report)
        if not self.workspace.id:
            self.workspace = await _store_workspace(self.workspace, named)

    async def gone(self, report: Report) -> list[str]:
        """Stored repositories missing from a complete listing whose own requests say that they are gone, too."""
        if not self.complete:
            return []
        stored = await repositories.not_deleted(self.workspace.warehouse, self.workspace.id)
        missing = {one: uuid for one, uuid in stored.items() if one not in self.seen}
        if not missing:
            return []

        async def is_gone(repository_id: str) -> bool:
            endpoint = endpoints.repository(self.workspace.slug, missing[repository_id])
            value = await absence.asked(self.workspace, endpoint, "uuid")
            return value is None or not _is_here(self.workspace, value)

        gone = await absence.confirmed(self.workspace, list(missing), is_gone)
        if gone and absence.is_suspicious(stored=len(stored), missing=len(missing), listed=len(self.seen)):
            await absence.require_something_visible(self.workspace)
        if len(gone) < len(missing):
            note(
                self.workspace,
                report,
                f"the list lacks {len(missing)} of {len(stored)} repositories: {len(gone)} are confirmed to be gone, "
                "and the others are kept",
            )
        return gone

    async def settle(self, transaction: Transaction, gone: Collection[str]) -> None:
        """Marks repositories as deleted or restored."""
        await repositories.settle_listing(transaction, self.workspace.id, self.seen, gone)


def _is_here(workspace: Workspace, value: Json) -> bool:
    """Whether a repository fetched by its uuid still belongs to the workspace: it may have moved."""
    owner = text(inner(value, "workspace", "uuid"))
    return owner is None or of_bitbucket(owner) == workspace.id


async def fetch_repository(workspace: Workspace, name: str, access: absence.AccessCheck) -> str | None:
    """Fetches one repository, by uuid or slug, and returns its uuid; marks it deleted if it has left the workspace.

    A 404 by itself says too little: lists must lack the repository as well.

    Raises:
        Forbidden: the repository cannot be read.
        NothingReadError: no repository can be read, so a 404 means nothing.
    """
    asked_at = workspace.now()
    try:
        value = await absence.asked(workspace, endpoints.repository(workspace.slug, name), "uuid")
    except Forbidden as error:
        if not lacks_scope(error):
            await access.check(error)
        raise
    if value is None and name.startswith("{"):
        value = await absence.listed(workspace, name)
    if value is None:
        await access.check(NotFound(f"there is no repository {name}"))
        value = {}
    here = bool(value) and _is_here(workspace, value)
    uuid = text(value.get("uuid")) if here else None
    async with workspace.warehouse.transaction() as transaction:
        if here:
            frame = frames.repositories(workspace.id, [value], asked_at)
            await moves.store_repositories(transaction, frame)
            await chosen_repositories.apply(transaction, workspace.slug)
        await repositories.set_deleted(transaction, workspace.id, uuid if here else name, deleted=not here)
    return uuid
