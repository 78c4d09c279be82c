"""Addresses known from elsewhere, of which Bitbucket may tell which member has them."""

import json
from collections.abc import Collection, Iterable

from psycopg.sql import SQL

from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.merge import lies_in_the_future

MOST_STATED = 4_500
"""Addresses of the people file that one sync asks for: fifty requests."""

MOST_OF_COMMITS = 180
"""Addresses of commits that one sync asks for: two requests."""

# Only what is an address beyond doubt: one that Bitbucket refuses would spoil the request for the others. Ninety of the
# longest, escaped, make a URL of less than eight kilobytes.
_PLAIN = r"^[a-z0-9_+'-]+(\.[a-z0-9_+'-]+)*@([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$"
_LONGEST = 75
# What could join something: addresses of the people file, and those of commits by accounts that are no members, since
# their owner may have a new account. The addresses of members' commits are linked to an account already. Before the
# members are listed, every author looks like no member: nothing is due then.
_DUE = SQL("""
    WITH known AS (
        SELECT email, true AS stated FROM stated_people
        UNION ALL
        SELECT e.email, false FROM account_emails e JOIN bitbucket_users u ON u.id = e.user_id
        WHERE u.workspace_id = %(workspace)s AND e.of_commits AND NOT u.active AND NOT u.bot AND NOT u.forgotten),
    verified AS (
        SELECT e.email FROM account_emails e JOIN bitbucket_users u ON u.id = e.user_id
        WHERE u.workspace_id = %(workspace)s AND e.verified
        UNION
        SELECT lower(btrim(email)) FROM bitbucket_users WHERE workspace_id = %(workspace)s AND email IS NOT NULL),
    due AS (
        SELECT k.email, bool_or(k.stated) AS stated, min(a.asked_at) AS asked_at
        FROM known k LEFT JOIN asked_emails a ON a.workspace_id = %(workspace)s AND a.email = k.email
        WHERE k.email NOT IN (SELECT email FROM verified)
          AND k.email COLLATE "C" ~ %(plain)s AND length(k.email) <= %(longest)s
          AND (a.email IS NULL OR {asked_is_wrong} OR now() - a.asked_at > LEAST(
               GREATEST(a.asked_at - a.first_asked_at, interval '1 day'), interval '30 days'))
          AND EXISTS (SELECT FROM bitbucket_users WHERE workspace_id = %(workspace)s AND active)
        GROUP BY k.email)
    (SELECT email, stated FROM due WHERE stated ORDER BY asked_at NULLS FIRST, email LIMIT %(most_stated)s)
    UNION ALL
    (SELECT email, stated FROM due WHERE NOT stated ORDER BY asked_at NULLS FIRST, email LIMIT %(most_of_commits)s)
    ORDER BY stated DESC""").format(asked_is_wrong=lies_in_the_future("a.asked_at"))
# In the order of the key: two imports may store the same addresses at once.
_STORE = """
    INSERT INTO account_emails AS stored (user_id, email, verified)
    SELECT u.id, told.email, true
    FROM json_to_recordset(%(rows)s::json) AS told (user_id uuid, email text)
    JOIN bitbucket_users u ON u.id = told.user_id AND NOT u.forgotten
    ORDER BY 1, 2
    ON CONFLICT (user_id, email) DO UPDATE SET verified = true WHERE NOT stored.verified"""
_SHOW = """
    UPDATE bitbucket_users u SET email = told.email
    FROM json_to_recordset(%(rows)s::json) AS told (user_id uuid, email text)
    WHERE u.id = told.user_id AND NOT u.forgotten AND u.email IS DISTINCT FROM told.email"""
_ASKED = """
    INSERT INTO asked_emails (workspace_id, email)
    SELECT %(workspace)s, asked.email FROM unnest(%(emails)s::text[]) AS asked (email)
    WHERE EXISTS (SELECT FROM stated_people s WHERE s.email = asked.email)
       OR EXISTS (SELECT FROM account_emails e WHERE e.email = asked.email)
    ORDER BY 2
    ON CONFLICT (workspace_id, email) DO UPDATE SET asked_at = now()"""
