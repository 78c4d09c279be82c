"""The inbox: deliveries that wait to be applied, how often that was tried, and what became of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import class_row
from psycopg.sql import SQL

from dx_dagster.warehouse.connecting import connect
from dx_dagster.warehouse.database import Transaction, Warehouse

MOST_ATTEMPTS = 5
_FIRST_PAUSE = timedelta(seconds=10)
_LONGEST_PAUSE = timedelta(minutes=15)
_PRUNED_AT_ONCE = 5000


@dataclass(frozen=True)
class StoredDelivery:
    """A delivery of the inbox that is about to be applied."""

    id: int
    event_key: str
    repository_source_id: str | None
    pull_number: int | None
    body: str
    received_at: datetime


@dataclass(frozen=True)
class Waiting:
    """A connected workspace and its deliveries that are due.

    Attributes:
        workspace: the connection's spelling.
        due: how many they are.
        seconds: for how long the first of them has been due.
        is_locked: whether a process holds the workspace's import lock.
    """

    workspace: str
    due: int
    seconds: float = 0.0
    is_locked: bool = False


_IS_WAITING = SQL("applied_at IS NULL AND set_aside_at IS NULL")
# No pause is longer than a quarter of an hour: a longer one comes from a clock that was wrong.
_RESTS = SQL("next_attempt_at > now() AND next_attempt_at < now() + interval '1 hour'")
_IS_DUE = SQL("{is_waiting} AND NOT ({rests})").format(is_waiting=_IS_WAITING, rests=_RESTS)
# Given back for a reason that all deliveries of the workspace share: new ones wait for these.
_IS_HELD = SQL("{is_waiting} AND {rests} AND attempts = 0 AND error IS NOT NULL").format(
    is_waiting=_IS_WAITING, rests=_RESTS
)

# The key of an advisory lock as pg_locks shows it: its upper and its lower half.
_WAITING = SQL("""
    WITH locked AS MATERIALIZED (
        SELECT (classid::bigint << 32) | objid::bigint AS key FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    SELECT c.workspace,
           CASE WHEN c.last_error IS NOT NULL
                  OR EXISTS (SELECT FROM webhook_events WHERE workspace = c.workspace AND {is_held})
                THEN 0 ELSE count(e.id) END AS due,
           COALESCE(extract(epoch FROM now() - min(e.next_attempt_at)), 0)::float8 AS seconds,
           EXISTS (SELECT FROM locked WHERE key = hashtextextended('dx-dagster import ' || lower(c.workspace), 0))
               AS is_locked
    FROM connections c
    LEFT JOIN webhook_events e ON e.workspace = c.workspace AND {is_due}
    WHERE c.type = 'bitbucket' AND c.deleted_at IS NULL AND c.disabled_at IS NULL
    GROUP BY c.id
    ORDER BY min(e.next_attempt_at), c.workspace""").format(is_held=_IS_HELD, is_due=_IS_DUE)


def waiting(url: str) -> list[Waiting]:
    """Every connected workspace, in one query. The workspace with the oldest due delivery comes first."""
    with connect(url, connect_timeout=5) as connection, connection.cursor(row_factory=class_row(Waiting)) as cursor:
        return cursor.execute(_WAITING).fetchall()


_DUE = SQL("""
    SELECT e.workspace FROM webhook_events e JOIN connections c USING (workspace)
    WHERE {is_due} AND c.type = 'bitbucket' AND c.deleted_at IS NULL AND c.disabled_at IS NULL AND c.last_error IS NULL
      AND NOT EXISTS (SELECT FROM webhook_events WHERE workspace = e.workspace AND {is_held})
    GROUP BY e.workspace ORDER BY min(e.next_attempt_at), e.workspace""").format(is_due=_IS_DUE, is_held=_IS_HELD)


async def due(warehouse: Warehouse) -> list[str]:
    """The connected workspaces whose deliveries can be applied now. The oldest due delivery comes first."""
    return [row.workspace for row in await warehouse.rows(_DUE)]


@dataclass(frozen=True)
class SettledDelivery:
    """A delivery that was applied or set aside, with the reason for the latter."""

    event_key: str
    repository_source_id: str | None
    body: str
    settled_at: datetime
    error: str | None


_SETTLED = SQL("""
    SELECT event_key, repository_source_id, body, COALESCE(set_aside_at, applied_at) AS settled_at, error
    FROM webhook_events WHERE COALESCE(set_aside_at, applied_at) > %s ORDER BY settled_at, id""")


def settled_after(url: str, moment: datetime) -> list[SettledDelivery]:
    """Deliveries that were applied or set aside after the moment, in that order."""
    with (
        connect(url, connect_timeout=5) as connection,
        connection.cursor(row_factory=class_row(SettledDelivery)) as rows,
    ):
        return rows.execute(_SETTLED, [moment]).fetchall()


_PAUSE = SQL(
    "tried_at = now(), "
    "next_attempt_at = now() + LEAST(GREATEST(4 * (next_attempt_at - tried_at), %(first)s), %(longest)s)"
)
# The pause that `take` has chosen, counted from now: the failed attempt may have taken longer than that.
_REST = SQL("tried_at = now(), next_attempt_at = now() + (next_attempt_at - tried_at)")
_PAUSES = {"first": _FIRST_PAUSE, "longest": _LONGEST_PAUSE}

# An attempt counts from its beginning, so that one that crashes the process counts as well. Each pause is four times
# the last, so that five attempts take a quarter of an hour.
# Deliveries that were given back come in the smaller batches the longer they have waited: a batch that takes more
# requests than a budget ever has room for would never be settled.
_TAKE = SQL("""
    WITH taken AS (
        SELECT id FROM webhook_events WHERE workspace = %(workspace)s AND {is_due}
        ORDER BY id LIMIT (
            SELECT ceil(%(most)s / sqrt(GREATEST(
                1, max(extract(epoch FROM next_attempt_at - tried_at)) / extract(epoch FROM %(first)s::interval))))
            FROM webhook_events
            WHERE workspace = %(workspace)s AND {is_due} AND attempts = 0 AND error IS NOT NULL)
        FOR UPDATE SKIP LOCKED)
    UPDATE webhook_events e
    SET attempts = attempts + 1, {pause}
    FROM taken WHERE e.id = taken.id
    RETURNING e.id, event_key, repository_source_id, pull_number, body, received_at""").format(
    is_due=_IS_DUE, pause=_PAUSE
)


async def take(warehouse: Warehouse, workspace: str, most: int) -> list[StoredDelivery]:
    """Takes the oldest due deliveries. They are due again after a pause unless they are settled."""
    bound = {"workspace": workspace, "most": most, **_PAUSES}
    async with warehouse.transaction() as transaction:
        deliveries = await transaction.fetch(StoredDelivery, _TAKE, bound)
    return sorted(deliveries, key=lambda delivery: delivery.id)


async def postpone(warehouse: Warehouse, workspace: str, error: str) -> None:
    """Postpones all due deliveries of a workspace by a pause, without an attempt: nothing can be applied now."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            SQL(
                "UPDATE webhook_events SET error = %(error)s, {pause} WHERE workspace = %(workspace)s AND {is_due}"
            ).format(pause=_PAUSE, is_due=_IS_DUE),
            {"workspace": workspace, "error": error, **_PAUSES},
        )


