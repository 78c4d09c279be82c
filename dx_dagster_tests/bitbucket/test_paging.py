"""Paging loses no row, and notices when it goes in circles."""

import asyncio
import itertools
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dx_dagster.bitbucket import (
    Endpoint,
    NotFound,
    Page,
    PagingInCircles,
    Timeouts,
    Unavailable,
    ahead,
    by_id_ranges,
    cursor,
    keyset,
    numbered,
)
from dx_dagster_tests.bitbucket.answering import Server, answers, opened, raw, sends

pytestmark = pytest.mark.anyio


class Listing:
    """Rows by id, answering `q` on id, `sort`, `page` and `pagelen` as Bitbucket does."""

    def __init__(
        self, ids: list[int], *, size: bool = True, sorts: bool = True, filters: bool = True, most: int = 100
    ) -> None:
        self.ids, self.size, self.sorts, self.filters, self.most = ids, size, sorts, filters, most
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
        if pagelen > self.most:
            return JSONResponse({"type": "error", "error": {"message": "Invalid pagelen"}}, 400)
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


async def test_going_ahead_gives_the_same_pages_and_asks_while_they_are_worked_on(api: Server) -> None:
    api.answer = listing = Listing(list(range(100)))
    async with opened(api.base) as client:
        assert [row["id"] async for pages in ahead(cursor(client, FIVE)) for page in pages for row in page.values] == (
            listing.ids
        )
        listing.asked = 0
        async with aclosing(ahead(cursor(client, FIVE))) as walk:
            await anext(walk)
            await asyncio.sleep(0.2)
            came = await anext(walk)
        assert len(came) > 1
        assert listing.asked < 10  # it waits for whoever takes them, and ends with them


async def test_going_ahead_fails_after_the_pages_before_the_failure(api: Server) -> None:
    left = iter([[1], [2], None])
    fresh = itertools.count()

    def answer(_: Request) -> Response:
        page = next(left)
        if page is None:
            return JSONResponse({"error": {"message": "Repository not found"}}, 404)
        return JSONResponse({"values": [{"id": one} for one in page], "next": f"{api.base}/a?ctx={next(fresh)}"})

    api.answer = answer
    found: list[int] = []
    async with opened(api.base) as client:
        walk = ahead(cursor(client, FIVE))
        with suppress(NotFound):
            async for pages in walk:
                found += [row["id"] for page in pages for row in page.values]
            pytest.fail("the walk ended as if it were complete")
    assert found == [1, 2]


async def test_a_walk_that_is_left_early_costs_the_client_no_connection() -> None:
    """At whichever turn of the event loop its request ahead is cancelled: while it connects, reads, or closes."""
    fresh = itertools.count()

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, port = writer.get_extra_info("sockname")
        body = {"values": [{"id": 1}], "next": f"http://127.0.0.1:{port}/2.0/a?ctx={next(fresh)}"}
        await sends(json.dumps(body).encode())(reader, writer)

    async with raw(page) as (base, _):
        for turns in range(40):
            async with opened(base, max_in_flight=1, timeouts=Timeouts(pool=0.2)) as client:
                async with aclosing(ahead(cursor(client, FIVE))) as walk:
                    await anext(walk)
                    for _turn in range(turns):
                        await asyncio.sleep(0)
                assert await client.get("/a"), turns


@pytest.mark.parametrize("count", [0, 4, 5, 12, 15])
@pytest.mark.parametrize("size", [True, False])
async def test_numbered_ends_where_the_list_ends(api: Server, count: int, size: bool) -> None:
    api.answer = Listing(list(range(count)), size=size)
    async with opened(api.base) as client:
        assert await ids_of(numbered(client, FIVE)) == list(range(count))


@pytest.mark.parametrize("count", [0, 4, 12])
async def test_a_size_larger_than_the_list_ends_no_walk(api: Server, count: int) -> None:
    ids = list(range(count))

    def answer(request: Request) -> Response:
        page, last = int(request.query_params.get("page", "1")), request.query_params.get("q", "id > -1")
        left = [one for one in ids if one > int(last.rpartition(" ")[2])]
        values = [{"id": one} for one in left[(page - 1) * 5 : page * 5]]
        return JSONResponse({"values": values, "size": 300, "pagelen": 5})

    api.answer = answer
    async with opened(api.base) as client:
        assert await ids_of(numbered(client, FIVE)) == ids
        assert await ids_of(keyset(client, FIVE, descending=False)) == ids


