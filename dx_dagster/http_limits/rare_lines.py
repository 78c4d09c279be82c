"""Rate limit for log lines that unauthenticated clients can cause."""

import asyncio
import logging


class RareLines:
    """Writes at most some lines a minute of each kind, and one line with the count of the others.

    It needs a running event loop.
    """

    def __init__(self, log: logging.Logger, most: int = 1, seconds: float = 60.0) -> None:
        self._log, self._most, self._seconds = log, most, seconds
        self._counts: dict[str, int] = {}

    def warning(self, kind: str, details: str = "") -> None:
        """Writes the kind with its details, or counts it. The number of kinds must be small."""
        if self.allows(kind):
            self._log.warning("%s%s", kind, details and f" {details}")

    def allows(self, kind: str) -> bool:
        """Whether a line of this kind is written now."""
        count = self._counts.get(kind, 0)
        if count == 0:
            asyncio.get_running_loop().call_later(self._seconds, self._count, kind)
        self._counts[kind] = count + 1
        return count < self._most

    def _count(self, kind: str) -> None:
        more = self._counts.pop(kind) - self._most
        if more > 0:
            self._log.warning("%s: %d more within %g s", kind, more, self._seconds)
