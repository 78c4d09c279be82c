"""What one client may take of our servers leaves enough for Bitbucket's deliveries."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from dx_dagster.http_limits import Limits, RareLines
from dx_dagster.settings import Settings
from dx_dagster.webhooks.address import PATH
from dx_dagster_tests.conftest import wait_until
from dx_dagster_tests.delivering import SECRET, give_secret, headers, inbox, post, receiving
from dx_dagster_tests.importing import KEYS
from dx_dagster_tests.servers import Served, serving

GOOD = json.dumps({"repository": {"full_name": "acme/widgets"}, "pullrequest": {"id": 7}}).encode()
UNFINISHED = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n".encode()


def get(url: str) -> httpx.Response:
    return httpx.get(url, verify=False, timeout=10)


@pytest.fixture
def settings(database_url: str) -> Settings:
    found = Settings.model_validate({"DX_DATABASE_URL": database_url, "DX_SECRET_KEYS": KEYS})
    give_secret(found, "acme", SECRET)
    return found


@pytest.fixture
def serve(settings: Settings, environment: dict[str, str], dx_home: Path) -> Iterator[Any]:
    """`serve(DX_HTTP_CONNECTIONS="60")` starts a server; the workspace acme is connected and signs with SECRET."""
    del settings
    started: list[Served] = []

    def start(files: int | None = None, **more: str) -> Served:
        started.append(Served({**environment, "DX_SECRET_KEYS": KEYS, **more}, dx_home.parent / "serve.log", files))
        return started[-1]

    yield start
    for server in started:
        with suppress(psutil.NoSuchProcess):
            server.process.kill()
        server.process.wait()


def opened(port: int, source: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(source, 0))
    connection.settimeout(30)
    return connection


def answer(connection: socket.socket) -> bytes:
    """All that comes until the other side ends the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


@contextmanager
def unfinished(port: int, sources: list[str]) -> Iterator[None]:
    """A connection from each of the addresses, with a request that stays without an end."""
    with ExitStack() as stack:
        for source in sources:
            stack.enter_context(opened(port, source)).sendall(UNFINISHED)
        yield


def deliver(url: str, request: str) -> httpx.Response:
    return post(f"{url}{PATH}", content=GOOD, headers=headers(GOOD, request=request), timeout=10)


