"""Walking a listing so that no row is lost, and noticing when it cannot be.

Each walk is an async generator of `Page`s and raises what the client raises, or `PagingInCircles` where going on would
repeat or lose rows. It ends only where the listing is complete: a walk that came to its end is news of absence too.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import anyio

from dx_dagster.bitbucket.call import Requester
from dx_dagster.bitbucket.endpoints import LEAST_PAGE, Endpoint
from dx_dagster.bitbucket.errors import BadRequest, NotFound, PagingInCircles, Unavailable

Row = dict[str, Any]

_MOST_EMPTY = 3  # empty pages in a row that claim there is more


@dataclass(frozen=True)
class Page:
    """`values` without what is no object, `count` with it; `next` is the API's own link.

    `size` is that of the whole listing, where told. `number` counts from 1 within a walk, except that of `numbered`,
    where it is the API's page number.
    """

    values: list[Row]
    count: int
    next: str | None
    size: int | None
    pagelen: int
    number: int
    asked_at: datetime

    @property
    def complete(self) -> bool:
        """Whether this page alone is all there is."""
        if self.next is not None:
            return False
        # `next` was missing once (docs/bitbucket-api.md, "Paging"): a full page without a size may have a successor.
        return self.count < self.pagelen if self.size is None else self.size <= self.count


async def ask(
    client: Requester, endpoint: Endpoint, number: int = 1, link: str | None = None, attempts: int | None = None
) -> Page:
    """One page of a listing.

    Raises:
        Unavailable: the answer is no page; a 200 that reports an error is none either.
    """
    asked = endpoint.pagelen or 10  # the API's default
    params = None if link else {**endpoint.params, "pagelen": asked}
    asked_at = client.now()
    try:
        body = await client.request(
            endpoint.method,
            link or endpoint.path,
            params=params,
            data=endpoint.data,
            attempts=attempts,
            idempotent=True,
        )
    except BadRequest as error:
        # The largest page may change at any time (docs/bitbucket-api.md, "Paging").
        if link or asked <= LEAST_PAGE or "pagelen" not in (error.message or ""):
            raise
        return await ask(client, replace(endpoint, pagelen=max(LEAST_PAGE, asked // 2)), number, None, attempts)
    values = body.get("values") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(values, list | None) or (values is None and "error" in body):
        raise Unavailable(f"{endpoint.path} answered with something that is no page", path=endpoint.path)
    rows = values or []
    following = body.get("next")
    return Page(
        values=[row for row in rows if isinstance(row, dict)],
        count=len(rows),
        next=following if isinstance(following, str) and following else None,
        size=_natural(body.get("size")),
        pagelen=_natural(body.get("pagelen")) or asked,
        number=number,
        asked_at=asked_at,
    )


def _natural(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


async def keyset(
    client: Requester,
    endpoint: Endpoint,
    *,
    key: str = "id",
    descending: bool = True,
    q: str | None = None,
    start: int | str | None = None,
    attempts: int | None = None,
) -> AsyncIterator[Page]:
    """By a unique, unchanging key ("id", "uuid") instead of offsets, which lose rows of a living list.

    `start` is the last key known already. Every page is asked for anew from the last key, and `next` is not used.

    Raises:
        PagingInCircles: the keys of a page are not strictly beyond the last: the filter or the sort was ignored.
    """
    number, last, towards = 0, start, "<" if descending else ">"
    empty = 0
    while True:
        number += 1
        condition = None if last is None else f"{key} {towards} {_literal(last)}"
        asked = endpoint.having({"sort": f"-{key}" if descending else key} | bbql(q, condition))
        page = await ask(client, asked, number, attempts=attempts)
        last = _last_key(endpoint, page, key, last, descending=descending)
        if page.count or number == 1:
            yield page
        if page.complete:
            return
        empty = 0 if page.values else empty + 1
        if empty and page.next is not None:
            raise PagingInCircles(
                f"{endpoint.path} sent a page without rows and says there are more", path=endpoint.path
            )
        if empty > 1:
            return  # a size may count rows that nobody is shown


def bbql(*conditions: str | None) -> dict[str, str]:
    """The `q` for all of the conditions; each in parentheses, because one may hold an OR."""
    given = [condition for condition in conditions if condition]
    return {"q": given[0] if len(given) == 1 else " AND ".join(f"({one})" for one in given)} if given else {}


def _literal(value: int | str) -> str:
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)


def _last_key(
    endpoint: Endpoint, page: Page, key: str, last: int | str | None, *, descending: bool
) -> int | str | None:
    for row in page.values:
        found = row.get(key)
        if not isinstance(found, int | str) or (last is not None and type(found) is not type(last)):
            raise PagingInCircles(f"{endpoint.path} sent a row without a usable {key}", path=endpoint.path)
        beyond = last is None or (found < last if descending else found > last)  # type: ignore[operator]
        if not beyond:
            raise PagingInCircles(f"{endpoint.path} ignored the filter or the sort by {key}", path=endpoint.path)
        last = found
    return last


async def cursor(
    client: Requester, endpoint: Endpoint, *, start: str | None = None, attempts: int | None = None
) -> AsyncIterator[Page]:
    """Along the API's opaque links. Store `Page.next` and pass it as `start` to resume there.

    Raises:
        RefusedOrigin: a link leads away from the API.
        PagingInCircles: a link or a page came before, or pages stay empty.
    """
    number, empty, link = 0, 0, start
    links: set[str] = set()
    pages: set[bytes] = set()
    while True:
        number += 1
        page = await ask(client, endpoint, number, link, attempts)
        empty = 0 if page.count else empty + 1
        # Most listings of one pull request are a single page: nothing to compare it with.
        fingerprint = _fingerprint(page) if links or page.next else b""
        if page.next in links or (page.count and fingerprint in pages) or empty > _MOST_EMPTY:
            raise PagingInCircles(f"{endpoint.path} repeats itself at page {number}", path=endpoint.path)
        yield page
        if page.next is None:
            return
        link = page.next
        links.add(link)
        pages.add(fingerprint)


def _fingerprint(page: Page) -> bytes:
    """Two pages with the same first and last row are the same page: listings hold no row twice."""
    told = json.dumps((page.count, page.values[:1], page.values[-1:]), sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=16).digest()


async def numbered(
    client: Requester, endpoint: Endpoint, *, start: int = 1, attempts: int | None = None
) -> AsyncIterator[Page]:
    """By page numbers, because `next` of pipelines drops `sort` (docs/bitbucket-api.md, "Pipelines").

    A list that changes meanwhile may shift rows over a page's edge: for lists that only grow at the far end, or whose
    walk overlaps what is known.

    Raises:
        PagingInCircles: a page came twice, or pages stay empty though there should be more.
    """
    number, empty, before, told = start, 0, b"", True
    while True:
        try:
            page = await ask(client, endpoint.having({"page": number}), number, attempts=attempts)
        except (BadRequest, NotFound):
            if told:
                raise
            return  # the page before was full, and nothing said that it was the last
        empty = 0 if page.count else empty + 1
        fingerprint = _fingerprint(page) if before or _has_successor(page) else b""
        if empty > _MOST_EMPTY and page.next is None:
            return  # a size may count rows that nobody is shown
        if (page.count and before and fingerprint == before) or empty > _MOST_EMPTY:
            raise PagingInCircles(f"{endpoint.path} repeats itself at page {number}", path=endpoint.path)
        if page.count or number == start:
            yield page
        if not _has_successor(page):
            return
        number, before, told = number + 1, fingerprint, page.next is not None or page.size is not None


def _has_successor(page: Page) -> bool:
    if page.next is not None:
        return True
    return page.count >= page.pagelen if page.size is None else page.number * page.pagelen < page.size


_MOST_AHEAD = 3  # pages that nobody has taken yet; a killed process has asked for them in vain


async def ahead(pages: AsyncIterator[Page]) -> AsyncGenerator[list[Page], None]:
    """Goes on asking while pages are being stored; yields those that came in the meantime, in their order.

    For walks to the end of a listing: one that may stop earlier would ask for pages that it does not want. Close it
    (`aclosing`), or it goes on for nobody.

    Raises:
        BitbucketError: what the walk raises, after the pages before it.
    """
    sending, coming = anyio.create_memory_object_stream[Page](_MOST_AHEAD)

    async def ask_on() -> None:
        async with sending:
            async for page in pages:
                await sending.send(page)

    asking = asyncio.create_task(ask_on())
    try:
        async with coming:
            async for page in coming:
                came = [page]
                with suppress(anyio.WouldBlock, anyio.EndOfStream):
                    while True:
                        came.append(coming.receive_nowait())
                yield came
        await asking
    finally:
        asking.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(asking, return_exceptions=True)


async def one_by_one(pages: AsyncIterator[Page]) -> AsyncGenerator[list[Page], None]:
    """The same without asking ahead."""
    async for page in pages:
        yield [page]
