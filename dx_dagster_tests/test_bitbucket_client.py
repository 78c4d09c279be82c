"""What the Bitbucket client promises, against real HTTP on loopback."""

import asyncio
import itertools
import json
import logging
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import anyio
import httpx
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from dx_dagster.bitbucket import (
    AdaptiveLimiter,
    BadRequest,
    BitbucketClient,
    BitbucketError,
    Credential,
    CredentialPool,
    CredentialsExhausted,
    Endpoint,
    Forbidden,
    Gone,
    Lease,
    MemoryLedger,
    NotFound,
    Page,
    PagingInCircles,
    RateLimited,
    RefusedOrigin,
    Retries,
    Timeouts,
    Unauthorized,
    Unavailable,
    cursor,
    endpoints,
    from_response,
    id_windows,
    keyset,
    numbered,
    sign,
    verify,
)

pytestmark = pytest.mark.anyio

PAYLOADS = Path(__file__).parents[2] / "shared" / "payloads"
PROBE = "/repositories/acme?pagelen=1"
QUICK = Retries(attempts=3, total=10, backoff=0.01, patience=10)


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Server:
    """An HTTP server in a thread, answering as `answer` says; `seen` is what it was asked."""

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
    config = uvicorn.Config(server, port=0, lifespan="off", ws="none", log_config=None, access_log=False)
    runner = uvicorn.Server(config)
    logging.getLogger("uvicorn.access").disabled = True
    thread = threading.Thread(target=runner.run)
    thread.start()
    while not runner.started:
        time.sleep(0.005)
    server.port = runner.servers[0].sockets[0].getsockname()[1]
    yield server
    runner.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Server, Server]]:
    with served() as api, served() as stranger:
        yield api, stranger


@pytest.fixture
def api(running: tuple[Server, Server]) -> Server:
    return running[0].afresh()


@pytest.fixture
def stranger(running: tuple[Server, Server]) -> Server:
    return running[1].afresh()


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
        await reader.readuntil(b"\r\n\r\n")
        try:
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


# One origin


def strange_links(api: Server, stranger: Server) -> list[str]:
    foreign = f"127.0.0.1:{stranger.port}"
    return [
        f"http://{foreign}/2.0/repositories/acme",
        f"//{foreign}/2.0/repositories/acme",
        f"http://127.0.0.1:{api.port}@{foreign}/2.0/repositories/acme",
        f"http://{foreign}\\@127.0.0.1:{api.port}/2.0/repositories/acme",
        f"http://{foreign}#@127.0.0.1:{api.port}/2.0/repositories/acme",
        f"http://someone:else@127.0.0.1:{api.port}/2.0/repositories/acme",
        f"http://localhost:{api.port}/2.0/repositories/acme",
        f"https://127.0.0.1:{api.port}/2.0/repositories/acme",
        f"{api.origin}/1.0/repositories/acme",
        f"{api.origin}/2.0/../internal",
        f"{api.origin}/2.0/%2e%2e/internal",
        f"{api.origin}/2.0/x%2F..%2F..%2Finternal",
        f"{api.origin}/2.0evil/repositories",
        "javascript:alert(1)",
        "http://[::1",
    ]


async def test_a_token_follows_no_link_and_no_redirect_to_anywhere_else(api: Server, stranger: Server) -> None:
    async with opened(api.base) as client:
        for link in strange_links(api, stranger):
            api.seen.clear()
            api.answer = answers(JSONResponse, {"values": [{"id": 1}], "next": link})
            with pytest.raises(RefusedOrigin):
                [page async for page in cursor(client, endpoints.repositories("acme"))]
            with pytest.raises(RefusedOrigin):
                await client.get(link)
            api.answer = answers(Response, status_code=302, headers={"location": link})
            with pytest.raises((RefusedOrigin, NotFound)):
                await client.get("/repositories/acme")
            assert all(request.url.path.startswith("/2.0/repositories/acme") for request in api.seen), link
    assert stranger.seen == []


