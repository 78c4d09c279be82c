"""Applies the deliveries of a workspace's inbox, with no more requests than they make necessary.

A delivery may come late, twice, before one that happened earlier, or about something that is gone. So what it shows is
stored only where it is newer than the stored row, and everything else is fetched. Applying a delivery twice is
harmless; it is marked as applied once all that it made stale is stored.

`payloads` reads the deliveries, `plan` decides what to store and to fetch. Each step here does one kind of work of the
plan, in the order in which the steps build on each other, and `outcomes` records what became of each delivery.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from dx_dagster.bitbucket import (
    BitbucketClient,
    BitbucketError,
    CredentialsExhausted,
    Forbidden,
    Gone,
    NotFound,
    RateLimited,
)
from dx_dagster.importer import comments, pipelines
from dx_dagster.importer.absence import AccessCheck, NothingReadError
from dx_dagster.importer.activity import feed
from dx_dagster.importer.activity import step as activity
from dx_dagster.importer.commits import default_branch, whole_hashes
from dx_dagster.importer.commits import endpoint as pull_commits
from dx_dagster.importer.deployments import ImportOfDeployments
from dx_dagster.importer.each import for_each, is_away, lacks_scope
from dx_dagster.importer.each_pull import PullRow, pull_rows
from dx_dagster.importer.growing_limit import GrowingLimit
from dx_dagster.importer.members import import_members
from dx_dagster.importer.pull_requests import fetch_one
from dx_dagster.importer.pull_requests import store as store_pulls
from dx_dagster.importer.report import Report
from dx_dagster.importer.repositories import fetch_repository, import_repositories
from dx_dagster.importer.workspace import NewAccounts, Workspace, open_workspace, pull_id
from dx_dagster.telemetry import spans
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import LockLostError
from dx_dagster.warehouse.imported import deployments, hashes, marks, pulls, repositories, stale
from dx_dagster.warehouse.imported import pipelines as stored_pipelines
from dx_dagster.warehouse.imported.marks import (
    ActivityMark,
    AnyMark,
    CommitsMark,
    DeploymentsMark,
    MarkedRepository,
    PipelinesMark,
    Repository,
)
from dx_dagster.warehouse.webhooks import inbox
from dx_dagster.warehouse.webhooks.inbox import StoredDelivery
from dx_dagster.webhooks import payloads
from dx_dagster.webhooks.outcomes import Applied, Outcomes
from dx_dagster.webhooks.payloads import RepositoryNews
from dx_dagster.webhooks.plan import AffectedPull, AffectedRepository, Plan, Stored, plan, stale_repositories

KIND = "webhooks"
AT_ONCE = 500
_PIPELINES_UNREADABLE = "pipelines cannot be read"

Item = TypeVar("Item")


async def apply_deliveries(
    workspace: Workspace,
    run: str,
    result: Applied,
    for_pipelines: BitbucketClient | None = None,
    *,
    with_deployments: bool = True,
) -> int:
    """Applies the oldest deliveries that are due; returns how many it took.

    `run` is recorded with each of them. `for_pipelines` has the credentials for pipelines, where these differ.
    `with_deployments` fetches the deployments of pipelines that deliveries report to have ended.
    While syncs of the workspace fail, it takes none: the answers that they get now would settle deliveries for good.

    Raises:
        BitbucketError: no request can be made at the moment; the deliveries are retried later.
    """
    warehouse = workspace.warehouse
    connection = await connections.find(warehouse, workspace.slug)
    if connection is not None and connection.last_error is not None:
        await inbox.postpone(warehouse, workspace.slug, connection.last_error)
        return 0
    result.set_aside += await inbox.set_hopeless_aside(warehouse, workspace.slug)
    deliveries = await inbox.take(warehouse, workspace.slug, AT_ONCE)
    if not deliveries:
        return 0
    settled: set[int] = set()
    try:
        if not workspace.id:
            await import_repositories(workspace)
            workspace = await open_workspace(workspace.slug, workspace.client, warehouse, workspace.listener)
        batch = partial(_apply, workspace, deliveries, for_pipelines or workspace.client)
        with spans.span("apply deliveries", run_id=run, workspace=workspace.slug):
            await batch(run=run, result=result, settled=settled, with_deployments=with_deployments)
            _trace(deliveries, settled, workspace)
    except BitbucketError as error:
        async with warehouse.transaction() as transaction:
            await inbox.give_back(transaction, {delivery.id for delivery in deliveries} - settled, str(error))
        raise
    return len(deliveries)


def _trace(deliveries: Sequence[StoredDelivery], settled: Collection[int], workspace: Workspace) -> None:
    """Records a span for each delivery, from its arrival to its rows."""
    for delivery in deliveries:
        if delivery.id in settled:
            name, began, ended = f"delivery {delivery.event_key}", delivery.received_at, workspace.now()
            spans.record(name, began, ended, delivery=delivery.id, workspace=workspace.slug)


async def _apply(
    workspace: Workspace,
    deliveries: Sequence[StoredDelivery],
    for_pipelines: BitbucketClient,
    *,
    run: str,
    result: Applied,
    settled: set[int],
    with_deployments: bool,
) -> None:
    """Applies one batch; adds to `settled` the deliveries whose outcome is recorded.

    Raises:
        Unavailable: Bitbucket is down; the deliveries that failed because of it are not settled.
    """
    news, nothing = payloads.read(deliveries)
    outcomes = Outcomes((delivery for about in news for delivery in about.all_deliveries), nothing)
    batch = _Batch(replace(workspace, new_accounts=NewAccounts()), for_pipelines, outcomes)
    planned = await _update_repositories(batch, news)
    await _update_pulls(batch, planned)
    await _update_activity(batch, planned)
    await _update_comments(batch, planned)
    walked = await _update_branches(batch, planned)
    await _update_commits(batch, planned, walked)
    await _update_pipelines(batch, planned)
    if with_deployments:
        await _update_deployments(batch, planned)
    await _update_members(batch)
    unavailable = outcomes.of_unavailable()
    away = unavailable if unavailable and await is_away(workspace) else {}
    settled.update(await outcomes.settle(workspace.warehouse, run, result, except_for=away.keys()))
    for error in away.values():
        raise error


class _Batch:
    """What every step works with. An item that fails does so alone, and its deliveries are retried."""

    def __init__(self, workspace: Workspace, for_pipelines: BitbucketClient, outcomes: Outcomes) -> None:
        self.workspace = workspace
        self.for_pipelines = replace(workspace, client=for_pipelines)
        self.report = Report(KIND)
        self.access = AccessCheck(workspace)
        self.outcomes = outcomes

    async def stored(self) -> dict[str, Repository]:
        """The workspace's repositories by uuid and slug."""
        repositories = await marks.repositories(self.workspace.warehouse, self.workspace.id)
        return {one.slug: one for one in repositories} | {one.source_id: one for one in repositories}

    async def with_marks(self, kind: type[AnyMark]) -> dict[str, MarkedRepository[AnyMark]]:
        """The workspace's repositories by uuid and slug, with their marks of one kind."""
        repositories = await marks.with_marks(self.workspace.warehouse, self.workspace.id, kind)
        return {one.slug: one for one in repositories} | {one.source_id: one for one in repositories}

    async def each(
        self,
        items: Sequence[Item],
        work: Callable[[Item], Awaitable[None]],
        deliveries_about: Callable[[Item], Collection[int]],
    ) -> None:
        """Does `work` for each item; an error fails the deliveries about that item only.

        Raises:
            BitbucketError: the error concerns every item.
        """

        async def guarded(item: Item) -> None:
            try:
                await work(item)
            except (CredentialsExhausted, RateLimited, NothingReadError, LockLostError):
                raise
            except BitbucketError as error:
                if lacks_scope(error):
                    raise
                if isinstance(error, Forbidden | NotFound | Gone):
                    await self.access.check(error)
                self._fail(deliveries_about(item), error)
            except Exception as error:  # noqa: BLE001 - a payload that breaks us must not hold up other deliveries
                self._fail(deliveries_about(item), error)

        await for_each(items, guarded, self.workspace.most_at_once)

    def _fail(self, deliveries: Iterable[int], error: Exception) -> None:
        self.workspace.listener.warning(f"{KIND}: {error}")
        self.outcomes.fail(deliveries, error)

    async def each_pull(
        self, planned: Plan, rows: Sequence[PullRow], work: Callable[[PullRow], Awaitable[None]]
    ) -> None:
        """Does `work` for each row; where Bitbucket answers 404, the pull request itself is fetched.

        If that exists, the 404 is an error like any other.
        """

        async def or_fetched(row: PullRow) -> None:
            try:
                await work(row)
            except NotFound:
                if await self.fetch_pull(row.repository, row.number):
                    raise

        await self.each(rows, or_fetched, lambda row: planned.deliveries_about(row.repository.id, row.number))

    async def fetch_pull(self, repository: Repository, number: int) -> bool:
        """Stores a pull request, or marks it as deleted, if need be with its whole repository; returns if it exists."""
        try:
            return await fetch_one(self.workspace, repository, number)
        except NotFound:
            if await fetch_repository(self.workspace, repository.source_id, self.access) is not None:
                raise  # nothing says that the pull request is gone
            return False

    def pull_ids(self, planned: Plan, *, comments_only: bool = False) -> list[str]:
        """The ids of the pull requests whose deliveries have not failed yet."""
        return [
            pull_id(pull.repository, pull.news.number)
            for pull in planned.pulls
            if (pull.news.comments or not comments_only) and not self.outcomes.has_failed(pull.news.deliveries)
        ]


