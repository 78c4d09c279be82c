"""Ticks of the schedules and sensors of our own code location."""

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
