"""Runs one step of an import as a materialization."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from dx_dagster.assets import checks
from dx_dagster.assets.partitions import remove
from dx_dagster.assets.placement import Placement
from dx_dagster.assets.steps import FIRST, STEPS, key_of
from dx_dagster.bitbucket import BitbucketClient, BitbucketError, RateLimited, clause, sentence
from dx_dagster.clock import HOST, ago
from dx_dagster.connections import advice
from dx_dagster.importer.absence import NothingReadError
from dx_dagster.importer.progress import DISPLAY
from dx_dagster.importer.pull_requests import KIND as PULL_REQUESTS
from dx_dagster.importer.report import Report, Skipped, note
from dx_dagster.importer.session import BusyError, NoCredentialError, NotConnectedError
from dx_dagster.importer.workspace import Listener, NotImportedError, Workspace, open_workspace
from dx_dagster.insights.checks.looking import Verdict
from dx_dagster.settings import Settings, SettingsError
from dx_dagster.telemetry import spans
from dx_dagster.warehouse import counts, old_runs, sync_steps
from dx_dagster.warehouse.connections import connections, failing
from dx_dagster.warehouse.database import Warehouse, WarehouseError
from dx_dagster.warehouse.imported import repositories
from dx_dagster.warehouse.imported.bounds import BoundRefusedError, Wanted
from dx_dagster.warehouse.imported.sessions import Session
from dx_dagster.warehouse.schema import Table, type_name
from dx_dagster.warehouse.sync_steps import Count, StepKey
from dx_dagster.webhooks import belief

if TYPE_CHECKING:
    from dx_dagster.resources import WarehouseResource

    Events = Iterator[dg.MaterializeResult[Any] | dg.Output[None] | dg.AssetCheckEvaluation]
else:
    Events = dg.MaterializeResult  # Dagster reads annotations. Any other one makes it store values as well.

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_COUNTS = 2.0
_MOST_IN_WORDS = 5  # Dagster's UI hides Markdown of more than 1,000 characters behind a button
_PATIENCE = 30.0  # seconds that a request of a scheduled sync may wait for a budget

Step = Callable[[Workspace], Awaitable[Report]]


class ImportConfig(dg.Config):
    """How much a step fetches.

    Attributes:
        full: fetches everything again.
        since: lower bound of the import: an ISO date or time (UTC without an offset) or "all". Later imports keep it;
            a new bound must be earlier than the stored one.
        scheduled: asks what is due only (DX_PACE), and leaves to the next sync what the requests left are too few for.
        reconcile: lists the pipelines or deployments of the last days again (DX_RECONCILE_PIPELINE_DAYS), and proves
            that the webhook tells every change.
    """

    full: bool = False
    since: str | None = None
    scheduled: bool = False
    reconcile: bool = False


class RunListener:
    """Writes progress to the run's log every few seconds, and passes each call on to a command's display.

    `workspace`: named in each line, in a run over several.

    Attributes:
        count: the last progress.
    """

    def __init__(self, log: dg.DagsterLogManager, workspace: str | None = None) -> None:
        self._log = log
        self._prefix = f"{workspace}: " if workspace else ""
        self._last = time.monotonic()
        self.count: Count | None = None

    def progress(self, step: str, done: int, total: int, requests: int, counted: str) -> None:
        self.count = Count(done, total, counted, requests)
        if display := DISPLAY.get():
            display.progress(step, done, total, requests, counted)
        if done == total or time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            said = f"{step}: {done} of {total} {counted}, {requests} requests so far in this run"
            self._log.info("%s%s", self._prefix, said)

    def warning(self, message: str) -> None:
        if display := DISPLAY.get():
            display.warning(message)
        self._log.warning("%s%s", self._prefix, message)


def materialize(
    placement: Placement,
    context: dg.AssetExecutionContext,
    config: ImportConfig,
    name: str,
    step: Step,
    *,
    for_pipelines: bool = False,
) -> Events:
    """Runs the step of this name for the partition's workspace, and yields what it did and what the checks say.

    Raises:
        Failure: with one sentence that says what is wrong.
    """
    bitbucket = placement.bitbucket(context)
    warehouse, listener = bitbucket.warehouse, RunListener(context.log)
    asset, table, settings = key_of(name), STEPS[name][0], placement.settings()
    if placement.key(asset) not in context.selected_asset_keys:
        yield from checks.alone(placement, context, warehouse, [asset])
        return
    run = context.run
    key = StepKey(run.run_id, name, context.partition_key, run.tags.get(placement.tag("kind")))
    try:
        warehouse.run(sync_steps.begin(warehouse.connected, key))
        if name == FIRST:
            _trim(placement, context, warehouse)
        client = bitbucket.open_import(context.partition_key, listener, for_pipelines=for_pipelines)
        session = bitbucket.in_session(context.partition_key, afresh=config.full)

        async def imported() -> tuple[dict[str, Any], list[Verdict]]:
            async with _shown(warehouse.connected, key, listener, client.requests):
                workspace = await _open(
                    settings,
                    context.partition_key,
                    config,
                    client,
                    warehouse.connected,
                    listener=listener,
                    session=session,
                )
                report, metadata, verdicts = await _import(placement, workspace, step, table, asset)
            skipped = [vars(one) for one in report.skipped]
            written, requests = report.written, report.requests
            await sync_steps.end(warehouse.connected, key, requests=requests, written=written, skipped=skipped)
            return metadata, verdicts

        with spans.span(f"step {asset}", run_id=run.run_id, workspace=context.partition_key):
            metadata, verdicts = warehouse.run(imported())
    except (
        *(BitbucketError, BoundRefusedError, BusyError, NotConnectedError, NotImportedError, SettingsError),
        WarehouseError,
    ) as error:
        told = _unsent(error) if isinstance(error, RateLimited) and not bitbucket.wait else _sentence(settings, error)
        if isinstance(error, NothingReadError) or (isinstance(error, NoCredentialError) and not for_pipelines):
            warehouse.run(failing.record(warehouse.connected, context.partition_key, told))
        if isinstance(error, NotConnectedError) and warehouse.run(
            _is_unknown(warehouse.connected, context.partition_key)
        ):
            told = sentence(str(_without_partition(placement, context, error)))
        with suppress(WarehouseError):
            warehouse.run(sync_steps.end(warehouse.connected, key, error=told))
        raise dg.Failure(description=told, allow_retries=False) from None
    yield materialization(context, placement.key(asset), metadata)
    yield from checks.evaluations(placement, context, warehouse, verdicts)


def _trim(placement: Placement, context: dg.AssetExecutionContext, warehouse: "WarehouseResource") -> None:
    """Removes what nobody needs of the workspace's last syncs. Another project's runs are its own."""
    if placement.component is None:
        with suppress(WarehouseError):
            job = placement.name("sync_workspace")
            warehouse.run(old_runs.trim(warehouse.connected, job, context.partition_key, context.run.run_id))


@asynccontextmanager
async def _shown(warehouse: Warehouse, key: StepKey, listener: RunListener, sent: int) -> AsyncIterator[None]:
    """Stores the step's progress every few seconds until the end of the block.

    `sent`: requests of earlier steps.
    """
    ended = asyncio.Event()

    async def store() -> None:
        stored: Count | None = None
        while not ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _SECONDS_BETWEEN_COUNTS)
            if listener.count is not None and listener.count != stored:
                stored = listener.count
                with suppress(WarehouseError):  # the step itself will notice
                    await sync_steps.count(warehouse, key, replace(stored, requests=stored.requests - sent))

    storing = asyncio.create_task(store())
    try:
        yield
    finally:
        ended.set()
        await storing


async def _is_unknown(warehouse: Warehouse, slug: str) -> bool:
    """Whether the workspace has no connection and no rows: somebody added its partition in Dagster's UI."""
    if await connections.find(warehouse, slug) is not None:
        return False
    async with warehouse.transaction(read_only=True) as transaction:
        return await repositories.workspace_id(transaction, slug) is None


