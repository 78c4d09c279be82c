"""What tests of webhooks share: a receiver, signed deliveries, and a workspace that is connected and imported."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import uvicorn
from cryptography.fernet import Fernet
from psycopg.rows import dict_row
from pydantic import SecretStr
from starlette.types import ASGIApp

from dx_dagster.api.app import create_app
from dx_dagster.api.webhooks import PATH
from dx_dagster.bitbucket.signatures import sign
from dx_dagster.importer.activity import import_activity
from dx_dagster.importer.comments import import_comments
from dx_dagster.importer.commits import import_commits
from dx_dagster.importer.connections import new_credential
from dx_dagster.importer.members import import_members
from dx_dagster.importer.pipelines import import_pipelines
from dx_dagster.importer.pullrequests import import_pull_requests
from dx_dagster.importer.refresh import Refreshed, refresh
from dx_dagster.importer.repositories import import_repositories
from dx_dagster.importer.session import open_client, open_pool
from dx_dagster.importer.workspace import Workspace, open_workspace
from dx_dagster.sandbox import Sandbox, WorldConfig, truth
from dx_dagster.sandbox.deliveries import SandboxDelivery
from dx_dagster.settings import Settings
from dx_dagster.warehouse import connections, webhook_secrets
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.vault import Vault
from dx_dagster_tests.comparing import differences

SECRET = "It's a Secret to Everybody"
KEYS = Fernet.generate_key().decode()
SMALL = WorldConfig(repositories=6, pull_requests=60, members=8)
STEPS = (
    *(import_repositories, import_members, import_pull_requests, import_activity, import_comments, import_commits),
    import_pipelines,
)


# Receivers of tests are http:// addresses; httpx would read all certificate authorities for each request.
_NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def post(address: str, **sent: Any) -> httpx.Response:
    return httpx.post(address, verify=_NO_AUTHORITIES, **sent)


def give_secret(settings: Settings, workspace: str, secret: str) -> None:
    async def work() -> None:
        assert settings.database_url
        async with Warehouse(settings.database_url.get_secret_value()) as warehouse:
            async with warehouse.transaction() as transaction:
                number = await connections.store(transaction, workspace, "bitbucket", workspace, {})
            await webhook_secrets.add(warehouse, Vault.of(settings), number, SecretStr(secret))

    asyncio.run(work())


@contextmanager
def serving_application(application: ASGIApp) -> Iterator[str]:
    """The application on a port of its own, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = uvicorn.Server(uvicorn.Config(application, log_config=None, access_log=False))
        thread = threading.Thread(target=lambda: server.run(sockets=[bound]))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The receiver's address."""
    with serving_application(create_app(settings)) as url:
        yield url + PATH


def headers(body: bytes, secret: str = SECRET, request: str = "5a1f", **more: str) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "x-event-key": "pullrequest:created",
        "x-hook-uuid": "{c1ff7b3c}",
        "x-request-uuid": request,
        "x-attempt-number": "1",
        "x-hub-signature": sign(body, secret),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


def inbox(database_url: str) -> list[dict[str, Any]]:
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        return connection.execute("SELECT * FROM webhook_events ORDER BY id").fetchall()


class Silence:
    """A listener that remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def progress(self, step: str, done: int, total: int, requests: int) -> None: ...

    def warning(self, message: str) -> None:
        self.warnings.append(message)


def on_workspace(settings: Settings, slug: str, work: Callable[[Workspace], Awaitable[Any]]) -> tuple[Any, list[str]]:
    """Does something as a run would; what came of it, and the warnings."""
    assert settings.database_url
    url, listener = settings.database_url.get_secret_value(), Silence()

    async def run() -> Any:
        async with Warehouse(url) as warehouse:
            pool = await open_pool(settings, warehouse, listener, slug)
            async with open_client(settings, warehouse, pool, slug) as client:
                return await work(await open_workspace(slug, client, warehouse, listener))

    return asyncio.run(run()), listener.warnings


def give_credential(settings: Settings, slug: str, secret: str) -> None:
    async def work() -> None:
        assert settings.database_url
        async with Warehouse(settings.database_url.get_secret_value()) as warehouse, warehouse.transaction() as all_:
            number = await connections.store(all_, slug, "bitbucket", slug, {})
            await connections.add_credential(all_, Vault.of(settings), number, new_credential(SecretStr(secret)))

    asyncio.run(work())


class Installation:
    """A workspace of a sandbox, connected and imported; its receiver and its inbox."""

    def __init__(self, database_url: str, sandbox: Sandbox, receiver: str, settings: Settings) -> None:
        self.database_url, self.sandbox, self.receiver, self.settings = database_url, sandbox, receiver, settings
        self.slug = sandbox.world.config.workspace
        self.warnings: list[str] = []

    def on_workspace(self, work: Callable[[Workspace], Awaitable[Any]]) -> Any:
        done, warnings = on_workspace(self.settings, self.slug, work)
        self.warnings += warnings
        return done

    def import_all(self) -> None:
        for step in STEPS:
            self.on_workspace(step)

    def refresh(self) -> Refreshed:
        """Applies deliveries until none is due."""
        result = Refreshed()

        async def work(workspace: Workspace) -> None:
            while await refresh(workspace, "run", result):
                pass

        self.on_workspace(work)
        return result

    def deliver(self, *deliveries: SandboxDelivery, attempt: int = 1) -> None:
        for one in deliveries:
            answer = post(self.receiver, content=one.body, headers=one.headers(SECRET, attempt))
            assert answer.status_code == 200, answer.text

    def differences(self) -> dict[str, str]:
        return differences(self.database_url, truth(self.sandbox.world))

    def let_retries_come(self) -> None:
        with psycopg.connect(self.database_url) as connection:
            connection.execute("UPDATE webhook_events SET next_attempt_at = now()")


@contextmanager
def installed(database_url: str, config: WorldConfig) -> Iterator[Installation]:
    """A sandbox whose workspace is connected and imported, with a receiver before its inbox."""
    with Sandbox(config) as sandbox:
        settings = Settings.model_validate(
            {"DX_DATABASE_URL": database_url, "DX_SECRET_KEYS": KEYS, "BITBUCKET_API_URL": sandbox.url}
        )
        give_credential(settings, config.workspace, sandbox.token.secret)
        give_secret(settings, config.workspace, SECRET)
        with serving(settings) as receiver:
            made = Installation(database_url, sandbox, receiver, settings)
            made.import_all()
            assert made.differences() == {}
            yield made
