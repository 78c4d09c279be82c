"""The job `check_workspace`: when a workspace was last synced, and how long its deliveries have waited."""

import dagster as dg

from dx_dagster.assets import checks
from dx_dagster.insights.checks.looking import Verdict
from dx_dagster.resources import WarehouseResource
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import Warehouse, WarehouseError


class CheckConfig(dg.Config):
    """Which workspace to check.

    It is no partition of the run: one run at a time works on a partition, and a check does not wait for an import.

    Attributes:
        workspace: its partition.
    """

    workspace: str


@dg.op
def check(context: dg.OpExecutionContext, config: CheckConfig, warehouse: WarehouseResource) -> None:
    """Reports the results.

    Raises:
        Failure: with one sentence that says what is wrong.
    """

    async def look(database: Warehouse) -> list[Verdict]:
        slug = await connections.stored_name(database, config.workspace)  # the partition key may differ in case
        return await checks.of_workspace(database, slug)

    try:
        checks.tell(context, config.workspace, warehouse.run(look(warehouse.connected)))
    except WarehouseError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


@dg.job(description="Checks when one workspace was last synced, and how long its deliveries have waited.")
def check_workspace() -> None:
    check()
