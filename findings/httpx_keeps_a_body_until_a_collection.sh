#!/usr/bin/env bash
# httpx 0.28.1: a response that was read, returned and dropped stays in memory until Python collects garbage.
#
# Expected: AsyncClient.get reads the body and gives its connection back, so that nothing but the caller holds the
# response, and its body is freed with the last reference.
# Seen: the response refers to its stream and the stream to the response. Ten dropped responses of 1 MB keep 10 MB, until
# gc.collect(). With another stream in place of the read one, they keep nothing. A program that collects seldom, as one
# that parses much JSON may, holds hundreds of bodies (dx_dagster/bitbucket/client.py, `_exchange`).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check httpx==0.28.1 httpcore==1.0.9 h11==0.16.0 anyio==4.16.0
cat > "$folder/run.py" <<'PYTHON'
import asyncio
import gc
import sys
from contextlib import suppress
from importlib.metadata import version

import httpx

BODY = b"x" * 2**20
ended = asyncio.Event()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY))
    ended.set()


def kept() -> int:
    return sum(len(one.content) for one in gc.get_objects() if isinstance(one, httpx.Response)) // 2**20


async def main() -> tuple[int, int, int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = "http://127.0.0.1:%d/" % server.sockets[0].getsockname()[1]
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(10):
            await client.get(url)
        as_it_is = kept()
        gc.collect()
        collected = kept()
        for _ in range(10):
            (await client.get(url)).stream = httpx.ByteStream(b"")
        found = as_it_is, collected, kept()
    await ended.wait()
    server.close()
    return found


gc.disable()
as_it_is, collected, without = asyncio.run(main())
print(f"httpx {version('httpx')}: dropped responses keep {as_it_is} MB, {collected} after gc.collect()")
print(f"with another stream in place of the read one: {without} MB")
sys.exit((as_it_is, collected, without) != (10, 0, 0))
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
