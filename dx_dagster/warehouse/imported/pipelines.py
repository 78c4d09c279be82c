"""Stored runs of Bitbucket Pipelines: which must be fetched again, and which a delivery names."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from psycopg.sql import SQL

from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.imported.marks import rests
from dx_dagster.warehouse.merge import is_absurd


class Run(NamedTuple):
    id: str
    source_id: str
    created_at: datetime | None


_DUE = SQL("""
    SELECT id::text, source_id, created_at FROM bitbucket_pipelines
    WHERE repository_id = %s AND (state IS DISTINCT FROM 'COMPLETED' OR {is_absurd})
      AND NOT {rests}
    ORDER BY created_at DESC NULLS LAST""").format(
    is_absurd=is_absurd("created_at"), rests=rests("asked_at", "created_at")
)


async def count(warehouse: Warehouse, repository_id: str, since: datetime | None) -> int:
    """Number of runs of the repository created since then; of all runs where `since` is None."""
    row = await warehouse.row(
        "SELECT count(*) AS runs FROM bitbucket_pipelines "
        "WHERE repository_id = %s AND created_at >= COALESCE(%s::timestamptz, '-infinity')",
        [repository_id, since],
    )
    return int(row.runs)


async def due(warehouse: Warehouse, repository_id: str) -> list[Run]:
    """Runs to fetch again, newest first: not completed and not resting, or with a date that cannot be right.

    A pause grows with the age of its run.
    """
    return await warehouse.fetch(Run, _DUE, [repository_id])


async def named(warehouse: Warehouse, repository_id: str, numbers: Collection[int]) -> list[Run]:
    """Runs with these build numbers, newest first."""
    return await warehouse.fetch(
        Run,
        "SELECT id::text, source_id, created_at FROM bitbucket_pipelines "
        "WHERE repository_id = %s AND build_number = ANY(%s) ORDER BY created_at DESC NULLS LAST",
        [repository_id, list(numbers)],
    )


async def asked(transaction: Transaction, run_ids: Collection[str]) -> None:
    """Records that these runs were fetched, or found to be gone."""
    if run_ids:
        await transaction.execute(
            "UPDATE bitbucket_pipelines SET asked_at = now() WHERE id = ANY(%s::uuid[])", [list(run_ids)]
        )
