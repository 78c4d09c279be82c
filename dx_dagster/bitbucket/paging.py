"""Pagination without lost rows, which raises an error where rows would be lost.

Each kind of walk is an async generator of `Page`s. It raises what the client raises, or `PagingInCircles` where the
next request would repeat or lose rows. It ends only where the listing is complete, so a row that a complete walk did
not return is absent.

A row that is null, or lacks its key, could be any row. Its page is requested again. A walk of `cursor`, or of
`numbered` where it is `strict`, then ends with an error. The other walks go on, so that such a row does not hold up all
others, and the caller sees it in `Page.unreadable`: what such a walk did not return is not absent.
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
import orjson

from dx_dagster.bitbucket.call import Requester
from dx_dagster.bitbucket.endpoints import LEAST_PAGE, Endpoint
from dx_dagster.bitbucket.errors import BadRequest, NotFound, PagingInCircles, Unavailable
from dx_dagster.bitbucket.row_keys import has_key

Row = dict[str, Any]

_MOST_EMPTY = 3  # empty pages in a row that claim there is more
_TRIES_TO_READ = 3


@dataclass(frozen=True)
class Page:
    """One page of a listing.

    Attributes:
        values: the rows that are objects and have their key.
        count: the number of all rows.
        next: the API's link to the next page.
        size: of the whole listing, where the API says it.
        number: counts from 1 within a walk; the API's page number in `numbered`.
    """

    values: list[Row]
    count: int
    next: str | None
    size: int | None
    pagelen: int
    number: int
    asked_at: datetime

    @property
    def unreadable(self) -> int:
        """The number of rows that are no objects, or lack their key."""
        return self.count - len(self.values)

    @property
    def complete(self) -> bool:
        """Whether this page is the whole listing."""
        if self.next is not None:
            return False
        # `next` was missing once (docs/bitbucket-api.md, "Paging"): a full page without a size may have a successor.
        return self.count < self.pagelen if self.size is None else self.size <= self.count


async def ask(
    client: Requester, endpoint: Endpoint, number: int = 1, link: str | None = None, attempts: int | None = None
) -> Page:
    """Requests one page of a listing, again where some of its rows cannot be read.

    Raises:
        Unavailable: the response is not a page, but a 200 with an error for example.
    """
    for _ in range(_TRIES_TO_READ):
        page = await _ask_once(client, endpoint, number, link, attempts)
        if not page.unreadable:
            break
    return page


async def _ask_once(client: Requester, endpoint: Endpoint, number: int, link: str | None, attempts: int | None) -> Page:
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
        # The largest page size may change at any time (docs/bitbucket-api.md, "Paging").
        if link or asked <= LEAST_PAGE or "pagelen" not in (error.message or ""):
            raise
        return await _ask_once(client, replace(endpoint, pagelen=max(LEAST_PAGE, asked // 2)), number, None, attempts)
    if not _is_page(body):
        raise Unavailable(f"{endpoint.path} answered with something other than a page", path=endpoint.path)
    rows = body.get("values") or []
    return Page(
        values=[row for row in rows if has_key(row, endpoint.key)],
        count=len(rows),
        next=body.get("next") or None,
        size=_natural(body.get("size")),
        pagelen=_natural(body.get("pagelen")) or asked,
        number=number,
        asked_at=asked_at,
    )


def _is_page(body: Any) -> bool:
    """A page may have null in place of its rows only where it says that there are none."""
    if not isinstance(body, dict) or not isinstance(body.get("next"), str | None):
        return False
    values = body.get("values")
    return isinstance(values, list) or (values is None and body.get("size") == 0)


def require_readable(endpoint: Endpoint, page: Page) -> None:
    """Checks that each row of a page could be read.

    Raises:
        Unavailable: one could not.
    """
    if page.unreadable:
        raise unreadable(endpoint.path, page.unreadable)


def unreadable(path: str, rows: int) -> Unavailable:
    return Unavailable(f"{path} sent {rows} {'rows' if rows > 1 else 'row'} that cannot be read", path=path)


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
    """Walks by a unique, unchanging key ("id", "uuid"): offsets lose rows when the list changes during the walk.

    `start` is the last key that is known. Each page is requested from the last key on, and `next` is not used.

    Raises:
        PagingInCircles: a key is not beyond the last one, so the API ignored the filter or the sort.
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
                f"{endpoint.path} sent a page without rows and says that there are more", path=endpoint.path
            )
        if empty > 1:
            return  # a size may count rows that are hidden from this credential


async def find_row(client: Requester, endpoint: Endpoint, key: str, value: int | str) -> Row | None:
    """The row of a list with this key, by which the API filters the list; None where it shows no such row.

    An API that refuses the filter, or ignores it, shows none either: then this says nothing.

    Raises:
        Unavailable: the list promises rows that it does not send, or a row cannot be read.
    """
    try:
        page = await ask(client, endpoint.having(bbql(f"{key} = {_literal(value)}")))
    except BadRequest:
        return None
    require_readable(endpoint, page)
    if not page.values and not page.complete:
        raise Unavailable(f"{endpoint.path} does not say whether there is {key} {value}", path=endpoint.path)
    return next((row for row in page.values if row.get(key) == value), None)


