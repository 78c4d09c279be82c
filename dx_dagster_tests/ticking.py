"""Ticks of the schedules and sensors of our own code location."""

import json
from collections.abc import Callable
from typing import Any

import dagster as dg

Context = dg.SensorEvaluationContext | dg.ScheduleEvaluationContext


def _ticks_of(name: str) -> Callable[[Context], Any]:
    def tick(context: Context) -> Any:
        from dx_dagster.definitions import defs  # noqa: PLC0415 - at the top it would be outside the filter for warnings

        if isinstance(context, dg.SensorEvaluationContext):
            return defs.resolve_sensor_def(name)(context)
        return defs.resolve_schedule_def(name)(context)

    return tick


hourly_sync, nightly_reconcile = _ticks_of("hourly_sync"), _ticks_of("nightly_reconcile")
webhook_events, lost_runs = _ticks_of("webhook_events"), _ticks_of("lost_runs")
late_workspaces = _ticks_of("late_workspaces")


def look_for_lost_runs(instance: dg.DagsterInstance, cursor: str | None, later: float = 0) -> str:
    """The cursor after a look, so much later than the last one."""
    known = json.loads(cursor) if cursor else None
    for missing in (*known["missing"].values(), *known["unsent"].values()) if known else ():
        missing[0] -= later
    context = dg.build_sensor_context(instance=instance, cursor=json.dumps(known) if known else None)
    lost_runs(context)
    assert context.cursor
    return context.cursor
