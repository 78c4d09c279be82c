"""The part of our code location that a sync needs: the assets, their job and their resources.

A sync in a process of its own loads nothing else. Schedules, sensors and other jobs are in `dx_dagster/definitions.py`,
whose module may have only one `Definitions`.
"""

import dagster as dg

from dx_dagster.assets.ours import ASSETS, OURS
from dx_dagster.automation.jobs import sync_workspace, with_resources

SYNC = sync_workspace(OURS)
LOADED = dg.Definitions.merge(
    with_resources(OURS, ASSETS, SYNC),
    # A run mostly waits for HTTP: more processes for its steps gain nothing. Runs of several workspaces are spread.
    dg.Definitions(executor=dg.in_process_executor),
)
