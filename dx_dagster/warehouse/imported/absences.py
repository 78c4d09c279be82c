"""Whom to ask first of all that suspicious listings lacked: what was asked longest ago, so that each sync gets on."""

from collections.abc import Collection

from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported.marks import rests

# What was missing so long ago was there in between: no pause is longer.
_FORGOTTEN = "interval '62 days'"


async def next_to_ask(warehouse: Warehouse, subject_ids: Collection[str], most: int) -> list[str]:
    """At most `most` of these, those never asked first; they count as asked from now on, whatever the answer.

    What Bitbucket has again and again not confirmed to be gone rests, the longer the longer it has been missing.
    """
    async with warehouse.transaction() as transaction:
        rows = await transaction.rows(
            f"""INSERT INTO absence_checks AS c (subject_id, missing_since, asked_at)
                SELECT wanted.id, now(), now() FROM unnest(%s::uuid[]) AS wanted (id)
                LEFT JOIN absence_checks c ON c.subject_id = wanted.id
                WHERE NOT {rests("c.asked_at", "c.missing_since")}
                ORDER BY c.asked_at NULLS FIRST, wanted.id LIMIT %s
                ON CONFLICT (subject_id) DO UPDATE SET asked_at = EXCLUDED.asked_at, missing_since = CASE
                    WHEN now() - c.asked_at > {_FORGOTTEN} THEN EXCLUDED.missing_since ELSE c.missing_since END
                RETURNING subject_id::text AS id""",  # noqa: S608 - expressions of ours
            [list(subject_ids), most],
        )
    return [row.id for row in rows]
