"""Budgets are shared by all processes, never exceeded, and drawn on evenly."""

import asyncio
import signal
import time
from collections import Counter

import anyio
import pytest

from dx_dagster.budgets.protocol import Lease
from dx_dagster.budgets.window import Headroom
from dx_dagster.sandbox import RateLimit, Sandbox
from dx_dagster.warehouse.budgets import SharedLedger, book, headroom
from dx_dagster.warehouse.database import Warehouse
from dx_dagster_tests.budgets.drawing import TINY, access, ask, draw, drawing, statuses
from dx_dagster_tests.conftest import wait_until

pytestmark = pytest.mark.anyio


# Shared by all


async def test_two_processes_never_exceed_a_shared_limit(database_url: str) -> None:
    with Sandbox(TINY, tokens=access(1), limits=RateLimit(60, 3.0)) as sandbox:
        both = [draw(sandbox, database_url, 3.0, 80) for _ in range(2)]
        for process in both:
            with process:
                assert await anyio.to_thread.run_sync(process.wait, 60) == 0
        assert statuses(sandbox) == {200: 160}


async def test_a_killed_process_gives_its_lease_back(database_url: str, warehouse: Warehouse) -> None:
    window = 4.0
    with Sandbox(TINY, tokens=access(1), limits=RateLimit(100, window)) as sandbox:
        sandbox.faults.latency = 0.3
        process = draw(sandbox, database_url, window, 80)
        with process:
            assert await anyio.to_thread.run_sync(wait_until, lambda: sandbox.requests.count >= 8)
            process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        sandbox.faults.latency = 0
        before = (await headroom(warehouse, window))["credential:1"]
        assert 0 < before.used + before.leased <= 28  # what it sent, and no more than a block
        async with drawing(sandbox, SharedLedger(warehouse, window)) as client:
            await ask(client, 72)  # the rest of the window is there at once
            assert time.monotonic() - killed < window
            await ask(client, 90)
        assert time.monotonic() - killed < 3.5 * window
        assert statuses(sandbox)[429] == 0
        await anyio.sleep(window * 1.2)
        after = (await headroom(warehouse, window))["credential:1"]
        assert after == Headroom(0, 0, 100, 100, assumed=False, rests_until=None, near_limit_at=after.near_limit_at)


async def test_what_was_reserved_and_not_sent_goes_back_at_the_end(warehouse: Warehouse) -> None:
    with Sandbox(TINY, tokens=access(1)) as sandbox:
        async with drawing(sandbox, SharedLedger(warehouse)) as client:
            await ask(client, 3)
            assert (await headroom(warehouse, 3600))["credential:1"].leased > 0
        found = (await headroom(warehouse, 3600))["credential:1"]
        assert (found.used, found.leased) == (3, 0)


async def test_a_429_stops_every_process_and_then_they_go_on_one_at_a_time(warehouse: Warehouse) -> None:
    one, other = SharedLedger(warehouse, 60), SharedLedger(warehouse, 60)
    await one.limited("account:ann@acme.example", 0.5)
    await one.limited("account:ann@acme.example", 0.1)  # shortens nothing
    wait = await other.acquire(["account:ann@acme.example"])
    assert isinstance(wait, float)
    assert 0.3 < wait <= 0.5
    await anyio.sleep(0.55)
    first = await other.acquire(["account:ann@acme.example"])
    assert isinstance(first, Lease)
    assert isinstance(await one.acquire(["account:ann@acme.example"]), float)
    await other.settle(first)
    await other.close()
    await anyio.sleep(1)  # what `one` was told holds for a moment
    assert isinstance(await one.acquire(["account:ann@acme.example"]), Lease)


async def test_requests_of_somebody_without_books_are_counted_too(warehouse: Warehouse) -> None:
    await book(warehouse, 3600, "credential:7", 9)
    assert (await headroom(warehouse, 3600))["credential:7"].used == 9


async def test_the_books_stay_small(warehouse: Warehouse) -> None:
    with Sandbox(TINY, tokens=access(1)) as sandbox:
        for _ in range(3):
            async with drawing(sandbox, SharedLedger(warehouse, 1.0)) as client:
                await ask(client, 300)
                await anyio.sleep(0.3)
    row = await warehouse.row("SELECT jsonb_array_length(spent) AS buckets, leases::text FROM budgets")
    assert row.buckets <= 62
    assert row.leases == "{}"


