"""The job `upkeep`: removes what Dagster keeps of old runs, and ends an upgrade of the tables."""

from dataclasses import asdict
from datetime import timedelta

import dagster as dg

from dx_dagster.assets.placement import Placement
from dx_dagster.automation.cron import known
from dx_dagster.warehouse import old_runs, versions
from dx_dagster.warehouse.database import WarehouseError
from dx_dagster.warehouse.embedded import database_url

_STEPS_STAY = timedelta(days=1)


def _remove_old_runs(placement: Placement, context: dg.OpExecutionContext) -> None:
    """Removes events, results of checks and runs older than DX_KEEP_RUNS_DAYS, but the last of each partition.

    Of successful runs, it removes the times of steps after a day.

    Raises:
        Failure: with one sentence that says what is wrong.
    """
    warehouse = placement.warehouse(context)
    keep = timedelta(days=placement.settings().keep_runs_days)
    try:
        removed = warehouse.run(old_runs.remove(warehouse.connected, keep))
        removed.events += warehouse.run(old_runs.remove_steps(warehouse.connected, min(keep, _STEPS_STAY)))
    except WarehouseError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    context.log.info("Removed %s runs, %s events and %s results of checks", *asdict(removed).values())
    context.add_output_metadata(asdict(removed))


def _finish_upgrade(placement: Placement, context: dg.OpExecutionContext) -> None:
    """Runs the migrations that wait until no process of an older release is left."""
    if versions.needed() == versions.known()[-1]:
        return  # this release has none
    from dx_dagster.warehouse import migrations  # noqa: PLC0415 - Alembic imports slowly

    try:
        migrations.upgrade(database_url(placement.settings()), after=True)
    except WarehouseError as error:
        context.log.warning("%s", error)


def upkeep(placement: Placement) -> dg.JobDefinition:
    """The job, for our own code location alone: another project's runs are its own."""

    @dg.op(required_resource_keys={placement.name("warehouse")})
    def remove_old_runs(context: dg.OpExecutionContext) -> None:
        _remove_old_runs(placement, context)

    @dg.op
    def finish_upgrade(context: dg.OpExecutionContext) -> None:
        _finish_upgrade(placement, context)

    @dg.job(
        name="upkeep",
        description="Removes what Dagster keeps of old runs. The last of each partition stays (DX_KEEP_RUNS_DAYS). "
        "After an upgrade, it runs the migrations that wait until no process of an older release is left.",
    )
    def job() -> None:
        remove_old_runs()
        finish_upgrade()

    return job


def daily_upkeep(placement: Placement, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name="daily_upkeep",
        job=job,
        cron_schedule=known("DX_UPKEEP_CRON", placement.settings().upkeep_cron),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Removes what Dagster keeps of old runs, once a day.",
    )
