"""What the client promises of a request: where it goes, how often it is tried, how many go at once."""

import asyncio
import gc
import json
import random
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from dx_dagster.bitbucket import (
    AdaptiveLimiter,
    MemoryLedger,
    NotFound,
    RateLimited,
    RefusedOrigin,
    Timeouts,
    Unavailable,
    cursor,
    endpoints,
    retries,
)
from dx_dagster.bitbucket.concurrency import MODEST
from dx_dagster.bitbucket.retries import AdaptiveTimeout
from dx_dagster.clock import Clock, monotonic
from dx_dagster_tests.bitbucket.answering import (
    BROKEN,
    GOOD,
    Server,
    answers,
    opened,
    raw,
    resets,
    slow,
    together,
    trickles,
)
from dx_dagster_tests.payloads.evidence import FOLDERS

pytestmark = pytest.mark.anyio


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
            api.answer = answers(JSONResponse, {"values": [{"uuid": "{1}"}], "next": link})
            with pytest.raises(RefusedOrigin):
                [page async for page in cursor(client, endpoints.repositories("acme"))]
            with pytest.raises(RefusedOrigin):
                await client.get(link)
            api.answer = answers(Response, status_code=302, headers={"location": link})
            with pytest.raises((RefusedOrigin, NotFound)):
                await client.get("/repositories/acme")
            assert all(request.url.path.startswith("/2.0/repositories/acme") for request in api.seen), link
    assert stranger.seen == []


async def test_a_client_knows_how_far_the_service_is_ahead_of_the_clock_that_dates_its_requests(api: Server) -> None:
    clock = Clock()
    clock.set(time.time() - 7200, monotonic(), monotonic())
    async with opened(api.base, clock=clock) as client:
        assert client.ahead() is None
        await client.get("/anything")
        ahead = client.ahead()
        assert ahead is not None
        assert abs(ahead - timedelta(hours=2)) < timedelta(seconds=10)


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
        assert time.monotonic() - began < 30


async def test_where_answers_come_soon_a_hanging_one_is_soon_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_LEAST_TIMEOUT", 0.2)
    async with raw(GOOD, trickles, GOOD) as (base, met), opened(base) as client:
        await client.get("/x")
        began = time.monotonic()
        assert await client.get("/x") == {"fine": True}
        assert len(met) == 3
        assert time.monotonic() - began < 30
    async with raw(GOOD, slow, GOOD) as (base, met), opened(base) as client:
        await client.get("/x")
        assert await client.get("/x", attempts=1) == {"fine": True}  # the last try has the whole time
        assert len(met) == 2


def test_a_service_that_slows_down_is_waited_for() -> None:
    timeout = AdaptiveTimeout(Timeouts(total=60))
    assert timeout.seconds("a", lost=0) == 60
    timeout.answered("a", 0.1)
    assert [timeout.seconds("a", lost) for lost in range(5)] == [5, 10, 20, 40, 60]
    timeout.answered("a", 8)
    timeout.answered("a", 0.1)
    assert timeout.seconds("a", lost=0) == 32
    assert timeout.seconds("b", lost=0) == 60


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


async def silent_end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


async def test_an_answer_takes_no_memory_once_it_is_read(api: Server) -> None:
    gc.collect()
    async with opened(api.base) as client:
        for _ in range(3):
            await client.get("/repositories/acme")
        assert [one for one in gc.get_objects() if isinstance(one, httpx.Response)] == []


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    async with raw(silent_end) as (base, met), opened(base) as client:
        for number in (1, 2, 3):
            assert await client.request("POST", "/hooks", json={}) == {}
            assert len(met) == number
            await anyio.sleep(0.05)


# Concurrency


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


@pytest.mark.parametrize(("serves", "least", "most"), [(8, 8, 13), (30, 26, 32)])
async def test_concurrency_finds_how_many_requests_the_server_serves_at_once(
    serves: int, least: int, most: int
) -> None:
    limiter, places = AdaptiveLimiter(maximum=32), anyio.CapacityLimiter(serves)
    peak = 0

    async def asked(number: int) -> None:
        nonlocal peak
        async with limiter.slot() as slot:
            peak = max(peak, limiter.in_flight)
            async with places:
                await anyio.sleep(0.1 + 0.05 * random.random())  # long beside the pauses of a busy machine
            limiter.succeeded(f"kind {number % 3}", time.monotonic() - slot.began)

    await together([partial(asked, number) for number in range(400)])
    assert least <= limiter.limit <= most
    assert peak <= 2 * serves


async def test_a_429_ends_the_search_for_more_requests_at_once(api: Server) -> None:
    async with opened(api.base, ledger=MemoryLedger(1)) as client:
        limiter = client.limiter
        async with AsyncExitStack() as taken:
            while limiter.limit <= MODEST:  # nothing waits at a server whose answers always take the same time
                while limiter.in_flight < limiter.limit:
                    await taken.enter_async_context(limiter.slot())
                limiter.succeeded("fine", 0.1)
        api.answer = lambda request: JSONResponse({}, 429 if request.url.path.endswith("limited") else 200)
        with pytest.raises(RateLimited):
            await client.request("GET", "/limited", patience=0)
        assert limiter.limit <= MODEST
        await together([partial(client.get, "/fine") for _ in range(120)])
        assert limiter.limit <= MODEST


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
        "/2.0/repositories/acme/%7B5f-1%7D/pipelines",
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


DOCUMENTED_ONLY = {"state.start_date", "state.completion_date", "release.created_on"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_field_that_is_asked_for_exists_in_a_payload(folder: Path) -> None:
    known = {name for file in folder.rglob("*.json") for name in names_in(json.loads(file.read_text()))}
    asked = {
        *(*endpoints.PULL_REQUEST_FIELDS, *endpoints.REPOSITORY_FIELDS, *endpoints.COMMIT_FIELDS),
        *endpoints.DIFFSTAT_FIELDS,
    }
    asked |= {*endpoints.ENVIRONMENT_FIELDS, *endpoints.DEPLOYMENT_FIELDS} - DOCUMENTED_ONLY
    assert [field for field in asked if not any(name == field or name.endswith(f".{field}") for name in known)] == []


def test_a_long_list_of_revisions_is_a_form() -> None:
    assert endpoints.commits("acme", "{r}", ["main"], ["old"]).method == "GET"
    assert endpoints.commits("acme", "{r}", ["f" * 40] * 100).method == "POST"
