"""Connections whose last sync could read nothing: why, since when, and when that is over."""

from dx_dagster.warehouse.connections.connections import NAMED
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.webhooks import inbox

_MAIN = f"{NAMED} AND type = 'bitbucket' AND deleted_at IS NULL"


async def record(warehouse: Warehouse, workspace: str, error: str) -> None:
    """Notes that a sync of the workspace could read nothing; `error` is a code and a sentence."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            f"UPDATE connections SET last_error = %s, failed_at = now(), "  # noqa: S608 - a constant
            f"failing_since = COALESCE(failing_since, now()) WHERE {_MAIN}",
            [error, workspace],
        )


async def clear(warehouse: Warehouse, workspace: str) -> None:
    """A sync has read something: the connection fails no more, and deliveries that waited may be applied."""
    async with warehouse.transaction() as transaction:
        rows = await transaction.rows(
            "UPDATE connections SET last_error = NULL, failed_at = NULL, failing_since = NULL "  # noqa: S608 - a constant
            f"WHERE {_MAIN} AND last_error IS NOT NULL RETURNING id",
            [workspace],
        )
        for row in rows:
            await inbox.release(transaction, row.id)
