"""The checks of assets, as Dagster shows them: one result for each workspace.

Dagster shows a result as long as the workspace's rows are not materialized again. So each materialization gives all
results of its asset. Those that say the same as the last ones are not stored again: the last ones count for the new
materialization (`warehouse/check_results.py`). The checks of the workspace itself change while nothing runs: a sensor
notices that, and the job `check_workspace` gives their results.
"""

import warnings
from collections.abc import Collection, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from dx_dagster.assets.partitions import workspace_of
from dx_dagster.assets.placement import Placement
from dx_dagster.insights.checks import looking
from dx_dagster.insights.checks.looking import OF_WORKSPACES, Verdict
from dx_dagster.insights.checks.rules import CHECKED, CHECKS, INBOX, SYNCED, Check
from dx_dagster.warehouse import check_results, counts
from dx_dagster.warehouse.check_results import Result, Target
from dx_dagster.warehouse.database import Warehouse, WarehouseError

if TYPE_CHECKING:
    from dx_dagster.resources import WarehouseResource


def _spec(placement: Placement, asset: str, check: Check) -> dg.AssetCheckSpec:
    description = f"{check.holds} If not: {check.remedy}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        # Without its own partitions, Dagster would keep one result for all workspaces.
        return dg.AssetCheckSpec(
            check.name, asset=placement.key(asset), description=description, partitions_def=placement.partitions
        )


def specs(placement: Placement, asset: str) -> list[dg.AssetCheckSpec]:
    """The checks of the asset."""
    if not placement.with_checks:
        return []
    checks = list(CHECKED[asset].checks) if asset in CHECKED else []
    if asset == OF_WORKSPACES:
        checks += [CHECKS[SYNCED], CHECKS[INBOX]]
    return [_spec(placement, asset, check) for check in checks]


async def look(
    placement: Placement,
    warehouse: Warehouse,
    asset: str,
    workspace: str,
    workspace_id: str,
    *,
    rows: int,
    full: bool = False,
) -> list[Verdict]:
    """Checks what changed of an asset, or everything; `rows` is the number of the workspace's rows."""
    found: list[Verdict] = []
    if not placement.with_checks:
        return found
    if asset in CHECKED:
        found += await looking.look(warehouse, asset, workspace_id, rows=rows, full=full)
    if asset == OF_WORKSPACES:
        found += await of_workspace(placement, warehouse, workspace)
    return found


async def of_workspace(placement: Placement, warehouse: Warehouse, workspace: str) -> list[Verdict]:
    """The checks of the workspace itself. Their results count as known from now on."""
    found = await looking.look_at_workspaces(warehouse, sync_every(placement))
    verdicts = found.get(workspace) or [
        Verdict(OF_WORKSPACES, name, passed=True, said="The workspace has no enabled connection.")
        for name in (SYNCED, INBOX)
    ]
    await looking.news(warehouse, workspace, verdicts)
    return verdicts


async def of_assets(
    placement: Placement, warehouse: Warehouse, assets: Iterable[str], workspace: str, workspace_id: str | None
) -> list[Verdict]:
    """The checks of what changed of these assets; none of a workspace that is not imported."""
    if workspace_id is None:
        return []
    found = []
    for asset in sorted(CHECKED.keys() & set(assets)):
        rows = await counts.rows(warehouse, CHECKED[asset].table, workspace_id)
        found += await look(placement, warehouse, asset, workspace, workspace_id, rows=rows.of_workspace)
    return found


async def tell(
    placement: Placement,
    context: dg.OpExecutionContext,
    warehouse: Warehouse,
    partition: str,
    verdicts: Iterable[Verdict],
) -> None:
    """Tells Dagster results of a partition from a run that is not one of assets.

    Events without a run would not do: Dagster fails to store the second one of a check and a partition.
    """
    for evaluation in await _news(placement, context, warehouse, partition, verdicts):
        context.log_event(evaluation)  # type: ignore[arg-type]  # it takes one, which its annotation leaves out


