"""Repositories: the whole list, in which absence is news once it is complete."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from operator import itemgetter

from dx_dagster.bitbucket import (
    BadRequest,
    BitbucketError,
    Credential,
    CredentialsExhausted,
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
from dx_dagster.importer.workspace import Report, Workspace, lacks_scope, note
from dx_dagster.warehouse import addresses, merge
from dx_dagster.warehouse.database import Transaction

KIND = "repositories"
_REFUSED = (Unauthorized, Forbidden, NotFound, Gone, RateLimited)
_PATIENCE = 60.0  # seconds that a credential may wait for its budget while others could go on
_MARK_DELETED = """
    UPDATE bitbucket_repositories r
    SET deleted_at = CASE WHEN listed.now THEN NULL ELSE now() END
    FROM (SELECT id, id = ANY(%(seen)s::uuid[]) AS now FROM bitbucket_repositories) listed
    WHERE r.workspace_id = %(workspace)s AND listed.id = r.id AND listed.now = (r.deleted_at IS NOT NULL)
      AND (listed.now OR %(complete)s)"""


async def import_repositories(workspace: Workspace) -> Report:
    """Stores the workspace and its repositories; one that no complete listing holds any longer gets `deleted_at`.

    Raises:
        BitbucketError: no credential came to the end of its list.
    """
    report = Report(KIND)
    if not workspace.id or workspace.full:
        workspace = await _ask_workspace(workspace, report)
    listing = _Listing(workspace)
    await listing.read()
    for refusal in listing.refusals:
        note(workspace, report, f"what one credential sees is not listed ({refusal})")
    workspace.client.pool.alike = listing.alike
    async with workspace.warehouse.transaction() as transaction:
        await listing.settle(transaction)
    return report


async def _ask_workspace(workspace: Workspace, report: Report) -> Workspace:
    """Once is enough, for repositories name their workspace too."""
    try:
        value = await workspace.client.get(endpoints.workspace(workspace.slug).path)
    except (Gone, Forbidden) as error:
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
    frame = frames.workspace({"slug": workspace.slug, "name": value.get("name"), "uuid": source}, datetime.now(UTC))
    async with workspace.warehouse.transaction() as transaction:
        await transaction.merge(merge.WORKSPACES, frame)
    return replace(workspace, id=of_bitbucket(source))


class _Listing:
    """The list as each credential sees it: tokens of single repositories or projects see different ones.

    A credential that is refused or has to rest for long keeps nobody else from going on; but what it alone sees is not
    known to be gone then.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
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
        usable = self._workspace.client.pool.usable
        resting: dict[str, tuple[float, Credential]] = {}
        for credential in usable:
            if credential.budget in self._lists or credential.budget in resting:
                continue
            error = await self._ask(credential, _PATIENCE if len(usable) > 1 else None)
            if isinstance(error, RateLimited):
                resting[credential.budget] = (error.retry_after or 0.0, credential)
        if not self._lists and resting:
            # Nobody has a request left: now it is worth waiting for whoever has one first.
            await self._ask(min(resting.values(), key=itemgetter(0))[1], None)
        if not self._lists:
            raise next(iter(self._refusals.values()), CredentialsExhausted("no credential is left", status=401))
        if not self._workspace.id:
            raise Unavailable(f"neither workspace {self._workspace.slug} nor any repository in it tells its uuid")

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
        endpoint = endpoints.repositories(self._workspace.slug)
        pinned = self._workspace.client.using(credential, patience)
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
        if page.number == 1 and page.values:
            named = record(page.values[0], "workspace")
            if not self._workspace.id or text(named.get("name")):
                self._workspace = await _store_workspace(self._workspace, named)
        workspace = self._workspace
        if not workspace.id:
            return
        frame = frames.repositories(workspace.id, page.values, page.asked_at)
        seen.update(frame["id"])
        async with workspace.warehouse.transaction() as transaction:
            await addresses.follow_renames(transaction, frame)
            await transaction.merge(merge.REPOSITORIES, frame)
        workspace.listener.progress(KIND, len(seen), max(len(seen), page.size or 0), workspace.client.requests)

    async def settle(self, transaction: Transaction) -> None:
        """Marks those that are gone, and those that are there again."""
        bound = {
            "workspace": self._workspace.id,
            "seen": list(set().union(*self._lists.values())),
            "complete": self.complete,
        }
        await transaction.execute(_MARK_DELETED, bound)


async def fetch_repository(workspace: Workspace, name: str) -> str | None:
    """Stores one repository, by uuid or slug, and returns its uuid; one that Bitbucket no longer has in this workspace
    is marked as deleted.

    Raises:
        Forbidden: it cannot be read.
    """
    asked_at = datetime.now(UTC)
    try:
        value: Json = await workspace.client.get(endpoints.repository(workspace.slug, name).path)
    except (NotFound, Gone):
        value = {}
    owner = text(inner(value, "workspace", "uuid"))
    here = bool(value) and (owner is None or of_bitbucket(owner) == workspace.id)
    uuid = text(value.get("uuid")) if here else None
    async with workspace.warehouse.transaction() as transaction:
        if here:
            frame = frames.repositories(workspace.id, [value], asked_at)
            await addresses.follow_renames(transaction, frame)
            await transaction.merge(merge.REPOSITORIES, frame)
        await transaction.execute(
            "UPDATE bitbucket_repositories SET deleted_at = CASE WHEN %s THEN NULL ELSE now() END "
            "WHERE workspace_id = %s AND source_id = %s AND (deleted_at IS NULL) <> %s",
            [here, workspace.id, uuid if here else name, here],
        )
    return uuid
