"""People as the commands, the API and the importer leave them."""

import asyncio
import csv
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import tuple_row

from dx_dagster.frames import commits, identifiers, users
from dx_dagster.frames.comments import comments
from dx_dagster.insights.people import by_hand, resolving
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.imported import emails, members

ACME, BETA = (f"00000000-0000-0000-0000-0000000000{n}" for n in ("a1", "a2"))
PULL = "00000000-0000-0000-0000-0000000000b1"
NAMES = ("ann", "bob", "cy", "dee", "bot")
WORKSPACES = f"""
    INSERT INTO bitbucket_workspaces (id, source_id, slug) VALUES ('{ACME}', '{{a1}}', 'acme'),
                                                                  ('{BETA}', '{{a2}}', 'beta')"""


def account(name: str) -> dict[str, Any]:
    """An account as the API writes it."""
    kind = "app_user" if name == "bot" else "user"
    return {
        "type": kind,
        "uuid": f"{{{name}}}",
        "account_id": f"557058:{name}",
        "nickname": name,
        "display_name": name.title(),
    }


def commit(name: str, email: str) -> dict[str, Any]:
    return {"author": {"raw": f"{name} <{email}>", "user": account(name)}}


class Installation:
    """Rows as an import stores them, and everything that is said of people."""

    def __init__(self, url: str) -> None:
        self.url = url

    def do(self, *works: Callable[[Transaction], Any]) -> Any:
        async def whole() -> Any:
            done = None
            async with Warehouse(self.url) as warehouse:
                for work in works:
                    async with warehouse.transaction() as transaction:
                        done = await work(transaction)
            return done

        return asyncio.run(whole())

    def sync(self, workspace: str = ACME, names: Sequence[str] = NAMES, authors: Sequence[Any] = (), **own: str) -> int:
        """Stores members, commits' authors and the addresses that Jira returns; returns how many rows were written."""

        async def work(transaction: Transaction) -> int:
            now = datetime.now(UTC)
            listed = [account(name) for name in names]
            await transaction.merge(merge.MEMBERS, users.users(workspace, listed, now, members=True))
            met = list(commits.accounts(authors))
            await transaction.merge(merge.USERS, users.users(workspace, met, now))
            if addresses := commits.author_emails(workspace, authors):
                await emails.store_of_commits(transaction, addresses)
            for name, email in own.items():
                changed = "UPDATE bitbucket_users SET email = %s WHERE source_id = %s AND email IS DISTINCT FROM %s"
                await transaction.execute(changed, [email, f"{{{name}}}", email])
            await resolving.resolve(transaction)
            return sum(counts.inserted + counts.updated for counts in transaction.written.values())

        return int(self.do(work))

    def rows(self, query: str) -> list[Any]:
        with psycopg.connect(self.url, row_factory=tuple_row) as connection:
            return connection.execute(query.encode()).fetchall()

    def people(self) -> dict[int, list[str]]:
        """The accounts of each person, by number."""
        found: dict[int, list[str]] = {}
        query = """SELECT dx_user_id, w.slug || '/' || trim(u.source_id, '{}') AS name
                   FROM identities i JOIN bitbucket_users u ON u.id = i.source_id
                   JOIN bitbucket_workspaces w ON w.id = u.workspace_id ORDER BY 2"""
        for number, name in self.rows(query):
            found.setdefault(number, []).append(name)
        return found

    def whose(self) -> dict[str, int]:
        """The person's number, by account of the workspace acme."""
        return {name[5:]: number for number, names in self.people().items() for name in names if "acme" in name}


@pytest.fixture
def installation(database_url) -> Installation:
    with psycopg.connect(database_url) as connection:
        connection.execute(WORKSPACES.encode())
    return Installation(database_url)


@pytest.fixture
def people(run_cli) -> Callable[..., Any]:
    """`people("list")`: runs the command."""
    return lambda *arguments: run_cli("people", *map(str, arguments))


