"""Empties what is stored of one person, for good: triggers keep the importer from storing it again.

What tells the triggers is a hash of the account's ids: neither name nor address is kept.
"""

from typing import Any

from dx_dagster.insights.people import resolving
from dx_dagster.insights.people.finding import NamedPerson
from dx_dagster.warehouse.database import Transaction

# Waits for transactions that write such rows, and keeps others from beginning: each of their rows meets the trigger
# either before it is emptied here, or knowing that the account is forgotten.
_LOCK = "LOCK TABLE bitbucket_users, bitbucket_pull_comments, account_emails IN SHARE ROW EXCLUSIVE MODE"
_OF_PERSON = """
    CREATE TEMPORARY TABLE forgotten_users ON COMMIT DROP AS
    SELECT u.id, u.source_id, NULLIF(u.account_id, '') AS account_id
    FROM identities i JOIN bitbucket_users u ON u.id = i.source_id
    WHERE i.source = 'bitbucket' AND i.dx_user_id = %(person)s"""
_ADDRESSES = """
    CREATE TEMPORARY TABLE forgotten_addresses ON COMMIT DROP AS
    SELECT value AS email FROM dx_user_identifiers WHERE user_id = %(person)s AND kind = 'email'
    UNION SELECT e.email FROM forgotten_users f JOIN account_emails e ON e.user_id = f.id WHERE e.verified
    UNION SELECT email FROM dx_users WHERE id = %(person)s AND email IS NOT NULL"""
_REMEMBER = """
    INSERT INTO forgotten_accounts (account_hash)
    SELECT encode(sha256(convert_to(named, 'UTF8')), 'hex') FROM (
        SELECT source_id AS named FROM forgotten_users UNION SELECT account_id FROM forgotten_users) names
    WHERE named IS NOT NULL ORDER BY 1 ON CONFLICT DO NOTHING"""
# Their addresses held them together.
_KEEP_TOGETHER = """
    UPDATE identities i SET reason = 'manual', by_hand = true, linked_at = clock_timestamp()
    FROM forgotten_users f WHERE i.source = 'bitbucket' AND i.source_id = f.id"""
_EMPTY = {
    "bitbucket_users": """
        UPDATE bitbucket_users u SET name = NULL, nickname = NULL, email = NULL, forgotten = true
        FROM forgotten_users f
        WHERE f.id = u.id
          AND (NOT u.forgotten OR u.name IS NOT NULL OR u.nickname IS NOT NULL OR u.email IS NOT NULL)""",
    "asked_emails": """
        DELETE FROM asked_emails a
        WHERE a.email IN (SELECT email FROM forgotten_addresses)
           OR a.email IN (SELECT e.email FROM forgotten_users f JOIN account_emails e ON e.user_id = f.id)""",
    "account_emails": "DELETE FROM account_emails e USING forgotten_users f WHERE f.id = e.user_id",
    "bitbucket_pull_comments": """
        UPDATE bitbucket_pull_comments c SET content = NULL FROM forgotten_users f
        WHERE f.id = c.user_id AND c.content IS NOT NULL""",
    "stated_people": "DELETE FROM stated_people s USING forgotten_addresses f WHERE f.email = s.email",
    "dx_user_identifiers": "DELETE FROM dx_user_identifiers WHERE user_id = %(person)s",
    "dx_users": """
        UPDATE dx_users SET name = NULL, email = NULL,
               source_id = CASE WHEN source_id LIKE 'email:%%' THEN 'forgotten:' || id ELSE source_id END
        WHERE %(person)s IN (id, merged_into_id)
          AND (name IS NOT NULL OR email IS NOT NULL OR source_id LIKE 'email:%%')""",
    "pipeline_runs": """
        UPDATE pipeline_runs SET email = NULL WHERE dx_user_id = %(person)s AND email IS NOT NULL""",
    # Those that are not applied yet are needed still. They are deleted some days after they were.
    "webhook_events": """
        UPDATE webhook_events w SET body = '{}' FROM forgotten_users f
        WHERE w.applied_at IS NOT NULL AND w.body <> '{}'
          AND (strpos(w.body, f.source_id) > 0 OR strpos(w.body, f.account_id) > 0)""",
}


async def forget(transaction: Transaction, person: NamedPerson) -> dict[str, int]:
    """Empties name, e-mail addresses and comments of a person; returns how many rows it touched, by table."""
    await resolving.lock(transaction)
    await transaction.execute(_LOCK)
    bound: dict[str, Any] = {"person": person.id}
    await transaction.execute(_OF_PERSON, bound)
    await transaction.execute(_ADDRESSES, bound)
    await transaction.execute(_REMEMBER)
    await transaction.execute(_KEEP_TOGETHER)
    touched = {table: await transaction.execute(statement, bound) for table, statement in _EMPTY.items()}
    users = [row.id for row in await transaction.rows("SELECT id::text AS id FROM forgotten_users")]
    await resolving.resolve(transaction, users)
    return touched
