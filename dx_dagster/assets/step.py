"""One step of an import as a materialization."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from dx_dagster.bitbucket import BitbucketError, sentence
from dx_dagster.importer.absence import NothingReadError
from dx_dagster.importer.progress import DISPLAY
from dx_dagster.importer.report import Report
from dx_dagster.importer.session import BusyError, NoCredentialError, NotConnectedError
from dx_dagster.importer.workspace import NotImportedError, Workspace, open_workspace
from dx_dagster.settings import Settings, SettingsError
from dx_dagster.warehouse.connections import failing
from dx_dagster.warehouse.database import WarehouseError
from dx_dagster.warehouse.imported import counts
from dx_dagster.warehouse.imported.bounds import ALL, BoundRefusedError, Wanted
from dx_dagster.warehouse.imported.marks import Quiet
from dx_dagster.warehouse.schema import Table, type_name
from dx_dagster.warehouse.schema import bitbucket as tables

if TYPE_CHECKING:
    from dx_dagster.resources import BitbucketResource, CredentialPoolResource, WarehouseResource

RESOURCES = {"warehouse", "credential_pool", "bitbucket"}
_SECONDS_BETWEEN_LINES = 5.0

Step = Callable[[Workspace], Awaitable[Report]]


class ImportConfig(dg.Config):
    """How much a step fetches.

    Attributes:
        full: all again, whatever was imported before.
        since: lower bound of the import, kept by every later one: an ISO date or time (UTC unless it says otherwise)
            that is earlier than the one before, or "all".
        scheduled: whether quiet repositories may wait (DX_QUIET_AFTER_DAYS); otherwise all are asked.
        reconcile: whether pipelines of the last days (DX_RECONCILE_PIPELINE_DAYS) are listed again.
    """

    full: bool = False
    since: str | None = None
    scheduled: bool = False
    reconcile: bool = False


class RunListener:
    """Writes progress into the run's log, now and then, and passes all of it on to a command's display."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._log = context.log
        self._last = time.monotonic()

    def progress(self, step: str, done: int, total: int, requests: int) -> None:
        if display := DISPLAY.get():
            display.progress(step, done, total, requests)
        if done == total or time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._log.info("%s: %s of %s, %s requests so far in this run", step, done, total, requests)

    def warning(self, message: str) -> None:
        if display := DISPLAY.get():
            display.warning(message)
        self._log.warning(message)


def materialize(
    context: dg.AssetExecutionContext, config: ImportConfig, step: Step, table: Table, *, for_pipelines: bool = False
) -> dg.MaterializeResult[Any]:
    """Runs the step for the partition's workspace and reports what it did; `table` is the asset's main one.

    Raises:
        Failure: with one sentence that says what is wrong.
    """
    warehouse: WarehouseResource = context.resources.warehouse
    pool: CredentialPoolResource = context.resources.credential_pool
    bitbucket: BitbucketResource = context.resources.bitbucket
    listener = RunListener(context)
    warehouse.connected.tell = listener.warning
    try:
        client = bitbucket.open(warehouse, pool, context.partition_key, listener, for_pipelines=for_pipelines)
        wanted = _bound(config.since) if config.since else None

        async def run() -> dict[str, Any]:
            workspace = await open_workspace(
                context.partition_key,
                client,
                warehouse.connected,
                listener,
                full=config.full,
                wanted=wanted,
                quiet=_quiet() if config.scheduled else None,
                reconcile=timedelta(days=Settings.read().reconcile_pipeline_days) if config.reconcile else None,
            )
            requests, written = client.requests, warehouse.connected.written_so_far()
            report = await step(workspace)
            report.requests = client.requests - requests
            report.written = warehouse.connected.written_so_far() - written
            if table is tables.pulls:  # only this step tells whether anything can be read
                await failing.clear(warehouse.connected, context.partition_key)
            workspace = await open_workspace(context.partition_key, client, warehouse.connected, listener)
            return await _metadata(workspace, report, table)

        return dg.MaterializeResult(metadata=warehouse.run(run()))
    except (
        *(BitbucketError, BoundRefusedError, BusyError, NotConnectedError, NotImportedError, SettingsError),
        WarehouseError,
    ) as error:
        if isinstance(error, NothingReadError) or (isinstance(error, NoCredentialError) and not for_pipelines):
            warehouse.run(failing.record(warehouse.connected, context.partition_key, _sentence(error)))
        raise dg.Failure(description=_sentence(error), allow_retries=False) from None


def _bound(text: str) -> Wanted:
    """What `since` asks for.

    Raises:
        BoundRefusedError: it is no date.
    """
    if text.strip().lower() == ALL:
        return Wanted(None)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BoundRefusedError(f"{text!r} is no date; write it as 2026-01-31, or all.") from None
    return Wanted(moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))


def _quiet() -> Quiet:
    settings = Settings.read()
    return Quiet(timedelta(days=settings.quiet_after_days), timedelta(seconds=settings.quiet_sync_every))


def _sentence(error: Exception) -> str:
    code = error.code if isinstance(error, BitbucketError) else None
    return sentence(f"{code}: {error}" if code else str(error))


async def _metadata(workspace: Workspace, report: Report, table: Table) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "dagster/row_count": await counts.all_rows(workspace.warehouse, table),
        "dagster/partition_row_count": await counts.rows(workspace.warehouse, table, workspace.id),
        "dagster/column_schema": column_schema(table),
        "dagster/table_name": table.name,
        "requests": report.requests,
        "written": dg.JsonMetadataValue(dict(report.written)),
    }
    if report.skipped:
        metadata["skipped"] = dg.JsonMetadataValue([vars(skipped) for skipped in report.skipped])
    if report.notes:
        metadata["notes"] = dg.JsonMetadataValue(report.notes)
    return metadata


def column_schema(table: Table) -> dg.TableSchema:
    """The table's columns as the database has them."""
    key = [column.name for column in table.primary_key]
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                type_name(column),
                description=column.comment,
                constraints=dg.TableColumnConstraints(nullable=bool(column.nullable), unique=key == [column.name]),
            )
            for column in table.columns
        ]
    )
