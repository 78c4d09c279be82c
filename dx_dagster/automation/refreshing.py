"""The jobs that apply webhook deliveries: `refresh_workspaces` those of all workspaces, `refresh_workspace` of one."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg

from dx_dagster.assets import checks
from dx_dagster.assets.derived import builds_of, shown
from dx_dagster.assets.partitions import register, workspace_of
from dx_dagster.assets.placement import Placement
from dx_dagster.assets.step import RunListener
from dx_dagster.assets.steps import SIZES, STEPS, key_of
from dx_dagster.automation.dagster_storage import keep_for_a_run
from dx_dagster.automation.jobs import executor, run_tags
from dx_dagster.automation.under_way import KIND_TAG, PRIORITY_TAG, REFRESH, started_syncs
from dx_dagster.bitbucket import sentence
from dx_dagster.importer.workspace import Workspace
from dx_dagster.insights import building
from dx_dagster.insights.business_hours import BusinessTime
from dx_dagster.insights.unified import BUILDS
from dx_dagster.warehouse.database import Warehouse, WarehouseError
from dx_dagster.webhooks.inboxes import Inboxes, Refreshed, Surroundings

# The asset that each table belongs to. A delivery that brings a new user is not an import of members, and none brings
# a size.
_NEVER = {"members", SIZES}
_ASSETS = {str(table.name): key_of(step) for step, filled in STEPS.items() for table in filled if step not in _NEVER}
_ASSETS |= {str(build.table.name): build.key for build in BUILDS}
# Dagster stores metadata three times.
_MOST_SHOWN = 80
_LONGEST_SHOWN = 150
_MOST_IN_WORDS = 3


def _apply_webhooks(placement: Placement, context: dg.OpExecutionContext) -> None:
    """Applies the deliveries in all inboxes, or in the partition's, and brings the derived tables up to date.

    It reports the outcomes of the deliveries by workspace, and for each partition the assets that changed.

    Raises:
        Failure: with what is wrong in each workspace whose deliveries could not be applied; they are applied later.
    """
    _keep_storage(placement, context)
    warehouse = placement.warehouse(context)
    settings, database, known = placement.settings(), warehouse.connected, set[str]()
    only = context.partition_key if context.has_partition_key else None

    async def report(workspace: str, written: Counter[str]) -> None:
        if workspace not in known:
            register(context.instance, [workspace], placement.partitions)
            known.add(workspace)
        changed = _by_asset(placement, written)
        slug, workspace_id = await workspace_of(database, workspace)
        if workspace_id is not None:
            await _add_figures(placement, database, changed, slug, workspace_id)
        _report_materializations(placement, context, workspace, changed)
        verdicts = await checks.of_assets(placement, database, changed, slug, workspace_id)
        await checks.tell(placement, context, database, workspace, verdicts)

    surroundings = Surroundings(
        listener=lambda workspace: RunListener(context.log, workspace),
        syncing=lambda: started_syncs(placement, context.instance),
        build=partial(_build, placement),
        report=report,
        imports=lambda name: placement.imports(name) and (only is None or name.lower() == only.lower()),
    )
    linger = settings.webhooks_linger if only is None else 0.0
    inboxes = Inboxes(settings, database, context.run_id, surroundings, linger=linger)
    try:
        warehouse.run(inboxes.drain())
    except WarehouseError as error:
        _keep_storage(placement, context)  # connections that Dagster has kept may be dead as well
        raise dg.Failure(str(error), _metadata(inboxes.workspaces), allow_retries=False) from None
    metadata = _metadata(inboxes.workspaces)
    if failures := {name: one.failure for name, one in inboxes.workspaces.items() if one.failure is not None}:
        raise dg.Failure(_in_words(failures), metadata, allow_retries=False)
    context.add_output_metadata(metadata)


def _keep_storage(placement: Placement, context: dg.OpExecutionContext) -> None:
    if placement.component is None:  # another project's storage is its own
        keep_for_a_run(context.instance)


def _metadata(workspaces: Mapping[str, Refreshed]) -> dict[str, Any]:
    """What the run did, by workspace: failing ones first, then those with most deliveries."""
    ordered = sorted(workspaces.items(), key=lambda item: (item[1].failure is None, -item[1].applied.taken, item[0]))
    by_workspace = dg.JsonMetadataValue({name: _outcomes(one) for name, one in ordered[:_MOST_SHOWN]})
    return {
        "workspaces": len(workspaces),
        "applied": sum(one.applied.outcomes.total() for one in workspaces.values()),
        "failed": sum(one.applied.failed for one in workspaces.values()),
        "set_aside": sum(one.applied.set_aside for one in workspaces.values()),
        "requests": sum(one.requests for one in workspaces.values()),
        "outcomes": by_workspace,
    }


def _outcomes(one: Refreshed) -> dict[str, Any]:
    told: dict[str, Any] = {
        **one.applied.outcomes,
        "failed": one.applied.failed,
        "set_aside": one.applied.set_aside,
        "requests": one.requests,
        "failure": one.failure and one.failure[:_LONGEST_SHOWN],
        "waits": one.waits and one.waits[:_LONGEST_SHOWN],
    }
    return {what: said for what, said in told.items() if said}


def _in_words(failures: Mapping[str, str]) -> str:
    told = " ".join(f"{name}: {sentence(failures[name])}" for name in sorted(failures)[:_MOST_IN_WORDS])
    more = f" And {len(failures) - _MOST_IN_WORDS} more." if len(failures) > _MOST_IN_WORDS else ""
    return told if len(failures) == 1 else f"The deliveries of {len(failures)} workspaces wait. {told}{more}"


async def _build(placement: Placement, workspace: Workspace) -> None:
    if workspace.id:
        settings, builds = BusinessTime.text(placement.settings()), builds_of(placement)
        await building.bring_up_to_date(workspace.warehouse, builds, workspace.id, settings=settings)


def _by_asset(placement: Placement, written: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """The metadata of each asset that has new rows."""
    by_asset: dict[str, dict[str, int]] = {}
    for what, rows in written.items():
        asset = _ASSETS.get(what.partition("/")[0])
        if asset is not None and placement.has(asset) and rows:
            by_asset.setdefault(asset, {})[what] = rows
    return {asset: {"written": dg.JsonMetadataValue(rows)} for asset, rows in by_asset.items()}


async def _add_figures(
    placement: Placement, warehouse: Warehouse, changed: dict[str, dict[str, Any]], slug: str, workspace_id: str
) -> None:
    """Adds the figures of the measures: Dagster shows the metadata of the newest materialization."""
    for build in builds_of(placement):
        if build.key in changed:
            changed[build.key] = await shown(placement, warehouse, build, slug, workspace_id) | changed[build.key]


def _report_materializations(
    placement: Placement, context: dg.OpExecutionContext, workspace: str, changed: Mapping[str, Mapping[str, Any]]
) -> None:
    """Records a materialization of each asset that has new rows."""
    for asset, metadata in sorted(changed.items()):
        context.log_event(
            dg.AssetMaterialization(
                placement.key(asset),
                description="by webhooks",
                partition=workspace,
                metadata=metadata,
            )
        )


def refresh_jobs(placement: Placement) -> tuple[dg.JobDefinition, dg.JobDefinition]:
    """`refresh_workspaces`, which the sensor starts, and `refresh_workspace`, for a person who does not wait for it."""
    # Dagster need not retry one that was killed: the sensor starts the next one anyway.
    tags = {placement.tag(KIND_TAG): REFRESH, PRIORITY_TAG: "10", "dagster/max_retries": "0"} | run_tags(placement)

    @dg.op(name=placement.name("apply_webhooks"), required_resource_keys={placement.name("warehouse")})
    def apply_webhooks(context: dg.OpExecutionContext) -> None:
        _apply_webhooks(placement, context)

    def job(name: str, description: str, partitions: dg.PartitionsDefinition[str] | None = None) -> dg.JobDefinition:
        @dg.job(
            name=placement.name(name),
            description=description,
            partitions_def=partitions,
            tags=tags,
            executor_def=executor(placement),
        )
        def applying() -> None:
            apply_webhooks()

        return applying

    return (
        job(
            "refresh_workspaces",
            "Applies the webhook deliveries of all workspaces, and waits a little for the next ones.",
        ),
        job(
            "refresh_workspace",
            "Applies the webhook deliveries of one workspace that are due, and ends.",
            placement.partitions,
        ),
    )
