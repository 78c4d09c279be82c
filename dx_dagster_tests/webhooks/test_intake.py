"""Every delivery that Bitbucket signs is in the inbox once, before it is answered; nothing else ever is."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from dx_dagster.api.webhooks import LARGEST_BODY
from dx_dagster.bitbucket.signatures import sign, verify
from dx_dagster.settings import Settings
from dx_dagster.warehouse import migrations
from dx_dagster.warehouse.embedded import EmbeddedServer
from dx_dagster.webhooks.address import PATH
from dx_dagster_tests.delivering import SECRET, give_secret, headers, inbox, post, receiving
from dx_dagster_tests.importing import KEYS

PAYLOAD: dict[str, Any] = {
    "repository": {"uuid": "{bc771cbf-829e-4c4b-b71f-a0eb3ac2b860}", "full_name": "acme/widgets"},
    "pullrequest": {"id": 7},
}


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings.model_validate({"DX_DATABASE_URL": database_url, "DX_SECRET_KEYS": KEYS})


@pytest.fixture
def address(settings: Settings) -> Iterator[str]:
    """The receiver's address; the workspace acme is connected and signs with SECRET."""
    give_secret(settings, "acme", SECRET)
    with receiving(settings) as url:
        yield url


def test_signatures_are_those_of_atlassians_documentation():
    documented = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"
    assert sign(b"Hello World!", SECRET) == documented
    assert verify(b"Hello World!", documented, ["another", SECRET])
    assert not verify(b"Hello World?", documented, [SECRET])
    assert not verify(b"Hello World!", documented, ["", "another"])


def test_a_signed_delivery_is_in_the_inbox_once_however_often_it_comes(address, database_url):
    body = json.dumps(PAYLOAD).encode()
    for attempt in ("1", "2", "3"):
        answer = post(address, content=body, headers=headers(body, x_attempt_number=attempt))
        assert (answer.status_code, answer.json()) == (200, {"ok": True})
    other = post(address, content=body, headers=headers(body, request="9c2e", x_event_key="repo:something_new"))
    assert other.status_code == 200
    # Without an id of its own, a delivery is told by what it says.
    anonymous = headers(body)
    del anonymous["x-request-uuid"]
    for attempt in ("1", "2"):
        assert post(address, content=body, headers=anonymous | {"x-attempt-number": attempt}).status_code == 200

    first, second, third = inbox(database_url)
    assert first["request_uuid"] == "5a1f"
    assert first["attempt_number"] == 1
    assert (first["workspace"], first["pull_number"]) == ("acme", 7)
    assert first["repository_source_id"] == PAYLOAD["repository"]["uuid"]
    assert first["body"].encode() == body
    assert first["applied_at"] is None
    assert "x-hub-signature" not in first["headers"]
    assert second["event_key"] == "repo:something_new"
    assert third["request_uuid"].startswith("sha256:")


def test_a_workspace_is_known_by_what_payloads_call_it_and_hooks_speak_for_payloads_that_name_none(
    address, database_url
):
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO bitbucket_workspaces (id, source_id, slug) "
            "VALUES ('612f7b18-b167-4bff-8ee9-d43570117ff1', '{612f7b18-b167-4bff-8ee9-d43570117ff1}', 'acme')"
        )
        connection.execute("UPDATE webhook_secrets SET hook_uuids = '{\"{c1ff7b3c}\"}'")
    time.sleep(0.3)
    payloads = [
        {"repository": {"workspace": {"slug": "renamed", "uuid": "{612F7B18-b167-4bff-8ee9-d43570117ff1}"}}},
        {"repository": {"full_name": "Acme/widgets", "uuid": 7}},
        {"repository": {"owner": {"username": "acme"}}, "pullrequest": {"id": 2**80}},
        {"project": {"workspace": {"slug": "acme"}}},
        {"resourceSpans": [{"NUL": "\x00", "half": "\ud800"}]},
    ]
    for number, payload in enumerate(payloads):
        body = json.dumps(payload).encode()
        assert post(address, content=body, headers=headers(body, request=str(number))).status_code == 200
    assert [json.loads(row["body"]) for row in inbox(database_url)] == payloads


def test_while_a_secret_is_replaced_both_are_good(address, settings, database_url):
    body = json.dumps(PAYLOAD).encode()
    give_secret(settings, "acme", "the new one")
    for number, secret in enumerate(("the new one", SECRET)):
        assert post(address, content=body, headers=headers(body, secret, str(number))).status_code == 200
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE webhook_secrets SET expires_at = now() WHERE id = 1")
        stored = connection.execute("SELECT secret FROM webhook_secrets").fetchall()
    assert SECRET not in str(stored)
    with receiving(settings) as fresh:
        assert post(fresh, content=body, headers=headers(body, SECRET, "2")).status_code == 401
        assert post(fresh, content=body, headers=headers(body, "the new one", "3")).status_code == 200


GOOD = json.dumps(PAYLOAD).encode()
ELSEWHERE = json.dumps({"repository": {"full_name": "nobody/widgets"}}).encode()
HUGE = json.dumps(PAYLOAD | {"padding": "x" * (2 * LARGEST_BODY)}).encode()