def _without_partition(placement: Placement, context: dg.AssetExecutionContext, error: NotConnectedError) -> Exception:
    """Removes the unknown workspace's partition, which every asset of the run would show as failed."""
    if "dagster/backfill" in context.run.tags:  # Dagster gives up a backfill, with all its runs, that lost a partition
        return error
    remove(context.instance, context.partition_key, placement.partitions)
    return NotConnectedError(f"{error}. The partition was removed; connecting the workspace adds it")


def failure(error: Exception) -> dg.Failure:
    """The failure of a step, with the error's sentence."""
    return dg.Failure(description=sentence(str(error)), allow_retries=False)


def _unsent(error: RateLimited) -> str:
    """The sentence of a run that waits for no budget."""
    when = "later"
    if error.retry_after is not None:
        when = ago(HOST.now() + timedelta(seconds=error.retry_after))
    return (
        f"The budget of requests is used up. It has room again {when}. What was imported stays: run the sync again "
        "then, or leave out --no-wait to wait for it."
    )


async def _open(
    settings: Settings,
    slug: str,
    config: ImportConfig,
    client: BitbucketClient,
    warehouse: Warehouse,
    *,
    listener: Listener,
    session: Session,
) -> Workspace:
    connection = await connections.find(warehouse, slug)
    name = connection.workspace if connection is not None else slug
    # A first import waits for its budgets: there is no hour that it could keep to.
    hurried = config.scheduled and connection is not None and connection.last_synced_at is not None
    client.wait_at_most(_PATIENCE if hurried else None)
    return await open_workspace(
        slug,
        client,
        warehouse,
        listener,
        full=config.full,
        wanted=Wanted.read(config.since) if config.since else None,
        pace=await belief.pace(settings, warehouse, name) if config.scheduled else None,
        hurried=hurried,
        reconcile=timedelta(days=settings.reconcile_pipeline_days) if config.reconcile else None,
        proves_since=await belief.vouched_from(warehouse, name) if config.reconcile or config.full else None,
        session=session,
    )


