#!/usr/bin/env bash
# dagster-celery 0.29.27: with CeleryRunLauncher, run monitoring fails on each run that no task executes, as `dg launch`
# and `materialize` make them, at each of its passes.
#
# Expected: the launcher says that it does not know the run's worker, as it does for an unknown task.
# Seen: check_run_worker_health and terminate raise KeyError 'dagster-celery/task_id'; the daemon logs a traceback every
# pass, and Terminate fails. Our launcher judges no run; the lock of the run does (dx_dagster/automation/celery_launcher.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27 dagster-celery==0.29.27 \
  celery==5.7.0 kombu==5.7.0
cat > "$folder/run.py" <<'PYTHON'
import sys
from importlib.metadata import version

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from pathlib import Path

home = Path(sys.argv[1])
(home / "dagster.yaml").write_text(
    "run_launcher:\n  module: dagster_celery.launcher\n  class: CeleryRunLauncher\n"
    "  config: {broker: 'memory://', backend: 'cache+memory://'}\ntelemetry: {enabled: false}\n"
)


@dg.job
def job():
    pass


raised = []
with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home))) as instance:
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    launcher = instance.run_launcher
    for ask in (lambda: launcher.check_run_worker_health(run), lambda: launcher.terminate(run.run_id)):
        try:
            ask()
        except KeyError as error:
            raised.append(str(error))
print(f"dagster {version('dagster')}, dagster-celery {version('dagster-celery')}, celery {version('celery')}")
print(f"check_run_worker_health and terminate raise KeyError: {raised}")
sys.exit(raised != ["'dagster-celery/task_id'"] * 2)
PYTHON
mkdir "$folder/home"
"$folder/venv/bin/python" "$folder/run.py" "$folder/home"
