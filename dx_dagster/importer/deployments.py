"""Imports environments and deployments.

Deployments have no date of change that can be filtered by, and the order of their list is not documented. A pipeline
makes them: they are fetched where a pipeline has changed (`warehouse.imported.deployments`), by page numbers, down to a
page that ends with known ones. Where the list does not come newest first, it is walked to its end.

A deployment below that page may change too: a manual step deploys an old release, failed steps run again under the
same uuid. So the deployments of a changed pipeline are requested if no page had them, and so are those that have not
ended, with pauses that grow with their age.
"""

import math
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from dx_dagster.bitbucket import (
    BadRequest,
    BitbucketError,
    Forbidden,
    Gone,
    NotFound,
    Page,
    endpoints,
    fetch_object,
    numbered,
    unreadable,
)
from dx_dagster.bitbucket.endpoints import Endpoint
from dx_dagster.frames import deployments as frames
from dx_dagster.frames.reading import Json, text
from dx_dagster.importer import absence
from dx_dagster.importer.each import ask_singly, for_each_repository, lacks_scope
from dx_dagster.importer.report import Report, note, skip
from dx_dagster.importer.watermarks import ROWS_TO_BE_SURE, later, newest_of, reaches_below
from dx_dagster.importer.workspace import Workspace, require_id
from dx_dagster.settings import Settings
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.imported import deployments, hashes, marks
from dx_dagster.warehouse.imported.bounds import reaches_back_to
from dx_dagster.warehouse.imported.deployments import REFUSED, UnsettledDeployment
from dx_dagster.warehouse.imported.marks import DeploymentsMark, MarkedRepository

KIND = "deployments"
_REFUSALS = (Forbidden, NotFound, Gone)
_RESUMED = "resumed"
"""Version of a mark whose first walk was cut off and has ended since: newer deployments may be missing."""

Deploying = MarkedRepository[DeploymentsMark]


async def import_deployments(settings: Settings, workspace: Workspace) -> Report:
    """Stores environments and deployments of every repository in which a pipeline has changed.

    Of one without stored pipelines once: it may have environments, and deployments by pipelines older than the bound.
    """
    report = Report(KIND)
    workspace_id = require_id(workspace)
    if settings.deployments == "off":
        report.notes.append("deployments are not imported: DX_DEPLOYMENTS is off")
        return report
    if workspace.full:
        await marks.forget(workspace.warehouse, workspace_id, DeploymentsMark)
    versions = await deployments.stale(workspace.warehouse, workspace_id, workspace.reconcile)
    known = await marks.with_marks(workspace.warehouse, workspace_id, DeploymentsMark)
    importing = ImportOfDeployments(workspace, report)

    async def work(repository: Deploying) -> None:
        await importing.of(repository, versions[repository.id])

    await for_each_repository(workspace, report, [one for one in known if one.accessible and one.id in versions], work)
    return report


class _Listed(Protocol):
    def __call__(self, workspace: str, repository: str, *, slash: bool) -> Endpoint: ...


@dataclass
class _Walked:
    """The result of a walk: its mark, which of the wanted uuids it saw, and whether the list was empty.

    `unreadable`: rows that could be any deployment.
    """

    mark: DeploymentsMark
    seen: set[str] = field(default_factory=set)
    empty: bool = True
    unreadable: int = 0


