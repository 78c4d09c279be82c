"""The job `check_workspace`: when a workspace was last synced, and how long its deliveries have waited."""

import dagster as dg

from dx_dagster.assets import checks
from dx_dagster.assets.placement import Placement
from dx_dagster.automation.jobs import executor, run_tags
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import Warehouse, WarehouseError


class CheckConfig(dg.Config):
    """Which workspace to check.

    It is no partition of the run: one run at a time works on a partition, and a check does not wait for an import.

    Attributes:
        workspace: its partition.
    """

    workspace: str


def _check(placement: Placement, context: dg.OpExecutionContext, config: CheckConfig) -> None:
    """Reports the results.

    Raises:
        Failure: with one sentence that says what is wrong.
    """
    warehouse = placement.warehouse(context)

    async def look(database: Warehouse) -> None:
        slug = await connections.stored_name(database, config.workspace)  # the partition key may differ in case
        verdicts = await checks.of_workspace(placement, database, slug)
        await checks.tell(placement, context, database, config.workspace, verdicts)

    try:
        warehouse.run(look(warehouse.connected))
    except WarehouseError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def check_workspace(placement: Placement) -> dg.JobDefinition:
    @dg.op(name=placement.name("check"), required_resource_keys={placement.name("warehouse")})
    def check(context: dg.OpExecutionContext, config: CheckConfig) -> None:
        _check(placement, context, config)

    @dg.job(
        name=placement.name("check_workspace"),
        description="Checks when one workspace was last synced, and how long its deliveries have waited.",
        tags=run_tags(placement),
        executor_def=executor(placement),
    )
    def job() -> None:
        check()

    return job
