"""The two weeks of queries/data.sql with all unified tables built from them."""

import asyncio
from pathlib import Path

import psycopg

from dx_dagster.insights import building
from dx_dagster.insights.people import builds as people
from dx_dagster.insights.unified import BUILDS
from dx_dagster.warehouse.database import Warehouse

# The file states people as rows: no evidence leads to them.
PEOPLE = (people.TEAMS, people.HIERARCHIES, people.USERS, people.IDENTITIES, people.IDENTIFIERS)
QUERIES = Path(__file__).parent / "queries"


def fill(database_url: str) -> None:
    """Inserts the rows that an import would, and builds the unified tables."""
    with psycopg.connect(database_url) as connection:
        connection.execute((QUERIES / "data.sql").read_bytes())
        row = connection.execute("SELECT id::text FROM bitbucket_workspaces").fetchone()
    assert row is not None
    asyncio.run(_build(database_url, row[0]))


async def _build(database_url: str, workspace_id: str) -> None:
    async with Warehouse(database_url) as warehouse:
        for build in BUILDS:
            if build not in PEOPLE:
                await building.run(warehouse, build, workspace_id)
