"""Ends runs whose process died without reporting it, as in a power cut, and runs that a broker lost.

Dagster notices that a run has died only while the code server that started it lives, and on Celery's workers not at
all. A run that stays "started" keeps its workspace from every other run, so each run holds a lock of the database for
as long as its process lives.

A lock may be missing for a while though the process lives: it is taken with the first step, given back a moment before
the run is called ended, and taken again after its connection was lost. So a run is ended once its lock was missing for
a minute, by a clock that is never set, and at three looks: two may lie just before and after an outage of the database.

A run that was launched as a task and has not begun is ended once neither the broker nor a worker has its task. Dagster
would wait three minutes, and a lost run that applies deliveries keeps the next one from being launched. One that has no
task at all is ended as one without a lock is: the database went away while it was being launched.
"""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple, Protocol, runtime_checkable

import dagster as dg

from dx_dagster.assets.placement import Placement
from dx_dagster.automation.under_way import KIND_TAG, PARTITION_TAG, WORKSPACE_TAG
from dx_dagster.clock import monotonic
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.embedded import database_url
from dx_dagster.warehouse.runs import executing, without_process

_SECONDS_BETWEEN_LOOKS = 15
SECONDS_TO_BE_SURE = 60.0
LOOKS_TO_BE_SURE = 3
# Jobs of our own code location whose runs have none of our tags.
_WITHOUT_TAGS = {"check_workspace", "upkeep"}
_BEGUN = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
_LAUNCHED = (dg.DagsterRunStatus.STARTING,)
_KILLED = "The process of this run ended without reporting: it was killed, or the machine stopped."
_NOT_SENT = "This run was launched and never sent to the broker: the database or the daemon ended meanwhile."
_NOT_TAKEN = (
    "The task of this run is lost: it is not in the broker, and no worker has it. The broker was restarted without its "
    "data, or a worker was killed before the run began."
)
# A cursor has times of the clock of one machine, since it started. Code servers of that machine take over from one
# another within a minute: each would begin to count anew.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_CLOCK = _BOOT.read_text().strip() if _BOOT.exists() else token_hex(8)


class Missing(NamedTuple):
    """A missing lock or task of a run: since when, by the monotonic clock, and for how many consecutive looks."""

    since: float
    looks: int

    def is_lost(self, now: float) -> bool:
        return now - self.since >= SECONDS_TO_BE_SURE and self.looks >= LOOKS_TO_BE_SURE


@runtime_checkable
class TaskLauncher(Protocol):
    """A run launcher that hands runs to a broker."""

    def runs_not_sent(self, runs: Sequence[dg.DagsterRun]) -> list[str]:
        """The ids of launched runs that have no task yet."""

    def runs_without_task(self, runs: Sequence[dg.DagsterRun]) -> list[str]:
        """The ids of launched runs whose task the broker has lost."""


def lost_runs(placement: Placement) -> dg.SensorDefinition:
    @dg.sensor(
        name=placement.name("lost_runs"),
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends runs whose process was killed together with its code server, and runs that the broker lost.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return _end_lost_runs(placement, context)

    return sensor


def _end_lost_runs(placement: Placement, context: dg.SensorEvaluationContext) -> dg.SkipReason:
    now, instance = monotonic(), context.instance
    missing = watched(_remembered(context.cursor, "missing"), _without_lock(placement, instance), now)
    not_sent, not_taken = _launched(placement, instance)
    unsent = watched(_remembered(context.cursor, "unsent"), not_sent, now)
    ended = sum(_end(instance, run_id, _BEGUN, _KILLED) for run_id in _lost(missing, now))
    for run_id, why in [*((one, _NOT_SENT) for one in _lost(unsent, now)), *((one, _NOT_TAKEN) for one in not_taken)]:
        # A worker may begin it at this moment. It then finds the run executed by another process.
        with executing(database_url(placement.settings()), run_id) as is_alone:
            ended += is_alone and _end(instance, run_id, _LAUNCHED, why)
    context.update_cursor(json.dumps({"clock": _CLOCK, "missing": missing, "unsent": unsent}))
    return dg.SkipReason(f"ended {ended} lost runs" if ended else "every run has its process or its task")


def _lost(runs: Mapping[str, Missing], now: float) -> list[str]:
    return [run_id for run_id, one in runs.items() if one.is_lost(now)]


def _launched(placement: Placement, instance: dg.DagsterInstance) -> tuple[list[str], list[str]]:
    """Runs that were launched and have not begun: those without a task, and those whose task the broker has lost."""
    launcher = instance.run_launcher
    if not isinstance(launcher, TaskLauncher):
        return [], []
    runs = _ours(placement, instance, _LAUNCHED)
    return launcher.runs_not_sent(runs), launcher.runs_without_task(runs)


def _end(instance: dg.DagsterInstance, run_id: str, statuses: Collection[dg.DagsterRunStatus], why: str) -> bool:
    """Ends the run if it still has one of the statuses, and returns whether it had."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.status not in statuses:
        return False
    report_gone(instance, run, why)
    return True


def report_gone(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str) -> None:
    """Ends a run without a process: as failed, so that it is started again, unless it was to be cancelled."""
    if run.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, why)
    else:
        instance.report_run_failed(run, why)


def watched(before: Mapping[str, Missing], without: Collection[str], now: float) -> dict[str, Missing]:
    """The runs whose lock or task is missing now, carrying on the counts of `before`."""
    seen = {run_id: before.get(run_id, Missing(now, 0)) for run_id in without}
    return {run_id: one._replace(looks=one.looks + 1) for run_id, one in seen.items()}


def _remembered(cursor: str | None, what: str) -> dict[str, Missing]:
    known = json.loads(cursor) if cursor else {}
    missing = known.get(what, {}) if known.get("clock") == _CLOCK else {}
    return {run_id: Missing(*one) for run_id, one in missing.items()}


def _without_lock(placement: Placement, instance: dg.DagsterInstance) -> list[str]:
    """Started runs whose lock no process holds.

    In another project, runs of our jobs in one process only: others hold the lock during our steps alone.
    """
    started = _ours(placement, instance, _BEGUN)
    return asyncio.run(_without_process(placement, [run.run_id for run in started])) if started else []


def _ours(
    placement: Placement, instance: dg.DagsterInstance, statuses: Sequence[dg.DagsterRunStatus]
) -> list[dg.DagsterRun]:
    runs = instance.get_runs(dg.RunsFilter(statuses=list(statuses)))
    if placement.component is None:
        # A sync from Dagster's UI has the partition's tag alone, and a refresh of all workspaces has none.
        tags = {placement.tag(WORKSPACE_TAG), placement.tag(KIND_TAG), PARTITION_TAG}
        return [run for run in runs if tags & run.tags.keys() or run.job_name in _WITHOUT_TAGS]
    jobs = {placement.name(job) for job in ("sync_workspace", "refresh_workspaces", "refresh_workspace")}
    return [run for run in runs if run.job_name in jobs]


async def _without_process(placement: Placement, runs: Sequence[str]) -> list[str]:
    async with Warehouse(database_url(placement.settings()), connections=1) as warehouse:
        return await without_process(warehouse, runs)
