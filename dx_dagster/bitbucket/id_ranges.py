"""A complete sweep of pull requests without asking the API to sort them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise

from dx_dagster.bitbucket.call import Requester
from dx_dagster.bitbucket.endpoints import Endpoint
from dx_dagster.bitbucket.errors import PagingInCircles
from dx_dagster.bitbucket.paging import Page, ask, bbql


@dataclass(frozen=True)
class Window:
    """above < id <= upto; None for an end that is not known yet."""

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


async def id_windows(
    client: Requester,
    endpoint: Endpoint,
    *,
    q: str | None = None,
    low: int = 0,
    high: int | None = None,
    attempts: int | None = None,
) -> AsyncIterator[Page]:
    """Every row with low < id <= high, in no order, by ranges of ids small enough for one page each.

    For large repositories, where `sort` together with states answers 500 every time (S20).

    Raises:
        PagingInCircles: rows outside of the range came back: the filter was ignored.
    """
    number, windows = 0, [Window(low, high)]
    while windows:
        number, window = number + 1, windows.pop()
        page = await ask(client, endpoint.having(bbql(q, *window.conditions)), number, attempts=attempts)
        ids = _ids(endpoint, page, window)
        if page.complete:
            yield page
            continue
        known = Window(window.above, max(ids, default=window.above) if window.upto is None else window.upto)
        if window.upto is None:
            # The far end is unknown: first all up to the greatest id seen, then whatever lies above it.
            windows.append(Window(known.end, None))
        if ids and len(ids) == known.width:
            yield page  # no other id can be in there, whatever the page claims
        else:
            windows += _split(endpoint, page, known, least=1 if window.upto is None else 2)


def _ids(endpoint: Endpoint, page: Page, window: Window) -> set[int]:
    ids = [row.get("id") for row in page.values]
    found = {one for one in ids if isinstance(one, int) and window.holds(one)}
    if len(found) != len(ids):
        raise PagingInCircles(f"{endpoint.path} ignored the filter by id, or repeated one", path=endpoint.path)
    return found


def _split(endpoint: Endpoint, page: Page, window: Window, least: int) -> list[Window]:
    """The range in as many parts as its rows need pages, the lowest last, for it is popped first."""
    if window.width < least:
        raise PagingInCircles(f"{endpoint.path} says there is more where no id is left", path=endpoint.path)
    pages = -(-min(page.size or 0, window.width) // page.pagelen)
    parts = min(window.width, max(least, pages))
    edges = [window.above + window.width * part // parts for part in range(parts + 1)]
    return [Window(above, upto) for above, upto in pairwise(edges)][::-1]
