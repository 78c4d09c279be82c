"""E-mail addresses out of Jira, against a Jira site whose truth is known."""

import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from dx_dagster.importer.workspace import Workspace
from dx_dagster.insights.people import resolving
from dx_dagster.sandbox import Sandbox, Token, WorldConfig, truth
from dx_dagster.sandbox.jira import CLOUD_ID, USER_SCOPE
from dx_dagster_tests.conftest import RunCli
from dx_dagster_tests.importing import KEYS, Installation

EMAIL = "robot@acme.example"
CLASSIC = Token("ATATT3xClassicTokenOfJira0001", kind="api", email=EMAIL)
SCOPED = Token("ATATT3xScopedTokenOfJira0002", kind="api", email=EMAIL, scopes=[USER_SCOPE])
NARROW = Token("ATATT3xNarrowTokenOfJira0003", kind="api", email=EMAIL, scopes=["read:jira-work"])


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    # More people than one request or one page of Jira's takes.
    with Sandbox(WorldConfig(seed=5, repositories=6, pull_requests=60, members=120)) as running:
        running.jira.tokens[:] = [CLASSIC, SCOPED, NARROW]
        yield running


class WithJira(Installation):
    """A workspace whose connection to Jira is made as a person makes it."""

    def __init__(self, environment: dict[str, str], sandbox: Sandbox, run_cli: RunCli) -> None:
        super().__init__(environment["DX_DATABASE_URL"], sandbox)
        self.jira_url, self._run = sandbox.jira_url, run_cli
        self._environment = environment | {"BITBUCKET_API_URL": sandbox.url, "DX_SECRET_KEYS": KEYS}

    def cli(self, *arguments: str, secret: str = CLASSIC.secret) -> subprocess.CompletedProcess[str]:
        return self._run(*arguments, env=self._environment | {"JIRA_EMAIL": EMAIL, "JIRA_API_TOKEN": secret})

    def connect(self, *, secret: str = CLASSIC.secret, at: str = "") -> subprocess.CompletedProcess[str]:
        return self.cli("connect", "acme", "--type", "jira_cloud", "--jira-url", at or self.jira_url, secret=secret)

    def said(self) -> str:
        """What an import warns of."""
        self.warnings.clear()
        self.sync()
        return "\n".join(self.warnings)

    def emails(self) -> dict[str, str | None]:
        with psycopg.connect(self.database_url) as database:
            return dict(database.execute("SELECT source_id, email FROM bitbucket_users").fetchall())

    def one(self, query: str) -> Any:
        with psycopg.connect(self.database_url) as database:
            row = database.execute(query.encode()).fetchone()
        return row[0] if row else None


@pytest.fixture
def installation(environment, sandbox, run_cli) -> WithJira:
    return WithJira(environment, sandbox, run_cli)


def shown(sandbox: Sandbox) -> dict[str, str | None]:
    return {str(row["source_id"]): row["email"] for row in truth(sandbox.world)["bitbucket_users"]}  # type: ignore[misc]


@pytest.mark.parametrize("secret", [CLASSIC.secret, SCOPED.secret], ids=["token", "token with scopes"])
def test_addresses_that_jira_shows_are_stored_and_hidden_ones_are_not(secret, installation, sandbox):
    assert installation.connect(secret=secret).returncode == 0
    installation.sync()
    installation.sync()  # authors met by the first are asked for now
    assert installation.emails() == shown(sandbox)
    assert {None} < set(shown(sandbox).values())
    assert installation.one("SELECT last_synced_at FROM connections WHERE type = 'jira_cloud'") is not None
    assert installation.sync().written == 0


def test_who_hides_an_address_later_loses_it_and_who_leaves_the_site_keeps_it(installation, sandbox):
    installation.connect()
    installation.sync()
    hiding, leaving = [user for user in sandbox.world.people.members if user.shown_email][:2]
    hiding.hides_email = True
    sandbox.jira.strangers.add(leaving.account_id)
    installation.sync()
    assert installation.emails()[hiding.uuid] is None
    assert installation.emails()[leaving.uuid] == leaving.email


