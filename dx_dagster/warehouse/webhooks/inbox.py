"""The inbox: deliveries that wait to be applied, how often that was tried, and what became of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dx_dagster.warehouse.connecting import connect
from dx_dagster.warehouse.database import Transaction, Warehouse

MOST_ATTEMPTS = 5
_FIRST_PAUSE = timedelta(seconds=10)
_LONGEST_PAUSE = timedelta(minutes=15)
_PRUNED_AT_ONCE = 5000


@dataclass(frozen=True)
class Event:
    """A delivery that is about to be applied."""

    id: int
    event_key: str
    repository_source_id: str | None
    pull_number: int | None
    body: str
    received_at: datetime


@dataclass(frozen=True)
class Waiting:
    """A connected workspace and how many of its deliveries may be applied now."""

    workspace: str
    due: int


_IS_WAITING = "applied_at IS NULL AND set_aside_at IS NULL"
# No pause is longer than a quarter of an hour: what rests longer was stored by a clock that was wrong.
_RESTS = "next_attempt_at > now() AND next_attempt_at < now() + interval '1 hour'"
_IS_DUE = f"{_IS_WAITING} AND NOT ({_RESTS})"
# Given back, for a reason that all deliveries of the workspace share: new ones need not try before these.
_IS_HELD = f"{_IS_WAITING} AND {_RESTS} AND attempts = 0 AND error IS NOT NULL"

_WAITING = f"""
    SELECT c.workspace,
           CASE WHEN c.last_error IS NOT NULL
                  OR EXISTS (SELECT FROM webhook_events WHERE workspace = c.workspace AND {_IS_HELD})
                THEN 0 ELSE count(e.id) END AS due
    FROM connections c
    LEFT JOIN webhook_events e ON e.workspace = c.workspace AND {_IS_DUE}
    WHERE c.type = 'bitbucket' AND c.deleted_at IS NULL AND c.disabled_at IS NULL
    GROUP BY c.id
    ORDER BY min(e.next_attempt_at), c.workspace"""  # noqa: S608 - constants


def waiting(url: str) -> list[Waiting]:
    """Every connected workspace, in one query; whoever waits longest comes first."""
    with connect(url, connect_timeout=5) as connection:
        return [Waiting(*row) for row in connection.execute(_WAITING).fetchall()]


_PAUSE = (
    "tried_at = now(), "
    "next_attempt_at = now() + LEAST(GREATEST(4 * (next_attempt_at - tried_at), %(first)s), %(longest)s)"
)
# The pause that `take` has chosen, from now on: what failed may have taken longer than that.
_REST = "tried_at = now(), next_attempt_at = now() + (next_attempt_at - tried_at)"
_PAUSES = {"first": _FIRST_PAUSE, "longest": _LONGEST_PAUSE}

# An attempt counts from its beginning, so that one that takes the whole process down counts as well. The next one is
# four times as far away as the last was, so that five take a quarter of an hour.
_TAKE = f"""
    WITH taken AS (
        SELECT id FROM webhook_events WHERE workspace = %(workspace)s AND {_IS_DUE}
        ORDER BY id LIMIT %(most)s FOR UPDATE SKIP LOCKED)
    UPDATE webhook_events e
    SET attempts = attempts + 1, {_PAUSE}
    FROM taken WHERE e.id = taken.id
    RETURNING e.id, event_key, repository_source_id, pull_number, body, received_at"""  # noqa: S608 - constants


async def take(warehouse: Warehouse, workspace: str, most: int) -> list[Event]:
    """The oldest deliveries that are due; they come again after a pause unless they are settled."""
    bound = {"workspace": workspace, "most": most, **_PAUSES}
    async with warehouse.transaction() as transaction:
        rows = await transaction.rows(_TAKE, bound)
    return sorted((Event(*row) for row in rows), key=lambda event: event.id)


async def postpone(warehouse: Warehouse, workspace: str, error: str) -> None:
    """Lets all that is due come again after a pause, where it could not even be tried; no attempt is counted."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            f"UPDATE webhook_events SET error = %(error)s, {_PAUSE} WHERE workspace = %(workspace)s AND {_IS_DUE}",  # noqa: S608
            {"workspace": workspace, "error": error, **_PAUSES},
        )


async def settle(transaction: Transaction, events: Collection[int], run: str, outcome: str) -> None:
    """Marks deliveries as applied; call it in the transaction that stores what they said."""
    await transaction.execute(
        "UPDATE webhook_events SET applied_at = now(), applied_by = %s, outcome = %s, error = NULL, "
        "attempts = attempts - 1 WHERE id = ANY(%s) AND applied_at IS NULL",
        [run, outcome, list(events)],
    )


