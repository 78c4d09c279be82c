"""Members of a workspace: its active users."""

from collections.abc import Collection

from dx_dagster.warehouse.database import Transaction, Warehouse


async def active(warehouse: Warehouse, workspace_id: str) -> dict[str, str]:
    """The uuids of the workspace's active users, by id."""
    rows = await warehouse.rows(
        "SELECT id::text, source_id FROM bitbucket_users WHERE workspace_id = %s AND active", [workspace_id]
    )
    return {row.id: row.source_id for row in rows}


async def deactivate(transaction: Transaction, user_ids: Collection[str]) -> None:
    """Makes users inactive who are no longer members."""
    await transaction.execute(
        "UPDATE bitbucket_users SET active = false, left_at = now() WHERE id = ANY(%s::uuid[])", [list(user_ids)]
    )
