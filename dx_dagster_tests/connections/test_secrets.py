"""Every secret that goes in through any door comes out through none."""

import base64
import gzip
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from psycopg import sql

from dx_dagster.sandbox import Sandbox
from dx_dagster.sandbox.config import WorldConfig
from dx_dagster.sandbox.tokens import Token
from dx_dagster_tests.commands import run_new
from dx_dagster_tests.conftest import RunCli
from dx_dagster_tests.servers import Served

TOKEN = "ATCTT3xWorkspaceTokenOfTheScan0001"
SECOND = "ATCTT3xWorkspaceTokenOfTheScan0002"
NARROW = "ATCTT3xWorkspaceTokenOfTheScan0003"
API_TOKEN = "ATATT3xApiTokenOfTheScan0004"
WRONG = "ATATT3xWrongTokenOfTheScan0005"
ODD = "ATCTT3x token of the scan 0006"
JIRA_TOKEN = "ATATT3xJiraTokenOfTheScan0007"
CRASHING = "ATCTT3xWorkspaceTokenOfTheScan0008"
EMAIL = "robot@example.com"
BASIC = [base64.b64encode(f"{EMAIL}:{one}".encode()).decode() for one in (API_TOKEN, WRONG, JIRA_TOKEN)]
SECRETS = [TOKEN, SECOND, NARROW, API_TOKEN, WRONG, ODD, JIRA_TOKEN, CRASHING, *BASIC]


