"""A run as a Celery task, which one process executes at a time.

A broker may give one task to two workers, as RabbitMQ does after a lost connection. Dagster ignores a run that has
begun or ended. But two processes that look at its status at the same moment would both execute it.
"""

from collections.abc import Mapping
from typing import Any

import celery
from dagster import DagsterInstance
from dagster._grpc.types import ExecuteRunArgs, ResumeRunArgs
from dagster._serdes import unpack_value

from dx_dagster.settings import Settings
from dx_dagster.warehouse import runs
from dx_dagster.warehouse.embedded import database_url

_IGNORED = "Ignoring a task of this run: another process executes the run already."


class RunTask(celery.Task):  # type: ignore[misc] # Celery has no types
    """The base of Dagster's task: it does nothing while another process executes the same run."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run_id = run_of(kwargs)
        with runs.executing(database_url(Settings.read()), run_id) as is_alone:
            if is_alone:
                return super().__call__(*args, **kwargs)
        with DagsterInstance.get() as instance:
            if run := instance.get_run_by_id(run_id):
                instance.report_engine_event(_IGNORED, run)
        return 0


def run_of(parameters: Mapping[str, Any]) -> str:
    """The id of the run in the parameters of a task that executes or resumes it."""
    [packed] = parameters.values()
    return unpack_value(packed, (ExecuteRunArgs, ResumeRunArgs)).run_id
