"""Runs as tasks of Celery workers, which need share nothing but the database and the broker.

Dagster's launcher asks Celery's result backend whether a run is alive. That gives wrong answers: a worker that was
killed is "started" for good, and a run is unknown, and ended, once the results were lost while it is at work. The lock
that each run holds in the database tells it right (`lost_runs.py`), so there is no result backend.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

_CONFIGURATION: Mapping[str, Any] = {
    "result_backend": "disabled://",
    "task_ignore_result": True,
    # A busy worker takes no run out of the queue: another one may be idle, and what it has taken dies with it. Brokers
    # other than Redis do not have this setting; there the multiplier limits what is taken.
    "worker_disable_prefetch": True,
    "worker_prefetch_multiplier": 1,
    # A run is never given to a second worker by the broker. Dagster starts it again as another run.
    "task_acks_late": False,
    # A new process has the memory of a new one. It is forked from one that has loaded the definitions.
    "worker_max_tasks_per_child": 50,
    # The worker's process logs as our other services do.
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # A broker that does not answer must not hold up the daemon, whose thread starts all runs.
    "broker_transport_options": {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 0.5,
        "socket_connect_timeout": 5,
        "socket_timeout": 30,
    },
}


class WorkerRunLauncher(CeleryRunLauncher):
    """Starts runs as tasks of `dx-dagster worker`."""

    def __init__(self, default_queue: str, config_source: Mapping[str, Any] | None = None, **config: Any) -> None:
        config["backend"] = _CONFIGURATION["result_backend"]
        super().__init__(default_queue, config_source={**_CONFIGURATION, **(config_source or {})}, **config)

    def terminate(self, run_id: str) -> bool:
        """Ends a run, as Dagster's other launchers do: it ends as cancelled, and is not started again."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if DAGSTER_CELERY_TASK_ID_TAG in run.tags:  # the process of a `dx-dagster sync` is no worker's
            super().terminate(run_id)
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:  # noqa: ARG002
        """Always well: `lost_runs` ends runs without a process."""
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def get_run_worker_debug_info(
        self,
        run: dg.DagsterRun,
        include_container_logs: bool | None = True,  # noqa: ARG002 - Dagster passes it by name
    ) -> str | None:
        return f"Celery task {run.tags.get(DAGSTER_CELERY_TASK_ID_TAG, 'none')}: no worker took it, or it had no code."
