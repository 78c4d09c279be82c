"""Stores what several tasks have fetched in one transaction."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import anyio

# A transaction for each answer would cost more than the request. Other tasks go on with their requests meanwhile.
GATHERING = 0.05
STORED_AT_ONCE = 2

Item = TypeVar("Item")


class _Group(Generic[Item]):
    """Items that are stored together, and the error that stopped it, if any."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.over = anyio.Event()
        self.error: BaseException | None = None


class GroupCommit(Generic[Item]):
    """Stores together what arrives within `GATHERING` seconds, or while earlier groups are being stored."""

    def __init__(self, store: Callable[[Sequence[Item]], Awaitable[None]]) -> None:
        self._store = store
        self._gathering: _Group[Item] | None = None
        self._storing = anyio.Semaphore(STORED_AT_ONCE)

    async def __call__(self, item: Item) -> None:
        """Returns when the item is stored.

        Raises:
            BaseException: storing its group failed; every task of the group gets the same error.
        """
        group, first = self._gathering or _Group(), self._gathering is None
        self._gathering = group
        group.items.append(item)
        if first:
            await self._finish(group)
        else:
            await group.over.wait()
            if group.error is not None:
                raise group.error

    async def _finish(self, group: _Group[Item]) -> None:
        try:
            async with self._storing:
                await anyio.sleep(GATHERING)
                self._gathering = None  # later items form the next group, before this one is stored
                await self._store(group.items)
        except BaseException as error:
            group.error = error
            raise
        finally:
            # Cancelled while it gathered: without this, later items would join a group that is never stored.
            if self._gathering is group:
                self._gathering = None
            group.over.set()