async def test_redirects_within_the_api_are_followed_five_times_at_most(api: Server) -> None:
    def answer(request: Request) -> Response:
        step = int(request.url.path.rsplit("/", 1)[1])
        last = int(request.query_params.get("last", 5))
        if step == last:
            return JSONResponse({"token": request.headers["authorization"]})
        where = f"/2.0/step/{step + 1}?last={last}" if step % 2 else f"{step + 1}?last={last}"
        return RedirectResponse(where, 302)

    api.answer = answer
    async with opened(api.base) as client:
        assert await client.get("/step/0", {"last": 5}) == {"token": "Bearer s3cr3t-1"}
        with pytest.raises(Unavailable, match="more than 5"):
            await client.get("/step/0", {"last": 6})


def test_plain_http_to_another_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="plain http"):
        opened("http://bitbucket.example/2.0")


# Retries


@pytest.mark.parametrize("name", BROKEN)
async def test_a_passing_failure_is_retried_and_a_lasting_one_is_unavailable(name: str) -> None:
    async with raw(BROKEN[name], BROKEN[name], GOOD) as (base, met), opened(base) as client:
        assert await client.get("/x") == {"fine": True}
        assert len(met) == client.requests == 3
    async with raw(BROKEN[name]) as (base, met), opened(base) as client:
        with pytest.raises(Unavailable, match=r"GET /2.0/x .*\(2 tries\)") as failure:
            await client.get("/x?q=private", attempts=2)
        assert len(met) == 2
        assert failure.value.__context__ is None
        assert "private" not in str(failure.value)


async def test_an_answer_that_trickles_for_ever_is_given_up_and_asked_for_again() -> None:
    async with raw(trickles, GOOD) as (base, met), opened(base, timeouts=Timeouts(total=0.2)) as client:
        began = time.monotonic()
        assert await client.get("/x") == {"fine": True}
        assert len(met) == 2
        assert time.monotonic() - began < 2


async def test_nobody_home_is_unavailable() -> None:
    async with opened("http://127.0.0.1:9/2.0") as client:
        with pytest.raises(Unavailable, match="ConnectError"):
            await client.get("/x")


async def test_a_post_that_may_have_been_received_is_not_sent_twice() -> None:
    async with raw(resets) as (base, met), opened(base) as client:
        with pytest.raises(Unavailable):
            await client.request("POST", "/hooks", json={"url": "https://dx.example"})
        assert len(met) == 1
        with pytest.raises(Unavailable):
            await client.request("POST", "/commits", data={"include": ["a"]}, idempotent=True)
        assert len(met) == 1 + 3


# The pool


def limits_first(headers: dict[str, str]) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        if request.headers["authorization"].endswith("-1"):
            return Response("Rate limit for this resource has been exceeded", 429, headers, "text/plain")
        return JSONResponse({})

    return answer


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "30"},
        {"retry-after": format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)},
        {"retry-after": "soon"},
        {"x-ratelimit-reset": "30"},
        {},
    ],
)
async def test_a_limited_credential_rests_while_the_others_work(api: Server, headers: dict[str, str]) -> None:
    api.answer = limits_first(headers)
    async with opened(api.base, token(1), token(2), token(3)) as client:
        await together([lambda: client.get("/x") for _ in range(60)])
    assert api.tokens().count("s3cr3t-1") <= 4  # what was under way when the first 429 came
    assert min(api.tokens().count("s3cr3t-2"), api.tokens().count("s3cr3t-3")) > 20


async def test_when_all_rest_the_caller_is_told_and_waits(api: Server) -> None:
    limits = iter([Response(status_code=429, headers={"retry-after": "1"})])
    api.answer = lambda _: next(limits, JSONResponse({"fine": True}))
    told: list[float] = []
    pool = CredentialPool([token(1)], MemoryLedger(60), on_wait=lambda seconds, _: told.append(seconds))
    async with opened(api.base, pool=pool) as client:
        began = time.monotonic()
        assert await client.get("/x", attempts=1) == {"fine": True}
        assert 1 <= time.monotonic() - began < 2
    assert told == [pytest.approx(1, abs=0.1)]


