"""Connects and imports the workspaces of a sandbox, with the code that PYTHONPATH names: for `deliveries`.

Reads JSON from standard input: settings as `Settings` has them, the token's `secret`, the hooks' `signing` secret, and
the `workspaces`.
"""

import asyncio
import json
import sys
from typing import Any

import psycopg

from dx_dagster.settings import Settings
from dx_dagster.warehouse import migrations
from dx_dagster.warehouse.database import Warehouse
from dx_dagster_tests.delivering import give_secret
from dx_dagster_tests.importing import Heard, give_credential, import_all


async def _import(settings: Settings, url: str, workspaces: list[str]) -> None:
    async with Warehouse(url) as warehouse:
        for workspace in workspaces:
            await import_all(settings, warehouse, Heard(), workspace)


def main() -> None:
    given: dict[str, Any] = json.load(sys.stdin)
    settings, url = Settings.model_validate(given["settings"]), given["settings"]["DX_DATABASE_URL"]
    migrations.upgrade(url)
    for workspace in given["workspaces"]:
        give_credential(settings, workspace, given["secret"])
        give_secret(settings, workspace, given["signing"])
    asyncio.run(_import(settings, url, given["workspaces"]))
    with psycopg.connect(url) as connection:  # or the schedules would begin with a sync of each
        connection.execute("UPDATE connections SET last_synced_at = now()")


if __name__ == "__main__":
    main()
