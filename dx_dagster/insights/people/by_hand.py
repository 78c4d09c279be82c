"""What somebody says of accounts: whose they are, and whether they are people's. No sync changes it."""

from collections.abc import Mapping, Sequence
from typing import Any

from dx_dagster.insights.people import resolving
from dx_dagster.insights.people.finding import NamedAccount, NamedPerson
from dx_dagster.warehouse.database import Transaction

_SAY = """
    UPDATE identities SET dx_user_id = COALESCE(%(person)s, dx_user_id), reason = %(reason)s, by_hand = true,
           linked_at = clock_timestamp()
    WHERE source = 'bitbucket' AND source_id = ANY(%(users)s::uuid[])"""


async def link(transaction: Transaction, account: NamedAccount, person: NamedPerson) -> None:
    """Makes the account this person's."""
    await resolving.resolve(transaction, account.user_ids)
    await transaction.execute(_SAY, {"person": person.id, "reason": "manual", "users": list(account.user_ids)})
    await resolving.resolve(transaction, account.user_ids)


async def unlink(transaction: Transaction, account: NamedAccount) -> int:
    """Makes the account a person of its own, and returns the person's number. The others keep theirs."""
    await resolving.resolve(transaction, account.user_ids)
    await _leave(transaction, account)
    await transaction.execute(_SAY, {"person": None, "reason": "alone", "users": list(account.user_ids)})
    await resolving.resolve(transaction, account.user_ids)
    row = await transaction.row(
        "SELECT dx_user_id FROM identities WHERE source = 'bitbucket' AND source_id = %s", [account.user_ids[0]]
    )
    return int(row.dx_user_id)


# The person is known by an account or address that stays: `dx_users.source_id`.
_HOME = """
    SELECT DISTINCT p.id, p.source_id FROM identities i JOIN dx_users p ON p.id = i.dx_user_id
    JOIN bitbucket_users u ON u.id = i.source_id
    WHERE i.source_id = ANY(%(users)s::uuid[])
      AND p.source_id IN ('user:' || u.source_id, 'account:' || u.account_id)"""
_OTHER_HOME = """
    SELECT home FROM (
        SELECT 1 AS place, COALESCE('account:' || NULLIF(u.account_id, ''), 'user:' || u.source_id) AS home
        FROM identities i JOIN bitbucket_users u ON u.id = i.source_id
        WHERE i.dx_user_id = %(person)s AND i.source_id <> ALL(%(users)s::uuid[]) AND i.reason <> 'manual'
        UNION ALL
        SELECT 2, 'email:' || s.email FROM dx_user_identifiers i JOIN stated_people s ON s.email = i.value
        WHERE i.user_id = %(person)s AND i.kind = 'email'
        UNION ALL
        SELECT 3, 'person:' || dx_user_id FROM identities
        WHERE dx_user_id = %(person)s AND source_id <> ALL(%(users)s::uuid[])) homes
    ORDER BY place, home LIMIT 1"""
_TAKE_HOME = "UPDATE dx_users SET source_id = %(home)s WHERE source_id = %(from)s"


async def _leave(transaction: Transaction, account: NamedAccount) -> None:
    """Lets the person whom the account leaves be known by another account, with which this one may trade."""
    users = list(account.user_ids)
    for row in await transaction.rows(_HOME, {"users": users}):
        other = await transaction.row(_OTHER_HOME, {"person": row.id, "users": users})
        if other is not None:
            for old, new in ((other.home, "moving"), (row.source_id, other.home), ("moving", row.source_id)):
                await transaction.execute(_TAKE_HOME, {"from": old, "home": new})


_KNOWN = """
    SELECT id::text AS id, source_id, account_id FROM bitbucket_users
    WHERE source_id = ANY(%(named)s) OR account_id = ANY(%(named)s)"""
_SET_TYPES = """
    INSERT INTO account_types AS old (source_id, type, said_by)
    SELECT source_id, type, 'api' FROM unnest(%(users)s::text[], %(types)s::text[]) AS said (source_id, type)
    ORDER BY source_id
    ON CONFLICT (source_id) DO UPDATE SET type = EXCLUDED.type, said_by = 'api', said_at = now()
    WHERE (old.type, old.said_by) IS DISTINCT FROM (EXCLUDED.type, 'api')"""


async def set_types(transaction: Transaction, types: Mapping[str, str]) -> list[str]:
    """Sets types of accounts, by uuid or Atlassian account id; returns those that no account has.

    Durations of pull requests follow at the next sync of their workspace, which counts their reviews anew.
    """
    await resolving.lock(transaction)
    named = {name: _spellings(name) for name in types}
    rows = await transaction.rows(_KNOWN, {"named": [one for names in named.values() for one in names]})
    by_name: dict[str, list[Any]] = {}
    for row in rows:
        for name in (row.source_id, row.account_id):
            by_name.setdefault(name, []).append(row)
    said: dict[str, str] = {}
    changed: set[str] = set()
    unknown = []
    for name, kind in types.items():
        found = [row for spelling in named[name] for row in by_name.get(spelling, ())]
        said |= {row.source_id: kind for row in found}
        changed |= {row.id for row in found}
        unknown += [] if found else [name]
    if said:
        await transaction.execute(_SET_TYPES, {"users": list(said), "types": list(said.values())})
        await resolving.resolve(transaction, changed)
    return unknown


def _spellings(name: str) -> Sequence[str]:
    """A uuid may come without its braces."""
    return [name, f"{{{name.strip('{}').lower()}}}"]
