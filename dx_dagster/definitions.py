"""Dagster's code location: assets, jobs, schedules, sensors and resources."""

import dagster as dg

from dx_dagster.automation import console, syncing
from dx_dagster.automation.checking import check_workspace
from dx_dagster.automation.refreshing import refresh_workspaces
from dx_dagster.automation.schedules import SCHEDULES
from dx_dagster.automation.sensors import SENSORS
from dx_dagster.automation.upkeep import upkeep

console.set_up()

defs = dg.Definitions.merge(
    syncing.LOADED,
    dg.Definitions(jobs=[check_workspace, refresh_workspaces, upkeep], schedules=SCHEDULES, sensors=SENSORS),
)
