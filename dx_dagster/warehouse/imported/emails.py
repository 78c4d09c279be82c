"""E-mail addresses in `bitbucket_users`."""

from dx_dagster.warehouse.database import Warehouse


async def account_ids(warehouse: Warehouse, workspace_id: str) -> list[str]:
    """The Atlassian account ids of all users of the workspace."""
    rows = await warehouse.rows(
        "SELECT DISTINCT account_id FROM bitbucket_users WHERE workspace_id = %s AND account_id <> '' ORDER BY 1",
        [workspace_id],
    )
    return [row.account_id for row in rows]


async def store(warehouse: Warehouse, workspace_id: str, rows: str) -> None:
    """Writes the addresses of `rows`, a JSON array of account_id and email; null removes an address."""
    async with warehouse.transaction() as transaction:
        changed = await transaction.execute(
            """UPDATE bitbucket_users u SET email = told.email
               FROM json_to_recordset(%(rows)s::json) AS told (account_id text, email text)
               WHERE u.workspace_id = %(workspace)s AND u.account_id = told.account_id
                 AND u.email IS DISTINCT FROM told.email""",
            {"rows": rows, "workspace": workspace_id},
        )
        transaction.count("bitbucket_users", updated=changed)