@dataclass
class ImportOfDeployments:
    """Imports deployments, repository by repository."""

    workspace: Workspace
    report: Report
    _slash: dict[_Listed, bool] = field(default_factory=dict, init=False)
    _answered: set[str] = field(default_factory=set, init=False)

    async def of(self, repository: Deploying, version: str) -> None:
        """Brings one repository up to date with a version of its pipelines.

        Raises:
            BitbucketError: the credential lacks a scope, or something was refused after the first page.
        """
        begun_at = self.workspace.now()
        try:
            await self._update(repository, version, begun_at)
        except _REFUSALS as error:
            if lacks_scope(error) or repository.id in self._answered:
                raise
            await self._warn_of(repository, error)
            refused = replace(repository.mark, fallback=REFUSED, version=version, walk_cursor=None)
            async with self.workspace.warehouse.transaction() as transaction:
                await marks.put(transaction, refused, asked=begun_at)

    async def _update(self, repository: Deploying, version: str, begun_at: datetime) -> None:
        mark, warehouse = repository.mark, self.workspace.warehouse
        fallback = None
        if mark.version != version or mark.fallback == REFUSED or self.workspace.reconcile is not None:
            try:
                if not await self._update_environments(repository):
                    fallback = REFUSED
            except _REFUSALS as error:
                if lacks_scope(error):
                    raise
                await self._warn_of(repository, error)
                fallback = REFUSED
        older = self.workspace.since is not None
        if not await deployments.can_exist(warehouse, repository.id, older_pipelines=older):
            async with warehouse.transaction() as transaction:
                await marks.put(transaction, replace(mark, version=version, fallback=fallback), asked=begun_at)
            return
        unsettled = await deployments.unsettled(warehouse, repository.id)
        wanted = {one.source_id for one in unsettled}
        if mark.walk_cursor is not None:
            mark = (await self._resume(repository, mark)).mark
        begun = replace(mark, walk_head=None, walk_cursor=None, walk_bound=self.workspace.since)
        walked = await self._walk(repository, begun, wanted)
        if walked.unreadable:
            self._skip_unreadable(repository, endpoints.deployments, walked.unreadable)
            fallback = REFUSED
        if walked.empty and await deployments.count(warehouse, repository.id):
            note(
                self.workspace, self.report, f"{repository.slug}: the list of deployments is empty; nothing is changed"
            )
            return
        left_out = await self._ask(repository, [one for one in unsettled if one.source_id not in walked.seen])
        done = replace(walked.mark, version=version, fallback=fallback)
        async with warehouse.transaction() as transaction:
            await deployments.asked(transaction, [one.id for one in unsettled if one not in left_out])
            await hashes.resolve_deployments(transaction, [repository.id])
            await marks.put(transaction, done, asked=begun_at, listed=self.workspace.reconcile is not None)

    async def _warn_of(self, repository: Deploying, error: BitbucketError) -> None:
        """Reports a refusal where deployments are stored, and a removed endpoint.

        Others are the normal answer of a repository without Pipelines.
        """
        if isinstance(error, Gone) or await deployments.count(self.workspace.warehouse, repository.id):
            skip(self.workspace, self.report, repository.slug, error)

    def _skip_unreadable(self, repository: Deploying, listed: _Listed, rows: int) -> None:
        endpoint = listed(self.workspace.slug, repository.source_id, slash=False)
        skip(self.workspace, self.report, repository.slug, unreadable(endpoint.path, rows))

    # -- environments -------------------------------------------------------------------------------------------------

    async def _update_environments(self, repository: Deploying) -> bool:
        """Stores the environments; one that a complete list lacks gets `deleted_at`. Returns whether all are known."""
        warehouse = self.workspace.warehouse
        seen: set[str] = set()
        size = unread = 0
        async for page in self._pages(endpoints.environments, repository):
            frame = frames.environments(repository.id, page.values, page.asked_at)
            size, unread = max(size, page.size or 0), unread + page.unreadable
            seen.update(frame["id"])
            async with warehouse.transaction() as transaction:
                await transaction.merge(merge.ENVIRONMENTS, frame)
        if unread:
            self._skip_unreadable(repository, endpoints.environments, unread)
        gone = await self._gone(repository, seen) if len(seen) >= size and not unread else []
        async with warehouse.transaction() as transaction:
            await deployments.settle_environments(transaction, seen, gone)
        return not unread

    async def _gone(self, repository: Deploying, seen: Collection[str]) -> list[str]:
        """Ids of stored environments that are gone; confirmed by requests if suspiciously many are missing."""
        stored = await deployments.environments(self.workspace.warehouse, repository.id)
        missing = {one: uuid for one, uuid in stored.items() if one not in seen}
        if not absence.is_suspicious(stored=len(stored), missing=len(missing), listed=len(seen)):
            return list(missing)

        async def is_gone(environment_id: str) -> bool:
            endpoint = endpoints.environment(self.workspace.slug, repository.source_id, missing[environment_id])
            return await absence.asked(self.workspace, endpoint, "uuid") is None

        gone = await absence.confirmed(self.workspace, list(missing), is_gone)
        if gone and not await absence.repository_answers(self.workspace, repository):
            gone = []
        message = f"{repository.slug}: the list lacks {len(missing)} of {len(stored)} environments: {len(gone)} are "
        note(self.workspace, self.report, f"{message}confirmed to be gone, and the others are kept")
        return gone

    # -- deployments --------------------------------------------------------------------------------------------------

    async def _resume(self, repository: Deploying, mark: DeploymentsMark) -> _Walked:
        """Ends a walk that was cut off, if its page is still there."""
        walked = _Walked(replace(mark, walk_cursor=None))
        with suppress(BadRequest, NotFound):
            walked = await self._walk(repository, mark, ())
            resumed = replace(walked.mark, version=walked.mark.version or _RESUMED)
            async with self.workspace.warehouse.transaction() as transaction:
                await marks.put(transaction, resumed)
            walked = replace(walked, mark=resumed)
        return walked

    async def _walk(self, repository: Deploying, mark: DeploymentsMark, wanted: Collection[str]) -> _Walked:
        """Walks back through the list, to known deployments or to the bound.

        It goes on for deployments that are `wanted` (uuids), where pages take fewer requests than these do.
        """
        walked = _Walked(mark)
        stop = _Stop(self.workspace, mark)
        async for page in self._pages(endpoints.deployments, repository, start=int(mark.walk_cursor or 1)):
            self._answered.add(repository.id)
            walked.empty = walked.empty and not page.values
            walked.unreadable += page.unreadable
            if mark.walk_head is None:
                created = (moment for value in page.values if (moment := frames.created_at(value)))
                mark = replace(mark, walk_head=newest_of(created, page.asked_at))
            within = [value for value in page.values if not self._is_outside(value)]
            walked.seen |= set(wanted).intersection(text(value.get("uuid")) for value in within)
            frame = frames.deployments(repository.id, within, page.asked_at)
            last = frame["id"].tail(ROWS_TO_BE_SURE).to_list()
            async with self.workspace.warehouse.transaction() as transaction:
                over = stop.after(page, is_known=await deployments.are_stored(transaction, last))
                await transaction.merge(self.workspace.merging(merge.DEPLOYMENTS), frame)
                over = over and len(set(wanted) - walked.seen) <= _pages_left(page)
                if over and page.size is not None and self.workspace.since is None:
                    # An order that only looks like newest first may have left new ones for later pages.
                    over = await deployments.count(transaction, repository.id) >= page.size
                if not over:
                    mark = replace(mark, walk_cursor=str(page.number + 1))
                await marks.put(transaction, mark)
            if over:
                break
        synced_to = later(mark.synced_to, mark.walk_head)
        walked.mark = replace(mark, synced_to=synced_to, bound=mark.walk_bound, walk_cursor=None)
        return walked

    def _is_outside(self, value: Json) -> bool:
        created_at = frames.created_at(value)
        return self.workspace.since is not None and created_at is not None and created_at < self.workspace.since

    async def _ask(
        self, repository: Deploying, wanted: Sequence[UnsettledDeployment]
    ) -> Collection[UnsettledDeployment]:
        """Fetches deployments one by one; returns those that were left out after failures."""
        done = await ask_singly(wanted, lambda one: self._ask_one(repository, one.source_id))
        for _, error in done.failed:
            skip(self.workspace, self.report, repository.slug, error)
        return done.left_out

    async def _ask_one(self, repository: Deploying, source_id: str) -> None:
        endpoint = endpoints.deployment(self.workspace.slug, repository.source_id, source_id)
        asked_at = self.workspace.now()
        with suppress(NotFound):
            value = await fetch_object(self.workspace.client, endpoint, "uuid")
            frame = frames.deployments(repository.id, [value], asked_at)
            async with self.workspace.warehouse.transaction() as transaction:
                await transaction.merge(self.workspace.merging(merge.DEPLOYMENTS), frame)

    async def _pages(self, listed: _Listed, repository: Deploying, start: int = 1) -> AsyncIterator[Page]:
        """The pages of a list, which some services have only under a path with a slash at its end.

        The documentation has no slash; PostHog and constructorfabric/insight send one.
        """
        slash = self._slash.get(listed, False)
        begun = False
        try:
            async for page in self._numbered(listed, repository, start, slash=slash):
                self._slash[listed] = slash
                begun = True
                yield page
        except NotFound:
            if begun or listed in self._slash:
                raise
        else:
            return
        async for page in self._numbered(listed, repository, start, slash=True):
            self._slash[listed] = True
            yield page

    def _numbered(self, listed: _Listed, repository: Deploying, start: int, *, slash: bool) -> AsyncIterator[Page]:
        endpoint = listed(self.workspace.slug, repository.source_id, slash=slash)
        return numbered(self.workspace.client, endpoint, start=start)