def bbql(*conditions: str | None) -> dict[str, str]:
    """The `q` parameter for all of the conditions, each in parentheses, because one may contain an OR."""
    given = [condition for condition in conditions if condition]
    return {"q": given[0] if len(given) == 1 else " AND ".join(f"({one})" for one in given)} if given else {}


def _literal(value: int | str) -> str:
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)


def _last_key(
    endpoint: Endpoint, page: Page, key: str, last: int | str | None, *, descending: bool
) -> int | str | None:
    for row in page.values:
        value = row.get(key)
        if not isinstance(value, int | str) or (last is not None and type(value) is not type(last)):
            raise PagingInCircles(f"{endpoint.path} sent a row without a usable {key}", path=endpoint.path)
        beyond = last is None or (value < last if descending else value > last)  # type: ignore[operator]
        if not beyond:
            raise PagingInCircles(f"{endpoint.path} ignored the filter or the sort by {key}", path=endpoint.path)
        last = value
    return last


async def cursor(
    client: Requester, endpoint: Endpoint, *, start: str | None = None, attempts: int | None = None
) -> AsyncIterator[Page]:
    """Walks along the API's opaque links. Store `Page.next` and pass it as `start` to resume there.

    Raises:
        RefusedOrigin: a link is of another origin.
        PagingInCircles: a link or a page was repeated, or pages stay empty.
        Unavailable: a row cannot be read.
    """
    number, empty, link = 0, 0, start
    links: set[int] = set()  # of their hashes: a feed may have thousands
    pages: set[bytes] = set()
    while True:
        number += 1
        page = await ask(client, endpoint, number, link, attempts)
        require_readable(endpoint, page)
        empty = 0 if page.count else empty + 1
        # Most listings of one pull request are a single page, and need no fingerprint.
        fingerprint = _fingerprint(page) if links or page.next else b""
        if hash(page.next) in links or (page.count and fingerprint in pages) or empty > _MOST_EMPTY:
            raise PagingInCircles(f"{endpoint.path} repeats itself at page {number}", path=endpoint.path)
        yield page
        if page.next is None:
            return
        link = page.next
        links.add(hash(link))
        pages.add(fingerprint)


def _fingerprint(page: Page) -> bytes:
    """Identifies a page by its first and last row: listings hold no row twice."""
    ends = (page.count, page.values[:1], page.values[-1:])
    try:
        encoded = orjson.dumps(ends, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits
        encoded = json.dumps(ends, sort_keys=True).encode()
    return hashlib.blake2b(encoded, digest_size=16).digest()


async def numbered(
    client: Requester, endpoint: Endpoint, *, start: int = 1, attempts: int | None = None, strict: bool = False
) -> AsyncIterator[Page]:
    """Walks by page numbers, because `next` of pipelines drops `sort` (docs/bitbucket-api.md, "Pipelines").

    A list that changes during the walk may shift rows across a page boundary. Use it for lists that only grow at the
    far end, or for walks that overlap what is known.

    Raises:
        PagingInCircles: a page was repeated, or pages stay empty before the end.
        Unavailable: a row cannot be read, and the walk is `strict`.
    """
    number, empty, before, has_next = start, 0, b"", True
    while True:
        try:
            page = await ask(client, endpoint.having({"page": number}), number, attempts=attempts)
        except (BadRequest, NotFound):
            if has_next:
                raise
            return  # the page before was full and had no `next`: it was the last
        if strict:
            require_readable(endpoint, page)
        empty = 0 if page.count else empty + 1
        fingerprint = _fingerprint(page) if before or _has_successor(page) else b""
        if empty > _MOST_EMPTY and page.next is None:
            return  # a size may count rows that are hidden from this credential
        if (page.count and before and fingerprint == before) or empty > _MOST_EMPTY:
            raise PagingInCircles(f"{endpoint.path} repeats itself at page {number}", path=endpoint.path)
        if page.count or number == start:
            yield page
        if not _has_successor(page):
            return
        number, before, has_next = number + 1, fingerprint, page.next is not None or page.size is not None


def _has_successor(page: Page) -> bool:
    if page.next is not None:
        return True
    return page.count >= page.pagelen if page.size is None else page.number * page.pagelen < page.size


_MOST_AHEAD = 3  # pages fetched and not stored yet; a killed process must fetch them again


async def ahead(pages: AsyncIterator[Page]) -> AsyncGenerator[list[Page], None]:
    """Prefetches pages while the caller stores earlier ones; yields the pages that have arrived, in order.

    Only for walks to the end of a listing: a walk that stops earlier would fetch pages in vain. Close it (`aclosing`),
    or its task keeps fetching.

    Raises:
        BitbucketError: an error of the walk, after the pages before it.
    """
    sending, coming = anyio.create_memory_object_stream[Page](_MOST_AHEAD)
    scope = anyio.CancelScope()

    async def ask_on() -> None:
        with scope:
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
        # The task's own `cancel` could cost the client a connection:
        # findings/httpx_loses_a_connection_to_a_cancelled_task.sh.
        scope.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(asking, return_exceptions=True)


async def one_by_one(pages: AsyncIterator[Page]) -> AsyncGenerator[list[Page], None]:
    """Yields each page by itself, without prefetching."""
    async for page in pages:
        yield [page]
