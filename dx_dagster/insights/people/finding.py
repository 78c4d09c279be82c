"""Finds the accounts and people that somebody names, and lists them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dx_dagster.warehouse.database import Transaction

_SHOWN = 5


class NotFoundError(Exception):
    """Nothing, or more than one thing, has the name. The message says so, and what to do."""


@dataclass(frozen=True)
class NamedAccount:
    """One account of Bitbucket: a user in each of its workspaces."""

    user_ids: Sequence[str]
    label: str


@dataclass(frozen=True)
class NamedPerson:
    """A row of `dx_users`."""

    id: int
    label: str


_BY_ID = """
    SELECT id FROM bitbucket_users
    WHERE source_id IN (%(name)s, '{' || lower(%(name)s) || '}') OR account_id = %(name)s"""
_BY_NICKNAME = "SELECT id FROM bitbucket_users WHERE lower(nickname) = lower(%(name)s)"
_BY_NAME = "SELECT id FROM bitbucket_users WHERE lower(name) = lower(%(name)s)"
_BY_EMAIL = "SELECT id FROM bitbucket_users WHERE lower(email) = lower(%(name)s)"
_SAME_ACCOUNT = """
    SELECT DISTINCT u.id::text AS id, u.source_id, NULLIF(u.account_id, '') AS account_id, u.nickname, u.name, w.slug
    FROM bitbucket_users named JOIN bitbucket_users u
      ON u.source_id = named.source_id OR (u.account_id = named.account_id AND u.account_id <> '')
    JOIN bitbucket_workspaces w ON w.id = u.workspace_id
    WHERE named.id = ANY(%s) ORDER BY w.slug, u.source_id"""
_IN_WORKSPACE = """
    SELECT u.id FROM bitbucket_users u JOIN bitbucket_workspaces w ON w.id = u.workspace_id
    WHERE u.id = ANY(%s) AND lower(w.slug) = lower(%s)"""
_WORKSPACE = "SELECT slug FROM bitbucket_workspaces WHERE lower(slug) = lower(%s)"


async def account(transaction: Transaction, named: str) -> NamedAccount:
    """The account with a uuid, an Atlassian account id, a nickname, a name or an e-mail address.

    `named` may begin with a workspace, as in `acme/ann`.

    Raises:
        NotFoundError: there is none, or there are several.
    """
    slug, _, rest = named.partition("/")
    workspace = await transaction.row(_WORKSPACE, [slug]) if rest else None
    name = rest if workspace else named
    for statement in (_BY_ID, _BY_NICKNAME, _BY_NAME, _BY_EMAIL):
        found = [row.id for row in await transaction.rows(statement, {"name": name.strip()})]
        if workspace:
            found = [row.id for row in await transaction.rows(_IN_WORKSPACE, [found, slug])]
        if found:
            return _one_account(named, await transaction.rows(_SAME_ACCOUNT, [found]))
    raise NotFoundError(
        f"No account is called {named!r}. Give its uuid, its Atlassian account id, or its nickname as "
        "WORKSPACE/NICKNAME. To see all: dx-dagster people list"
    )


def _one_account(named: str, rows: Sequence[Any]) -> NamedAccount:
    accounts: dict[str, str] = {}
    labels: dict[str, str] = {}
    for row in rows:
        key = accounts.setdefault(row.source_id, row.account_id or row.source_id)
        labels.setdefault(key, f"{row.slug}/{row.nickname or row.name or row.source_id} ({key})")
    if len(labels) > 1:
        some = ", ".join(list(labels.values())[:_SHOWN])
        raise NotFoundError(f"{len(labels)} accounts are called {named!r}: {some}. Name one by the id in brackets.")
    return NamedAccount([row.id for row in rows], next(iter(labels.values())))


_PERSON_BY_NUMBER = "SELECT id, name, email, merged_into_id FROM dx_users WHERE id = %s"
_PERSON_BY_EMAIL = """
    SELECT DISTINCT p.id, p.name, p.email, p.merged_into_id FROM dx_users p
    LEFT JOIN dx_user_identifiers i ON i.user_id = p.id AND i.kind = 'email'
    WHERE lower(%(email)s) IN (p.email, i.value) AND p.merged_into_id IS NULL ORDER BY 1"""
_LARGEST_NUMBER = 2**63 - 1


async def person(transaction: Transaction, named: str) -> NamedPerson:
    """The person with an e-mail address or a number of `dx_users`.

    Raises:
        NotFoundError: there is none, or there are several.
    """
    rows: list[Any] = []
    if named.isascii() and named.isdigit() and int(named) <= _LARGEST_NUMBER:
        rows = await transaction.rows(_PERSON_BY_NUMBER, [int(named)])
        while rows and rows[0].merged_into_id is not None:
            rows = await transaction.rows(_PERSON_BY_NUMBER, [rows[0].merged_into_id])
    elif "@" in named:
        rows = await transaction.rows(_PERSON_BY_EMAIL, {"email": named.strip()})
    if not rows:
        raise NotFoundError(
            f"No person is {named!r}. Give an e-mail address or a number. To see all: dx-dagster people list"
        )
    if len(rows) > 1:
        numbers = ", ".join(str(row.id) for row in rows[:_SHOWN])
        raise NotFoundError(f"{len(rows)} people use the address {named!r}: {numbers}. Name one by its number.")
    return NamedPerson(rows[0].id, rows[0].email or rows[0].name or "no name")


_PEOPLE = """
    SELECT u.id, u.name, u.email, u.type, u.developer, t.source_id AS team, u.tz, u.deleted_at,
           COALESCE((SELECT array_agg(i.value ORDER BY i.value) FROM dx_user_identifiers i
                     WHERE i.user_id = u.id AND i.kind = 'email'), '{}') AS emails
    FROM dx_users u LEFT JOIN dx_teams t ON t.id = u.team_id
    WHERE u.merged_into_id IS NULL ORDER BY u.id"""
_ACCOUNTS = """
    SELECT i.dx_user_id, w.slug AS workspace, u.source_id, u.account_id, u.nickname, u.name, u.type, u.active, i.reason,
           i.linked_at, i.by_hand
    FROM identities i JOIN bitbucket_users u ON u.id = i.source_id JOIN bitbucket_workspaces w ON w.id = u.workspace_id
    WHERE i.source = 'bitbucket' ORDER BY w.slug, u.nickname, u.source_id"""


async def everybody(transaction: Transaction) -> list[dict[str, Any]]:
    """All people with their accounts, as `people list --json` prints them."""
    people = {row.id: row._asdict() | {"accounts": []} for row in await transaction.rows(_PEOPLE)}
    for row in await transaction.rows(_ACCOUNTS):
        account = row._asdict()
        people[account.pop("dx_user_id")]["accounts"].append(account)
    return list(people.values())
