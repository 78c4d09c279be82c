"""A whole connection put out of service and back, or removed."""

from dx_dagster.warehouse.database import Warehouse


async def disable(warehouse: Warehouse, connection_id: int, reason: str) -> None:
    """No request is sent with its credentials, which stay as they are; one that is disabled keeps its reason."""
    await _execute(
        warehouse,
        "UPDATE connections SET disabled_at = now(), disabled_reason = %s, updated_at = now() "
        "WHERE id = %s AND disabled_at IS NULL AND deleted_at IS NULL",
        [reason, connection_id],
    )


async def enable(warehouse: Warehouse, connection_id: int) -> None:
    await _execute(
        warehouse,
        "UPDATE connections SET disabled_at = NULL, disabled_reason = NULL, updated_at = now() "
        "WHERE id = %s AND disabled_at IS NOT NULL AND deleted_at IS NULL",
        [connection_id],
    )


async def remove(warehouse: Warehouse, connection_id: int) -> bool:
    """Hides the connection and forgets its secrets, those of its webhook too; whether it was there."""
    async with warehouse.transaction() as transaction:
        found = await transaction.execute(
            "UPDATE connections SET deleted_at = now(), updated_at = now() WHERE id = %s AND deleted_at IS NULL",
            [connection_id],
        )
        await transaction.execute(
            "UPDATE credentials SET deleted_at = now(), secret = '', updated_at = clock_timestamp() "
            "WHERE connection_id = %s AND deleted_at IS NULL",
            [connection_id],
        )
        await transaction.execute("DELETE FROM webhook_secrets WHERE connection_id = %s", [connection_id])
    return bool(found)


async def _execute(warehouse: Warehouse, statement: str, parameters: list[object]) -> None:
    async with warehouse.transaction() as transaction:
        await transaction.execute(statement, parameters)
