"""Progress of an import: bars on a terminal, plain lines elsewhere, which need no rich."""

import logging
import math
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dx_dagster.telemetry import json_logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dx_dagster.cli.bars import Bars

_SECONDS_BETWEEN_LINES = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outlook:
    """What a sync may send, as known at its start.

    Attributes:
        left: requests of the budgets, in this hour.
        limit: requests an hour of the budgets.
        expected: requests that a first import is expected to take; None for a later sync.
    """

    left: int
    limit: int
    expected: int | None = None

    def after(self, requests: int) -> str:
        """How much is left after so many requests of this sync."""
        left = max(0, self.left - requests)
        budget = f"{left:,} of this hour's {self.limit:,} requests left"
        to_go = 0 if self.expected is None else self.expected - requests
        if to_go <= 0:
            return budget
        hours = math.ceil((to_go - left) / self.limit) if to_go > left and self.limit else 0
        later = f", the rest within about {hours} hour{'s' if hours > 1 else ''}" if hours else ""
        return f"about {to_go:,} requests to go; {budget}{later}"


class Logged:
    """The same as lines of a JSON log."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def progress(self, step: str, done: int, total: int, requests: int, counted: str) -> None:
        if done == total or time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            _log.info("%s: %s of %s %s, %s requests", step, done, total, counted, requests)

    def warning(self, message: str) -> None:
        _log.warning(message)


class Lines:
    """A line every few seconds, and one at the end of each step, on standard error."""

    def __init__(self) -> None:
        self._file = sys.stderr  # of this moment: `Installation.dagster` puts another in its place for a while
        self._last = time.monotonic()

    def progress(self, step: str, done: int, total: int, requests: int, counted: str) -> None:
        if done == total or time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self.warning(f"{step}: {done} of {total} {counted}, {requests} requests")

    def warning(self, message: str) -> None:
        print(message, file=self._file, flush=True)


@contextmanager
def display(outlook: Outlook | None = None) -> "Iterator[Bars | Lines | Logged]":
    """The display on standard error; standard output contains results only."""
    if json_logs.are_set_up():
        yield Logged()
        return
    if not sys.stderr.isatty() and not os.environ.get("FORCE_COLOR"):
        yield Lines()
        return
    from dx_dagster.cli.bars import bars

    with bars(outlook) as shown:
        yield shown
