"""Ends runs whose process died without reporting it, as in a power cut.

Dagster notices that a run has died only while the code server that started it lives, and on Celery's workers not at
all. A run that stays "started" keeps its workspace from every other run, so each run holds a lock of the database for
as long as its process lives.

A lock may be missing for a while though the process lives: it is taken with the first step, given back a moment before
the run is called ended, and taken again after its connection was lost. So a run is ended once its lock was missing for
a minute, by a clock that is never set, and at three looks: two may lie just before and after an outage of the database.
"""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import dagster as dg

from dx_dagster.assets.placement import Placement
from dx_dagster.automation.under_way import KIND_TAG, PARTITION_TAG, WORKSPACE_TAG
from dx_dagster.clock import monotonic
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.embedded import database_url
from dx_dagster.warehouse.runs import without_process

_SECONDS_BETWEEN_LOOKS = 15
SECONDS_TO_BE_SURE = 60.0
LOOKS_TO_BE_SURE = 3
# Jobs of our own code location whose runs have none of our tags.
_WITHOUT_TAGS = {"check_workspace", "upkeep"}
# A cursor has times of the clock of one machine, since it started. Code servers of that machine take over from one
# another within a minute: each would begin to count anew.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_CLOCK = _BOOT.read_text().strip() if _BOOT.exists() else token_hex(8)


class Missing(NamedTuple):
    """A missing lock of a run: since when, by the monotonic clock, and for how many consecutive looks."""

    since: float
    looks: int

    def is_lost(self, now: float) -> bool:
        return now - self.since >= SECONDS_TO_BE_SURE and self.looks >= LOOKS_TO_BE_SURE


def lost_runs(placement: Placement) -> dg.SensorDefinition:
    @dg.sensor(
        name=placement.name("lost_runs"),
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends runs whose process was killed together with its code server.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return _end_lost_runs(placement, context)

    return sensor


def _end_lost_runs(placement: Placement, context: dg.SensorEvaluationContext) -> dg.SkipReason:
    now = monotonic()
    missing = watched(_remembered(context.cursor), _without_lock(placement, context.instance), now)
    lost = [run_id for run_id, one in missing.items() if one.is_lost(now)]
    for run_id in lost:
        run = context.instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            context.instance.report_run_failed(
                run, "The process of this run ended without reporting: it was killed, or the machine stopped."
            )
    context.update_cursor(json.dumps({"clock": _CLOCK, "missing": missing}))
    return dg.SkipReason(f"ended {len(lost)} runs without a process" if lost else "every run has its process")


def watched(before: Mapping[str, Missing], without_lock: Collection[str], now: float) -> dict[str, Missing]:
    """The runs whose lock is missing now, carrying on the counts of `before`."""
    seen = {run_id: before.get(run_id, Missing(now, 0)) for run_id in without_lock}
    return {run_id: one._replace(looks=one.looks + 1) for run_id, one in seen.items()}


def _remembered(cursor: str | None) -> dict[str, Missing]:
    known = json.loads(cursor) if cursor else {}
    missing = known["missing"] if known.get("clock") == _CLOCK else {}
    return {run_id: Missing(*one) for run_id, one in missing.items()}


def _without_lock(placement: Placement, instance: dg.DagsterInstance) -> list[str]:
    """Started runs whose lock no process holds.

    In another project, runs of our jobs in one process only: others hold the lock during our steps alone.
    """
    statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    runs = instance.get_runs(dg.RunsFilter(statuses=statuses))
    if placement.component is None:
        # A sync from Dagster's UI has the partition's tag alone, and a refresh is of no workspace.
        tags = {placement.tag(WORKSPACE_TAG), placement.tag(KIND_TAG), PARTITION_TAG}
        candidates = [run.run_id for run in runs if tags & run.tags.keys() or run.job_name in _WITHOUT_TAGS]
    else:
        jobs = {placement.name("sync_workspace"), placement.name("refresh_workspaces")}
        candidates = [run.run_id for run in runs if run.job_name in jobs]
    return asyncio.run(_without_process(placement, candidates)) if candidates else []


async def _without_process(placement: Placement, runs: Sequence[str]) -> list[str]:
    async with Warehouse(database_url(placement.settings()), connections=1) as warehouse:
        return await without_process(warehouse, runs)
