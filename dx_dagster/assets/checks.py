"""Dagster's side of the checks: what it shows of them, and when it is told a result.

Each materialization looks at what changed. For Dagster a result costs as much as a step, so that it is told one only
when that changes, and once a day. A check that is executed by hand looks at all rows.
"""

import warnings
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import dagster as dg

from dx_dagster.assets.partitions import WORKSPACES
from dx_dagster.assets.steps import ASSETS
from dx_dagster.importer.workspace import NotImportedError
from dx_dagster.insights.checks import looking
from dx_dagster.insights.checks.looking import Verdict
from dx_dagster.insights.checks.rules import CHECKED, CHECKS, INBOX, SYNCED, Check
from dx_dagster.resources import WarehouseResource
from dx_dagster.settings import Settings
from dx_dagster.warehouse import counts
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import Warehouse, WarehouseError
from dx_dagster.warehouse.imported import repositories

_OF_WORKSPACES = (CHECKS[SYNCED], CHECKS[INBOX])
_OF = "bitbucket/repositories"


def _key(asset: str) -> dg.AssetKey:
    return dg.AssetKey(asset.split("/"))


def _spec(asset: str, check: Check) -> dg.AssetCheckSpec:
    description = f"{check.holds} If not: {check.remedy}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        # Without its own partitions, Dagster would keep one result for all workspaces.
        return dg.AssetCheckSpec(check.name, asset=_key(asset), description=description, partitions_def=WORKSPACES)


def _specs() -> Iterator[dg.AssetCheckSpec]:
    for asset in ASSETS.values():
        if asset in CHECKED:
            yield from (_spec(asset, check) for check in CHECKED[asset].checks)
    yield from (_spec(_OF, check) for check in _OF_WORKSPACES)


async def look(warehouse: Warehouse, asset: str, workspace_id: str, rows: int) -> list[Verdict]:
    """Checks what changed of a materialized asset."""
    return await looking.look(warehouse, asset, workspace_id, rows=rows) if asset in CHECKED else []


async def report(
    instance: dg.DagsterInstance, warehouse: Warehouse, workspace: str, verdicts: Iterable[Verdict]
) -> None:
    """Tells Dagster the results that it does not know."""
    for one in await looking.news(warehouse, workspace, list(verdicts)):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=_key(one.asset),
                check_name=one.name,
                passed=one.passed,
                severity=_severity(one),
                description=one.said,
                metadata=_metadata(one),
                partition=workspace,
            )
        )


def _severity(verdict: Verdict) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if verdict.severe else dg.AssetCheckSeverity.WARN


def _metadata(verdict: Verdict) -> dict[str, Any]:
    return {"faults": verdict.faults, **({"example": verdict.example} if verdict.example else {})}


@dg.multi_asset_check(name="check_rows", specs=list(_specs()), can_subset=True)
def check_rows(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> Iterator[dg.AssetCheckResult]:
    """Checks all rows of one workspace.

    Raises:
        Failure: with one sentence that says what is wrong.
    """
    partition = context.op_execution_context.partition_key
    selected = {(key.asset_key.to_user_string(), key.name) for key in context.selected_asset_check_keys}
    try:
        verdicts = warehouse.run(_look_at_all(warehouse.connected, partition, {asset for asset, _ in selected}))
    except (NotImportedError, WarehouseError) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    for one in verdicts:
        if (one.asset, one.name) in selected:
            yield dg.AssetCheckResult(
                asset_key=_key(one.asset),
                check_name=one.name,
                passed=one.passed,
                severity=_severity(one),
                description=one.said,
                metadata=_metadata(one),
            )


async def _look_at_all(warehouse: Warehouse, partition: str, assets: Iterable[str]) -> list[Verdict]:
    slug = await connections.stored_name(warehouse, partition)
    async with warehouse.transaction(read_only=True) as transaction:
        workspace_id = await repositories.workspace_id(transaction, slug)
    if workspace_id is None:
        raise NotImportedError(slug)
    verdicts = (await looking.look_at_workspaces(warehouse, sync_every())).get(slug, [])
    for asset in sorted(assets):
        if asset in CHECKED:
            rows = await counts.rows(warehouse, CHECKED[asset].table, workspace_id)
            verdicts += await looking.look(warehouse, asset, workspace_id, rows=rows.of_workspace, full=True)
    await looking.news(warehouse, slug, verdicts)
    return verdicts


def sync_every() -> timedelta:
    return timedelta(seconds=Settings.read().sync_every)