def test_accounts_of_one_person_are_joined_and_shared_addresses_join_nobody(installation):
    installation.sync(names=("ann", "bob", "cy", "dee", "eve", "bot"))
    before = installation.whose()
    assert len(set(before.values())) == 6
    authors = [
        commit("dee", "ANN@x.example"),  # Ann's own address
        commit("cy", "build@x.example"),  # a machine's, with which two people and a bot commit
        commit("eve", "build@x.example"),
        commit("bot", "bob@x.example"),  # Bob's own, but a bot's too
        {"author": {"raw": "Liar <cy@x.example>"}},  # Bitbucket knows no account of it
    ]
    own = {"ann": "Ann@x.example", "bob": "bob@x.example", "cy": "cy@x.example"}
    installation.sync(names=("ann", "bob", "cy", "dee", "eve", "bot"), authors=authors, **own)
    installation.sync(BETA, ["ann", "bot"])
    older, newer = sorted((before["ann"], before["dee"]))
    assert installation.people() == {
        older: ["acme/ann", "acme/dee", "beta/ann"],
        before["bob"]: ["acme/bob"],
        before["bot"]: ["acme/bot", "beta/bot"],
        before["cy"]: ["acme/cy"],
        before["eve"]: ["acme/eve"],
    }
    reasons = installation.rows("""SELECT trim(u.source_id, '{}'), reason FROM identities i
                                   JOIN bitbucket_users u ON u.id = i.source_id ORDER BY 1, u.workspace_id""")
    assert [tuple(row) for row in reasons] == [
        *[("ann", "account_id")] * 2,
        ("bob", "alone"),
        *[("bot", "account_id")] * 2,
        ("cy", "alone"),
        ("dee", "commit_email"),
        ("eve", "alone"),
    ]
    [ann, bob, bot] = (
        installation.rows(f"""SELECT name, email, type, developer, deleted_at, merged_into_id FROM dx_users
        WHERE id IN ({older}, {before["bob"]}, {before["bot"]}) ORDER BY name""")
    )
    assert ann == ("Ann", "ann@x.example", "human", True, None, None)
    assert (bob[1], bot[2:4]) == ("bob@x.example", ("bot", False))
    merged = f"SELECT merged_into_id, deleted_at IS NOT NULL FROM dx_users WHERE id = {newer}"
    assert installation.rows(merged) == [(older, True)]
    # Jira hides the address; and then the one of the commits turns out to be shared.
    installation.do(lambda transaction: transaction.execute("UPDATE bitbucket_users SET email = NULL"))
    assert installation.sync(authors=authors) == 0
    assert installation.whose()["dee"] == older
    installation.sync(authors=[commit("cy", "ann@x.example")])
    assert {name: installation.whose()[name] for name in ("ann", "dee")} == {
        name: before[name] for name in ("ann", "dee")
    }


def test_who_leaves_is_marked_and_stays_and_is_unmarked_on_return(installation):
    installation.sync()
    ann = installation.whose()["ann"]

    async def leave(transaction: Transaction) -> None:
        await members.deactivate(transaction, [identifiers.of_user(ACME, "{ann}")])
        await resolving.resolve(transaction, [identifiers.of_user(ACME, "{ann}")])

    installation.do(leave)
    left = "SELECT id FROM dx_users WHERE deleted_at IS NOT NULL"
    assert installation.rows(left) == [(ann,)]
    installation.sync(authors=[commit("guest", "guest@x.example")])  # a guest was never a member
    assert installation.rows(left) == []
    assert installation.whose()["ann"] == ann