class Seen:
    """All that anybody can read afterwards."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def add(self, where: str, text: str) -> str:
        self.texts[f"{where} ({len(self.texts)})"] = text
        return text

    def hits(self, secrets: list[str]) -> list[str]:
        """Where which secret shows; a part of it counts, but for the last four characters."""
        found = []
        for where, text in self.texts.items():
            found += [f"{where}: {secret[:8]}…" for secret in secrets if secret in text or secret[4:-4] in text]
        return found


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    tokens = [Token(TOKEN), Token(SECOND), Token(NARROW, scopes=["repository"]), Token(API_TOKEN, "api", EMAIL)]
    tokens.append(Token(CRASHING))
    with Sandbox(WorldConfig(repositories=4, pull_requests=6, members=4), tokens=tokens) as sandbox:
        sandbox.jira.tokens.append(Token(JIRA_TOKEN, "api", EMAIL))
        yield sandbox


@contextmanager
def watching_processes(seen: Seen) -> Iterator[None]:
    done, lines = threading.Event(), set()

    def watch() -> None:
        while not done.wait(0.5):
            for process in psutil.process_iter(["cmdline"]):
                lines.add(" ".join(process.info["cmdline"] or ()))

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    done.set()
    thread.join()
    assert any("dx_dagster.cli" in line for line in lines)
    seen.add("ps", "\n".join(lines))


def test_no_secret_comes_out(environment, sandbox, run_cli: RunCli, dx_home, tmp_path):
    seen, env = Seen(), {**environment, "BITBUCKET_API_URL": sandbox.url}

    def cli(*arguments: str, expected: int = 0, new: bool = False, **more: str) -> str:
        done = run_new(arguments, {**env, **more}) if new else run_cli(*arguments, env={**env, **more})
        assert done.returncode == expected, done.stderr
        return seen.add(" ".join(arguments), done.stdout + done.stderr)

    with watching_processes(seen):
        cli("connect", "acme", expected=1, BITBUCKET_TOKEN=WRONG)
        cli("connect", "acme", expected=1, BITBUCKET_TOKEN=ODD)
        cli("connect", "acme", expected=1, BITBUCKET_EMAIL=EMAIL, BITBUCKET_API_TOKEN=WRONG)
        cli("connect", "acme", new=True, BITBUCKET_TOKEN=TOKEN)
        cli("credentials", "add", "acme", new=True, BITBUCKET_EMAIL=EMAIL, BITBUCKET_API_TOKEN=API_TOKEN)
        cli("credentials", "list", "acme")
        jira = ("connect", "acme", "--type", "jira_cloud", "--jira-url", sandbox.jira_url)
        cli(*jira, expected=1, JIRA_EMAIL=EMAIL, JIRA_API_TOKEN=WRONG)
        cli(*jira, JIRA_EMAIL=EMAIL, JIRA_API_TOKEN=JIRA_TOKEN)
        cli("sync", "acme", "--json")
        done = run_cli("api-keys", "create", "scan", env=env)
        key = done.stdout.strip()
        cli("api-keys", "list")
        with serving(env, tmp_path / "serve.log") as url, httpx.Client(base_url=url, timeout=30) as client:
            _use_the_api(client, key, seen)
            session, webhook_secret = _use_the_page(client, key, seen)
            with _writes_failing(env["DX_DATABASE_URL"], "credential_checks"):
                assert "Traceback" in cli("connect", "acme", expected=1, BITBUCKET_TOKEN=CRASHING)
                body = {"secrets": {"api_token": CRASHING}}
                auth = {"Authorization": f"Bearer {key}"}
                answer = client.post("/api/connections/1/credentials.create", json=body, headers=auth)
                assert (answer.status_code, answer.json()["error"]) == (500, "unavailable")
                seen.add("a crash of the API", answer.text)
        assert "Traceback" in (tmp_path / "serve.log").read_text()
        with _writes_failing(env["DX_DATABASE_URL"], "bitbucket_repositories"):
            cli("sync", "acme", expected=1)
        sandbox.tokens[1].revoked = True
        cli("verify", "acme", expected=1)
        cli("sync", "acme")
        cli("credentials", "rekey")
        cli("status", "--json")
    for file in [*dx_home.rglob("*"), tmp_path / "serve.log"]:
        if file.is_file():
            content = file.read_bytes()
            seen.add(str(file), (gzip.decompress(content) if file.suffix == ".gz" else content).decode("latin-1"))
    for table, dump in _dump(env["DX_DATABASE_URL"]):
        seen.add(table, dump)
    assert {"public.credentials", "dagster.event_logs", "dagster.runs"} <= {one.split(" ")[0] for one in seen.texts}
    assert "not thought of" in "".join(text for where, text in seen.texts.items() if "dagster.event_logs" in where)
    assert seen.hits([*SECRETS, key, session, webhook_secret, env["DX_SECRET_KEYS"]]) == []


@contextmanager
def _writes_failing(database_url: str, table: str) -> Iterator[None]:
    """What nobody has thought of goes wrong, and ends in a traceback."""
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not thought of'; END $$"
        )
        database.execute(f"CREATE TRIGGER fail BEFORE INSERT ON {table} EXECUTE FUNCTION fail()".encode())
        yield
        database.execute("DROP FUNCTION fail CASCADE")


def _use_the_api(client: httpx.Client, key: str, seen: Seen) -> None:
    auth = {"Authorization": f"Bearer {key}"}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("create", {"secrets": {"api_token": secret}, "label": "scan"}) for secret in (SECOND, NARROW, WRONG, ODD)
    ]
    bodies += [
        ("create", {"settings": {"username": EMAIL}, "secrets": {"password": WRONG, "api_token": TOKEN}}),
        ("create", {"settings": {"username": EMAIL}, "secrets": {"password": WRONG}}),
        ("create", {"secrets": {"api_token": [WRONG]}}),
        ("create", {"secrets": WRONG}),
        ("update", {"id": 1, "secrets": {"api_token": WRONG}}),
        ("update", {"id": 1, "secrets": {"api_token": SECOND}}),
        ("update", {"id": WRONG}),
    ]
    for method, body in bodies:
        answer = client.post(f"/api/connections/1/credentials.{method}", json=body, headers=auth)
        seen.add(f"API {method}", answer.text + str(answer.headers))
        nested = body.get("secrets")
        form = {f"secrets[{name}]": str(value) for name, value in nested.items()} if isinstance(nested, dict) else {}
        answer = client.post(f"/api/connections/1/credentials.{method}", data=form, headers=auth)
        seen.add(f"form {method}", answer.text)
    broken = f'{{"secrets": {{"api_token": "{WRONG}"'
    answer = client.post("/api/connections/1/credentials.create", content=broken, headers=auth)
    seen.add("broken JSON", answer.text)
    for path in ("/api/connections.list", "/api/connections.info/1", "/api/connections/1/credentials.list",
                 "/api/connections/1/credentials.info/1", "/openapi.json", "/docs"):  # fmt: skip
        seen.add(path, client.get(path, headers=auth).text)
    seen.add("a wrong key", client.get("/api/connections.list", headers={"Authorization": f"Bearer {WRONG}"}).text)
    seen.add("a key in the query", client.get("/api/connections.list", params={"token": WRONG}).text)


def _use_the_page(client: httpx.Client, key: str, seen: Seen) -> tuple[str, str]:
    """The session, and the secret of the webhook, which the page shows when it is told to."""

    def token(text: str) -> str:
        found = re.search(r'name="csrf_token" value="([0-9a-f]+)"', text)
        assert found
        return found[1]

    csrf = token(seen.add("sign-in", client.get("/connections/sign-in").text))
    seen.add("wrong sign-in", client.post("/connections/sign-in", data={"key": WRONG, "csrf_token": csrf}).text)
    client.post("/connections/sign-in", data={"key": key, "csrf_token": csrf})
    csrf = token(seen.add("overview", client.get("/connections").text))
    for secret in (WRONG, ODD, NARROW):
        for method in ("api_token", "basic"):
            form = {"workspace": "acme", "method": method, "username": EMAIL, "secret": secret, "csrf_token": csrf}
            seen.add("new", client.post("/connections/new", data=form).text)
            seen.add("add", client.post("/connections/1/credentials", data=form).text)
            seen.add("edit", client.post("/connections/1/credentials/1", data=form).text)
    client.post("/connections/1/check", data={"csrf_token": csrf})
    seen.add("connection", client.get("/connections/1").text)
    seen.add("credential", client.get("/connections/1/credentials/1").text)
    shown = client.post("/connections/1/webhook/show", data={"csrf_token": csrf}).text
    webhook_secret = re.search(r'id="webhook-secret" readonly value="([^"]+)"', shown)
    assert webhook_secret
    seen.add("connection again", client.get("/connections/1").text)
    return client.cookies["dx_session"], webhook_secret[1]


@contextmanager
def serving(env: dict[str, str], log: Path) -> Iterator[str]:
    served = Served(env, log)
    yield served.url
    served.stop()


def _dump(database_url: str) -> Iterator[tuple[str, str]]:
    """Every row of every table, as text."""
    with psycopg.connect(database_url) as database:
        tables = database.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'dagster')"
        ).fetchall()
        for schema, table in tables:
            with database.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(schema, table))) as copy:
                yield f"{schema}.{table}", b"".join(bytes(part) for part in copy).decode()
