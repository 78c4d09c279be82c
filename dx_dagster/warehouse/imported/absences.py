"""Subjects that suspicious listings lacked, each confirmed by a request of its own: least recently asked for first."""

from collections.abc import Collection

from psycopg.sql import SQL

from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported.marks import rests

# No pause is longer than 62 days: a subject that was last asked for earlier was listed in between.
_NEXT = SQL("""
    INSERT INTO absence_checks AS c (subject_id, missing_since, asked_at)
    SELECT wanted.id, now(), now() FROM unnest(%s::uuid[]) AS wanted (id)
    LEFT JOIN absence_checks c ON c.subject_id = wanted.id
    WHERE NOT {rests}
    ORDER BY c.asked_at NULLS FIRST, wanted.id LIMIT %s
    ON CONFLICT (subject_id) DO UPDATE SET asked_at = EXCLUDED.asked_at, missing_since = CASE
        WHEN now() - c.asked_at > interval '62 days' THEN EXCLUDED.missing_since ELSE c.missing_since END
    RETURNING subject_id::text AS id""").format(rests=rests("c.asked_at", "c.missing_since"))


async def next_to_ask(warehouse: Warehouse, subject_ids: Collection[str], most: int) -> list[str]:
    """At most `most` of these subjects, those never asked for first; from now on they count as asked for.

    A subject whose absence is never confirmed rests, with pauses that grow with the time it has been missing.
    """
    async with warehouse.transaction() as transaction:
        rows = await transaction.rows(_NEXT, [list(subject_ids), most])
    return [row.id for row in rows]
