"""The job `refresh_workspace`: applies the webhook deliveries of one workspace."""

from datetime import timedelta
from typing import Any

import dagster as dg

from dx_dagster.assets import checks
from dx_dagster.assets.partitions import WORKSPACES
from dx_dagster.assets.step import RunListener
from dx_dagster.assets.steps import SIZES, STEPS, key_of
from dx_dagster.automation.under_way import is_waited_for
from dx_dagster.bitbucket import BitbucketError
from dx_dagster.importer.session import BusyError, NotConnectedError
from dx_dagster.importer.workspace import NotImportedError, Workspace, open_workspace
from dx_dagster.insights import building
from dx_dagster.insights.business_hours import BusinessTime
from dx_dagster.insights.checks.looking import Verdict
from dx_dagster.insights.unified import BUILDS
from dx_dagster.resources import BitbucketResource
from dx_dagster.settings import Settings, SettingsError
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.connections.vault import VaultError
from dx_dagster.warehouse.database import Warehouse, WarehouseError
from dx_dagster.warehouse.imported import repositories
from dx_dagster.warehouse.webhooks import inbox
from dx_dagster.webhooks.drain import drain
from dx_dagster.webhooks.outcomes import Applied

# The asset that each table belongs to. A delivery that brings a new user is not an import of members, and none brings
# a size.
_NEVER = {"members", SIZES}
_ASSETS = {str(table.name): key_of(step) for step, filled in STEPS.items() for table in filled if step not in _NEVER}
_ASSETS |= {str(build.table.name): build.key for build in BUILDS}


@dg.op
def apply_webhooks(context: dg.OpExecutionContext, bitbucket: BitbucketResource) -> None:
    """Applies the deliveries in the workspace's inbox, and brings the derived tables up to date.

    It reports the outcomes of the deliveries, and the assets that changed.

    Raises:
        Failure: with one sentence that says what is wrong; the deliveries are applied later.
    """
    workspace, settings = context.partition_key, Settings.read()
    warehouse, listener = bitbucket.warehouse, RunListener(context.log)

    async def run() -> Applied:
        opened = await open_workspace(workspace, client, warehouse.connected, listener)
        keep = timedelta(days=settings.webhooks_keep_days)
        linger = settings.webhooks_linger
        return await drain(
            opened,
            context.run_id,
            linger=linger,
            keep=keep,
            for_pipelines=for_pipelines,
            with_deployments=settings.deployments == "on",
            is_waited_for=lambda: is_waited_for(context.instance, workspace),
            build=_build,
        )

    try:
        client = bitbucket.open_import(workspace, listener)
        for_pipelines = bitbucket.open_import(workspace, listener, for_pipelines=True)
        result = warehouse.run(run())
    except WarehouseError as error:  # without the database or the lock, this run can postpone nothing
        raise dg.Failure(description=str(error), allow_retries=False) from None
    except (BitbucketError, BusyError, NotConnectedError, NotImportedError, SettingsError, VaultError) as error:
        warehouse.run(inbox.postpone(warehouse.connected, workspace, str(error)))
        raise dg.Failure(description=str(error), allow_retries=False) from None
    metadata = {
        "outcomes": dg.JsonMetadataValue(dict(result.outcomes)),
        "failed": result.failed,
        "set_aside": result.set_aside,
        "requests": client.requests,
    }
    context.add_output_metadata(metadata)
    changed = _report_materializations(context, warehouse.connected.written_so_far())
    checks.tell(context, workspace, warehouse.run(_check(warehouse.connected, changed, workspace)))


async def _check(warehouse: Warehouse, assets: set[str], workspace: str) -> list[Verdict]:
    slug = await connections.stored_name(warehouse, workspace)  # the partition key may differ in case
    async with warehouse.transaction(read_only=True) as transaction:
        workspace_id = await repositories.workspace_id(transaction, slug)
    return await checks.of_assets(warehouse, assets, slug, workspace_id) if workspace_id else []


async def _build(workspace: Workspace) -> None:
    if workspace.id:
        settings = BusinessTime.text(Settings.read())
        await building.bring_up_to_date(workspace.warehouse, BUILDS, workspace.id, settings=settings)


def _report_materializations(context: dg.OpExecutionContext, written: dict[str, int]) -> set[str]:
    """Records a materialization of each asset that has new rows; returns their keys."""
    by_asset: dict[str, dict[str, Any]] = {}
    for what, rows in written.items():
        asset = _ASSETS.get(what.partition("/")[0])
        if asset is not None and rows:
            by_asset.setdefault(asset, {})[what] = rows
    for asset, rows_written in sorted(by_asset.items()):
        context.log_event(
            dg.AssetMaterialization(
                asset.split("/"),
                description="by webhooks",
                partition=context.partition_key,
                metadata={"written": dg.JsonMetadataValue(rows_written)},
            )
        )
    return set(by_asset)


@dg.job(partitions_def=WORKSPACES, description="Applies the webhook deliveries of one workspace.")
def refresh_workspace() -> None:
    apply_webhooks()
