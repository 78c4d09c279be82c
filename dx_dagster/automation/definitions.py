"""All definitions of a placement."""

from collections.abc import Collection

import dagster as dg

from dx_dagster.assets.catalog import assets
from dx_dagster.assets.placement import Placement
from dx_dagster.automation import schedules, sensors
from dx_dagster.automation.checking import check_workspace
from dx_dagster.automation.jobs import SyncJob, sync_workspace, with_resources
from dx_dagster.automation.lost_runs import lost_runs
from dx_dagster.automation.refreshing import refresh_jobs

SCHEDULES = ("hourly_sync", "nightly_reconcile")
SENSORS = ("webhook_events", "asked_syncs", "finished_syncs", "lost_runs", "late_workspaces")


def definitions(
    placement: Placement,
    *,
    with_schedules: Collection[str] = SCHEDULES,
    with_sensors: Collection[str] = SENSORS,
) -> dg.Definitions:
    """Assets, jobs, resources, and these schedules and sensors, by the names of the contract.

    What is due is read from the last syncs, so that `hourly_sync` brings `finished_syncs`, which records them.
    """
    job = sync_workspace(placement)
    needed_by_a_sync = with_resources(placement, assets(placement), job)
    return dg.Definitions.merge(needed_by_a_sync, automation(placement, job, with_schedules, with_sensors))


def automation(
    placement: Placement,
    job: SyncJob,
    with_schedules: Collection[str] = SCHEDULES,
    with_sensors: Collection[str] = SENSORS,
) -> dg.Definitions:
    """The definitions that a sync in a process of its own does not need."""
    (refresh, refresh_one), check = refresh_jobs(placement), check_workspace(placement)
    wanted = {*with_schedules, *with_sensors, *(("finished_syncs",) if "hourly_sync" in with_schedules else ())}
    made_schedules = {
        "hourly_sync": schedules.hourly_sync(placement, job),
        "nightly_reconcile": schedules.nightly_reconcile(placement, job),
    }
    made_sensors = {
        "webhook_events": sensors.webhook_events(placement, refresh),
        "asked_syncs": sensors.asked_syncs(placement, job),
        "finished_syncs": sensors.finished_syncs(placement, job),
        "lost_runs": lost_runs(placement),
        "late_workspaces": sensors.late_workspaces(placement, check),
    }
    if not placement.with_checks:
        wanted.discard("late_workspaces")
    if placement.component is not None and not placement.in_process:
        wanted.discard("lost_runs")  # between two steps of such a run, no process holds its lock
    return dg.Definitions(
        jobs=[refresh, refresh_one, *([check] if placement.with_checks else [])],
        schedules=[one for name, one in made_schedules.items() if name in wanted],
        sensors=[one for name, one in made_sensors.items() if name in wanted],
    )
