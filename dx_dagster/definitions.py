"""Dagster's code location: assets, jobs, schedules, sensors and resources."""

import dagster as dg

from dx_dagster.assets.ours import OURS
from dx_dagster.automation import console_logger, syncing
from dx_dagster.automation.definitions import automation
from dx_dagster.automation.upkeep import daily_upkeep, upkeep

console_logger.set_up()

_UPKEEP = upkeep(OURS)

defs = dg.Definitions.merge(
    syncing.LOADED,
    automation(OURS, syncing.SYNC),
    dg.Definitions(jobs=[_UPKEEP], schedules=[daily_upkeep(OURS, _UPKEEP)]),
)