async def test_what_can_wait_takes_nothing_of_the_last_fifth_and_what_cannot_takes_all(warehouse: Warehouse) -> None:
    one, other = SharedLedger(warehouse, 3600), SharedLedger(warehouse, 3600)
    await one.learn("credential:1", 1000)
    await book(warehouse, 3600, "credential:1", 780)
    assert isinstance(await one.acquire(["credential:1"]), Lease)
    spared = [await one.acquire(["credential:1"], spare=True) for _ in range(30)]
    assert [isinstance(lease, Lease) for lease in spared] == [True] * 19 + [False] * 11
    assert isinstance(await one.acquire(["credential:1"]), Lease)  # of a block that is reserved for more like it
    assert isinstance(await one.acquire(["credential:1"], spare=True), float)
    await one.close()
    taken = [await other.acquire(["credential:1"]) for _ in range(210)]
    assert [isinstance(lease, Lease) for lease in taken] == [True] * 199 + [False] * 11


async def test_what_can_wait_takes_nothing_while_another_program_draws_on_the_budget(warehouse: Warehouse) -> None:
    ledger = SharedLedger(warehouse, 3600)
    await ledger.near_limit("credential:1")  # although our books say that nothing was used
    await ledger.limited("credential:2", 0.5)
    await anyio.sleep(0.55)
    for budget in ("credential:1", "credential:2"):
        assert isinstance(await ledger.acquire([budget], spare=True), float)
        assert isinstance(await ledger.acquire([budget]), Lease)


# Fair, and by the API's own numbers


async def test_three_tokens_share_the_work_evenly_and_no_429_is_met(warehouse: Warehouse) -> None:
    with Sandbox(TINY, tokens=access(1, 2, 3), limits=RateLimit(200, 20.0)) as sandbox:
        waits: list[float] = []
        ledger = SharedLedger(warehouse, 20.0)
        async with drawing(sandbox, ledger, on_wait=lambda seconds, _: waits.append(seconds)) as client:
            await ask(client, 500)
        assert waits == []
        work = Counter(request.token for request in sandbox.requests)
        assert statuses(sandbox) == {200: 500}
        assert all(0.9 * 500 / 3 <= count <= 1.1 * 500 / 3 for count in work.values()), work


async def test_the_limit_is_learnt_from_the_header_and_known_to_the_next_process(warehouse: Warehouse) -> None:
    with Sandbox(TINY, tokens=access(1), limits=RateLimit(12, 2.0)) as sandbox:
        async with drawing(sandbox, SharedLedger(warehouse, 2.0)) as client:
            await ask(client, 18)
        assert (await headroom(warehouse, 2.0))["credential:1"].limit == 12
        async with drawing(sandbox, SharedLedger(warehouse, 2.0)) as client:
            await ask(client, 18)
        assert statuses(sandbox) == {200: 36}


async def test_until_the_limit_is_known_a_thousand_is_assumed(warehouse: Warehouse) -> None:
    ledger = SharedLedger(warehouse, 3600)
    for _ in range(1000):
        assert isinstance(await ledger.acquire(["account:ann@acme.example"]), Lease)
    assert isinstance(await ledger.acquire(["account:ann@acme.example"]), float)


async def test_a_budget_that_is_near_its_limit_lets_the_others_go_first(warehouse: Warehouse) -> None:
    ledger = SharedLedger(warehouse, 600)
    await book(warehouse, 600, "credential:2", 300)
    await ledger.near_limit("credential:1")  # although our books say that nothing was used
    taken = [await ledger.acquire(["credential:1", "credential:2"]) for _ in range(40)]
    assert {one.budget for one in taken if isinstance(one, Lease)} == {"credential:2"}


@pytest.mark.timing
def test_the_ledger_takes_little_cpu_for_each_request(database_url: str) -> None:
    """A transaction for every block: far from one for every request."""

    async def taken() -> float:
        async with Warehouse(database_url) as warehouse:
            ledger = SharedLedger(warehouse)
            await ledger.learn("credential:1", 100_000)
            began = time.process_time()
            for _ in range(2000):
                lease = await ledger.acquire(["credential:1"])
                assert isinstance(lease, Lease)
                await ledger.settle(lease)
            return (time.process_time() - began) / 2000

    assert asyncio.run(taken()) < 0.0005  # seconds of CPU in this process, of the 4 ms that a request takes
