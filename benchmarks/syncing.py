"""Runs syncs of one workspace on demand: `python -m benchmarks.syncing acme`.

Each line on standard input is a JSON object: `{"how": "scheduled"}` runs what `hourly_sync` starts, and
`{"how": "by hand", "since": …}` what `dx-dagster sync` does. A line with the outcome answers each.
"""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.installation import Installation
from dx_dagster.cli.sync import sync_workspace
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections import connections

# The schedule leaves out what was synced within the hour; whoever sends the line decides that here.
_LATER = timedelta(hours=2)


def main() -> None:
    workspace, settings = sys.argv[1], Settings.read()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        if wanted["how"] == "scheduled":
            outcome = scheduled(settings, workspace)
        else:
            outcome = by_hand(settings, workspace, wanted.get("since"))
        print(json.dumps(outcome), flush=True)


def by_hand(settings: Settings, workspace: str, since: str | None) -> Mapping[str, Any]:
    try:
        return {"requests": sync_workspace(settings, workspace, since=since).requests}
    except CommandError as error:
        return {"error": str(error)}


def scheduled(settings: Settings, workspace: str) -> Mapping[str, Any]:
    from dx_dagster.definitions import defs  # noqa: PLC0415 - Dagster's definitions take a second

    installation = Installation.open(settings)
    with installation.dagster() as instance:
        instance.optimize_for_webserver(statement_timeout=0, pool_recycle=30, max_overflow=4)
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime.now(UTC) + _LATER,  # noqa: TID251 - as the daemon's
        )
        wanted: Any = defs.resolve_schedule_def("hourly_sync")(context)
        (request,) = wanted
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        result = defs.resolve_job_def("sync_workspace").execute_in_process(
            instance=instance,
            partition_key=request.partition_key,
            tags=request.tags,
            run_config={**request.run_config, **quiet},
            raise_on_error=False,
        )
        found = [event.materialization.metadata for event in result.get_asset_materialization_events()]
    installation.run(partial(connections.record_sync, workspace=workspace))
    notes = [note for metadata in found if "notes" in metadata for note in _list(metadata["notes"].value)]
    requests = sum(int(str(metadata["requests"].value)) for metadata in found if "requests" in metadata)
    return {"requests": requests, "notes": notes} | ({} if result.success else {"error": "a step failed"})


def _list(value: Any) -> list[str]:
    return list(value)


if __name__ == "__main__":
    main()
