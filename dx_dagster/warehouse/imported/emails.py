"""E-mail addresses of accounts: in `bitbucket_users` their own, in `account_emails` every one ever seen."""

from collections.abc import Collection, Sequence
from typing import Any

from dx_dagster.warehouse.database import Transaction, Warehouse


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
               WHERE u.workspace_id = %(workspace)s AND u.account_id = told.account_id AND NOT u.forgotten
                 AND u.email IS DISTINCT FROM told.email""",
            {"rows": rows, "workspace": workspace_id},
        )
        transaction.count("bitbucket_users", updated=changed)


# In the order of the key: two imports may store the same addresses at once.
_STORE_OF_COMMITS = """
    INSERT INTO account_emails AS stored (user_id, email, of_commits)
    SELECT u.id, told.email, true
    FROM unnest(%(users)s::uuid[], %(emails)s::text[]) AS told (user_id, email)
    JOIN bitbucket_users u ON u.id = told.user_id AND NOT u.forgotten
    ORDER BY 1, 2
    ON CONFLICT (user_id, email) DO UPDATE SET of_commits = true WHERE NOT stored.of_commits"""
_REMEMBER = """
    INSERT INTO account_emails AS stored (user_id, email, verified)
    SELECT id, lower(btrim(email)), true FROM bitbucket_users u
    WHERE (%(users)s::uuid[] IS NULL OR u.id = ANY(%(users)s::uuid[])) AND btrim(email) LIKE '%%_@_%%' AND NOT EXISTS (
        SELECT FROM account_emails e
        WHERE e.user_id = u.id AND e.email = lower(btrim(u.email)) AND e.verified)
    ORDER BY 1, 2
    ON CONFLICT (user_id, email) DO UPDATE SET verified = true WHERE NOT stored.verified"""


async def store_of_commits(transaction: Transaction, rows: Sequence[tuple[Any, ...]]) -> None:
    """Stores (id of a user, e-mail address) of commits' authors; the users are stored already."""
    users, addresses = zip(*rows, strict=True)
    await transaction.execute(_STORE_OF_COMMITS, {"users": list(users), "emails": list(addresses)})


async def remember(transaction: Transaction, users: Collection[str] | None) -> None:
    """Keeps the users' own addresses, for Jira may stop returning them; None for all users."""
    await transaction.execute(_REMEMBER, {"users": None if users is None else list(users)})
