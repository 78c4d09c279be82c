#!/usr/bin/env bash
# httpx 0.28.1, httpcore 1.0.9, anyio 4.16.0 under asyncio: `task.cancel()` of a request costs the client a connection,
# if it comes while the request connects or its response is being closed. Cancellation by anyio costs none.
#
# Expected: httpcore cleans up behind a shield, so that a cancelled request leaves the pool as it found it.
# Seen: one cancellation, tried at each turn of the event loop from a request's beginning to its end. With an anyio cancel
# scope, no turn leaves anything behind. With `task.cancel()`, some leave a connection that counts as active and serves
# nobody. With a pool of one connection the next request fails with PoolTimeout, for as long as the client lives. No
# other request has to wait for a connection. The shield is anyio's, and asyncio's own cancellation passes through it.
# So a request of a client that lives on must be cancelled through an anyio scope, also where its task is asyncio's
# (`ahead` in dx_dagster/bitbucket/paging.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check httpx==0.28.1 httpcore==1.0.9 h11==0.16.0 anyio==4.16.0
cat > "$folder/run.py" <<'PYTHON'
import asyncio
import sys
from contextlib import suppress
from importlib.metadata import version

import anyio
import httpx

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
ONE = {"limits": httpx.Limits(max_connections=1), "timeout": httpx.Timeout(10, pool=0.2), "trust_env": False}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
    writer.close()


async def lost(url: str, turns: int, *, scoped: bool) -> bool | None:
    """Whether a request fails after one that was cancelled after so many turns; None where that one had ended."""
    scope = anyio.CancelScope()
    async with httpx.AsyncClient(**ONE) as client:

        async def ask() -> None:
            with scope:
                await client.get(url)

        task = asyncio.create_task(ask())
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            return None
        scope.cancel() if scoped else task.cancel()
        await asyncio.wait([task])
        try:
            await client.get(url)
        except httpx.PoolTimeout:
            return True
        return False


async def main() -> dict[str, list[int]]:
    """The turns of the event loop at which a cancellation costs a connection."""
    found: dict[str, list[int]] = {}
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for how in ("anyio", "asyncio"):
            found[how], turns = [], 0
            while (is_lost := await lost(url, turns, scoped=how == "anyio")) is not None:
                if is_lost:
                    found[how].append(turns)
                turns += 1
            print(f"Cancelled through {how} at each of {turns} turns: {len(found[how])} times the connection was lost")
    return found


print(f"Python {sys.version.split()[0]}, httpx {version('httpx')}, httpcore {version('httpcore')}")
found = asyncio.run(main())
if found["anyio"] or len(found["asyncio"]) < 2:
    sys.exit("Other cancellations cost a connection now")
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
