"""`runs`: what a run of Dagster takes that has nothing to apply, in a process of its own and in one of a worker.

A worker's process is forked from one that has loaded the definitions, and makes one run after another.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import dagster as dg
from cryptography.fernet import Fernet
from dagster._cli.api import _execute_run_command_body
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.events import DagsterEvent
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from benchmarks.reporting import Table
from benchmarks.surroundings import databases

_JOB = "refresh_workspaces"


def measure(runs: int) -> list[Table]:
    """CPU and wall times of so many runs each; the first one in a warm process is not counted."""
    with databases() as place, place.fresh() as url, tempfile.TemporaryDirectory() as home:
        given = {
            "DX_DATABASE_URL": url,
            "DX_SECRET_KEYS": Fernet.generate_key().decode(),
            "DX_HOME": home,
            "DX_WEBHOOKS_LINGER": "0",
        }
        command = [sys.executable, "-m", "benchmarks.runs", str(runs)]
        done = subprocess.run(command, env=os.environ | given, stdout=subprocess.PIPE, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    return [Table("What a run takes that has nothing to apply, median", ["process", "CPU s", "wall s"], rows)]


def _measure_here(runs: int) -> None:
    """In a process of its own, whose environment is the installation's."""
    from dx_dagster import definitions  # noqa: PLC0415 - with the installation's settings
    from dx_dagster.cli.installation import Installation  # noqa: PLC0415
    from dx_dagster.settings import Settings  # noqa: PLC0415

    Installation.open(Settings.read(), new=True).activate()
    job = definitions.defs.resolve_job_def(_JOB)
    code = ModuleCodePointer("dx_dagster.definitions", "defs", None)
    origin = JobPythonOrigin(_JOB, RepositoryPythonOrigin(sys.executable, code))
    with dg.DagsterInstance.get() as instance:

        def new_run() -> str:
            status = dg.DagsterRunStatus.STARTING
            return instance.create_run_for_job(job, status=status, job_code_origin=origin).run_id

        def in_a_process() -> None:
            command = [sys.executable, "-m", "benchmarks.runs", "execute", new_run()]
            subprocess.run(command, stderr=subprocess.DEVNULL, check=True)

        _tell("of its own, as the daemon starts it", [_taken(in_a_process) for _ in range(runs)])
        _tell("of a worker", [_taken(lambda: _execute(new_run())) for _ in range(runs + 1)][1:])


def _taken(work: Callable[[], None]) -> tuple[float, float]:
    """CPU and wall seconds of the work, its child processes included."""
    cpu, began = _cpu(), time.monotonic()
    work()
    return _cpu() - cpu, time.monotonic() - began


def _cpu() -> float:
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _execute(run: str) -> None:
    """As a Celery task does it."""
    with dg.DagsterInstance.get() as instance:
        _execute_run_command_body(instance=instance, run_id=run, write_stream_fn=_forget, set_exit_code_on_failure=True)


def _forget(_event: DagsterEvent) -> None:
    """The events of a run are in the storage."""


def _tell(name: str, taken: list[tuple[float, float]]) -> None:
    cpu, wall = (statistics.median(column) for column in zip(*taken, strict=True))
    print(f"{name}\t{cpu:.2f}\t{wall:.1f}")


if __name__ == "__main__":
    if sys.argv[1] == "execute":
        _execute(sys.argv[2])
    else:
        _measure_here(int(sys.argv[1]))