def test_a_people_file_makes_people_and_teams_and_survives_every_sync(installation, people, tmp_path):
    file = tmp_path / "people.csv"
    file.write_text(
        "email,name,team,time_zone,type\n"
        "ann@x.example,Ann Lee,Eng/Platform,Europe/Berlin,human\n"
        "cy@x.example,,Eng,,bot\n"
        "new@x.example,New One,Eng/Platform/Core,Asia/Kolkata,\n"
    )
    own = {"ann": "ann@x.example", "cy": "cy@x.example", "dee": "dee@x.example"}
    installation.sync(**own)
    assert "3 people, 2 of them with accounts, in 3 teams (3 new, 0 no longer named)" in people("import", file).stdout
    persons = """SELECT u.name, u.email, t.source_id, u.tz, u.type, u.developer FROM dx_users u
                 LEFT JOIN dx_teams t ON t.id = u.team_id WHERE u.email LIKE '%x.example' ORDER BY u.email"""
    said = [
        ("Ann Lee", "ann@x.example", "Eng/Platform", "Europe/Berlin", "human", True),
        ("Cy", "cy@x.example", "Eng", None, "bot", False),
        ("Dee", "dee@x.example", None, None, "human", True),
        ("New One", "new@x.example", "Eng/Platform/Core", "Asia/Kolkata", "human", True),
    ]
    assert installation.rows(persons) == said
    assert installation.sync(**own) == 0
    assert installation.rows(persons) == said
    assert installation.rows("SELECT type, bot FROM bitbucket_users WHERE nickname = 'cy'") == [("bot", True)]
    hierarchy = """SELECT a.source_id, d.source_id, generations, d.contributors FROM dx_team_hierarchies h
                   JOIN dx_teams a ON a.id = ancestor_id JOIN dx_teams d ON d.id = descendant_id ORDER BY 1, 2"""
    assert installation.rows(hierarchy) == [
        ("Eng", "Eng", 0, 1),
        ("Eng", "Eng/Platform", 1, 1),
        ("Eng", "Eng/Platform/Core", 2, 1),
        ("Eng/Platform", "Eng/Platform", 0, 1),
        ("Eng/Platform", "Eng/Platform/Core", 1, 1),
        ("Eng/Platform/Core", "Eng/Platform/Core", 0, 1),
    ]
    # The one without an account gets one, by the address of commits.
    [[stated]] = installation.rows("SELECT id FROM dx_users WHERE name = 'New One'")
    installation.sync(names=(*NAMES, "zoe"), authors=[commit("zoe", "new@x.example")])
    assert installation.whose()["zoe"] == stated
    exported = people("export")
    assert "2 people are left out" in exported.stderr
    assert [row["email"] for row in csv.DictReader(exported.stdout.splitlines())] == [row[1] for row in said]
    file.write_text(exported.stdout)
    assert "(0 new, 0 no longer named)" in people("import", file).stdout
    assert installation.rows(persons) == said
    # A bad file changes nothing; a file that says less takes back what the last one said.
    file.write_text("email,team\nann@x.example,Sales\nnobody,Sales\n")
    refused = people("import", file)
    assert (refused.returncode, "line 3: 'nobody' is not an e-mail address" in refused.stderr) == (1, True)
    assert installation.rows(persons) == said
    file.write_text("email,team\ndee@x.example,Sales\n")
    assert "1 team (1 new, 3 no longer named)" in people("import", file).stdout
    assert [row[0] for row in installation.rows(persons)] == ["Ann", "Cy", "Dee", "Zoe"]
    assert installation.whose()["zoe"] == stated
    assert installation.rows("SELECT type, bot FROM bitbucket_users WHERE nickname = 'cy'") == [("human", False)]
    assert installation.rows(hierarchy) == [("Sales", "Sales", 0, 1)]


def test_what_is_said_by_hand_wins_and_survives_every_sync(installation, people):
    own = {"ann": "ann@x.example", "bob": "bob@x.example"}
    authors = [commit("dee", "ann@x.example")]
    installation.sync(authors=authors, **own)
    bob, cy, older = (installation.whose()[name] for name in ("bob", "cy", "ann"))
    [[home]] = installation.rows(f"SELECT replace(source_id, 'account:557058:', '') FROM dx_users WHERE id = {older}")
    [other] = {"ann", "dee"} - {home}
    assert "is an account of person" in people("link", "acme/cy", "BOB@x.example").stdout
    assert people("unlink", f"557058:{home}").returncode == 0  # the other stays who it was
    now = installation.whose()
    assert (now["cy"], now[other]) == (bob, older)
    assert now[home] not in {older, bob, cy}
    installation.sync(BETA, [home, "cy"])  # the same accounts in another workspace follow
    assert installation.sync(authors=authors, **own) == 0
    assert installation.whose() == now
    assert ["acme/bob", "acme/cy", "beta/cy"] in installation.people().values()
    assert [f"acme/{home}", f"beta/{home}"] in installation.people().values()
    listed = {one["id"]: one for one in json.loads(people("list", "--json").stdout)["people"]}
    assert [(one["nickname"], one["reason"], one["by_hand"]) for one in listed[bob]["accounts"]] == [
        ("bob", "alone", False), ("cy", "manual", True), ("cy", "manual", False),
    ]  # fmt: skip
    assert cy not in listed  # it turned out to be Bob
    assert people("unlink", "{bob}").returncode == 0  # whom Cy was linked to stays a person
    assert (installation.whose()["cy"], installation.whose()["bob"] == bob) == (bob, False)
    for arguments, says in (
        (("link", "acme/nobody", str(bob)), "No account is called 'acme/nobody'"),
        (("link", "acme/cy", "99999"), "No person is '99999'"),
        (("unlink", "beta/bob"), "No account is called 'beta/bob'"),
    ):
        failed = people(*arguments)
        assert (failed.returncode, says in failed.stderr) == (1, True), failed


