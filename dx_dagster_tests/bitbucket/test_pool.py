"""What the pool promises: who is asked next, who rests, and who is taken out."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dx_dagster.bitbucket import (
    BitbucketError,
    Credential,
    CredentialPool,
    CredentialsExhausted,
    Forbidden,
    Lease,
    MemoryLedger,
    NotFound,
    RateLimited,
    Unauthorized,
)
from dx_dagster_tests.bitbucket.answering import Server, opened, together, token

pytestmark = pytest.mark.anyio


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
        assert 1 <= time.monotonic() - began < 30
    assert told == [pytest.approx(1, abs=0.5)]


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
        books = ledger.books("credential:1")
        waits.append((books.rests_until or before) - before)
        books.rests_until = books.careful_until = None
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
    assert ledger.books("credential:1").near_limit_at is not None


async def test_a_limit_that_is_higher_than_any_keeps_nobody_waiting(api: Server) -> None:
    api.answer = lambda _: JSONResponse({}, headers={"x-ratelimit-limit": "1" + 30 * "0"})
    ledger = MemoryLedger(window=60, default_limit=4)
    async with opened(api.base, ledger=ledger) as client:
        await together([lambda: client.get("/x") for _ in range(20)])
    assert len(api.seen) == 20


async def test_tokens_of_one_account_share_its_requests() -> None:
    pair = [Credential(n, "api", "api_token", SecretStr(f"t{n}"), f"{name}@acme.example") for n, name in
            ((1, "Ann"), (2, "ann"))]  # fmt: skip
    ledger = MemoryLedger(60, default_limit=3)
    pool = CredentialPool(pair, ledger)
    grants = [await pool.take() for _ in range(4)]
    assert [getattr(grant, "credential", None) for grant in grants] == [pair[0], pair[1], pair[0], None]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 5), st.booleans()), max_size=80), st.integers(1, 5))
@settings(max_examples=60)
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


@pytest.mark.parametrize(("status", "error"), [(403, Forbidden), (404, NotFound)])
async def test_what_one_credential_may_not_see_another_may(
    api: Server, status: int, error: type[BitbucketError]
) -> None:
    def answer(request: Request) -> Response:
        allowed = request.headers["authorization"].endswith("-3") and "/seen" in request.url.path
        return JSONResponse({"fine": True} if allowed else {}, 200 if allowed else status)

    api.answer = answer
    async with opened(api.base, token(1), token(2), token(3)) as client:
        for _ in range(3):
            assert await client.get("/repositories/acme/seen/x") == {"fine": True}
        assert len(api.seen) <= 5  # who was refused a repository that others read is not asked for it again
        api.seen.clear()
        with pytest.raises(error):
            await client.get("/repositories/acme/unseen")
    assert sorted(api.tokens()) == ["s3cr3t-1", "s3cr3t-2", "s3cr3t-3"]
