"""Who is who, from evidence alone and in the database."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID, uuid5

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dx_dagster.insights.people import resolving
from dx_dagster.warehouse.database import Transaction, Warehouse

WORKSPACES = ("acme", "beta", "core")
NAMESPACE = UUID(int=7)


class Account(NamedTuple):
    """A user of one workspace, with its own address and those of its commits."""

    workspace: str
    uuid: str
    account_id: str | None
    bot: bool
    verified: str | None
    of_commits: frozenset[str]

    @property
    def id(self) -> str:
        return str(uuid5(NAMESPACE, f"{self.workspace} {self.uuid}"))


ADDRESSES = st.sampled_from(["ann@x.example", "bob@x.example", "build@x.example", "cy@x.example"])


@st.composite
def workspaces(draw: st.DrawFn) -> dict[str, list[Account]]:
    """A few Bitbucket accounts, each a user of some of the workspaces."""
    found: dict[str, list[Account]] = defaultdict(list)
    for number in range(draw(st.integers(2, 6))):
        account_id = draw(st.sampled_from([None, f"id{number}", f"id{number}", "id0"]))
        bot = draw(st.integers(0, 4)) == 0
        for workspace in draw(st.sets(st.sampled_from(WORKSPACES), min_size=1)):
            verified = draw(st.none() | ADDRESSES)
            addresses = draw(st.frozensets(ADDRESSES, max_size=2))
            found[workspace].append(Account(workspace, f"{{{number}}}", account_id, bot, verified, addresses))
    return found


async def store(transaction: Transaction, accounts: Sequence[Account]) -> None:
    for one in accounts:
        kind = "bot" if one.bot else "human"
        await transaction.execute(
            "INSERT INTO bitbucket_users (id, source_id, workspace_id, name, account_id, email, bot, type, "
            "imported_type, counted_as, active) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, true)",
            [one.id, one.uuid, uuid5(NAMESPACE, one.workspace), one.uuid, one.account_id, one.verified, one.bot]
            + [kind] * 3,
        )
        for email in one.of_commits:
            await transaction.execute(
                "INSERT INTO account_emails (user_id, email, of_commits) VALUES (%s, %s, true)", [one.id, email]
            )


async def people(warehouse: Warehouse, arriving: Sequence[Sequence[Account]]) -> tuple[set[frozenset[str]], set[str]]:
    """The people, as sets of their users, and who holds which address, when workspaces arrive one after the other."""
    async with warehouse.transaction() as transaction:
        for accounts in arriving:
            await store(transaction, accounts)
            await resolving.resolve(transaction, [one.id for one in accounts])
        together: Mapping[int, set[str]] = defaultdict(set)
        for row in await transaction.rows("SELECT dx_user_id, source_id::text FROM identities"):
            together[row.dx_user_id].add(row.source_id)
        owned = await transaction.rows("SELECT user_id, value FROM dx_user_identifiers")
        transaction.written.clear()
        await resolving.resolve(transaction)
        assert not any(counts.inserted or counts.updated for counts in transaction.written.values())
        for table in ("bitbucket_users", "account_emails", "identities", "dx_user_identifiers", "dx_users"):
            await transaction.execute(f"DELETE FROM {table}")
    return set(map(frozenset, together.values())), {f"{row.value} {sorted(together[row.user_id])}" for row in owned}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workspaces(), st.permutations(WORKSPACES))
def test_the_same_accounts_are_the_same_people_in_whatever_order_workspaces_come(database_url, by_workspace, order):
    async def both() -> None:
        async with Warehouse(database_url) as warehouse:
            at_once = await people(warehouse, [[one for accounts in by_workspace.values() for one in accounts]])
            assert await people(warehouse, [by_workspace[name] for name in order if name in by_workspace]) == at_once
            every = {one.id: one for accounts in by_workspace.values() for one in accounts}
            assert sorted(user for users in at_once[0] for user in users) == sorted(every)

    asyncio.run(both())
