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

from dx_dagster.assets.partitions import WORKSPACES
from dx_dagster.insights.checks import looking
from dx_dagster.insights.checks.looking import OF_WORKSPACES, Verdict
from dx_dagster.insights.checks.rules import CHECKED, CHECKS, INBOX, SYNCED, Check
from dx_dagster.settings import Settings
from dx_dagster.warehouse import counts
from dx_dagster.warehouse.database import Warehouse


def _spec(asset: str, check: Check) -> dg.AssetCheckSpec:
    description = f"{check.holds} If not: {check.remedy}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        # Without its own partitions, Dagster would keep one result for all workspaces.
        return dg.AssetCheckSpec(
            check.name, asset=dg.AssetKey.from_user_string(asset), description=description, partitions_def=WORKSPACES
        )


def specs(asset: str) -> list[dg.AssetCheckSpec]:
    """The checks of the asset."""
    checks = list(CHECKED[asset].checks) if asset in CHECKED else []
    if asset == OF_WORKSPACES:
        checks += [CHECKS[SYNCED], CHECKS[INBOX]]
    return [_spec(asset, check) for check in checks]


async def look(
    warehouse: Warehouse, asset: str, workspace: str, workspace_id: str, rows: int, *, full: bool = False
) -> list[Verdict]:
    """Checks what changed of an asset, or everything; `rows` is the number of the workspace's rows."""
    found = []
    if asset in CHECKED:
        found += await looking.look(warehouse, asset, workspace_id, rows=rows, full=full)
    if asset == OF_WORKSPACES:
        found += await of_workspace(warehouse, workspace)
    return found


async def of_workspace(warehouse: Warehouse, workspace: str) -> list[Verdict]:
    """The checks of the workspace itself. Their results count as known from now on."""
    found = await looking.look_at_workspaces(warehouse, sync_every())
    verdicts = found.get(workspace) or [
        Verdict(OF_WORKSPACES, name, passed=True, said="The workspace has no enabled connection.")
        for name in (SYNCED, INBOX)
    ]
    await looking.news(warehouse, workspace, verdicts)
    return verdicts


async def of_assets(warehouse: Warehouse, assets: Iterable[str], workspace: str, workspace_id: str) -> list[Verdict]:
    """The checks of what changed of these assets."""
    found = []
    for asset in sorted(CHECKED.keys() & set(assets)):
        rows = await counts.rows(warehouse, CHECKED[asset].table, workspace_id)
        found += await look(warehouse, asset, workspace, workspace_id, rows.of_workspace)
    return found


def tell(context: dg.OpExecutionContext, partition: str, verdicts: Iterable[Verdict]) -> None:
    """Tells Dagster results of a partition from a run that is not one of assets.

    Events without a run would not do: Dagster fails to store the second one of a check and a partition.
    """
    for evaluation in _evaluations(context, partition, verdicts):
        context.log_event(evaluation)  # type: ignore[arg-type]  # it takes one, which its annotation leaves out


def evaluations(
    context: dg.AssetExecutionContext, verdicts: Iterable[Verdict]
) -> Iterator[dg.Output[None] | dg.AssetCheckEvaluation]:
    """The results as events of a step, which has yielded the materializations before.

    Of a `dg.AssetCheckResult`, Dagster asks its storage for the materialization twice.
    """
    selected = context.selected_asset_check_keys
    for evaluation in _evaluations(context.op_execution_context, context.partition_key, verdicts):
        if evaluation.asset_check_key in selected:
            spec = context.assets_def.get_spec_for_check_key(evaluation.asset_check_key)
            yield dg.Output(None, spec.get_python_identifier())
        yield evaluation


def _evaluations(
    context: dg.OpExecutionContext, partition: str, verdicts: Iterable[Verdict]
) -> Iterator[dg.AssetCheckEvaluation]:
    targets: dict[str, AssetCheckEvaluationTargetMaterializationData | None] = {}
    for one in verdicts:
        if one.asset not in targets:
            targets[one.asset] = _last_materialization(context, partition, one.asset)
        yield _evaluation(one, partition, targets[one.asset])


def _last_materialization(
    context: dg.OpExecutionContext, partition: str, asset: str
) -> AssetCheckEvaluationTargetMaterializationData | None:
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey.from_user_string(asset), asset_partitions=[partition])
    for record in context.instance.fetch_materializations(wanted, limit=1).records:
        return AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
    return None


def _evaluation(
    verdict: Verdict, partition: str, target: AssetCheckEvaluationTargetMaterializationData | None
) -> dg.AssetCheckEvaluation:
    example: dict[str, Any] = {"example": verdict.example} if verdict.example else {}
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey.from_user_string(verdict.asset),
        check_name=verdict.name,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.ERROR if verdict.severe else dg.AssetCheckSeverity.WARN,
        description=verdict.said,
        metadata={"faults": verdict.faults, **example},
        target_materialization_data=target,
        partition=partition,
    )


def sync_every() -> timedelta:
    return timedelta(seconds=Settings.read().sync_every)
