"""What a person is told when something is wrong: one paragraph, no traceback, no secret; and nothing is stored."""

import base64
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg import sql

from dx_dagster.sandbox import Sandbox, Token, WorldConfig
from dx_dagster.settings import Settings
from dx_dagster.warehouse.embedded import EmbeddedServer
from dx_dagster_tests.conftest import RunCli

GOOD = "ATCTT3xFfGN0-sandbox-token-that-opens-all"
POOR = "ATCTT3xFfGN0-sandbox-token-with-one-scope"
BLIND = "ATCTT3xFfGN0-sandbox-token-of-some-other"
WRONG = "ATCTT3xFfGN0-sandbox-token-that-never-was"
PERSONAL = "ATATT3xFfGN0-sandbox-api-token-of-ann"
EMAIL = "ann@example.com"
PASSWORD = "correct-horse-battery"
SECRETS = (GOOD, POOR, BLIND, WRONG, PERSONAL, PASSWORD)
SMALL = WorldConfig(repositories=4, pull_requests=20, members=4)
Done = CompletedProcess[str]


def tokens() -> list[Token]:
    return [
        Token(GOOD),
        Token(POOR, scopes=["repository"]),
        Token(BLIND, workspaces=["elsewhere"]),
        Token(PERSONAL, kind="api", email=EMAIL),
    ]


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[Sandbox]:
    with Sandbox(SMALL, tokens=tokens()) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(shared_sandbox: Sandbox) -> Iterator[Sandbox]:
    """A Bitbucket with a small workspace; what a test breaks is mended after it."""
    yield shared_sandbox
    shared_sandbox.faults.clear()
    for token in shared_sandbox.tokens:
        token.revoked = False


@pytest.fixture
def env(environment: dict[str, str], sandbox: Sandbox) -> dict[str, str]:
    return environment | {"BITBUCKET_API_URL": sandbox.url}


@pytest.fixture
def connected(run_cli: RunCli, env: dict[str, str]) -> dict[str, str]:
    """An environment, without the token, whose workspace `acme` is connected."""
    done = run_cli("connect", "acme", env=env | {"BITBUCKET_TOKEN": GOOD})
    assert done.returncode == 0, done.stderr
    [stored] = credentials(env)
    assert stored == (None, None)
    return env