def test_a_failing_jira_fails_no_import_and_is_reported(installation, sandbox):
    installation.connect()
    installation.sync()
    before = installation.emails()
    sandbox.faults.on("/rest/api/3/", 503)
    said = installation.said()
    assert "no e-mail addresses with" in said
    assert "unavailable: Jira answered 503" in said
    assert installation.emails() == before
    assert installation.one("SELECT code FROM credential_checks WHERE credential_id = 2") == "unavailable"
    sandbox.faults.clear()
    sandbox.jira.tokens.clear()
    assert "invalid_credentials" in installation.said()
    assert installation.one("SELECT disabled_reason FROM credentials WHERE id = 2").startswith("Jira does not accept")
    assert installation.emails() == before
    listed = installation.cli("credentials", "list", "acme", "--type", "jira_cloud").stdout
    assert "last check: invalid_credentials" in listed


def test_a_token_goes_to_its_site_and_to_the_gateway_of_that_site_only(installation, sandbox):
    sandbox.requests.reset()
    assert installation.connect(secret=SCOPED.secret).returncode == 0
    paths = {request.path.partition("?")[0]: request for request in sandbox.requests.list()}
    assert paths["/_edge/tenant_info"].token is None
    assert paths[f"/ex/jira/{CLOUD_ID}/rest/api/3/myself"].status == 200
    refused = installation.connect(secret=NARROW.secret)
    assert (refused.returncode, "invalid_permissions" in refused.stderr) == (1, True)
    assert "lacks the scope read:jira-user" in refused.stderr
    assert f"/ex/jira/{CLOUD_ID}/rest/api/3/myself" in refused.stderr
    wrong = installation.connect(secret="ATATT3xUnknown")
    assert (wrong.returncode, "invalid_credentials" in wrong.stderr) == (1, True)
    for address in ("http://jira.example.com", "https://api.atlassian.com/x"):
        assert installation.connect(at=address).returncode == 1


def test_addresses_of_commits_are_kept_and_nothing_of_who_is_forgotten_comes_back(environment, run_cli):
    with Sandbox(WorldConfig(seed=5, repositories=3, pull_requests=40, members=6)) as sandbox:
        installation = WithJira(environment, sandbox, run_cli)
        installation.sync()
        query = "SELECT source_id, e.email FROM account_emails e JOIN bitbucket_users u ON u.id = user_id"
        hashes = installation.query("""SELECT sha FROM bitbucket_pull_commits UNION
                                       SELECT sha FROM bitbucket_repository_default_branch_commits""")
        graphs = [repository.graph for repository in sandbox.world.repositories]
        commits = [graph.find(row["sha"]) for row in hashes for graph in graphs]
        linked = {(one.user.uuid, one.raw.partition("<")[2].rstrip(">")) for one in commits if one and one.user}
        stored = {(row["source_id"], row["email"]) for row in installation.query(query)}
        own = {(user.uuid, user.email) for user in sandbox.world.people.everybody}
        assert linked <= stored <= linked | own
        assert len(linked) > 5

        async def build(workspace: Workspace) -> None:
            async with workspace.warehouse.transaction() as transaction:
                await resolving.resolve(transaction)

        installation.on_workspace(build)
        commented = """SELECT u.source_id, count(*) AS comments FROM bitbucket_pull_comments c
                       JOIN bitbucket_users u ON u.id = c.user_id JOIN account_emails e ON e.user_id = u.id
                       WHERE content <> '' GROUP BY 1 ORDER BY 2 DESC, 1"""
        chosen = installation.query(commented)[0]
        email = next(email for uuid, email in stored if uuid == chosen["source_id"])
        assert (
            f"bitbucket_pull_comments: {chosen['comments']} row"
            in installation.cli("people", "forget", email, "--yes").stdout
        )
        installation.sync(full=True)
        assert chosen["source_id"] not in {row["source_id"] for row in installation.query(commented)}
        assert chosen["source_id"] not in {row["source_id"] for row in installation.query(query)}
        left = f"SELECT name, nickname, email FROM bitbucket_users WHERE source_id = '{chosen['source_id']}'"
        assert installation.query(left) == [{"name": None, "nickname": None, "email": None}]
        assert installation.sync().written == 0


REASONS = """SELECT u.source_id, i.reason, p.email FROM identities i JOIN bitbucket_users u ON u.id = i.source_id
             JOIN dx_users p ON p.id = i.dx_user_id"""


