"""The part of the code location that a sync needs: the assets, their job and their resources.

A sync in a process of its own loads nothing else. Schedules, sensors and other jobs are in `dx_dagster/definitions.py`,
whose module may have only one `Definitions`.
"""

import dagster as dg

from dx_dagster.assets.bitbucket import IMPORTED
from dx_dagster.assets.derived import DERIVED
from dx_dagster.assets.external import EXTERNAL
from dx_dagster.automation.jobs import sync_workspace
from dx_dagster.resources import RESOURCES

LOADED = dg.Definitions(
    assets=[*EXTERNAL, *IMPORTED, *DERIVED],
    jobs=[sync_workspace],
    resources=RESOURCES,
    # A run mostly waits for HTTP: more processes for its steps gain nothing. Runs of several workspaces are spread.
    executor=dg.in_process_executor,
)
