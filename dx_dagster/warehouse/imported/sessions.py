"""Sessions of syncs: one sync, or several processes of which all but the last were killed.

A killed process leaves its session behind. The next sync of the workspace continues it: what was completed since the
session began counts as completed, as it does in a sync that takes as long and is not killed.

No later sync misses a change by that. Every mark says how far things were seen when its requests began, in whichever
process that was: `synced_to` comes from the first page of a walk, `asked_at` is from before it. So what changes between
a kill and the continuation is newer than the mark, and the next session asks for it. Complete lists, of which absence
is news, are believed for one session. Docs: architecture.md, "Killed syncs".
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from dx_dagster.warehouse import versions
from dx_dagster.warehouse.database import Transaction, Warehouse, WarehouseError
from dx_dagster.warehouse.imported.review_times import RULES
from dx_dagster.warehouse.repeating import repeated

CONTINUED_WITHIN = timedelta(hours=1)
"""A session is not continued once its pauses together are longer: what it found would be believed for too long."""

_PAUSE_OF_A_KILL = timedelta(minutes=3)
"""The least that a kill counts as a pause, so that a process that crashes again and again leaves the session."""

_SECONDS_BETWEEN_SIGNS_OF_LIFE = 30.0


@dataclass(frozen=True)
class Session:
    """A session that this process has begun or continues.

    Attributes:
        continued_from: when it began, where this process continues it; None for a new one.
        steps: that ended in it before this process.
        agreed: kinds of pull request, once for each whose commits were as the history proves them.
    """

    workspace: str
    continued_from: datetime | None = None
    steps: Sequence[str] = ()
    agreed: Sequence[str] = ()


_CONTINUE = """
    UPDATE sync_sessions SET alive_at = now(), paused = paused + greatest(now() - alive_at, %(kill)s)
    WHERE workspace = %(workspace)s AND rules = %(rules)s AND NOT %(afresh)s
      AND paused + greatest(now() - alive_at, %(kill)s) < %(within)s
      AND alive_at <= now()
    RETURNING started_at, steps, agreed"""
_BEGIN = """
    INSERT INTO sync_sessions (workspace, rules) VALUES (%(workspace)s, %(rules)s)
    ON CONFLICT (workspace) DO UPDATE
    SET started_at = now(), alive_at = now(), paused = DEFAULT,
        rules = EXCLUDED.rules, steps = DEFAULT, agreed = DEFAULT"""

_FORGET_COMMITS = "DELETE FROM sync_session_commits WHERE workspace = %s"


async def begin(warehouse: Warehouse, workspace: str, *, afresh: bool) -> Session:
    """Continues the workspace's session if its process was killed lately, else begins one; `afresh` always begins one.

    Call it with the workspace's lock held: then no process works in the session.
    """
    name = workspace.lower()
    bound = {
        "workspace": name,
        "rules": _rules(),
        "afresh": afresh,
        "within": CONTINUED_WITHIN,
        "kill": _PAUSE_OF_A_KILL,
    }
    async with warehouse.transaction() as transaction:
        if found := await transaction.row(_CONTINUE, bound):
            return Session(name, found.started_at, found.steps, found.agreed)
        await transaction.execute(_BEGIN, bound)
        await transaction.execute(_FORGET_COMMITS, [name])
    return Session(name)


def _rules() -> str:
    return f"{versions.known()[-1]} {RULES}"


async def _keep_alive(transaction: Transaction, session: Session) -> None:
    """Records that a process works in the session."""
    await transaction.execute("UPDATE sync_sessions SET alive_at = now() WHERE workspace = %s", [session.workspace])


async def step_ended(transaction: Transaction, session: Session, step: str) -> None:
    await transaction.execute(
        "UPDATE sync_sessions SET steps = array_append(steps, %s) WHERE workspace = %s", [step, session.workspace]
    )


async def note_agreed(transaction: Transaction, session: Session, kinds: Sequence[str]) -> None:
    """Records that commits of pull requests of these kinds were as the history proves them."""
    statement = "UPDATE sync_sessions SET agreed = agreed || %s::text[] WHERE workspace = %s"
    await transaction.execute(statement, [list(kinds), session.workspace])


async def forget_agreed(transaction: Transaction, session: Session) -> None:
    """Forgets all of it, since one was not."""
    await transaction.execute("UPDATE sync_sessions SET agreed = '{}' WHERE workspace = %s", [session.workspace])


async def keep_commits(transaction: Transaction, session: Session, repository_id: str, values: Sequence[Any]) -> None:
    """Keeps commits that were fetched before it is known of which pull requests they are."""
    await transaction.execute(
        "INSERT INTO sync_session_commits (workspace, repository_id, commits) VALUES (%s, %s, %s)",
        [session.workspace, repository_id, json.dumps(values)],
    )


async def kept_commits(warehouse: Warehouse, session: Session, repository_id: str) -> list[Any]:
    """The kept commits of a repository, as Bitbucket returned them."""
    rows = await warehouse.rows(
        "SELECT commits FROM sync_session_commits WHERE workspace = %s AND repository_id = %s",
        [session.workspace, repository_id],
    )
    return [value for row in rows for value in json.loads(row.commits)]


async def drop_commits(transaction: Transaction, session: Session, repository_id: str) -> None:
    await transaction.execute(
        "DELETE FROM sync_session_commits WHERE workspace = %s AND repository_id = %s",
        [session.workspace, repository_id],
    )


async def end(warehouse: Warehouse, session: Session) -> None:
    """Ends the session: the next sync begins a new one."""
    async with warehouse.transaction() as transaction:
        await transaction.execute("DELETE FROM sync_sessions WHERE workspace = %s", [session.workspace])
        await transaction.execute(_FORGET_COMMITS, [session.workspace])


@asynccontextmanager
async def in_session(warehouse: Warehouse, workspace: str, *, afresh: bool) -> AsyncIterator[Session]:
    """Begins the session of a sync, or continues that of a killed one, and ends it unless this process is killed too.

    Enter it with the workspace's lock held. `afresh`: nothing is continued.
    """
    session = await begin(warehouse, workspace, afresh=afresh)

    async def keep_alive() -> None:
        async with warehouse.transaction() as transaction:
            await _keep_alive(transaction, session)

    try:
        async with repeated(_SECONDS_BETWEEN_SIGNS_OF_LIFE, keep_alive, "cannot record that the sync works"):
            yield session
    finally:
        # Without a database or a lock, the session is left to the next sync.
        with suppress(psycopg.OperationalError, WarehouseError):
            await end(warehouse, session)
