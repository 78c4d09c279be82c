"""Runs whose process is gone without a word, as after a power cut: nobody else would ever call them ended.

Dagster notices that a run has died only while the code server that started it lives. A run that stays "started" keeps
its workspace from every other run, so each run holds a lock of the database for as long as its process lives.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from dx_dagster.automation.under_way import WORKSPACE_TAG
from dx_dagster.settings import Settings
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.embedded import database_url
from dx_dagster.warehouse.liveness import without_process

if TYPE_CHECKING:
    from dagster._core.storage.dagster_run import RunRecord

# A run takes its lock with its first step, and gives it back a moment before it is called ended.
_SECONDS_TO_BEGIN = 60.0
_SECONDS_TO_END = 3.0


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process was killed together with everything that looked after it.",
)
def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    found = _lost(context.instance)
    if found:
        time.sleep(_SECONDS_TO_END)
        found = [run for run in _lost(context.instance) if run in found]
    for run_id in found:
        run = context.instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            context.instance.report_run_failed(
                run, "The process of this run is gone: it was killed, or the machine was."
            )
    return dg.SkipReason(f"ended {len(found)} runs without a process" if found else "every run has its process")


def _lost(instance: dg.DagsterInstance) -> list[str]:
    statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    records = instance.get_run_records(dg.RunsFilter(statuses=statuses))
    candidates = [record.dagster_run.run_id for record in records if _has_begun(record)]
    return asyncio.run(_without_process(candidates)) if candidates else []


def _has_begun(record: "RunRecord") -> bool:
    """Whether it is one of ours, all of which hold the lock, and should hold it by now."""
    begun = record.start_time is not None and time.time() - record.start_time > _SECONDS_TO_BEGIN  # noqa: TID251 - Dagster's time is the host's
    return begun and WORKSPACE_TAG in record.dagster_run.tags


async def _without_process(runs: Sequence[str]) -> list[str]:
    async with Warehouse(database_url(Settings.read()), connections=1) as warehouse:
        return await without_process(warehouse, runs)
