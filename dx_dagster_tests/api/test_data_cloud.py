"""The Data Cloud API, as a client written for DX uses it."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import httpx
import psycopg
import pytest
import schemathesis
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis.checks import CHECKS, load_all_checks

from dx_dagster.api import throttle
from dx_dagster.api.app import create_app
from dx_dagster.bitbucket import Timeouts
from dx_dagster.connections import actions, verification
from dx_dagster.connections.input import new_credential
from dx_dagster.settings import Settings
from dx_dagster.warehouse import api_keys
from dx_dagster.warehouse.database import Warehouse
from dx_dagster_tests.connecting import API_TOKEN, EMAIL, SECOND, TOKEN, on_warehouse
from dx_dagster_tests.servers import serving


@pytest.fixture
def environment(environment, sandbox) -> dict[str, str]:
    return {**environment, "BITBUCKET_API_URL": sandbox.url}


@pytest.fixture
def key(settings, database_url) -> str:
    """A key for an installation with one connection, which has one credential."""

    async def prepare(warehouse: Warehouse) -> SecretStr:
        await actions.connect(settings, warehouse, "acme", new_credential(SecretStr(TOKEN)))
        return await api_keys.create(warehouse, "tests")

    made: SecretStr = on_warehouse(database_url, prepare)
    return made.get_secret_value()


@pytest.fixture
def client(settings, key, monkeypatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr(verification, "_TIMEOUTS", Timeouts(connect=1, read=1, write=1, pool=1, total=2))
    with client_of(settings, key) as client:
        yield client


@contextmanager
def client_of(settings: Settings, key: str) -> Iterator[httpx.Client]:
    with (
        serving(create_app(settings)) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client,
    ):
        yield client


def create(client: httpx.Client, secrets: dict[str, str], **body: Any) -> httpx.Response:
    return client.post("/api/connections/1/credentials.create", json={"secrets": secrets, **body})


def error(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert body["ok"] is False
    return answer.status_code, body["error"]


def test_connections(client):
    answer = client.get("/api/connections.list")
    assert answer.status_code == 200
    [connection] = answer.json()["connections"]
    assert connection.pop("created_at").endswith("Z")
    assert connection == {
        "id": 1,
        "type": "bitbucket",
        "name": "acme",
        "state": "verified",
        "last_error": None,
        "disabled_at": None,
        "last_synced_at": None,
        "supports_multiple_credentials": True,
    }
    info = client.get("/api/connections.info/1").json()["connection"]
    assert (info["settings"], info["disabled_reason"], set(info) - set(connection)) == (
        {"workspace": "acme"},
        None,
        {"settings", "disabled_reason", "updated_at", "created_at"},
    )
    for wrong in ("2", "0", "-1", "x", "99999999999999999999", "1.5"):
        assert error(client.get(f"/api/connections.info/{wrong}")) == (422, "connection_not_found")
        assert error(client.get(f"/api/connections/{wrong}/credentials.list")) == (422, "connection_not_found")


def test_the_life_of_a_credential(client):
    answer = create(client, {"api_token": SECOND}, label="Automation", expiration_date="2030-01-31")
    assert answer.status_code == 201
    made = answer.json()["credential"]
    assert {name: made[name] for name in ("id", "type", "label", "settings", "expiration_date", "disabled_at")} == {
        "id": 2, "type": "bitbucket", "label": "Automation", "settings": {}, "expiration_date": "2030-01-31",
        "disabled_at": None,
    }  # fmt: skip
    answer = client.post("/api/connections/1/credentials.update", json={"id": 2, "label": " new\n3  \x1b[2J one\u2028"})
    assert (answer.status_code, answer.json()["credential"]["label"]) == (200, "new 3 [2J one")
    body = {"id": 2, "settings": {"username": EMAIL}, "secrets": {"password": API_TOKEN}, "expiration_date": None}
    changed = client.post("/api/connections/1/credentials.update", json=body).json()["credential"]
    assert (changed["settings"], changed["expiration_date"]) == ({"username": EMAIL}, None)
    listed = client.get("/api/connections/1/credentials.list").json()["credentials"]
    assert [one["id"] for one in listed] == [1, 2]
    info = client.get("/api/connections/1/credentials.info/2").json()["credential"]
    assert info == changed | {"deleted_at": None}
    answer = client.post("/api/connections/1/credentials.delete", json={"id": 2})
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    assert error(client.post("/api/connections/1/credentials.delete", json={"id": 2})) == (422, "credential_not_found")
    assert error(client.post("/api/connections/1/credentials.update", json={"id": 2})) == (422, "credential_not_found")
    assert len(client.get("/api/connections/1/credentials.list").json()["credentials"]) == 1
    assert client.get("/api/connections/1/credentials.info/2").json()["credential"]["deleted_at"].endswith("Z")


@pytest.mark.parametrize(
    "form",
    [
        {"secrets[api_token]": SECOND, "label": "form"},
        {"secrets.api_token": SECOND, "label": "form"},
        {"secrets": f'{{"api_token": "{SECOND}"}}', "label": "form"},
        {"settings[username]": EMAIL, "secrets[password]": API_TOKEN, "label": "form"},
    ],
)
def test_forms_are_taken_too(client, form):
    answer = client.post("/api/connections/1/credentials.create", data=form)
    assert (answer.status_code, answer.json()["credential"]["label"]) == (201, "form")
    answer = client.post("/api/connections/1/credentials.create", files={name: (None, form[name]) for name in form})
    assert (answer.status_code, answer.json()["credential"]["id"]) == (201, 2)
    assert client.post("/api/connections/1/credentials.delete", data={"id": "2"}).json() == {"ok": True}


def test_verification_errors_have_code_sentence_and_curl(client, sandbox):
    before = client.get("/api/connections/1/credentials.list").json()
    answer = create(client, {"api_token": "ATATT3xUnknown"})
    assert error(answer) == (422, "invalid_credentials")
    assert answer.json()["message"].endswith("Give it as secrets.password, with settings.username.")
    assert "YOUR_TOKEN" in answer.json()["curl"]
    sandbox.tokens[1].scopes = ["repository"]
    answer = create(client, {"api_token": SECOND})
    assert error(answer) == (422, "invalid_permissions")
    assert "account, pipeline, pullrequest" in answer.json()["message"]
    sandbox.tokens[1].scopes, sandbox.tokens[1].workspaces = None, ["other"]
    assert error(create(client, {"api_token": SECOND}))[1] in {"invalid_permissions", "no_resources"}
    sandbox.faults.on("/repositories/acme", "html")
    assert error(create(client, {"api_token": SECOND})) == (422, "unavailable")
    assert client.get("/api/connections/1/credentials.list").json() == before


@pytest.mark.parametrize(
    "body",
    [
        {"settings": {"username": EMAIL}, "secrets": {"api_token": TOKEN}},
        {"settings": {"username": EMAIL}, "secrets": {"api_token": TOKEN, "password": API_TOKEN}},
        {"settings": {"username": EMAIL}},
        {"secrets": {"password": API_TOKEN}},
        {"secrets": {"api_token": "  "}},
        {},
    ],
)
def test_both_kinds_at_once_or_half_of_one_are_refused(client, body):
    answer = client.post("/api/connections/1/credentials.create", json=body)
    assert error(answer) == (422, "invalid_credentials")
    assert "secrets.api_token" in answer.json()["message"]


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"null", b'"x"', b"\xff", b'{"label": 1}', b'{"secrets": []}', b'{"settings": "x"}',
     b'{"label": "a\\u0000b"}', b'{"label": "\\ud800"}', b'{"secrets": {"api_token": 7}}', b"[" * 20_000,
     b'{"expiration_date": "tomorrow"}', b'{"expiration_date": 7}', b'{"label": "' + b"x" * 70_000 + b'"}'],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_invalid_json(client, content):
    answer = client.post(
        "/api/connections/1/credentials.create", content=content, headers={"Content-Type": "application/json"}
    )
    assert error(answer) == (422, "invalid_json")


def test_an_id_that_cannot_be_one(client):
    for wrong in (None, "x", 0, -1, 2**40, 1.5, True, [1]):
        for method in ("update", "delete"):
            answer = client.post(f"/api/connections/1/credentials.{method}", json={"id": wrong})
            assert error(answer) == (422, "credential_not_found")
    for wrong in ("x", "0", "7", "99999999999999"):
        assert error(client.get(f"/api/connections/1/credentials.info/{wrong}")) == (422, "credential_not_found")


def test_a_credential_of_another_connection(client, settings, database_url):
    new = new_credential(SecretStr(SECOND))
    on_warehouse(database_url, lambda w: actions.connect(settings, w, "acme", new, kind="bitbucket_pipelines"))
    listed = client.get("/api/connections.list").json()["connections"]
    assert [one["type"] for one in listed] == ["bitbucket", "bitbucket_pipelines"]
    assert error(client.get("/api/connections/1/credentials.info/2")) == (422, "credential_not_found")
    assert error(client.post("/api/connections/1/credentials.delete", json={"id": 2}))[1] == "credential_not_found"


def test_nobody_passes_without_a_key(client, key, run_cli):
    methods = [("GET", "connections.list"), ("GET", "connections.info/1"), ("GET", "connections/1/credentials.list"),
               ("GET", "connections/1/credentials.info/1"), ("GET", "connections/x/credentials.list")]  # fmt: skip
    methods += [("POST", f"connections/1/credentials.{name}") for name in ("create", "update", "delete")]
    for method, path in methods:
        for header in ("", "Bearer", "Basic abc", key):
            answer = client.request(method, f"/api/{path}", headers={"Authorization": header})
            assert error(answer) == (401, "not_authed")
    assert "never used" in run_cli("api-keys", "list").stdout
    assert client.get("/api/connections.list").status_code == 200
    assert "last used" in run_cli("api-keys", "list").stdout
    assert run_cli("api-keys", "revoke", "tests", "--yes").returncode == 0
    assert error(client.get("/api/connections.list")) == (401, "not_authed")
    listed = run_cli("api-keys", "list").stdout
    assert "revoked" in listed
    assert key not in listed
    assert run_cli("api-keys", "revoke", "tests", "--yes").returncode == 1


def test_guessing_is_slowed_down_and_good_keys_go_on(client):
    assert client.get("/api/connections.list").status_code == 200
    answers = [client.get("/api/connections.list", headers={"Authorization": f"Bearer guess{n}"}) for n in range(25)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 5
    assert error(answers[-1]) == (429, "rate_limited")
    assert 0 < int(answers[-1].headers["retry-after"]) <= 61
    assert client.get("/api/connections.list").status_code == 200


def test_guessing_is_slowed_down_by_all_processes_of_the_api_together(client, settings, key, database_url):
    def tried(at: httpx.Client, count: int) -> list[int]:
        wrong = ({"Authorization": f"Bearer guess{number}"} for number in range(count))
        return [at.get("/api/connections.list", headers=one).status_code for one in wrong]

    assert tried(client, 12) == [401] * 12
    with client_of(settings, key) as another:
        assert tried(another, 9) == [401] * 8 + [429]
        assert another.get("/api/connections.list").status_code == 200
    assert tried(client, 2) == [429, 429]  # it learns so from the database
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE wrong_keys SET given_at = ARRAY[now() - interval '61 s']")
    with client_of(settings, key) as later:
        assert tried(later, 1) == [401]


def test_requests_with_one_key_are_limited_for_all_processes_of_the_api_together(client, settings, key, database_url):
    def count(change: str) -> None:
        with psycopg.connect(database_url) as connection:
            assert connection.execute(f"UPDATE api_key_requests SET {change}".encode()).rowcount == 1

    assert client.get("/api/connections.list").status_code == 200
    time.sleep(max(0, datetime.now(UTC).second - 50))  # within one minute
    count("requests = 2999, minute = date_trunc('minute', now())")
    assert client.get("/api/connections.list").status_code == 200
    with client_of(settings, key) as another:
        answer = another.get("/api/connections.list")
        assert error(answer) == (429, "rate_limited")
        assert 0 < int(answer.headers["retry-after"]) <= 61
        count("minute = minute - interval '1 minute'")
        assert another.get("/api/connections.list").status_code == 200


def test_a_repeated_request_adds_nothing_twice_and_its_key_is_of_no_other(client: httpx.Client, sandbox, database_url):
    def send(key: str, secret: str, **body: str) -> httpx.Response:
        json = {"secrets": {"api_token": secret}, **body}
        return client.post("/api/connections/1/credentials.create", json=json, headers={"Idempotency-Key": key})

    assert error(send("one", "wrong")) == (422, "invalid_credentials")  # it adds nothing, so its key is free again
    first = send("one", SECOND, label="Automation")
    assert first.status_code == 201
    asked = len(sandbox.requests)
    again = send("one", SECOND, label="Automation")
    assert (again.status_code, again.json()) == (201, first.json())
    assert len(sandbox.requests) == asked  # no verification either
    for other in ({"secret": TOKEN, "label": "Automation"}, {"secret": SECOND, "label": "another"}):
        assert error(send("one", **other)) == (422, "invalid_idempotency_key")
    assert error(send("x" * 256, SECOND)) == (422, "invalid_idempotency_key")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    assert send("one", SECOND, label="another").json()["credential"]["label"] == "another"


def test_a_good_key_passes_whoever_else_gave_wrong_ones_at_its_address(client, database_url):
    """Also one that is new and was never used; a revoked one does not."""

    def tried(key: str) -> int:
        answer = client.get("/api/connections.list", headers={"Authorization": f"Bearer {key}"})
        return int(answer.status_code)

    assert [tried(f"guess{number}") for number in range(21)] == [401] * 20 + [429]
    new = on_warehouse(database_url, lambda warehouse: api_keys.create(warehouse, "new")).get_secret_value()
    assert tried(new) == 200
    assert on_warehouse(database_url, lambda warehouse: api_keys.revoke(warehouse, "new"))
    assert tried(new) == 429
    with ThreadPoolExecutor(8) as executor:
        began = time.monotonic()
        assert set(executor.map(tried, (f"guess{number}" for number in range(40)))) == {429}
    assert time.monotonic() - began < 30  # eight at once wait for the same list


def test_guessing_is_forgotten_after_a_while(database_url):
    now = 0.0
    bound = throttle.Guessing(most=2, seconds=60, clock=lambda: now)
    for too_many in (False, False, True):
        waits = on_warehouse(database_url, lambda warehouse: bound.was_wrong(warehouse, "2001:db8::1"))
        assert (waits > 0) == too_many
    assert 0 < bound.must_wait("2001:db8::2") <= 60  # the same machine's, or its neighbour's
    assert bound.must_wait("2001:db8:0:1::1") == bound.must_wait("192.0.2.1") == 0
    now = 61
    assert bound.must_wait("2001:db8::1") == 0


def test_keys_are_stored_as_hashes_only(database_url, run_cli):
    done = run_cli("api-keys", "create", "tests")
    assert (done.returncode, len(done.stdout.split())) == (0, 1)
    key = done.stdout.strip()
    with psycopg.connect(database_url) as database:
        [row] = database.execute("SELECT name, hash, hint FROM api_keys").fetchall()
    assert (row[0], len(row[1]), row[2]) == ("tests", 32, key[-4:])
    assert run_cli("api-keys", "create", "tests").returncode == 1
    assert run_cli("api-keys", "create", " ").returncode == 2


def test_every_answer_is_an_envelope(client):
    assert error(client.get("/api/nothing")) == (404, "method_not_found")
    assert error(client.post("/api/connections.list")) == (405, "method_not_allowed")
    for path in ("/api/connections.list", "/api/nothing", "/docs", "/openapi.json"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"


def test_without_database_or_keys_it_says_so(settings, key):
    nowhere = Settings.model_validate(
        {"DX_HOME": settings.home, "DX_DATABASE_URL": "postgresql://u:correct-horse@127.0.0.1:1/x"}
    )
    with client_of(nowhere, key) as client:
        answer = client.get("/api/connections.list")
    assert error(answer) == (503, "unavailable")
    assert "correct-horse" not in answer.text
    other = settings.model_copy(update={"secret_keys": type(settings.secret_keys)(Fernet.generate_key().decode())})
    with client_of(other, key) as client:
        answer = client.post("/api/connections/1/credentials.update", json={"id": 1, "label": "x"})
        assert error(answer) == (503, "unavailable")
        assert "DX_SECRET_KEYS" in answer.json()["message"]


def test_the_reference_page_shows_every_method(client):
    page = client.get("/docs").text
    for path in client.get("/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page


def test_the_description_is_true_to_what_is_answered(settings, key):
    """schemathesis: no 5xx, no undocumented status, every body as described."""
    names = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    load_all_checks()
    checks = CHECKS.get_by_names(names)
    seen: Counter[int] = Counter()
    with serving(create_app(settings)) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for found in schema.get_all_operations():
            run_operation(found, key, checks, seen)
    assert set(seen) == {200, 201, 401, 422}, seen
    assert sum(seen.values()) > 300


def run_operation(found: Any, key: str, checks: Any, seen: Counter[int]) -> None:
    operation = found.ok()

    @hypothesis_settings(
        max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
    )
    @given(case=operation.as_strategy(), real=st.integers(0, 3), mode=st.sampled_from(["", "Bearer ", "Bearer"]))
    def one(case, real, mode) -> None:
        # Random numbers meet nothing: most cases are about what there is.
        for name in case.path_parameters or {}:
            if real:
                case.path_parameters[name] = 1
        if isinstance(case.body, dict) and real == 1:
            case.body = {**case.body, "id": 1, "secrets": {"api_token": SECOND}, "settings": {}}
            case.body.pop("expiration_date", None)
        headers = {"Authorization": f"Bearer {key}" if real or not mode else mode}
        answer = case.call(headers=headers)
        seen[answer.status_code] += 1
        case.validate_response(answer, checks=checks)

    one()


def test_statuses_mark_accounts_and_unknown_ones_are_named(client, database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO bitbucket_users (id, source_id, workspace_id, account_id, imported_type, counted_as) "
            "SELECT gen_random_uuid(), '{' || n || '}', gen_random_uuid(), 'a' || n, 'human', 'human' "
            "FROM generate_series(1, 3) n"
        )

        def send(users: Any, **more: Any) -> httpx.Response:
            body = {"connection_type": "bitbucket", "users": users} | more
            answer: httpx.Response = client.post("/api/users.setUserStatuses", json=body)
            return answer

        def types() -> list[tuple[str, bool, str]]:
            query = "SELECT u.type, bot, p.type FROM bitbucket_users u JOIN identities i ON i.source_id = u.id "
            return connection.execute(query + "JOIN dx_users p ON p.id = dx_user_id ORDER BY u.source_id").fetchall()

        given = [{"source_id": one, "status": status} for one, status in (("{1}", "bot"), ("2", "ai_agent"))]
        many = [{"source_id": f"{{{'0' * 32}{n:04}}}", "status": "ai_agent"} for n in range(998)]
        for _ in range(2):
            answer = send([*given, *many])
            assert answer.status_code == 200
            assert answer.json() == {"ok": True, "unknown_source_ids": [one["source_id"] for one in many]}
            assert types() == [("bot", True, "bot"), ("ai_bot", True, "ai_bot")]
        assert send([{"source_id": "a3", "status": "bot"}, {"source_id": "{1}", "status": "human"}]).json()["ok"]
        assert types() == [("human", False, "human"), ("ai_bot", True, "ai_bot"), ("bot", True, "bot")]
        form = {"connection_type": "bitbucket", "users": '[{"source_id": "a3", "status": "human"}]'}
        assert client.post("/api/users.setUserStatuses", data=form).json()["unknown_source_ids"] == []
        assert types()[2] == ("human", False, "human")
        plain = [("connection_type", "bitbucket"), ("users[][source_id]", "a3"), ("users[][status]", "bot")]
        plain += [(f"users[][{name}]", value) for one in many for name, value in one.items()]
        of_form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = client.post("/api/users.setUserStatuses", content=urlencode(plain), headers=of_form)
        assert (len(answer.json()["unknown_source_ids"]), types()[2]) == (len(many), ("bot", True, "bot"))
        numbered = {"users[7][source_id]": "{1}", "users[07][status]": "bot", "users[7][status]": "ai_agent"}
        answer = client.post("/api/users.setUserStatuses", data={"connection_type": "bitbucket", **numbered})
        assert error(answer) == (422, "invalid_json")
        del numbered["users[07][status]"]
        assert client.post("/api/users.setUserStatuses", data={"connection_type": "bitbucket", **numbered}).json()["ok"]
        assert types()[0] == ("ai_bot", True, "ai_bot")
        assert send(given, connection_type="github").json()["unknown_source_ids"] == ["{1}", "2"]
        wrong = ({"source_id": "{1}"}, {"source_id": "{1}", "status": "robot"}, {"source_id": "", "status": "bot"}, 1)
        for users in ([], given * 501, None, "x", *([*given, one] for one in wrong)):
            assert error(send(users)) == (422, "invalid_json")
        assert error(send(given, connection_type="jira")) == (422, "invalid_json")
        unauthorized = client.post("/api/users.setUserStatuses", json={}, headers={"Authorization": "Bearer no"})
        assert error(unauthorized) == (401, "not_authed")
        assert types() == [("ai_bot", True, "ai_bot"), ("ai_bot", True, "ai_bot"), ("bot", True, "bot")]
