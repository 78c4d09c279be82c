"""Connections whose last sync could read nothing: why, since when, and the sync that ends it."""

from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.webhooks import inbox


async def record(warehouse: Warehouse, workspace: str, error: str) -> None:
    """Records that a sync of the workspace could read nothing; `error` is a code and a sentence."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE connections SET last_error = %s, failed_at = now(), failing_since = COALESCE(failing_since, now()) "
            "WHERE lower(workspace) = lower(%s) AND type = 'bitbucket' AND deleted_at IS NULL",
            [error, workspace],
        )


async def clear(warehouse: Warehouse, workspace: str) -> None:
    """Records that a sync has read something: the connection no longer fails, and held deliveries are due again."""
    async with warehouse.transaction() as transaction:
        rows = await transaction.rows(
            "UPDATE connections SET last_error = NULL, failed_at = NULL, failing_since = NULL "
            "WHERE lower(workspace) = lower(%s) AND type = 'bitbucket' AND deleted_at IS NULL "
            "AND last_error IS NOT NULL RETURNING id",
            [workspace],
        )
        for row in rows:
            await inbox.release(transaction, row.id)
