"""Clients that draw on the budgets of a sandbox's tokens."""

import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from pydantic import SecretStr

from dx_dagster.bitbucket import BitbucketClient, Credential, CredentialPool, Ledger
from dx_dagster.sandbox import Sandbox, Token, WorldConfig

TINY = WorldConfig(repositories=3, pull_requests=4, members=3)
SMALL = WorldConfig(repositories=8, pull_requests=150, members=10)
SOMETHING = "/repositories/acme?pagelen=1"


DRAW = """
import asyncio, sys
import anyio
from pydantic import SecretStr
from dx_dagster.bitbucket import BitbucketClient, Credential, CredentialPool
from dx_dagster.warehouse.connections.credentials import CredentialType, NewCredential
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.budgets import SharedLedger

async def main(url, database, secret, window, count):
    async with Warehouse(database) as warehouse:
        credential = Credential(1, "shared", "access_token", SecretStr(secret))
        pool = CredentialPool([credential], SharedLedger(warehouse, float(window)))
        async with BitbucketClient(url, pool, max_in_flight=8) as client:
            print("ready", flush=True)
            for _ in range(int(count) // 10):
                async with anyio.create_task_group() as tasks:
                    for _ in range(10):
                        tasks.start_soon(client.get, "/repositories/acme?pagelen=1")
        await pool.close()

asyncio.run(main(*sys.argv[1:]))
"""


def access(*numbers: int) -> list[Token]:
    return [Token(f"ATCTT-secret-{number}", label=f"token {number}") for number in numbers]


def credentials(tokens: Sequence[Token]) -> list[Credential]:
    return [
        Credential(number, token.label, "access_token", SecretStr(token.secret))
        for number, token in enumerate(tokens, start=1)
    ]


@asynccontextmanager
async def drawing(sandbox: Sandbox, ledger: Ledger, **told) -> AsyncIterator[BitbucketClient]:
    pool = CredentialPool(credentials(sandbox.tokens), ledger, **told)
    async with BitbucketClient(sandbox.url, pool, max_in_flight=8) as client:
        yield client
    await pool.close()


async def ask(client: BitbucketClient, times: int) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(times):
            tasks.start_soon(client.get, SOMETHING)


def statuses(sandbox: Sandbox) -> Counter[int | None]:
    return Counter(request.status for request in sandbox.requests)


def draw(sandbox: Sandbox, database_url: str, window: float, count: int) -> subprocess.Popen[str]:
    """Another process that draws on the sandbox's only token."""
    arguments = [sandbox.url, database_url, sandbox.token.secret, str(window), str(count)]
    return subprocess.Popen([sys.executable, "-c", DRAW, *arguments], stdout=subprocess.PIPE, text=True)
