"""Results of checks that still hold, in Dagster's tables.

Dagster counts a result for the materialization that it names. A result that repeats the last one would be stored twice,
with all that surrounds it. So the last one names the new materialization instead, for a week. Its time stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dx_dagster.warehouse.database import Warehouse

_HAS_TABLE = "SELECT to_regclass('dagster.asset_check_executions') IS NOT NULL AS there"
# Only where Dagster keeps its storage here: another instance, with numbers of its own, may use the same warehouse.
_LAST = """
    SELECT c.id, c.check_name, c.execution_status = 'SUCCEEDED' AS passed, told.evaluation
    FROM (
        SELECT max(id) AS id FROM dagster.asset_check_executions
        WHERE asset_key = %(asset)s AND check_name = ANY(%(names)s) AND partition = %(partition)s GROUP BY check_name
    ) last JOIN dagster.asset_check_executions c USING (id), LATERAL (
        SELECT c.evaluation_event::jsonb #> '{dagster_event,event_specific_data}' AS evaluation) told
    WHERE c.execution_status <> 'PLANNED'
        AND c.evaluation_event_timestamp > (now() AT TIME ZONE 'UTC') - interval '7 days'
        AND EXISTS (
            SELECT FROM dagster.event_logs e
            WHERE e.id = %(storage_id)s AND e.run_id = %(run_id)s AND e.asset_key = %(asset)s
                AND e.partition = %(partition)s)"""
_RENEW = """
    UPDATE dagster.asset_check_executions c
    SET materialization_event_storage_id = %(storage_id)s,
        evaluation_event = jsonb_set(c.evaluation_event::jsonb,
            '{dagster_event,event_specific_data,target_materialization_data}',
            jsonb_build_object('__class__', 'AssetCheckEvaluationTargetMaterializationData',
                'run_id', %(run_id)s::text, 'storage_id', %(storage_id)s::bigint,
                'timestamp', %(timestamp)s::float8))::text
    WHERE c.id = ANY(%(ids)s)"""


@dataclass(frozen=True)
class Target:
    """The last materialization of a partition.

    Attributes:
        asset: the asset's key as Dagster stores it.
        timestamp: seconds since 1970.
    """

    asset: str
    partition: str
    storage_id: int
    run_id: str
    timestamp: float


@dataclass(frozen=True)
class Result:
    """What a result says; two that say the same are equal."""

    passed: bool
    severity: str
    description: str | None
    faults: int
    example: str | None


async def renew(warehouse: Warehouse, target: Target, results: Mapping[str, Result]) -> set[str]:
    """Lets the last results that say the same count for the target; returns the names of their checks.

    `results`: by the name of the check.
    """
    bound = vars(target) | {"names": list(results)}
    async with warehouse.transaction(fenced=False) as transaction:
        if not (await transaction.row(_HAS_TABLE)).there:
            return set()
        last = await transaction.rows(_LAST, bound)
        same = {row.check_name: row.id for row in last if _said(row.passed, row.evaluation) == results[row.check_name]}
        if same:
            await transaction.execute(_RENEW, bound | {"ids": list(same.values())})
    return set(same)


def _said(passed: bool, evaluation: Mapping[str, object]) -> Result:
    """The result in Dagster's serialized form."""
    metadata = evaluation.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    severity = evaluation.get("severity")
    return Result(
        passed,
        str(severity.get("__enum__")).rpartition(".")[2] if isinstance(severity, dict) else "",
        str(evaluation.get("description")),
        metadata.get("faults", {}).get("value", 0),
        metadata.get("example", {}).get("value"),
    )
