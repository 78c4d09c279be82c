"""Imports the sizes of pull requests, newest first, from what the budgets have left after everything else.

Each size takes two requests, so that a first import takes more of them than all other steps together. They are sparing
requests: they keep a fifth of each budget for others, and neither wait nor retry. The step stops when there is nothing
to spare, and the next sync goes on.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from dx_dagster.bitbucket import (
    BadRequest,
    BitbucketError,
    CredentialsExhausted,
    Forbidden,
    Gone,
    NotFound,
    Page,
    RateLimited,
    Unavailable,
    clause,
    cursor,
    endpoints,
)
from dx_dagster.bitbucket.concurrency import MODEST
from dx_dagster.clock import monotonic
from dx_dagster.frames import diffstats
from dx_dagster.importer.each import for_each, lacks_scope
from dx_dagster.importer.each_pull import HOPELESS, PullRow, pull_rows
from dx_dagster.importer.group_commit import GroupCommit
from dx_dagster.importer.report import Progress, Report, note, skip
from dx_dagster.importer.workspace import Workspace, require_id
from dx_dagster.settings import Settings
from dx_dagster.warehouse.imported import sizes, stale
from dx_dagster.warehouse.imported.marks import Repository
from dx_dagster.warehouse.imported.sizes import SettledSize, Size

KIND = "pull_request_sizes"

_MOST = 10_000  # pull requests of one sync; the largest budget pays for half as many
_LONGEST = 300.0  # seconds: deliveries of webhooks wait for the end of a sync
_REFUSALS = 3  # in a row, after which a repository is left alone until the next sync
_TOO_SLOW = 555  # "If generating the diffstat timed out", says the OpenAPI file
_NO_ANCESTOR = "no common ancestor"


async def import_sizes(settings: Settings, workspace: Workspace) -> Report:
    """Fetches the sizes of pull requests whose source has moved, as long as the budgets have requests to spare.

    Errors of Bitbucket do not fail the step, since a sync is complete without sizes.
    """
    report = Report(KIND)
    workspace_id = require_id(workspace)
    if settings.pull_request_size == "off":
        report.notes.append("DX_PULL_REQUEST_SIZE is off: no size was requested")
        return report
    if workspace.full:
        async with workspace.warehouse.transaction() as transaction:
            await stale.forget_sizes(transaction, workspace_id)
    rows = await pull_rows(workspace, partial(stale.pulls_without_size, most=_MOST))
    fetching = _Fetching(workspace, report, Progress(workspace, report, len(rows)))
    await for_each(rows, fetching.work, min(MODEST, workspace.client.max_in_flight))
    if fetching.stopped and (left := len(rows) - fetching.done):
        many = "more than " if len(rows) == _MOST else ""
        note(workspace, report, f"{many}{left:,} sizes left for the next sync: {clause(fetching.stopped)}")
    return report


@dataclass
class _Fetching:
    """Fetches sizes until it is stopped.

    Attributes:
        done: pull requests whose size was settled or refused.
        stopped: why no more are fetched in this sync.
        refusals: by repository id, refusals since the last answer.
        unavailable: failures since the last answer.
    """

    workspace: Workspace
    report: Report
    progress: Progress
    done: int = 0
    stopped: str | None = None
    refusals: Counter[str] = field(default_factory=Counter)
    unavailable: int = 0

    def __post_init__(self) -> None:
        self._client = self.workspace.client.sparing()
        self._commit = GroupCommit[SettledSize](self._store)
        self._deadline = monotonic() + _LONGEST

    async def work(self, row: PullRow) -> None:
        """Settles the size of one pull request, unless fetching has stopped or its repository refuses."""
        if monotonic() > self._deadline:
            self._stop(f"they have taken {_LONGEST:.0f} seconds of this sync")
        if self.stopped or self.refusals[row.repository.id] >= _REFUSALS:
            return
        try:
            size = await self._size(row)
        except RateLimited:
            self._stop("the requests that are left in this hour are kept for other steps")
        except CredentialsExhausted as error:
            self._stop(str(error))
        except BitbucketError as error:
            await self._refused(row, error)
        else:
            self.refusals[row.repository.id] = self.unavailable = 0
            await self._commit(SettledSize(row, row.version, size))
            self._count()

    async def _size(self, row: PullRow) -> Size | None:
        """The size of a pull request; None where Bitbucket cannot tell it.

        Raises:
            BitbucketError: it may tell at another time.
        """
        pages: list[Page] = []
        try:
            endpoint = endpoints.diffstat(self.workspace.slug, row.repository.source_id, row.number)
            async for page in cursor(self._client, endpoint):
                pages.append(page)  # noqa: PERF401 - whether there was a first page matters
        except NotFound:
            # Something that the source needs is gone. A token that lost its access gets 404 too.
            if pages or not await self._answers(row.repository):
                raise
            return None
        except BadRequest as error:
            if _NO_ANCESTOR not in (error.message or "").lower():
                raise
            return None
        except Unavailable as error:
            if error.status != _TOO_SLOW:
                raise
            return None
        return Size(*diffstats.totals(file for page in pages for file in page.values))

    async def _answers(self, repository: Repository) -> bool:
        try:
            await self._client.get(endpoints.repository(self.workspace.slug, repository.source_id).path)
        except (Forbidden, NotFound, Gone):
            return False
        return True

    async def _refused(self, row: PullRow, error: BitbucketError) -> None:
        if lacks_scope(error):
            self._stop(str(error))
            return
        if isinstance(error, Forbidden | NotFound | Gone):
            self.refusals[row.repository.id] += 1
        if isinstance(error, Unavailable):
            self.unavailable += 1
            if self.unavailable >= HOPELESS:
                self._stop(str(error))
        skip(self.workspace, self.report, f"{row.repository.slug}#{row.number}", error)
        async with self.workspace.warehouse.transaction() as transaction:
            await sizes.refused(transaction, row, row.version)
        self._count()

    async def _store(self, batch: Sequence[SettledSize]) -> None:
        async with self.workspace.warehouse.transaction() as transaction:
            await sizes.store(transaction, batch)

    def _stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason

    def _count(self) -> None:
        self.done += 1
        self.progress.add()