async def test_numbered_goes_on_after_a_short_page_and_stops_at_a_repeated_one(api: Server) -> None:
    pages = [[{"id": 1}, {"id": 2}], [], [{"id": 3}, None, "no row"]]
    api.answer = lambda request: JSONResponse({"size": 15, "values": pages[int(request.query_params["page"]) - 1]})
    async with opened(api.base) as client:
        assert await ids_of(numbered(client, FIVE)) == [1, 2, 3]
        api.answer = lambda _: JSONResponse({"size": 15, "values": [{"id": 1}]})
        with pytest.raises(PagingInCircles):
            await ids_of(numbered(client, FIVE))
        api.answer = lambda _: JSONResponse({"values": None, "size": 0})
        assert await ids_of(numbered(client, FIVE)) == []
        for body in ({"error": "Sorry"}, {"values": None}, {"values": None, "size": 1}, {"values": [], "next": 2}, {}):
            api.answer = answers(JSONResponse, body)
            with pytest.raises(Unavailable):
                await ids_of(numbered(client, FIVE))


@pytest.mark.parametrize("row", [None, "row", {}, {"id": None}, {"id": ["1"]}, {"id": True}, {"id": 1.5}])
async def test_a_row_that_cannot_be_read_is_told(api: Server, row: object) -> None:
    endpoint = replace(FIVE, key="id")
    api.answer = answers(JSONResponse, {"values": [{"id": 2}, row], "size": 2})
    async with opened(api.base) as client:
        for walk in (cursor(client, endpoint), numbered(client, endpoint, strict=True)):
            with pytest.raises(Unavailable, match="1 row that cannot be read"):
                await ids_of(walk)
        for walk in (keyset(client, endpoint), numbered(client, endpoint), by_id_ranges(client, endpoint)):
            assert [(page.values, page.unreadable) async for page in walk] == [([{"id": 2}], 1)]
        left = iter([row, row, {"id": 1}])
        api.answer = lambda _: JSONResponse({"values": [{"id": 2}, next(left)], "size": 2})
        assert await ids_of(cursor(client, endpoint)) == [2, 1]


@given(st.sets(st.integers(1, 400), max_size=60), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=25)
def test_id_windows_find_every_row_of_an_unsorted_list_once(running, ids: set[int], chance, size: bool) -> None:
    running[0].answer = listing = Listing(sorted(ids, key=lambda _: chance.random()), size=size)

    async def walk() -> list[int]:
        async with opened(running[0].base) as client:
            return await ids_of(by_id_ranges(client, FIVE))

    assert sorted(asyncio.run(walk())) == sorted(ids)
    assert listing.asked < 20 + len(ids) * 4


async def test_id_windows_cost_little_more_than_the_pages_and_notice_an_ignored_filter(api: Server) -> None:
    async with opened(api.base) as client:
        for ids in (list(range(1, 1001)), list(range(1000, 0, -1))):
            api.answer = listing = Listing(ids)
            assert sorted(await ids_of(by_id_ranges(client, FIVE))) == list(range(1, 1001))
            assert listing.asked <= 210
        api.answer = Listing(list(range(1, 20)), filters=False)
        with pytest.raises(PagingInCircles, match="ignored"):
            await ids_of(by_id_ranges(client, FIVE))


@pytest.mark.parametrize("walk", [keyset, numbered])
async def test_a_page_that_is_too_large_for_the_api_is_asked_in_smaller_ones(api: Server, walk) -> None:
    api.answer = Listing(list(range(1, 75)), most=30)
    async with opened(api.base) as client:
        found = await ids_of(walk(client, replace(FIVE, pagelen=100)))
    assert sorted(found) == list(range(1, 75))


async def test_a_page_that_was_only_guessed_may_be_refused(api: Server) -> None:
    listing = Listing([1, 2, 3, 4, 5], size=False)
    api.answer = lambda request: JSONResponse({}, 404) if request.query_params.get("page") == "2" else listing(request)
    async with opened(api.base) as client:
        assert await ids_of(numbered(client, FIVE)) == [1, 2, 3, 4, 5]
        listing.size, listing.ids = True, [1, 2, 3, 4, 5, 6]
        with pytest.raises(NotFound):
            await ids_of(numbered(client, FIVE))