async def settle(transaction: Transaction, deliveries: Collection[int], run: str, outcome: str) -> None:
    """Marks deliveries as applied; call it in the transaction that stores their contents."""
    await transaction.execute(
        "UPDATE webhook_events SET applied_at = now(), applied_by = %s, outcome = %s, error = NULL, "
        "attempts = attempts - 1 WHERE id = ANY(%s) AND applied_at IS NULL",
        [run, outcome, list(deliveries)],
    )


async def fail(transaction: Transaction, deliveries: Collection[int], error: str, *, gives_up: bool = True) -> int:
    """Records why deliveries could not be applied; returns how many are set aside, after too many attempts.

    Where it never `gives_up`, the last attempt does not count.
    """
    rows = await transaction.rows(
        SQL("""
            UPDATE webhook_events
            SET error = %(error)s, {rest}, attempts = CASE WHEN %(gives_up)s THEN attempts
                                                           ELSE LEAST(attempts, %(most)s - 1) END,
                set_aside_at = CASE WHEN %(gives_up)s AND attempts >= %(most)s THEN now() END
            WHERE id = ANY(%(ids)s) AND applied_at IS NULL RETURNING set_aside_at""").format(rest=_REST),
        {"error": error, "gives_up": gives_up, "most": MOST_ATTEMPTS, "ids": list(deliveries)},
    )
    return sum(1 for row in rows if row.set_aside_at)


async def give_back(transaction: Transaction, deliveries: Collection[int], error: str) -> None:
    """Records a failure that no delivery causes (Bitbucket does not answer): the attempt does not count."""
    await transaction.execute(
        SQL("""
            UPDATE webhook_events SET error = %s, {rest}, attempts = attempts - 1
            WHERE id = ANY(%s) AND applied_at IS NULL""").format(rest=_REST),
        [error, list(deliveries)],
    )


async def release(transaction: Transaction, connection_id: int) -> None:
    """Makes deliveries that were given back due at once: the connection works again."""
    await transaction.execute(
        SQL("""
            UPDATE webhook_events SET tried_at = NULL, next_attempt_at = now()
            WHERE workspace = (SELECT workspace FROM connections WHERE id = %s) AND {is_held}""").format(
            is_held=_IS_HELD
        ),
        [connection_id],
    )