async def test_patience_ends_as_rate_limited(api: Server) -> None:
    api.answer = lambda _: Response(status_code=429, headers={"retry-after": "600"})
    async with opened(api.base) as client:
        with pytest.raises(RateLimited) as error:
            await client.get("/x")
    assert error.value.retry_after == pytest.approx(600, abs=5)


async def test_refusals_in_a_row_back_off_and_a_burst_counts_once() -> None:
    ledger = MemoryLedger(window=3600)
    pool = CredentialPool([token(1)], ledger)
    waits = []
    for _ in range(12):
        burst = [await pool.take() for _ in range(3)]
        before = time.monotonic()
        for grant in burst:
            await pool.limited(grant, None)  # type: ignore[arg-type]
            await pool.settle(grant)  # type: ignore[arg-type]
        account = ledger.account("credential:1")
        waits.append(account.rests_until - before)
        account.rests_until = 0
    assert [1 <= wait / 2**step < 1.51 for step, wait in enumerate(waits[:9])] == [True] * 9
    assert waits[-1] == pytest.approx(600, abs=1)


async def test_a_window_never_holds_more_requests_than_the_limit(api: Server) -> None:
    api.answer = lambda _: JSONResponse({}, headers={"x-ratelimit-limit": "6", "x-ratelimit-nearlimit": "true"})
    ledger = MemoryLedger(window=0.5, default_limit=4)
    async with opened(api.base, ledger=ledger) as client:
        await together([lambda: client.get("/x") for _ in range(20)])
    assert all(
        sum(start <= other < start + 0.5 for other in api.arrivals) <= 6  # as learnt from the first answer
        for start in api.arrivals
    )
    assert len(api.seen) == 20
    assert ledger.account("credential:1").near_limit_at is not None


async def test_tokens_of_one_account_share_its_requests() -> None:
    pair = [Credential(n, "api", "api_token", SecretStr(f"t{n}"), f"{name}@acme.example") for n, name in
            ((1, "Ann"), (2, "ann"))]  # fmt: skip
    ledger = MemoryLedger(60, default_limit=3)
    pool = CredentialPool(pair, ledger)
    grants = [await pool.take() for _ in range(4)]
    assert [getattr(grant, "credential", None) for grant in grants] == [pair[0], pair[1], pair[0], None]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 5), st.booleans()), max_size=80), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_the_ledger_keeps_every_rolling_window(steps: list[tuple[str, float, bool]], limit: int) -> None:
    now = [0.0]
    ledger = MemoryLedger(10, limit, clock=lambda: now[0])
    ended: list[float] = []

    async def walk() -> None:
        leases: list[Lease] = []
        for budget, passed, ends in steps:
            now[0] += passed
            if ends and leases:
                lease = leases.pop()
                await ledger.settle(lease)
                await ledger.settle(lease)  # a second time changes nothing
                ended.extend([now[0]] if lease.budget == "a" else [])
            elif isinstance(given := await ledger.acquire([budget]), Lease):
                leases.append(given)
            under_way = sum(lease.budget == "a" for lease in leases)
            assert under_way + sum(end > now[0] - 10 for end in ended) <= limit

    asyncio.run(walk())


async def test_a_revoked_token_is_taken_out_once_and_the_import_goes_on(api: Server) -> None:
    def answer(request: Request) -> Response:
        if request.headers["authorization"].endswith("-1"):
            return JSONResponse({"error": {"message": "Token is invalid, expired, or not supported."}}, 401)
        return JSONResponse({"fine": True})

    api.answer = answer
    out: list[tuple[int, str]] = []

    async def record(credential: Credential, reason: str) -> None:
        out.append((credential.id, reason))

    pool = CredentialPool([token(1), token(2)], MemoryLedger(60), on_unauthorized=record)
    async with opened(api.base, pool=pool) as client:
        answers = await together([lambda: client.get("/x") for _ in range(20)])
        assert answers == [{"fine": True}] * 20
        with pytest.raises(Unauthorized, match="token 1"):
            await client.using(token(1)).get("/x")
    assert out == [(1, "Token is invalid, expired, or not supported.")]
    assert api.tokens().count("s3cr3t-1") <= 5


