"""The job `upkeep`: removes what Dagster keeps of old runs."""

from dataclasses import asdict
from datetime import timedelta

import dagster as dg

from dx_dagster.automation.cron import known
from dx_dagster.resources import WarehouseResource
from dx_dagster.settings import Settings
from dx_dagster.warehouse import old_runs
from dx_dagster.warehouse.database import WarehouseError


@dg.op
def remove_old_runs(context: dg.OpExecutionContext, warehouse: WarehouseResource) -> None:
    """Removes events, results of checks and runs older than DX_KEEP_RUNS_DAYS, but the last of each partition.

    Raises:
        Failure: with one sentence that says what is wrong.
    """
    keep = timedelta(days=Settings.read().keep_runs_days)
    try:
        removed = warehouse.run(old_runs.remove(warehouse.connected, keep))
    except WarehouseError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    context.log.info("Removed %s runs, %s events and %s results of checks", *asdict(removed).values())
    context.add_output_metadata(asdict(removed))


@dg.job(description="Removes what Dagster keeps of old runs. The last of each partition stays (DX_KEEP_RUNS_DAYS).")
def upkeep() -> None:
    remove_old_runs()


daily_upkeep = dg.ScheduleDefinition(
    name="daily_upkeep",
    job=upkeep,
    cron_schedule=known("DX_UPKEEP_CRON", Settings.read().upkeep_cron),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Removes what Dagster keeps of old runs, once a day.",
)
