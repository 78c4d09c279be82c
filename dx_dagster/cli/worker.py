"""`dx-dagster worker`."""

import os
import signal
import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from dagster import DagsterInstance

    from dx_dagster.automation.celery_launcher import WorkerRunLauncher
    from dx_dagster.cli.installation import Installation


def worker(
    concurrency: Annotated[int, typer.Option(min=1, help="Runs at once, each in a process of its own.")] = 3,
    name: Annotated[str | None, typer.Option(help="Its name, unlike that of any other worker.")] = None,
) -> None:
    """Works on runs as a Celery worker, where DX_CELERY_BROKER names a broker.

    It needs the extra `celery`. When it is ended, its runs end as failed, and Dagster starts them again elsewhere.

    Example: dx-dagster worker --concurrency 3
    """
    from dx_dagster.cli.errors import CommandError
    from dx_dagster.cli.installation import Installation
    from dx_dagster.settings import Settings

    settings = Settings.read()
    if settings.celery_broker is None:
        raise CommandError(
            "DX_CELERY_BROKER is not set, so Dagster's daemon runs everything itself. Set it for all services, such as "
            "redis://:password@host:6379/0."
        )
    installation = Installation.open(settings, new=True)
    installation.activate()
    _work(installation, concurrency, name or f"dx-dagster-{os.getpid()}@{socket.gethostname()}")


def _work(installation: "Installation", concurrency: int, name: str) -> None:
    """Takes runs from the broker until a signal."""
    import logging

    from celery import signals
    from dagster import DagsterInstance
    from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

    from dx_dagster import definitions  # noqa: F401 - loaded here, the processes that are forked have it
    from dx_dagster.automation.celery_free_places import FreePlaces
    from dx_dagster.automation.celery_task import RunTask
    from dx_dagster.telemetry import json_logs

    if not json_logs.set_up():
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signals.setup_logging.connect(_no_logging)
    signals.worker_ready.connect(_ends_runs_at_once)
    signals.task_failure.connect(report_lost_run)
    with DagsterInstance.get() as instance:
        celery = _launcher(installation, instance).celery
    celery.steps["consumer"].add(FreePlaces)
    options: dict[str, Any] = {"base": RunTask}
    create_execute_job_task(celery, **options)
    create_resume_job_task(celery, **options)
    celery.worker_main(
        ["worker", f"--concurrency={concurrency}", f"--hostname={name}", "--without-gossip", "--without-mingle"]
    )


def _launcher(installation: "Installation", instance: "DagsterInstance") -> "WorkerRunLauncher":
    """The launcher that the instance's dagster.yaml names; it knows the broker.

    Raises:
        CommandError: it is another one.
    """
    from dx_dagster.automation.celery_launcher import WorkerRunLauncher
    from dx_dagster.cli.dagster_yaml import CELERY
    from dx_dagster.cli.errors import CommandError

    if isinstance(instance.run_launcher, WorkerRunLauncher):
        return instance.run_launcher
    path = installation.dagster_home / "dagster.yaml"
    raise CommandError(f"{path} is your own copy, and starts runs in another way. Add to it:\n{CELERY}")


def _no_logging(**_given: object) -> None:
    """Keeps Celery from setting up logging of its own."""


def report_lost_run(
    exception: BaseException | None = None, kwargs: "Mapping[str, Any] | None" = None, **_given: object
) -> None:
    """Ends a run whose process was killed, as when memory runs out. `lost_runs` would see it a minute later."""
    from billiard.exceptions import WorkerLostError
    from dagster import DagsterInstance

    from dx_dagster.automation.celery_task import run_of
    from dx_dagster.automation.lost_runs import report_gone

    if not isinstance(exception, WorkerLostError) or not kwargs:
        return
    with DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_of(kwargs))
        if run is not None and not run.is_finished:
            report_gone(instance, run, f"The process of this run ended without reporting: {exception}")


def _ends_runs_at_once(**_given: object) -> None:
    """Makes SIGTERM end the runs, which are started again: Celery would wait for hours until they have ended."""

    def end(_signal: int, _frame: "FrameType | None") -> None:
        os.kill(os.getpid(), signal.SIGQUIT)

    signal.signal(signal.SIGTERM, end)