async def test_a_401_of_one_resource_leaves_the_token_in_and_is_forbidden(api: Server) -> None:
    api.answer = lambda request: Response(status_code=401 if "/diff" in request.url.path else 200, content="{}")
    async with opened(api.base) as client:
        with pytest.raises(Forbidden, match="good elsewhere"):
            await client.get("/repositories/acme/r/diff/1")
        assert await client.get("/x") == {}
        assert len(client.pool.usable) == 1


async def test_with_every_credential_refused_the_pool_is_exhausted(api: Server) -> None:
    api.answer = lambda _: Response(status_code=401)
    async with opened(api.base, token(1), token(2)) as client:
        with pytest.raises(CredentialsExhausted) as error:
            await client.get("/x")
        with pytest.raises(CredentialsExhausted):
            await client.get("/x")
    assert error.value.code == "invalid_credentials"


async def test_what_one_credential_may_not_see_another_may(api: Server) -> None:
    def answer(request: Request) -> Response:
        allowed = request.headers["authorization"].endswith("-3") and "/seen" in request.url.path
        return JSONResponse({"fine": True} if allowed else {"error": {"message": "Forbidden"}}, 200 if allowed else 403)

    api.answer = answer
    async with opened(api.base, token(1), token(2), token(3)) as client:
        assert await client.get("/seen") == {"fine": True}
        api.seen.clear()
        with pytest.raises(Forbidden):
            await client.get("/unseen")
    assert sorted(api.tokens()) == ["s3cr3t-1", "s3cr3t-2", "s3cr3t-3"]


async def together(calls: list[Callable[[], Awaitable[object]]]) -> list[object]:
    answers: list[object] = []

    async def one(call: Callable[[], Awaitable[object]]) -> None:
        answers.append(await call())

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(one, call)
    return answers


async def test_concurrency_grows_while_answers_are_good_and_halves_once_a_round_trip() -> None:
    limiter = AdaptiveLimiter(maximum=8, start=2)

    async def good() -> None:
        async with limiter.slot():
            await anyio.sleep(0.002)
            limiter.succeeded("x", 0.002)

    await together([good for _ in range(200)])
    assert (limiter.limit, limiter.in_flight) == (8, 0)
    async with limiter.slot() as one, limiter.slot() as another:
        limiter.overloaded(one)
        limiter.overloaded(another)
        assert (limiter.limit, limiter.in_flight) == (4, 2)


# Paging


class Listing:
    """Rows by id, answering `q` on id, `sort`, `page` and `pagelen` as Bitbucket does."""

    def __init__(self, ids: list[int], *, size: bool = True, sorts: bool = True, filters: bool = True) -> None:
        self.ids, self.size, self.sorts, self.filters = ids, size, sorts, filters
        self.asked = 0

    def __call__(self, request: Request) -> Response:
        self.asked += 1
        query = request.query_params
        if query.get("sort") and not self.sorts:
            return JSONResponse({"error": {"message": "Something went wrong"}}, 500)
        rows = self._found(query.get("q", "")) if self.filters else list(self.ids)
        if sort := query.get("sort"):
            rows.sort(reverse=sort.startswith("-"))
        page, pagelen = int(query.get("page", 1)), int(query["pagelen"])
        end = page * pagelen
        more = {"next": f"{request.url}&page={page + 1}"} if end < len(rows) else {}
        size = {"size": len(rows)} if self.size else {}
        return JSONResponse({"values": [{"id": one} for one in rows[end - pagelen : end]], **size, **more})

    def _found(self, q: str) -> list[int]:
        tests = {"<": int.__lt__, ">": int.__gt__, "<=": int.__le__}
        bounds = [(tests[operator], int(number)) for operator, number in re.findall(r"\bid ([<>]=?) (\d+)", q)]
        return [one for one in self.ids if all(test(one, number) for test, number in bounds)]


FIVE = Endpoint("/repositories/acme/r/pullrequests", {"state": ["OPEN", "MERGED"]}, 5)


