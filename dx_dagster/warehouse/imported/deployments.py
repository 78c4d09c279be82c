"""Stored deployments and environments: where they must be fetched, and which are unsettled.

A pipeline deploys: what its deployments are changes when the pipeline does. The transaction that stores a changed
pipeline therefore writes the number of that transaction into the mark of its repository (`head`). The deployments of
the repository are complete while their mark's version (`checked`) equals it.
"""

from collections.abc import Collection
from datetime import timedelta
from typing import NamedTuple

from psycopg.sql import SQL

from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.imported.marks import rests
from dx_dagster.warehouse.merge import lies_in_the_future
from dx_dagster.warehouse.schema.bitbucket import UNSETTLED_DEPLOYMENT

REFUSED = "refused"
"""`fallback` of the mark of a repository whose deployments cannot be read."""

_MOST_UNSETTLED = 100

# A pending run has not deployed anything yet.
_NOTE_PIPELINES = """
    WITH changed AS MATERIALIZED (
        SELECT id FROM changed_rows WHERE kind = 'pipeline' AND changed_in = pg_current_xact_id()::text::bigint),
    begun AS MATERIALIZED (
        SELECT p.id, p.repository_id FROM changed JOIN bitbucket_pipelines p USING (id)
        WHERE p.state IS DISTINCT FROM 'PENDING'),
    stale AS (
        UPDATE bitbucket_deployments d SET asked_at = NULL
        FROM begun WHERE d.pipeline_id = begun.id AND d.asked_at IS NOT NULL)
    INSERT INTO sync_marks (repository_id, kind, head)
    SELECT DISTINCT repository_id, 'deployments', pg_current_xact_id()::text FROM begun
    ON CONFLICT (repository_id, kind) DO UPDATE SET head = EXCLUDED.head"""


async def note_pipelines(transaction: Transaction) -> None:
    """Makes the deployments of the pipelines stale that this transaction has changed."""
    await transaction.execute(_NOTE_PIPELINES)


_DUE = SQL("({is_unsettled}) AND NOT {rests}").format(
    is_unsettled=SQL(UNSETTLED_DEPLOYMENT), rests=rests("asked_at", "COALESCE(started_at, created_at)")
)
_HAS_PIPELINE = SQL("EXISTS (SELECT FROM bitbucket_pipelines p WHERE p.repository_id = r.id)")
_STALE = SQL("""
    SELECT r.id::text, COALESCE(m.head, '') AS version
    FROM bitbucket_repositories r LEFT JOIN sync_marks m ON m.repository_id = r.id AND m.kind = 'deployments'
    WHERE r.workspace_id = %(workspace)s AND r.deleted_at IS NULL AND r.allowlisted
      AND (r.pipelines_synced_at IS NOT NULL OR {has_pipeline})
      AND (m.checked IS DISTINCT FROM COALESCE(m.head, '') OR m.walk_cursor IS NOT NULL
           OR {synced_to_is_wrong} OR {asked_at_is_wrong}
           OR m.bound > COALESCE((SELECT w.since FROM bitbucket_workspaces w WHERE w.id = r.workspace_id), '-infinity')
           OR (m.fallback = %(refused)s
               AND m.asked_at < now() - CASE WHEN {has_pipeline} THEN interval '1 day' ELSE interval '30 days' END)
           OR (m.fallback IS DISTINCT FROM %(refused)s AND EXISTS (
                SELECT FROM bitbucket_deployments d WHERE d.repository_id = r.id AND {is_due}))
           OR EXISTS (SELECT FROM bitbucket_pipelines p
                      WHERE p.repository_id = r.id AND p.created_at >= now() - %(reconcile)s::interval))""").format(
    synced_to_is_wrong=lies_in_the_future("m.synced_to"),
    asked_at_is_wrong=lies_in_the_future("m.asked_at"),
    is_due=_DUE,
    has_pipeline=_HAS_PIPELINE,
)


