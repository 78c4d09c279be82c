"""Removes what Dagster keeps of old runs, for it keeps all of it for ever.

Dagster's own deletion of a run takes its materializations along, and their partitions then count as unmaterialized. So
the last event of each kind that an asset's partition has stays, with its run; likewise the last result of each check.
"""

from dataclasses import dataclass
from datetime import timedelta

from dx_dagster.warehouse.database import Transaction, Warehouse

_AT_ONCE = 200  # runs in one transaction

_HAS_TABLES = "SELECT to_regclass('dagster.event_logs') IS NOT NULL AS there"
# Dagster's times have no zone; its connections are in UTC.
_OLD = """
    SELECT r.run_id FROM dagster.runs r
    WHERE r.status IN ('SUCCESS', 'FAILURE', 'CANCELED')
        AND r.update_timestamp < (now() AT TIME ZONE 'UTC') - %(keep)s::interval AND r.id > %(after)s
    ORDER BY r.id LIMIT %(at_once)s"""
_LAST_ID = "SELECT max(id) AS id FROM dagster.runs WHERE run_id = ANY(%(runs)s)"
_CHECKS = """
    DELETE FROM dagster.asset_check_executions c
    WHERE c.run_id = ANY(%(runs)s) AND EXISTS (
        SELECT FROM dagster.asset_check_executions n
        WHERE n.asset_key = c.asset_key AND n.check_name = c.check_name
            AND n.partition IS NOT DISTINCT FROM c.partition AND n.id > c.id AND n.execution_status <> 'PLANNED')"""
# By (asset, type, partition), as the index has them. A planned event is of no use once its run has ended.
_EVENTS = """
    WITH gone AS (
        DELETE FROM dagster.event_logs e
        WHERE e.run_id = ANY(%(runs)s)
            AND NOT (e.asset_key IS NOT NULL
                AND e.dagster_event_type IN (
                    'ASSET_MATERIALIZATION', 'ASSET_OBSERVATION', 'ASSET_FAILED_TO_MATERIALIZE')
                AND NOT EXISTS (
                    SELECT FROM dagster.event_logs n
                    WHERE n.asset_key = e.asset_key AND n.dagster_event_type = e.dagster_event_type
                        AND n.partition IS NOT DISTINCT FROM e.partition AND n.id > e.id))
            AND NOT EXISTS (
                SELECT FROM dagster.asset_check_executions c
                WHERE c.run_id = e.run_id AND c.evaluation_event_storage_id = e.id)
        RETURNING e.id),
    tags AS (DELETE FROM dagster.asset_event_tags t USING gone WHERE t.event_id = gone.id)
    SELECT count(*)::int AS events FROM gone"""
_RUNS = """
    DELETE FROM dagster.runs r
    WHERE r.run_id = ANY(%(runs)s)
        AND NOT EXISTS (SELECT FROM dagster.event_logs e WHERE e.run_id = r.run_id)
        AND NOT EXISTS (SELECT FROM dagster.asset_check_executions c WHERE c.run_id = r.run_id)"""
# What the last syncs of a partition said of outputs, resources and processes, and what they planned: nobody reads it
# once a later one has begun. The newest plan of each asset stays: Dagster's UI shows the partition's last run by it.
_REPEATED = """
    WITH ended AS (
        SELECT r.run_id FROM dagster.run_tags t JOIN dagster.runs r USING (run_id)
        WHERE t.key = 'dagster/partition' AND t.value = %(partition)s
            AND r.pipeline_name = %(job)s AND r.status = 'SUCCESS' AND r.run_id <> %(run)s
        ORDER BY r.id DESC LIMIT %(most)s),
    tags AS (
        DELETE FROM dagster.asset_event_tags t USING ended, dagster.event_logs e
        WHERE e.run_id = ended.run_id AND e.dagster_event_type = 'ASSET_MATERIALIZATION' AND t.event_id = e.id
            AND EXISTS (
                SELECT FROM dagster.event_logs n
                WHERE n.asset_key = e.asset_key AND n.dagster_event_type = e.dagster_event_type
                    AND n.partition = e.partition AND n.id > e.id))
    DELETE FROM dagster.event_logs e USING ended
    WHERE e.run_id = ended.run_id
        AND (e.dagster_event_type IN ('STEP_OUTPUT', 'ENGINE_EVENT', 'RESOURCE_INIT_STARTED', 'RESOURCE_INIT_SUCCESS')
            OR (e.dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED' AND EXISTS (
                SELECT FROM dagster.event_logs n
                WHERE n.asset_key = e.asset_key AND n.dagster_event_type = e.dagster_event_type
                    AND n.partition = e.partition AND n.id > e.id)))"""
_MOST_SYNCS = 5
# When each step of a successful run began and ended.
_STEPS = """
    DELETE FROM dagster.event_logs WHERE id IN (
        SELECT e.id FROM dagster.event_logs e JOIN dagster.runs r USING (run_id)
        WHERE e.dagster_event_type IN ('STEP_START', 'STEP_SUCCESS') AND r.status = 'SUCCESS'
            AND r.update_timestamp < (now() AT TIME ZONE 'UTC') - %(keep)s::interval
        LIMIT %(at_once)s)"""
_STEPS_AT_ONCE = 10_000


@dataclass
class Removed:
    """How many rows were removed."""

    runs: int = 0
    events: int = 0
    checks: int = 0


async def remove(warehouse: Warehouse, keep: timedelta) -> Removed:
    """Removes what nobody needs of runs that ended more than `keep` ago."""
    removed, after = Removed(), 0
    while True:
        async with warehouse.transaction(fenced=False) as transaction:
            rows = await transaction.rows(_OLD, {"keep": keep, "after": after, "at_once": _AT_ONCE})
            if not rows:
                return removed
            after = await _remove(transaction, [row.run_id for row in rows], removed)


async def remove_steps(warehouse: Warehouse, keep: timedelta) -> int:
    """Removes the times of steps of successful runs that ended more than `keep` ago; returns their number."""
    removed = 0
    while True:
        async with warehouse.transaction(fenced=False) as transaction:
            gone = await transaction.execute(_STEPS, {"keep": keep, "at_once": _STEPS_AT_ONCE})
        if not gone:
            return removed
        removed += gone


async def trim(warehouse: Warehouse, job: str, partition: str, run: str) -> None:
    """Removes events of the last syncs of the partition that are of no use while `run`, a later one, is at work."""
    bound = {"job": job, "partition": partition, "run": run, "most": _MOST_SYNCS}
    async with warehouse.transaction(fenced=False) as transaction:
        if (await transaction.row(_HAS_TABLES)).there:
            await transaction.execute(_REPEATED, bound)


async def _remove(transaction: Transaction, runs: list[str], removed: Removed) -> int:
    """Removes what can go of these runs; returns the number of the last one."""
    bound = {"runs": runs}
    last = await transaction.row(_LAST_ID, bound)
    removed.checks += await transaction.execute(_CHECKS, bound)
    removed.events += (await transaction.row(_EVENTS, bound)).events
    removed.runs += await transaction.execute(_RUNS, bound)
    return int(last.id)