async def ids_of(pages: AsyncIterator[Page]) -> list[int]:
    return [row["id"] async for page in pages for row in page.values]


async def test_keyset_loses_no_row_of_a_shifting_list(api: Server) -> None:
    api.answer = listing = Listing(list(range(1, 41)))
    found = []
    async with opened(api.base) as client:
        async for page in keyset(client, FIVE, q='state = "OPEN" OR draft = true'):
            found += [row["id"] for row in page.values]
            listing.ids.append(max(listing.ids) + 1)  # one comes
            listing.ids.remove(random.choice([one for one in listing.ids if one in found]))  # one goes
    assert found == list(range(40, 0, -1))
    assert api.seen[1].query_params["q"] == '(state = "OPEN" OR draft = true) AND (id < 36)'
    assert api.seen[1].query_params.getlist("state") == ["OPEN", "MERGED"]


async def test_keyset_notices_an_ignored_filter_and_an_ignored_sort(api: Server) -> None:
    async with opened(api.base) as client:
        api.answer = Listing(list(range(20)), filters=False)
        with pytest.raises(PagingInCircles, match="ignored"):
            await ids_of(keyset(client, FIVE))
        api.answer = lambda _: JSONResponse({"values": [{"id": 7}, {"id": 9}]})
        with pytest.raises(PagingInCircles, match="ignored"):
            await ids_of(keyset(client, FIVE))


async def test_cursor_resumes_from_a_stored_link_and_notices_circles(api: Server) -> None:
    api.answer = Listing(list(range(12)))
    async with opened(api.base) as client:
        first = await anext(cursor(client, FIVE))
        assert await ids_of(cursor(client, FIVE, start=first.next)) == list(range(5, 12))
        api.answer = lambda _: JSONResponse({"values": [], "next": f"{api.base}/a"})
        with pytest.raises(PagingInCircles):
            await ids_of(cursor(client, FIVE))
        fresh = itertools.count()
        api.answer = lambda _: JSONResponse({"values": [{"id": 1}], "next": f"{api.base}/a?ctx={next(fresh)}"})
        with pytest.raises(PagingInCircles):
            await ids_of(cursor(client, FIVE))


@pytest.mark.parametrize("count", [0, 4, 5, 12, 15])
@pytest.mark.parametrize("size", [True, False])
async def test_numbered_ends_where_the_list_ends(api: Server, count: int, size: bool) -> None:
    api.answer = Listing(list(range(count)), size=size)
    async with opened(api.base) as client:
        assert await ids_of(numbered(client, FIVE)) == list(range(count))


async def test_numbered_goes_on_after_a_short_page_and_stops_at_a_repeated_one(api: Server) -> None:
    pages = [[{"id": 1}, {"id": 2}], [], [{"id": 3}, None, "no row"]]
    api.answer = lambda request: JSONResponse({"size": 15, "values": pages[int(request.query_params["page"]) - 1]})
    async with opened(api.base) as client:
        assert await ids_of(numbered(client, FIVE)) == [1, 2, 3]
        api.answer = lambda _: JSONResponse({"size": 15, "values": [{"id": 1}]})
        with pytest.raises(PagingInCircles):
            await ids_of(numbered(client, FIVE))
        api.answer = lambda _: JSONResponse({"values": None})
        assert await ids_of(numbered(client, FIVE)) == []
        api.answer = lambda _: JSONResponse({"error": "Sorry"})
        with pytest.raises(Unavailable):
            await ids_of(numbered(client, FIVE))


@given(st.sets(st.integers(1, 400), max_size=60), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=25, deadline=None)
def test_id_windows_find_every_row_of_an_unsorted_list_once(running, ids: set[int], chance, size: bool) -> None:
    running[0].answer = listing = Listing(sorted(ids, key=lambda _: chance.random()), size=size)

    async def walk() -> list[int]:
        async with opened(running[0].base) as client:
            return await ids_of(id_windows(client, FIVE))

    assert sorted(asyncio.run(walk())) == sorted(ids)
    assert listing.asked < 20 + len(ids) * 4


