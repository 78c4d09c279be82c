"""The budgets' books in the database, shared by every process that draws on them.

A round trip for each request would cost more than the request: a process reserves a block of requests in one
transaction, spends it from memory, and reports with the next block what became of the last.

One row is one budget, with its whole window in it: its lock is the budget's lock, and it is read and written whole.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from typing import Any, TypeVar

import anyio
import psycopg
from psycopg.types.json import Jsonb

from dx_dagster.budgets import names
from dx_dagster.budgets.protocol import Lease
from dx_dagster.budgets.window import ASSUMED_LIMIT, SCALED_LIMIT, Books, Headroom, Held
from dx_dagster.warehouse.database import Transaction, Warehouse, WarehouseError

_log = logging.getLogger(__name__)

HOUR = 3600.0
Result = TypeVar("Result")

_READ = """
    SELECT name, request_limit, spent, leases, extract(epoch FROM rests_until)::float8 AS rests_until,
           extract(epoch FROM careful_until)::float8 AS careful_until,
           extract(epoch FROM near_limit_at)::float8 AS near_limit_at,
           extract(epoch FROM clock_timestamp())::float8 AS now
    FROM budgets"""
_WRITE = """
    UPDATE budgets old
    SET request_limit = new.request_limit, spent = new.spent, leases = new.leases,
        rests_until = to_timestamp(new.rests_until), careful_until = to_timestamp(new.careful_until),
        near_limit_at = to_timestamp(new.near_limit_at)
    FROM jsonb_to_recordset(%s) AS new (name text, request_limit int, spent jsonb, leases jsonb, rests_until float8,
                                        careful_until float8, near_limit_at float8)
    WHERE old.name = new.name"""


@dataclass
class _Share:
    """This process's part of one budget. Times are of the monotonic clock.

    Attributes:
        unspent: reserved and not sent.
        spare: so many of them may be spent on what can wait.
        spend_by: when the unspent ones lapse.
        under_way: numbers of the reservations handed out.
        ended: when requests ended that are not in the books yet.
        asked, ready: when the books last said that there is no room, and when there will be.
    """

    unspent: int = 0
    spare: int = 0
    spend_by: float = 0.0
    under_way: set[int] = field(default_factory=set)
    ended: list[float] = field(default_factory=list)
    asked: float = float("-inf")
    ready: float = 0.0
    limit: int | None = None


@dataclass(frozen=True)
class _Block:
    """So many requests that were reserved together."""

    budget: str
    requests: int


class SharedLedger:
    """The books of all budgets, for one process among others. `close` it to give back what was not sent."""

    def __init__(self, warehouse: Warehouse, window: float = 3600.0) -> None:
        self._warehouse = warehouse
        self._window = window
        self._rules = Books(window)
        self._who = f"{os.getpid()}@{socket.gethostname()} {token_hex(4)}"
        self._shares: dict[str, _Share] = {}
        self._issued = 0
        # One transaction at a time: what this process reports is reported once, and a crowd asks once.
        self._asking = anyio.Lock()

    @property
    def window(self) -> float:
        return self._window

    async def acquire(self, budgets: Sequence[str], *, spare: bool = False) -> Lease | float:
        """Reserve a request on the budget with most headroom, or say in how many seconds the first may be ready.

        `spare`: for what can wait; see `budgets.protocol`.

        Raises:
            ValueError: no budget was named.
        """
        if not budgets:
            raise ValueError("a request must be paid from some budget")
        if taken := self._take(budgets, spare=spare):
            return taken
        async with self._asking:
            if taken := self._take(budgets, spare=spare):
                return taken
            # What the books said of other requests is not about spare ones.
            wait = None if spare else self._known_wait(budgets)
            if wait is None:
                wait = await self._refill(budgets, spare=spare)
            return self._take(budgets, spare=spare) or wait

    async def settle(self, lease: Lease) -> None:
        """The request ended, somehow: it counts for one window from now, for the API may have counted it just now."""
        share = self._share(lease.budget)
        if lease.number in share.under_way:
            share.under_way.remove(lease.number)
            share.ended.append(time.monotonic())

    async def limited(self, budget: str, seconds: float) -> None:
        """Nothing more on this budget for so long, in any process; never shortens a rest."""
        self._share(budget).unspent = 0  # at once, whatever the database is doing
        await self._change(budget, lambda books, now: books.limited(now, seconds), give_back=True)

    async def learn(self, budget: str, limit: int) -> None:
        """The API says how many requests a window this budget has."""
        known = self._share(budget).limit
        if limit == known:
            return

        def learnt(books: Books, _: float) -> None:
            books.limit = limit

        await self._change(budget, learnt, give_back=limit < (known or assumed_limit(budget, self._window)))
        self._share(budget).limit = limit

    async def near_limit(self, budget: str) -> None:
        """The API says that less than a fifth is left: the others go first for a while."""

        def noted(books: Books, now: float) -> None:
            books.near_limit_at = now

        await self._change(budget, noted)

    async def close(self) -> None:
        """Give back what was reserved and not sent, and report the rest."""
        if not self._shares:
            return
        async with self._asking:
            for share in self._shares.values():
                share.unspent = 0
            try:
                await self._work(list(self._shares), lambda _books, _now: None)
            except (psycopg.Error, WarehouseError) as error:
                # What is not reported lapses by itself.
                _log.warning("the budgets could not be told that this process ends: %s", error)

    def _share(self, budget: str) -> _Share:
        return self._shares.setdefault(budget, _Share())

    def _take(self, budgets: Sequence[str], *, spare: bool) -> Lease | None:
        now = time.monotonic()
        best = max(budgets, key=lambda budget: self._stock(budget, now, spare=spare))
        if not self._stock(best, now, spare=spare):
            return None
        share = self._shares[best]
        share.unspent -= 1
        share.spare = min(share.spare - spare, share.unspent)
        self._issued += 1
        share.under_way.add(self._issued)
        return Lease(best, self._issued)

    def _stock(self, budget: str, now: float, *, spare: bool = False) -> int:
        share = self._share(budget)
        stock = min(share.unspent, share.spare) if spare else share.unspent
        return stock if now < share.spend_by else 0

    def _known_wait(self, budgets: Sequence[str]) -> float | None:
        """What the books have just said to somebody else in this process."""
        now, shares = time.monotonic(), [self._share(budget) for budget in budgets]
        fresh = self._rules.recheck
        if all(now < share.asked + fresh and now < share.ready for share in shares):
            return min(share.ready for share in shares) - now
        return None

    async def _refill(self, budgets: Sequence[str], *, spare: bool) -> float:
        """Reserve a block on the budget with most headroom; or the seconds until there is any."""
        asked = time.monotonic()
        block = await self._work(budgets, partial(self._reserve, spare=spare))
        if isinstance(block, dict):
            for budget, wait in block.items() if not spare else ():
                self._share(budget).asked, self._share(budget).ready = asked, asked + wait
            return min(block.values())
        # Whatever was left of an earlier block has lapsed, or nobody would have asked. Spare requests ask all the same:
        # it may be of the fifth that is kept. It goes back with the next report.
        share = self._share(block.budget)
        share.unspent, share.spare = block.requests, block.requests if spare else 0
        share.spend_by, share.asked = asked + self._rules.lease_seconds, float("-inf")
        return self._rules.recheck

    def _reserve(self, books: Mapping[str, Books], now: float, *, spare: bool) -> _Block | dict[str, float]:
        best = max(books, key=lambda budget: books[budget].room(now, spare=spare))
        requests = books[best].block(now, spare=spare)
        if not requests:
            return {budget: one.ready_in(now) or one.recheck for budget, one in books.items()}
        books[best].hold(self._who, self._outstanding(best) + requests, now)
        return _Block(best, requests)

    async def _change(self, budget: str, change: Callable[[Books, float], None], *, give_back: bool = False) -> None:
        async with self._asking:
            share = self._share(budget)
            share.asked = float("-inf")
            if give_back:
                share.unspent = 0
            await self._work([budget], lambda books, now: change(books[budget], now))

    async def _work(self, budgets: Sequence[str], work: Callable[[Mapping[str, Books], float], Result]) -> Result:
        """Report what this process did, then do `work` over the books, all in one transaction."""
        wanted = sorted(set(budgets))
        with anyio.CancelScope(shield=True):  # a block that was reserved and not noted here would be lost for a window
            # Taken before the database looks at its clock, so that nothing reported seems older than it is.
            asked = time.monotonic()
            async with self._warehouse.transaction(fenced=False) as transaction:  # requests were sent, whoever imports
                books, now = await _read(transaction, wanted, self._window)
                reported = {budget: self._report(budget, one, now - asked) for budget, one in books.items()}
                for budget, one in books.items():
                    one.hold(self._who, self._outstanding(budget), now)
                result = work(books, now)
                await _write(transaction, books)
            for budget, count in reported.items():
                del self._share(budget).ended[:count]
        return result

    def _report(self, budget: str, books: Books, offset: float) -> int:
        """Put the requests that ended into the books; `offset` turns our clock into theirs."""
        share = self._share(budget)
        share.limit = books.limit
        for ended in share.ended:
            books.record(ended + offset)
        return len(share.ended)

    def _outstanding(self, budget: str) -> int:
        return self._stock(budget, time.monotonic()) + len(self._share(budget).under_way)


async def headroom(warehouse: Warehouse, window: float) -> dict[str, Headroom]:
    """How every budget stands, by its name."""
    standing = {}
    for row in await warehouse.rows(f"{_READ} ORDER BY name"):
        books = _books(row, window)
        books.forget(row.now)
        standing[row.name] = books.headroom(row.now)
    return standing


async def book(warehouse: Warehouse, window: float, budget: str, requests: int) -> None:
    """Requests that were sent just now by somebody who keeps no books, as when a credential is verified."""
    async with warehouse.transaction() as transaction:
        books, now = await _read(transaction, [budget], window)
        for _ in range(requests):
            books[budget].record(now)
        await _write(transaction, books)


async def _read(transaction: Transaction, budgets: Sequence[str], window: float) -> tuple[dict[str, Books], float]:
    """The books, locked until the transaction ends, and the time: the database's, which all processes share."""
    # Nobody waits for the disk: a crash of the database costs the books of its last second, and a 429 would tell.
    await transaction.execute("SET LOCAL synchronous_commit = off")
    locked = f"{_READ} WHERE name = ANY(%s) ORDER BY name FOR UPDATE"
    rows = await transaction.rows(locked, [budgets])
    if len(rows) < len(budgets):
        await transaction.execute(
            "INSERT INTO budgets (name) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", [budgets]
        )
        rows = await transaction.rows(locked, [budgets])
    books = {row.name: _books(row, window) for row in rows}
    now = float(min(row.now for row in rows))
    for one in books.values():
        one.forget(now)
    return books, now


def _books(row: Any, window: float) -> Books:
    return Books(
        window,
        row.request_limit,
        dict(row.spent),
        {who: Held(*held) for who, held in row.leases.items()},
        row.rests_until,
        row.careful_until,
        row.near_limit_at,
        assumed_limit(row.name, window),
    )


def assumed_limit(budget: str, window: float) -> int:
    """Requests in a window until the API says how many; a window that is no hour is there to try limits out."""
    return SCALED_LIMIT if names.is_of_access_token(budget) and window == HOUR else ASSUMED_LIMIT


async def _write(transaction: Transaction, books: Mapping[str, Books]) -> None:
    await transaction.execute(_WRITE, [Jsonb([{"name": name} | one.to_json() for name, one in books.items()])])