def _pages_left(page: Page) -> float:
    """Pages after this one; more than anything where the list does not say its size."""
    return math.inf if page.size is None else max(0, math.ceil(page.size / page.pagelen) - page.number)


_Date = Callable[[Json], datetime | None]


class _Stop:
    """Decides after which page a walk is over."""

    def __init__(self, workspace: Workspace, mark: DeploymentsMark) -> None:
        self._since = workspace.since
        self._known = (
            mark.version is not None and mark.fallback is None and reaches_back_to(mark.bound, mark.walk_bound)
        )
        self._again: datetime | None = None
        if workspace.reconcile is not None:
            self._again = (mark.listed_at or workspace.now()) - workspace.reconcile
        # The dates by which the list comes newest first so far, with the oldest on its last page.
        self._descending: dict[_Date, datetime | None] = dict.fromkeys(
            (frames.created_at, frames.started_at, frames.updated_at)
        )

    def after(self, page: Page, *, is_known: bool) -> bool:
        """Whether later pages hold nothing new; `is_known` says whether this page ends with stored deployments."""
        moments = self._read(page.values)
        if not any(self._descending.values()):
            return False
        if any(reaches_below(those, self._since) for those in moments.values()):
            return True
        if not self._known or not is_known:
            return False
        return self._again is None or any(reaches_below(those, self._again) for those in moments.values())

    def _read(self, values: Sequence[Json]) -> dict[_Date, list[datetime]]:
        """The page's dates of each kind by which the list still comes newest first."""
        found: dict[_Date, list[datetime]] = {}
        for date, last in list(self._descending.items()):
            moments = [moment for value in values if (moment := date(value))]
            together = [*([last] if last else []), *moments]
            if together == sorted(together, reverse=True):
                self._descending[date] = min(together, default=None)
                found[date] = moments
            else:
                del self._descending[date]
        return found
