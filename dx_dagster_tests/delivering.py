"""A receiver, signed deliveries and an imported workspace, for the tests of webhooks."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row
from pydantic import SecretStr

from dx_dagster.api.app import create_app
from dx_dagster.bitbucket.signatures import sign
from dx_dagster.http_limits import Limits
from dx_dagster.importer.workspace import Workspace
from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.deliveries import SandboxDelivery
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.webhooks import secrets
from dx_dagster.webhooks.address import PATH
from dx_dagster.webhooks.apply import apply_deliveries
from dx_dagster.webhooks.outcomes import Applied
from dx_dagster_tests.importing import Installation
from dx_dagster_tests.servers import serving

SECRET = "It's a Secret to Everybody"
SMALL = WorldConfig(repositories=6, pull_requests=60, members=8, merges_by_push=0.05)


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
            await secrets.add(warehouse, Vault.of(settings), number, SecretStr(secret))

    asyncio.run(work())


def find_untold(database_url: str, changes: int) -> None:
    """Stores that a reconcile has just found so many changes of workspace acme, whose webhook was believed."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO bitbucket_workspaces (id, source_id, slug) SELECT gen_random_uuid(), '{a}', 'acme' "
            "WHERE NOT EXISTS (SELECT FROM bitbucket_workspaces)"
        )
        connection.execute(
            "INSERT INTO bitbucket_repositories (id, source_id, workspace_id, slug) "
            "SELECT gen_random_uuid(), '{r}', id, 'r' FROM bitbucket_workspaces "
            "WHERE NOT EXISTS (SELECT FROM bitbucket_repositories)"
        )
        connection.execute(
            "INSERT INTO webhook_beliefs (connection_id, vouched_from, looked_at) VALUES (1, now(), now())"
        )
        connection.execute(
            """INSERT INTO untold_changes (workspace_id, repository_id, kind, number, since)
               SELECT r.workspace_id, r.id, 'pullrequest', n, now() FROM generate_series(1, %s) AS n,
                      (SELECT * FROM bitbucket_repositories LIMIT 1) AS r""",
            [changes],
        )


@contextmanager
def receiving(settings: Settings, limits: Limits | None = None) -> Iterator[str]:
    """Serves the application; yields the receiver's address."""
    with serving(create_app(settings), limits) as url:
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


class Receiving(Installation):
    """A workspace of a sandbox, connected and imported; its receiver and its inbox."""

    def __init__(self, database_url: str, sandbox: Sandbox, **variables: str) -> None:
        super().__init__(database_url, sandbox, **variables)
        self.receiver = ""

    def refresh(self) -> Applied:
        """Applies deliveries until none is due."""
        result = Applied()

        async def work(workspace: Workspace) -> None:
            while await apply_deliveries(workspace, "run", result):
                pass

        self.on_workspace(work)
        return result

    def deliver(self, *deliveries: SandboxDelivery, attempt: int = 1) -> None:
        for one in deliveries:
            answer = post(self.receiver, content=one.body, headers=one.headers(SECRET, attempt))
            assert answer.status_code == 200, answer.text

    def let_retries_come(self) -> None:
        with psycopg.connect(self.database_url) as connection:
            connection.execute("UPDATE webhook_events SET next_attempt_at = now()")


@contextmanager
def installed(database_url: str, config: WorldConfig) -> Iterator[Receiving]:
    """A sandbox whose workspace is connected and imported, with a receiver before its inbox."""
    with Sandbox(config) as sandbox, with_receiver(database_url, sandbox) as made:
        made.sync()
        assert made.differences() == {}
        yield made


@contextmanager
def with_receiver(database_url: str, sandbox: Sandbox) -> Iterator[Receiving]:
    """The sandbox's workspace, connected, with a receiver before its inbox."""
    made = Receiving(database_url, sandbox)
    give_secret(made.settings, made.slug, SECRET)
    with receiving(made.settings) as made.receiver:
        yield made
