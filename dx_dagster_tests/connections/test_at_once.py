"""Two processes that add, use, disable and remove credentials of one connection at the same time."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Any

import psycopg
from pydantic import SecretStr

from dx_dagster.bitbucket import BitbucketClient, BitbucketError, CredentialPool, MemoryLedger, endpoints
from dx_dagster.connections import actions
from dx_dagster.connections.actions import Changes, CredentialNotFoundError
from dx_dagster.connections.input import new_credential, usable
from dx_dagster.connections.revocation import following
from dx_dagster.sandbox import Sandbox
from dx_dagster.sandbox.config import WorldConfig
from dx_dagster.sandbox.tokens import RateLimit, Token
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections import connections, credentials
from dx_dagster.warehouse.connections.connections import StoredConnection
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Warehouse

SECONDS = float(os.environ.get("SECONDS_AT_ONCE", "10"))
LATEST = 5.0
FIRST = "ATCTT3xTheOneThatStays0000"
_FIRST_DAY = date(2030, 1, 1)


def token(who: str, number: int) -> str:
    return f"ATCTT3xTokenOf{who}{number:06}"


class Watched(RateLimit):
    """Remembers when each token was last seen."""

    def __init__(self) -> None:
        super().__init__()
        self.last_seen: dict[str, float] = {}
        self.seen = 0

    def spend(self, token: Token, resource: str) -> dict[str, str]:
        self.last_seen[token.secret] = time.time()
        self.seen += 1
        return super().spend(token, resource)


def test_no_lost_update_and_no_request_with_a_removed_credential(environment, database_url, capsys):
    limits = Watched()
    tokens = [Token(FIRST), *(Token(token(who, n)) for who in "AB" for n in range(1000))]
    with Sandbox(WorldConfig(repositories=6, pull_requests=20, members=5), tokens=tokens, limits=limits) as sandbox:
        env = {**environment, "BITBUCKET_API_URL": sandbox.url}
        command = [sys.executable, "-m", "dx_dagster_tests.connections.test_at_once"]
        subprocess.run([*command, "connect"], env=env, check=True, timeout=60)
        workers = [subprocess.Popen([*command, who], env=env, stdout=subprocess.PIPE, text=True) for who in "AB"]
        reports = [json.loads(worker.communicate(timeout=SECONDS + 60)[0]) for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0]
    with psycopg.connect(database_url) as database:
        [(label, expires)] = database.execute("SELECT label, expiration_date FROM credentials WHERE id = 1").fetchall()
        left = database.execute("SELECT count(*) FROM credentials WHERE deleted_at IS NULL").fetchone()
        disabled = database.execute(
            "SELECT count(*) FROM credentials WHERE deleted_at IS NULL AND disabled_reason IS NOT NULL"
        ).fetchone()
    assert (label, expires.isoformat()) == (reports[0]["label"], reports[1]["expires"])
    added, removed, disabled_by_hand = (
        sum(len(report[what]) for report in reports) for what in ("added", "removed", "disabled")
    )
    assert left == (1 + added - removed,)
    assert disabled == (disabled_by_hand,)
    gone = {secret: at for report in reports for secret, at in (report["removed"] | report["disabled"]).items()}
    late = {secret: limits.last_seen[secret] - at for secret, at in gone.items() if secret in limits.last_seen}
    used_by_others = [seconds for seconds in late.values() if seconds > 0.1]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{added} added, {removed} removed, {disabled_by_hand} disabled, {limits.seen} requests, "
            f"{len(used_by_others)} still in use then, the latest request {max(late.values()):.1f} s after\n"
        )
    assert used_by_others
    assert max(late.values()) < LATEST


# One of the processes


@dataclass
class Worker:
    who: str
    deadline: float
    added: dict[str, float] = field(default_factory=dict)
    removed: dict[str, float] = field(default_factory=dict)
    disabled: dict[str, float] = field(default_factory=dict)
    label: str = ""
    expires: str = ""


async def _work(who: str) -> dict[str, Any]:
    settings, me = Settings.read(), Worker(who, time.monotonic() + SECONDS)
    async with Warehouse(settings.database_url.get_secret_value()) as warehouse:  # type: ignore[union-attr]
        connection = await connections.find(warehouse, "acme")
        assert connection is not None
        async with asyncio.TaskGroup() as group:
            group.create_task(_use(settings, warehouse, connection, me.deadline))
            group.create_task(_update(settings, warehouse, connection, me))
            group.create_task(_manage(settings, warehouse, connection, me))
    return asdict(me)


async def _use(settings: Settings, warehouse: Warehouse, connection: StoredConnection, deadline: float) -> None:
    """Imports of six seconds each, as requests go: with the credentials that there are when one begins."""
    while time.monotonic() < deadline:
        stored = await credentials.all_of(warehouse, Vault.of(settings), connection.id)
        pool = CredentialPool([usable(one) for one in stored], MemoryLedger(default_limit=100_000))
        async with (
            BitbucketClient(settings.bitbucket_api_url, pool) as client,
            following(warehouse, pool, connection.id),
        ):
            until = min(deadline, time.monotonic() + 6)
            while time.monotonic() < until:
                with suppress(BitbucketError):
                    await client.get(endpoints.repositories("acme").path, {"pagelen": 1})
                await asyncio.sleep(0.02)  # each of ten credentials several times a second


async def _update(settings: Settings, warehouse: Warehouse, connection: StoredConnection, me: Worker) -> None:
    """One process writes the label of the credential that stays, the other its day of expiry."""
    number = 0
    while time.monotonic() < me.deadline:
        number += 1
        day = _FIRST_DAY + timedelta(days=number)
        changes = Changes(label=f"label {number}") if me.who == "A" else Changes(expires=True, expiration_date=day)
        with suppress(actions.VerificationFailed):  # too many changes at once: it says so, and nothing was changed
            await actions.update(settings, warehouse, connection, 1, changes)
            me.label, me.expires = f"label {number}", day.isoformat()
        await asyncio.sleep(random.uniform(0.1, 0.3))


async def _manage(settings: Settings, warehouse: Warehouse, connection: StoredConnection, me: Worker) -> None:
    mine: list[tuple[int, str]] = []
    number = 0
    while time.monotonic() < me.deadline - 2:
        number += 1
        secret = token(me.who, number)
        shown = await actions.add(settings, warehouse, connection, new_credential(SecretStr(secret)))
        me.added[secret] = time.time()
        mine.append((shown.id, secret))
        if len(mine) > 5:
            chosen, secret = mine.pop(random.randrange(len(mine)))
            if number % 3:
                with suppress(CredentialNotFoundError):
                    await actions.remove(warehouse, connection, chosen)
                    me.removed[secret] = time.time()
            else:
                await actions.disable(warehouse, connection, chosen, "resting")
                me.disabled[secret] = time.time()
        await asyncio.sleep(random.uniform(0, 0.3))


async def _connect() -> None:
    settings = Settings.read()
    async with Warehouse(settings.database_url.get_secret_value()) as warehouse:  # type: ignore[union-attr]
        await actions.connect(settings, warehouse, "acme", new_credential(SecretStr(FIRST)))


if __name__ == "__main__":
    if sys.argv[1] == "connect":
        asyncio.run(_connect())
    else:
        sys.stdout.write(json.dumps(asyncio.run(_work(sys.argv[1]))))