async def _import(
    placement: Placement, workspace: Workspace, step: Step, table: Table, asset: str
) -> tuple[Report, dict[str, Any], list[Verdict]]:
    """Runs the step and checks the rows; returns also the metadata of the materialization."""
    client, warehouse = workspace.client, workspace.warehouse
    requests, written = client.requests, warehouse.written_so_far()
    try:
        report = await step(workspace)
        was_read = report.step == PULL_REQUESTS  # only this step shows whether the credentials can read anything
    except RateLimited as error:
        if not workspace.hurried:
            raise
        report, was_read = Report(asset.rpartition("/")[2]), False
        note(workspace, report, f"the rest is left to the next sync: {clause(str(error))}")
    report.requests = client.requests - requests
    report.written = warehouse.written_so_far() - written
    if was_read:
        await failing.clear(warehouse, workspace.slug)
    after = await open_workspace(
        workspace.slug, client, warehouse, workspace.listener
    )  # the step may have stored its row
    metadata = await _metadata(after, report, table)
    rows = metadata["dagster/partition_row_count"]
    verdicts = await checks.look(placement, warehouse, asset, after.slug, after.id, rows=rows, full=workspace.full)
    return report, metadata, verdicts


def _sentence(settings: Settings, error: Exception) -> str:
    if not isinstance(error, BitbucketError):
        return sentence(str(error))
    told = advice.of_error(settings.bitbucket_api_url, error)
    return sentence(f"{error.code}: {told}" if error.code else told)


async def _metadata(workspace: Workspace, report: Report, table: Table) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        **await row_counts(workspace.warehouse, table, workspace.id),
        "dagster/table_name": table.name,
        "requests": report.requests,
        "written": dg.JsonMetadataValue(dict(report.written)),
    }
    if report.written:  # the definition has it too, and Dagster's UI shows either
        metadata["dagster/column_schema"] = column_schema(table)
    connection = await connections.find(workspace.warehouse, workspace.slug)
    if connection is not None and connection.last_synced_at is not None:
        lag = (HOST.now() - connection.last_synced_at).total_seconds()
        metadata["lag_seconds"] = max(0.0, round(lag, 1))  # since the sync before: Dagster plots numbers over time
    if report.skipped:
        metadata["skipped"] = dg.JsonMetadataValue([vars(skipped) for skipped in report.skipped])
        metadata["warning"] = dg.MarkdownMetadataValue(_skipped_in_words(report.skipped))
    if report.notes:
        metadata["notes"] = dg.JsonMetadataValue(report.notes)
    return metadata


def _skipped_in_words(skipped: Sequence[Skipped]) -> str:
    lines = [f"- `{one.repository}`: {sentence(one.reason)}" for one in skipped[:_MOST_IN_WORDS]]
    more = [f"- and {len(skipped) - _MOST_IN_WORDS} more"] if len(skipped) > _MOST_IN_WORDS else []
    return "\n".join([f"**Not imported ({len(skipped)} skipped):**", "", *lines, *more])


def materialization(
    context: dg.AssetExecutionContext, key: dg.AssetKey, metadata: Mapping[str, Any]
) -> dg.MaterializeResult[Any]:
    """A materialization with this metadata, which the event of the step's output would repeat if the result had it."""
    context.add_asset_metadata(metadata, asset_key=key)
    return dg.MaterializeResult[Any](asset_key=key)


async def row_counts(warehouse: Warehouse, table: Table, workspace_id: str) -> dict[str, int]:
    """Numbers of rows, by the names that Dagster has for them."""
    rows = await counts.rows(warehouse, table, workspace_id)
    return {"dagster/row_count": rows.of_all, "dagster/partition_row_count": rows.of_workspace}


def column_schema(table: Table, origins: Mapping[str, str] | None = None) -> dg.TableSchema:
    """Dagster's schema of the table's columns; `origins` says where their values come from."""
    key = [column.name for column in table.primary_key]
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                type_name(column),
                description="; ".join(filter(None, [column.comment, (origins or {}).get(column.name)])),
                constraints=dg.TableColumnConstraints(nullable=bool(column.nullable), unique=key == [column.name]),
            )
            for column in table.columns
        ]
    )