async def test_id_windows_cost_little_more_than_the_pages_and_notice_an_ignored_filter(api: Server) -> None:
    async with opened(api.base) as client:
        for ids in (list(range(1, 1001)), list(range(1000, 0, -1))):
            api.answer = listing = Listing(ids)
            assert sorted(await ids_of(id_windows(client, FIVE))) == list(range(1, 1001))
            assert listing.asked <= 210
        api.answer = Listing(list(range(1, 20)), filters=False)
        with pytest.raises(PagingInCircles, match="ignored"):
            await ids_of(id_windows(client, FIVE))


# Endpoints


async def test_addresses_reach_the_wire_as_bitbucket_wants_them(api: Server) -> None:
    async with opened(api.base) as client:
        for endpoint in (
            endpoints.branch_commits("acme", "{5f-1}", "feature/ü%+x"),
            endpoints.pipelines("acme", "{5f-1}"),
            endpoints.hook("acme", "{uid}"),
            endpoints.pull_requests("acme", "{5f-1}").having({"q": "a+b", "state": ["OPEN", "MERGED"]}),
        ):
            await client.get(endpoint.path, endpoint.params)
    paths = [request.scope["raw_path"].decode() for request in api.seen]
    assert paths == [
        "/2.0/repositories/acme/%7B5f-1%7D/commits/feature%2F%C3%BC%25%2Bx",
        "/2.0/repositories/acme/%7B5f-1%7D/pipelines/",
        "/2.0/workspaces/acme/hooks/%7Buid%7D",
        "/2.0/repositories/acme/%7B5f-1%7D/pullrequests",
    ]
    query = api.seen[-1].url.query
    assert "q=a%2Bb" in query
    assert "state=OPEN&state=MERGED" in query
    assert "fields=next%2Csize%2Cpage%2Cpagelen%2Cvalues.id" in query
    assert client.requests_by_kind == {"commits": 1, "pipelines": 1, "hooks": 1, "pullrequests": 1}