def line(length: int) -> bytes:
    start, end = b"GET /healthz?", b" HTTP/1.1\r\n"
    return start + b"x" * (length - len(start)) + end + b"Host: localhost\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(line(8 * 1024), 200, id="request line below the limit"),
        pytest.param(line(9 * 1024), 414, id="request line"),
        pytest.param(line(50) + b"".join(b"x-%d: y\r\n" % n for n in range(99)), 200, id="fields below the limit"),
        pytest.param(line(50) + b"".join(b"x-%d: y\r\n" % n for n in range(101)), 431, id="fields"),
        pytest.param(line(50) + b"x: " + b"y" * 31 * 1024 + b"\r\n", 200, id="headers below the limit"),
        pytest.param(line(50) + b"x: " + b"y" * 33 * 1024 + b"\r\n", 431, id="headers"),
        pytest.param(line(50) + b"content-length: 5000000\r\n", 413, id="body"),
    ],
)
def test_what_is_too_large_is_refused_before_an_application_sees_it(head, status):
    seen = []

    async def application(scope: Any, _: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(scope["path"])
            await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body", "body": b""})

    with serving(application) as url, opened(httpx.URL(url).port or 0) as connection:
        connection.sendall(head + b"\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 %d " % status)
        assert len(seen) == (status == 200)


def test_a_head_that_never_ends_is_refused_at_its_limit_in_memory_that_stays(serve):
    server = serve()
    before = server.memory
    for _ in range(20):
        with opened(server.port) as connection:
            connection.sendall(line(50))
            with suppress(ConnectionError):  # what follows the answer is not taken
                for _ in range(20):
                    connection.sendall(b"x: " + b"y" * 4093)
                    time.sleep(0.001)
            assert answer(connection).startswith(b"HTTP/1.1 431 ")
        assert get(f"{server.url}/healthz").status_code == 200
    assert server.memory - before < 10
    assert server.log.count("HTTP limit: the headers are larger than 32768 bytes (from 127.0.0.1, answered 431)") == 1


@pytest.mark.parametrize(
    ("setting", "sources"),
    [
        pytest.param("DX_HTTP_CONNECTIONS_PER_ADDRESS", ["127.0.0.1"] * 90, id="from one address"),
        pytest.param("DX_HTTP_CONNECTIONS", [f"127.0.0.{2 + number % 30}" for number in range(90)], id="from many"),
    ],
)
def test_unfinished_requests_beyond_the_limit_keep_no_delivery_out(serve, database_url, setting, sources):
    server = serve(DX_HTTP_CONNECTIONS="60", DX_HTTP_CONNECTIONS_PER_ADDRESS="50")
    with unfinished(server.port, sources):
        time.sleep(1.2)  # younger ones make no room
        for number in range(20):
            assert deliver(server.url, str(number)).status_code == 200
            assert get(f"{server.url}/healthz").status_code == 200
    assert len(inbox(database_url)) == 20
    told = [line for line in server.log.splitlines() if "HTTP limit" in line]
    assert len(told) == 1
    assert f"({setting})" in told[0]


def test_unfinished_requests_keep_no_server_from_ending(serve):
    server = serve()
    with unfinished(server.port, ["127.0.0.1"] * 20), opened(server.port) as connection:
        connection.sendall(UNFINISHED + b"content-length: 100\r\n\r\nhalf of it")
        assert wait_until(lambda: len(server.process.net_connections("tcp")) > 21)
        time.sleep(0.5)
        server.process.terminate()
        assert server.process.wait(60) is not None
    assert "Cancel" not in server.log


def test_there_are_never_more_connections_than_files_may_be_open(serve):
    server = serve(files=700)
    assert "At most 60 connections instead of 1000 (DX_HTTP_CONNECTIONS)" in server.log
    with unfinished(server.port, [f"127.0.0.{2 + number % 30}" for number in range(300)]):
        time.sleep(1.2)
        for number in range(5):
            assert deliver(server.url, str(number)).status_code == 200
        assert server.process.num_fds() < 200


@pytest.mark.timing
def test_unfinished_requests_slow_no_answer_down_and_cost_no_cpu(serve):
    server = serve(files=700)
    with unfinished(server.port, [f"127.0.0.{2 + number % 30}" for number in range(300)]):
        time.sleep(1.2)
        before = sum(server.process.cpu_times()[:2])
        for number in range(5):
            assert deliver(server.url, str(number)).elapsed.total_seconds() < 1
            assert get(f"{server.url}/healthz").elapsed.total_seconds() < 1
        time.sleep(2)
        assert sum(server.process.cpu_times()[:2]) - before < 1


def test_a_body_that_trickles_is_ended_at_its_deadline_and_nothing_is_stored(settings, database_url, caplog):
    caplog.set_level(logging.WARNING)
    sent = "".join(f"{name}: {value}\r\n" for name, value in headers(GOOD).items())
    with receiving(settings, Limits(body_seconds=1)) as url, opened(httpx.URL(url).port or 0) as connection:
        connection.sendall(f"{UNFINISHED.decode()}content-length: {len(GOOD)}\r\n{sent}\r\n".encode())
        started = time.monotonic()
        with suppress(ConnectionError):
            for byte in GOOD[:-1]:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
                if time.monotonic() - started > 4:
                    break
        assert answer(connection).startswith(b"HTTP/1.1 408 ")
    assert inbox(database_url) == []
    assert "the body of a request was not complete within 1 s" in caplog.text


async def endless(scope: Any, _: Any, send: Any) -> None:
    """An application that answers on / with more than fits between two ends of a connection."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(200 if scope["path"] == "/" else 0):
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def test_who_sends_nothing_or_reads_nothing_loses_the_connection(caplog):
    caplog.set_level(logging.WARNING)
    limits = Limits(head_seconds=1, idle_seconds=1, answer_seconds=1)
    with serving(endless, limits) as url:
        port = httpx.URL(url).port or 0
        with opened(port) as silent, opened(port) as slow, opened(port) as idle, opened(port) as deaf:
            slow.sendall(UNFINISHED)
            idle.sendall(b"GET /little HTTP/1.1\r\nHost: localhost\r\n\r\n")
            deaf.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer(silent) == b""
            assert answer(slow).startswith(b"HTTP/1.1 408 ")
            assert answer(idle).startswith(b"HTTP/1.1 200 ")
            assert wait_until(lambda: "an answer was not read within 1 s" in caplog.text)
            assert len(answer(deaf)) < 200 * 65536


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await endless({**scope, "path": "/little"}, receive, send)
    while scope["type"] == "websocket":
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        await send({"type": "websocket.send", "text": text} if text else {"type": "websocket.accept"})


def test_a_websocket_has_no_deadline_and_counts_as_a_connection():
    with serving(echo, Limits(head_seconds=0.4, idle_seconds=0.4, connections_per_address=1)) as url:
        with connect(url.replace("http", "ws")) as websocket:
            for text in ("at first", "later"):
                websocket.send(text)
                assert websocket.recv(10) == text
                time.sleep(1.5)
            assert get(url).status_code == 503
        assert wait_until(lambda: get(url).status_code == 200)


def test_connections_of_a_proxy_are_not_those_of_one_client():
    for proxies, statuses in (((), [b"503", b"503", b"200"]), (("10.0.0.0/8", "127.0.0.1"), [b"200"] * 3)):
        limits = Limits(connections_per_address=1, patience_seconds=60, head_seconds=60, uncounted=proxies)
        with serving(endless, limits) as url, ExitStack() as stack:
            connections = [stack.enter_context(opened(httpx.URL(url).port or 0)) for _ in range(3)]
            found = []
            for connection in reversed(connections):  # the first one is in the way of the others until it has its turn
                connection.sendall(b"GET /little HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                found.append(answer(connection)[9:12])
            assert found == statuses


def test_strangers_deliveries_are_refused_at_a_pace_and_told_of_in_a_few_lines(settings, database_url, caplog):
    caplog.set_level(logging.WARNING)
    with receiving(settings) as url, httpx.Client() as client:
        started = time.monotonic()
        for number in range(100):
            body = json.dumps({"repository": {"full_name": f"stranger{number}/widgets"}}).encode()
            assert client.post(url, content=body, headers=headers(body)).status_code == 404
            assert client.post(url, content=GOOD, headers=headers(GOOD, "wrong")).status_code == 401
        assert time.monotonic() - started < 15  # a quarter of a second for each would be 50
        assert deliver(url.removesuffix(PATH), "good").status_code == 200
    assert len(inbox(database_url)) == 1
    assert len([line for line in caplog.messages if "webhook refused with 404" in line]) == 10
    assert len([line for line in caplog.messages if "webhook refused with 401" in line]) == 10


def test_lines_beyond_a_few_are_counted_in_one(caplog):
    async def refuse() -> None:
        lines = RareLines(logging.getLogger("of.the.test"), most=2, seconds=0.1)
        for number in range(5):
            lines.warning("refused", f"request {number}")
        lines.warning("closed")
        await asyncio.sleep(0.3)
        lines.warning("refused", "request 5")

    caplog.set_level(logging.WARNING)
    asyncio.run(refuse())
    assert caplog.messages == [
        "refused request 0",
        "refused request 1",
        "closed",
        "refused: 3 more within 0.1 s",
        "refused request 5",
    ]


def test_the_access_log_leaves_out_probes_and_deliveries_and_all_queries(serve):
    server = serve()
    assert deliver(server.url, "one").status_code == 200
    for path in ("/healthz", "/connections?key=secret", *(f"/nothing/{number}" for number in range(70))):
        get(f"{server.url}{path}")
    lines = [line for line in server.log.splitlines() if " HTTP/1.1" in line]
    assert len([line for line in lines if "/nothing/" in line]) == 60
    assert [line for line in lines if "/connections" in line]
    assert not [line for line in lines if "secret" in line or "/healthz" in line or "/readyz" in line or PATH in line]
