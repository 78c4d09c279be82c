"""Dagster's code location: assets, jobs, schedules, sensors and resources."""

import dagster as dg

from dx_dagster.assets.bitbucket import IMPORTED
from dx_dagster.assets.derived import DERIVED
from dx_dagster.assets.external import EXTERNAL
from dx_dagster.automation.checking import check_workspace
from dx_dagster.automation.jobs import sync_workspace
from dx_dagster.automation.refreshing import refresh_workspace
from dx_dagster.automation.schedules import SCHEDULES
from dx_dagster.automation.sensors import SENSORS
from dx_dagster.automation.upkeep import upkeep
from dx_dagster.resources import RESOURCES

defs = dg.Definitions(
    assets=[*EXTERNAL, *IMPORTED, *DERIVED],
    jobs=[sync_workspace, check_workspace, refresh_workspace, upkeep],
    schedules=SCHEDULES,
    sensors=SENSORS,
    resources=RESOURCES,
    # A run mostly waits for HTTP: more processes for its steps gain nothing. Runs of several workspaces are spread.
    executor=dg.in_process_executor,
)