def paragraph(done: Done, *said: str, status: int = 1) -> str:
    """The last line of stderr, after whatever progress there was: the paragraph that says what is wrong."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert_no_secret(done)
    last = done.stderr.strip().splitlines()[-1]
    for word in said:
        assert word in last, last
    return last


def alone(done: Done, *said: str) -> str:
    """As `paragraph`; and nothing else was said anywhere."""
    last = paragraph(done, *said)
    assert done.stderr.strip() == last
    assert done.stdout == ""
    return last


def assert_no_secret(done: Done) -> None:
    for secret in SECRETS:
        assert secret not in done.stdout + done.stderr


def tables(env: dict[str, str]) -> set[str]:
    """The tables in which there is anything."""
    query = "SELECT schemaname, relname FROM pg_stat_user_tables ORDER BY 1, 2"
    with psycopg.connect(env["DX_DATABASE_URL"]) as connection:
        found = set()
        for schema, table in connection.execute(query).fetchall():
            some = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(schema, table))
            if connection.execute(some).fetchall() == [(True,)]:
                found.add(table)
    return found


def assert_nothing_stored(env: dict[str, str]) -> None:
    left = {name for name in tables(env) if name.startswith(("bitbucket_", "connection", "credential", "dynamic_"))}
    assert left == set()


def credentials(env: dict[str, str]) -> list[tuple[object, ...]]:
    with psycopg.connect(env["DX_DATABASE_URL"]) as connection:
        query = "SELECT disabled_at, disabled_reason FROM credentials WHERE deleted_at IS NULL ORDER BY id"
        return connection.execute(query).fetchall()


# --- connect: what Bitbucket refuses ---


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(("nowhere", GOOD), ["nowhere", "https://bitbucket.org/WORKSPACE/"], id="unknown workspace"),
        pytest.param(("acme", BLIND), ["acme", "access"], id="a token of another workspace"),
        pytest.param(("acme", WRONG), ["invalid_credentials", "Token is invalid"], id="wrong token"),
        pytest.param(("acme", PERSONAL), ["invalid_credentials", "Bearer"], id="API token sent as an access token"),
        pytest.param(
            ("acme", POOR), ["invalid_permissions", "account", "pipeline", "pullrequest"], id="scopes are missing"
        ),
    ],
)
def test_a_credential_that_does_not_do(run_cli, env, sandbox, given, said):
    workspace, token = given
    told = alone(run_cli("connect", workspace, env=env | {"BITBUCKET_TOKEN": token}), *said)
    assert told.startswith(("invalid_credentials: ", "invalid_permissions: ", "no_resources: "))
    curl = told[told.index("curl ") :]
    assert "Authorization: Bearer YOUR_TOKEN" in curl
    assert sandbox.url in curl
    assert_nothing_stored(env)


def test_an_access_token_sent_as_an_api_token(run_cli, env):
    given = {"BITBUCKET_EMAIL": EMAIL, "BITBUCKET_API_TOKEN": GOOD}
    told = alone(run_cli("connect", "acme", env=env | given), "invalid_credentials", "Basic")
    assert f"-u {EMAIL}:YOUR_TOKEN" in told
    assert_nothing_stored(env)


def test_an_api_token_with_its_address_is_taken(run_cli, env):
    given = {"BITBUCKET_EMAIL": EMAIL, "BITBUCKET_API_TOKEN": PERSONAL}
    done = run_cli("connect", "acme", env=env | given)
    assert (done.returncode, done.stderr) == (0, "")
    assert credentials(env) == [(None, None)]


def test_a_workspace_given_as_an_address_is_taken(run_cli, env):
    done = run_cli("connect", "https://bitbucket.org/acme/", env=env | {"BITBUCKET_TOKEN": f" {GOOD}\n"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "acme" in done.stdout
    assert credentials(env) == [(None, None)]
    with psycopg.connect(env["DX_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT workspace FROM connections").fetchall() == [("acme",)]
        assert connection.execute("SELECT partition FROM dagster.dynamic_partitions").fetchall() == [("acme",)]


# --- connect: a server that is no Bitbucket ---


@pytest.mark.parametrize("fault", ["html", "truncated", "503", "throttle", "reset"])
def test_a_server_that_does_not_answer_as_bitbucket_does(run_cli, env, sandbox, fault):
    sandbox.faults.on(".*", fault)
    told = alone(run_cli("connect", "acme", env=env | {"BITBUCKET_TOKEN": GOOD}), "Nothing was stored")
    assert "<" not in told, "a page's markup"
    assert_nothing_stored(env)


def test_a_server_that_hangs(run_cli, env, sandbox):
    sandbox.faults.hang_seconds = 45
    sandbox.faults.on(".*", "hang")
    alone(run_cli("connect", "acme", env=env | {"BITBUCKET_TOKEN": GOOD}), "unavailable", "Nothing was stored")
    assert_nothing_stored(env)


def test_a_server_that_is_not_there(run_cli, env):
    nobody = {"BITBUCKET_API_URL": "http://127.0.0.1:1/2.0", "BITBUCKET_TOKEN": GOOD}
    alone(run_cli("connect", "acme", env=env | nobody), "unavailable", "127.0.0.1", "Nothing was stored")
    assert_nothing_stored(env)


# --- connect: what is wrong before Bitbucket is asked ---


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(
            {"BITBUCKET_TOKEN": GOOD, "BITBUCKET_API_TOKEN": PERSONAL, "BITBUCKET_EMAIL": EMAIL},
            ["BITBUCKET_TOKEN", "BITBUCKET_API_TOKEN", "both set"],
            id="two kinds at once",
        ),
        pytest.param({"BITBUCKET_EMAIL": EMAIL}, ["BITBUCKET_EMAIL and BITBUCKET_API_TOKEN"], id="address alone"),
        pytest.param(
            {"BITBUCKET_API_TOKEN": PERSONAL}, ["BITBUCKET_EMAIL and BITBUCKET_API_TOKEN"], id="API token alone"
        ),
        pytest.param({}, ["No credential is given", "BITBUCKET_TOKEN"], id="none, and nobody to ask"),
        pytest.param({"BITBUCKET_TOKEN": f"{GOOD} {GOOD}"}, ["spaces"], id="not one word"),
        pytest.param(
            {"BITBUCKET_TOKEN": GOOD, "BITBUCKET_API_URL": "http://bitbucket.example.com/2.0"},
            ["BITBUCKET_API_URL", "https", "bitbucket.example.com"],
            id="plain http",
        ),
        pytest.param(
            {"BITBUCKET_TOKEN": GOOD, "BITBUCKET_API_URL": f"https://ann:{PASSWORD}@bitbucket.example.com/2.0"},
            ["BITBUCKET_API_URL", "user name or password"],
            id="a password in the address",
        ),
        pytest.param(
            {"BITBUCKET_TOKEN": GOOD, "BITBUCKET_API_URL": "bitbucket.example.com"},
            ["BITBUCKET_API_URL", "https://api.bitbucket.org/2.0"],
            id="no address",
        ),
        *(
            pytest.param(
                {"BITBUCKET_TOKEN": GOOD, "BITBUCKET_API_URL": f"https://bitbucket.example.com{rest}"},
                ["BITBUCKET_API_URL"],
                id=f"an address with {rest}",
            )
            for rest in (":port/2.0", "/2.0?x=1", "/2.0#x")
        ),
        pytest.param(
            {"BITBUCKET_TOKEN": GOOD, "DX_SECRET_KEYS": "no-key"}, ["DX_SECRET_KEYS", "Fernet"], id="malformed keys"
        ),
        pytest.param({"BITBUCKET_TOKEN": GOOD, "DX_SECRET_KEYS": ","}, ["DX_SECRET_KEYS"], id="no keys"),
        pytest.param({"BITBUCKET_TOKEN": GOOD, "DX_BUDGET_WINDOW": "0"}, ["DX_BUDGET_WINDOW"], id="no window"),
        pytest.param({"BITBUCKET_TOKEN": GOOD, "DX_BUDGET_WINDOW": "soon"}, ["DX_BUDGET_WINDOW"], id="no number"),
    ],
)
def test_settings_that_cannot_be_used(run_cli, env, given, said):
    alone(run_cli("connect", "acme", env=env | given), *said)
    assert_nothing_stored(env)


@pytest.mark.parametrize("name", ["", "ac me", "https://example.com/acme"])
def test_a_workspace_that_can_be_none(run_cli, env, name):
    alone(run_cli("connect", name, env=env | {"BITBUCKET_TOKEN": GOOD}), "no name of a workspace", "acme")
    assert_nothing_stored(env)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_workspace_that_leads_out_of_the_api(run_cli, env, name):
    alone(run_cli("connect", name, env=env | {"BITBUCKET_TOKEN": GOOD}), "no name of a workspace")


# --- the database ---


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param(f"mysql://dx:{PASSWORD}@localhost/dx", ["DX_DATABASE_URL", "postgresql://"], id="of another kind"),
        pytest.param(PASSWORD, ["DX_DATABASE_URL", "postgresql://"], id="a password alone"),
        pytest.param(f"postgresql://dx:{PASSWORD}@127.0.0.1:1/dx", ["DX_DATABASE_URL", "refused"], id="nobody there"),
        pytest.param(
            f"postgresql://dx:{PASSWORD}@nowhere.invalid/dx", ["DX_DATABASE_URL", "nowhere.invalid"], id="unknown host"
        ),
        pytest.param(f"postgresql://dx:{PASSWORD}@[::1/dx", ["DX_DATABASE_URL"], id="half an address"),
        *(
            pytest.param(
                f"postgresql:{rest}",
                ["DX_DATABASE_URL"],
                id=what,
            )
            for what, rest in (
                ("a port that is no number", f"//dx:{PASSWORD}@127.0.0.1:port/dx"),
                ("one slash", f"/dx:{PASSWORD}@127.0.0.1/dx"),
                ("an unknown option", f"//dx:{PASSWORD}@127.0.0.1:1/dx?nosuch=1"),
            )
        ),
    ],
)
def test_a_database_that_cannot_be_had(run_cli, env, url, said):
    alone(run_cli("migrate", env=env | {"DX_DATABASE_URL": url}), *said)


def test_a_password_with_an_at_sign_is_not_shown(run_cli, env):
    url = f"postgresql://dx:half@{PASSWORD}@127.0.0.1:1/dx"
    alone(run_cli("migrate", env=env | {"DX_DATABASE_URL": url}), "DX_DATABASE_URL", "%40")


def test_a_password_with_a_percent_sign_is_not_shown(run_cli, env):
    url = env["DX_DATABASE_URL"].replace("postgres@", f"postgres:{PASSWORD}%zz@")
    alone(run_cli("connect", "acme", env=env | {"DX_DATABASE_URL": url, "BITBUCKET_TOKEN": GOOD}), "DX_DATABASE_URL")


def test_a_database_that_does_not_exist(run_cli, env, postgres):
    url = postgres.url.replace("/postgres?", "/not_there?")
    given = {"DX_DATABASE_URL": url, "BITBUCKET_TOKEN": GOOD}
    alone(run_cli("connect", "acme", env=env | given), "DX_DATABASE_URL", 'database "not_there" does not exist')


@pytest.fixture
def guarded(postgres: EmbeddedServer, database_url: str) -> Iterator[str]:
    """The address of a database that asks for a password, with a place for it."""
    rules = postgres.folder / "pg_hba.conf"
    before = rules.read_text()
    name = database_url.partition("@/")[2].partition("?")[0]
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE guest LOGIN SUPERUSER PASSWORD {}").format(sql.Literal(PASSWORD.swapcase()))
        )
        rules.write_text(f"local {name} guest scram-sha-256\n{before}")
        connection.execute("SELECT pg_reload_conf()")
        yield database_url.replace("postgres@", "guest:{}@")
        rules.write_text(before)
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("DROP ROLE guest")


def test_a_database_that_refuses_the_password(run_cli, env, guarded):
    wrong = {"DX_DATABASE_URL": guarded.format(PASSWORD)}
    for command in (["connect", "acme"], ["sync", "acme"]):
        done = run_cli(*command, env=env | wrong | {"BITBUCKET_TOKEN": GOOD})
        alone(done, "DX_DATABASE_URL", "password authentication failed", "guest")
    assert run_cli("migrate", env=env | {"DX_DATABASE_URL": guarded.format(PASSWORD.swapcase())}).returncode == 0


# --- sync ---


def test_a_day_that_is_none_is_wrong_usage(run_cli, env):
    done = run_cli("sync", "acme", "--since", "yesterday", env=env)
    assert done.returncode == 2
    assert "'yesterday' is no date" in done.stderr
    assert "2026-01-31" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["sync"], ["sync", "acme", "--nope"], ["connect", "acme", "--type", "github"], ["nope"], ["up", "--ui-port", "0"]],
)
def test_wrong_usage(run_cli, env, arguments):
    done = run_cli(*arguments, env=env)
    assert done.returncode == 2
    assert "Usage" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["sync"], ["verify"], ["credentials", "list"]])
def test_a_workspace_that_was_never_connected(run_cli, env, command):
    alone(run_cli(*command, "acme", env=env), "acme", "never connected", "dx-dagster connect acme")
    assert_nothing_stored(env)


def test_a_token_that_was_revoked(run_cli, connected, sandbox):
    sandbox.tokens[0].revoked = True
    done = run_cli("sync", "acme", env=connected)
    paragraph(done, "invalid_credentials")
    [(disabled_at, reason)] = credentials(connected)
    assert disabled_at is not None
    assert "invalid" in str(reason)
    listed = run_cli("credentials", "list", "acme", env=connected)
    assert f"disabled: {reason}" in listed.stdout
    assert_no_secret(listed)

    paragraph(run_cli("sync", "acme", env=connected), "invalid_credentials", "dx-dagster credentials add acme")

    verified = run_cli("verify", "acme", env=connected)
    paragraph(verified, "acme", "failed")
    assert "invalid_credentials" in verified.stdout
    assert "curl " in verified.stdout
    assert "Authorization: Bearer YOUR_TOKEN" in verified.stdout

    sandbox.tokens[0].revoked = False
    again = run_cli("verify", "acme", env=connected)
    assert (again.returncode, again.stderr) == (0, "")
    assert credentials(connected) == [(None, None)]


def test_keys_that_do_not_open_what_is_stored(run_cli, connected):
    others = connected | {"DX_SECRET_KEYS": Fernet.generate_key().decode()}
    for command in ("sync", "verify"):
        paragraph(run_cli(command, "acme", env=others), "DX_SECRET_KEYS", "credential")
    assert credentials(connected) == [(None, None)], "a wrong key says nothing about the credential"
    rotated = connected | {"DX_SECRET_KEYS": f"{Fernet.generate_key().decode()},{connected['DX_SECRET_KEYS']}"}
    assert run_cli("verify", "acme", env=rotated).returncode == 0


def test_a_credential_of_nobody_is_not_removed(run_cli, connected):
    for command in ("disable", "remove"):
        alone(run_cli("credentials", command, "acme", "4711", env=connected), "acme", "no credential 4711")


def test_a_scope_that_was_taken_away(run_cli, connected, sandbox):
    before = sandbox.tokens[0].scopes
    sandbox.tokens[0].scopes = ["account", "repository", "pipeline"]
    try:
        paragraph(run_cli("sync", "acme", env=connected), "invalid_permissions", "pullrequest")
    finally:
        sandbox.tokens[0].scopes = before
    assert credentials(connected) == [(None, None)], "the credential is good, it only may too little"


# --- a token goes nowhere ---


def test_a_token_leaves_no_trace(run_cli, bare_environment, sandbox):
    """With the embedded database, so that its files and its log of changes are searched too."""
    env = bare_environment | {"BITBUCKET_API_URL": sandbox.url}
    access, personal = {"BITBUCKET_TOKEN": GOOD}, {"BITBUCKET_EMAIL": EMAIL, "BITBUCKET_API_TOKEN": PERSONAL}
    for given, *arguments in (
        (access, "connect", "acme"),
        (personal, "credentials", "add", "acme"),
        (personal, "sync", "acme", "--json"),
        ({}, "verify", "acme"),
    ):
        done = run_cli(*arguments, env=env | given)
        assert done.returncode == 0, done.stderr
        assert_no_secret(done)
    for token in sandbox.tokens:
        token.revoked = True
    for command in ("sync", "verify"):
        done = run_cli(command, "acme", env=env)
        assert done.returncode == 1
        assert_no_secret(done)

    home = Path(env["DX_HOME"])
    traces = [secret.encode() for secret in (GOOD, PERSONAL)]
    traces += [base64.b64encode(f"{EMAIL}:{PERSONAL}".encode())]
    written = [path for path in home.rglob("*") if path.is_file()]
    assert len(written) > 100
    assert [path for path in written if any(trace in path.read_bytes() for trace in traces)] == []

    server = EmbeddedServer(home / "postgres")
    server.join()
    try:
        rows = [row for table in every_row(server.url) for row in table]
    finally:
        server.leave()
    assert len(rows) > 100
    assert [row for row in rows if any(trace.decode() in row for trace in traces)] == []


def every_row(url: str) -> list[list[str]]:
    """All rows of all tables, ours and Dagster's, as text; texts that are compressed in the files are not here."""
    query = "SELECT schemaname, relname FROM pg_stat_user_tables"
    with psycopg.connect(url) as connection:
        return [
            [row for (row,) in connection.execute(sql.SQL("SELECT t::text FROM {} t").format(name)).fetchall()]
            for name in (sql.Identifier(*one) for one in connection.execute(query).fetchall())
        ]


# --- what the documentation says ---


def test_every_variable_is_described():
    described = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
    variables = {str(field.alias) for field in Settings.model_fields.values()}
    assert {name for name in variables if f"`{name}`" not in described} == set()
