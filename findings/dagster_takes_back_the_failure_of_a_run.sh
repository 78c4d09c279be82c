#!/usr/bin/env bash
# dagster 1.13.27: a run is reported as failed while its process is at work, as run monitoring does with a run that takes
# too long to start.
#
# Expected: the run stays failed. Sensors of failures have seen its end, and run retries have started it again.
# Seen: the process goes on, and its last event changes the status to SUCCESS. The log has both ends. So a run must be kept
# from beginning before it is reported as failed: `lost_runs` holds a lock of the run meanwhile
# (dx_dagster/automation/lost_runs.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27
cat > "$folder/run.py" <<'PYTHON'
import sys
from importlib.metadata import version

import dagster as dg

ENDS = {dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS}
during = []


@dg.op
def works(context):
    # As another process does it.
    context.instance.report_run_failed(context.instance.get_run_by_id(context.run_id), "taken for lost")
    during.append(context.instance.get_run_by_id(context.run_id).status)


@dg.job
def job():
    works()


with dg.DagsterInstance.ephemeral() as instance:
    run_id = job.execute_in_process(instance=instance).run_id
    after = instance.get_run_by_id(run_id).status
    events = [entry.dagster_event for entry in instance.all_logs(run_id) if entry.dagster_event]
    ends = [event.event_type.name for event in events if event.event_type in ENDS]
seen = (during[0].value, after.value, ends)
print(f"dagster {version('dagster')}: status when reported, status in the end, ends in the log: {seen}")
sys.exit(seen != ("FAILURE", "SUCCESS", ["RUN_FAILURE", "RUN_SUCCESS"]))
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