@pytest.mark.parametrize(
    ("delivery", "status"),
    [
        pytest.param((GOOD, {"x_hub_signature": sign(GOOD, "wrong")}), 401, id="wrong signature"),
        pytest.param((GOOD, {"x_hub_signature": ""}), 401, id="unsigned"),
        pytest.param((GOOD, {"x_hub_signature": "sha256=" + "é" * 64}), 401, id="signature that is none"),
        pytest.param((GOOD[:-1], {"x_hub_signature": sign(GOOD, SECRET)}), 400, id="cut off"),
        pytest.param((GOOD.replace(b"7", b"8"), {"x_hub_signature": sign(GOOD, SECRET)}), 401, id="changed"),
        pytest.param((HUGE, {}), 413, id="2 MiB"),
        pytest.param((b"spam=eggs", {}), 400, id="not JSON"),
        pytest.param((b'{"number": NaN}', {}), 400, id="NaN"),
        pytest.param((b'"\xff"', {}), 400, id="not UTF-8"),
        pytest.param((b"[" * 200_000, {}), 400, id="deep"),
        pytest.param((b"[]", {}), 400, id="no object"),
        pytest.param((b"", {}), 400, id="empty"),
        pytest.param((b"{}", {}), 404, id="of no workspace"),
        pytest.param((ELSEWHERE, {}), 404, id="unknown workspace"),
        pytest.param((b"spam=eggs", {"content_type": "text/plain"}), 400, id="not JSON, and not called so"),
        pytest.param((GOOD, {"x_request_uuid": "x" * 200_000}), 431, id="header bomb"),
    ],
)
def test_anything_else_is_refused_in_one_line_and_leaves_nothing(address, database_url, caplog, delivery, status):
    body, changed = delivery
    caplog.set_level(logging.WARNING)
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers(body, **changed).items()]
    assert post(address, content=body, headers=sent).status_code == status
    assert inbox(database_url) == []
    ours = [record.getMessage() for record in caplog.records]
    assert len(ours) == 1
    assert str(status) in ours[0]
    assert "widgets" not in ours[0]


def test_json_is_taken_whatever_it_is_called(address, database_url):
    for kind in ("text/plain", "application/vnd.atlassian+json; charset=utf-8"):
        assert post(address, content=GOOD, headers=headers(GOOD, request=kind, content_type=kind)).status_code == 200
    assert len(inbox(database_url)) == 2


def test_a_body_without_announced_length_is_cut_off_at_the_limit(address, database_url):
    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 65536

    answer = post(address, content=chunks(), headers=headers(b""))
    assert answer.status_code == 413
    assert inbox(database_url) == []


def test_who_hangs_up_midway_leaves_nothing_and_holds_nobody_up(address, database_url):
    host, port = httpx.URL(address).host, httpx.URL(address).port or 0
    sent = "".join(f"{name}: {value}\r\n" for name, value in headers(GOOD).items())
    with socket.create_connection((host, port)) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\ncontent-length: 900\r\n{sent}\r\n".encode() + GOOD)
    assert post(address, content=GOOD, headers=headers(GOOD, request="next")).status_code == 200
    assert [row["request_uuid"] for row in inbox(database_url)] == ["next"]


def stopped(home: Path, server: EmbeddedServer) -> EmbeddedServer:
    del home
    server.leave()
    time.sleep(2)
    server.join()
    return server


def killed(home: Path, server: EmbeddedServer) -> EmbeddedServer:
    processes = postgres_of(home)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=20)
    another = EmbeddedServer(home / "postgres")
    another.join()
    server.leave()
    return another


def frozen(home: Path, server: EmbeddedServer) -> EmbeddedServer:
    """It takes connections and says nothing."""
    processes = postgres_of(home)
    for process in processes:
        process.suspend()
    time.sleep(4)
    for process in processes:
        process.resume()
    return server


def postgres_of(home: Path) -> list[psutil.Process]:
    main = psutil.Process(int((home / "postgres" / "postmaster.pid").read_text().split()[0]))
    return [main, *main.children(recursive=True)]


@pytest.mark.parametrize("trouble", [stopped, killed, frozen])
def test_while_the_database_is_away_deliveries_are_sent_back_in_time_and_what_was_accepted_is_there(dx_home, trouble):
    server = EmbeddedServer(dx_home / "postgres")
    server.join()
    migrations.upgrade(server.url)
    settings = Settings.model_validate({"DX_DATABASE_URL": server.url, "DX_SECRET_KEYS": KEYS})
    give_secret(settings, "acme", SECRET)
    answers: dict[str, int] = {}
    seconds: list[float] = []
    stop = threading.Event()

    def deliver(sender: int) -> None:
        with httpx.Client(timeout=30) as client:
            for number in count():
                if stop.is_set():
                    return
                request = f"{sender}/{number}"
                time.sleep(0.005)
                answer = client.post(url, content=GOOD, headers=headers(GOOD, request=request))
                answers[request] = answer.status_code
                seconds.append(answer.elapsed.total_seconds())

    with receiving(settings) as url:
        threads = [threading.Thread(target=deliver, args=(sender,)) for sender in range(8)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(1)
            server = trouble(dx_home, server)
            time.sleep(1)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    stored = [row["request_uuid"] for row in inbox(server.url)]
    server.leave()
    assert set(answers.values()) == {200, 503}
    assert max(seconds) < 9  # Bitbucket hangs up after ten
    assert len(stored) == len(set(stored))
    assert {request for request, status in answers.items() if status == 200} <= set(stored)
