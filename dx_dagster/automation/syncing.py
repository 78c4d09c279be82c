"""The part of the code location that a sync needs: the assets, their job and their resources.

A sync in a process of its own loads nothing else. Schedules, sensors and other jobs are in `dx_dagster/definitions.py`,
whose module may have only one `Definitions`.
"""

import dagster as dg

from dx_dagster.assets.catalog import assets
from dx_dagster.assets.ours import OURS
from dx_dagster.assets.placement import Placement
from dx_dagster.automation.jobs import SyncJob, sync_workspace
from dx_dagster.resources import resources


def syncing(placement: Placement, job: SyncJob) -> dg.Definitions:
    """The placement's definitions that a sync needs. The project's executor stays."""
    return dg.Definitions(
        assets=assets(placement),
        jobs=[job],
        resources={placement.name(name): one for name, one in resources(placement.settings).items()},
    )


SYNC = sync_workspace(OURS)
LOADED = dg.Definitions.merge(
    syncing(OURS, SYNC),
    # A run mostly waits for HTTP: more processes for its steps gain nothing. Runs of several workspaces are spread.
    dg.Definitions(executor=dg.in_process_executor),
)
