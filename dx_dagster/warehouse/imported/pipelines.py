"""Runs of Bitbucket Pipelines that are stored: which must be asked again, and which deliveries name."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.imported.marks import rests
from dx_dagster.warehouse.merge import is_absurd


class Run(NamedTuple):
    id: str
    source_id: str
    created_at: datetime | None


_COLUMNS = "id::text, source_id, created_at"


async def count(warehouse: Warehouse, repository_id: str, since: datetime | None) -> int:
    """How many runs of the repository were created since then; all where that is not known."""
    row = await warehouse.row(
        "SELECT count(*) AS runs FROM bitbucket_pipelines "
        "WHERE repository_id = %s AND created_at >= COALESCE(%s::timestamptz, '-infinity')",
        [repository_id, since],
    )
    return int(row.runs)


async def due(warehouse: Warehouse, repository_id: str, seen: Collection[str]) -> list[Run]:
    """Those that had not ended when they were last asked for, and have not rested as long as their age demands; and
    those with a date that cannot be right.

    `seen` (uuids in braces) were listed just now. The newest come first.
    """
    rows = await warehouse.rows(
        f"""SELECT {_COLUMNS} FROM bitbucket_pipelines
            WHERE repository_id = %s AND (state IS DISTINCT FROM 'COMPLETED' OR {is_absurd("created_at")})
              AND NOT source_id = ANY(%s) AND NOT {rests("asked_at", "created_at")}
            ORDER BY created_at DESC NULLS LAST""",  # noqa: S608 - names and expressions of ours
        [repository_id, list(seen)],
    )
    return [Run(*row) for row in rows]


async def named(warehouse: Warehouse, repository_id: str, numbers: Collection[int]) -> list[Run]:
    """Those with these numbers, the newest first."""
    rows = await warehouse.rows(
        f"SELECT {_COLUMNS} FROM bitbucket_pipelines WHERE repository_id = %s AND build_number = ANY(%s) "  # noqa: S608
        "ORDER BY created_at DESC NULLS LAST",
        [repository_id, list(numbers)],
    )
    return [Run(*row) for row in rows]


async def asked(transaction: Transaction, run_ids: Collection[str]) -> None:
    """Notes that these were asked for."""
    if run_ids:
        await transaction.execute(
            "UPDATE bitbucket_pipelines SET asked_at = now() WHERE id = ANY(%s::uuid[])", [list(run_ids)]
        )
