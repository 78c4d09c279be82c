"""A small Bitbucket and an installation that connects to it, for the tests of connections."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
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
    """A small Bitbucket with two access tokens and an API token, reset for each test."""
    world.tokens[:] = [Token(TOKEN), Token(SECOND), Token(API_TOKEN, kind="api", email=EMAIL)]
    world.faults.clear()
    world.requests.reset()
    yield world
    world.faults.clear()


@pytest.fixture
def settings(environment: dict[str, str], sandbox: Sandbox) -> Settings:
    """The settings of an installation whose API is that Bitbucket."""
    ours = {name: value for name, value in environment.items() if name.startswith("DX_")}
    return Settings.model_validate({**ours, "BITBUCKET_API_URL": sandbox.url})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verification times out within seconds."""
    monkeypatch.setattr(verification, "_TIMEOUTS", Timeouts(connect=1, read=1, write=1, pool=1, total=2))
    monkeypatch.setattr(verification, "_IMPATIENT", Retries(attempts=2, total=1.5, backoff=0.01, patience=1))


def on_warehouse(database_url: str, work: Work) -> Any:
    """Runs `work` in a thread of its own: a test with a browser has an event loop in this one."""
    results: list[Any] = []

    async def whole() -> None:
        async with Warehouse(database_url) as warehouse:
            results.append(await work(warehouse))

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, whole()).result()
    return results[0]


def run(settings: Settings, work: Work) -> Any:
    return on_warehouse(settings.database_url.get_secret_value(), work)  # type: ignore[union-attr]


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
