"""The job `check_workspace`: when a workspace was last synced, and how long its deliveries have waited."""

import dagster as dg

from dx_dagster.assets import checks
from dx_dagster.assets.partitions import WORKSPACES
from dx_dagster.insights.checks.looking import Verdict
from dx_dagster.resources import WarehouseResource
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import Warehouse, WarehouseError


@dg.op
def check(context: dg.OpExecutionContext, warehouse: WarehouseResource) -> None:
    """Reports the results.

    Raises:
        Failure: with one sentence that says what is wrong.
    """

    async def look(database: Warehouse) -> list[Verdict]:
        slug = await connections.stored_name(database, context.partition_key)  # the partition key may differ in case
        return await checks.of_workspace(database, slug)

    try:
        checks.tell(context, warehouse.run(look(warehouse.connected)))
    except WarehouseError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


@dg.job(
    partitions_def=WORKSPACES,
    description="Checks when one workspace was last synced, and how long its deliveries have waited.",
)
def check_workspace() -> None:
    check()