def names_in(value: object, above: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{above}{name}"
            yield from names_in(inner, f"{above}{name}.")
    for item in value if isinstance(value, list) else ():
        yield from names_in(item, above)


@pytest.mark.skipif(not PAYLOADS.is_dir(), reason="no recorded payloads here")
def test_every_field_that_is_asked_for_exists_in_a_recorded_payload() -> None:
    known = {name for file in PAYLOADS.rglob("*.json") for name in names_in(json.loads(file.read_text()))}
    asked = {*endpoints.PULL_REQUEST_FIELDS, *endpoints.REPOSITORY_FIELDS, *endpoints.COMMIT_FIELDS}
    assert [field for field in asked if not any(name == field or name.endswith(f".{field}") for name in known)] == []


def test_a_long_list_of_revisions_is_a_form() -> None:
    assert endpoints.commits("acme", "{r}", ["main"], ["old"]).method == "GET"
    assert endpoints.commits("acme", "{r}", ["f" * 40] * 100).method == "POST"


# Errors


def answered(status: int, body: str | bytes, kind: str = "application/json") -> BitbucketError:
    request = httpx.Request("GET", "https://api.bitbucket.org/2.0/repositories/acme?access_token=hidden")
    return from_response(httpx.Response(status, content=body, headers={"content-type": kind}, request=request))


QUOTED = [
    (401, '{"type": "error", "error": {"message": "Access token expired."}}', Unauthorized, "Access token expired."),
    (401, "", Unauthorized, None),
    (403, '{"error":{"message":"Forbidden"}}', Forbidden, "Forbidden"),
    (403, '{"error": "Forbidden"}', Forbidden, "Forbidden"),
    (404, "<html><head><title>No</title><style>a{}</style></head><body><h1>Not &amp; found</h1></body></html>",
     NotFound, "No Not & found"),
    (404, '{"error":{"message":"Commit not found","data":{"shas":["ab"]}}}', NotFound, "Commit not found"),
    (410, '{"type":"error","error":{"message":"CHANGE-2770 - deprecated","detail":"Please read","data":{"a":1}}}',
     Gone, "CHANGE-2770 - deprecated; Please read"),
    (400, '{"type":"error","error":{"message":"Invalid pagelen"}}', BadRequest, "Invalid pagelen"),
    (400, '{"error":{"message":"No","fields":{"x":["must be","short"],"y":null}}}', BadRequest,
     "No; x: must be; x: short"),
    (429, "Rate limit for this resource has been exceeded", RateLimited,
     "Rate limit for this resource has been exceeded"),
    (555, '{"type":"error","error":{"message":"Unable to respond in time"}}', Unavailable, "Unable to respond in time"),
    (502, b"\xff\xfe\x00", Unavailable, ...),
    (400, "[" * 100_000, BadRequest, ...),
    (400, '["a", {"b": 1}, [2]]', BadRequest, 'a; {"b": 1}'),
    (400, '{"error":{"message":{"en":"x"},"detail":["y"],"fields":[]}}', BadRequest, '{"en": "x"}; y'),
    (418, "", BadRequest, None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "message"), QUOTED)
def test_an_error_body_of_any_shape_is_read(status, body, kind, message) -> None:
    error = answered(status, body, "text/html")
    assert type(error) is kind
    assert message is ... or error.message == message
    assert "hidden" not in str(error)
    assert str(error).startswith(f"GET /2.0/repositories/acme answered {status}")


@pytest.mark.skipif(not PAYLOADS.is_dir(), reason="no recorded payloads here")
@pytest.mark.parametrize("file", sorted(PAYLOADS.rglob("error*.json")), ids=lambda file: file.stem)
def test_a_recorded_error_body_is_read(file: Path) -> None:
    body = file.read_text()
    error = answered(403, body)
    assert json.loads(body)["error"]["message"] in str(error)
    if file.stem == "error-privileges":
        assert isinstance(error, Forbidden)
        assert (error.code, error.missing) == ("invalid_permissions", ("project",))
        assert "missing: project" in str(error)


# Secrets


async def test_a_secret_shows_nowhere(api: Server, caplog) -> None:
    secret, email = "ATCTT3xFfGN0-topsecret", "ann@acme.example"
    pair = [token(1, secret), Credential(2, "api", "api_token", SecretStr(secret), email)]
    for credential in pair:
        assert secret not in f"{credential!r} {credential}"
    api.answer = lambda request: Response(f"denied: {request.headers['authorization']}", 403)
    caplog.set_level(logging.DEBUG)
    async with opened(api.base, *pair) as client:
        with pytest.raises(Forbidden) as error:
            await client.get("/x", {"q": "private"})
    async with raw(resets) as (base, _), opened(base, *pair) as client:
        with pytest.raises(Unavailable) as failure:
            await client.get("/x", {"q": "private"})
    shown = "".join([caplog.text, *(f"{one!r} {one} {vars(one)}" for one in (error.value, failure.value))])
    sent = {request.headers["authorization"].split()[1] for request in api.seen}
    assert len(sent) == 2
    assert not [part for part in (secret, "private", *sent) if part in shown]
    assert "GET /2.0/x 403" in caplog.text
    assert {record.name.split(".")[0] for record in caplog.records} <= {"dx_dagster", "asyncio"}


@pytest.mark.parametrize("secret", ["", "two words", "line\nbreak", "schlüssel"])
def test_a_secret_that_cannot_be_sent_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="the secret of 'token 1'") as error:
        Credential(1, "token 1", "access_token", SecretStr(secret))
    assert not secret or secret not in str(error.value)


def test_a_delivery_is_believed_when_any_of_the_secrets_signed_it() -> None:
    """Atlassian's own test vector."""
    secret, body = "It's a Secret to Everybody", b"Hello World!"
    header = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"
    assert sign(body, SecretStr(secret)) == header
    assert verify(body, header, ["an older one", SecretStr(secret)])
    assert not verify(body + b" ", header, [secret])
    assert not verify(body, sign(body, ""), ["", SecretStr("")])
    assert not any(verify(body, wrong, [secret]) for wrong in (None, "", "sha256=", "sha1=00", "ünïcode", header[7:]))
