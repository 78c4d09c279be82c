"""Schedules: the hourly sync and the nightly reconcile."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import dagster as dg

from dx_dagster.assets.partitions import register
from dx_dagster.assets.placement import Placement
from dx_dagster.assets.steps import key_of, op_name
from dx_dagster.automation.cron import known
from dx_dagster.automation.decisions import due_for_sync
from dx_dagster.automation.host_settings import warn_of_settings
from dx_dagster.automation.jobs import SyncJob
from dx_dagster.automation.under_way import (
    BACKGROUND_TAG,
    KIND_TAG,
    PRIORITY_TAG,
    RECONCILE,
    SYNC,
    WORKSPACE_TAG,
    queued_syncs,
    syncing_workspaces,
)
from dx_dagster.warehouse.connections import due
from dx_dagster.warehouse.connections.due import Paced
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.embedded import database_url

# The list of repositories comes first, and waits for its budget: nothing can be asked without it.
_PACED = ("members", "pullrequests", "activity", "comments", "commits", "pipelines", "deployments")


def hourly_sync(placement: Placement, job: SyncJob) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=placement.name("hourly_sync"),
        job=job,
        cron_schedule=known(placement.setting("DX_SYNC_CRON"), placement.settings().sync_cron),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Imports what changed in each connected workspace, about once an hour (DX_SYNC_EVERY). A tick "
        "starts runs for some of the workspaces that are due, the stalest first.",
        tags={placement.tag(KIND_TAG): SYNC},
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        return _due_syncs(placement, context)

    return schedule


def _due_syncs(placement: Placement, context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    settings = placement.settings()
    now = context.scheduled_execution_time.astimezone(UTC)
    due = due_for_sync(
        _connected(placement, context.instance),
        syncing_workspaces(placement, context.instance),
        now,
        timedelta(seconds=settings.sync_every),
        settings.sync_pace,
        queued=queued_syncs(placement, context.instance),
    )
    if not due:
        return dg.SkipReason("every connected workspace was synced within DX_SYNC_EVERY, or is being synced")
    what_is_due = _configured(placement, _PACED, {"scheduled": True})
    return [_request(placement, workspace, now, what_is_due, SYNC) for workspace in due]


def _configured(placement: Placement, steps: Iterable[str], config: dict[str, object]) -> dict[str, object]:
    """A run's configuration of these steps, as far as the placement has them."""
    names = [placement.name(op_name(key_of(step))) for step in steps if step in placement.steps]
    return {name: {"config": config} for name in names}


def nightly_reconcile(placement: Placement, job: SyncJob) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=placement.name("nightly_reconcile"),
        job=job,
        cron_schedule=known(placement.setting("DX_RECONCILE_CRON"), placement.settings().reconcile_cron),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Imports each connected workspace once a night, and lists all its pull requests and the pipelines "
        "and deployments of the last days: for changes that neither webhooks nor hourly syncs show.",
        tags={placement.tag(KIND_TAG): RECONCILE},
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        return _reconciles(placement, context)

    return schedule


def _reconciles(placement: Placement, context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """Finds changes that an hourly sync cannot see: they move no date that it filters by.

    Examples are a deleted closed pull request, an approval of one, and rerun steps of a pipeline. A workspace with
    more pull requests than DX_RECONCILE_MOST_PULLS would take too many requests, so only its pipelines and
    deployments are listed.
    """
    now = context.scheduled_execution_time.astimezone(UTC)
    again = _configured(placement, ("pullrequests", "pipelines", "deployments"), {"reconcile": True})
    all_pulls = _configured(placement, ("pullrequests",), {"full": True, "reconcile": True})
    most = placement.settings().reconcile_most_pulls
    connected = sorted(_connected(placement, context.instance), key=lambda one: str(one.last_synced_at or ""))
    if not connected:
        return dg.SkipReason("no workspace is connected")
    return [
        _request(placement, one.workspace, now, again | (all_pulls if one.pulls <= most else {}), RECONCILE)
        for one in connected
    ]


def _connected(placement: Placement, instance: dg.DagsterInstance) -> list[Paced]:
    """Reads the connected workspaces, and registers a partition for each."""
    warn_of_settings(placement, instance)

    async def read() -> list[Paced]:
        async with Warehouse(database_url(placement.settings())) as warehouse:
            return await due.workspaces(warehouse)

    known = [one for one in asyncio.run(read()) if placement.imports(one.workspace)]
    register(instance, (one.workspace for one in known), placement.partitions)
    return known


def _request(placement: Placement, workspace: str, now: datetime, ops: dict[str, object], kind: str) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{workspace} {now.isoformat()}",
        partition_key=workspace,
        run_config={"ops": ops},
        tags={
            placement.tag(WORKSPACE_TAG): workspace,
            placement.tag(KIND_TAG): kind,
            placement.tag(BACKGROUND_TAG): "true",
            PRIORITY_TAG: "-10" if kind == RECONCILE else "0",
        },
    )
