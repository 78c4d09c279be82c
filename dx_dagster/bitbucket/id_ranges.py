"""Lists pull requests completely without a sort, by ranges of ids."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise

from dx_dagster.bitbucket.call import Requester
from dx_dagster.bitbucket.endpoints import Endpoint
from dx_dagster.bitbucket.errors import PagingInCircles
from dx_dagster.bitbucket.paging import Page, ask, bbql


@dataclass(frozen=True)
class IdRange:
    """The ids with above < id <= upto; None for an upper end that is not known yet."""

    above: int
    upto: int | None

    @property
    def conditions(self) -> tuple[str, ...]:
        low = f"id > {self.above}"
        return (low,) if self.upto is None else (low, f"id <= {self.upto}")

    @property
    def end(self) -> int:
        return self.above if self.upto is None else self.upto

    @property
    def width(self) -> int:
        return self.end - self.above

    def holds(self, number: int) -> bool:
        return number > self.above and (self.upto is None or number <= self.upto)


async def by_id_ranges(
    client: Requester,
    endpoint: Endpoint,
    *,
    q: str | None = None,
    low: int = 0,
    high: int | None = None,
    attempts: int | None = None,
) -> AsyncIterator[Page]:
    """Every row with low < id <= high, in no order, by ranges of ids that fit on one page each.

    For large repositories, where `sort` together with states always answers 500 (S20).

    Raises:
        PagingInCircles: the API ignored the filter and returned rows outside of the range.
    """
    number, ranges = 0, [IdRange(low, high)]
    while ranges:
        number, span = number + 1, ranges.pop()
        page = await ask(client, endpoint.having(bbql(q, *span.conditions)), number, attempts=attempts)
        ids = _ids(endpoint, page, span)
        if page.complete:
            yield page
            continue
        known = IdRange(span.above, max(ids, default=span.above) if span.upto is None else span.upto)
        if span.upto is None:
            # The upper end is unknown: first the ids up to the greatest one seen, then those above it.
            ranges.append(IdRange(known.end, None))
        if ids and len(ids) == known.width:
            yield page  # the range holds no other id, whatever the page's size says
        else:
            ranges += _split(endpoint, page, known, least=1 if span.upto is None else 2)


def _ids(endpoint: Endpoint, page: Page, span: IdRange) -> set[int]:
    ids = [row.get("id") for row in page.values]
    distinct = {one for one in ids if isinstance(one, int) and span.holds(one)}
    if len(distinct) != len(ids):
        raise PagingInCircles(f"{endpoint.path} ignored the filter by id, or repeated one", path=endpoint.path)
    return distinct


def _split(endpoint: Endpoint, page: Page, span: IdRange, least: int) -> list[IdRange]:
    """Splits the range into as many parts as its rows need pages; the lowest comes last, to be popped first."""
    if span.width < least:
        raise PagingInCircles(f"{endpoint.path} says that there are more rows where no id is left", path=endpoint.path)
    pages = -(-min(page.size or 0, span.width) // page.pagelen)
    parts = min(span.width, max(least, pages))
    edges = [span.above + span.width * part // parts for part in range(parts + 1)]
    return [IdRange(above, upto) for above, upto in pairwise(edges)][::-1]