# -- repositories and pull requests -----------------------------------------------------------------------------------


async def _update_repositories(batch: _Batch, news: Sequence[RepositoryNews]) -> Plan:
    """Fetches repositories that changed or are not stored, then plans the rest of the batch."""
    known = await batch.stored()

    async def fetch(about: RepositoryNews) -> None:
        try:
            # From here on the repository goes by its uuid, also where the delivery has only its slug.
            about.name = await fetch_repository(batch.workspace, about.name, batch.access) or about.name
        except Forbidden as error:
            if lacks_scope(error) or (about.name in known and known[about.name].accessible):
                raise
            # The repository was unreadable before: a retry would not change that.

    # The rows of excluded ones are renewed by the list of the next sync.
    excluded = await repositories.excluded(batch.workspace.warehouse, batch.workspace.id)
    stale_ones = [one for one in stale_repositories(news, known) if one.name not in excluded]
    await batch.each(stale_ones, fetch, lambda about: about.all_deliveries)
    known = await batch.stored()
    changed_at = await _changed_at(batch, news, known)
    planned = plan(news, Stored(known, changed_at, batch.workspace.now()))
    for reason, about in planned.refused:
        if not batch.outcomes.has_failed(about.all_deliveries):
            batch.outcomes.refuse(reason, about.all_deliveries)
    return planned