async def set_hopeless_aside(warehouse: Warehouse, workspace: str) -> int:
    """Sets aside deliveries with too many attempts that never ended, as where they crash the process."""
    async with warehouse.transaction() as transaction:
        return await transaction.execute(
            SQL("""
                UPDATE webhook_events
                SET set_aside_at = now(), error = COALESCE(error, 'the run ended without a word')
                WHERE workspace = %s AND {is_due} AND attempts >= %s""").format(is_due=_IS_DUE),
            [workspace, MOST_ATTEMPTS],
        )


async def depths(warehouse: Warehouse) -> dict[str, int]:
    """Number of waiting deliveries by workspace, without those that are set aside."""
    rows = await warehouse.rows(
        SQL("SELECT workspace, count(*) AS waiting FROM webhook_events WHERE {is_waiting} GROUP BY workspace").format(
            is_waiting=_IS_WAITING
        )
    )
    return {row.workspace: row.waiting for row in rows}


@dataclass(frozen=True)
class Depth:
    """The waiting deliveries of a workspace, and the age of the oldest one in seconds."""

    workspace: str
    waiting: int
    seconds: float


async def waiting_times(warehouse: Warehouse) -> list[Depth]:
    """Of each connected workspace, 0 where none waits. Deliveries that are set aside do not count."""
    statement = SQL("""
        SELECT c.workspace, count(e.id)::int AS waiting,
               GREATEST(COALESCE(extract(epoch FROM now() - min(e.received_at)), 0), 0)::float8 AS seconds
        FROM connections c LEFT JOIN webhook_events e ON e.workspace = c.workspace AND {is_waiting}
        WHERE c.type = 'bitbucket' AND c.deleted_at IS NULL GROUP BY c.workspace""")
    return await warehouse.fetch(Depth, statement.format(is_waiting=_IS_WAITING))


async def by_event(warehouse: Warehouse, workspace: str) -> list[dict[str, Any]]:
    """Deliveries by event key, as long as they are kept."""
    rows = await warehouse.rows(
        SQL("""
            SELECT event_key AS event, count(*) AS deliveries, max(received_at) AS last_received_at,
                   max(applied_at) AS last_applied_at, count(*) FILTER (WHERE {is_waiting}) AS waiting,
                   count(*) FILTER (WHERE set_aside_at IS NOT NULL) AS set_aside
            FROM webhook_events WHERE workspace = %s GROUP BY event_key ORDER BY event_key""").format(
            is_waiting=_IS_WAITING
        ),
        [workspace],
    )
    return [row._asdict() for row in rows]


async def set_aside(warehouse: Warehouse, workspace: str) -> list[Any]:
    """Deliveries that are set aside: id, event_key, repository_source_id, pull_number, received_at, error."""
    return await warehouse.rows(
        "SELECT id, event_key, repository_source_id, pull_number, received_at, error FROM webhook_events "
        "WHERE workspace = %s AND set_aside_at IS NOT NULL ORDER BY id",
        [workspace],
    )


async def missing(warehouse: Warehouse, workspace: str, deliveries: Sequence[int]) -> list[int]:
    """Which of these ids no stored delivery of the workspace has."""
    rows = await warehouse.rows(
        "SELECT id FROM webhook_events WHERE workspace = %s AND id = ANY(%s::bigint[])", [workspace, list(deliveries)]
    )
    return sorted(set(deliveries) - {row.id for row in rows})


async def replay(warehouse: Warehouse, workspace: str, deliveries: Sequence[int] | None = None) -> int:
    """Makes deliveries due again: those with the given ids, or all that are set aside. Returns how many."""
    async with warehouse.transaction() as transaction:
        return await transaction.execute(
            "UPDATE webhook_events SET applied_at = NULL, applied_by = NULL, outcome = NULL, set_aside_at = NULL, "
            "attempts = 0, tried_at = NULL, next_attempt_at = now() "
            "WHERE workspace = %(workspace)s AND "
            "CASE WHEN %(ids)s::bigint[] IS NULL THEN set_aside_at IS NOT NULL ELSE id = ANY(%(ids)s) END",
            {"workspace": workspace, "ids": None if deliveries is None else list(deliveries)},
        )


async def prune(warehouse: Warehouse, keep: timedelta) -> int:
    """Deletes deliveries that were applied more than `keep` ago; returns how many."""
    deleted = 0
    while True:
        async with warehouse.transaction() as transaction:
            batch = await transaction.execute(
                "DELETE FROM webhook_events WHERE id IN "
                "(SELECT id FROM webhook_events WHERE applied_at < now() - %s ORDER BY applied_at LIMIT %s)",
                [keep, _PRUNED_AT_ONCE],
            )
        deleted += batch
        if batch < _PRUNED_AT_ONCE:
            return deleted