def test_members_are_found_by_the_addresses_of_the_people_file(environment, run_cli, tmp_path):
    with Sandbox(WorldConfig(seed=5, repositories=3, pull_requests=40, members=30)) as sandbox:
        installation = WithJira(environment, sandbox, run_cli)
        installation.sync()
        idle = installation.sync()
        assert idle.written == 0
        people = sandbox.world.people
        of_commits = {row["email"] for row in installation.query("SELECT email FROM account_emails")}
        silent = next(user for user in people.members if user.email not in of_commits)
        guest = next(user for user in people.outsiders if user.email in of_commits)
        file, strangers = tmp_path / "people.csv", [f"o'brien+{number}@other.example" for number in range(80)]
        stated = [user.email.upper() for user in (*people.members, guest)]
        file.write_text("\n".join(["email", *stated, *strangers, "müller@other.example"]))
        assert installation.cli("people", "import", str(file)).returncode == 0
        linked = people.members[0] if people.members[0] is not silent else people.members[1]
        assert installation.cli("people", "link", linked.uuid, silent.email).returncode == 0
        with psycopg.connect(installation.database_url) as database:  # as authors of commits may have them
            odd = """INSERT INTO account_emails SELECT id, odd, false, true FROM bitbucket_users u,
                     unnest(ARRAY['quo"te@other.example', 'back\\@other.example', 'dot@other.example.']) AS odd
                     WHERE NOT u.active AND NOT u.bot"""
            assert database.execute(odd.encode()).rowcount
        # Ninety addresses in one request, the guest among those whom Bitbucket does not know.
        assert installation.sync().requests == idle.requests + 2
        assert installation.one("SELECT count(*) FROM asked_emails WHERE email ~ '^(quo|back|dot|m.ller)'") == 0
        own = {user.uuid: user.email for user in people.members}
        assert {uuid: email for uuid, email in installation.emails().items() if email} == own
        installation.build()
        whose = {row["source_id"]: (row["reason"], row["email"]) for row in installation.query(REASONS)}
        assert whose[silent.uuid] == ("email", silent.email)
        assert whose[linked.uuid] == ("manual", silent.email)
        again = installation.sync()
        assert (again.requests, again.written) == (idle.requests, 0)
        # Who becomes a member is asked for at once, and who was forgotten is not stored.
        sandbox.world.add_member(guest)
        assert installation.cli("people", "forget", silent.email, "--yes").returncode == 0
        assert installation.cli("people", "import", str(file)).returncode == 0
        installation.sync()
        own = {user.uuid: user.email for user in people.members if user not in (silent, linked)}
        assert {uuid: email for uuid, email in installation.emails().items() if email} == own
        assert installation.one(f"SELECT count(*) FROM account_emails WHERE email = '{silent.email}'") == 0


def test_a_token_that_may_not_ask_for_addresses_costs_one_request_a_day(environment, run_cli, tmp_path):
    with Sandbox(WorldConfig(seed=5, repositories=3, pull_requests=10, members=6)) as sandbox:
        installation = WithJira(environment, sandbox, run_cli)
        installation.sync()
        idle = installation.sync().requests
        file = tmp_path / "people.csv"
        file.write_text("\n".join(["email", *(user.email for user in sandbox.world.people.members)]))
        installation.cli("people", "import", str(file))
        for way in ("forbidden", "invalid", "unseen", "ignored", "yes"):
            sandbox.requests.reset()
            sandbox.token.filters_members = way
            if way == "yes":
                sandbox.faults.on(r"/members\?.*q=", 503)
            assert "members: " not in installation.said()
            verified = installation.one("SELECT count(*) FROM account_emails WHERE verified")
            asked = sum("q=user.email" in request.path for request in sandbox.requests.list())
            assert (verified, asked) == (0, 1), way
            if way == "forbidden":
                assert installation.sync().requests == idle
                assert "Workspace access tokens may ask" in installation.cli("people", "list").stderr
            with psycopg.connect(installation.database_url) as database:
                waited = (
                    "UPDATE email_refusals SET asks_again_at = now() WHERE asks_again_at - refused_at = %s::interval"
                )
                hours = "1 h" if way == "yes" else "24 h"
                assert database.execute(waited, [hours]).rowcount == 1
        sandbox.faults.clear()
        installation.sync()
        assert set(installation.emails().values()) >= {user.email for user in sandbox.world.people.members}
        assert installation.cli("people", "list").stderr == ""
