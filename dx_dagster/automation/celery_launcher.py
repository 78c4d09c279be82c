"""Runs as tasks of Celery workers, which need share nothing but the database and the broker.

Dagster's launcher asks Celery's result backend whether a run is alive. That gives wrong answers: a worker that was
killed is "started" for good, and a run is unknown, and ended, once the results were lost while it is at work. The lock
that each run holds in the database tells it right (`lost_runs.py`), so there is no result backend.

A run that has not begun holds no lock yet. Whether its task still exists is asked of the broker and of the workers.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import dagster as dg
from amqp.exceptions import ChannelError
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG, DAGSTER_CELERY_TASK_ID_TAG
from kombu import Connection
from kombu.exceptions import OperationalError

_SECONDS_TO_ANSWER = 1.5
_SECONDS_BETWEEN_LOOKS = 3.0
_PATIENCE = {"read_timeout": 10, "write_timeout": 10}  # of AMQP; other brokers have theirs below
_NO_SUCH_QUEUE = 404
_CONFIGURATION: Mapping[str, Any] = {
    "result_backend": "disabled://",
    "task_ignore_result": True,
    "worker_prefetch_multiplier": 1,
    "worker_enable_prefetch_count_reduction": False,  # it would raise the count again, and FreePlaces keeps it at one
    # RabbitMQ closes the channel of a worker that holds a task for long. By default, the worker then ends.
    "broker_channel_error_retry": True,
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
        # A busy worker takes no run out of the queue: another one may be idle, and what it has taken dies with it. With
        # RabbitMQ, which does not know this setting, `celery_free_places.py` does the same.
        prefetch = {"worker_disable_prefetch": not str(config.get("broker")).startswith("amqp")}
        super().__init__(default_queue, config_source={**_CONFIGURATION, **prefetch, **(config_source or {})}, **config)

    def launch_run(self, context: LaunchRunContext) -> None:
        # A run that is started again has the tags of the one before it.
        if DAGSTER_CELERY_TASK_ID_TAG in context.dagster_run.tags:
            self._instance.add_run_tags(context.dagster_run.run_id, {DAGSTER_CELERY_TASK_ID_TAG: ""})
        super().launch_run(context)

    def terminate(self, run_id: str) -> bool:
        """Ends a run, as Dagster's other launchers do: it ends as cancelled, and is not started again."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if run.tags.get(DAGSTER_CELERY_TASK_ID_TAG):  # the process of a `dx-dagster sync` is no worker's
            super().terminate(run_id)
        return True

    @staticmethod
    def runs_not_sent(runs: Sequence[dg.DagsterRun]) -> list[str]:
        """The ids of launched runs without the id of a task, which they get when the task is sent."""
        return [run.run_id for run in runs if not run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)]

    def runs_without_task(self, runs: Sequence[dg.DagsterRun]) -> list[str]:
        """The ids of launched runs whose task the broker has lost, as when it restarts empty.

        Two looks in a row find the queue empty and the task at no worker. The result is empty where that cannot be
        known: without an answer of the broker or of any worker, and while tasks wait in the queue.
        """
        tasks = {
            run.tags[DAGSTER_CELERY_TASK_ID_TAG]: run.run_id
            for run in runs
            if run.tags.get(DAGSTER_CELERY_TASK_ID_TAG) and DAGSTER_CELERY_QUEUE_TAG not in run.tags
        }
        missing = self._known_to_nobody(tasks) if tasks else set()
        if missing:
            # A task on its way to a worker is in neither place for a moment.
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            missing = self._known_to_nobody(missing)
        return [run_id for task, run_id in tasks.items() if task in missing and self._is_of(task, run_id)]

    def _is_of(self, task: str, run_id: str) -> bool:
        """Whether it is still the run's task, and not that of the run before it."""
        run = self._instance.get_run_by_id(run_id)
        return run is not None and run.tags.get(DAGSTER_CELERY_TASK_ID_TAG) == task

    def _known_to_nobody(self, tasks: Collection[str]) -> set[str]:
        with self.celery.connection_for_read(transport_options=_PATIENCE) as connection:
            try:
                # In this order: a task that a worker takes between the two looks is found at the worker.
                if waiting_tasks(connection, self.default_queue):
                    return set()
                inspect = self.celery.control.inspect(timeout=_SECONDS_TO_ANSWER, connection=connection)
                answers = inspect.query_task(*tasks)
            except (OperationalError, *connection.connection_errors, *connection.channel_errors):
                return set()
        return set(tasks).difference(*answers.values()) if answers else set()

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:  # noqa: ARG002
        """Always well: `lost_runs` ends runs without a process."""
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def get_run_worker_debug_info(
        self,
        run: dg.DagsterRun,
        include_container_logs: bool | None = True,  # noqa: ARG002 - Dagster passes it by name
    ) -> str | None:
        return (
            f"Celery task {run.tags.get(DAGSTER_CELERY_TASK_ID_TAG) or 'none'}: no worker took it, or it had no code."
        )


def waiting_tasks(connection: Connection, queue: str) -> int:
    """How many tasks are in the queue, without those that a worker holds."""
    try:
        with connection.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError as error:
        # Redis has no empty queues; RabbitMQ makes one with the first worker or run.
        if int(error.reply_code) == _NO_SUCH_QUEUE:
            return 0
        raise
