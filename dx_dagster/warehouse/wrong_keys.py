"""Wrong API keys by network, counted for all processes of the API together."""

from dataclasses import dataclass

from psycopg.sql import SQL

from dx_dagster.warehouse.database import Warehouse

# One more than the limit is kept: the one that goes beyond it is told so.
_NOTE = SQL("""
    INSERT INTO wrong_keys (network, given_at) VALUES (%(network)s, ARRAY[clock_timestamp()])
    ON CONFLICT (network) DO UPDATE SET given_at = ARRAY(
        SELECT moment FROM (
            SELECT moment FROM unnest(wrong_keys.given_at || excluded.given_at) AS given (moment)
            WHERE moment > excluded.given_at[1] - make_interval(secs => %(seconds)s)
            ORDER BY moment DESC LIMIT %(most)s + 1) AS latest
        ORDER BY moment)
    RETURNING cardinality(given_at) AS given, COALESCE(extract(epoch FROM
        given_at[cardinality(given_at) - %(most)s + 1] - clock_timestamp()) + %(seconds)s, 0)::float AS wait""")
_FORGET = "DELETE FROM wrong_keys WHERE given_at[cardinality(given_at)] < now() - make_interval(secs => %s)"


@dataclass(frozen=True)
class Noted:
    """What is known of a network after another wrong key.

    Attributes:
        given: wrong keys within the last seconds, this one included; at most one more than the limit.
        wait: seconds until it may give another one.
    """

    given: int
    wait: float


async def note(warehouse: Warehouse, network: str, *, most: int, seconds: float) -> Noted:
    """Counts a wrong key of the network."""
    values = {"network": network, "most": most, "seconds": seconds}
    async with warehouse.transaction() as transaction:
        row = await transaction.row(_NOTE, values)
    return Noted(int(row.given), max(0.0, float(row.wait)))


async def forget(warehouse: Warehouse, seconds: float) -> None:
    """Removes networks that gave no wrong key for so long."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(_FORGET, [seconds])
