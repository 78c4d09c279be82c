"""Sensors: start runs for deliveries and for people, and record successful syncs."""

import asyncio

import dagster as dg

from dx_dagster.assets.checks import sync_every
from dx_dagster.assets.partitions import register, registered
from dx_dagster.assets.placement import Placement
from dx_dagster.automation.decisions import needs_refresh
from dx_dagster.automation.host_settings import warn_of_settings
from dx_dagster.automation.jobs import SyncJob
from dx_dagster.automation.under_way import PRIORITY_TAG, WORKSPACE_TAG, ages_of_refreshes, has_begun, started_syncs
from dx_dagster.insights.checks.looking import look_at_workspaces, news
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.connections.connections import AskedSync
from dx_dagster.warehouse.database import Warehouse, WarehouseError
from dx_dagster.warehouse.embedded import database_url
from dx_dagster.warehouse.webhooks import inbox

# The daemon evaluates sensors every 5 s. With 5 here, a tick that is recorded late makes it skip the next one.
SECONDS_BETWEEN_TICKS = 4


def webhook_events(placement: Placement, job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=placement.name("webhook_events"),
        job=job,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A run that applies webhook deliveries, of all workspaces. While one is at work it takes new ones "
        "too; another one is started where deliveries wait for long (DX_WEBHOOKS_RUNS).",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _refreshes(placement, context)

    return sensor


def _refreshes(placement: Placement, context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Requests a run while there are due deliveries that no run takes.

    It uses no cursor, which would skip deliveries that commit late, and no run key, which Dagster accepts only once.
    """
    settings, instance = placement.settings(), context.instance
    warn_of_settings(placement, instance)
    waiting = [one for one in inbox.waiting(database_url(settings)) if placement.imports(one.workspace)]
    unknown = sorted({one.workspace for one in waiting} - registered(instance, placement.partitions))
    is_needed = any(one.due for one in waiting) and needs_refresh(
        waiting, started_syncs(placement, instance), ages_of_refreshes(placement, instance), settings.webhooks_runs
    )
    return dg.SensorResult(
        run_requests=[dg.RunRequest()] if is_needed else [],
        dynamic_partitions_requests=[placement.partitions.build_add_request(unknown)] if unknown else None,
        skip_reason=None if is_needed else "no delivery is due that no run takes",
    )


def asked_syncs(placement: Placement, job: SyncJob) -> dg.SensorDefinition:
    @dg.sensor(
        name=placement.name("asked_syncs"),
        job=job,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A sync for each workspace for which a person asked on the connections page.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        return _asked_syncs(placement, context)

    return sensor


def _asked_syncs(placement: Placement, context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """Requests a run for each sync that a person asked for.

    Its run key is the time at which the person asked: whatever becomes of the run, it is started once. It is asked for
    until the run has begun.
    """

    async def asked() -> list[AskedSync]:
        async with Warehouse(database_url(placement.settings()), connections=1) as warehouse:
            found = [one for one in await connections.asked_syncs(warehouse) if placement.imports(one.workspace)]
            for one in [one for one in found if has_begun(context.instance, _run_key(placement, one))]:
                await connections.sync_began(warehouse, one)
                found.remove(one)
            return found

    syncs = asyncio.run(asked())
    if not syncs:
        return dg.SkipReason("nobody asked for a sync")
    register(context.instance, (one.workspace for one in syncs), placement.partitions)
    return [
        dg.RunRequest(
            run_key=_run_key(placement, one),
            partition_key=one.workspace,
            tags={placement.tag(WORKSPACE_TAG): one.workspace, PRIORITY_TAG: "10"},
        )
        for one in syncs
    ]


def _run_key(placement: Placement, asked: AskedSync) -> str:
    return placement.name(f"{asked.workspace} asked {asked.asked_at.isoformat()}")


def finished_syncs(placement: Placement, job: SyncJob) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=placement.name("finished_syncs"),
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=[job],
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Records when a workspace was last synced.",
    )
    def sensor(context: dg.RunStatusSensorContext) -> None:
        _record_sync(placement, context)

    return sensor


def _record_sync(placement: Placement, context: dg.RunStatusSensorContext) -> None:
    """Records the sync. A later tick does so where the database does not answer.

    Raises:
        DagsterError: it does not. After any other exception, Dagster would not give the sensor this run again
            (findings/dagster_gives_a_run_status_sensor_each_run_once.sh).
    """
    workspace = context.dagster_run.tags.get("dagster/partition")

    async def record(workspace: str) -> None:
        async with Warehouse(database_url(placement.settings())) as warehouse:
            await connections.record_sync(warehouse, workspace)

    if workspace:
        try:
            asyncio.run(record(workspace))
        except WarehouseError as error:
            raise dg.DagsterError(f"The sync of {workspace} is not recorded yet: {error}") from None


def late_workspaces(placement: Placement, job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=placement.name("late_workspaces"),
        job=job,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A run of the checks `synced_lately` and `inbox_is_applied` of a workspace where their result "
        "changes.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        return _changed_checks(placement, context)

    return sensor


def _changed_checks(placement: Placement, context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    async def changed() -> list[str]:
        async with Warehouse(database_url(placement.settings()), connections=1) as warehouse:
            found = await look_at_workspaces(warehouse, sync_every(placement))
            return [
                workspace
                for workspace, verdicts in found.items()
                if placement.imports(workspace) and await news(warehouse, workspace, verdicts)
            ]

    known = registered(context.instance, placement.partitions)
    workspaces = [workspace for workspace in asyncio.run(changed()) if workspace in known]
    if not workspaces:
        return dg.SkipReason("every result is known")
    return [
        dg.RunRequest(
            run_config={"ops": {placement.name("check"): {"config": {"workspace": one}}}}, tags={PRIORITY_TAG: "10"}
        )
        for one in workspaces
    ]
