"""The books in which requests are counted, whatever happens to those who draw on them."""

import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from dx_dagster.budgets.window import Books

EVENTS = st.tuples(
    st.integers(0, 2), st.sampled_from(["draw", "draw", "wait", "wait", "end", "end", "die"]), st.floats(0, 2)
)


@given(st.lists(EVENTS, max_size=150), st.integers(1, 30))
@settings(max_examples=300)
def test_no_rolling_window_holds_more_than_the_limit_whoever_lives_stalls_or_dies(
    events: list[tuple[int, str, float]], limit: int
) -> None:
    window, now = 10.0, 1000.0
    books = Books(window, limit)
    processes = [Process(f"p{number}") for number in range(3)]
    counted: list[float] = []  # when the API counts each request: as late as it may, at its end
    for number, what, passed in events:
        process = processes[number]
        if what == "wait":  # for exactly as long as one is told
            process.report(books, now)
            now += books.ready_in(now)
        else:
            now += passed
        for one in processes:
            counted += one.time_out(now, books.request_seconds)
        if what in {"draw", "wait"}:
            process.draw(books, now)
        else:
            counted += process.end(now)
        if what == "die":
            processes[number] = Process(f"{process.name}'")
        under_way = sum(len(one.under_way) for one in processes)
        assert under_way + sum(end > now - window for end in counted) <= limit
        assert len(books.spent) <= 62


@dataclass
class Process:
    """As `SharedLedger` draws, all that it can at once; requests take no longer than the books suppose."""

    name: str
    unspent: int = 0
    spend_by: float = 0.0
    under_way: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def end(self, now: float) -> list[float]:
        ends, self.under_way = [now] * len(self.under_way), []
        self.ended += ends
        return ends

    def time_out(self, now: float, after: float) -> list[float]:
        ends = [sent + after for sent in self.under_way if sent + after <= now]
        self.under_way = [sent for sent in self.under_way if sent + after > now]
        self.ended += ends
        return ends

    def report(self, books: Books, now: float) -> None:
        books.forget(now)
        for ended in self.ended:
            books.record(ended)
        self.ended = []
        stock = self.unspent if now < self.spend_by else 0
        books.hold(self.name, stock + len(self.under_way), now)

    def draw(self, books: Books, now: float) -> None:
        if not (self.unspent and now < self.spend_by):
            self.unspent = 0
            self.report(books, now)
            block = books.block(now)
            assert bool(block) == (books.ready_in(now) == 0)
            books.hold(self.name, len(self.under_way) + block, now)
            self.unspent, self.spend_by = block, now + books.lease_seconds
        sent = math.ceil(self.unspent / 2)
        self.unspent -= sent
        self.under_way += [now] * sent


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20)), min_size=1, max_size=30), st.integers(1, 40))
@settings(max_examples=200)
def test_after_the_wait_that_was_told_there_is_room_and_not_long_before(steps, limit: int) -> None:
    now, books = 1000.0, Books(10.0, limit)
    for passed, requests in steps:
        now += passed
        books.forget(now)
        for _ in range(min(requests, books.room(now))):
            books.record(now)
    if wait := books.ready_in(now):
        assert wait <= 10.0 + 2 * books.bucket
        books.forget(now + wait - 1e-3)
        assert books.room(now + wait - 1e-3) == 0
        books.forget(now + wait + 1e-6)
        assert books.room(now + wait + 1e-6) > 0
