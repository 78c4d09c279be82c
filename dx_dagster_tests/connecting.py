"""What the tests of connections share: a warehouse at hand, the application as a server, and servers that misbehave."""

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from dx_dagster.bitbucket import Retries, Timeouts
from dx_dagster.connections import actions, verification
from dx_dagster.connections.actions import VerificationFailed
from dx_dagster.connections.input import new_credential
from dx_dagster.sandbox import Sandbox
from dx_dagster.sandbox.config import WorldConfig
from dx_dagster.sandbox.tokens import Token
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections.connections import StoredConnection
from dx_dagster.warehouse.database import Warehouse

TOKEN = "ATCTT3xWorkspaceTokenOfTheTests0001"
SECOND = "ATCTT3xWorkspaceTokenOfTheTests0002"
API_TOKEN = "ATATT3xApiTokenOfTheTests0003"
EMAIL = "robot@example.com"


Work = Callable[[Warehouse], Coroutine[Any, Any, Any]]


@pytest.fixture(scope="module")
def world() -> Iterator[Sandbox]:
    with Sandbox(WorldConfig(repositories=6, pull_requests=20, members=5), tokens=[]) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(world: Sandbox) -> Iterator[Sandbox]:
    """A small Bitbucket with two access tokens and an API token; what a test breaks is mended for the next."""
    world.tokens[:] = [Token(TOKEN), Token(SECOND), Token(API_TOKEN, kind="api", email=EMAIL)]
    world.faults.clear()
    world.requests.reset()
    yield world
    world.faults.clear()


@pytest.fixture
def settings(environment: dict[str, str], sandbox: Sandbox) -> Settings:
    """Those of an installation before that Bitbucket."""
    ours = {name: value for name, value in environment.items() if name.startswith("DX_")}
    return Settings.model_validate({**ours, "BITBUCKET_API_URL": sandbox.url})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifying gives up within seconds."""
    monkeypatch.setattr(verification, "_TIMEOUTS", Timeouts(connect=1, read=1, write=1, pool=1, total=2))
    monkeypatch.setattr(verification, "_IMPATIENT", Retries(attempts=2, total=1.5, backoff=0.01, patience=1))


def run(settings: Settings, work: Work) -> Any:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Warehouse]:
        async with Warehouse(settings.database_url.get_secret_value()) as warehouse:  # type: ignore[union-attr]
            yield warehouse

    async def whole() -> Any:
        async with opened() as warehouse:
            return await work(warehouse)

    return asyncio.run(whole())


def connect(settings: Settings, secret: str = TOKEN, username: str | None = None, **more: Any) -> StoredConnection:
    new = new_credential(SecretStr(secret), username)
    found: StoredConnection = run(settings, lambda w: actions.connect(settings, w, "acme", new, **more))
    return found


def failure(settings: Settings, secret: str = TOKEN, username: str | None = None, workspace: str = "acme", **more: Any):
    new = new_credential(SecretStr(secret), username)
    with pytest.raises(VerificationFailed) as caught:
        run(settings, lambda w: actions.connect(settings, w, workspace, new, **more))
    assert stored(settings) == []
    assert not secret or secret not in repr(caught.value.failure)
    return caught.value.failure


def stored(settings: Settings) -> list[Any]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:  # type: ignore[union-attr]
        return connection.execute(
            "SELECT id, type, label, settings, secret, hint, expiration_date, disabled_at, disabled_reason, "
            "deleted_at, updated_at FROM credentials ORDER BY id"
        ).fetchall()


def at(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"bitbucket_api_url": url})


class Serving:
    """A server that answers paths as told, with 404 for others."""

    def __init__(self, answers: dict[str, tuple[int, str]], context: ssl.SSLContext | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0].removeprefix("/2.0")
                status, body = answers.get(path) or answers.get("") or (404, "{}")
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "https" if context else "http"

    def __enter__(self) -> str:
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}/2.0"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


@contextmanager
def serving(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
