"""Limits how many items are worked on at once, by a bound that grows during the work."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio


class GrowingLimit:
    """Permits `bound()` items at once, as it was when `grow` was last called."""

    def __init__(self, bound: Callable[[], int]) -> None:
        self._bound = bound
        self._limiter = anyio.CapacityLimiter(bound())

    def grow(self) -> None:
        """Raises the limit to the present bound; it never falls."""
        self._limiter.total_tokens = max(self._limiter.total_tokens, self._bound())

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Waits, first come first served, until one more item is permitted."""
        holder = await self.take()
        try:
            yield
        finally:
            self.free(holder)

    async def take(self) -> object:
        """Waits for a slot; returns what `free` takes."""
        holder = object()
        await self._limiter.acquire_on_behalf_of(holder)
        return holder

    def free(self, holder: object) -> None:
        self._limiter.release_on_behalf_of(holder)
