#!/usr/bin/env bash
# dagster 1.13.27: a run status sensor that raises for a run never gets that run again, unless it raises one of Dagster's
# own errors. A tick gives it five runs at most.
#
# Expected: as with other sensors, a tick that failed leaves the cursor where it was, and the next tick repeats it. A tick
# takes all runs that have ended since the last one.
# Seen: eight runs of a job succeed, and the sensor raises ConnectionError, once, for the third. The first tick gives it
# five runs and ends as FAILURE. The second one gives it the other three. The third run is never given again. For four
# more runs, it raises DagsterError once, for run 11. That tick ends there, and the next one gives it all four.
# DAGSTER_RUN_STATUS_SENSOR_PROCESS_LIMIT, in the process of the code location, sets the five.
# So a sensor that must not miss a run raises DagsterError where it may succeed later, and records a run twice without
# harm: `finished_syncs` (dx_dagster/automation/sensors.py) does. Before, a sync that ended while the database was being
# restarted was not recorded, and was made again. At a tick in ten seconds, 1,800 syncs an hour are recorded.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27
cat > "$folder/observed.py" <<'PYTHON'
from pathlib import Path

import dagster as dg

GIVEN = Path(__file__).with_name("given")


@dg.op
def work() -> None: ...


@dg.job(executor_def=dg.in_process_executor)
def sync() -> None:
    work()


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[sync],
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def record(context: dg.RunStatusSensorContext) -> None:
    number = context.dagster_run.tags["number"]
    is_first_time = number not in GIVEN.read_text().split()
    with GIVEN.open("a") as file:
        file.write(f"{number}\n")
    if number == "3" and is_first_time:
        raise ConnectionError("the database is being restarted")
    if number == "11" and is_first_time:
        raise dg.DagsterError("the database is being restarted")


defs = dg.Definitions(jobs=[sync], sensors=[record])
PYTHON
cat > "$folder/run.py" <<'PYTHON'
import logging
import sys
import time
from importlib.metadata import version

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.sensor import execute_sensor_iteration
from observed import GIVEN, sync

LOG = logging.getLogger("sensors")


def tick(process: WorkspaceProcessContext) -> list[int]:
    """What the daemon does every few seconds; the runs that the sensor was given."""
    GIVEN.touch()
    before = len(GIVEN.read_text().split())
    list(execute_sensor_iteration(process, LOG, None, None))
    time.sleep(1.5)  # longer than the sensor's interval
    return [int(number) for number in GIVEN.read_text().split()[before:]]


def succeed(process: WorkspaceProcessContext, number: int) -> None:
    location = process.create_request_context().get_code_location("observed")
    remote = next(iter(location.get_repositories().values())).get_full_job("sync")
    run = process.instance.create_run_for_job(
        sync,
        tags={"number": str(number)},
        remote_job_origin=remote.get_remote_origin(),
        job_code_origin=remote.get_python_origin(),
    )
    assert execute_run(InMemoryJob(sync), run, process.instance).success


target = PythonFileTarget(sys.argv[1], attribute=None, working_directory=None, location_name="observed")
with dg.instance_for_test() as instance, WorkspaceProcessContext(instance, target) as process:
    assert tick(process) == []  # the first one notes where the log ends
    given = {}
    for error, numbers in {"ConnectionError": range(1, 9), "DagsterError": range(9, 13)}.items():
        for number in numbers:
            succeed(process, number)
        given[error] = [tick(process) for _ in range(3)]
print(f"Python {sys.version.split()[0]}, dagster {version('dagster')}")
print(f"Runs that three ticks gave the sensor, which raised ConnectionError for run 3: {given['ConnectionError']}")
print(f"Runs that three ticks gave the sensor, which raised DagsterError for run 11: {given['DagsterError']}")
if given["ConnectionError"] != [[1, 2, 3, 4, 5], [6, 7, 8], []]:
    sys.exit("After ConnectionError, the ticks give the sensor other runs now")
if given["DagsterError"] != [[9, 10, 11], [9, 10, 11, 12], []]:
    sys.exit("After DagsterError, the ticks give the sensor other runs now")
PYTHON
DAGSTER_HOME="" DAGSTER_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" "$folder/run.py" "$folder/observed.py" \
  2>"$folder/log" | grep --invert-match dagster.code_server || {
  tail -n 20 "$folder/log" >&2
  exit 1
}
