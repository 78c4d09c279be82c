"""Servers with scripted answers, and a client of them."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import anyio
import httpx
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dx_dagster.bitbucket import BitbucketClient, Credential, CredentialPool, MemoryLedger, Retries
from dx_dagster_tests.servers import PLAIN, serving

PROBE = "/repositories/acme?pagelen=1"
QUICK = Retries(attempts=3, total=10, backoff=0.01, patience=10)


class Server:
    """An application that answers by `answer`; `seen` holds its requests."""

    port = 0
    seen: list[Request]
    arrivals: list[float]
    answer: Callable[[Request], Response]

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        return f"{self.origin}/2.0"

    def afresh(self) -> "Server":
        self.seen, self.arrivals, self.answer = [], [], lambda _: JSONResponse({})
        return self

    def tokens(self) -> list[str]:
        return [request.headers.get("authorization", "").removeprefix("Bearer ") for request in self.seen]

    async def __call__(self, scope, receive, send) -> None:
        request = Request(scope, receive)
        self.seen.append(request)
        self.arrivals.append(time.monotonic())
        await self.answer(request)(scope, receive, send)


@contextmanager
def served() -> Iterator[Server]:
    server = Server()
    logging.getLogger("uvicorn.access").disabled = True  # it would log what the tests look for in the client's log
    with serving(server, lifespan="off", **PLAIN) as url:
        server.port = httpx.URL(url).port or 0
        yield server


def token(number: int, secret: str | None = None) -> Credential:
    return Credential(number, f"token {number}", "access_token", SecretStr(secret or f"s3cr3t-{number}"))


def opened(base: str, *credentials: Credential, ledger: MemoryLedger | None = None, **settings) -> BitbucketClient:
    pool = settings.pop("pool", None) or CredentialPool(credentials or (token(1),), ledger or MemoryLedger(60))
    return BitbucketClient(base, pool, probe_path=PROBE, **{"retries": QUICK, **settings})


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw(*handlers: Handler) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that misbehaves below HTTP: one handler for each connection in turn, the last for all that follow."""
    turns = itertools.chain(handlers, itertools.repeat(handlers[-1]))
    met: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(1)
        try:
            with suppress(asyncio.IncompleteReadError):  # of a client that connects and sends nothing
                await reader.readuntil(b"\r\n\r\n")
                await next(turns)(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/2.0", met


def sends(body: bytes, status: str = "200 OK", length: int | None = None, kind: str = "application/json") -> Handler:
    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = len(body) if length is None else length
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return handle


async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def trickles(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _turn in range(100):
        writer.write(b" ")
        await asyncio.sleep(0.05)


GOOD = sends(b'{"fine": true}')


async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.6)
    await GOOD(reader, writer)


BROKEN = {
    "truncated": sends(b'{"values": [', length=100),
    "cut JSON": sends(b'{"values": ['),
    "HTML": sends(b"<html><body>We'll be right back</body></html>", kind="text/html"),
    "a lonely string": sends(b'"ok"'),
    "empty": sends(b""),
    "reset": resets,
    "nothing": sends(b"", status=""),
    "500": sends(b"<h1>Oops</h1>", "500 Internal Server Error", kind="text/html"),
    "555": sends(b'{"type":"error","error":{"message":"Unable to respond in time"}}', "555 Time-out"),
}


def answers(kind: Callable[..., Response], *args: object, **named: object) -> Callable[[Request], Response]:
    return lambda _: kind(*args, **named)


async def together(calls: list[Callable[[], Awaitable[object]]]) -> list[object]:
    answers: list[object] = []

    async def one(call: Callable[[], Awaitable[object]]) -> None:
        answers.append(await call())

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(one, call)
    return answers