def test_a_type_that_was_set_survives_every_sync_and_new_workspaces(installation):
    installation.sync()

    async def say(transaction: Transaction) -> list[str]:
        return await by_hand.set_types(transaction, {"{ann}": "bot", "bob": "ai_bot", "{bot}": "human", "gone": "bot"})

    assert installation.do(say) == ["gone"]
    types = "SELECT nickname, type, bot, imported_type FROM bitbucket_users WHERE workspace_id = '{}' ORDER BY 1"
    said = [
        ("ann", "bot", True, "human"),
        ("bob", "ai_bot", True, "human"),
        ("bot", "human", False, "bot"),
        ("cy", "human", False, "human"),
        ("dee", "human", False, "human"),
    ]
    assert installation.rows(types.format(ACME)) == said
    assert installation.do(say) == ["gone"]
    assert installation.sync() == 0
    assert installation.rows(types.format(ACME)) == said
    installation.sync(BETA)
    assert installation.rows(types.format(BETA)) == said
    persons = installation.rows("SELECT name, type, developer FROM dx_users ORDER BY name")
    assert persons[:3] == [("Ann", "bot", False), ("Bob", "ai_bot", False), ("Bot", "human", True)]


def test_who_is_forgotten_is_never_stored_again(installation, people):
    authors = [commit("dee", "ann@x.example"), commit("ann", "home@x.example"), commit("bob", "bob@x.example")]
    installation.sync(authors=authors, ann="ann@x.example")
    before = installation.people()

    async def comment(transaction: Transaction) -> None:
        made = [
            (PULL, {"id": number, "user": account(name), "content": {"raw": "Secret"}, "created_on": "2026-01-01"})
            for number, name in enumerate(("ann", "dee", "bob"))
        ]
        await transaction.merge(merge.COMMENTS, comments(ACME, made, datetime.now(UTC)))

    installation.do(comment)
    assert people("forget", "ann@x.example").returncode == 1  # nobody has said yes
    done = people("forget", "ann@x.example", "--yes")
    touched = dict(line.split(": ") for line in done.stdout.splitlines())
    assert {table: rows for table, rows in touched.items() if rows != "0 rows"} == {
        "bitbucket_users": "2 rows",
        "account_emails": "3 rows",
        "bitbucket_pull_comments": "2 rows",
        "dx_user_identifiers": "2 rows",
        "dx_users": "1 row",
    }
    installation.sync(authors=authors)
    installation.do(comment)
    installation.sync(BETA, authors=authors)
    for table in (
        "bitbucket_users",
        "account_emails",
        "dx_user_identifiers",
        "dx_users",
        "identities",
        "stated_people",
    ):
        rows = [str(row) for row in installation.rows(f"SELECT * FROM {table}")]
        assert not [row for row in rows if "Ann" in row or "Dee" in row or "ann@" in row or "home@" in row], table
    content = installation.rows("SELECT content FROM bitbucket_pull_comments ORDER BY source_id")
    assert content == [(None,), (None,), ("Secret",)]
    together = {number: [name for name in names if "acme" in name] for number, names in installation.people().items()}
    assert together == before
    assert installation.sync(authors=authors) == 0
    assert "No person is" in people("forget", "ann@x.example", "--yes").stderr
