"""Schedules: the hourly sync, the nightly reconcile, and the daily upkeep."""

import asyncio
from datetime import UTC, datetime, timedelta

import dagster as dg

from dx_dagster.assets.partitions import register
from dx_dagster.assets.steps import key_of, op_name
from dx_dagster.automation.cron import known
from dx_dagster.automation.decisions import due_for_sync
from dx_dagster.automation.jobs import sync_workspace
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
from dx_dagster.automation.upkeep import daily_upkeep
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections import due
from dx_dagster.warehouse.connections.due import Paced
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.embedded import database_url

_SETTINGS = Settings.read()
# The list of repositories comes first, and waits for its budget: nothing can be asked without it.
_PACED = ("members", "pullrequests", "activity", "comments", "commits", "pipelines", "deployments")
_WHAT_IS_DUE: dict[str, object] = {"ops": {op_name(key_of(step)): {"config": {"scheduled": True}} for step in _PACED}}


@dg.schedule(
    job=sync_workspace,
    cron_schedule=known("DX_SYNC_CRON", _SETTINGS.sync_cron),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Imports what changed in each connected workspace, about once an hour (DX_SYNC_EVERY). A tick starts "
    "runs for some of the workspaces that are due, the stalest first.",
    tags={KIND_TAG: SYNC},
)
def hourly_sync(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    settings = Settings.read()
    now = context.scheduled_execution_time.astimezone(UTC)
    due = due_for_sync(
        _connected(context.instance),
        syncing_workspaces(context.instance),
        now,
        timedelta(seconds=settings.sync_every),
        settings.sync_pace,
        queued=queued_syncs(context.instance),
    )
    if not due:
        return dg.SkipReason("every connected workspace was synced within DX_SYNC_EVERY, or is being synced")
    return [_request(workspace, now, _WHAT_IS_DUE, SYNC) for workspace in due]


@dg.schedule(
    job=sync_workspace,
    cron_schedule=known("DX_RECONCILE_CRON", _SETTINGS.reconcile_cron),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Imports each connected workspace once a night, and lists all its pull requests and the pipelines and "
    "deployments of the last days: for changes that neither webhooks nor hourly syncs show.",
    tags={KIND_TAG: RECONCILE},
)
def nightly_reconcile(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """Finds changes that an hourly sync cannot see: they move no date that it filters by.

    Examples are a deleted closed pull request, an approval of one, and rerun steps of a pipeline. A workspace with
    more pull requests than DX_RECONCILE_MOST_PULLS would take too many requests, so only its pipelines and
    deployments are listed.
    """
    now = context.scheduled_execution_time.astimezone(UTC)
    steps = ("pullrequests", "pipelines", "deployments")
    again: dict[str, object] = {op_name(key_of(step)): {"config": {"reconcile": True}} for step in steps}
    all_pulls: dict[str, object] = {op_name(key_of("pullrequests")): {"config": {"full": True, "reconcile": True}}}
    most = Settings.read().reconcile_most_pulls
    connected = sorted(_connected(context.instance), key=lambda one: str(one.last_synced_at or ""))
    if not connected:
        return dg.SkipReason("no workspace is connected")
    return [
        _request(one.workspace, now, {"ops": again | (all_pulls if one.pulls <= most else {})}, RECONCILE)
        for one in connected
    ]


def _connected(instance: dg.DagsterInstance) -> list[Paced]:
    """Reads the connected workspaces, and registers a partition for each."""

    async def read() -> list[Paced]:
        async with Warehouse(database_url(Settings.read())) as warehouse:
            return await due.workspaces(warehouse)

    known = asyncio.run(read())
    register(instance, (one.workspace for one in known))
    return known


def _request(workspace: str, now: datetime, run_config: dict[str, object], kind: str) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{workspace} {now.isoformat()}",
        partition_key=workspace,
        run_config=run_config,
        tags={
            WORKSPACE_TAG: workspace,
            KIND_TAG: kind,
            BACKGROUND_TAG: "true",
            PRIORITY_TAG: "-10" if kind == RECONCILE else "0",
        },
    )


SCHEDULES = [hourly_sync, nightly_reconcile, daily_upkeep]
