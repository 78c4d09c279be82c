"""How many requests each credential has sent, by the status of their answers. Metrics show it; no import reads it."""

from collections.abc import Mapping
from dataclasses import dataclass

from dx_dagster.warehouse.database import Warehouse

_ADD = """
    INSERT INTO request_counts AS old (credential_id, status, requests)
    SELECT new.credential_id, new.status, new.requests
    FROM unnest(%(credentials)s::int[], %(statuses)s::text[], %(requests)s::bigint[])
        AS new (credential_id, status, requests) ORDER BY 1, 2
    ON CONFLICT (credential_id, status) DO UPDATE SET requests = old.requests + EXCLUDED.requests"""


@dataclass(frozen=True)
class RequestCount:
    """Requests of a credential with answers of one status, ever since."""

    workspace: str
    connection: str
    credential: int
    label: str
    status: str
    requests: int


async def add(warehouse: Warehouse, sent: Mapping[tuple[int, str], int]) -> None:
    """Adds requests, by credential and status."""
    if not sent:
        return
    async with warehouse.transaction(fenced=False) as transaction:
        await transaction.execute(
            _ADD,
            {
                "credentials": [credential for credential, _ in sent],
                "statuses": [status for _, status in sent],
                "requests": list(sent.values()),
            },
        )


async def read(warehouse: Warehouse) -> list[RequestCount]:
    """All counts, those of removed credentials too: a counter never falls."""
    statement = """
        SELECT n.workspace, n.type AS connection, c.id AS credential, c.label, r.status, r.requests
        FROM request_counts r JOIN credentials c ON c.id = r.credential_id JOIN connections n ON n.id = c.connection_id
        ORDER BY c.id, r.status"""
    return await warehouse.fetch(RequestCount, statement)