async def _changed_at(
    batch: _Batch, news: Sequence[RepositoryNews], known: Mapping[str, Repository]
) -> dict[tuple[str, int], datetime | None]:
    changed_at: dict[tuple[str, int], datetime | None] = {}
    for about in news:
        if (repository := known.get(about.name)) is None or not about.pulls:
            continue
        updated = await pulls.updated(batch.workspace.warehouse, repository.id, about.pulls)
        changed_at |= {(repository.id, number): moment for number, moment in updated.items()}
    return changed_at


async def _update_pulls(batch: _Batch, planned: Plan) -> None:
    """Stores pull requests from their payloads, and fetches those whose payloads do not say enough."""
    fetch = [*planned.fetch, *await _store_shown(batch, planned)]

    async def work(pull: AffectedPull) -> None:
        await batch.fetch_pull(pull.repository, pull.news.number)

    await batch.each(fetch, work, lambda pull: pull.news.deliveries)


async def _store_shown(batch: _Batch, planned: Plan) -> list[AffectedPull]:
    """Stores what payloads show; returns the pull requests whose payload cannot be stored."""
    odd: list[AffectedPull] = []
    for shown in planned.store:
        repository, number = shown.pull.repository, shown.pull.news.number
        try:
            async with batch.workspace.warehouse.transaction() as transaction:
                await store_pulls(transaction, batch.workspace, repository, [shown.value], shown.received_at)
        except LockLostError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is odd about a payload, the pull request can be fetched
            batch.workspace.listener.warning(f"{repository.slug}#{number}: its payload is not used: {error}")
            odd.append(shown.pull)
    return odd


# -- activity and comments --------------------------------------------------------------------------------------------


async def _update_activity(batch: _Batch, planned: Plan) -> None:
    """Reads the feeds of repositories with many changed pull requests, and the activity of each other pull request."""
    many = {one.repository.id for one in planned.feeds}
    with_marks = await batch.with_marks(ActivityMark) if many else {}
    feeds = feed.Feeds(batch.workspace, batch.report, GrowingLimit(lambda: batch.workspace.at_once))

    async def read(affected: AffectedRepository) -> None:
        await feeds.read(with_marks[affected.repository.source_id])

    await batch.each(planned.feeds, read, lambda affected: affected.news.all_deliveries)
    ids = batch.pull_ids(planned)
    rows = await pull_rows(batch.workspace, partial(stale.pulls_not_told_by_feeds, fed=many), ids)
    await batch.each_pull(planned, rows, lambda row: activity.import_one(batch.workspace, row))


async def _update_comments(batch: _Batch, planned: Plan) -> None:
    ids = batch.pull_ids(planned, comments_only=True)
    rows = await pull_rows(batch.workspace, stale.pulls_without_comments, ids)

    async def work(row: PullRow) -> None:
        await comments.store(batch.workspace, [await comments.fetch(batch.workspace, row)])

    await batch.each_pull(planned, rows, work)


# -- commits, pipelines and members -----------------------------------------------------------------------------------