def evaluations(
    placement: Placement, context: dg.AssetExecutionContext, warehouse: "WarehouseResource", verdicts: Iterable[Verdict]
) -> Iterator[dg.Output[None] | dg.AssetCheckEvaluation]:
    """The results as events of a step, which has yielded the materializations before.

    Of a `dg.AssetCheckResult`, Dagster asks its storage for the materialization twice.
    """
    selected = context.selected_asset_check_keys
    told = _news(
        placement, context.op_execution_context, warehouse.connected, context.partition_key, verdicts, always=selected
    )
    for evaluation in warehouse.run(told):
        if evaluation.asset_check_key in selected:
            spec = context.assets_def.get_spec_for_check_key(evaluation.asset_check_key)
            yield dg.Output(None, spec.get_python_identifier())
        yield evaluation


def alone(
    placement: Placement, context: dg.AssetExecutionContext, warehouse: "WarehouseResource", assets: Iterable[str]
) -> Iterator[dg.Output[None] | dg.AssetCheckEvaluation]:
    """The results of checks that are selected without their assets."""
    selected = {key.asset_key for key in context.selected_asset_check_keys} - context.selected_asset_keys
    if checked := [asset for asset in assets if placement.key(asset) in selected]:
        slug, workspace_id = warehouse.run(workspace_of(warehouse.connected, context.partition_key))
        work = of_assets(placement, warehouse.connected, checked, slug, workspace_id)
        yield from evaluations(placement, context, warehouse, warehouse.run(work))


async def _news(
    placement: Placement,
    context: dg.OpExecutionContext,
    warehouse: Warehouse,
    partition: str,
    verdicts: Iterable[Verdict],
    *,
    always: Collection[dg.AssetCheckKey] = (),
) -> list[dg.AssetCheckEvaluation]:
    """The results that Dagster does not know yet, and those of `always`."""
    by_asset: dict[str, list[Verdict]] = {}
    for one in verdicts:
        by_asset.setdefault(one.asset, []).append(one)
    news = []
    for asset, said in by_asset.items():
        key = placement.key(asset)
        target = _last_materialization(context, partition, key)
        open_ = [one for one in said if dg.AssetCheckKey(key, one.name) not in always]
        same = set()
        if placement.component is None and target is not None:  # another project's storage is its own
            last = Target(key.to_string(), partition, target.storage_id, target.run_id, target.timestamp)
            same = await _known(warehouse, last, open_)
        news += [_evaluation(one, key, partition, target) for one in said if one.name not in same]
    return news


async def _known(warehouse: Warehouse, target: Target, verdicts: Iterable[Verdict]) -> set[str]:
    """The checks whose last results say the same; these count for the target from now on."""
    results = {
        one.name: Result(one.passed, _severity(one).name, one.said, one.faults, one.example or None) for one in verdicts
    }
    try:
        return await check_results.renew(warehouse, target, results) if results else set()
    except WarehouseError:
        return set()  # a result that is stored twice is better than none


def _last_materialization(
    context: dg.OpExecutionContext, partition: str, key: dg.AssetKey
) -> AssetCheckEvaluationTargetMaterializationData | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition])
    for record in context.instance.fetch_materializations(wanted, limit=1).records:
        return AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
    return None


def _severity(verdict: Verdict) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if verdict.severe else dg.AssetCheckSeverity.WARN


def _evaluation(
    verdict: Verdict, key: dg.AssetKey, partition: str, target: AssetCheckEvaluationTargetMaterializationData | None
) -> dg.AssetCheckEvaluation:
    example: dict[str, Any] = {"example": verdict.example} if verdict.example else {}
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=verdict.name,
        passed=verdict.passed,
        severity=_severity(verdict),
        description=verdict.said,
        metadata={"faults": verdict.faults, **example},
        target_materialization_data=target,
        partition=partition,
    )


def sync_every(placement: Placement) -> timedelta:
    return timedelta(seconds=placement.settings().sync_every)
