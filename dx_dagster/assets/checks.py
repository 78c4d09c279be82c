"""The checks of assets, as Dagster shows them: one result for each workspace.

Dagster shows a result as long as the workspace's rows are not materialized again. So each materialization gives all
results of its asset. The checks of the workspace itself change while nothing runs: a sensor notices that, and the job
`check_workspace` gives their results.
"""

import warnings
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from dx_dagster.assets.placement import Placement
from dx_dagster.insights.checks import looking
from dx_dagster.insights.checks.looking import OF_WORKSPACES, Verdict
from dx_dagster.insights.checks.rules import CHECKED, CHECKS, INBOX, SYNCED, Check
from dx_dagster.warehouse import counts
from dx_dagster.warehouse.database import Warehouse


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
    placement: Placement, warehouse: Warehouse, assets: Iterable[str], workspace: str, workspace_id: str
) -> list[Verdict]:
    """The checks of what changed of these assets."""
    found = []
    for asset in sorted(CHECKED.keys() & set(assets)):
        rows = await counts.rows(warehouse, CHECKED[asset].table, workspace_id)
        found += await look(placement, warehouse, asset, workspace, workspace_id, rows=rows.of_workspace)
    return found


def tell(placement: Placement, context: dg.OpExecutionContext, partition: str, verdicts: Iterable[Verdict]) -> None:
    """Tells Dagster results of a partition from a run that is not one of assets.

    Events without a run would not do: Dagster fails to store the second one of a check and a partition.
    """
    for evaluation in _evaluations(placement, context, partition, verdicts):
        context.log_event(evaluation)  # type: ignore[arg-type]  # it takes one, which its annotation leaves out


def evaluations(
    placement: Placement, context: dg.AssetExecutionContext, verdicts: Iterable[Verdict]
) -> Iterator[dg.Output[None] | dg.AssetCheckEvaluation]:
    """The results as events of a step, which has yielded the materializations before.

    Of a `dg.AssetCheckResult`, Dagster asks its storage for the materialization twice.
    """
    selected = context.selected_asset_check_keys
    for evaluation in _evaluations(placement, context.op_execution_context, context.partition_key, verdicts):
        if evaluation.asset_check_key in selected:
            spec = context.assets_def.get_spec_for_check_key(evaluation.asset_check_key)
            yield dg.Output(None, spec.get_python_identifier())
        yield evaluation


def _evaluations(
    placement: Placement, context: dg.OpExecutionContext, partition: str, verdicts: Iterable[Verdict]
) -> Iterator[dg.AssetCheckEvaluation]:
    targets: dict[str, AssetCheckEvaluationTargetMaterializationData | None] = {}
    for one in verdicts:
        key = placement.key(one.asset)
        if one.asset not in targets:
            targets[one.asset] = _last_materialization(context, partition, key)
        yield _evaluation(one, key, partition, targets[one.asset])


def _last_materialization(
    context: dg.OpExecutionContext, partition: str, key: dg.AssetKey
) -> AssetCheckEvaluationTargetMaterializationData | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition])
    for record in context.instance.fetch_materializations(wanted, limit=1).records:
        return AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
    return None


def _evaluation(
    verdict: Verdict, key: dg.AssetKey, partition: str, target: AssetCheckEvaluationTargetMaterializationData | None
) -> dg.AssetCheckEvaluation:
    example: dict[str, Any] = {"example": verdict.example} if verdict.example else {}
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=verdict.name,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.ERROR if verdict.severe else dg.AssetCheckSeverity.WARN,
        description=verdict.said,
        metadata={"faults": verdict.faults, **example},
        target_materialization_data=target,
        partition=partition,
    )


def sync_every(placement: Placement) -> timedelta:
    return timedelta(seconds=placement.settings().sync_every)