async def stale(warehouse: Warehouse, workspace_id: str, reconcile: timedelta | None = None) -> dict[str, str]:
    """Ids of the repositories whose deployments must be fetched, with the version that their marks get then.

    Only repositories whose pipelines can be read are among them; those without a stored pipeline, once. With
    `reconcile`, also those with a pipeline created within this time.
    """
    rows = await warehouse.rows(_STALE, {"workspace": workspace_id, "refused": REFUSED, "reconcile": reconcile})
    return {row.id: row.version for row in rows}


class UnsettledDeployment(NamedTuple):
    id: str
    source_id: str


_UNSETTLED = SQL("""
    SELECT id::text, source_id FROM bitbucket_deployments WHERE repository_id = %s AND {is_due}
    ORDER BY asked_at NULLS FIRST LIMIT %s""").format(is_due=_DUE)


async def unsettled(warehouse: Warehouse, repository_id: str) -> list[UnsettledDeployment]:
    """Deployments to fetch again: their pipeline has changed, or they have not ended and do not rest."""
    return await warehouse.fetch(UnsettledDeployment, _UNSETTLED, [repository_id, _MOST_UNSETTLED])


async def asked(transaction: Transaction, deployment_ids: Collection[str]) -> None:
    """Records that these deployments were fetched, or found to be gone."""
    if deployment_ids:
        await transaction.execute(
            "UPDATE bitbucket_deployments SET asked_at = now() WHERE id = ANY(%s::uuid[])", [list(deployment_ids)]
        )


async def are_stored(transaction: Transaction, deployment_ids: Collection[str]) -> bool:
    """Whether all of these deployments are stored."""
    row = await transaction.row(
        "SELECT count(*) AS stored FROM bitbucket_deployments WHERE id = ANY(%s::uuid[])", [list(deployment_ids)]
    )
    return int(row.stored) == len(set(deployment_ids))


async def can_exist(warehouse: Warehouse, repository_id: str, *, older_pipelines: bool) -> bool:
    """Whether pipelines of the repository can have deployed: stored ones, or, to an environment, older ones."""
    row = await warehouse.row(
        "SELECT EXISTS (SELECT FROM bitbucket_pipelines WHERE repository_id = %(id)s) "
        "OR %(older)s AND EXISTS (SELECT FROM bitbucket_environments WHERE repository_id = %(id)s) AS found",
        {"id": repository_id, "older": older_pipelines},
    )
    return bool(row.found)


async def count(connected: Warehouse | Transaction, repository_id: str) -> int:
    """Number of stored deployments of the repository."""
    row = await connected.row(
        "SELECT count(*) AS stored FROM bitbucket_deployments WHERE repository_id = %s", [repository_id]
    )
    return int(row.stored)


# A run that waits for a manual step has deployed what comes before that step.
_ONE_STOPPED = """
    SELECT EXISTS (SELECT FROM bitbucket_pipelines
                   WHERE repository_id = %s AND build_number = ANY(%s)
                     AND (state NOT IN ('PENDING', 'IN_PROGRESS') OR stage <> 'RUNNING')) AS found"""


async def one_stopped(warehouse: Warehouse, repository_id: str, numbers: Collection[int]) -> bool:
    """Whether one of these pipelines has ended or waits for a manual step."""
    row = await warehouse.row(_ONE_STOPPED, [repository_id, list(numbers)])
    return bool(row.found)


async def environments(warehouse: Warehouse, repository_id: str) -> dict[str, str]:
    """The uuids of the repository's environments that are not deleted, by id."""
    rows = await warehouse.rows(
        "SELECT id::text, source_id FROM bitbucket_environments WHERE repository_id = %s AND deleted_at IS NULL",
        [repository_id],
    )
    return {row.id: row.source_id for row in rows}


async def settle_environments(transaction: Transaction, seen: Collection[str], gone: Collection[str]) -> None:
    """Marks environments (by id) that are `gone` as deleted, and those that a listing has `seen` as not deleted."""
    await transaction.execute(
        "UPDATE bitbucket_environments SET deleted_at = NULL WHERE id = ANY(%s::uuid[]) AND deleted_at IS NOT NULL",
        [list(seen)],
    )
    await transaction.execute(
        "UPDATE bitbucket_environments SET deleted_at = now() WHERE id = ANY(%s::uuid[]) AND deleted_at IS NULL",
        [list(gone)],
    )
