"""Dagster's code location: assets, jobs, schedules, sensors and resources."""

import dagster as dg

from dx_dagster.assets import bitbucket
from dx_dagster.automation.jobs import sync_workspace
from dx_dagster.automation.refreshing import refresh_workspace
from dx_dagster.automation.schedules import SCHEDULES
from dx_dagster.automation.sensors import SENSORS
from dx_dagster.resources import RESOURCES

defs = dg.Definitions(
    # From a module that is named: to find the current one, Dagster inspects the stack, which takes 0.1 s.
    assets=dg.load_assets_from_modules([bitbucket]),
    jobs=[sync_workspace, refresh_workspace],
    schedules=SCHEDULES,
    sensors=SENSORS,
    resources=RESOURCES,
    # A run mostly waits for HTTP: more processes for its steps gain nothing. Runs of several workspaces are spread.
    executor=dg.in_process_executor,
)