async def fail(transaction: Transaction, events: Collection[int], error: str) -> int:
    """Records why deliveries could not be applied; returns how many of them were tried too often and are set aside."""
    rows = await transaction.rows(
        f"UPDATE webhook_events SET error = %s, {_REST}, set_aside_at = CASE WHEN attempts >= %s THEN now() END "  # noqa: S608
        "WHERE id = ANY(%s) AND applied_at IS NULL RETURNING set_aside_at",
        [error, MOST_ATTEMPTS, list(events)],
    )
    return sum(1 for row in rows if row.set_aside_at)


async def give_back(transaction: Transaction, events: Collection[int], error: str) -> None:
    """As `fail`, for a reason that is none of theirs (Bitbucket is away): the attempt does not count."""
    await transaction.execute(
        f"UPDATE webhook_events SET error = %s, {_REST}, attempts = attempts - 1 "  # noqa: S608
        "WHERE id = ANY(%s) AND applied_at IS NULL",
        [error, list(events)],
    )


async def release(transaction: Transaction, connection_id: int) -> None:
    """Lets what was given back come again at once: the connection has been mended."""
    await transaction.execute(
        "UPDATE webhook_events SET tried_at = NULL, next_attempt_at = now() "  # noqa: S608 - constants
        f"WHERE workspace = (SELECT workspace FROM connections WHERE id = %s) AND {_IS_HELD}",
        [connection_id],
    )


async def set_hopeless_aside(warehouse: Warehouse, workspace: str) -> int:
    """Sets aside what was begun too often and never ended, as when it takes the process down with it."""
    async with warehouse.transaction() as transaction:
        return await transaction.execute(
            f"UPDATE webhook_events SET set_aside_at = now(), error = COALESCE(error, 'the run ended without a word') "  # noqa: S608
            f"WHERE workspace = %s AND {_IS_DUE} AND attempts >= %s",
            [workspace, MOST_ATTEMPTS],
        )


async def others_wait(warehouse: Warehouse, workspace: str) -> bool:
    """Whether deliveries of another connected workspace could be applied now."""
    row = await warehouse.row(
        f"""SELECT EXISTS (SELECT FROM webhook_events e JOIN connections c USING (workspace)
                           WHERE e.workspace <> %s AND {_IS_DUE} AND c.type = 'bitbucket'
                             AND c.deleted_at IS NULL AND c.disabled_at IS NULL AND c.last_error IS NULL
                             AND NOT EXISTS (SELECT FROM webhook_events WHERE workspace = e.workspace AND {_IS_HELD})
                          ) AS found""",  # noqa: S608 - constants
        [workspace],
    )
    return bool(row.found)


async def depths(warehouse: Warehouse) -> dict[str, int]:
    """How many deliveries wait, by workspace; those set aside do not wait."""
    rows = await warehouse.rows(
        f"SELECT workspace, count(*) AS waiting FROM webhook_events WHERE {_IS_WAITING} GROUP BY workspace"  # noqa: S608
    )
    return {row.workspace: row.waiting for row in rows}


async def by_event(warehouse: Warehouse, workspace: str) -> list[dict[str, Any]]:
    """What has come of each event key, as long as it is kept."""
    rows = await warehouse.rows(
        f"""SELECT event_key AS event, count(*) AS deliveries, max(received_at) AS last_received_at,
                   max(applied_at) AS last_applied_at, count(*) FILTER (WHERE {_IS_WAITING}) AS waiting,
                   count(*) FILTER (WHERE set_aside_at IS NOT NULL) AS set_aside
            FROM webhook_events WHERE workspace = %s GROUP BY event_key ORDER BY event_key""",  # noqa: S608 - constants
        [workspace],
    )
    return [row._asdict() for row in rows]


async def set_aside(warehouse: Warehouse, workspace: str) -> list[Any]:
    """Deliveries that were given up: id, event_key, repository_source_id, pull_number, received_at, error."""
    return await warehouse.rows(
        "SELECT id, event_key, repository_source_id, pull_number, received_at, error FROM webhook_events "
        "WHERE workspace = %s AND set_aside_at IS NOT NULL ORDER BY id",
        [workspace],
    )


async def replay(warehouse: Warehouse, workspace: str, events: Sequence[int] | None = None) -> int:
    """Lets deliveries be applied again: those named, or all that were set aside. Returns how many they are."""
    async with warehouse.transaction() as transaction:
        return await transaction.execute(
            "UPDATE webhook_events SET applied_at = NULL, applied_by = NULL, outcome = NULL, set_aside_at = NULL, "
            "attempts = 0, tried_at = NULL, next_attempt_at = now() "
            "WHERE workspace = %(workspace)s AND "
            "CASE WHEN %(events)s::bigint[] IS NULL THEN set_aside_at IS NOT NULL ELSE id = ANY(%(events)s) END",
            {"workspace": workspace, "events": None if events is None else list(events)},
        )


async def prune(warehouse: Warehouse, keep: timedelta) -> int:
    """Deletes deliveries that were applied longer ago; returns how many they were."""
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
