"""The checks of assets, as Dagster shows them: one result for each workspace.

Dagster shows a result as long as the workspace's rows are not materialized again. So each materialization gives all
results of its asset. The checks of the workspace itself change while nothing runs, and are steps of their own.
"""

import warnings
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import dagster as dg

from dx_dagster.assets.partitions import WORKSPACES
from dx_dagster.insights.checks import looking
from dx_dagster.insights.checks.looking import OF_WORKSPACES, Verdict
from dx_dagster.insights.checks.rules import CHECKED, CHECKS, INBOX, SYNCED, Check
from dx_dagster.resources import WarehouseResource
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import Warehouse, WarehouseError


def _key(asset: str) -> dg.AssetKey:
    return dg.AssetKey(asset.split("/"))


def _spec(asset: str, check: Check) -> dg.AssetCheckSpec:
    description = f"{check.holds} If not: {check.remedy}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        # Without its own partitions, Dagster would keep one result for all workspaces.
        return dg.AssetCheckSpec(check.name, asset=_key(asset), description=description, partitions_def=WORKSPACES)


def specs(asset: str) -> list[dg.AssetCheckSpec]:
    """The checks that a materialization of the asset makes."""
    return [_spec(asset, check) for check in CHECKED[asset].checks] if asset in CHECKED else []


async def look(
    warehouse: Warehouse, asset: str, workspace_id: str, rows: int, *, full: bool = False
) -> list[dg.AssetCheckResult]:
    """Checks what changed of an asset, or everything; `rows` is the number of the workspace's rows."""
    if asset not in CHECKED:
        return []
    return [_result(one) for one in await looking.look(warehouse, asset, workspace_id, rows=rows, full=full)]


def _result(verdict: Verdict) -> dg.AssetCheckResult:
    example: dict[str, Any] = {"example": verdict.example} if verdict.example else {}
    return dg.AssetCheckResult(
        asset_key=_key(verdict.asset),
        check_name=verdict.name,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.ERROR if verdict.severe else dg.AssetCheckSeverity.WARN,
        description=verdict.said,
        metadata={"faults": verdict.faults, **example},
    )


@dg.multi_asset_check(specs=[_spec(OF_WORKSPACES, CHECKS[name]) for name in (SYNCED, INBOX)])
def workspace_is_up_to_date(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
) -> Iterator[dg.AssetCheckResult]:
    """When the workspace was last synced, and how long its deliveries have waited.

    Raises:
        Failure: with one sentence that says what is wrong.
    """
    partition = context.op_execution_context.partition_key
    try:
        yield from warehouse.run(_of_workspace(warehouse.connected, partition))
    except WarehouseError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


async def _of_workspace(warehouse: Warehouse, partition: str) -> Iterable[dg.AssetCheckResult]:
    """The results, which count as known from now on."""
    slug = await connections.stored_name(warehouse, partition)  # the partition key may differ in case
    found = await looking.look_at_workspaces(warehouse, sync_every())
    verdicts = found.get(slug) or [
        Verdict(OF_WORKSPACES, name, passed=True, said="The workspace has no enabled connection.")
        for name in (SYNCED, INBOX)
    ]
    await looking.news(warehouse, slug, verdicts)
    return [_result(one) for one in verdicts]


def sync_every() -> timedelta:
    return timedelta(seconds=Settings.read().sync_every)