_DROP_UNKNOWN = """
    DELETE FROM asked_emails a
    WHERE NOT EXISTS (SELECT FROM stated_people s WHERE s.email = a.email)
      AND NOT EXISTS (SELECT FROM account_emails e WHERE e.email = a.email)"""
# What was replaced since may have other rights.
_REFUSED = """
    SELECT r.credential_id FROM email_refusals r JOIN credentials c ON c.id = r.credential_id
    WHERE r.asks_again_at > now() AND r.refused_at >= c.updated_at AND r.refused_at <= now()"""
_REFUSE = """
    INSERT INTO email_refusals (credential_id, asks_again_at, reason)
    VALUES (%(credential)s, now() + make_interval(hours => %(hours)s), %(reason)s)
    ON CONFLICT (credential_id) DO UPDATE
    SET refused_at = now(), asks_again_at = EXCLUDED.asks_again_at, reason = EXCLUDED.reason"""
_NOBODY_MAY_ASK = """
    SELECT k.workspace, min(r.reason) AS reason
    FROM connections k JOIN credentials c ON c.connection_id = k.id LEFT JOIN email_refusals r ON r.credential_id = c.id
    WHERE k.type = 'bitbucket' AND k.deleted_at IS NULL AND c.deleted_at IS NULL AND c.disabled_at IS NULL
    GROUP BY k.workspace HAVING bool_and(r.credential_id IS NOT NULL) ORDER BY 1"""


async def due(warehouse: Warehouse, workspace_id: str) -> list[str]:
    """The addresses to ask for: those that no account of the workspace is verified to have, and were not asked lately.

    Those of the people file come first, and among them those that were never asked.
    """
    rows = await warehouse.rows(
        _DUE,
        {
            "workspace": workspace_id,
            "plain": _PLAIN,
            "longest": _LONGEST,
            "most_stated": MOST_STATED,
            "most_of_commits": MOST_OF_COMMITS,
        },
    )
    return [row.email for row in rows]


async def store(
    transaction: Transaction,
    workspace_id: str,
    asked: Collection[str],
    found: Iterable[tuple[str, str]],
    *,
    shown: bool,
) -> None:
    """Stores what an answer to the `asked` addresses told: `found` has (id of a user, address).

    `shown`: whether the addresses go into `bitbucket_users` too.
    """
    rows = json.dumps([{"user_id": user_id, "email": email} for user_id, email in found])
    await transaction.execute(_STORE, {"rows": rows})
    if shown:
        transaction.count("bitbucket_users", updated=await transaction.execute(_SHOW, {"rows": rows}))
    await transaction.execute(_DROP_UNKNOWN)
    await transaction.execute(_ASKED, {"workspace": workspace_id, "emails": list(asked)})


async def ask_again(transaction: Transaction, workspace_id: str) -> None:
    """Makes all addresses due again: an account may have them that was no member when they were asked."""
    await transaction.execute("DELETE FROM asked_emails WHERE workspace_id = %s", [workspace_id])


async def refused(warehouse: Warehouse) -> set[int]:
    """Credentials, by id, that may not ask now."""
    return {row.credential_id for row in await warehouse.rows(_REFUSED)}


async def refuse(transaction: Transaction, credential_id: int, *, hours: int, reason: str) -> None:
    """Keeps a credential from asking for so many hours."""
    await transaction.execute(_REFUSE, {"credential": credential_id, "hours": hours, "reason": reason})


async def accept(transaction: Transaction, credential_id: int) -> None:
    await transaction.execute("DELETE FROM email_refusals WHERE credential_id = %s", [credential_id])


async def nobody_may_ask(transaction: Transaction) -> dict[str, str]:
    """Workspaces of which no credential got an answer when it asked last, with what Bitbucket answered."""
    return {row.workspace: row.reason for row in await transaction.rows(_NOBODY_MAY_ASK)}