async def _update_branches(batch: _Batch, planned: Plan) -> set[str]:
    """Walks default branches that were pushed to or merged into; returns the ids of their repositories."""
    merged = await pull_rows(batch.workspace, stale.merged_pulls_with_short_hashes, batch.pull_ids(planned))
    into = {row.repository.id for row in merged}
    with_marks = await batch.with_marks(CommitsMark)
    moved = [
        one
        for one in planned.repositories
        if one.repository.default_branch is not None and (one.repository.id in into or one.is_pushed)
    ]

    async def walk(affected: AffectedRepository) -> None:
        repository = with_marks[affected.repository.source_id]
        await default_branch.import_branch(batch.workspace, batch.report, repository)

    await batch.each(moved, walk, lambda affected: affected.news.all_deliveries)
    return {one.repository.id for one in moved}


async def _update_commits(batch: _Batch, planned: Plan, walked: set[str]) -> None:
    """Fetches commits of the pull requests, and of others in the repositories whose default branch was `walked`."""
    ids = batch.pull_ids(planned)
    rows = await pull_rows(batch.workspace, stale.pulls_without_commits, ids, walked)

    async def work(row: PullRow) -> None:
        fetched = await pull_commits.fetch(batch.workspace, row)
        if not await pull_commits.leaves_it_to_history(batch.workspace, fetched):
            await pull_commits.store(batch.workspace, [fetched])

    await batch.each_pull(planned, rows, work)
    async with batch.workspace.warehouse.transaction() as transaction:
        await hashes.resolve(transaction, walked | {row.repository.id for row in rows})
    short = await pull_rows(batch.workspace, stale.pulls_with_short_hashes, ids, walked)

    async def resolve(row: PullRow) -> None:
        await whole_hashes.resolve(batch.workspace, row)

    await batch.each_pull(planned, short, resolve)


async def _update_pipelines(batch: _Batch, planned: Plan) -> None:
    """Fetches pipelines that deliveries name. One that the credentials may not read holds up no other delivery."""
    with_marks = await batch.with_marks(PipelinesMark) if planned.pipelines else {}
    work = partial(_update_pipelines_of, batch, with_marks)
    await batch.each(planned.pipelines, work, lambda affected: affected.news.pipelines)


async def _update_pipelines_of(
    batch: _Batch, with_marks: Mapping[str, MarkedRepository[PipelinesMark]], affected: AffectedRepository
) -> None:
    news, repository = affected.news, with_marks[affected.news.name]
    own = batch.for_pipelines.client is not batch.workspace.client
    try:
        numbers = {number for number in news.pipeline_numbers if number is not None}
        if None in news.pipeline_numbers:
            await pipelines.import_runs(batch.for_pipelines, batch.report, repository)
        if numbers:
            await pipelines.refresh_runs(batch.for_pipelines, batch.report, repository, numbers)
        async with batch.workspace.warehouse.transaction() as transaction:
            await hashes.resolve_pipelines(transaction, [repository.id])
    except (Forbidden, NotFound) as error:
        if not lacks_scope(error):
            # The normal answer of a repository without Pipelines, unless some were read before.
            if await stored_pipelines.count(batch.workspace.warehouse, repository.id, None):
                raise
            if not own:
                await batch.access.check(error)
        batch.outcomes.refuse(_PIPELINES_UNREADABLE, news.pipelines)
    except CredentialsExhausted:
        if not own:
            raise
        batch.outcomes.refuse(_PIPELINES_UNREADABLE, news.pipelines)


async def _update_deployments(batch: _Batch, planned: Plan) -> None:
    """Fetches the deployments of repositories in which a named pipeline has ended or waits for a manual step."""
    if not planned.pipelines:
        return
    warehouse, importing = batch.workspace.warehouse, ImportOfDeployments(batch.for_pipelines, batch.report)
    with_marks = await batch.with_marks(DeploymentsMark)
    versions = await deployments.stale(warehouse, batch.workspace.id)

    async def update(affected: AffectedRepository) -> None:
        repository, numbers = with_marks[affected.news.name], affected.news.pipeline_numbers
        known = {number for number in numbers if number is not None}
        if (
            repository.mark.version is None
            or None in numbers
            or await deployments.one_stopped(warehouse, repository.id, known)
        ):
            await importing.of(repository, versions[repository.id])

    stale_ones = [one for one in planned.pipelines if one.repository.id in versions]
    await batch.each(stale_ones, partial(_unless_unreadable, update), lambda affected: affected.news.pipelines)


async def _unless_unreadable(work: Callable[[Item], Awaitable[None]], item: Item) -> None:
    """Leaves to the next sync what the credentials for pipelines cannot read: these may be others."""
    try:
        await work(item)
    except CredentialsExhausted:
        return
    except Forbidden as error:
        if not lacks_scope(error):
            raise


async def _update_members(batch: _Batch) -> None:
    """Lists the members where an account is new: no delivery says who joined the workspace."""
    if not batch.workspace.new_accounts.count:
        return
    try:
        await import_members(batch.workspace)
    except BitbucketError as error:
        batch.workspace.listener.warning(f"{KIND}: members are not listed before the next sync: {error}")
